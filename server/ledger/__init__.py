"""What the database says of every message that a gateway ever numbered: stored, quarantined, shed, dead or missing."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.ledger import GatewayLedger, LaneLedger, Ledger, SignedLedger, canonical
from protocol.names import MessageClass
from server import ranges
from server.database import Gateway, LedgerRow, QuarantineRow
from server.seal import Seal

_ORDER = list(MessageClass)


def state(session: Session, issued_ms: int, gateway: str | None = None, most_quarantined: int | None = None) -> Ledger:
    """The ledger of one gateway, or of all; read it in one transaction. `most_quarantined` bounds how many of the newest
    quarantined messages of a gateway are looked at, for a screen; a document to be signed has them all."""
    query = select(Gateway.id, Gateway.site).order_by(Gateway.id)
    if gateway is not None:
        query = query.where(Gateway.id == gateway)
    told = [
        GatewayLedger(site=site, gateway=name, lanes=_lanes(session, name, most_quarantined))
        for name, site in session.execute(query).all()
    ]
    return Ledger(issued_ms=issued_ms, gateways=told)


def signed(seal: Seal, ledger: Ledger) -> SignedLedger:
    """The ledger under the server's signature."""
    return SignedLedger(ledger=ledger, key=seal.key, signature=seal.sign(canonical(ledger)))


def _lanes(session: Session, gateway: str, most_quarantined: int | None) -> list[LaneLedger]:
    q = QuarantineRow
    numbered = select(q.message_class, q.seq, q.reason).where(q.gateway == gateway, q.seq.is_not(None))
    refused: dict[str, list[tuple[int, str]]] = {}
    for lane, seq, reason in session.execute(numbered.order_by(q.id.desc()).limit(most_quarantined)):
        refused.setdefault(lane, []).append((int(seq or 0), reason))
    rows = session.scalars(select(LedgerRow).where(LedgerRow.gateway == gateway))
    ordered = sorted(rows, key=lambda row: _ORDER.index(MessageClass(row.message_class)))
    return [_lane(row, refused.get(row.message_class, [])) for row in ordered]


def _lane(row: LedgerRow, refused: list[tuple[int, str]]) -> LaneLedger:
    beyond = [(int(a), int(b)) for a, b in row.beyond]
    through = beyond[-1][1] if beyond else row.upto
    missing = ranges.gaps(row.upto, beyond)
    shed = [(int(a), int(b)) for a, b in row.shed]
    dead = [(int(a), int(b), str(why)) for a, b, why in row.dead]
    away = sum(last - first + 1 for first, last in [*missing, *shed, *((a, b) for a, b, _ in dead)])
    return LaneLedger(
        message_class=MessageClass(row.message_class),
        complete_to=row.upto,
        through=through,
        stored=through - away - row.quarantined,
        missing=missing,
        shed=shed,
        dead=dead,
        quarantined=ranges.grouped(refused),
        duplicates=row.duplicates,
    )
