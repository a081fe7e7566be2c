"""Named columns of a table from outside: CSV or Parquet becomes stamps, numbers and names, whole columns at a time.

A cell that is no number becomes NaN and is counted; a stamp that cannot be read is marked and counted; a column that is
not there is refused by name. pyarrow reads where it is installed (Parquet always needs it); else csv and numpy do, with
the same result. Nothing is opened here: streams come from the caller, and must be able to seek."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from protocol.errors import NeedsPerson, Reason, Refused

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
EMPTY = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "-", "?")
PEEK_BYTES = 65_536
CHUNK_ROWS = 200_000
_ZONE = re.compile(r"(?:[zZ]|[+-]\d{2}:?\d{2}|[+-]\d{2})\s*$")


@dataclass(frozen=True)
class Stamps:
    """Times of N rows. wall_ms: the stamp's own clock in milliseconds, read as if it were UTC; offset_ms: what its zone
    says to subtract; zoned: whether it named one; good: whether it could be read. `numbers`: the column as it was where
    it held numbers (epoch or step numbers), whose unit is not known here."""

    wall_ms: Integers
    zoned: NDArray[np.bool_]
    good: NDArray[np.bool_]
    numbers: Floats | None = None


@dataclass(frozen=True)
class Codes:
    """A column of names: row i says names[codes[i]]."""

    codes: Integers
    names: list[str]


@dataclass(frozen=True)
class Columns:
    """What was read of a table. `unread`: cells of a number column that held something else, by column."""

    rows: int
    time: Stamps
    labels: dict[str, Codes]
    numbers: dict[str, Floats]
    unread: dict[str, int]


@dataclass(frozen=True)
class Wanted:
    """Which columns to read, and as what. time "": the table has no times, and none can be read of it."""

    time: str
    labels: tuple[str, ...]
    numbers: tuple[str, ...]
    time_format: str = ""

    @property
    def all(self) -> list[str]:
        """Every name once."""
        return list(dict.fromkeys([*([self.time] if self.time else []), *self.labels, *self.numbers]))


def read(stream: BinaryIO, wanted: Wanted) -> Columns:
    """Reads the wanted columns of a CSV (also gzipped) or a Parquet file, whichever its first bytes say it is."""
    magic = stream.read(4)
    stream.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        try:
            return read_csv(cast("BinaryIO", gzip.GzipFile(fileobj=stream)), wanted)
        except (OSError, EOFError, zlib.error) as error:
            raise Refused(Reason.WRONG_TYPE, f"not a readable gzip file: {error}") from error
    return read_parquet(stream, wanted) if magic == b"PAR1" else read_csv(stream, wanted)


def header(stream: BinaryIO) -> list[str]:
    """Names of the columns of a table that `read` can read; the stream is at its start again afterwards."""
    magic = stream.read(4)
    stream.seek(0)
    try:
        if magic == b"PAR1":
            return _parquet_header(stream)
        peeked = (cast("BinaryIO", gzip.GzipFile(fileobj=stream)) if magic[:2] == b"\x1f\x8b" else stream).read(
            PEEK_BYTES
        )
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(Reason.WRONG_TYPE, f"not a readable gzip file: {error}") from error
    finally:
        stream.seek(0)
    if not peeked.strip():
        raise Refused(Reason.WRONG_TYPE, "the file is empty: a header and rows are needed")
    return _named(peeked)[0]


def _parquet_header(stream: BinaryIO) -> list[str]:
    if not _has_arrow():
        raise NeedsPerson("reading Parquet needs pyarrow: pip install pyarrow, or give a CSV")
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return list(parquet.ParquetFile(stream).schema_arrow.names)
    except pa.ArrowException as error:
        raise Refused(Reason.WRONG_TYPE, f"not a readable Parquet file: {error}") from error


def _named(peeked: bytes) -> tuple[list[str], str]:
    """(names, separator) of a CSV's first line. Raises Refused for a file of nothing but a byte order mark."""
    lines = peeked.decode("utf-8-sig", errors="replace").splitlines()
    if not lines:
        raise Refused(Reason.WRONG_TYPE, "the file is empty: a header and rows are needed")
    first = lines[0]
    separator = max(",;\t", key=first.count)
    return next(csv.reader([first], delimiter=separator)), separator


def read_csv(stream: BinaryIO, wanted: Wanted, *, arrow: bool = True) -> Columns:
    """Reads the wanted columns of a CSV with a header (UTF-8; comma, semicolon or tab; decimal comma where the separator
    is a semicolon). Raises Refused: a column is missing, a name stands twice, or nothing can be read."""
    peeked = stream.read(PEEK_BYTES)
    stream.seek(0)
    if not peeked.strip():
        raise Refused(Reason.WRONG_TYPE, "the file is empty: a header and rows are needed")
    head = peeked.decode("utf-8-sig", errors="replace").splitlines()
    names, separator = _named(peeked)
    _check_header(names, wanted)
    comma = separator == ";" and any(re.search(r"(?:^|;)\s*-?\d+,\d+\s*(?:;|$)", line) for line in head[1:50])
    if arrow and _has_arrow():
        return _csv_by_arrow(stream, wanted, separator, "," if comma else ".")
    return _csv_by_numpy(stream, wanted, names, separator, comma)


def read_parquet(stream: BinaryIO, wanted: Wanted) -> Columns:
    """Reads the wanted columns of a Parquet file. Raises NeedsPerson without pyarrow, Refused as `read_csv`."""
    if not _has_arrow():
        raise NeedsPerson("reading Parquet needs pyarrow: pip install pyarrow, or give a CSV")
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(stream)
        _check_header(list(file.schema_arrow.names), wanted)
        return _from_arrow(file.read(columns=wanted.all), wanted, lenient=True)
    except pa.ArrowException as error:
        raise Refused(Reason.WRONG_TYPE, f"not a readable Parquet file: {error}") from error


def from_arrays(arrays: dict[str, Any], wanted: Wanted) -> Columns:
    """Columns that are in memory already: stamps as datetime64, numbers or text; numbers; names."""
    _check_header(list(arrays), wanted)
    lengths = {len(arrays[name]) for name in wanted.all}
    if len(lengths) != 1:
        raise Refused(Reason.WRONG_TYPE, f"columns of different lengths {sorted(lengths)}")
    numbers, unread = {}, {}
    for name in wanted.numbers:
        numbers[name], unread[name] = _numbers(arrays[name])
    labels = {name: _codes(str(v) for v in arrays[name]) for name in wanted.labels}
    count = lengths.pop()
    times = stamps(arrays[wanted.time], wanted.time_format) if wanted.time else _timeless(count)
    return Columns(count, times, labels, numbers, unread)


def stamps(column: Any, time_format: str = "") -> Stamps:
    """Stamps of a column of datetime64, of numbers, or of text (ISO 8601, or `time_format` as strptime has it)."""
    array = np.asarray(column)
    if array.dtype.kind == "M":
        wall = array.astype("datetime64[ms]")
        good = ~np.isnat(wall)
        return Stamps(np.where(good, wall.astype(np.int64), 0), np.zeros(len(wall), dtype=bool), good)
    if array.dtype.kind in "iuf":
        return _numbered(array.astype(np.float64))
    return _stamps_of_text([("" if v is None else str(v)).strip() for v in array.tolist()], time_format)


def _numbered(numbers: Floats) -> Stamps:
    empty = np.zeros(len(numbers), dtype=np.int64)
    return Stamps(empty, np.ones(len(numbers), dtype=bool), np.isfinite(numbers), numbers)


def _stamps_of_text(texts: list[str], time_format: str) -> Stamps:
    sample = next((text for text in texts if text not in EMPTY), "")
    if not time_format:
        if re.fullmatch(r"-?\d+(\.\d+)?([eE]\+?\d+)?", sample) and not re.fullmatch(
            r"(19|20)\d{2}|(19|20)\d{6}", sample
        ):
            return _numbered(_numbers(texts)[0])
        if sample and not _ZONE.search(sample[10:]) and (plain := _plain(texts)) is not None:
            return plain
    known: dict[str, tuple[int, bool] | None] = {}
    read = [known[t] if t in known else known.setdefault(t, _stamp(t, time_format)) for t in texts]
    wall = np.array([0 if r is None else r[0] for r in read], dtype=np.int64)
    zoned = np.array([r is not None and r[1] for r in read], dtype=bool)
    return Stamps(wall, zoned, np.array([r is not None for r in read], dtype=bool))


def _plain(texts: list[str]) -> Stamps | None:
    """Stamps that are all ISO 8601 without a zone; None if one is not, or may not be."""
    array = np.array(["NaT" if text in EMPTY else text for text in texts])
    fifth = array.astype("U5").view("U1").reshape(-1, 5)[:, 4]
    if not np.isin(fifth, ("", "-")).all():
        return None  # numpy takes a number of any length for a year, and counts beyond what it can hold
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns of a zone, and then applies it
        try:
            return stamps(array.astype("datetime64[ms]"))
        except (ValueError, UserWarning, DeprecationWarning):
            return None


def _stamp(text: str, time_format: str) -> tuple[int, bool] | None:
    """(milliseconds, whether a zone was named); UTC where one was. None if it cannot be read."""
    try:
        moment = datetime.strptime(text, time_format) if time_format else datetime.fromisoformat(text)  # noqa: DTZ007
        zoned = moment.tzinfo is not None
        return round((moment if zoned else moment.replace(tzinfo=UTC)).timestamp() * 1000), zoned
    except (ValueError, OverflowError):
        return None


def _check_header(header: Sequence[str], wanted: Wanted) -> None:
    missing = [name for name in wanted.all if name not in header]
    if missing:
        raise Refused(Reason.WRONG_TYPE, f"no column {', '.join(map(repr, missing))}; there are {', '.join(header)}")
    twice = sorted({name for name in wanted.all if list(header).count(name) > 1})
    if twice:
        raise Refused(Reason.WRONG_TYPE, f"column {twice[0]!r} stands in the header twice: rename one")


def _has_arrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def _csv_by_arrow(stream: BinaryIO, wanted: Wanted, separator: str, decimal: str) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def read(numbers: Any) -> Any:
        stream.seek(0)
        types: dict[str, Any] = dict.fromkeys(wanted.numbers, numbers)
        types |= dict.fromkeys(wanted.labels, pa.dictionary(pa.int32(), pa.string()))
        if wanted.time:
            types[wanted.time] = pa.string()
        convert = arrow_csv.ConvertOptions(
            include_columns=wanted.all,
            column_types=types,
            null_values=list(EMPTY),
            strings_can_be_null=False,
            decimal_point=decimal,
        )
        options = arrow_csv.ReadOptions(use_threads=False)
        return arrow_csv.read_csv(stream, options, arrow_csv.ParseOptions(delimiter=separator), convert)

    try:
        return _from_arrow(read(pa.float64()), wanted, lenient=False)
    except pa.ArrowException:
        pass  # some cell is no number, or a row is short: read as text, and say which
    try:
        return _from_arrow(read(pa.string()), wanted, lenient=True, decimal=decimal)
    except pa.ArrowException as error:
        raise Refused(Reason.WRONG_TYPE, f"not a readable CSV: {error}") from error


def _from_arrow(table: Any, wanted: Wanted, *, lenient: bool, decimal: str = ".") -> Columns:
    labels, numbers, unread = {}, {}, {}
    for name in wanted.labels:
        labels[name] = _codes_of_arrow(table.column(name))
    for name in wanted.numbers:
        column = table.column(name)
        numbers[name], unread[name] = _numbers_of_arrow(column, decimal) if lenient else (_floats(column), 0)
    count = table.num_rows
    times = _stamps_of_arrow(table.column(wanted.time), wanted.time_format) if wanted.time else _timeless(count)
    return Columns(count, times, labels, numbers, unread)


def _floats(column: Any) -> Floats:
    import pyarrow as pa

    return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _numbers_of_arrow(column: Any, decimal: str) -> tuple[Floats, int]:
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.to_pylist()
        return _numbers([t.replace(",", ".") if t else t for t in texts] if decimal == "," else texts)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return _floats(column), 0


def _codes_of_arrow(column: Any) -> Codes:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], pa.string()).dictionary_encode()
    names = ["" if name is None else str(name) for name in whole.dictionary.to_pylist()]
    codes = whole.indices.fill_null(len(names)).to_numpy().astype(np.int64)
    return Codes(codes, [*names, ""])


def _stamps_of_arrow(column: Any, time_format: str) -> Stamps:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbered(_floats(column))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return _wall(column.cast(pa.timestamp("ms", "UTC" if zoned else None), safe=False), zoned)
    if not time_format:
        sample = next((t for chunk in column.chunks for t in chunk[:50].to_pylist() if t and t not in EMPTY), "")
        zoned = bool(_ZONE.search(sample.strip()[10:]))
        if re.match(r"\d{4}-\d{2}-\d{2}", sample):
            try:
                return _wall(column.cast(pa.timestamp("ms", "UTC" if zoned else None)), zoned)
            except pa.ArrowException:
                pass  # a stamp of another kind among them: read one by one
    return _stamps_of_text([(t or "").strip() for t in column.to_pylist()], time_format)


def _wall(column: Any, zoned: bool) -> Stamps:
    import pyarrow as pa

    ms = np.array(column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy(), dtype=np.int64)
    good = ms != np.iinfo(np.int64).min
    return Stamps(np.where(good, ms, 0), np.full(len(ms), zoned), good)


def _csv_by_numpy(stream: BinaryIO, wanted: Wanted, header: list[str], separator: str, comma: bool) -> Columns:
    rows = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline=""), delimiter=separator)
    next(rows)
    place = {name: header.index(name) for name in wanted.all}
    cells: dict[str, list[str]] = {name: [] for name in wanted.all}
    numbers: dict[str, list[Floats]] = {name: [] for name in wanted.numbers}
    unread = dict.fromkeys(wanted.numbers, 0)

    def pack() -> None:
        for name in wanted.numbers:
            texts = [t.replace(",", ".") for t in cells[name]] if comma else cells[name]
            part, bad = _numbers(texts)
            numbers[name].append(part)
            unread[name] += bad
            if name not in kept:
                cells[name] = []

    kept = {wanted.time, *wanted.labels}
    count = 0
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise Refused(
                Reason.WRONG_TYPE,
                f"row {rows.line_num} has {len(row)} cells and the header {len(header)}: mend the file",
            )
        for name, i in place.items():
            cells[name].append(row[i])
        count += 1
        if count % CHUNK_ROWS == 0:
            pack()
    pack()
    whole = {name: np.concatenate(parts) for name, parts in numbers.items()}
    labels = {name: _codes(cells[name]) for name in wanted.labels}
    if not wanted.time:
        return Columns(count, _timeless(count), labels, whole, unread)
    times = _stamps_of_text([text.strip() for text in cells[wanted.time]], wanted.time_format)
    return Columns(count, times, labels, whole, unread)


def _timeless(rows: int) -> Stamps:
    nothing = np.zeros(rows, dtype=bool)
    return Stamps(np.zeros(rows, dtype=np.int64), nothing, nothing)


def _numbers(column: Any) -> tuple[Floats, int]:
    """(numbers, cells that were neither a number nor empty)."""
    array = np.asarray(column)
    if array.dtype.kind in "iufb":
        return array.astype(np.float64), 0
    texts = array.tolist() if array.dtype.kind != "O" else list(column)
    plain = ["nan" if t is None or (isinstance(t, str) and t.strip() in EMPTY) else t for t in texts]
    try:
        return np.array(plain, dtype=np.float64), 0
    except (ValueError, TypeError):
        read = [_number(t) for t in plain]
        return np.array([np.nan if v is None else v for v in read], dtype=np.float64), sum(v is None for v in read)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (ValueError, TypeError):
        return None


def _codes(texts: Iterable[str]) -> Codes:
    index: dict[str, int] = {}
    codes = np.array([index.setdefault(text, len(index)) for text in texts], dtype=np.int64)
    return Codes(codes, list(index))
