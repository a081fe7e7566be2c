"""Tables from outside become events and cards: columns found by their usual names, names trimmed, times read."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest

from protocol import columns
from protocol.choices import (
    ChoiceColumns,
    card,
    card_columns,
    card_layout,
    event_columns,
    lay_out_cards,
    lay_out_choices,
)
from protocol.errors import BadSettings, Refused

CSV = b"Customer ID;Stockcode;qty;When\n 7 ;b;1,5;2026-01-02T00:00:00+01:00\n7;a;2,0;2026-01-01T00:00:00Z\n"


def read(text: bytes, layout: ChoiceColumns) -> columns.Columns:
    return columns.read(io.BytesIO(text), layout.wanted)


@pytest.mark.parametrize("packed", [False, True])
def test_columns_are_found_by_their_usual_names(packed: bool) -> None:
    stream = io.BytesIO(gzip.compress(CSV) if packed else CSV)
    header = columns.header(stream)
    assert stream.tell() == 0
    layout = event_columns(header, time="When")
    assert layout == ChoiceColumns(user="Customer ID", item="Stockcode", time="When", value="qty")
    made = lay_out_choices(columns.read(stream, layout.wanted), layout)
    assert (made.users, made.items) == (["7"], ["a", "b"])
    assert made.what.tolist() == [1, 0]
    assert made.values.tolist() == [1.5, 2.0]
    assert made.times_ms is not None
    assert np.diff(made.times_ms).tolist() == [-23 * 3_600_000]


@pytest.mark.parametrize("arrow", [False, True])
def test_a_table_without_times_is_read_with_and_without_pyarrow(arrow: bool) -> None:
    if arrow:
        pytest.importorskip("pyarrow")
    layout = ChoiceColumns(user="u", item="i")
    read = columns.read_csv(io.BytesIO(b"u,i,x\na,b,1\nc,d,2\n"), layout.wanted, arrow=arrow)
    made = lay_out_choices(read, layout)
    assert (made.users, made.items, made.times_ms) == (["a", "c"], ["b", "d"], None)
    assert not read.time.good.any()


def test_a_header_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(Refused, match="empty"):
        columns.header(io.BytesIO(b""))
    with pytest.raises(Refused, match="gzip"):
        columns.header(io.BytesIO(b"\x1f\x8bnothing"))


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000, 1_000_000_000])
def test_times_that_are_numbers_are_read_by_their_size(unit: int) -> None:
    layout = ChoiceColumns(user="u", item="i", time="t")
    made = lay_out_choices(read(f"u,i,t\na,b,{1_700_000_000 * unit}\n".encode(), layout), layout)
    assert made.times_ms is not None
    assert made.times_ms.tolist() == [1_700_000_000_000]
    assert made.findings[0].kind == "numbered_time"


def test_an_items_table_has_ids_words_and_attributes() -> None:
    table = b"id,title,colour,size\na,Pump,red,\nb,,,\na,Pump,red,9\n"
    header = columns.header(io.BytesIO(table))
    item_id, words = card_columns(header, "sku")
    assert (item_id, words) == ("id", ("title",))
    made, findings = lay_out_cards(columns.read(io.BytesIO(table), card_layout(header)), item_id, words)
    assert made == {"a": card("a", "Pump", {"colour": "red", "size": "9"})}
    assert [(found.kind, found.count) for found in findings] == [("item_twice", 1), ("no_attributes", 1)]
    with pytest.raises(BadSettings, match="needs a column 'sku'"):
        card_columns(["name", "colour"], "sku")


def test_a_card_holds_no_more_than_it_may() -> None:
    made = card("a", "x" * 5000, {f"k{i:03}": "v" * 200 for i in range(60)})
    assert (len(made.text), len(made.attributes)) == (4000, 50)
    assert max(map(len, made.attributes.values())) == 128
