"""What only one of several server processes does at a time. Whoever does it holds a lease that runs out: there is no flag
that a process which was killed could leave behind."""

from __future__ import annotations

import os
import secrets
import socket

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.database import LeaseRow

LEASE_MS = 15_000


def new_holder() -> str:
    """A name for this process that no other has."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


def hold(session: Session, name: str, holder: str, now_ms: int) -> bool:
    """Whether `holder` has the lease from now on: taken if it is free or has run out, renewed in its second half."""
    row = session.scalar(select(LeaseRow).where(LeaseRow.name == name).with_for_update())
    if row is None:
        try:
            with session.begin_nested():
                session.add(LeaseRow(name=name, holder=holder, until_ms=now_ms + LEASE_MS))
        except IntegrityError:
            return False  # another process was faster
        return True
    if row.holder != holder and row.until_ms > now_ms:
        return False
    if row.holder != holder or row.until_ms - now_ms < LEASE_MS / 2:
        row.holder, row.until_ms = holder, now_ms + LEASE_MS
    return True


def give_back(session: Session, name: str, holder: str) -> None:
    """Frees the lease if `holder` has it, so that nobody waits for it to run out."""
    row = session.scalar(select(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder).with_for_update())
    if row is not None:
        session.delete(row)
