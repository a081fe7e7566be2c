"""The gateway's outbox: durable messages per second against the bare SQLite ceiling of the same run, opening it with a
million messages in it, an agent's start to its first answer with them, and how fast it drains into a server that takes
everything.

    python benchmarks/outbox.py [--quick] [--json]

Messages of 1 KB, groups of 1,000, every group on disk (synchronous FULL). The ceiling is one table, one executemany and one
commit per group, same connection settings. --quick: a tenth of the messages, and no agent."""

from __future__ import annotations

import contract  # isort: skip - puts the project's root on the path

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent_intake
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.outbox import Outbox
from edge_agent.storage import open_store
from edge_agent.uplink import Uplink
from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import SignalBlock
from protocol.sync import Ack, Batch, ClassAck, decode, encode, envelope
from protocol.topics import Channel, Topic

SIZE, GROUP = 1024, 1000
CAP_BYTES = 4_000_000_000
START_MS = 1_790_000_000_000
MAPPING = '[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$.value"\ntime = "$.timestamp"\ntime_unit = "ms"\n'
BULK = MessageClass.BULK


def message(seq: int) -> bytes:
    """An envelope of exactly SIZE bytes, with a block of values in it."""
    values: list[float | None] = [2.5 + (seq + k) % 97 / 100 for k in range(100)]
    block = SignalBlock(
        machine="P-101", signal="vibration", unit="mm/s", start_ms=START_MS, step_ms=60_000, values=values
    )
    clock = ClockConfidence.SYNCED
    body = encode(envelope(block, site="s", gateway="g", seq=seq, boot="b", clock=clock, time_ms=START_MS))
    return body[:-1] + b" " * (SIZE - len(body)) + b"}"


def ceiling(folder: Path, count: int) -> float:
    """Rows per second of one table and nothing else."""
    db = open_store(folder / "bare.db", "CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB)")
    started = time.perf_counter()
    for first in range(0, count, GROUP):
        rows = [(seq, message_of(seq)) for seq in range(first, first + GROUP)]
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO row VALUES (?,?)", rows)
        db.execute("COMMIT")
    took = time.perf_counter() - started
    db.close()
    return count / took


def ours(folder: Path, count: int) -> float:
    """Messages per second through `add` and `commit`."""
    outbox = Outbox(folder / "ours.db", CAP_BYTES)
    started = time.perf_counter()
    for first in range(0, count, GROUP):
        for seq in range(first, first + GROUP):
            outbox.add(BULK, message_of(seq))
        outbox.commit()
    took = time.perf_counter() - started
    assert outbox.lanes[BULK].waiting == count
    outbox.close()
    return count / took


def persist_queue(queue: Any, folder: Path, count: int) -> float:
    """Messages per second of persist-queue's acknowledged queue; it commits each one."""
    made = queue.SQLiteAckQueue(str(folder / "persist"), multithreading=True)
    started = time.perf_counter()
    for seq in range(count):
        made.put(message_of(seq))
    return count / (time.perf_counter() - started)


_MESSAGES = [message(seq) for seq in range(1, GROUP + 1)]


def message_of(seq: int) -> bytes:
    """One of a thousand made beforehand: making them is not what is measured."""
    return _MESSAGES[seq % GROUP]


def filled(path: Path, count: int) -> None:
    """An outbox in which `count` messages wait, left by a process that died without a word."""
    child = os.fork()
    if child == 0:
        outbox = Outbox(path, CAP_BYTES)
        for seq in range(count - outbox.lanes[BULK].waiting):
            outbox.add(BULK, message_of(seq))
        outbox.commit()
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("outbox: the messages could not be written; is there room in the folder of temporary files?")


def opened(path: Path) -> float:
    """Seconds that opening takes: the log that is left is read, the counts are."""
    started = time.perf_counter()
    outbox = Outbox(path, CAP_BYTES)
    took = time.perf_counter() - started
    outbox.close()
    return took


class Line:
    """A link in this process to a server that takes everything."""

    connected = True
    upto = 0

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Reads what came; `answer` acknowledges it."""
        self.upto += len(decode(payload, Batch).envelopes)

    def answer(self) -> Ack:
        """Everything that was sent so far is in the database."""
        return Ack(classes={BULK: ClassAck(upto=self.upto), MessageClass.METRIC: ClassAck(upto=0)})


def drained(path: Path, count: int) -> float:
    """Messages per second from the outbox to the line, each acknowledged and freed; at most `count` of them."""
    outbox, line = Outbox(path, CAP_BYTES), Line()
    uplink = Uplink(line, outbox, Topic("s", "g", Channel.STATE), time.monotonic)  # type: ignore[arg-type]
    uplink.pump()
    uplink.acknowledged(Ack(classes={MessageClass.METRIC: ClassAck(upto=0)}))  # the canary's
    first = outbox.lanes[BULK].waiting
    started = time.perf_counter()
    while first - outbox.lanes[BULK].waiting < count and outbox.lanes[BULK].waiting:
        uplink.pump()
        uplink.acknowledged(line.answer())
    took = time.perf_counter() - started
    freed = first - outbox.lanes[BULK].waiting
    outbox.close()
    return freed / took


def first_answer(folder: Path, outbox: Path) -> float | None:
    """Seconds from the start of an agent process with this outbox to its first forecast; None without a broker."""
    if shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        return None
    data = folder / "data"
    data.mkdir()
    for part in (outbox, outbox.with_suffix(".db-wal"), outbox.with_suffix(".ballast")):
        if part.exists():
            part.rename(data / ("outbox" + part.name.removeprefix(outbox.stem)))
    (folder / "mapping.toml").write_text(MAPPING)
    with agent_intake.broker(folder) as port:
        (folder / "agent.toml").write_text(
            f'site = "s"\ngateway = "g"\ndata_dir = "data"\nmapping = "mapping.toml"\nstep_ms = 1000\n'
            f"max_outbox_bytes = {CAP_BYTES}\n[clock]\nsimulated = true\n[plant]\nport = {port}\n"
            f"[uplink]\nport = {port}\n[server]\nunsigned_models = true\n[forecast]\nevery_steps = 1\n"
        )
        plant = mqtt.Client(CallbackAPIVersion.VERSION2)
        plant.connect("127.0.0.1", port)
        plant.loop_start()
        heard: list[float] = []
        plant.on_message = lambda *_: heard.append(time.perf_counter())
        plant.subscribe("mw/v1/s/g/shop/forecast", 1)
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(folder / "agent.toml")]
        started = time.perf_counter()
        agent = subprocess.Popen(command, cwd=contract.ROOT, stderr=subprocess.DEVNULL)
        tick = 0
        while not heard and time.perf_counter() - started < 60 and agent.poll() is None:
            body = {"value": 20 + tick % 7 / 10, "timestamp": START_MS + 1000 * tick}
            plant.publish("plant/P-101/v", json.dumps(body), qos=1)
            tick += 1
            time.sleep(0.05)
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        plant.disconnect()
        plant.loop_stop()
    return heard[0] - started if heard else None


def timed(measure: Callable[[], float]) -> tuple[float, float]:
    """The figure and the seconds it took."""
    started = time.monotonic()
    return measure(), time.monotonic() - started


def measure(sheet: contract.Sheet) -> None:
    """The rows."""
    count = 20_000 if sheet.options.quick else 200_000
    queued = 100_000 if sheet.options.quick else 1_000_000
    queue = contract.peer(sheet, "persistqueue")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare: list[float] = []
        rates: list[float] = []
        started = time.monotonic()
        for turn in range(3):  # turn by turn: the disk is shared
            place = folder / str(turn)
            place.mkdir()
            bare.append(ceiling(place, count))
            rates.append(ours(place, count))
            shutil.rmtree(place)
        best, top = max(rates), max(bare)
        slow = persist_queue(queue, folder, 500) if queue is not None else None
        sheet.row(
            f"durable, groups of {GROUP}, {SIZE} B", "messages per second", best, reference=top,
            peers={"persist-queue": slow}, target=min(30_000, 0.7 * top), holds=best >= min(30_000, 0.7 * top),
            n=3 * count, seconds=time.monotonic() - started, ratio=round(best / top, 3),
        )  # fmt: skip
        empty = folder / "empty.db"
        filled(empty, 0)
        nothing = min(opened(empty) for _ in range(5))
        full = folder / "full.db"
        started = time.monotonic()
        filled(full, queued)
        took_open = [opened(full) for _ in range(5)]
        sheet.row(
            f"open with {queued} messages waiting", "seconds, the slowest of 5", max(took_open), reference=nothing,
            target=0.2, holds=max(took_open) <= 0.2, n=queued,
            seconds=time.monotonic() - started,
        )  # fmt: skip
        some = min(queued // 2, 200_000)
        rate, took = timed(lambda: drained(full, some))
        sheet.row("drain, read, sent, decoded, freed", "messages per second", rate, n=some, seconds=took)
        if not sheet.options.quick:
            filled(full, queued)
            answer, took = timed(lambda: first_answer(folder, full) or float("nan"))
            said = None if answer != answer else answer
            if said is None:
                sheet.note("no mosquitto on the PATH, or the agent gave no answer within a minute")
            sheet.row(
                f"start to the first forecast with {queued} messages waiting", "seconds", said, target=5.0,
                holds=None if said is None else said <= 5.0, n=queued, seconds=took,
            )  # fmt: skip
    sheet.note(f"SQLite {sqlite3.sqlite_version}, synchronous FULL; the ceiling ran turn by turn with ours")


if __name__ == "__main__":
    sys.exit(contract.run("outbox", __doc__, measure, needs_data=False))
