"""What an admin is told about gateways' identities: how every certificate stands, which tokens wait, and who was not
believed. It reads the books that `server.enrolment` keeps and decides nothing."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.database import CertificateRow, EnrolTokenRow, Gateway, IdentityRefusalRow
from server.enrolment import FOR_GATEWAYS, renewed_from
from server.identity import BACKDATED, Terms


class Standing(StrEnum):
    """How a gateway's newest certificate stands, in the order in which somebody should look."""

    LOST = "lost"
    """Ended longer ago than the grace: the gateway has to be enrolled again."""
    EXPIRED = "expired"
    """Ended: the broker refuses it. The gateway renews it by itself as soon as it reaches the server."""
    DUE = "due"
    """Two thirds of its life are over: the gateway is about to renew it, or does not reach the server."""
    VALID = "valid"
    REVOKED = "revoked"


_ORDER = list(Standing)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The newest certificate of one gateway. Times are milliseconds since 1970 UTC; renewed_from_ms: from when on its owner
    asks for the next one; grace_ms: until when it still may."""

    gateway: str
    serial: str
    because: str
    issued_ms: int
    not_before_ms: int
    renewed_from_ms: int
    not_after_ms: int
    grace_ms: int
    revoked_ms: int | None
    revoked_because: str
    standing: Standing


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time token that nobody has used yet. digest: its SHA-256, by which it is withdrawn; the token itself is kept
    nowhere."""

    digest: str
    gateway: str
    made_ms: int
    expires_ms: int


class NotBelieved(msgspec.Struct, frozen=True, kw_only=True):
    """How often somebody was refused for one reason, and the last time in words."""

    reason: str
    times: int
    last_ms: int
    last_detail: str


class Identities(msgspec.Struct, frozen=True, kw_only=True):
    """certificates: what needs somebody first. standings: how many there are of each, those left out by a bound included.
    without: gateways that were never enrolled."""

    certificates: list[Certificate]
    standings: dict[Standing, int]
    without: list[str]
    tokens: list[Token]
    refusals: list[NotBelieved]


def state(session: Session, terms: Terms, now: datetime, most: int | None = None) -> Identities:
    """The books at `now`, read in one transaction. most: so many certificates, tokens and names at most, for a screen."""
    now_ms = round(now.timestamp() * 1000)
    certificates = sorted(
        (_certificate(row, terms, now) for row in _newest(session)),
        key=lambda one: (_ORDER.index(one.standing), one.not_after_ms, one.gateway),
    )
    certified = select(CertificateRow.name).where(FOR_GATEWAYS)
    without = select(Gateway.id).where(Gateway.id.not_in(certified)).order_by(Gateway.id).limit(most)
    t = EnrolTokenRow
    waiting = select(t).where(t.used_ms.is_(None), t.expires_ms >= now_ms).order_by(t.expires_ms).limit(most)
    refusals = select(IdentityRefusalRow).order_by(IdentityRefusalRow.last_ms.desc())
    return Identities(
        certificates=certificates[:most],
        standings=dict(Counter(one.standing for one in certificates)),
        without=list(session.scalars(without)),
        tokens=[
            Token(digest=row.digest, gateway=row.gateway, made_ms=row.made_ms, expires_ms=row.expires_ms)
            for row in session.scalars(waiting)
        ],
        refusals=[
            NotBelieved(reason=row.reason, times=row.times, last_ms=row.last_ms, last_detail=row.last_detail)
            for row in session.scalars(refusals)
        ],
    )


def _newest(session: Session) -> list[CertificateRow]:
    c = CertificateRow
    last = select(c.name, func.max(c.issued_ms).label("at")).where(FOR_GATEWAYS).group_by(c.name).subquery()
    rows = session.scalars(
        select(c)
        .join(last, (c.name == last.c.name) & (c.issued_ms == last.c.at))
        .where(FOR_GATEWAYS)
        .order_by(c.serial)
    )
    return list({row.name: row for row in rows}.values())  # two of one millisecond are one row


def _certificate(row: CertificateRow, terms: Terms, now: datetime) -> Certificate:
    begin = _when(row.issued_ms).replace(microsecond=0) - BACKDATED
    end = _when(row.not_after_ms)
    due = renewed_from(begin, end)
    if row.revoked_ms is not None:
        standing = Standing.REVOKED
    elif now > end + terms.grace:
        standing = Standing.LOST
    elif now > end:
        standing = Standing.EXPIRED
    else:
        standing = Standing.DUE if now >= due else Standing.VALID
    return Certificate(
        gateway=row.name,
        serial=row.serial,
        because=row.because,
        issued_ms=row.issued_ms,
        not_before_ms=_ms(begin),
        renewed_from_ms=_ms(due),
        not_after_ms=row.not_after_ms,
        grace_ms=_ms(end + terms.grace),
        revoked_ms=row.revoked_ms,
        revoked_because=row.revoked_because,
        standing=standing,
    )


def _when(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)
