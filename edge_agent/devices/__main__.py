"""`millwright plant run | replay | mapping | lives`: publishes a plant over MQTT and says exactly what it published."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.broker import PahoLink
from edge_agent.devices import line as simulated
from edge_agent.devices import replay
from edge_agent.devices.line import DAY_MS, HOUR_MS, START_MS, Line
from edge_agent.devices.operators import Answer, Operators
from edge_agent.devices.production import day_of, orders_of_the_day
from edge_agent.devices.store import Store, catalogue_toml
from edge_agent.updates import write_durably
from protocol.errors import MillwrightError, TryLater
from protocol.plans import WorkPlan
from protocol.purchases import PurchaseProposal, StockLevel
from protocol.reading.notes import NoteReading
from protocol.reports import Recommendation
from protocol.schedules import Schedule
from protocol.sync import decode, encode
from protocol.topics import Channel, Topic

MAX_UNCONFIRMED = 2000
Shown = Recommendation | PurchaseProposal | Schedule | WorkPlan | NoteReading
SHOWN: dict[Channel, type[Shown]] = {
    Channel.SHOP_RECOMMENDATION: Recommendation,
    Channel.SHOP_PURCHASE: PurchaseProposal,
    Channel.SHOP_SCHEDULE: Schedule,
    Channel.SHOP_PLAN: WorkPlan,
    Channel.SHOP_READING: NoteReading,
}
"""What the crews look at."""


class Books:
    """What was published, per line, in the terms of the agent's accounting law."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written_s = 0.0
        self.lines: dict[str, Counter[str]] = {}
        self.facts: dict[str, Any] = {}

    def note(self, line: str, **counts: int) -> None:
        """Adds to a line's counts."""
        self.lines.setdefault(line, Counter()).update(counts)

    def write(self, *, done: bool = False) -> None:
        """The status file, once a second and at the end."""
        if self._path is None or (time.monotonic() - self._written_s < 1 and not done):
            return
        self._written_s = time.monotonic()
        body = {"done": done, "lines": {k: dict(v) for k, v in self.lines.items()}, **self.facts}
        write_durably(self._path, json.dumps(body).encode())


class Publisher:
    """Publishes and waits when the broker is behind, so that nothing is thrown away on this side."""

    def __init__(self, link: PahoLink, stopped: list[bool]) -> None:
        self._link = link
        self._stopped = stopped

    def publish(self, topic: str, payload: bytes) -> bool:
        """True once the connection has it; False only when asked to stop while the broker is away."""
        while True:
            if self._link.unconfirmed < MAX_UNCONFIRMED:
                try:
                    self._link.publish(topic, payload)
                    return True
                except TryLater:
                    pass
            if self._stopped and not self._link.connected:
                return False
            time.sleep(0.01)

    def drain(self, timeout_s: float = 20.0) -> None:
        """Waits until the broker has taken everything."""
        until = time.monotonic() + timeout_s
        while self._link.unconfirmed > 0 and time.monotonic() < until:
            time.sleep(0.02)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 wrong usage or files."""
    parser = argparse.ArgumentParser(prog="millwright plant", description="A plant to run on.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="a simulated plant with known faults")
    again = commands.add_parser("replay", help="play recorded CSV files back (NAB, SKAB, or any with a time column)")
    for sub in (run, again):
        sub.add_argument("--broker", default="127.0.0.1:1883", help="host:port")
        sub.add_argument("--status", type=Path, help="file that says what was published")
        sub.add_argument("--minutes", type=float, default=0, help="stop after so long (0: at the end, or never)")
        sub.add_argument("--speed", type=float, default=1200, help="simulated seconds per second")
    run.add_argument("--lines", type=int, default=2)
    run.add_argument("--site", default="demo")
    run.add_argument("--seed", type=int, default=7)
    run.add_argument("--step-s", type=float, default=300, help="simulated seconds between samples")
    run.add_argument("--dirty", type=float, default=0.002, help="share of messages that are broken on purpose")
    run.add_argument("--no-operators", action="store_true", help="nobody answers recommendations")
    run.add_argument("--truth", type=Path, help="file for the injected faults")
    again.add_argument("files", nargs="+")
    again.add_argument("--time-column", default="")
    again.add_argument("--line", default="line-1")
    made = commands.add_parser("mapping", help="write the mapping and catalogue files of each simulated line")
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--lines", type=int, default=2)
    made.add_argument("--seed", type=int, default=7)
    past = commands.add_parser(
        "lives", help="write recorded run-to-failure histories of machines like the simulated ones"
    )
    past.add_argument("--out", type=Path, required=True)
    past.add_argument("--lines", type=int, default=12)
    past.add_argument("--days", type=float, default=20)
    past.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(argv)
    stopped: list[bool] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    try:
        if options.command == "mapping":
            return write_mappings(options)
        if options.command == "lives":
            return write_lives(options)
        return run_plant(options, stopped) if options.command == "run" else run_replay(options, stopped)
    except MillwrightError as error:
        sys.stderr.write(f"millwright plant: {error}\n")
        return 2


def write_mappings(options: argparse.Namespace) -> int:
    """One file per line."""
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(1, options.lines + 1):
        made = Line(number, options.seed, days=1)
        (options.out / f"{made.name}.mapping.toml").write_text(simulated.mapping_toml(made), encoding="utf-8")
        (options.out / f"{made.name}.catalogue.toml").write_text(catalogue_toml(number), encoding="utf-8")
    return 0


def write_lives(options: argparse.Namespace) -> int:
    """One CSV file of recorded lives: unit, machine_type, time, signals, failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    lines = (",".join(row) for row in simulated.recorded_lives(options.seed, options.lines, options.days))
    write_durably(options.out / "pump-lives.csv", ("\n".join(lines) + "\n").encode())
    return 0


def connect(broker: str, name: str) -> PahoLink:
    """Waits for the broker, a quarter of a minute at most."""
    host, _, port = broker.rpartition(":")
    link = PahoLink(host=host, port=int(port), client_id=name, clean=True)
    until = time.monotonic() + 15
    while not link.connected:
        if time.monotonic() > until:
            raise TryLater(f"no broker at {broker}")
        time.sleep(0.05)
    return link


def run_plant(options: argparse.Namespace, stopped: list[bool]) -> int:
    """Past work orders first, then samples at `speed`, answers when they are due."""
    lines = [Line(number, options.seed) for number in range(1, options.lines + 1)]
    link = connect(options.broker, "plant")
    publisher, books = Publisher(link, stopped), Books(options.status)
    dirt = random.Random(f"dirt/{options.seed}")
    operators = Operators(lines, options.seed)
    if not options.no_operators:
        for made in lines:
            for channel in SHOWN:
                link.subscribe(Topic(options.site, made.name, channel).text)
    if options.truth:
        write_durably(
            options.truth, json.dumps([truth_of(made.name, e) for made in lines for e in made.episodes]).encode()
        )
    for made in lines:
        for order in made.past_work_orders():
            publisher.publish(f"plant/{made.name}/{order.machine}/workorder", encode(order))
            books.note(made.name, work_orders=1)
    stores = {made.name: Store(made.name, options.seed) for made in lines}
    for made in lines:
        publish_stock(made.name, list(stores[made.name].levels(START_MS)), publisher)
    began_s, step_ms, ticks = time.monotonic(), int(options.step_s * 1000), 0
    waiting: list[Answer] = []
    planned_ms = START_MS
    while not stopped and not (options.minutes and time.monotonic() - began_s > options.minutes * 60):
        due = int((time.monotonic() - began_s) * options.speed * 1000 / step_ms)
        while ticks <= due and not stopped:
            now_ms = START_MS + ticks * step_ms
            for made in lines:
                publish_plans(made, planned_ms, now_ms + DAY_MS, publisher)
                for order in made.replaced(now_ms - step_ms, now_ms):
                    publisher.publish(f"plant/{made.name}/{order.machine}/workorder", encode(order))
                    books.note(made.name, work_orders=1)
                    taken = [stores[made.name].take(part, now_ms) for part in order.parts]
                    publish_stock(made.name, [level for level in taken if level is not None], publisher)
                for note in made.notes(now_ms - step_ms, now_ms):
                    publisher.publish(f"plant/{made.name}/notes", encode(note))
                    books.note(made.name, notes=1)
                publish_orders(made, now_ms - step_ms, now_ms, options.seed, publisher)
                if now_ms // DAY_MS != (now_ms - step_ms) // DAY_MS:
                    publish_stock(made.name, list(stores[made.name].levels(now_ms)), publisher)
                publish_tick(made, now_ms, publisher, books, dirt, options.dirty)
            planned_ms = max(planned_ms, now_ms + DAY_MS)
            ticks += 1
        waiting, bought = answer(link, publisher, operators, waiting, books, options.site)
        for line_name, proposal in bought:
            ordered = stores[line_name].order(proposal, START_MS + ticks * step_ms)
            publish_stock(line_name, [] if ordered is None else [ordered], publisher)
        books.facts = {"simulated_ms": START_MS + ticks * step_ms, "verdicts": operators.verdicts}
        books.write()
    publisher.drain()
    books.write(done=True)
    link.close()
    return 0


def answer(
    link: PahoLink, publisher: Publisher, operators: Operators, waiting: list[Answer], books: Books, site: str
) -> tuple[list[Answer], list[tuple[str, PurchaseProposal]]]:
    """Looks at what is shown, gives the answers that are due; returns those still to come, and what was bought by whom."""
    arrival = link.receive(0.02)
    while arrival is not None:
        topic = Topic.parse(arrival.topic)
        link.acknowledge(arrival)
        if topic.channel in SHOWN:  # some brokers hand a newcomer every retained message
            shown = decode(arrival.payload, SHOWN[topic.channel])
            now_s = time.monotonic()
            given = _said(operators, topic.gateway, shown, now_s)
            waiting += [given] if given is not None else []
        arrival = link.receive(0.0)
    due = [a for a in waiting if a.due_s <= time.monotonic()]
    for given in due:
        publisher.publish(Topic(site, given.gateway, Channel.SHOP_FEEDBACK).text, encode(given.feedback))
        books.note(given.gateway, answers=1)
    bought = [(a.gateway, a.bought) for a in due if a.bought is not None]
    return [a for a in waiting if a not in due], bought


def _said(operators: Operators, gateway: str, shown: Shown, now_s: float) -> Answer | None:
    match shown:
        case Recommendation():
            return operators.look(gateway, shown, now_s)
        case WorkPlan():
            return operators.take_up(gateway, shown, now_s)
        case NoteReading():
            return operators.read(gateway, shown, now_s)
    return operators.decide(gateway, shown, now_s)


def publish_stock(line: str, levels: list[StockLevel], publisher: Publisher) -> None:
    """The store's word on some parts."""
    for level in levels:
        publisher.publish(f"plant/{line}/store/stock", encode(level))


def publish_orders(made: Line, after_ms: int, until_ms: int, seed: int, publisher: Publisher) -> None:
    """The planner's document of the day at half past four; the same again with a closed machine when one has failed."""
    day = day_of(until_ms)
    if after_ms < day * DAY_MS + 9 * HOUR_MS // 2 <= until_ms:
        publisher.publish(f"plant/{made.name}/orders", encode(orders_of_the_day(made, day, seed)))
    for machine, lives in made.lives.items():
        for life in lives:
            broke = life.failed and after_ms < life.end_ms <= until_ms
            if broke and life.end_ms > day * DAY_MS + 5 * HOUR_MS:
                shop = orders_of_the_day(made, day, seed, (machine, life.end_ms))
                publisher.publish(f"plant/{made.name}/orders", encode(shop))


def publish_plans(made: Line, from_ms: int, until_ms: int, publisher: Publisher) -> None:
    """What the planner decided since: the line's load a day ahead, hour by hour."""
    for plan in made.plans(from_ms, until_ms):
        publisher.publish(f"plant/{made.name}/schedule", encode(plan))


def publish_tick(
    made: Line, time_ms: int, publisher: Publisher, books: Books, dirt: random.Random, share: float
) -> None:
    """One sample of every machine of a line; now and then something broken beside it."""
    for machine, values in made.sample(time_ms):
        topic = f"plant/{made.name}/{machine}/telemetry"
        tags = {name: {"value": value, "unit": unit} for name, (value, unit) in values.items()}
        payload = message(time_ms, tags)
        publisher.publish(topic, payload)
        books.note(made.name, messages=1, samples=len(tags), good=len(tags))
        if dirt.random() < share:
            publish_dirt(dirt.choice(DIRT), made.name, topic, time_ms, tags, payload, publisher, books)


DIRT = (
    "malformed_json",
    "not_finite",
    "no_time_zone",
    "unknown_machine",
    "duplicate",
    "conflicting_duplicate",
    "ancient_time",
)


def publish_dirt(
    kind: str,
    line: str,
    topic: str,
    time_ms: int,
    tags: dict[str, dict[str, Any]],
    payload: bytes,
    publisher: Publisher,
    books: Books,
) -> None:
    """One broken message, entered into the books under the reason it must be refused for."""
    n = len(tags)
    if kind == "malformed_json":
        payload, n = payload[:-7], 1
    elif kind == "not_finite":
        payload, n = payload.replace(b'"value":', b'"value":NaN,"was":', 1), 1
    elif kind == "no_time_zone":
        payload = payload.replace(b"+00:00", b"")
    elif kind == "unknown_machine":
        topic = topic.replace("/telemetry", "-ghost/telemetry")
    elif kind == "conflicting_duplicate":
        payload = message(time_ms, {k: {**v, "value": v["value"] + 1.0} for k, v in tags.items()})
    elif kind == "ancient_time":
        payload = message(1000, tags)
    publisher.publish(topic, payload)
    books.note(line, messages=1, samples=n, **{kind: n})


def message(time_ms: int, tags: dict[str, Any]) -> bytes:
    """One machine's telemetry."""
    return msgspec.json.encode({"timestamp": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(), "tags": tags})


def truth_of(line: str, e: simulated.Episode) -> dict[str, Any]:
    """An injected fault for people and for the demo's accounting."""
    return {
        "line": line,
        "machine": e.machine,
        "start_ms": e.start_ms,
        "end_ms": e.end_ms,
        "fault": e.fault.name,
        "signals": sorted(e.fault.shows),
        "action": f"action:{e.fault.action}",
        "part": f"part:{e.fault.part}",
    }


def run_replay(options: argparse.Namespace, stopped: list[bool]) -> int:
    """Every row at its time, `speed` times as fast. A row out of order or repeated goes out where it stands in the file."""
    recordings = [replay.recognise(p, options.time_column) for p in replay.find(options.files)]
    link = connect(options.broker, "plant")
    publisher, books = Publisher(link, stopped), Books(options.status)
    began_s = time.monotonic()
    for recording in recordings:
        first_ms, file_began_s = 0, time.monotonic()
        for time_ms, cells in replay.rows(recording):
            if stopped or (options.minutes and time.monotonic() - began_s > options.minutes * 60):
                break
            first_ms = first_ms or time_ms
            while (ahead_s := (time_ms - first_ms) / 1000 / options.speed - (time.monotonic() - file_began_s)) > 0:
                books.write()
                time.sleep(min(ahead_s, 0.05))
            tags = {name: {"value": as_number(text)} for name, text in cells.items()}
            publisher.publish(f"plant/{options.line}/{recording.machine}/telemetry", message(max(time_ms, 0), tags))
            books.note(options.line, messages=1, samples=len(tags))
            books.facts = {"simulated_ms": time_ms, "machine": recording.machine}
    publisher.drain()
    books.write(done=True)
    link.close()
    return 0


def as_number(text: str) -> float | str | None:
    """The cell as a number; what is none goes out as it is, and the agent says why it refuses it."""
    try:
        return float(text)
    except ValueError:
        return text or None


if __name__ == "__main__":
    sys.exit(main())
