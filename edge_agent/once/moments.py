"""Times as people give them to a command."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from protocol.errors import BadSettings
from protocol.observations import LAST_MS


def moment_ms(option: str, text: str) -> int:
    """Milliseconds since 1970; now where nothing is given, UTC where no zone is. Raises BadSettings, naming the option."""
    if not text:
        return time.time_ns() // 1_000_000
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadSettings(f"{option} {text[:40]!r}: write it as 2026-04-30 or 2026-04-30T08:00Z") from error
    found = round((told if told.tzinfo is not None else told.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= found <= LAST_MS:
        raise BadSettings(f"{option} {text[:40]!r} is not between 1970 and 9999")
    return found
