"""An agent on a machine whose clock begins at 1970 with every start.

python -m edge_agent.devices.wrong_clock AGENT.toml"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from edge_agent import config
from edge_agent.__main__ import run
from edge_agent.clock import SystemClock


class WrongClock(SystemClock):
    """Says 1970, and nothing disciplines it."""

    def __init__(self) -> None:
        super().__init__()
        self._began_s = time.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since the start."""
        return round((time.monotonic() - self._began_s) * 1000)

    def synced(self) -> bool:
        """Nothing does."""
        return False


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.exit(run(config.load(Path(sys.argv[1])), WrongClock()))
