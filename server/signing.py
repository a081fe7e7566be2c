"""Which models may run, as a signed list: The Update Framework (Samuel et al. 2010; specification 1.0.34, through
python-tuf).

Four roles, ed25519. `root` names the keys of the others and is kept away from the server; `targets` lists the bundles that
may run; `snapshot` and `timestamp` say which list is the newest, so that whoever stands between server and gateway can
neither show an old list again nor hold a new one back for longer than the timestamp lives. The list is what the desired
twins and the champions name: it is brought up to date when a gateway asks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from protocol.bundles import file_name
from protocol.errors import BadSettings
from server.database import Gateway, Model
from server.registry import write_artifact

ROOT_LIVES, LIST_LIVES, TIMESTAMP_LIVES = timedelta(days=3650), timedelta(days=365), timedelta(days=7)
OFFLINE, ONLINE = ("root",), ("targets", "snapshot", "timestamp")
ROOT_FILE = "root.json"
Clock = Callable[[], datetime]
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, order=True)
class Trusted:
    """A bundle that may run."""

    digest: str
    size: int


def make_keys(folder: Path, now: datetime | None = None) -> Path:
    """Four keys and the root that names them, in a folder that has none. Answers the root, which every gateway is given.
    Raises BadSettings where keys lie there already."""
    if any((folder / f"{role}.key").exists() for role in (*OFFLINE, *ONLINE)) or (folder / ROOT_FILE).exists():
        raise BadSettings(f"{folder} holds keys already: renew them, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signers = {role: _new_key(folder, role) for role in (*OFFLINE, *ONLINE)}
    root = Root(expires=(now or datetime.now(UTC)) + ROOT_LIVES, consistent_snapshot=True)
    for role, signer in signers.items():
        root.add_key(signer.public_key, role)
    return _write_root(folder, Metadata(root), signers["root"])


def renew_keys(folder: Path, root_key: Path, now: datetime | None = None) -> Path:
    """New keys for the three roles that the server holds, named by the next root: after one may have been seen by others, or
    to let the root live on. `root_key` is brought along for this. Gateways follow by themselves."""
    signer, document = _signer(root_key), _read(folder / ROOT_FILE, Root)
    if signer.public_key.keyid not in document.signed.roles["root"].keyids:
        raise BadSettings(f"{root_key} is not the key that signed {folder / ROOT_FILE}")
    root = document.signed
    for role in ONLINE:
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(_new_key(folder, role).public_key, role)
    root.version, root.expires = root.version + 1, (now or datetime.now(UTC)) + ROOT_LIVES
    return _write_root(folder, document, signer)


class SignedList:
    """The list as gateways fetch it: files below `folder`, signed with the keys of `keys`. Raises BadSettings where keys are
    missing or are not the ones that the root names."""

    def __init__(self, keys: Path, folder: Path, now: Clock = lambda: datetime.now(UTC)) -> None:
        self._keys, self._folder, self._now = keys, folder, now
        self._root = _read(keys / ROOT_FILE, Root)
        self._signers = {role: _signer(keys / f"{role}.key") for role in ONLINE}
        for role, signer in self._signers.items():
            if signer.public_key.keyid not in self._root.signed.roles[role].keyids:
                raise BadSettings(f"{keys / role}.key is not the key that {keys / ROOT_FILE} names for {role}")
        folder.mkdir(parents=True, exist_ok=True)

    def bring_up_to_date(self, models: Iterable[Trusted]) -> None:
        """Signs again whatever has changed, or has lived half of its time."""
        with self._alone():
            wanted = {file_name(one.digest): _target(one) for one in models}
            targets, snapshot = self._newest(Targets), self._newest(Snapshot)
            before = targets.targets if targets is not None else None
            if before != wanted or self._ageing(targets, LIST_LIVES) or self._other_key(Targets):
                targets = Targets(version=_next(targets), expires=self._now() + LIST_LIVES, targets=wanted)
                self._sign(targets)
                snapshot_is_old = True
            else:
                snapshot_is_old = self._ageing(snapshot, LIST_LIVES) or self._other_key(Snapshot)
            assert targets is not None  # noqa: S101 - for the type checker: made above
            if snapshot_is_old or snapshot is None:
                told = {"targets.json": MetaFile(version=targets.version)}
                snapshot = Snapshot(version=_next(snapshot), expires=self._now() + LIST_LIVES, meta=told)
                self._sign(snapshot)
            stamp = self._newest(Timestamp)
            if stamp is None or stamp.snapshot_meta.version != snapshot.version or self._stale_stamp(stamp):
                newest = MetaFile(version=snapshot.version)
                self._sign(Timestamp(version=_next(stamp), expires=self._now() + TIMESTAMP_LIVES, snapshot_meta=newest))

    def document(self, name: str) -> bytes | None:
        """A file of the list by its name; None where there is none. Every root that there ever was is among them, so that a
        gateway can follow from the one that it was given."""
        path = (self._keys if name.endswith(ROOT_FILE) else self._folder) / Path(name).name
        return path.read_bytes() if path.suffix == ".json" and path.is_file() else None

    def _stale_stamp(self, stamp: Timestamp) -> bool:
        return self._ageing(stamp, TIMESTAMP_LIVES) or self._other_key(Timestamp)

    def _ageing(self, signed: Signed | None, lives: timedelta) -> bool:
        return signed is None or signed.expires - self._now() < lives / 2

    def _other_key(self, kind: type[S]) -> bool:
        """Whether it was signed before the keys were renewed."""
        document = self._stored(kind)
        return document is None or self._signers[kind.type].public_key.keyid not in document.signatures

    def _newest(self, kind: type[S]) -> S | None:
        document = self._stored(kind)
        return None if document is None else document.signed

    def _stored(self, kind: type[S]) -> Metadata[S] | None:
        files = [(_version(path), path) for path in self._folder.glob(f"*{kind.type}.json")]
        return _read(max(files)[1], kind) if files else None

    def _sign(self, signed: S) -> None:
        document = Metadata[S](signed)
        document.sign(self._signers[signed.type])
        name = "timestamp.json" if signed.type == Timestamp.type else f"{signed.version}.{signed.type}.json"
        write_artifact(self._folder, name, document.to_bytes())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time."""
        with (self._folder / "lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def trusted(session: Session) -> list[Trusted]:
    """What may run: what some desired twin names, and the champions."""
    digests = {a["digest"] for g in session.scalars(select(Gateway)) for a in (g.desired or {}).get("models", [])}
    models = session.scalars(select(Model).where((Model.status == "champion") | Model.digest.in_(digests)))
    return sorted({Trusted(model.digest, model.size) for model in models})


def _target(one: Trusted) -> TargetFile:
    return TargetFile(length=one.size, hashes={"sha256": one.digest}, path=file_name(one.digest))


def _next(signed: Signed | None) -> int:
    return 1 if signed is None else signed.version + 1


def _version(path: Path) -> int:
    first = path.name.partition(".")[0]
    return int(first) if first.isdigit() else 0


def _new_key(folder: Path, role: str) -> CryptoSigner:
    signer = CryptoSigner.generate_ed25519()
    path = folder / f"{role}.key"
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(signer.private_bytes)
    return signer


def _signer(path: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except OSError as error:
        raise BadSettings(
            f"cannot read the key {path}: {error.strerror}; `millwright server keys` makes keys"
        ) from error
    except (ValueError, TypeError) as error:
        raise BadSettings(f"{path} is not a private key in PEM without a passphrase") from error


def _read(path: Path, kind: type[S]) -> Metadata[S]:
    try:
        document = Metadata[S].from_bytes(path.read_bytes())
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}; `millwright server keys` makes it") from error
    except RepositoryError as error:
        raise BadSettings(f"{path} is no signed document: {error}") from error
    if not isinstance(document.signed, kind):
        raise BadSettings(f"{path} is signed for {document.signed.type}, not for {kind.type}")
    return document


def _write_root(folder: Path, document: Metadata[Root], signer: CryptoSigner) -> Path:
    document.sign(signer)
    body = document.to_bytes()
    write_artifact(folder, f"{document.signed.version}.{ROOT_FILE}", body)
    return write_artifact(folder, ROOT_FILE, body)
