"""Messages a second that the server takes in, from the broker to the acknowledgement after the commit.

    python benchmarks/server_intake.py [--quick] [--json]

A real Mosquitto; the server as its own process; databases of this run's own: SQLite in a file, and PostgreSQL where its
server is installed (synchronous_commit as it comes). Messages are blocks of 24 bucket means of 16 gateways, 200 in a batch,
0.4 KB each, encoded before the clock runs. The clock runs from the first batch to the acknowledgement of the last.

reference   the same rows, ready made, into the same table of the same database and nothing else: PostgreSQL by COPY into a
            staging table and INSERT … ON CONFLICT DO NOTHING; SQLite by a batched upsert of SQLAlchemy. 10,000 rows a
            transaction. It runs before and after ours; the faster one counts.
two         two server processes, each with half of the gateways, against one; judged from four cores on

--quick: a tenth of the messages."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import paho.mqtt.client as mqtt
from agent_intake import broker, free_port
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import create_engine, delete, func, select, text
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import SignalBlock
from protocol.sync import Ack, Batch, decode, encode, envelope
from protocol.topics import Channel, Topic
from server.__main__ import migrate
from server.config import Settings
from server.database import Database, Gateway, LedgerRow, SignalBlockRow

GATEWAYS, A_BATCH, BATCHES, QUICK_BATCHES = 16, 200, 120, 4
A_TRANSACTION = 10_000
AHEAD = 12
"""Batches of a gateway on their way. An agent with a backlog has up to 32; the broker passes 200 on at once, of all."""
POSTGRES, SQLITE = 0.8, 0.6
TWO = 1.6
T0 = 1_790_000_000_000
STAGING = "CREATE TEMP TABLE staging (LIKE signal_block)"
COPY = 'COPY staging (gateway, seq, sent_ms, stored_ms, machine, signal, unit, start_ms, step_ms, "values") FROM STDIN'
ONCE = (
    'INSERT INTO signal_block (gateway, seq, sent_ms, stored_ms, machine, signal, unit, start_ms, step_ms, "values") SELECT'
    ' gateway, seq, sent_ms, stored_ms, machine, signal, unit, start_ms, step_ms, "values" FROM staging'
    " ON CONFLICT DO NOTHING"
)
COLUMNS = ("gateway", "seq", "sent_ms", "stored_ms", "machine", "signal", "unit", "start_ms", "step_ms", "values")


def block(number: int) -> SignalBlock:
    """One message."""
    values: list[float | None] = [round(20 + number % 7 + 0.01 * i, 3) for i in range(24)]
    return SignalBlock(
        machine=f"m{number % 8}",
        signal=f"s{number % 5}",
        unit="bar",
        start_ms=T0 + number * 24_000,
        step_ms=1000,
        values=values,
    )


def batches(gateway: str, count: int) -> list[bytes]:
    """What a gateway sends, ready made."""
    made = []
    for first in range(1, count * A_BATCH + 1, A_BATCH):
        envelopes = [
            envelope(block(seq), site="b", gateway=gateway, seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=T0)
            for seq in range(first, first + A_BATCH)
        ]
        made.append(encode(Batch(envelopes=envelopes)))
    return made


class Gateways:
    """Sends every gateway's batches, so many ahead of the server's acknowledgement."""

    def __init__(self, port: int, count: int) -> None:
        self.total = GATEWAYS * count * A_BATCH
        self._left = {f"g{n}": batches(f"g{n}", count) for n in range(GATEWAYS)}
        self._upto = dict.fromkeys(self._left, 0)
        self._sent = dict.fromkeys(self._left, 0)
        self._done = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-gateways")
        self._client.max_inflight_messages_set(GATEWAYS * AHEAD)
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(Topic("b", g, Channel.DOWN_ACK).text, 1) for g in self._left])

    def run(self) -> float:
        """Seconds until the last message is acknowledged."""
        began = time.perf_counter()
        for gateway in self._left:
            self._send(gateway)
        self._client.loop_start()
        if not self._done.wait(600):
            raise SystemExit(f"server_intake: not everything was acknowledged: {self._upto}")
        seconds = time.perf_counter() - began
        self._client.disconnect()
        self._client.loop_stop()
        return seconds

    def _hear(self, _client: Any, _user: Any, message: mqtt.MQTTMessage) -> None:
        gateway = Topic.parse(message.topic).gateway
        told = decode(message.payload, Ack).classes.get(MessageClass.BULK)
        if told is None:
            return
        self._upto[gateway] = max(self._upto[gateway], told.upto)
        self._send(gateway)
        if sum(self._upto.values()) == self.total:
            self._done.set()

    def _send(self, gateway: str) -> None:
        while self._sent[gateway] < len(self._left[gateway]) and (
            self._sent[gateway] * A_BATCH - self._upto[gateway] < AHEAD * A_BATCH
        ):
            payload = self._left[gateway][self._sent[gateway]]
            self._sent[gateway] += 1
            self._client.publish(Topic("b", gateway, Channel.up(MessageClass.BULK)).text, payload, qos=1)


@contextmanager
def postgres(folder: Path) -> Iterator[str | None]:
    """A PostgreSQL of its own; yields an SQLAlchemy URL, or None where its server is not installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not homes:
        yield None
        return
    programs, data, port = homes[-1].parent, folder / "postgres", free_port()
    folder.chmod(0o755)
    data.mkdir()
    as_user = [shutil.which("runuser") or "runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(data, "postgres")
    initdb = [*as_user, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "millwright", "-E", "UTF8"]
    subprocess.run(initdb, check=True, capture_output=True)
    server = subprocess.Popen(
        [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"postgresql+psycopg://millwright@127.0.0.1:{port}/postgres"
    try:
        for _ in range(100):
            ready = subprocess.run(
                [str(programs / "pg_isready"), "-p", str(port), "-h", "127.0.0.1"], capture_output=True
            )
            if ready.returncode == 0:
                break
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def servers(folder: Path, database: str, port: int, count: int) -> Iterator[None]:
    """So many server processes on one broker and one database; of several, each takes its part of the gateways."""
    with ExitStack() as stack:
        http, admin = [free_port() for _ in range(count)], secrets.token_urlsafe(32)
        for number in range(count):
            home = folder / f"server-{number}"
            home.mkdir()
            (home / "server.toml").write_text(
                f'database = "{database}"\nartifacts = "{home}/artifacts"\nadmin_token = "{admin}"\n'
                f'gateway_token = "{secrets.token_urlsafe(32)}"\nport = {http[number]}\n'
                f'[broker]\nport = {port}\nclient_id = "server-{number}"\npart = {number + 1}\nparts = {count}\n'
            )
            command = [
                sys.executable,
                "-m",
                "server",
                "run",
                "--config",
                str(home / "server.toml"),
                "--log-level",
                "ERROR",
            ]
            process = subprocess.Popen(command, stderr=(home / "log").open("wb"))
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        for at in http:
            wait_for(at, admin)
        yield


def wait_for(port: int, token: str) -> None:
    """Until a server is up, connected to the broker, and has subscribed."""
    request = Request(f"http://127.0.0.1:{port}/api/v1/health", headers={"Authorization": f"Bearer {token}"})
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(OSError), urlopen(request, timeout=5) as answer:  # noqa: S310 - our own loopback
            if json.load(answer)["broker_connected"]:
                time.sleep(1.0)
                return
        time.sleep(0.1)
    raise SystemExit("server_intake: the server did not connect to its broker within two minutes")


def ready_made(count: int) -> list[tuple[Any, ...]]:
    """The rows that the messages become."""
    return [
        (f"g{n}", seq, T0, T0, b.machine, b.signal, b.unit, b.start_ms, b.step_ms, b.values)
        for n in range(GATEWAYS)
        for seq in range(1, count * A_BATCH + 1)
        for b in (block(seq),)
    ]


def copied(url: str, rows: list[tuple[Any, ...]]) -> float:
    """Seconds of COPY into a staging table and an insert that takes each number once."""
    texts = [(*row[:9], msgspec.json.encode(row[9]).decode()) for row in rows]
    engine = create_engine(url)
    raw: Any = engine.raw_connection()
    connection = raw.driver_connection
    cursor = connection.cursor()
    cursor.execute(STAGING)
    cursor.execute("ALTER TABLE staging DROP COLUMN id")
    connection.commit()
    began = time.perf_counter()
    for first in range(0, len(texts), A_TRANSACTION):
        with cursor.copy(COPY) as copy:
            for row in texts[first : first + A_TRANSACTION]:
                copy.write_row(row)
        cursor.execute(ONCE)
        cursor.execute("TRUNCATE staging")
        connection.commit()
    seconds = time.perf_counter() - began
    raw.close()
    engine.dispose()
    return seconds


def upserted(url: str, rows: list[tuple[Any, ...]]) -> float:
    """Seconds of a batched upsert."""
    database = Database(url)
    told = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    statement = sqlite_insert(SignalBlockRow).on_conflict_do_nothing()
    began = time.perf_counter()
    for first in range(0, len(told), A_TRANSACTION):
        with database.begin() as session:
            session.execute(statement, told[first : first + A_TRANSACTION])
    seconds = time.perf_counter() - began
    database.close()
    return seconds


def prepared(url: str) -> None:
    """This version's tables."""
    token = secrets.token_urlsafe(32)
    migrate(Settings(database=url, admin_token=token, gateway_token=token))


def emptied(url: str) -> None:
    """No rows, no ledger."""
    database = Database(url)
    with database.begin() as session:
        for table in (SignalBlockRow, LedgerRow, Gateway):
            session.execute(delete(table))
    database.close()
    if url.startswith("postgresql"):
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM signal_block"))
        engine.dispose()


def taken_in(folder: Path, url: str, count: int, processes: int) -> float:
    """Seconds, end to end."""
    home = folder / secrets.token_hex(4)
    home.mkdir()
    with broker(home) as port, servers(home, url, port, processes):
        seconds = Gateways(port, count).run()
    database = Database(url)
    with database.begin() as session:
        there = session.scalar(select(func.count()).select_from(SignalBlockRow))
    database.close()
    if there != GATEWAYS * count * A_BATCH:
        raise SystemExit(f"server_intake: {there} rows, not {GATEWAYS * count * A_BATCH}")
    return seconds


def measure(sheet: contract.Sheet) -> None:
    """One database after the other."""
    count = QUICK_BATCHES if sheet.options.quick else BATCHES
    rows = ready_made(count)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millwright-intake-")))
        kinds: list[tuple[str, str | None, Any, float]] = [
            ("PostgreSQL", stack.enter_context(postgres(folder)), copied, POSTGRES),
            ("SQLite", f"sqlite:///{folder}/server.db", upserted, SQLITE),
        ]
        for name, url, bare, target in kinds:
            if url is None:
                sheet.note(
                    "PostgreSQL's server is not installed (Debian: apt-get install postgresql); its rows are left out"
                )
                continue
            prepared(url)
            before = bare(url, rows)
            emptied(url)
            one = taken_in(folder, url, count, 1)
            emptied(url)
            reference = len(rows) / min(before, bare(url, rows))
            emptied(url)
            ours = len(rows) / one
            sheet.row(
                f"{name}, one process",
                "messages/s / reference",
                ours / reference,
                target=target,
                holds=ours / reference >= target,
                n=len(rows),
                seconds=one,
                messages_a_second=round(ours),
                reference_a_second=round(reference),
            )
            two = len(rows) / taken_in(folder, url, count, 2)
            emptied(url)
            cores = os.cpu_count() or 1
            sheet.row(
                f"{name}, two processes",
                "messages/s / one process",
                two / ours,
                target=TWO,
                holds=two / ours >= TWO if cores >= 4 and name == "PostgreSQL" else None,
                n=len(rows),
                messages_a_second=round(two),
                cores=cores,
            )


if __name__ == "__main__":
    sys.exit(contract.run("server_intake", __doc__, measure, needs_data=False))
