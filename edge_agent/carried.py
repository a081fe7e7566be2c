"""The outbox on a stick: what waits is written into a signed file, and stays here until the server's own file says that its
database has it. Reading the outbox disturbs no running agent; only the agent frees anything."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.broker import Arrival
from edge_agent.dead_letters import DeadLetters
from edge_agent.enrolment import renewal_to_carry
from edge_agent.identity import Identity, vouched
from edge_agent.lanes import LANES, LAST, Lane, framed, read_lanes
from edge_agent.updates import write_durably
from protocol.carried import MAX_ANSWER_BYTES, SERVER_NAME, Down, Header, Up, Whole, Writer, read
from protocol.enrolment import Granted
from protocol.errors import BadMessage, BadSettings, Reason, Refused, TryLater
from protocol.names import MessageClass
from protocol.sync import MAX_RANGES, Ack, Batch, Command, encode
from protocol.topics import Channel, Topic
from protocol.twin import Desired

MESSAGES_A_BATCH, BYTES_A_BATCH = 200, 400_000
FOLDER = "carried"
SUFFIX = ".down"
log = logging.getLogger(__name__)


@dataclass
class Exported:
    """messages per class in the file; left: those that did not fit into it; renewal: it asks for a new certificate."""

    messages: dict[MessageClass, int] = field(default_factory=dict)
    left: int = 0
    bytes: int = 0
    renewal: bool = False


class _Waiting:
    """What an outbox holds at one moment, read beside the agent that owns it."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            self._db.execute("PRAGMA busy_timeout=5000")
            self._db.execute("BEGIN")
            self._lanes = read_lanes(self._db)
            self.count = int(self._db.execute("SELECT count(*) FROM waiting").fetchone()[0])
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise BadSettings(f"cannot read the outbox {path}: {error}; has the agent run here?") from error
        self._letters = DeadLetters(self._db, 0)

    def batches(self, lane: MessageClass) -> Iterator[tuple[int, bytes]]:
        """(messages, batch): what was given up first, then what waits, in order. Raises BadSettings for a damaged file."""
        try:
            yield from self._batches(lane)
        except (sqlite3.Error, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise BadSettings(f"the outbox is damaged: {error}; the agent's log says what it makes of it") from error

    def _batches(self, lane: MessageClass) -> Iterator[tuple[int, bytes]]:
        counts = self._lanes.get(lane, Lane())
        query = "SELECT first, last FROM shed WHERE class = ? ORDER BY first LIMIT ?"
        shed = [(first, last) for first, last in self._db.execute(query, (lane.value, MAX_RANGES))]
        dead = self._letters.untold(lane)
        if shed or dead:
            yield 0, encode(Batch(envelopes=[], shed=shed, dead=dead, numbering=counts.told))
        after, end = LANES[lane], LANES[lane] + LAST
        query = "SELECT key, envelope FROM waiting WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
        while rows := self._db.execute(query, (after, end, MESSAGES_A_BATCH)).fetchall():
            envelopes: list[bytes] = []
            for key, envelope in rows:
                if not after < key <= end:
                    raise ValueError(f"message {key} stands behind {after}")
                if envelopes and sum(map(len, envelopes)) + len(envelope) > BYTES_A_BATCH:
                    break
                envelopes.append(envelope)
                after = key
            yield len(envelopes), framed(envelopes, counts)

    def close(self) -> None:
        self._db.close()


def export(outbox: Path, identity: Identity, site: str, out: Path, now_ms: int, most_bytes: int) -> Exported:
    """Writes what waits, the most urgent class first, until the file has `most_bytes`; the rest is in the next file. Raises
    BadSettings where the outbox cannot be read, OSError where the file cannot be written: then there is none."""
    waiting, done = _Waiting(outbox), Exported()
    done.renewal = identity.due(datetime.fromtimestamp(now_ms / 1000, UTC))
    header = Header(
        way="up",
        site=site,
        gateway=identity.gateway,
        made_ms=now_ms,
        certificate=identity.certificate_pem.decode(),
        renewal=renewal_to_carry(identity) if done.renewal else None,
    )
    with contextlib.closing(waiting), written_whole(out) as write:
        made = Writer(write, header)
        for lane in MessageClass:
            for count, batch in waiting.batches(lane):
                if made.bytes + len(batch) > most_bytes:
                    break
                made.add(Up(message_class=lane, batch=msgspec.Raw(batch)))
                done.messages[lane] = done.messages.get(lane, 0) + count
        made.end(identity.sign)
        done.left = waiting.count - sum(done.messages.values())
        done.bytes = made.bytes
    return done


def checked(file: Path, identity: Identity) -> Whole:
    """A server's file for this gateway. Raises Refused with the exact reason. A clock that is wrong is none: an old file says
    nothing that a newer one does not, and is harmless."""
    with file.open("rb") as stream:
        whole = read(stream.readline, Down, lambda record: record, MAX_ANSWER_BYTES)
    certificate = whole.header.certificate.encode()
    signer = vouched(identity.authority_pem, certificate, whole.signature, whole.signed)
    if signer != SERVER_NAME:
        raise BadMessage(Reason.UNSIGNED, f"{signer} signed it, not the server")
    if whole.header.gateway != identity.gateway:
        raise BadMessage(
            Reason.UNKNOWN_GATEWAY, f"it is for {whole.header.gateway}, and this gateway is {identity.gateway}"
        )
    return whole


def hand_over(file: Path, data_folder: Path, identity: Identity) -> Whole:
    """Checks a server's file and leaves it for the agent, which takes it within a second, or when it starts."""
    whole = checked(file, identity)
    name = f"{whole.header.made_ms}-{whole.signature.hex()[-16:]}{SUFFIX}"
    (data_folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_durably(data_folder / FOLDER / name, file.read_bytes())
    return whole


class Inbox:
    """Servers' files that were handed over, for the agent's own thread: it alone frees its outbox. `settle` takes an
    acknowledgement, `renew` a certificate, `hear` everything else, as if the broker had brought it; `note` counts."""

    def __init__(
        self,
        data_folder: Path,
        state: Topic,
        settle: Callable[[Ack], int],
        hear: Callable[[Arrival], object],
        note: Callable[[str, int], None],
        renew: Callable[[Granted], object] = lambda _granted: None,
    ) -> None:
        self._folder = data_folder / FOLDER
        self._state, self._settle, self._hear, self._note, self._renew = state, settle, hear, note, renew

    def look(self) -> None:
        """Takes what lies there; a file goes when all of it was heard. One that cannot be read goes, too, and is counted."""
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                with file.open("rb") as stream:
                    read(stream.readline, Down, self._take, MAX_ANSWER_BYTES)
                self._note("carried.taken", 1)
            except TryLater:
                continue  # all of it is heard again then, which changes nothing
            except Refused as why:
                self._note(f"refused.{why.reason}", 1)
                log.warning("refused %s: %s", file, why)
            file.unlink()

    def _take(self, record: Down) -> None:
        if record.ack is not None:
            self._note("outbox.acked", self._settle(record.ack))
        if record.granted is not None:
            self._renew(record.granted)
        if record.handed_down is not None:
            if record.handed_down.desired is not None:
                self._bring(Channel.TWIN_DESIRED, record.handed_down.desired)
            for command in record.handed_down.commands:
                self._bring(Channel.DOWN_COMMAND, command)

    def _bring(self, channel: Channel, what: Desired | Command) -> None:
        self._hear(Arrival(self._state.sibling(channel).text, encode(what), False))


@contextmanager
def written_whole(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Something to write with; what was written is at `path`, durably, when the block ends, and nothing is if it raises."""
    handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
