"""A disk of the gateway's own that can be filled to the last byte: a small tmpfs. Mounting one needs the right to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from protocol.errors import NeedsPerson


class SmallDisk:
    """A context manager; `folder` is the disk. Raises NeedsPerson where nothing may be mounted."""

    def __init__(self, folder: Path, mib: int) -> None:
        self.folder = folder
        self._mib = mib
        self._filler = folder / "filler"

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", f"size={self._mib}m", "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
        if done is None or done.returncode:
            why = done.stderr.strip() if done else "there is no mount command"
            raise NeedsPerson(
                f"a small disk cannot be mounted here: {why}; run the drill as root, or in a container that may"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)

    def fill(self) -> int:
        """Takes what is left; returns how much there was."""
        with self._filler.open("ab", buffering=0) as file:
            size = 65_536
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
            return file.tell()

    def free(self) -> None:
        """Gives it back."""
        self._filler.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Room that is left."""
        there = os.statvfs(self.folder)
        return there.f_bavail * there.f_frsize
