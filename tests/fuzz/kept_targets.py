"""Files that a gateway wrote itself, after a disk has failed: it goes on without them, and its page shows what is left."""

from __future__ import annotations

import collections
import functools
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from edge_agent import (
    agent,
    cards,
    carried,
    clock,
    decisions,
    enrolment,
    noise,
    notebook,
    panel,
    planning,
    plans,
    sent,
    sharing,
)
from edge_agent.clock import Kept
from edge_agent.config import AgentSettings
from edge_agent.dead_letters import listed
from edge_agent.once import status
from edge_agent.outbox import Outbox
from edge_agent.pseudonyms import Pseudonyms
from edge_agent.sharing import Told
from edge_agent.skills import Residual
from edge_agent.skills.forecast import memory
from edge_agent.skills.remaining_life import Births
from edge_agent.skills.watch import Watch, WatchSettings
from edge_agent.stores import Kept as Stock
from edge_agent.stores import Store
from edge_agent.updates import Ledger, Updates
from protocol.catalogue import Catalogue
from protocol.names import MessageClass
from protocol.reports import ModelRef
from protocol.sync import Refusal, encode
from tests.fuzz.targets import Target, through, wire_examples

NOW = 1_760_000_000_000
KEY = ("P-101", "flow")
MODEL = ModelRef("forecast.arima", "arima", 3)


def targets(folder: Path) -> Iterator[Target]:
    """Each file by itself. folder: an empty one."""
    examples: Any = wire_examples()
    assigned = examples["desired"].models[0]
    offered = plans.Offered(card=examples["item_card"], action="action:x", minutes=30.0)
    kept: dict[str, tuple[Callable[[Path], object], Any]] = {
        "clock": (clock._restored, Kept()),
        "sharing": (sharing._read, [Told("P-101", "flow", NOW)]),
        "noise": (lambda path: noise.Budget(path, 1.0), noise.Spent()),
        "sent": (lambda path: sent._read(path, sent.Day), sent.Day(day="2026-01-31")),
        "stock": (lambda path: Store(path.parent, Catalogue()), Stock()),
        "births": (_born, Births(first_ms={"P-101": NOW}, orders={"P-101": [(NOW + 1, ["action:x"])]})),
        "plans": (_counting(plans._restored), {"plan:x": offered}),
        "notebook": (_counting(notebook._restored), _notebook(examples)),
        "proposals": (_counting(decisions._restored), [examples["purchase_proposal"]]),
        "plan": (_counting(planning._restored), planning.Ordered(plan=examples["schedule"])),
        "cards": (_counting(cards._restored), [examples["item_card"]]),
        "active": (_updates, Ledger(applied=3, active={assigned.slot: assigned}, previous={assigned.slot: assigned})),
    }
    for name, (read, example) in kept.items():
        yield Target(f"kept-{name}", through(folder / f"{name}.json", read), [msgspec.json.encode(example)], json=True)
    yield Target("kept-watch", through(folder / "watch.json", _watch), [_watched()], json=True, slow=True)
    yield Target("kept-memory", _memory, [_learned()])
    yield Target("kept-key", through(folder / "site.key", _site_key), [b"ab" * 32 + b"\n"])
    pending, _ = enrolment._key_and_request("g", folder / "pending.pem")
    key = functools.partial(enrolment._key_and_request, "g")
    yield Target("kept-pending", through(folder / "pending.pem", key), [pending], slow=True)
    yield from _shown(folder)
    yield Target("kept-outbox", _outbox(folder), [_waiting(folder / "first.db")], slow=True)


def _born(path: Path) -> None:
    agent._births(path).born_ms("P-101", ["action:*"])


def _counting(read: Callable[[Path, Callable[[str], None]], object]) -> Callable[[Path], object]:
    return lambda path: read(path, lambda _what: None)


def _notebook(examples: Any) -> notebook.Kept:
    note, reading, answer = examples["note"], examples["note_reading"], examples["feedback"]
    return notebook.Kept(notes={note.id: note}, readings={reading.id: reading}, answers={reading.id: [answer]})


def _updates(path: Path) -> None:
    Updates(path.parent, lambda _wanted: b"", lambda: NOW).restore()


# the watch and the forecaster -----------------------------------------------------------------------------------------


def _watch(path: Path) -> None:
    """Restored as the agent does it, and then watching on; what it knows can be written again."""
    watch = Watch("s", "g", WATCHING)
    agent.restore_watch(watch, path, lambda _what: None)
    for n in range(12):
        _hear(watch, n, 50.0 if n == 6 else n % 3)
    msgspec.json.encode(watch.state())


WATCHING = WatchSettings(warm_up=5, calm_buckets=2)


def _watched() -> bytes:
    watch = Watch("s", "g", WATCHING)
    for n in range(400):
        _hear(watch, n, n % 7 / 7)
    _hear(watch, 400, 500.0)
    return msgspec.json.encode(watch.state())


def _hear(watch: Watch, n: int, value: float) -> None:
    watch.update(
        NOW + n * 60_000, NOW + n * 60_000 + 60_000, {KEY: Residual(value, 0.5, 1.0, value - 0.5, MODEL)}, {}, {}
    )


def _learned() -> bytes:
    arrays = memory.pack({"a": np.arange(6, dtype=np.float64).reshape(2, 3), "b": np.arange(3, dtype=np.int32)})
    learned = memory.Memory(
        step_ms=1000,
        horizon=4,
        season=0,
        keys=[KEY],
        forecasters={"x": memory.Learned(algorithm="x", digest="y", tables=arrays)},
        coverage=arrays,
        reference={},
    )
    return memory.encode(learned)


def _memory(data: bytes) -> None:
    told = memory.decode(data)
    for tables in (*(one.tables for one in told.forecasters.values()), told.coverage, told.reference):
        memory.unpack(tables)


def _site_key(path: Path) -> None:
    path.chmod(0o600)
    Pseudonyms(path).person("Li Wei")


# what a person is shown -----------------------------------------------------------------------------------------------


def _shown(folder: Path) -> Iterator[Target]:
    """status.json for the command in its three forms and for the panel; requests to the panel."""
    data = folder / "shown"
    data.mkdir()
    settings = AgentSettings(site="s", gateway="g", data_dir=str(data))

    def show(_path: Path) -> None:
        for form in ("words", "json", "metrics"):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                status.show(settings, form)
        panel.what_we_sent(settings)

    yield Target("kept-status", through(data / "status.json", show), [msgspec.json.encode(STATUS)], json=True)
    (data / "sent").mkdir()

    def summed(_path: Path) -> None:
        panel.what_we_sent(settings, "2026-01-01")

    day = msgspec.json.encode(sent.Day(day="2026-01-31"))
    yield Target("kept-day", through(data / "sent" / "sent-2026-01-31.json", summed), [day], json=True)
    handler = panel._handler(settings, "panel.example")
    asked = [
        b"GET / HTTP/1.1\r\nHost: localhost:8090\r\n\r\n",
        b"GET /api/sent?since=2026-01-31 HTTP/1.1\r\nHost: panel.example\r\nAccept: */*\r\n\r\n",
        b"GET /panel.css HTTP/1.0\r\nHost: [::1]\r\n\r\nGET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    yield Target("http-panel", functools.partial(_ask_panel, handler), asked)


STATUS = {
    "time_ms": NOW,
    "gateway": "g",
    "uptime_s": 12.5,
    "rss_bytes": 10,
    "plant_connected": True,
    "uplink_connected": True,
    "server_answers": False,
    "identity": {"not_after_ms": NOW, "renewals": 1, "failures": 2, "last_error": "away"},
    "outbox": {"event": 3},
    "lanes": {"event": {"next": 5, "waiting": 3, "bytes": 300, "acked": 1, "shed": 0, "dead": 0}},
    "counters": {"intake.stored": 4, "refused.bad_time": 1},
    "models": [{"slot": "s", "version": 1, "status": "running", "error": "", "engine": "tables"}],
    "dead_letters": 0,
    "clock": {"confidence": "synced"},
}


class _Line:
    """A connection whose other end has said everything that it will say."""

    def __init__(self, said: bytes) -> None:
        self._said, self.answered = io.BytesIO(said), bytearray()

    def settimeout(self, _seconds: float) -> None:
        """Nobody waits here."""

    def makefile(self, *_how: Any) -> io.BytesIO:
        return self._said

    def sendall(self, part: bytes) -> None:
        self.answered += part


def _ask_panel(handler: Any, data: bytes) -> None:
    """It answers 501 to a method that it has not and 505 to a version of HTTP that there is not, as it must."""
    line = _Line(data)
    handler(line, ("127.0.0.1", 1), SimpleNamespace())
    status = bytes(line.answered[:12])
    assert not status.startswith(b"HTTP/1.1 500"), "the panel answers 500"


# the outbox -----------------------------------------------------------------------------------------------------------


def _waiting(path: Path) -> bytes:
    outbox = Outbox(path, 10_000_000)
    order: Any = wire_examples()["work_order"]
    for _ in range(3):
        outbox.add(MessageClass.EVENT, encode(order))
    outbox.commit()
    outbox.bury(MessageClass.EVENT, Refusal(2, "server_fails"))
    outbox.close()
    with sqlite3.connect(path) as db:
        db.executescript(
            "PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM"
        )  # small, so that changes find something
    return path.read_bytes()


def _outbox(folder: Path) -> Callable[[bytes], None]:
    """As commands read it beside the agent: what is to be carried, and the dead letters."""
    path = folder / "outbox.db"

    def read(given: Path) -> None:
        listed(given)
        waiting = carried._Waiting(given)
        try:
            for lane in MessageClass:
                collections.deque(waiting.batches(lane), maxlen=0)
        finally:
            waiting.close()

    return through(path, read)
