"""From a frozen data set to sealed candidates: fit, pack, measure what packing cost, measure against the
simple reference and the champion, and say the verdict in words. Knows no database; runs in the worker's child
process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from export.to_tables import neighbour_tables, stack_series
from protocol.bundles import Bundle, Golden, Lineage, Passport, Quality, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.tables import Neighbours, StateSpace
from protocol.windows import Floats, WindowSpec
from server import evaluation
from server.algorithms import arima, collaborative
from server.algorithms.collaborative import CANDIDATES, Case, CollaborativeSettings, FittedNeighbours
from server.datasets import SignalGrid
from server.evaluation import Ranked, Tail

ARIMA, LSTM, ITEMS = "forecast.arima", "forecast.lstm", "recommend.items"
FORECAST_SLOTS = (ARIMA, LSTM)
RELATIVE_ERROR = "mae_relative_to_naive"
Z80 = 1.2815515655446004
INT8_ATOL = 0.05
"""In units of the window's own scale: the same int8 graph rounds differently on CPUs with and without
VNNI."""
DIGITS = 4
"""Figures are compared after rounding: a difference of a hundredth of a percent is no reason to change or
keep a model."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class ForecastPlan:
    """What the forecasters of a site look at and answer."""

    window: WindowSpec
    epochs: int = 12
    seed: int = 7


@dataclass(frozen=True)
class Circumstances:
    """What a training is told about the world: versions to give, archives of the champions by slot, and
    why."""

    dataset_digest: str
    dataset_rows: int
    now_ms: int
    versions: dict[str, int] = field(default_factory=dict)
    champions: dict[str, bytes] = field(default_factory=dict)
    because: str = ""

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        """The passport's account of where a model comes from."""
        return Lineage(
            dataset_digest=self.dataset_digest,
            dataset_rows=self.dataset_rows,
            code_version=_code_version(),
            seed=seed,
            trained_ms=self.now_ms,
            parameters={name: str(value) for name, value in parameters.items()},
        )


@dataclass(frozen=True)
class Candidate:
    """A sealed bundle; its passport says whether it may be rolled out."""

    archive: bytes
    passport: Passport


def train_forecast(grid: SignalGrid, plan: ForecastPlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate per forecaster that the data suffice for. Raises Refused if they suffice for none."""
    spec = plan.window
    needed = spec.length + 4 * spec.horizon
    if not grid.series or grid.values.shape[1] < needed:
        have = grid.values.shape[1] if grid.series else 0
        raise Refused(Reason.NOT_ELIGIBLE, f"{have} buckets of history; {needed} are needed: wait until more is shared")
    tail = evaluation.hold_out(grid.values, grid.start_ms, grid.step_ms, spec.season, spec.horizon)
    progress(0.02, f"{len(grid.series)} signals, {grid.values.shape[1]} buckets")
    candidates = [_train_arima(grid, tail, plan, world, lambda f, step: progress(0.02 + 0.38 * f, step))]
    candidates.append(_train_lstm(grid, tail, plan, world, lambda f, step: progress(0.4 + 0.6 * f, step)))
    found = [candidate for candidate in candidates if candidate is not None]
    if not found:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            "every signal has too many gaps to learn from: check the gateways' plant links",
        )
    return found


def _train_arima(
    grid: SignalGrid, tail: Tail, plan: ForecastPlan, world: Circumstances, progress: Progress
) -> Candidate | None:
    spec = plan.window
    kept: list[int] = []
    fitted: list[arima.FittedArima] = []
    for s, row in enumerate(grid.values):
        one = arima.fit(row[: tail.split], grid.start_ms, grid.step_ms, spec.horizon)
        if one is not None:
            kept.append(s)
            fitted.append(one)
        progress((s + 1) / len(grid.values) * 0.9, f"ARIMA {s + 1} of {len(grid.values)} signals")
    if not fitted:
        return None
    part = replace(
        tail,
        values=tail.values[kept],
        targets=tail.targets[kept],
        naive=tail.naive[kept],
        yard=tail.yard[kept],
    )
    tables = stack_series([one.tables() for one in fitted])
    filter_ = StateSpace(tables)
    mean, deviation = evaluation.filter_answers(part, filter_, part.split)
    alone = np.concatenate(
        [
            evaluation.filter_answers(_single(part, s), StateSpace(one.tables()), part.split)[0]
            for s, one in enumerate(fitted)
        ]
    )
    error, by_series, n = part.relative_error(mean)
    tables["state"], tables["cov"] = filter_.a, filter_.p
    inputs, outputs = parity.golden_series(tables, grid.until_ms, grid.step_ms, spec.horizon)
    size = sum(int(table.nbytes) for table in tables.values())
    orders = {
        "/".join(grid.series[s]): f"{one.order} daily={one.seasonal}" for s, one in zip(kept, fitted, strict=True)
    }
    covered = part.coverage(mean - Z80 * deviation, mean + Z80 * deviation)
    draft = Draft(
        slot=ARIMA,
        family="forecast",
        algorithm="arima",
        version=world.versions.get(ARIMA, 1),
        runtime=Runtime.STATE_SPACE,
        window=spec,
        series=[grid.series[s] for s in kept],
        series_until_ms=[grid.until_ms] * len(kept),
        series_error=_finite(by_series),
        tables=tables,
        lineage=world.lineage(
            plan.seed, {"orders": json.dumps(orders, ensure_ascii=False), "harmonics": arima.HARMONICS}
        ),
        quality=[_forecast_quality(part, error, n, _champion_error(part, grid, kept, world.champions.get(ARIMA)))],
        parity=parity.compare(alone, mean, part.relative_error(alone)[0], error, lower_is_better=True),
        golden=Golden(atol=1e-6, rtol=1e-6),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=size,
        latency_us=parity.latency_us(lambda: StateSpace(tables).forecast(grid.until_ms, grid.step_ms, spec.horizon)),
        intended_use="Forecasts with intervals and residuals of single signals on a regular grid.",
        limits="Linear and Gaussian; a series outside of the list has no answer; a lasting change of level "
        "widens errors until the state has followed.",
        words=f"The 80 % interval held {covered:.0%} of held-out values.",
        because=world.because,
    )
    progress(1.0, "ARIMA sealed")
    return Candidate(*seal(draft))


def _train_lstm(
    grid: SignalGrid, tail: Tail, plan: ForecastPlan, world: Circumstances, progress: Progress
) -> Candidate | None:
    import torch

    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    spec = plan.window
    learned, checked = _training_windows(grid, tail, spec)
    if len(learned[0]) < 32 or len(checked[0]) < 8:
        return None
    batch = int(np.clip(len(learned[0]) // 16, 16, 128))
    settings = lstm.LstmSettings(epochs=plan.epochs, seed=plan.seed, batch=batch)
    net = lstm.fit(learned, checked, settings, lambda f, step: progress(0.7 * f, step))
    progress(0.72, "exporting to ONNX")
    graph = to_onnx(net, torch.from_numpy(learned[0][:2].copy()))
    progress(0.9, "quantizing to int8")
    small = quantize(graph)
    run = parity.Graph(small)
    rows = evaluation.input_windows(tail.values, tail.start_ms, tail.origins, spec)
    usable = rows.x[rows.usable]
    if not len(usable):
        return None
    float_answers = evaluation.window_answers(tail, spec, lambda x: lstm.answer(net, x))
    answers = evaluation.window_answers(tail, spec, run)
    error, by_series, n = tail.relative_error(answers[..., 1])
    float_error = tail.relative_error(float_answers[..., 1])[0]
    cost = parity.compare(lstm.answer(net, usable), run(usable), float_error, error, lower_is_better=True)
    inputs, outputs = parity.golden_graph(run, usable)
    champion = _champion_error(tail, grid, list(range(len(grid.series))), world.champions.get(LSTM))
    covered = tail.coverage(answers[..., 0], answers[..., 2])
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=world.versions.get(LSTM, 1),
        runtime=Runtime.ONNX,
        window=spec,
        levels=list(lstm.LEVELS),
        series=list(grid.series),
        series_error=_finite(by_series),
        graph=small,
        lineage=world.lineage(
            plan.seed, {**asdict(settings), "windows": len(learned[0]), "exporter": "torch.onnx dynamo"}
        ),
        quality=[_forecast_quality(tail, error, n, champion)],
        parity=cost,
        golden=Golden(atol=INT8_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=len(graph),
        latency_us=parity.latency_us(lambda: run(usable[:1])),
        intended_use="Forecasts with intervals of any signal of this site, also of new machines.",
        limits="Needs a window with few gaps; answers are clipped at 20 times the window's own spread.",
        words=f"float {float_error:.4g}, int8 {error:.4g}; {len(small) / len(graph):.0%} of the float size; "
        f"the 80 % interval held {covered:.0%} of held-out values.",
        because=world.because,
    )
    progress(1.0, "LSTM sealed")
    return Candidate(*seal(draft))


def train_recommend(cases: list[Case], seed: int, world: Circumstances, progress: Progress) -> list[Candidate]:
    """The item-neighbour candidate. Settings are chosen on cases before the held-out ones; figures come from
    fits on the cases before each held-out block; the sealed tables are fitted on every case with the same
    settings, so that the newest answers count."""
    champion = world.champions.get(ITEMS)
    champion_bundle = unpack(champion) if champion else None
    first = _first_held_out(cases, champion_bundle)
    if first < 8 or len(cases) - first < 4:
        raise Refused(Reason.NOT_ELIGIBLE, f"{len(cases)} usable cases; 16 are needed: wait for more work orders")
    progress(0.1, f"{len(cases)} cases")
    settings = _chosen_settings(cases[:first])
    progress(0.5, f"shrinkage {settings.shrinkage:g}, answers count {settings.answer_weight:g}")
    held = cases[first:]
    float_lists: list[list[str]] = []
    packed_lists: list[list[str]] = []
    reference_lists: list[list[str]] = []
    for block in np.array_split(np.arange(first, len(cases)), min(5, len(held))):
        before = cases[: int(block[0])]
        fitted = collaborative.fit(before, settings)
        table = _packed_neighbours(fitted)
        popular = collaborative.popularity(before)
        for case in (cases[int(i)] for i in block):
            float_lists.append(_float_list(fitted, case))
            packed_lists.append(_table_list(table, case))
            reference_lists.append(popular[:5])
    float_quality = evaluation.ranked_quality(float_lists, held)
    quality = evaluation.ranked_quality(packed_lists, held)
    reference = evaluation.ranked_quality(reference_lists, held)
    serving: Ranked | None = None
    if champion_bundle is not None:
        table = Neighbours(champion_bundle.passport.items, champion_bundle.tables)
        serving = evaluation.ranked_quality([_table_list(table, case) for case in held], held)
    progress(0.8, "sealing")
    fitted = collaborative.fit(cases, settings)
    packed = _packed_neighbours(fitted)
    tables = _neighbour_tables(fitted)
    profiles = [_profile(case) for case in held]
    exact = np.stack([fitted.scores(profile) for profile in profiles])
    rounded = np.stack([_table_scores(packed, profile) for profile in profiles])
    inputs, outputs = parity.golden_profiles(fitted.items, tables, profiles, 5)
    split = (
        f"newest {len(held)} of {len(cases)} cases, learned block by block from the cases before; "
        "the sealed tables are fitted on all cases with the same settings"
    )
    draft = Draft(
        slot=ITEMS,
        family="recommend",
        algorithm="item_neighbours",
        version=world.versions.get(ITEMS, 1),
        runtime=Runtime.NEIGHBOURS,
        items=fitted.items,
        tables=tables,
        lineage=world.lineage(seed, {**asdict(settings), "data_until_ms": cases[-1].time_ms}),
        quality=[
            Quality(
                metric=metric,
                lower_is_better=False,
                model=getattr(quality, name),
                reference=getattr(reference, name),
                reference_name="popularity",
                champion=None if serving is None else getattr(serving, name),
                split=split,
                n=quality.n,
            )
            for metric, name in (("ndcg_at_5", "ndcg"), ("hit_at_3", "hit"))
        ],
        parity=parity.compare(exact, rounded, float_quality.ndcg, quality.ndcg, lower_is_better=False),
        golden=Golden(atol=1e-5, rtol=1e-5),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=int(
            fitted.similarity.data.nbytes + fitted.similarity.indices.nbytes + fitted.similarity.indptr.nbytes
        ),
        latency_us=parity.latency_us(lambda: packed.rank(profiles[-1], 5, CANDIDATES)),
        intended_use="Ranks maintenance actions and spare parts for what was seen; a person decides.",
        limits="Knows only items of finished work orders and answers; says nothing about cost or stock.",
        words=f"A right item was among the first three in {quality.hit:.0%} of cases.",
        because=world.because,
    )
    progress(1.0, "item neighbours sealed")
    return [Candidate(*seal(draft))]


def _training_windows(
    grid: SignalGrid, tail: Tail, spec: WindowSpec
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Windows and scaled targets before the tail: to learn from, and a later part to stop early on, in time
    order. No target of the first part reaches into the second, none of the second into the tail."""
    last = tail.split - spec.horizon
    first = spec.context if last - spec.context >= spec.season else spec.length
    if last <= first:
        empty = (np.zeros((0, spec.length, 5), np.float32), np.zeros((0, spec.horizon), np.float32))
        return empty, empty
    check_from = last - max((last - first) // 6, 4)
    most = max(6000 // len(grid.series), 16)
    every = max((last - first) // most, 1)
    learn = np.arange(first, max(check_from - spec.horizon, first) + 1, every, dtype=np.int64)
    check = np.arange(check_from, last + 1, every, dtype=np.int64)
    return _pairs(grid, learn, spec), _pairs(grid, check, spec)


def _pairs(
    grid: SignalGrid, origins: NDArray[np.int64], spec: WindowSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = evaluation.input_windows(grid.values, grid.start_ms, origins, spec)
    targets = np.stack([grid.values[:, at : at + spec.horizon] for at in origins], axis=1).reshape(-1, spec.horizon)
    y = np.clip((targets - rows.center[:, None]) / rows.scale[:, None], -20.0, 20.0).astype(np.float32)
    kept = rows.usable & np.isfinite(y).any(axis=1)
    in_time = np.argsort(np.tile(origins, len(grid.series))[kept], kind="stable")
    return rows.x[kept][in_time], y[kept][in_time]


def _champion_error(tail: Tail, grid: SignalGrid, kept: list[int], archive: bytes | None) -> float | None:
    """The serving model's figure on the same tail; None if there is none, or it answers another grid or
    horizon."""
    if archive is None:
        return None
    bundle = unpack(archive)
    spec = bundle.passport.window
    if spec is None or spec.step_ms != grid.step_ms or spec.horizon != tail.targets.shape[2]:
        return None
    if bundle.passport.runtime is Runtime.ONNX:
        middle = bundle.passport.levels.index(0.5)
        return tail.relative_error(evaluation.window_answers(tail, spec, parity.Graph(bundle.graph))[..., middle])[0]
    return tail.relative_error(_champion_filter(tail, grid, kept, bundle))[0]


def _champion_filter(tail: Tail, grid: SignalGrid, kept: list[int], bundle: Bundle) -> Floats:
    """The champion's parameters, walked over all the data from an unknown state: its own state has seen the
    future."""
    place = {key: row for row, key in enumerate(bundle.passport.series)}
    rows = [(i, place[grid.series[s]]) for i, s in enumerate(kept) if grid.series[s] in place]
    answers = np.full(tail.targets.shape, np.nan)
    if rows:
        mine, theirs = [i for i, _ in rows], [row for _, row in rows]
        filter_ = StateSpace({name: table[theirs] for name, table in bundle.tables.items()})
        filter_.a = np.zeros_like(filter_.a)
        filter_.p = np.tile(1e4 * np.eye(filter_.a.shape[1]), (len(rows), 1, 1))
        part = replace(
            tail,
            values=tail.values[mine],
            targets=tail.targets[mine],
            naive=tail.naive[mine],
            yard=tail.yard[mine],
        )
        answers[mine] = evaluation.filter_answers(part, filter_, 0)[0]
    return answers


def _forecast_quality(tail: Tail, error: float, n: int, champion: float | None) -> Quality:
    return Quality(
        metric=RELATIVE_ERROR,
        lower_is_better=True,
        model=round(error, DIGITS),
        reference=round(tail.relative_error(tail.naive)[0], DIGITS),
        reference_name="seasonal_naive",
        champion=None if champion is None else round(champion, DIGITS),
        split=tail.words(),
        n=n,
    )


def _single(tail: Tail, s: int) -> Tail:
    row = slice(s, s + 1)
    return replace(tail, values=tail.values[row], targets=tail.targets[row], naive=tail.naive[row], yard=tail.yard[row])


def _finite(errors: Floats) -> list[float]:
    """A series that could not be measured counts as no better than the reference."""
    return [float(error) if np.isfinite(error) else 1.0 for error in errors]


def _first_held_out(cases: list[Case], champion: Bundle | None) -> int:
    """Index of the first held-out case: those the champion has not seen, if there are enough; else the newest
    quarter."""
    if champion is not None:
        until = int(champion.passport.lineage.parameters.get("data_until_ms", "0"))
        unseen = next((i for i, case in enumerate(cases) if case.time_ms > until), len(cases))
        if len(cases) - unseen >= 8 and unseen >= 8:
            return unseen
    return len(cases) - len(cases) // 4


def _chosen_settings(cases: list[Case]) -> CollaborativeSettings:
    cut = len(cases) - max(len(cases) // 4, 1)
    tried = [
        CollaborativeSettings(shrinkage=shrinkage, answer_weight=weight)
        for shrinkage in (5.0, 1.0, 20.0)
        for weight in (3.0, 1.0, 6.0)
    ]
    best, best_ndcg = tried[0], -1.0
    for settings in tried:
        fitted = collaborative.fit(cases[:cut], settings)
        ndcg = evaluation.ranked_quality([_float_list(fitted, case) for case in cases[cut:]], cases[cut:]).ndcg
        if ndcg > best_ndcg + 1e-9:
            best, best_ndcg = settings, ndcg
    return best


def _profile(case: Case) -> dict[str, float]:
    return dict.fromkeys(case.profile, 1.0)


def _float_list(fitted: FittedNeighbours, case: Case) -> list[str]:
    score = fitted.scores(_profile(case))
    order = np.lexsort((np.arange(len(score)), -np.round(score, 9)))
    return [fitted.items[i] for i in order if score[i] > 0 and fitted.items[i].startswith(CANDIDATES)][:5]


def _table_list(table: Neighbours, case: Case) -> list[str]:
    return [found.item for found in table.rank(_profile(case), 5, CANDIDATES)]


def _table_scores(table: Neighbours, profile: dict[str, float]) -> Floats:
    """Every item's score, the unwanted ones below zero included, which a ranking leaves out."""
    score = np.zeros(len(table.items))
    for name, strength in profile.items():
        if name in table.index:
            j = table.index[name]
            row = slice(table.indptr[j], table.indptr[j + 1])
            np.add.at(score, table.ids[row], strength * table.weights[row] * table.row_scale[j])
    return score


def _neighbour_tables(fitted: FittedNeighbours) -> dict[str, NDArray[np.generic]]:
    rows = fitted.similarity
    return neighbour_tables(rows.indptr, rows.indices, rows.data)


def _packed_neighbours(fitted: FittedNeighbours) -> Neighbours:
    return Neighbours(fitted.items, _neighbour_tables(fitted))


def _code_version() -> str:
    try:
        return metadata.version("millwright")
    except metadata.PackageNotFoundError:
        return "source"


def random_lstm_bundle(length: int = 48, horizon: int = 12) -> bytes:
    """A bundle of the default LSTM with random weights, exported and quantized like a trained one: for measuring what a
    gateway pays to hold it, which does not depend on the weights."""
    import torch

    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    settings = lstm.LstmSettings()
    net = lstm.QuantileLstm(horizon, settings.hidden, settings.layers, settings.dropout)
    x = np.random.default_rng(settings.seed).standard_normal((4, length, 5)).astype(np.float32)
    graph = to_onnx(net, torch.from_numpy(x[:2].copy()))
    small = quantize(graph)
    inputs, outputs = parity.golden_graph(parity.Graph(small), x)
    world = Circumstances(dataset_digest="0" * 64, dataset_rows=0, now_ms=0)
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=1,
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=60_000, length=length, horizon=horizon),
        levels=list(lstm.LEVELS),
        graph=small,
        lineage=world.lineage(settings.seed, {"weights": "random"}),
        quality=[
            Quality(metric="none", lower_is_better=True, model=1, reference=1, reference_name="none", split="none", n=0)
        ],
        parity=parity.compare(np.zeros(1), np.zeros(1), 1.0, 1.0, lower_is_better=True),
        golden=Golden(atol=INT8_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=len(graph),
        latency_us=0.0,
        intended_use="Measuring memory.",
        limits="Random weights: its answers mean nothing, and the gate refuses it.",
    )
    return seal(draft)[0]
