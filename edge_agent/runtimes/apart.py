"""A bundle's TFLite file is proven in a process of its own before the agent's own process touches it: a runtime that ends the
process on a file, or a processor that lacks an instruction of its kernels, then costs the gateway nothing.

The child does what `load` does, golden vectors included, on TFLite alone; it holds the bundle a second time for as long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from edge_agent.config import TFLITE, RuntimeSettings
from protocol.errors import BadBundle, Reason

LIMIT_S = 120.0
REFUSED = 3
START = "import sys; from edge_agent.runtimes.apart import main; sys.exit(main(sys.argv[1:]))"
ROOT = Path(__file__).parents[2]


def proven_apart(archive: bytes, digest: str, runtime: RuntimeSettings, limit_s: float = LIMIT_S) -> None:
    """Returns if the bundle's TFLite file answers its golden vectors on this machine. Raises BadBundle with the reason."""
    asked = msgspec.json.encode(msgspec.structs.replace(runtime, engines=(TFLITE,))).decode()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-c", START, digest, asked],
            input=archive,
            capture_output=True,
            timeout=limit_s,
            env=os.environ | {"PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"the TFLite runtime had not answered after {limit_s:g} s and was stopped"
        ) from error
    except OSError as error:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"the TFLite file cannot be tried in a process of its own: {error.strerror}"
        ) from error
    if done.returncode == REFUSED:
        reason, _, detail = done.stdout.decode().partition(" ")
        raise BadBundle(Reason(reason), detail)
    if done.returncode < 0:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"the TFLite runtime ended its process ({signal.Signals(-done.returncode).name}) with this file",
        )
    if done.returncode:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"the TFLite file failed: {done.stderr.decode()[-400:].strip()}")


def main(arguments: list[str]) -> int:
    """The child: a bundle on standard input; its digest and the settings as arguments. Exit status 0: proven; REFUSED: why,
    on standard output."""
    from edge_agent.runtimes import load

    digest, asked = arguments
    try:
        load(sys.stdin.buffer.read(), digest, msgspec.json.decode(asked, type=RuntimeSettings), apart=False)
    except BadBundle as error:
        sys.stdout.write(f"{error.reason} {error.detail}")
        return REFUSED
    return 0
