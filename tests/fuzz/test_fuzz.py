"""Whatever bytes come from outside, a reader takes them or refuses them with its reason, soon and in little memory. The long
search is `python -m tests.fuzz`; here are the seeds, a few hundred changed inputs each, and everything that broke a reader
once (`found/`)."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.hunt import Hunt
from tests.fuzz.targets import FOUND, MOST_BYTES, Target, every_target, measured

INPUTS, SLOW_INPUTS = 200, 8
HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 999999), }\n"


def _deflated(size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tables/zeros.npy", bytes(size))
    return out.getvalue()


HARM: dict[str, bytes] = {
    "brackets": b"[" * 100_000,
    "closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000,
    "a field within": b'{"id":' + b"[" * 100_000,
    "2 MB of spaces": b" " * 2_000_000,
    "2 MB of text": b'"' + b"x" * 2_000_000 + b'"',
    "200 KB of digits": b"9" * 200_000,
    "200 KB of lines": b"\n" * 200_000,
    "a list of 2 MB": b"[" + b"{}," * 660_000 + b"{}]",
    "a zip bomb": _deflated(100_000_000),
    "a gzip bomb": gzip.compress(b"time,machine,temperature,load\n" + bytes(100_000_000)),
    "an array of 10^18": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(HEADER)) + HEADER,
    "a field of 2^63 bytes": b"\x3a" + b"\xff" * 8 + b"\x7f",
    "nothing": b"",
    "a NUL": b"\0",
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Refused inputs are logged one by one; here there are thousands."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return every_target(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_takes_its_seeds(targets: dict[str, Target]) -> None:
    for target in targets.values():
        assert target.seeds, target.name
        for seed in target.seeds:
            target.read(seed)


def test_changed_inputs_are_taken_or_refused(targets: dict[str, Target]) -> None:
    for target in targets.values():
        told = Hunt(target).run(SLOW_INPUTS if target.slow else INPUTS)
        assert not told.holes, f"{target.name}: {told.holes}"


def test_what_broke_a_reader_once_does_no_more(targets: dict[str, Target]) -> None:
    assert {folder.name for folder in FOUND.iterdir()} <= set(targets), "inputs for a reader that there is not"
    for target in targets.values():
        for data in target.found():
            target.ask(data)


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_large_and_deep_inputs_cost_neither_time_nor_memory(targets: dict[str, Target], harm: bytes) -> None:
    for target in targets.values():
        target.ask(harm)
        spent = measured(target, harm)
        assert spent < MOST_BYTES, f"{target.name} held {spent / 2**20:.0f} MiB for {len(harm)} bytes"


@settings(max_examples=40)
@given(st.data())
def test_any_bytes_and_any_text_are_taken_or_refused(targets: dict[str, Target], data: st.DataObject) -> None:
    quick = sorted(name for name, target in targets.items() if not target.slow)
    target = targets[data.draw(st.sampled_from(quick))]
    target.ask(data.draw(st.binary(max_size=300)))
    target.ask(data.draw(st.text(max_size=100)).encode(errors="replace"))


def test_a_reader_that_breaks_is_found_and_its_input_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> None:
        if data.startswith(b"{") and b"9" in data:
            raise ZeroDivisionError("nine")

    monkeypatch.setattr("tests.fuzz.hunt.FOUND", tmp_path)
    told = Hunt(Target("example", read, [b'{"a": 9}', b'{"b": 1}'], json=True), keep=True).run(200)
    assert [hole.partition(" at ")[0] for hole in told.holes] == ["ZeroDivisionError: nine"]
    (kept,) = (tmp_path / "example").iterdir()
    with pytest.raises(ZeroDivisionError):
        read(kept.read_bytes())
