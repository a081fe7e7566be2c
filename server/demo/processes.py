"""Child processes that never outlive the demo: each in a session of its own, ended in order, killed if deaf."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from protocol.errors import TryLater

LOOPBACK = "127.0.0.1"
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def is_setting(variable: str) -> bool:
    """Whether an environment variable would win over the settings that a part is given: on a machine with a real server it
    names that server's database and tokens."""
    return variable.startswith("MILLWRIGHT_") and variable != "MILLWRIGHT_TFLITE_PYTHON"


def free_port() -> int:
    """A port that was free a moment ago, on loopback."""
    with socket.socket() as s:
        s.bind((LOOPBACK, 0))
        return int(s.getsockname()[1])


class Processes:
    """Names to running programs; a context manager that leaves none behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ended: dict[str, int] = {}

    def start(self, name: str, command: list[str]) -> None:
        """Starts a program; what it says goes to {folder}/{name}.log."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={variable: value for variable, value in os.environ.items() if not is_setting(variable)},
            )

    def python(self, name: str, module: str, *arguments: str) -> None:
        """Starts a module of ours with this interpreter."""
        self.start(name, [sys.executable, "-m", module, *arguments])

    def check(self) -> None:
        """Raises TryLater if a program ended by itself, with the end of its log."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise TryLater(f"{name} ended with status {process.returncode}: {self.tail(name)}")

    def tail(self, name: str, characters: int = 2000) -> str:
        """The end of a program's log."""
        return (self._folder / f"{name}.log").read_text(errors="replace")[-characters:]

    def stop(self, name: str, patience_s: float = 15.0) -> None:
        """SIGTERM, a wait, then SIGKILL to the whole session."""
        process = self.running.pop(name, None)
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
        self.ended[name] = process.returncode

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of each program."""
        found = {}
        for name, process in self.running.items():
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
            found[name] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        return found

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.running)):
            self.stop(name)


def start_broker(
    processes: Processes,
    folder: Path,
    port: int,
    name: str = "broker",
    addresses: Sequence[str] = (LOOPBACK,),
    inside: Sequence[str] = (),
) -> str:
    """A Mosquitto if there is one, else the embedded broker, which knows loopback alone; returns which. inside: what goes
    before the Mosquitto's command."""
    program = mosquitto()
    if program is not None:
        conf = folder / f"{name}.conf"
        conf.write_text(
            "".join(f"listener {port} {address}\n" for address in addresses)
            + "allow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 200\n"
        )
        processes.start(name, [*inside, program, "-c", str(conf)])
    else:
        processes.python(name, "server.demo.embedded_broker", str(port))
    wait_until_listening(processes, name, port, addresses[0])
    return "mosquitto" if program else "amqtt"


def mosquitto() -> str | None:
    """A Mosquitto on this machine."""
    return shutil.which("mosquitto", path=SBIN)


def wait_until_listening(
    processes: Processes, name: str, port: int, address: str = LOOPBACK, patience_s: float = 15.0
) -> None:
    """Returns when a program of ours takes connections; raises TryLater with what it said if it does not."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex((address, port)) == 0:
                return
        processes.check()
        time.sleep(0.05)
    raise TryLater(f"{name} does not listen: {processes.tail(name)}")
