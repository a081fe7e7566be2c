"""What the agent counts and tells about itself."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec


def rss_bytes() -> int:
    """Resident memory of this process (Linux; 0 where /proc is absent)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Tally(Counter[str]):
    """Events counted since boot, by name."""

    def note(self, name: str, n: int = 1) -> None:
        """Counts `n` more of `name`."""
        if n:
            self[name] += n


def write_status(path: Path, status: dict[str, Any]) -> None:
    """status.json for `millwright agent status` and for people; always whole for whoever reads it. It is not forced to the
    disk: it is of now, is written twice a second, and flash wears."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1))
    temporary.rename(path)
