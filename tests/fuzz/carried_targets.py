"""Files that people carry, signed by somebody who has the key: whatever a gateway or a server says in them, the other side
takes or refuses it. An input is {header, records}; it is signed as it is."""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent import carried, enrolment, identity
from edge_agent.identity import Identity
from protocol.carried import SERVER_NAME, Down, End, Header, to_sign
from protocol.enrolment import Granted
from protocol.handed_down import HandedDown
from protocol.names import MessageClass
from protocol.sync import encode
from protocol.topics import Channel, Topic
from server import carried as taken
from server import enrolment as books
from server.__main__ import migrate
from server.config import Settings
from server.database import Database
from server.identity import CA
from server.intake import BUILT_IN_ONLY
from tests.fuzz.http_targets import batches
from tests.fuzz.targets import Target, wire_examples
from tests.identities import p256, pem, request

NOW = 1_760_000_000_000
DAYS = timedelta(days=1)


def targets(folder: Path) -> Iterator[Target]:
    """One each way. folder: an empty one."""
    now = datetime.fromtimestamp(NOW / 1000, UTC)
    settings = Settings(database=f"sqlite:///{folder}/server.db", artifacts=str(folder / "artifacts"))
    migrate(settings)
    ca, key, place = CA.make(settings.authority_folder, now - 100 * DAYS), p256(), folder / "identity"
    issued = ca.sign_request(request("g", key), "g", now - 25 * DAYS)
    identity.replace(place, key=pem(key), certificate=issued.pem, authority=ca.pem, token="t")
    present = Identity.load(place)
    assert present is not None
    asked = enrolment.renewal_to_carry(present)
    up = Header(way="up", site="s", gateway="g", made_ms=NOW, certificate=issued.pem.decode(), renewal=asked)
    sent = [{"message_class": lane.value, "batch": json.loads(batch)} for lane, batch in batches().items()]
    order = [one for one in sent if one["message_class"] == MessageClass.EVENT.value]
    seeds = [_said(up, order), *(_said(msgspec.structs.replace(up, renewal=None), [one]) for one in sent)]
    yield Target(
        "carried_signed", functools.partial(Server(settings, ca, key, now).take, folder / "g.up"), seeds, **_SLOW
    )
    yield Target("carried_answer", *_answers(folder, ca, present, now, asked.request), **_SLOW)


_SLOW: dict[str, Any] = {"json": True, "slow": True}


def _said(header: Header, records: list[Any]) -> bytes:
    return msgspec.json.encode({"header": header, "records": records})


def signed(data: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The file that says this; what is no {header, records} is its lines."""
    try:
        told = json.loads(data)
        lines = [json.dumps(one).encode() for one in (told["header"], *told["records"])]
    except (ValueError, TypeError, KeyError, RecursionError):
        lines = data.split(b"\n")
    body = b"".join(line + b"\n" for line in lines)
    signature = key.sign(to_sign(hashlib.sha256(body).digest()), ec.ECDSA(hashes.SHA256()))
    return body + encode(End(end=len(lines) - 1, signature=signature)) + b"\n"


class Server:
    """Takes a gateway's files; what one has written is undone after it."""

    def __init__(self, settings: Settings, ca: CA, key: ec.EllipticCurvePrivateKey, now: datetime) -> None:
        self._database, self._ca, self._key, self._now = Database(settings.database), ca, key, now
        self._file = Path(settings.database.removeprefix("sqlite:///"))
        self._first = sqlite3.connect(":memory:")
        with sqlite3.connect(self._file) as present:
            present.backup(self._first)

    def take(self, path: Path, data: bytes) -> None:
        """All the way to the answer."""
        path.write_bytes(signed(data, self._key))
        try:
            told = taken.take(self._database, self._ca, path, self._now, BUILT_IN_ONLY)
            taken.answer(self._database, self._ca, told, self._now)
        finally:
            with sqlite3.connect(self._file) as now:
                self._first.backup(now)


def _answers(
    folder: Path, ca: CA, present: Identity, now: datetime, asked: str
) -> tuple[Callable[[bytes], None], list[bytes]]:
    """(how a gateway takes a server's file, what one says)."""
    examples: Any = wire_examples()
    key = p256()
    certificate = ca.client(key.public_key(), SERVER_NAME, now, 10 * DAYS).pem.decode()
    header = Header(way="down", site="s", gateway="g", made_ms=NOW, certificate=certificate)
    granted = books.granted(ca, ca.sign_request(asked.encode(), "g", now), "", now)
    told = HandedDown(desired=examples["desired"], commands=[examples["command"]], answers=1, notes=2)
    records = [Down(ack=examples["ack"]), Down(handed_down=told), Down(granted=granted)]
    waiting, files = (present.folder / enrolment.RENEWAL).read_bytes(), _files(present)

    def renew(given: Granted) -> None:
        try:
            enrolment.install_carried(present, given)
        finally:
            identity.replace(present.folder, **files)
            identity.write_secret(present.folder / enrolment.RENEWAL, waiting)

    state = Topic("s", "g", Channel.STATE)
    inbox = carried.Inbox(folder, state, lambda _ack: 0, lambda _arrival: None, lambda _what, _n: None, renew)

    def read(data: bytes) -> None:
        path = folder / "g.down"
        path.write_bytes(signed(data, key))
        carried.hand_over(path, folder, present)
        inbox.look()
        assert not list((folder / carried.FOLDER).glob("*")), "a file was left lying there"

    return read, [_said(header, [one]) for one in records] + [_said(header, records)]


def _files(present: Identity) -> dict[str, Any]:
    return {
        "key": (present.folder / identity.KEY).read_bytes(),
        "certificate": present.certificate_pem,
        "authority": present.authority_pem,
        "token": present.token,
    }
