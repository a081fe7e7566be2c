"""Who becomes a gateway, who stays one, and who is one no longer. The rules about people and time are here; `server.identity`
makes the certificates.

- a token is for one name, works once and not for long; it is kept as its SHA-256 only. The gateway that used it may ask again
  with the same key, since it may not have heard the answer
- a certificate is renewed by whoever has its key, from two thirds of its life on. That it has run out does not matter within
  the grace: its end limits what a broker believes without asking, and here what was revoked is known; a gateway that was cut
  off for two months must come back without hands
- what was revoked stays revoked: nothing that was issued to that name before then counts, whether it is booked here or not"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from protocol.enrolment import TOKEN_PREFIX, CarriedRenewal, Granted, to_sign
from protocol.errors import BadIdentity, Reason
from server.database import CertificateRow, EnrolTokenRow, Gateway, IdentityRefusalRow
from server.identity import BACKDATED, CA, Issued, gateway_name, key_digest, requested

LONGEST_TOKEN = timedelta(days=7)
RENEWED_FROM = 2 / 3
MOST_DETAIL = 300
FOR_GATEWAYS: ColumnElement[bool] = CertificateRow.because.in_(("enrolled", "renewed"))
"""Certificates that gateways hold; the server makes others in their names for a moment, to end sessions."""


def make_token(session: Session, gateway: str, valid: timedelta, now: datetime) -> str:
    """A one-time token for a gateway's name. Raises BadIdentity for a name that no gateway may have, or that differs from
    another gateway's in its case only: people would take one for the other."""
    gateway_name(gateway)
    if not timedelta(0) < valid <= LONGEST_TOKEN:
        raise BadIdentity(Reason.EXPIRED, f"a token is valid for at most {LONGEST_TOKEN.days} days")
    alike = select(Gateway.id).where(func.lower(Gateway.id) == gateway.lower(), Gateway.id != gateway)
    same = select(CertificateRow.name).where(
        func.lower(CertificateRow.name) == gateway.lower(), CertificateRow.name != gateway
    )
    other = session.scalar(alike) or session.scalar(same)
    if other is not None:
        raise BadIdentity(Reason.BAD_NAME, f"{gateway!r} differs from the gateway {other!r} in its case only")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    session.add(
        EnrolTokenRow(
            digest=_sha256(token), gateway=gateway, made_ms=_ms(now), expires_ms=_ms(now + valid), used_ms=None
        )
    )
    return token


def enrol(session: Session, ca: CA, token: str, request: str, now: datetime) -> tuple[Issued, str]:
    """A gateway's first certificate, and its token for the HTTP API. Raises BadIdentity with the exact reason; the token is
    used up only by success."""
    row = session.get(EnrolTokenRow, _sha256(token), with_for_update=True)
    if row is None:
        raise BadIdentity(Reason.TOKEN_UNKNOWN, "no such token; `millwright server enrol-token` makes one")
    if _ms(now) > row.expires_ms:
        raise BadIdentity(Reason.TOKEN_EXPIRED, f"the token for {row.gateway} has run out; make a new one")
    key = key_digest(requested(request.encode(), row.gateway))
    if row.used_ms is not None and row.key_digest != key:
        raise BadIdentity(
            Reason.TOKEN_USED, f"the token for {row.gateway} was used before, with another key; make a new one"
        )
    row.used_ms, row.key_digest = row.used_ms or _ms(now), key
    issued = ca.sign_request(request.encode(), row.gateway, now)
    return issued, book(session, issued, "enrolled", now)


def renew(
    session: Session, ca: CA, certificate: str, request: str, signature: bytes, now: datetime
) -> tuple[Issued, str]:
    """The next certificate of a gateway, for a new key, and its token for the HTTP API. Raises BadIdentity; `not_due` is no
    fault, only early."""
    issued = _renewed(session, ca, certificate, request, signature, now)
    return issued, book(session, issued, "renewed", now)


def renew_by_file(session: Session, ca: CA, certificate: str, asked: CarriedRenewal, now: datetime) -> Issued:
    """The same for a request that people carried; the token is known by its digest alone. A file that is brought again gets
    another certificate for the same key, which is no more than the first gave."""
    issued = _renewed(session, ca, certificate, asked.request, asked.signature, now)
    _write_down(session, issued, "renewed", asked.token_digest, now)
    return issued


def _renewed(session: Session, ca: CA, certificate: str, request: str, signature: bytes, now: datetime) -> Issued:
    gateway = signed_by(session, ca, certificate.encode(), signature, to_sign(request), now)
    present = x509.load_pem_x509_certificate(certificate.encode())
    begin, end = present.not_valid_before_utc, present.not_valid_after_utc
    due = renewed_from(begin, end)
    if now < due:
        raise BadIdentity(Reason.NOT_DUE, f"{gateway}'s certificate is renewed from {due:%Y-%m-%dT%H:%M:%SZ} on")
    if requested(request.encode(), gateway) == present.public_key():
        raise BadIdentity(Reason.BAD_REQUEST, "a renewal is for a new key")
    return ca.sign_request(request.encode(), gateway, now)


def granted(ca: CA, issued: Issued, token: str, now: datetime, root: str = "") -> Granted:
    """What the gateway is told."""
    return Granted(
        gateway=issued.name,
        certificate=issued.pem.decode(),
        authority=ca.pem.decode(),
        token=token,
        now_ms=_ms(now),
        root=root,
    )


def renewed_from(begin: datetime, end: datetime) -> datetime:
    """From when on a certificate that holds from `begin` to `end` may be renewed."""
    return begin + (end - begin) * RENEWED_FROM


def signed_by(session: Session, ca: CA, certificate_pem: bytes, signature: bytes, payload: bytes, now: datetime) -> str:
    """The gateway that signed `payload`, and that was not revoked. Raises BadIdentity."""
    gateway = ca.verify(certificate_pem, signature, payload, now)
    present = x509.load_pem_x509_certificate(certificate_pem)
    issued = present.not_valid_before_utc + BACKDATED
    when = session.scalar(select(func.max(CertificateRow.revoked_ms)).where(CertificateRow.name == gateway))
    # seconds: that is as fine as a certificate tells when it was issued
    if when is not None and _ms(issued) // 1000 <= when // 1000:
        raise BadIdentity(Reason.REVOKED, f"{gateway} was revoked; it may be enrolled again")
    return gateway


def gateway_of_token(session: Session, token: str, now: datetime) -> str | None:
    """Whose token of the HTTP API this is; None where it is nobody's, or its certificate has run out or was revoked."""
    row = session.scalar(
        select(CertificateRow).where(
            CertificateRow.token_digest == _sha256(token),
            CertificateRow.revoked_ms.is_(None),
            CertificateRow.not_after_ms >= _ms(now),
        )
    )
    return None if row is None else row.name


def revoke(session: Session, gateway: str, because: str, now: datetime) -> int:
    """Takes back every certificate of a gateway, and the tokens that wait for it; answers how many certificates. Raises
    BadIdentity where there is none."""
    gateway_name(gateway)
    rows = session.scalars(select(CertificateRow).where(CertificateRow.name == gateway)).all()
    if not rows:
        raise BadIdentity(Reason.UNKNOWN_GATEWAY, f"no certificate was ever issued to {gateway!r}")
    open_rows = [row for row in rows if row.revoked_ms is None]
    for row in open_rows:
        row.revoked_ms, row.revoked_because = _ms(now), because[:MOST_DETAIL]
    for token in session.scalars(select(EnrolTokenRow).where(EnrolTokenRow.gateway == gateway)):
        token.expires_ms = min(token.expires_ms, _ms(now) - 1)
    known = session.get(Gateway, gateway)
    if known is not None:
        known.online = False
    return len(open_rows)


def withdraw(session: Session, digest: str, now: datetime) -> str:
    """A token that waits opens nothing from now on; answers whose it was. digest: its SHA-256, hex. Raises BadIdentity where
    there is none, or it was used: then there is a certificate, which can be revoked."""
    row = session.get(EnrolTokenRow, digest, with_for_update=True)
    if row is None:
        raise BadIdentity(Reason.TOKEN_UNKNOWN, "no such token waits")
    if row.used_ms is not None:
        raise BadIdentity(Reason.TOKEN_USED, f"the token for {row.gateway} was used; revoke the gateway instead")
    row.expires_ms = min(row.expires_ms, _ms(now) - 1)
    return row.gateway


def revoked(session: Session, now: datetime) -> list[tuple[str, datetime]]:
    """Serials that a broker has to refuse by name, with when they were revoked; it refuses by itself what has run out."""
    rows = session.scalars(
        select(CertificateRow).where(CertificateRow.revoked_ms.is_not(None), CertificateRow.not_after_ms >= _ms(now))
    )
    return sorted((row.serial, datetime.fromtimestamp((row.revoked_ms or 0) / 1000, UTC)) for row in rows)


def book(session: Session, issued: Issued, because: str, now: datetime) -> str:
    """Writes a certificate down, with a token for the HTTP API that is answered and kept as its SHA-256 only."""
    token = secrets.token_urlsafe(32)
    _write_down(session, issued, because, _sha256(token), now)
    return token


def _write_down(session: Session, issued: Issued, because: str, token_digest: str, now: datetime) -> None:
    session.add(
        CertificateRow(
            serial=issued.serial,
            name=issued.name,
            because=because,
            key_digest=issued.key_digest,
            token_digest=token_digest,
            issued_ms=_ms(now),
            not_after_ms=_ms(issued.not_after),
            revoked_ms=None,
        )
    )


def count_refusal(session: Session, why: BadIdentity, now: datetime, times: int = 1) -> None:
    """For counters and screens: how often, why, and the last one in words."""
    reason = str(why.reason)
    row = session.get(IdentityRefusalRow, reason, with_for_update=True)
    if row is None:
        with suppress(IntegrityError), session.begin_nested():  # somebody else may be the first of his kind just now
            session.add(IdentityRefusalRow(reason=reason, times=0))
        row = session.get_one(IdentityRefusalRow, reason, with_for_update=True)
    row.times, row.last_ms, row.last_detail = row.times + times, _ms(now), why.detail[:MOST_DETAIL]


def refusals(session: Session) -> dict[str, int]:
    """How often somebody was not believed, by reason."""
    return {row.reason: row.times for row in session.scalars(select(IdentityRefusalRow))}


def _sha256(token: str) -> str:
    # a token is 256 random bits: no dictionary helps, so no slow hash is needed
    return hashlib.sha256(token.encode()).hexdigest()


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)
