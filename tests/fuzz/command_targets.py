"""Files that commands are given: tables of people's own, plans and catalogues, ledgers, bundles that somebody has written.
What a command cannot use it refuses in one line."""

from __future__ import annotations

import functools
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent import privacy, trust
from edge_agent.devices import replay
from edge_agent.devices.store import catalogue_toml
from edge_agent.once import forecast, gantt, inspect_bundle, notes, purchase, recommend, schedule
from edge_agent.once.moments import moment_ms
from edge_agent.once.plan import main as plan
from edge_agent.once.report import read_reports, read_sources
from edge_agent.skills.schedule import schedule as planned
from edge_agent.skills.write_plan import Behind, Voice, write_designs, write_plans
from edge_agent.stores import load_catalogue
from protocol.bundles import Lineage, pack
from protocol.capabilities import PlanKind
from protocol.capability_check import capability_problems
from protocol.catalogue import Catalogue
from protocol.choices import ChoiceColumns, event_columns, lay_out_choices
from protocol.columns import header, read
from protocol.design_grammar import DesignRequest
from protocol.ledger import canonical
from protocol.planning_grammar import PlanRequest
from protocol.plans import Design, WorkPlan
from protocol.recordings import Layout
from protocol.reports import ModelRef
from protocol.schedules import Choice as Runs
from protocol.schedules import Operation, Shop, ShopJob
from protocol.shop_check import violations
from protocol.sync import decode, encode
from protocol.unreadable import UNREADABLE
from protocol.writing.plan_text import PlantNames, write_design, write_plan
from server import ledger as books
from server import lives, status_command
from server.ledger.command import verify
from server.seal import Seal
from server.signing import make_keys
from server.workbench import exporting
from server.workbench.notes import read_notes
from server.workbench.recommending import read_cards
from tests.bundles import small
from tests.fuzz.protocol_targets import LEDGER
from tests.fuzz.targets import Target, through, wire_examples

NOW = 1_760_000_000_000
STOCK = b"part,on_hand,on_order,due_days,time\nseal-3,2,5,3.5,2025-10-01T08:00Z\n"
DEMAND = b"part,time,quantity\nseal-3,2025-03-04,2\nseal-3,2025-05-01T10:00+02:00,1\n"
MONTHS = b"part,month,quantity\nseal-3,2025-03,2\nseal-3,2025-05,\n"
RISKS = b"machine,probability,within_days,failure,machine_type\nP-101,0.25,30,leak,pump\n"
EVENTS = b"user,item,time,quantity\na,x,2026-01-02T08:00:00Z,2\na,y,2026-01-03,1\nb,x,,3\n"
CARDS = b"item,kind,description\nx,pump,a pump and a hose\ny,fuse,\n"
NOTES = b'text,failure,case,action\n"pump leaks at the seal",leak,1,replace seal\nbearing hot,bearing,2,\n'
LIVES = b"unit,time,failed,machine_type,vibration\nu1,0,0,pump,1.5\nu1,3600000,1,pump,2.5\nu2,2026-01-01T00:00:00Z,0,pump,\n"
REPLAYED = b"timestamp;temperature;load;anomaly\n2026-01-31 08:00:00;71.5;1;0\n1769846400;72.5;;0\n"


def targets(folder: Path) -> Iterator[Target]:
    """One of every sort of file. folder: an empty one."""
    yield from _tables(folder)
    yield from _plans(folder)
    yield from _signed(folder)
    yield from _bundles(folder)
    yield Target("moment", _moment, [b"2026-04-30", b"2026-09-01T08:00Z"])
    report = encode(wire_examples()["report"])
    reports = through(folder / "reports.json", read_reports)
    yield Target("reports_file", reports, [report, report + b"\n" + report], json=True)
    spoken_of: Any = wire_examples()["forecast"]
    sources = msgspec.json.encode({"type": spoken_of.type_name, "data": spoken_of})
    yield Target("sources_file", through(folder / "sources.jsonl", read_sources), [sources], json=True)
    yield Target("answer-status", _judged, [json.dumps(STATUS).encode()], json=True)
    people = "# of the plant\nLi Wei\n王师傅\n".encode()
    yield Target("people_file", through(folder / "people", lambda path: privacy._people(str(path))), [people])
    said = [b"pump leaks\n\nbearing hot\n", "泵停了".encode()]
    yield Target("notes_file", through(folder / "notes.txt", lambda path: notes.texts(str(path))), said)
    yield Target("texts_file", through(folder / "texts.txt", exporting._texts), said)
    arrays = io.BytesIO()
    np.savez(arrays, ids=np.arange(6).reshape(2, 3), mask=np.ones(2, dtype=np.float32))
    yield Target("rows_file", through(folder / "rows.npz", exporting._rows), [arrays.getvalue()])


STATUS: dict[str, Any] = {
    "mqtt": {"on": True, "connected": True}, "transactions_failed": 0, "quarantine": {"bad_time": 1},
    "identity": {"revoked": 2},
    "refusals": [{"where": "mqtt", "why": "wrong_type", "count": 1}],
    "gateways": [{"gateway": "g", "site": "s", "online": True, "silent_s": 1.5, "complete": True, "outbox": {"event": 1},
                  "refusals": {"bad_time": 1},
                  "lanes": {"event": {"complete_to": 3, "missing": 0, "shed": 1, "dead": 0, "quarantined": 0}}}],
}  # fmt: skip


def _moment(data: bytes) -> None:
    moment_ms("--at", data.decode(errors="replace"))


def _judged(data: bytes) -> None:
    """What a command makes of another server's answer."""
    status_command.judged(data, "https://server.example")


def _tables(folder: Path) -> Iterator[Target]:
    catalogue = folder / "known.toml"
    catalogue.write_text('[[part]]\npart = "seal-3"\nsuppliers = [{supplier = "s", price = 2.5, lead_days = 7}]\n')
    known = load_catalogue(catalogue)
    shelf: Any = SimpleNamespace(layout=ChoiceColumns(user="user", item="item"))

    def cards(path: Path) -> None:
        recommend.read_cards(path, shelf)
        read_cards(path, shelf.layout, ())

    def table(make: Callable[[Path], object]) -> Callable[[Path], None]:
        return lambda path: (purchase._from_table(path, make), None)[1]

    made: dict[str, tuple[Callable[[Path], object], list[bytes]]] = {
        "stock": (table(lambda path: purchase._stock(path, known, {}, NOW)), [STOCK]),
        "demand": (table(lambda path: purchase._demand(path, NOW)), [DEMAND, MONTHS]),
        "risks": (table(lambda path: purchase._risks(path, NOW)), [RISKS]),
        "events": (_events, [EVENTS]),
        "cards": (cards, [CARDS]),
        "notes": (read_notes, [NOTES]),
        "replay": (_replayed, [REPLAYED]),
    }
    for name, (make, seeds) in made.items():
        yield Target(f"table-{name}", through(folder / f"{name}.csv", make), seeds)
    packed = through(folder / "replay.csv.gz", _replayed)
    yield Target("table-replay_gz", packed, [gzip.compress(REPLAYED, mtime=0)])
    (folder / "lives").mkdir()
    unit = through(folder / "lives" / "a.csv", lambda path: lives.read_folder(path.parent, 3_600_000))
    yield Target("table-lives", unit, [LIVES])


def _events(path: Path) -> None:
    with path.open("rb") as stream:
        layout = event_columns(header(stream))
        lay_out_choices(read(stream, layout.wanted), layout)


def _replayed(path: Path) -> None:
    for _ in replay.rows(replay.recognise(path)):
        pass


# plans ----------------------------------------------------------------------------------------------------------------


def _plans(folder: Path) -> Iterator[Target]:
    text = catalogue_toml().encode()
    (folder / "plant.toml").write_bytes(text)
    plant = load_catalogue(folder / "plant.toml")
    for kind, subject in (("process", plant.product[0].product), ("design", plant.family[0].family)):
        ask = functools.partial(_command, plan, [kind, "--for", subject, "--candidates", "1", "--catalogue"])
        yield Target(f"plan-{kind}", through(folder / f"{kind}.toml", ask), [text], slow=True)
    yield Target("plan-catalogue", _planned, [msgspec.json.encode(plant)], json=True, slow=True)
    yield Target("plan-model", functools.partial(_chosen, plant), [bytes(range(256)), b"", b"\x80\x7f\xc0"], slow=True)
    names, examples = PlantNames(plant), wire_examples()
    documents = {"plan": examples["work_plan"], "design": examples["design"]}
    for name, one in documents.items():
        write: Any = write_plan if name == "plan" else write_design
        told = functools.partial(_written, type(one), write, names)
        yield Target(f"plan-written_{name}", told, [msgspec.json.encode(one)], json=True, slow=True)
    shop = Shop(jobs=[ShopJob(job="J0", operations=[Operation(choices=[Runs("M0", 3), Runs("M1", 4)])])])
    seed = msgspec.json.encode(planned(shop, 0, 0.01))
    yield Target("schedule", through(folder / "schedule.json", functools.partial(_drawn, shop)), [seed], json=True)
    yield Target("schedule_down", lambda data: schedule._down(data.decode(errors="replace")), [b"M0:0:60000"])


def _command(main: Callable[[list[str]], int], words: Sequence[str], path: Path) -> None:
    """What it prints is of no interest here."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        main([*words, str(path)])


def _planned(data: bytes) -> None:
    """Everything that a catalogue says it can do, planned and written."""
    try:
        catalogue = msgspec.json.decode(data, type=Catalogue)
    except UNREADABLE:
        return
    if capability_problems(catalogue):
        return
    names = PlantNames(catalogue)
    for product in catalogue.product[:1]:
        request = PlanRequest(kind=PlanKind.PROCESS, product=product.product)
        for one in write_plans(catalogue, request, Behind(), NOW, candidates=2):
            write_plan(one, names)
    for family in catalogue.family[:1]:
        for sketch in write_designs(catalogue, DesignRequest(family=family.family), Behind(), NOW, candidates=2):
            write_design(sketch, names)


class _Whim:
    """A language model whose logits are what somebody has written, NaN and infinities among them."""

    vocabulary, context = 256, 4000

    def __init__(self, said: bytes) -> None:
        whole = np.frombuffer(said[: len(said) // 2 * 2] or b"\0\0", dtype="<f2").astype(np.float32)
        self._said, self.length = np.resize(whole, 256), 0

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits for what follows each."""
        if self.length + len(ids) > self.context:
            raise ValueError("full")
        self.length += len(ids)
        return np.stack([np.roll(self._said, self.length + at) for at in range(len(ids))])

    def rewind(self, length: int) -> None:
        """Forgets what came later."""
        self.length = length


def _chosen(plant: Catalogue, data: bytes) -> None:
    """Whatever a model would say, what it chooses is right."""
    voice = Voice(_Whim(data), lambda text: list(text.encode()), ModelRef("report.writer", "gpt", 1))
    request = PlanRequest(kind=PlanKind.PROCESS, product=plant.product[0].product)
    write_plans(plant, request, Behind(), NOW, candidates=1, voice=voice)


def _written(kind: type[WorkPlan] | type[Design], write: Callable[..., object], names: PlantNames, data: bytes) -> None:
    write(decode(data, kind), names)


def _drawn(shop: Shop, path: Path) -> None:
    """A plan to be repaired: whether it is one, and its picture."""
    told = schedule._schedule(path)
    if not violations(shop, told):
        gantt.draw(schedule.checked(shop, told))


# what is signed, and bundles ------------------------------------------------------------------------------------------


def _signed(folder: Path) -> Iterator[Target]:
    seal = Seal.of(folder / "keys")
    key = folder / "seal.pub"
    key.write_bytes(seal.public_pem)
    whole = msgspec.json.encode(books.signed(seal, LEDGER))
    file = folder / "ledger.json"
    (folder / "whole.json").write_bytes(whole)
    read_it = through(file, lambda path: _quietly(verify, path, key))
    yield Target("ledger_file", read_it, [whole], json=True)
    yield Target("ledger_resealed", functools.partial(_resealed, seal, file, key), [whole], json=True)
    yield Target(
        "ledger_key",
        through(folder / "other.pub", lambda path: _quietly(verify, folder / "whole.json", path)),
        [key.read_bytes()],
    )
    root = make_keys(folder / "root").read_bytes()
    yield Target("trusted_root", through(folder / "root.json", trust.read_root), [root], json=True, slow=True)


def _quietly(call: Callable[..., object], *given: object) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        call(*given)


def _resealed(seal: Seal, file: Path, key: Path, data: bytes) -> None:
    """What a server of another version might have signed."""
    try:
        document = json.loads(data)
        document |= {"key": seal.key, "signature": seal.sign(canonical(document["ledger"]))}
    except (ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError):
        return
    file.write_bytes(json.dumps(document).encode())
    _quietly(verify, file, key)


def _bundles(folder: Path) -> Iterator[Target]:
    """A bundle's own words about the columns of its table, which a command reads a person's file by."""
    whole = pack(small())
    curve = pack(small(lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1,
                                       parameters={"sizes": '[{"share": 0.5, "error": 1.0}]'})))  # fmt: skip
    inspect = functools.partial(_command, inspect_bundle.main, ["--json"])
    yield Target("inspected", through(folder / "a.bundle", inspect), [whole, curve])
    layout = msgspec.json.encode(Layout(time="time", targets=("temperature",)))
    yield Target("bundle_layout", _layout, [layout], json=True)


def _layout(data: bytes) -> None:
    kept = data.decode(errors="replace")
    lineage = Lineage(
        dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1,
        parameters={forecast.RECORDINGS: kept},
    )  # fmt: skip
    window = SimpleNamespace(step_ms=60_000)
    model: Any = SimpleNamespace(passport=SimpleNamespace(window=window, lineage=lineage))
    told = SimpleNamespace(time="", series="", target="", time_zone="", time_format="", ignore_known=False)
    forecast.layout_of([model], told)
