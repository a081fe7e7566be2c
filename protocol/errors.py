"""What can go wrong, branched by what the caller will do about it.

MillwrightError
├── TryLater        wait and retry: the other side is away, the disk is busy
│   └── Redirected  something answers in the server's place and sends elsewhere; nobody goes there
├── Refused         throw this input away, count its reason, show it
│   ├── BadMessage  a payload
│   ├── BadTopic    a topic
│   ├── BadName     an identity
│   ├── BadFrames   a catalogue of clauses
│   ├── BadIdentity a certificate, a request for one, a token
│   └── BadBundle   a signed model package
└── NeedsPerson     stop, and say what a person has to change
    └── BadSettings a configuration file, an environment variable, a secret
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an input was refused. The value is what counters, quarantine and screens show."""

    MALFORMED_JSON = "malformed_json"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    NOT_STORABLE = "not_storable"
    NO_TIME = "no_time"
    NO_TIME_ZONE = "no_time_zone"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    ANCIENT_TIME = "ancient_time"
    TOO_LARGE = "too_large"
    BAD_NAME = "bad_name"
    BAD_QUALITY = "bad_quality"
    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_MACHINE = "unknown_machine"
    UNKNOWN_SIGNAL = "unknown_signal"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_GATEWAY = "unknown_gateway"
    UNKNOWN_TARGET = "unknown_target"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    QUEUE_FULL = "queue_full"
    NEVER_ACKNOWLEDGED = "never_acknowledged"
    OTHER_NUMBERING = "other_numbering"
    OUTBOX_REPLACED = "outbox_replaced"
    EXPIRED = "expired"
    STALE_VERSION = "stale_version"
    DIGEST_MISMATCH = "digest_mismatch"
    BAD_ARCHIVE = "bad_archive"
    GOLDEN_MISMATCH = "golden_mismatch"
    UNSUPPORTED_RUNTIME = "unsupported_runtime"
    NOT_ELIGIBLE = "not_eligible"
    BAD_FRAMES = "bad_frames"
    MISSING_FACT = "missing_fact"
    UNVERIFIED = "unverified_report"
    UNSIGNED = "unsigned"
    BAD_REQUEST = "bad_request"
    BAD_CERTIFICATE = "bad_certificate"
    REVOKED = "revoked"
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a reason
    TOKEN_USED = "token_used"  # noqa: S105 - a reason
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason
    NOT_DUE = "not_due"
    TOO_OFTEN = "too_often"


class MillwrightError(Exception):
    """Root of everything this product raises on purpose."""


class TryLater(MillwrightError):  # noqa: N818 - the name says what the caller does
    """The other side is away or busy; the same call may succeed after a wait."""


class Redirected(TryLater):
    """The answer was a redirect (3xx), which is never followed. It may pass by itself, where a login page stood in between,
    so the call is made again; it is counted, because otherwise a person has to mend the address."""


class Refused(MillwrightError):  # noqa: N818
    """An input that can never be used. `reason` is counted; `detail` names the fact and the remedy."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BadMessage(Refused):
    """A payload that breaks its type or its bounds."""


class BadTopic(Refused):
    """A topic that is not one of ours."""


class BadName(Refused):
    """An identity that could not be used in a topic, a file name or a certificate."""


class BadFrames(Refused):
    """A catalogue of clauses that cannot be read, or that claims what no fact fills."""


class BadBundle(Refused):
    """A model package that is truncated, altered, or wrong on this machine."""


class BadIdentity(Refused):
    """Somebody who is not, or may not be, who he says he is."""


class NeedsPerson(MillwrightError):  # noqa: N818
    """Nothing the program may decide alone; the message says what to change."""


class BadSettings(NeedsPerson):
    """A setting is missing, unsafe or contradictory."""
