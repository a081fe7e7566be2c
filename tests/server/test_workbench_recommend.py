"""A table of choices becomes a folder, whole or not at all; what is odd is counted, what is wrong is refused in words."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millwright
from protocol import choices as tables
from protocol.bundles import Runtime, digest, unpack
from protocol.errors import BadSettings, Refused
from server import workbench
from server.algorithms.interactions import interactions
from server.training.held_choices import hold_out
from tests import shop
from tests.shop import HEADER, Row, write

ROOT = Path(__file__).parents[2]


@dataclass
class Place:
    folder: Path
    out: Path
    told: dict[str, Any]
    code: int

    @property
    def bundle(self) -> bytes:
        return (self.out / "recommend.items.bundle").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One training by the command, in its own words."""
    folder = shop.write_shop(tmp_path_factory.mktemp("shop"))
    out = folder / "shop"
    arguments = ["train", "recommend", "--events", str(folder / "events.csv"), "--items", str(folder / "items.csv")]
    done = subprocess.run(
        [sys.executable, "-m", "millwright", *arguments, "--text", "description", "--out", str(out), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    return Place(folder, out, json.loads(done.stdout), done.returncode)


def train(folder: Path, rows: Sequence[Row], header: Row = HEADER, **settings: Any) -> workbench.TrainedLists:
    return workbench.train_recommend_file(write(folder / "odd.csv", header, rows), folder / "out", **settings)


def findings(trained: workbench.TrainedLists) -> dict[str, int]:
    return {finding.kind: finding.count for finding in trained.report.findings}


def test_a_training_leaves_a_bundle_a_report_and_a_picture(place: Place) -> None:
    assert place.code == 0
    assert {p.name for p in place.out.iterdir()} == {
        "recommend.items.bundle",
        "report.json",
        "report.md",
        "by_length.png",
    }
    report = json.loads((place.out / "report.json").read_text())
    assert report | {"folder": str(place.out)} == place.told
    assert report["columns"] == {
        "user": "user",
        "item": "item",
        "time": "time",
        "value": "quantity",
        "item_id": "item",
        "text": ["description"],
    }
    assert (report["users"], report["items"], report["judged"]) == (60, 33, 59)
    assert [row["name"] for row in report["models"]] == [
        "popularity",
        "item_neighbours",
        "user_neighbours",
        "content_based",
        "linear_items",
        "hybrid",
    ]
    assert all(0 <= row["ndcg"] <= 1 and 0 <= row["recall"] <= 1 for row in report["models"])
    assert {row["known"] for row in report["lengths"]} >= {1, 2}
    assert all(sum(weights.values()) == pytest.approx(1, abs=0.01) for weights in report["weights"].values())
    assert (place.out / "by_length.png").read_bytes().startswith(b"\x89PNG")
    assert "| **hybrid, as sealed** |" in (place.out / "report.md").read_text()
    assert not [p.name for p in place.folder.iterdir() if p.name.startswith(".")]


def test_the_hybrid_beats_popularity_and_the_passport_says_so(place: Place) -> None:
    passport = unpack(place.bundle).passport
    assert digest(place.bundle) == place.told["bundle_digest"]
    assert (passport.slot, passport.runtime, passport.eligible) == ("recommend.items", Runtime.HYBRID, True)
    assert passport.quality[0].metric == "ndcg_at_10"
    assert passport.quality[0].model > passport.quality[0].reference + 0.1
    assert len(passport.users) == 60
    assert "tools-new" in passport.items
    assert passport.recommend is not None
    assert passport.recommend.candidates == []
    assert passport.recommend.data_until_ms == place.told["until_ms"]


def test_the_same_events_give_the_same_bundle_whatever_the_order_of_rows(place: Place, tmp_path: Path) -> None:
    rows, cards = shop.events(), shop.cards()
    random.Random(1).shuffle(rows)
    random.Random(2).shuffle(cards)
    write(tmp_path / "items.csv", ("item", "kind", "description"), cards)
    again = train(tmp_path, rows, items=tmp_path / "items.csv", text=("description",))
    assert again.candidate.archive == place.bundle


def test_parquet_gives_the_same_bundle(place: Place, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(HEADER, map(list, zip(*shop.events(), strict=True)), strict=True))
    columns["quantity"] = [int(text) for text in columns["quantity"]]  # type: ignore[misc]
    parquet.write_table(pa.table(columns), tmp_path / "events.parquet")
    done = workbench.train_recommend_file(
        tmp_path / "events.parquet", tmp_path / "out", items=place.folder / "items.csv", text=("description",)
    )
    assert done.candidate.archive == place.bundle


def test_another_seed_and_a_half_life_give_another_bundle(place: Place, tmp_path: Path) -> None:
    other = train(tmp_path, shop.events(), seed=8, half_life_days=30.0)
    assert digest(other.candidate.archive) != place.told["bundle_digest"]
    assert "content_based" not in {row.name for row in other.report.models}
    assert other.candidate.passport.recommend is not None
    assert other.candidate.passport.recommend.half_life_days == 30.0


def test_only_candidates_are_recommended(tmp_path: Path) -> None:
    trained = train(tmp_path, shop.events(), candidates=("hydraulics", "tools"))
    bundle = unpack(trained.candidate.archive)
    popular = dict(zip(bundle.passport.items, bundle.tables["popularity"].tolist(), strict=True))
    assert all((share > 0) == name.startswith(("hydraulics", "tools")) for name, share in popular.items())


def test_what_is_odd_is_counted_and_said(tmp_path: Path) -> None:
    rows = shop.events()
    rows += [rows[0]] * 3  # duplicates
    rows += [("customer-001", "tools-00", "2026-01-01T08:00:00Z", "-2")] * 2  # returns
    rows += [("customer-001", "tools-00", "2026-01-01T08:00:00Z", "0")]
    rows += [("customer-001", "tools-00", "2026-01-01T08:00:00Z", "many")]
    rows += [("", "tools-00", "2026-01-01T08:00:00Z", "1"), ("customer-001", " ", "2026-01-01T08:00:00Z", "1")]
    rows += [("customer-001", "x" * 200, "2026-01-01T08:00:00Z", "1")]
    rows += [("customer-001", "tools-01", "yesterday", "1"), ("customer-001", "tools-01", "1960-01-01T00:00:00Z", "1")]
    rows += [("customer-002", "tools-02", "2026-01-01T08:00:00", "1")]
    items = [*shop.cards(), ("", "none", "without an id"), ("tools-00", "", ""), ("tools-01", "", "")]
    items = [card for card in items if card[0] != "tools-02"]
    items = [("bearings-00", "", "") if card[0] == "bearings-00" else card for card in items]
    write(tmp_path / "items.csv", ("item", "kind", "description"), items)
    found = findings(train(tmp_path, rows, items=tmp_path / "items.csv"))
    wanted = {"returned": 2, "nothing": 1, "no_number": 1, "no_user": 1, "no_item": 1, "long_item": 1, "no_time": 2}
    wanted |= {"no_time_zone": 1, "item_twice": 2, "no_attributes": 1, "not_chosen_yet": 1, "no_card": 2}
    assert found | wanted == found
    assert found["repeated"] >= 3


def test_one_item_bought_a_million_times_is_one_choice_to_the_cap(tmp_path: Path) -> None:
    rows = [*shop.events(), ("customer-000", "tools-07", "2026-02-01T08:00:00Z", "1000000")]
    trained = train(tmp_path, rows)
    assert trained.eligible
    loud = unpack(trained.candidate.archive)
    assert np.isfinite(loud.tables["popularity"]).all()
    assert loud.tables["popularity"].min() > 0


def test_tables_without_times_or_values_are_enough(tmp_path: Path) -> None:
    trained = train(tmp_path, [row[:2] for row in shop.events()], ("customer", "product"))
    assert (trained.report.columns.user, trained.report.columns.item) == ("customer", "product")
    assert (trained.report.columns.time, trained.report.columns.value) == ("", "")
    assert trained.report.until_ms is None
    assert "there are no times" in trained.report.split


@pytest.mark.parametrize(
    ("header", "rows", "settings", "words"),
    [
        (("who", "what"), [("a", "b")], [], "which column holds the users"),
        (("user", "thing"), [("a", "b")], [], "which column holds the items"),
        (("user", "item"), [("a", "b")], ["--item", "user"], "cannot be the users and the items"),
        (("user", "item"), [("a", "b")], ["--time", "when"], "no column 'when'"),
        (("user", "item"), [], [], "a header and no rows"),
        ((), [], [], "the file is empty"),
        (("user", "item", "quantity"), [("a", "b", "-1"), ("a", "c", "-2")], [], "(returns) were left out"),
        (("user", "item"), [("a", f"i{n}") for n in range(90)], [], "all events are of one user (a)"),
        (("user", "item"), [(f"u{n}", "b") for n in range(90)], [], "all events are of one item (b)"),
        (("user", "item"), [("u", "b")] * 1000, [], "all events are of one user"),
        (("user", "item"), [(f"u{n}", f"i{n}") for n in range(90)], [], "0 users chose two or more items"),
        (("user", "item", "time"), [("a", "b", "soon")], [], "no stamp of column 'time' can be read"),
        (("user", "item", "time"), [("a", "b", "17")], [], "too small for a time"),
        (("user", "item"), [("a", "b"), ("c", "d")], ["--half-life-days", "30"], "needs times"),
        (("user", "item"), [("a", "b")], ["--half-life-days", "-1"], "give days above 0"),
        (("user", "item"), [("a", "b"), ("c", "d")], ["--candidates", "part:"], "no item starts so"),
        (("user", "item"), [("a", "b")], ["--text", "words"], "give one with --items"),
        (("user", "item"), [("a", "b")], ["--items", "{folder}/nothing.csv"], "cannot read"),
        (("user", "item"), [("a", "b")], ["--items", "{folder}/notes.csv"], "the items' table needs a column 'item'"),
        (("user", "item"), [("a", "b")], ["--items", "{folder}/bare.csv"], "the items' table has a header and no rows"),
        (("user", "item"), [("a", "b")], ["--items", "{folder}/bare.csv", "--text", "title"], "no column title"),
        (("user", "item"), [("a", "b")], ["--out", "{folder}/kept"], "not the folder of an earlier training"),
        (("user", "item"), [("a", "b")], ["--out", "{folder}/no/where"], "no folder"),
        (("user", "item"), [("a", "b")], ["--events", "{folder}/nothing.csv"], "cannot read"),
    ],
)
def test_wrong_input_is_refused_with_status_2_and_the_remedy(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    header: Row,
    rows: list[Row],
    settings: list[str],
    words: str,
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("mine")
    (tmp_path / "notes.csv").write_text("note,text\n1,hello\n")
    (tmp_path / "bare.csv").write_text("item,words\n")
    data = tmp_path / "events.csv"
    data.write_text("\n".join(",".join(row) for row in [header, *rows]).strip("\n") + ("\n" if header else ""))
    arguments = ["train", "recommend", "--events", str(data), "--out", str(tmp_path / "never"), "--json"]
    filled = [one.format(folder=tmp_path) for one in settings]
    assert millwright.main([*arguments, *filled]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
    assert (tmp_path / "kept" / "letter.txt").read_text() == "mine"
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_model_that_beats_nothing_is_written_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"u{u}", f"i{i}") for u in range(30) for i in range(6)]  # everybody chooses everything: one order is right
    data = write(tmp_path / "events.csv", ("user", "item"), rows)
    arguments = ["train", "recommend", "--events", str(data), "--out", str(tmp_path / "out"), "--quiet"]
    assert millwright.main(arguments) == 1
    told = capsys.readouterr()
    assert "Refused: does not beat the simple reference" in told.out
    assert told.err == ""
    assert millwright.main(arguments) == 1  # its own folder may be written again


def test_an_interrupted_training_leaves_what_was_there_before(place: Place, tmp_path: Path) -> None:
    before = tmp_path / "shop"
    shutil.copytree(place.out, before)

    def interrupt(share: float, _step: str) -> None:
        if share >= 0.1:
            raise KeyboardInterrupt

    for out in (before, tmp_path / "new"):
        with contextlib.suppress(KeyboardInterrupt):
            workbench.train_recommend_file(place.folder / "events.csv", out, progress=interrupt)
            pytest.fail("it was interrupted")
    assert [p.name for p in tmp_path.iterdir()] == ["shop"]
    assert (before / "recommend.items.bundle").read_bytes() == place.bundle


def test_large_tables_are_bounded_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from server.training import recommend_events

    monkeypatch.setattr(tables, "MOST_EVENTS", 300)
    monkeypatch.setattr(recommend_events, "MOST_ITEMS", 20)
    monkeypatch.setattr(recommend_events, "MOST_TUNED", 10)
    monkeypatch.setattr(recommend_events, "MOST_LINEAR", 10)
    trained = train(tmp_path, shop.events())
    assert set(findings(trained)) >= {"newest_only", "seldom", "not_tuned", "no_linear"}
    assert trained.report.items == 20


def test_a_bundle_holds_the_newest_users(tmp_path: Path) -> None:
    from server.training.recommend_events import EventPlan, train_recommend_events

    rows = shop.events()
    columns = tables.ChoiceColumns(user="user", item="item", time="time", value="quantity")
    from protocol.columns import from_arrays

    arrays = {name: np.array(cells) for name, cells in zip(HEADER, zip(*rows, strict=True), strict=True)}
    laid = tables.lay_out_choices(from_arrays(arrays, columns.wanted), columns)
    learned = train_recommend_events(laid, {}, columns, EventPlan(most_users=25), workbench.training.quiet)
    assert learned.kept_users == 25
    assert [finding.kind for finding in learned.findings] == ["newest_users"]


def test_the_newest_fifth_of_every_user_is_held_out() -> None:
    made = interactions((f"u{u}", f"i{i}", 1.0, 1000 + 10 * i) for u in range(3) for i in range(1 + 4 * u))
    held = hold_out(made, 10, 1, np.ones(len(made.items), dtype=bool))
    assert [made.users[row] for row in held.rows] == ["u1", "u2"]
    assert held.wanted.sum(axis=1).ravel().tolist() == [[1.0, 2.0]]
    assert [made.items[i] for i in held.in_order[0]] == ["i0", "i1", "i2", "i3"]
    places, short = held.shortened(5)
    assert places.tolist() == [1]
    assert {made.items[i] for i in short.indices} == {"i2", "i3", "i4", "i5", "i6"}
    assert (held.known.multiply(held.wanted)).nnz == 0


def fenced(language: str) -> str:
    text = (ROOT / "docs" / "recommending.md").read_text(encoding="utf-8")
    return text.split(f"```{language}\n", 1)[1].split("```", 1)[0]


def test_the_documented_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.write_shop(tmp_path))
    train_line, *answers = (shlex.split(line)[1:] for line in fenced("sh").strip().splitlines())
    assert millwright.main(train_line) == 0
    assert "Eligible" in capsys.readouterr().out
    for line in answers:
        assert millwright.main(line) == 0
        assert "bearings" in capsys.readouterr().out or "--user" in line


def test_the_documented_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.write_shop(tmp_path))
    exec(compile(fenced("python"), "recommending.md", "exec"), {})  # noqa: S102 - it is our own documentation
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Eligible")
    assert len(told) == 4


def test_every_fallback_is_documented() -> None:
    from edge_agent.once import recommend as once

    text = (ROOT / "docs" / "recommending.md").read_text(encoding="utf-8")
    assert once.__doc__ is not None
    fallbacks = re.findall(r"^- `(\w+)`", once.__doc__, flags=re.MULTILINE)
    assert set(fallbacks) == set(once.FALLBACKS)
    assert all(f"`{fallback}`" in text for fallback in fallbacks)


def test_python_refuses_as_the_command_does(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="which column"):
        train(tmp_path, [("a", "b")], ("x", "y"))
    with pytest.raises(Refused, match="one user"):
        train(tmp_path, [("a", "b"), ("a", "c")], ("user", "item"))
