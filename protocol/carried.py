"""Files that people carry between a gateway and its server where no line joins them: batches up, acknowledgements and what
waits for the gateway down. A gateway whose certificate is due asks for the next one in the header; the answer brings it.

One JSON object a line: a header with the sender's certificate, records, and an end with the signature over everything before
it. A file counts as a whole or not at all: whoever reads it goes through it once to check, and once more to take it, and both
must have seen the same bytes. Every line and the file are bounded, and neither side holds more than a line of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec

from protocol.enrolment import CarriedRenewal, Granted
from protocol.errors import BadMessage, Reason
from protocol.handed_down import MAX_HANDED_DOWN_BYTES, HandedDown
from protocol.names import MessageClass
from protocol.observations import Name, TimeMs
from protocol.sync import MAX_BATCH_BYTES, Ack, decode, encode

FORMAT = "millwright.carried.v1"
SERVER_NAME = "millwright-files"
"""The name in the certificate of a file that a server wrote; no gateway can have it."""
MAX_LINE_BYTES = MAX_HANDED_DOWN_BYTES + 1000
MAX_FILE_BYTES, MAX_ANSWER_BYTES = 4 * 2**30, 64 * 2**20
_END = b'{"end":'
T = TypeVar("T", bound=msgspec.Struct)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. gateway: who wrote it (up), or for whom it is (down). renewal: the next certificate is asked for."""

    format: Annotated[str, msgspec.Meta(pattern=r"^millwright\.carried\.v1$")] = FORMAT
    way: Literal["up", "down"]
    site: Name
    gateway: Name
    made_ms: TimeMs
    certificate: Annotated[str, msgspec.Meta(max_length=8000)]
    renewal: CarriedRenewal | None = None


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, as it would have gone up its topic."""

    message_class: MessageClass
    batch: msgspec.Raw


class Down(msgspec.Struct, frozen=True, kw_only=True):
    """An acknowledgement, what waits for the gateway, or its next certificate."""

    ack: Ack | None = None
    handed_down: HandedDown | None = None
    granted: Granted | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line. end: how many records there are; signature: ECDSA P-256 with SHA-256 (DER) over `to_sign`."""

    end: Annotated[int, msgspec.Meta(ge=0)]
    signature: bytes


@dataclass(frozen=True)
class Whole:
    """A file that was read to its end. signed: what its signature has to be of."""

    header: Header
    records: int
    signed: bytes
    signature: bytes


class Writer:
    """Writes one file, line by line, through `write`."""

    def __init__(self, write: Callable[[bytes], object], header: Header) -> None:
        self._write = write
        self._sum = hashlib.sha256()
        self.records = self.bytes = 0
        self._line(encode(header))

    def add(self, record: Up | Down) -> None:
        """One more record."""
        self._line(encode(record))
        self.records += 1

    def end(self, sign: Callable[[bytes], bytes]) -> None:
        """The last line."""
        end = End(end=self.records, signature=sign(to_sign(self._sum.digest())))
        self._line(encode(end))

    def _line(self, line: bytes) -> None:
        self._sum.update(line + b"\n")
        self._write(line + b"\n")
        self.bytes += len(line) + 1


def to_sign(digest: bytes) -> bytes:
    """What is signed: SHA-256 of every line before the last, and what kind of thing it is of."""
    return FORMAT.encode() + b"\n" + digest


def read(
    readline: Callable[[int], bytes], kind: type[T], each: Callable[[T], object], most_bytes: int = MAX_FILE_BYTES
) -> Whole:
    """Goes through a file of this kind of records once, and hands every one to `each`. Whether the signature is right is the
    caller's to ask. Raises BadMessage for a file that is too large, cut off, goes the other way, or is no file of ours."""
    lines = _Lines(readline, most_bytes)
    header = decode(lines.next(), Header, MAX_LINE_BYTES)
    if header.way != ("up" if kind is Up else "down"):
        raise BadMessage(Reason.BAD_ARCHIVE, f"the file goes {header.way}: gateways' go up, servers' answers down")
    records = 0
    while not (line := lines.next()).startswith(_END):
        lines.count(line)
        each(decode(line, kind, MAX_LINE_BYTES))
        records += 1
    end = decode(line, End, MAX_LINE_BYTES)
    if end.end != records:
        raise BadMessage(Reason.BAD_ARCHIVE, f"the file says {end.end} records and holds {records}")
    if readline(1):
        raise BadMessage(Reason.BAD_ARCHIVE, "something follows the end of the file's records")
    return Whole(header, records, to_sign(lines.sum.digest()), end.signature)


def read_batch(record: Up) -> bytes:
    """The bytes of a batch; raises BadMessage if they are too many."""
    if len(record.batch) > MAX_BATCH_BYTES:
        raise BadMessage(Reason.TOO_LARGE, f"a batch of {len(record.batch)} bytes; the limit is {MAX_BATCH_BYTES}")
    return bytes(record.batch)


class _Lines:
    """Whole lines with their running sum; a header counts as soon as it is read, a record when it is known to be one."""

    def __init__(self, readline: Callable[[int], bytes], most_bytes: int) -> None:
        self._readline = readline
        self._most_bytes = most_bytes
        self.sum = hashlib.sha256()
        self._bytes = 0

    def next(self) -> bytes:
        line = self._readline(MAX_LINE_BYTES + 1)
        first, self._bytes = self._bytes == 0, self._bytes + len(line)
        if len(line) > MAX_LINE_BYTES or self._bytes > self._most_bytes:
            raise BadMessage(Reason.TOO_LARGE, f"a line over {MAX_LINE_BYTES} bytes, or a file over {self._most_bytes}")
        if not line.endswith(b"\n"):
            raise BadMessage(Reason.BAD_ARCHIVE, "the file is cut off: its end, which holds the signature, is missing")
        if first:
            self.count(line)
        return line

    def count(self, line: bytes) -> None:
        self.sum.update(line)
