"""Which models exist, which one is the champion of its slot. Files are content-addressed and never change."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.bundles import Passport, digest
from server.database import Model


def write_artifact(folder: Path, name: str, payload: bytes) -> Path:
    """A file that is either absent or whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    temporary = path.with_name(f"{name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return path


def register(
    session: Session, archive: bytes, passport: Passport, artifacts: Path, dataset: str, because: str, now_ms: int
) -> Model:
    """Keeps a packed bundle: a candidate if the gate let it pass, else refused, with the verdict either way."""
    identity = digest(archive)
    path = write_artifact(artifacts / "bundles", f"{identity}.bundle", archive)
    model = Model(
        slot=passport.slot,
        version=passport.version,
        digest=identity,
        path=str(path.relative_to(artifacts)),
        size=len(archive),
        status="candidate" if passport.eligible else "refused",
        verdict=passport.verdict,
        because=because,
        dataset=dataset,
        passport=msgspec.to_builtins(passport),
        created_ms=now_ms,
    )
    session.add(model)
    session.flush()
    return model


def champion(session: Session, slot: str) -> Model | None:
    """The model that serves in a slot, if any."""
    return session.scalar(select(Model).where(Model.slot == slot, Model.status == "champion"))


def next_version(session: Session, slot: str) -> int:
    """The number the next model of a slot gets."""
    return int(session.scalar(select(func.max(Model.version)).where(Model.slot == slot)) or 0) + 1


def promote(session: Session, model: Model) -> None:
    """Makes a model its slot's champion; the one before retires."""
    before = champion(session, model.slot)
    if before is not None and before.id != model.id:
        before.status = "retired"
    model.status = "champion"
