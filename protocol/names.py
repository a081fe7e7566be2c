"""Identities: sites and gateways are safe in topics, file names and certificates; machines and signals
keep the plant's own spelling (any script) as long as MQTT can carry it."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

from protocol.errors import BadName, Reason

MAX_NAME_BYTES = 128
_STRICT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORBIDDEN_IN_PLANT_NAMES = re.compile(r"[/+#\x00-\x1f\x7f\ud800-\udfff]")


class MessageClass(StrEnum):
    """The lanes between a gateway and its server, most urgent first."""

    ALARM = "alarm"
    EVENT = "event"
    FEEDBACK = "feedback"
    REPORT = "report"
    METRIC = "metric"
    BULK = "bulk"


NEVER_SHED = frozenset({MessageClass.ALARM, MessageClass.FEEDBACK, MessageClass.REPORT})
"""Classes whose messages are kept at any cost; the others give way, oldest first, when the disk is full."""


def strict_name(text: str, what: str) -> str:
    """Returns `text` if it can name a site or a gateway (1-64 of A-Z a-z 0-9 . _ -), else raises BadName."""
    if not _STRICT.fullmatch(text):
        raise BadName(
            Reason.BAD_NAME, f"{what} {text[:80]!r} must be 1-64 of A-Z a-z 0-9 . _ - and start with a letter or digit"
        )
    return text


def plant_name(text: str, what: str) -> str:
    """Returns `text` if it can name a machine or a signal in a topic, else raises BadName."""
    if (
        not text
        or len(text.encode(errors="replace")) > MAX_NAME_BYTES
        or text != text.strip()
        or _FORBIDDEN_IN_PLANT_NAMES.search(text)
    ):
        raise BadName(
            Reason.BAD_NAME,
            f"{what} {text[:80]!r} must be 1-{MAX_NAME_BYTES} bytes of UTF-8 without / + # or control characters",
        )
    return text


def stable_id(kind: str, *parts: str | int) -> str:
    """An id that the same facts always give, so that a gateway that crashed and redid its work repeats itself
    instead of inventing a second report."""
    digest = hashlib.blake2s("\x1f".join(str(p) for p in parts).encode(), digest_size=10).hexdigest()
    return f"{kind}-{digest}"
