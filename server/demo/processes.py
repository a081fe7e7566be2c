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
from pathlib import Path
from types import TracebackType

from protocol.errors import TryLater

SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def free_port() -> int:
    """A port that was free a moment ago, on loopback."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
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
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
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


def start_broker(processes: Processes, folder: Path, port: int, name: str = "broker") -> str:
    """A Mosquitto if there is one, else the embedded broker; returns which."""
    program = shutil.which("mosquitto", path=SBIN)
    if program is not None:
        conf = folder / f"{name}.conf"
        conf.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 200\n"
        )
        processes.start(name, [program, "-c", str(conf)])
    else:
        processes.python(name, "server.demo.embedded_broker", str(port))
    until = time.monotonic() + 15
    while time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return "mosquitto" if program else "amqtt"
        processes.check()
        time.sleep(0.05)
    raise TryLater(f"the broker does not listen: {processes.tail('broker')}")
