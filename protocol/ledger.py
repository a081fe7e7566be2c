"""What a server states about its gateways' messages: complete up to a number, or which numbers are missing, given up or
refused. The document is signed; whoever has the server's public key can check it without the server.

Signed are the bytes of `canonical(document)`: JSON with sorted keys, no spaces, UTF-8 (RFC 8785 for documents without
fractions, and there are none)."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from protocol.errors import BadMessage, Reason
from protocol.names import MessageClass
from protocol.observations import Name, TimeMs
from protocol.sync import Sequence, SequenceRange
from protocol.unreadable import UNREADABLE

LEDGER_FORMAT = "millwright.ledger.v1"
MAX_LEDGER_BYTES = 256 * 2**20
ReasonedRange = tuple[Sequence, Sequence, Name]
"""First and last, both included, and why."""
Count = Annotated[int, msgspec.Meta(ge=0)]


class LaneLedger(msgspec.Struct, frozen=True, kw_only=True):
    """One class of one gateway. Every number from 1 to `through`, the highest that the server was told of, is in exactly
    one of: stored (so many), `quarantined` (received, kept with its reason, not usable), `shed` (given up by rule when the
    gateway's disk was full), `dead` (given up after many attempts; or, as `outbox_replaced`, a number that an earlier outbox
    of this gateway took along) and `missing` (the gateway still owes it).

    complete_to: nothing is missing up to here. duplicates: arrivals that changed nothing: sent again, or told before under
    another number."""

    message_class: MessageClass
    complete_to: Count
    through: Count
    stored: Count
    missing: list[SequenceRange] = []
    shed: list[SequenceRange] = []
    dead: list[ReasonedRange] = []
    quarantined: list[ReasonedRange] = []
    duplicates: Count = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


class GatewayLedger(msgspec.Struct, frozen=True, kw_only=True):
    """The classes of one gateway from which anything was heard."""

    site: Name
    gateway: Name
    lanes: list[LaneLedger]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing in any class."""
        return all(lane.complete for lane in self.lanes)


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the server's database held at `issued_ms`, read in one transaction."""

    format: Annotated[str, msgspec.Meta(pattern=r"^millwright\.ledger\.v1$")] = LEDGER_FORMAT
    issued_ms: TimeMs
    gateways: list[GatewayLedger]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing anywhere."""
        return all(one.complete for one in self.gateways)


class SignedLedger(msgspec.Struct, frozen=True, kw_only=True):
    """key: SHA-256 of the raw public key (hex); signature: ed25519 over `canonical(ledger)` (hex)."""

    ledger: Ledger
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


def canonical(document: msgspec.Struct | dict[str, Any]) -> bytes:
    """The bytes that are signed."""
    return msgspec.json.encode(document, order="sorted")


def read_signed(payload: bytes) -> tuple[SignedLedger, bytes]:
    """A signed ledger, and the very bytes that its signature is of, whatever a later version added. Raises BadMessage."""
    if len(payload) > MAX_LEDGER_BYTES:
        raise BadMessage(Reason.TOO_LARGE, f"a ledger of {len(payload)} bytes; the limit is {MAX_LEDGER_BYTES}")
    try:
        document = msgspec.json.decode(payload, type=SignedLedger)
        raw: dict[str, Any] = msgspec.json.decode(payload)
    except msgspec.ValidationError as error:
        raise BadMessage(Reason.WRONG_TYPE, f"not a signed ledger: {error}") from error
    except UNREADABLE as error:
        raise BadMessage(Reason.MALFORMED_JSON, f"not a signed ledger: {error}") from error
    return document, canonical(raw["ledger"])
