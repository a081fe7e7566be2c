"""Everything a gateway needs about one model, sealed: what was fitted, what packing cost, what a person must
know.

The gate's two halves meet here: the held-out figures (which the trainer brings) and the parity bound."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.bounds import FORECASTER, Bound, bound_of
from export.footprint import loaded_bytes, measured_on
from protocol.bundles import Bundle, Form, Golden, Lineage, Lite, Parity, Passport, Quality, Runtime, pack, with_files
from protocol.demand_windows import DemandSpec
from protocol.event_features import EventSpec
from protocol.life_windows import LifeSpec
from protocol.order_lines import LateSpec
from protocol.physics import Formula
from protocol.reading.notes import ReaderSpec
from protocol.recommending import RecommendSpec
from protocol.tables import Tables
from protocol.windows import WindowSpec
from protocol.writing.decoder import WriterSpec

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Draft:
    """A packed model before its passport. `words` is what the verdict adds to the figures (coverage,
    size); `refused`: why it may not serve, whatever the figures say."""

    slot: str
    family: str
    algorithm: str
    version: int
    runtime: Runtime
    lineage: Lineage
    quality: list[Quality]
    parity: Parity
    golden: Golden
    golden_inputs: Arrays
    golden_outputs: Arrays
    float_bytes: int
    latency_us: float
    intended_use: str
    limits: str
    graph: bytes = b""
    forms: list[Form] = field(default_factory=list)
    lite: Lite | None = None
    lite_graph: bytes = b""
    tables: Tables = field(default_factory=dict)
    window: WindowSpec | None = None
    demand: DemandSpec | None = None
    life: LifeSpec | None = None
    levels: list[float] = field(default_factory=list)
    series: list[tuple[str, str]] = field(default_factory=list)
    series_until_ms: list[int] = field(default_factory=list)
    series_error: list[float] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    recommend: RecommendSpec | None = None
    covariates: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    best: dict[str, str] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)
    combined: float | None = None
    features: list[str] = field(default_factory=list)
    formulas: list[Formula] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    threshold: float = 0.5
    events: EventSpec | None = None
    orders: LateSpec | None = None
    writer: WriterSpec | None = None
    reader: ReaderSpec | None = None
    texts: dict[str, bytes] = field(default_factory=dict)
    refused: str = ""
    words: str = ""
    because: str = ""


def seal(draft: Draft) -> tuple[bytes, Passport]:
    """The archive and its passport. Eligible only if the first figure beats the simple reference and the
    champion, and packing stayed within its bound; a model that is not is sealed all the same, so that its
    verdict can be read. Raises ValueError where parity was measured against another family's bound."""
    bound = bound_of(draft.family, draft.algorithm)
    if draft.parity.bound != bound.words:
        raise ValueError(f"{draft.slot} was measured against another bound ({draft.parity.bound}) than {bound.words}")
    eligible, verdict = judge(draft.quality[0], draft.parity, bound)
    if draft.refused:
        eligible, verdict = False, f"Refused: {draft.refused}."
    passport = Passport(
        slot=draft.slot,
        family=draft.family,
        algorithm=draft.algorithm,
        version=draft.version,
        runtime=draft.runtime,
        window=draft.window,
        demand=draft.demand,
        life=draft.life,
        levels=draft.levels,
        series=draft.series,
        series_until_ms=draft.series_until_ms,
        series_error=draft.series_error,
        items=draft.items,
        users=draft.users,
        recommend=draft.recommend,
        covariates=draft.covariates,
        machines=draft.machines,
        signals=draft.signals,
        best=draft.best,
        weights=draft.weights,
        combined=draft.combined,
        features=draft.features,
        formulas=draft.formulas,
        classes=draft.classes,
        threshold=draft.threshold,
        events=draft.events,
        orders=draft.orders,
        writer=draft.writer,
        reader=draft.reader,
        lineage=draft.lineage,
        quality=draft.quality,
        eligible=eligible,
        verdict=" ".join(part for part in (verdict, draft.words) if part),
        parity=draft.parity,
        forms=draft.forms,
        lite=draft.lite,
        golden=draft.golden,
        float_bytes=draft.float_bytes,
        packed_bytes=len(draft.graph)
        + sum(int(table.nbytes) for table in draft.tables.values())
        + sum(map(len, draft.texts.values())),
        latency_us=draft.latency_us,
        measured_on=measured_on(),
        rss_bytes=loaded_bytes(draft.graph) if draft.graph else 0,
        intended_use=draft.intended_use,
        limits=draft.limits,
        because=draft.because,
    )
    bundle = Bundle(
        passport=passport,
        graph=draft.graph,
        lite=draft.lite_graph,
        tables=draft.tables,
        golden_inputs=draft.golden_inputs,
        golden_outputs=draft.golden_outputs,
        texts=draft.texts,
    )
    return pack(bundle), with_files(bundle)


def judge(figure: Quality, parity: Parity, bound: Bound = FORECASTER) -> tuple[bool, str]:
    """(eligible, why in words)."""
    if not (np.isfinite(figure.model) and np.isfinite(figure.reference)):
        return False, f"Refused: {figure.metric} could not be measured on {figure.n} held-out rows."
    against = f"{figure.metric} {figure.model:.4g} against {figure.reference:.4g} of {figure.reference_name}"
    if not figure.beats_reference:
        return False, f"Refused: does not beat the simple reference ({against}; {figure.n} held-out rows)."
    if not figure.beats_champion:
        return (
            False,
            f"Refused: worse than the champion ({against}, {figure.champion:.4g} of the champion; "
            f"{figure.n} held-out rows).",
        )
    broken = bound.broken(parity)
    if broken:
        return False, f"Refused: packing cost too much ({broken})."
    champion = "no champion yet" if figure.champion is None else f"champion {figure.champion:.4g}"
    return True, f"Eligible: {against}, {champion}; {figure.n} held-out rows."
