"""A reader's bundle may hold what finds entities and what writes shorthand out: a reading then says both."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

pytest.importorskip("sklearn")

from edge_agent.devices.line import START_MS, Line
from edge_agent.runtimes import load
from edge_agent.skills import read_notes
from protocol.bundles import digest, pack, unpack
from protocol.errors import BadBundle
from protocol.reading.notes import Note
from server import training
from server.algorithms.shorthand import ShorthandSettings, fit_shorthand
from server.algorithms.span_tagger import SpanSettings, SpanText, fit_spans
from server.datasets import order_note
from server.training.reader import Beside

SHORT = [
    [("brg", "bearing"), ("hot", "hot")],
    [("brg", "bearing"), ("noisy", "noisy")],
    [("repl", "replace"), ("brg", "bearing")],
] * 6
NAMED = [
    SpanText([part, state], {(0, 1): "item", (1, 2): "state"})
    for part in ("pump", "valve", "motor", "belt")
    for state in ("leaking", "broken", "seized")
] * 2


def beside() -> Beside:
    """Shorthand and spans, learned elsewhere."""
    words = fit_shorthand(SHORT, ShorthandSettings())
    spans = fit_spans(NAMED, SpanSettings(width=8, steps=60, folds=2, penalty=1e-5))
    return Beside(tables=words.tables() | spans.tables(), texts=words.texts(), entities=tuple(spans.classes))


@cache
def archive() -> bytes:
    world = training.Circumstances(
        dataset_digest="0" * 64, dataset_rows=80, now_ms=START_MS, versions={"notes.reader": 1}
    )
    notes = [order_note(order) for order in Line(1, 7).past_work_orders(80)]
    (made,) = training.train_reader(notes, 7, world, lambda _share, _step: None, beside=beside())
    return made.archive


def test_a_reading_names_what_stands_in_the_note_and_writes_it_out() -> None:
    model = load(archive(), digest(archive()))
    reading = read_notes.read(Note(id="n", machine="P-101", time_ms=0, text="brg hot"), model, 0)
    assert reading is not None
    assert reading.normalised == "bearing hot"
    named = read_notes.read(Note(id="m", machine="P-101", time_ms=0, text="pump leaking"), model, 0)
    assert named is not None
    assert {("pump leaking"[e.start : e.end], e.kind) for e in named.entities} == {
        ("pump", "item"),
        ("leaking", "state"),
    }


def test_tables_of_other_entities_than_the_passport_names_are_refused() -> None:
    bundle = unpack(archive())
    spec = bundle.passport.reader
    assert spec is not None
    other = msgspec.structs.replace(bundle.passport, reader=msgspec.structs.replace(spec, entities=["something"]))
    altered = pack(msgspec.structs.replace(bundle, passport=other))
    with pytest.raises(BadBundle, match="entities"):
        load(altered, digest(altered))
