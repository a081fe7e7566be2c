"""A bundle is one reproducible zip: passport.json, the graph or tables, golden vectors. Its identity is its sha256.

The same model packed twice gives the same bytes (sorted members, fixed times, stored uncompressed). Reading trusts
nothing: every limit below is checked before memory is spent, names outside the list are refused, no pickle is read. An array
is read by `protocol.arrays`, a graph is looked through by `protocol.graphs` before an engine sees it."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from enum import StrEnum
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol import arrays
from protocol.demand_windows import DemandSpec
from protocol.errors import BadBundle, Reason
from protocol.event_features import EventSpec
from protocol.life_windows import LifeSpec
from protocol.observations import Name, Text, TimeMs
from protocol.order_lines import LateSpec
from protocol.physics import Formula
from protocol.reading.notes import ReaderSpec
from protocol.recommending import RecommendSpec
from protocol.unreadable import UNREADABLE
from protocol.windows import WindowSpec
from protocol.writing.decoder import WriterSpec

MAX_BUNDLE_BYTES = 512 * 1024 * 1024
MAX_MEMBERS = 200
MAX_PASSPORT_BYTES = 4 * 1024 * 1024
GRAPH = "model.onnx"
LITE = "model.tflite"
PASSPORT = "passport.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Runtime(StrEnum):
    ONNX = "onnx"
    STATE_SPACE = "statespace"
    NEIGHBOURS = "neighbours"
    TREES = "trees"
    RIDGE = "ridge"
    MONITOR = "monitor"
    HYBRID = "hybrid"
    DECODER = "decoder"
    READER = "reader"


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from. `parameters` are the learner's settings as text."""

    dataset_digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    dataset_rows: int
    code_version: Name
    seed: int
    trained_ms: TimeMs
    parameters: dict[str, str] = {}


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out figure, lower or higher is better as said. `reference` is the simple reference on the same rows,
    `champion` the model that serves now (None: there is none yet). low, high: the 95 % confidence interval of `model` over
    the held-out rows (None: not measured)."""

    metric: Name
    lower_is_better: bool
    model: float
    reference: float
    reference_name: Name
    champion: float | None = None
    low: float | None = None
    high: float | None = None
    split: Text
    n: int

    @property
    def beats_reference(self) -> bool:
        """Strictly better than the simple reference."""
        return self.model < self.reference if self.lower_is_better else self.model > self.reference

    @property
    def beats_champion(self) -> bool:
        """At least as good as what serves now."""
        if self.champion is None:
            return True
        return self.model <= self.champion if self.lower_is_better else self.model >= self.champion


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """What packing cost, measured: largest element error and RMS error over the fitted model's own answers (relative
    to their standard deviation), and the change of the task's figure on held-out rows (0.003 = 0.3 % worse, or 0.3 points
    where `bound` counts in points)."""

    max_abs: float
    rel_rms: float
    task_change: float
    n: int
    bound: Text


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One form of a model's weights that packing tried ("int8", "int4_blocks"), measured as a gateway runs it: bytes,
    microseconds of a call (the least of many, all forms in turn), parity (None: it could not be made), and the element error
    on rows outside of the calibrated range, by kind. why: why it was not taken; empty: it was."""

    name: Name
    size: int = 0
    latency_us: float = 0.0
    parity: Parity | None = None
    strained: dict[str, float] = {}
    why: Text = ""


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """How near the gateway's own answers to `golden/*.npy` must come: |a - b| <= atol + rtol * |b|."""

    atol: float
    rtol: float


class Lite(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle's TFLite file, beside its graph: same names, same shapes with a batch of one, int32 where the graph has
    int64; an encoder's has a signature for each of several numbers of tokens. recipe: "float32", "w8" (weights of 8 bits,
    right on every runtime) or "dyn8" (activations too; ai-edge-litert only). golden: how near it must come to the golden
    vectors, which are the graph's (None: as near as the graph)."""

    recipe: Name
    inputs: list[Name]
    outputs: list[Name]
    size: int
    parity: Parity
    golden: Golden | None = None


class Passport(msgspec.Struct, frozen=True, kw_only=True):
    """What a person and a machine can read about a bundle. Beside the figures, what a kind of model needs to be asked:

    series: [machine, signal] of each row of the tables; series_until_ms: start of the bucket after the last one that the
    tables' state has seen; series_error: held-out error of each over the naive forecast's.
    covariates: known inputs, in the order of a filter's `gamma` (a window model has its own in `window`).
    levels: nominal quantiles of a quantile model's last axis.
    items: names of a neighbour table or a hybrid; users: names of the past cases that a hybrid compares with.
    recommend: how a recommender's tables are asked.
    machines, signals: names that a graph's second input `who` knows, by index + 1 (0: unknown).
    best: signal class (a signal's name) -> which of "seasonal_naive", "last_value", "ridge", "arima" and "lstm" had the
    lowest held-out error there.
    weights: "machine/signal" -> [this model's share, the simple reference's share] of the validated combination of all
    forecasters of the same training: its mean is the sum of share * mean over their bundles plus the reference's share *
    naive_forecast (every bundle of a training states the same reference share; the shares of a series add up to one).
    combined: held-out figure of that combination.
    features: what the columns of a tree table's rows are, the last ones made by `formulas` from the others; classes: what
    its scores stand for; threshold: the chance from which on it says yes; events, orders: how a log or an order book becomes
    such rows.
    life: what a remaining-life model sees and answers.
    demand: how a spare-part model's answers are read.
    writer: what a language model's graph is and what it was taught. reader: what a note reader says and by which parts.
    forms: the forms that packing tried, the one that was taken among them. lite: the same model for TFLite, if it is there.
    measured_on: the class of the processor that latency_us was measured on (`protocol.processors`; empty: not said).
    rss_bytes: resident memory there of a process with nothing but numpy, onnxruntime and the graph (0: not measured, or
    there is no graph).
    files: sha256 of every other member."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    slot: Name
    family: Name
    algorithm: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    runtime: Runtime
    window: WindowSpec | None = None
    demand: DemandSpec | None = None
    life: LifeSpec | None = None
    levels: list[float] = []
    series: list[tuple[str, str]] = []
    series_until_ms: list[int] = []
    series_error: list[float] = []
    items: list[str] = []
    users: list[str] = []
    recommend: RecommendSpec | None = None
    covariates: list[Name] = []
    machines: list[Name] = []
    signals: list[Name] = []
    best: dict[str, str] = {}
    weights: dict[str, list[float]] = {}
    combined: float | None = None
    features: list[Name] = []
    formulas: list[Formula] = []
    classes: list[Name] = []
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    events: EventSpec | None = None
    orders: LateSpec | None = None
    writer: WriterSpec | None = None
    reader: ReaderSpec | None = None
    lineage: Lineage
    quality: list[Quality]
    eligible: bool
    verdict: Text
    parity: Parity
    forms: list[Form] = []
    lite: Lite | None = None
    golden: Golden
    float_bytes: int
    packed_bytes: int
    latency_us: float
    measured_on: Text = ""
    rss_bytes: int = 0
    intended_use: Text
    limits: Text
    licence: Text = "Apache-2.0"
    because: Text = ""
    files: dict[str, str] = {}

    def who(self, keys: list[tuple[str, str]]) -> NDArray[np.int64]:
        """[N, 2]: numbers of (machine, signal) as a graph's second input wants them; 0 is one it has not met."""
        machines = {name: i + 1 for i, name in enumerate(self.machines)}
        signals = {name: i + 1 for i, name in enumerate(self.signals)}
        pairs = [(machines.get(machine, 0), signals.get(signal, 0)) for machine, signal in keys]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle in memory. tables/golden_inputs/golden_outputs: name -> array; texts: file name -> JSON (a tokenizer, a
    catalogue of clauses)."""

    passport: Passport
    graph: bytes = b""
    lite: bytes = b""
    tables: dict[str, NDArray[np.generic]] = {}
    golden_inputs: dict[str, NDArray[np.generic]] = {}
    golden_outputs: dict[str, NDArray[np.generic]] = {}
    texts: dict[str, bytes] = {}


TEXTS = "texts"
TOKENIZER = "tokenizer.json"
TEXT_OF_FRAMES = "frames_"
"""How the names of a bundle's catalogues begin: "frames_fault_report.json"."""
MAX_TEXT_BYTES = 16 * 1024 * 1024
_TEXT_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}\.json")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,127}\.npy")
_FOLDERS = {"tables": "tables", "golden_inputs": "golden/in", "golden_outputs": "golden/out"}
_FIELDS = {folder: field for field, folder in _FOLDERS.items()}
MOST_NAMED = 5
BROKEN_ZIP = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    OverflowError,
)
"""What zipfile raises for archives that are cut, altered or encrypted."""


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """Every member but the passport, by name."""
    members: dict[str, bytes] = {}
    if bundle.graph:
        members[GRAPH] = bundle.graph
    if bundle.lite:
        members[LITE] = bundle.lite
    for field, folder in _FOLDERS.items():
        for name, array in getattr(bundle, field).items():
            members[f"{folder}/{name}.npy"] = arrays.written(array)
    return members | {f"{TEXTS}/{name}": body for name, body in bundle.texts.items()}


def with_files(bundle: Bundle) -> Passport:
    """The passport as `pack` writes it: `files` is filled in."""
    return msgspec.structs.replace(
        bundle.passport, files={name: _sha256(body) for name, body in sorted(_contents(bundle).items())}
    )


def pack(bundle: Bundle) -> bytes:
    """The archive's bytes; the passport in it is `with_files`."""
    members = _contents(bundle)
    members[PASSPORT] = msgspec.json.format(msgspec.json.encode(with_files(bundle)), indent=1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name])
    return out.getvalue()


def digest(archive: bytes) -> str:
    """A bundle's identity: sha256 of its archive, hex."""
    return _sha256(archive)


def file_name(identity: str) -> str:
    """How a bundle's file is called on the server's signed list."""
    return f"{identity}.bundle"


def unpack(archive: bytes, expected_digest: str | None = None) -> Bundle:
    """Reads and checks an archive; raises BadBundle (digest_mismatch, too_large, bad_archive)."""
    if len(archive) > MAX_BUNDLE_BYTES:
        raise BadBundle(Reason.TOO_LARGE, f"bundle of {len(archive)} bytes; the limit is {MAX_BUNDLE_BYTES}")
    if expected_digest is not None and digest(archive) != expected_digest:
        raise BadBundle(
            Reason.DIGEST_MISMATCH, f"bundle has digest {digest(archive)}, the server announced {expected_digest}"
        )
    members = _members(archive)
    passport = _passport(members.pop(PASSPORT, None))
    _check_sums(passport.files, members)
    held: dict[str, dict[str, NDArray[np.generic]]] = {field: {} for field in _FOLDERS}
    texts: dict[str, bytes] = {}
    for name, body in members.items():
        folder, _, leaf = name.rpartition("/")
        if folder == TEXTS:
            texts[leaf] = body
        elif name not in (GRAPH, LITE):
            held[_FIELDS[folder]][leaf.removesuffix(".npy")] = arrays.read(name, body)
    if (passport.lite is not None) != (LITE in members):
        raise BadBundle(Reason.BAD_ARCHIVE, f"passport and archive disagree about {LITE}")
    return Bundle(passport=passport, graph=members.get(GRAPH, b""), lite=members.get(LITE, b""), texts=texts, **held)


def _passport(body: bytes | None) -> Passport:
    if body is None:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the archive has no {PASSPORT}")
    try:
        return msgspec.json.decode(body, type=Passport)
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{PASSPORT} cannot be read: {error}") from error


def _check_sums(told: dict[str, str], members: dict[str, bytes]) -> None:
    """Raises BadBundle (digest_mismatch), which names what differs."""
    found = {name: _sha256(body) for name, body in members.items()}
    wrong = [
        *(f"{name} is missing" for name in sorted(told.keys() - found.keys())),
        *(f"{name} is not on the list" for name in sorted(found.keys() - told.keys())),
        *(f"{name} was altered" for name in sorted(told.keys() & found.keys()) if told[name] != found[name]),
    ]
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise BadBundle(
            Reason.DIGEST_MISMATCH,
            f"the passport's list of files does not match the archive: {'; '.join(wrong[:MOST_NAMED])}{more}",
        )


def _members(archive: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            _check_entries(entries, len(archive))
            return {e.filename: opened.read(e) for e in entries}
    except BROKEN_ZIP as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"not a readable archive: {type(error).__name__}: {error}") from error


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Before anything is read. size: of the archive, bytes."""
    if len(entries) > MAX_MEMBERS or len({e.filename for e in entries}) != len(entries):
        raise BadBundle(Reason.BAD_ARCHIVE, f"{len(entries)} members; at most {MAX_MEMBERS}, each once")
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > size:
        raise BadBundle(Reason.BAD_ARCHIVE, "members must be stored uncompressed and fit in the archive")
    for e in entries:
        folder, _, leaf = e.filename.rpartition("/")
        if e.filename == PASSPORT:
            if e.file_size > MAX_PASSPORT_BYTES:
                raise BadBundle(Reason.TOO_LARGE, f"passport over {MAX_PASSPORT_BYTES} bytes")
        elif folder == TEXTS and _TEXT_NAME.fullmatch(leaf):
            if e.file_size > MAX_TEXT_BYTES:
                raise BadBundle(Reason.TOO_LARGE, f"{e.filename} over {MAX_TEXT_BYTES} bytes")
        elif e.filename not in (GRAPH, LITE) and not (folder in _FIELDS and _ARRAY_NAME.fullmatch(leaf)):
            raise BadBundle(Reason.BAD_ARCHIVE, f"unexpected member {e.filename[:200]!r}")
