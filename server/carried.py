"""A gateway's file is stored exactly once, however often it is brought, and never in part; the answer to carry back holds the
acknowledgements, what waits for the gateway, and its next certificate where it asks for one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.orm import Session

from protocol.carried import SERVER_NAME, Down, Header, Up, Whole, Writer, read, read_batch
from protocol.enrolment import Granted
from protocol.errors import BadIdentity, BadMessage, Reason
from protocol.names import MessageClass, strict_name
from protocol.sync import Ack, Batch, ClassAck, decode
from server import enrolment, intake
from server.catalogues import Catalogues
from server.database import Database
from server.handed_down import handed_down
from server.identity import CA

CERTIFICATE_LIVES = timedelta(minutes=10)


@dataclass
class Taken:
    """What a file brought. granted: the next certificate, where one was asked for and may be; not_renewed: why it may not."""

    site: str
    gateway: str
    batches: int
    acks: list[Ack]
    refused: int = 0
    granted: Granted | None = None
    not_renewed: str = ""

    @property
    def foreign(self) -> list[MessageClass]:
        """Classes of which nothing was taken, for their numbers are another outbox's."""
        return sorted({lane for ack in self.acks for lane, told in ack.classes.items() if told.foreign})


def take(database: Database, ca: CA, file: Path, now: datetime, catalogues: Catalogues) -> Taken:
    """Checks all of a gateway's file, then stores all of it in one transaction. Raises Refused with the exact reason, and
    then nothing of it is stored; OSError where it cannot be read."""
    with file.open("rb") as stream:
        with database.begin() as session:
            whole = _checked(session, ca, stream, now)
        stream.seek(0)
        header, now_ms = whole.header, _ms(now)
        taken = Taken(header.site, header.gateway, whole.records, [])

        def store(record: Up) -> None:
            lane, batch = record.message_class, read_batch(record)
            told = intake.store_batch(session, header.site, header.gateway, lane, batch, now_ms, catalogues)
            taken.refused += len(told.nack)
            # what is missing is in the next file; a gateway without a line has nowhere to send it again
            taken.acks.append(Ack(classes={lane: msgspec.structs.replace(told, gaps=[])}))

        with database.begin() as session:
            again = read(stream.readline, Up, store)
            if again.signed != whole.signed:
                raise BadMessage(Reason.BAD_ARCHIVE, f"{file} was changed while it was read")
            _renew(session, ca, header, taken, now)
    return taken


def answer(database: Database, ca: CA, taken: Taken, now: datetime) -> bytes:
    """The file to carry back. It is signed with a key of its own, for which the authority vouches for some minutes: nothing
    that could sign another lies anywhere."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = ca.client(key.public_key(), SERVER_NAME, now, CERTIFICATE_LIVES).pem.decode()
    header = Header(way="down", site=taken.site, gateway=taken.gateway, made_ms=_ms(now), certificate=certificate)
    with database.begin() as session:
        waits = handed_down(session, taken.gateway, _ms(now))
    lines: list[bytes] = []
    made = Writer(lines.append, header)
    for ack in _newest(taken.acks):
        made.add(Down(ack=ack))
    made.add(Down(handed_down=waits))
    if taken.granted is not None:
        made.add(Down(granted=taken.granted))
    made.end(lambda payload: key.sign(payload, ec.ECDSA(hashes.SHA256())))
    return b"".join(lines)


def _renew(session: Session, ca: CA, header: Header, taken: Taken, now: datetime) -> None:
    """By the rules of a renewal over HTTPS. Whoever may have none has his messages taken all the same; it is counted."""
    if header.renewal is None:
        return
    try:
        issued = enrolment.renew_by_file(session, ca, header.certificate, header.renewal, now)
        taken.granted = enrolment.granted(ca, issued, "", now)
    except BadIdentity as why:
        taken.not_renewed = str(why)
        if why.reason is not Reason.NOT_DUE:
            enrolment.count_refusal(session, why, now)


def _checked(session: Session, ca: CA, stream: BinaryIO, now: datetime) -> Whole:
    def whole_batch(record: Up) -> None:
        decode(read_batch(record), Batch)

    whole = read(stream.readline, Up, whole_batch)
    header = whole.header
    strict_name(header.site, "site")
    signer = enrolment.signed_by(session, ca, header.certificate.encode(), whole.signature, whole.signed, now)
    if signer != header.gateway:
        raise BadMessage(Reason.UNKNOWN_GATEWAY, f"{signer} signed a file that says it is of {header.gateway}")
    return whole


def _newest(acks: list[Ack]) -> list[Ack]:
    """The last word on every class, after those that name refused messages."""
    last: dict[str, Ack] = {}
    naming = []
    for ack in acks:
        ((lane, told),) = ack.classes.items()
        last[lane] = Ack(classes={lane: msgspec.structs.replace(told, nack=[])})
        if told.nack:
            naming.append(Ack(classes={lane: ClassAck(upto=0, nack=told.nack, numbering=told.numbering)}))
    return [*naming, *last.values()]


def _ms(when: datetime) -> int:
    return int(when.astimezone(UTC).timestamp() * 1000)
