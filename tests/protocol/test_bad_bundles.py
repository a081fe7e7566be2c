"""A bundle that is cut, altered, too large or made by somebody who means harm is refused with the reason, and costs neither
memory nor a crash."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import tracemalloc
import warnings
import zipfile
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import arrays
from protocol.bundles import MAX_MEMBERS, PASSPORT, digest, pack, unpack
from protocol.errors import BadBundle, Reason
from tests.bundles import members, rewritten, small, zipped

WHOLE = pack(small())
HELD = members(WHOLE)
TABLE = "tables/weights.npy"


def refused(archive: bytes) -> BadBundle:
    with pytest.raises(BadBundle) as why:
        unpack(archive, digest(archive))
    return why.value


def entries(without: str = "") -> list[tuple[str, bytes]]:
    return [(name, body) for name, body in HELD.items() if name != without]


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


@pytest.mark.parametrize("name", sorted(HELD))
def test_each_member_that_is_missing_is_named(name: str) -> None:
    assert name in refused(zipped(*entries(name))).detail


@pytest.mark.parametrize("name", sorted(set(HELD) - {PASSPORT}))
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda name, body: [(name, flipped(body, len(body) - 1))], "was altered"),
        (lambda name, body: [(name, body[:-1])], "was altered"),
        (lambda name, body: [(name, b"")], "was altered"),
        (lambda name, body: [(name.replace(".npy", "2.npy"), body)], "is missing"),
        (lambda name, body: [(name, body), ("tables/more.npy", body)], "is not on the list"),
    ],
    ids=["altered", "cut", "empty", "renamed", "one more"],
)
def test_each_member_that_was_tampered_with_is_named(name: str, harm: Any, said: str) -> None:
    why = refused(zipped(*entries(name), *harm(name, HELD[name])))
    assert why.reason is Reason.DIGEST_MISMATCH
    assert said in why.detail


def test_a_member_that_is_there_twice_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns its writer
        twice = zipped(*entries(), (TABLE, HELD[TABLE]))
    assert "each once" in refused(twice).detail


@pytest.mark.parametrize(
    "name",
    [
        "../tables/x.npy",
        "/etc/passwd",
        "tables/../x.npy",
        "tables/sub/x.npy",
        "tables/.npy",
        "tables/a b.npy",
        "tables/x.npy\n",
        "golden/in/../out/x.npy",
        "C:\\x.npy",
        "texts/../tokenizer.json",
        "texts/Tokenizer.JSON",
        "model.pkl",
        "x" * 60_000,
    ],
)
def test_names_outside_the_list_are_refused(name: str) -> None:
    why = refused(rewritten(WHOLE, {name: b"x"}))
    assert why.reason is Reason.BAD_ARCHIVE
    assert len(why.detail) < 400


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nothing_is_ever_inflated(method: int) -> None:
    bomb = zipped(*entries(), ("tables/zeros.npy", bytes(50_000_000)), compress=method)
    tracemalloc.start()
    try:
        assert "stored uncompressed" in refused(bomb).detail
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_members_that_share_the_same_bytes_are_refused() -> None:
    """Fifield 2019, "A better zip bomb": entries that overlap."""
    body = b"\0" * 100_000
    archive = bytearray(zipped(("tables/a.npy", body)))
    directory = archive.index(b"PK\x01\x02")
    end = archive.index(b"PK\x05\x06")
    entry = bytes(archive[directory:end])
    copies = b"".join(entry.replace(b"a.npy", b"%c.npy" % (97 + i)) for i in range(20))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(copies), directory, 0)
    assert "fit in the archive" in refused(bytes(archive[:directory]) + copies + tail).detail


def test_more_members_than_any_bundle_has_are_refused() -> None:
    many = zipped(*[(f"tables/t{i}.npy", b"") for i in range(MAX_MEMBERS + 1)])
    assert "at most" in refused(many).detail


def test_an_archive_that_is_none_is_refused() -> None:
    for body in (b"", b"PK", b"PK\x05\x06" + bytes(18), WHOLE[:100], WHOLE[100:], b"\0" * 1000):
        assert refused(body).reason is Reason.BAD_ARCHIVE


@pytest.mark.parametrize(
    ("passport", "said"),
    [
        (b"", "cannot be read"),
        (b"{}", "missing required field"),
        (b"[]", "Expected `object`"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 200_000, "cannot be read"),
        (b'{"format":' + b'{"a":' * 100_000, "cannot be read"),
        (b" " * 5_000_000, "passport over"),
    ],
    ids=["empty", "no fields", "a list", "no text", "deep", "deeper", "large"],
)
def test_a_passport_that_is_none_is_refused(passport: bytes, said: str) -> None:
    assert said in refused(zipped(*entries(PASSPORT), (PASSPORT, passport))).detail


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": 2}, "$.format"),
        ({"format": "1"}, "$.format"),
        ({"version": -1}, "$.version"),
        ({"runtime": "pickle"}, "$.runtime"),
        ({"slot": "x" * 300}, "$.slot"),
        ({"limits": "x" * 5000}, "$.limits"),
        ({"golden": {"atol": None, "rtol": 0}}, "$.golden"),
        ({"quality": [{"metric": "f1"}]}, "$.quality"),
        ({"lineage": {"dataset_digest": "0"}}, "$.lineage"),
    ],
    ids=str,
)
def test_a_passport_of_another_schema_is_refused_by_the_field(fields: dict[str, Any], said: str) -> None:
    assert said in refused(rewritten(WHOLE, {}, **fields)).detail


def header(text: str) -> bytes:
    body = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x03\x00" + HELD[TABLE][8:],
        HELD[TABLE] + b"\0",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000000,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 999999999999, 99999999), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999999, 999999999999999999, 0), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }") + bytes(8),
        header("{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1), }") + bytes(8),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n(S'true'\ntR.",
        header("{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }") + bytes(16),
        header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }") + bytes(8),
        header("{[]: 1}"),
        header("__import__('os')"),
        header("(" * 3000),
    ],
)
def test_an_array_is_read_only_as_it_is_written(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadBundle):
            arrays.read(TABLE, body)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert refused(rewritten(WHOLE, {TABLE: body})).reason is Reason.BAD_ARCHIVE


@given(
    kind=st.sampled_from(["?", "i1", "u1", "i2", "i4", "<i8", ">i4", "f2", "f4", ">f8"]),
    shape=st.lists(st.integers(0, 4), max_size=4),
)
def test_an_array_comes_back_as_it_was(kind: str, shape: list[int]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(kind)
    back = arrays.read("x", arrays.written(array))
    assert back.dtype.kind == array.dtype.kind
    np.testing.assert_array_equal(back, np.atleast_1d(array))
    plain = io.BytesIO(arrays.written(array))
    np.testing.assert_array_equal(np.load(plain, allow_pickle=False), np.atleast_1d(array))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1 + 2j]), np.array(["2026"], "M8[Y]")])
def test_what_is_no_number_is_not_packed(array: Any) -> None:
    with pytest.raises(ValueError, match="no place in a bundle"):
        arrays.written(array)


@settings(max_examples=150)
@given(st.data())
def test_any_altered_byte_is_refused_whatever_it_was(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WHOLE) - 1))
    body = WHOLE[:at] + bytes([data.draw(st.integers(0, 255).filter(lambda b: b != WHOLE[at]))]) + WHOLE[at + 1 :]
    with pytest.raises(BadBundle):
        unpack(body, digest(WHOLE))
    with contextlib.suppress(BadBundle):  # as if the server had announced it so
        read = unpack(body, digest(body))
        assert read.passport.files == unpack(WHOLE).passport.files


@settings(max_examples=60)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 400))
def test_a_bundle_that_is_cut_or_has_a_hole_is_refused(at: int, size: int) -> None:
    assert refused(WHOLE[:at]).detail
    with pytest.raises(BadBundle):
        unpack(WHOLE[:at] + WHOLE[at + size + 1 :], digest(WHOLE))


@settings(max_examples=60)
@given(st.binary(max_size=400))
def test_a_passport_of_any_bytes_is_refused(body: bytes) -> None:
    assert refused(zipped(*entries(PASSPORT), (PASSPORT, body))).reason is Reason.BAD_ARCHIVE


def test_what_is_packed_is_what_is_read() -> None:
    bundle = small()
    read = unpack(WHOLE)
    assert msgspec.structs.replace(read.passport, files={}) == bundle.passport
    assert sorted(read.passport.files) == sorted(set(HELD) - {PASSPORT})
