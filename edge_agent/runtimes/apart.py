"""A bundle's TFLite file is proven in a process of its own before the agent's own process touches it: a runtime that ends the
process on a file, or a processor that lacks an instruction of its kernels, then costs the gateway nothing.

The child does what `load` does, golden vectors included, on TFLite alone, and says how long they took; it holds the bundle a
second time for as long. A gateway whose other engine is faster never loads a TFLite runtime."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_agent.config import RuntimeSettings
from protocol.errors import BadBundle, Reason

LIMIT_S = 120.0
REFUSED = 3
START = "import sys; from edge_agent.runtimes.apart import main; sys.exit(main(sys.argv[1:]))"
ROOT = Path(__file__).parents[2]


def proven_apart(archive: bytes, digest: str, runtime: RuntimeSettings, limit_s: float = LIMIT_S) -> float:
    """Microseconds that the bundle's TFLite file takes for its golden inputs on this machine. Raises BadBundle with the
    reason if it is not right here."""
    asked = msgspec.json.encode(runtime).decode()
    done = in_a_process(START, [digest, asked], archive, limit_s, "the TFLite file's proof")
    if done.returncode == REFUSED:
        reason, _, detail = done.stdout.decode().partition(" ")
        raise BadBundle(Reason(reason), detail)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip()[-400:]
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"the TFLite file's proof failed: {last}")
    return float(done.stdout)


def in_a_process(
    code: str, arguments: list[str], given: bytes, limit_s: float, what: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs code of ours in a fresh interpreter, `given` on its standard input. Raises BadBundle (unsupported_runtime) if it
    does not start, is not done in time or is ended by a signal."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # secrets stay here
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLWRIGHT_")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            input=given,
            capture_output=True,
            timeout=limit_s,
            env=plain | {"PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{what} took over {limit_s:g} s and was stopped") from error
    except OSError as error:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{what} cannot be started: {error.strerror}") from error
    if done.returncode < 0:
        ended = next((one.name for one in signal.Signals if one == -done.returncode), f"signal {-done.returncode}")
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{what} was ended by {ended}: it cannot run on this machine")
    return done


def answer_alone() -> BinaryIO:
    """Standard output, for a child's answer and nothing else: what native parts print there goes to standard error."""
    kept = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return kept


def main(arguments: list[str]) -> int:
    """The child: a bundle on standard input; its digest and the settings as arguments. Exit status 0: how long the
    golden inputs took, on standard output; REFUSED: why."""
    from edge_agent.runtimes import tried_lite

    digest, asked = arguments
    with answer_alone() as out:
        try:
            spent = tried_lite(sys.stdin.buffer.read(), digest, msgspec.json.decode(asked, type=RuntimeSettings))
        except BadBundle as error:
            out.write(f"{error.reason} {error.detail}".encode())
            return REFUSED
        out.write(f"{spent:.1f}".encode())
    return 0
