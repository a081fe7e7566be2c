"""What packing cost, measured on held-out rows, and the golden vectors that a gateway repeats before it
serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine

from export.bounds import FORECASTER, Bound
from export.to_onnx import INPUT, OUTPUT, WHO
from protocol.bundles import Parity
from protocol.errors import BadBundle, Reason
from protocol.tables import Hybrid, Ridge, StateSpace, Tables
from protocol.writing.decoder import Decoder

Arrays = dict[str, NDArray[np.generic]]
GOLDEN_ROWS = 4
ENGINE_FAILED = (
    engine.EPFail, engine.Fail, engine.InvalidArgument, engine.InvalidGraph, engine.InvalidProtobuf, engine.NotImplemented,
    engine.RuntimeException, UnicodeDecodeError,
)  # fmt: skip
"""onnxruntime's exceptions share no root but Exception; of a damaged graph its very message may be no text."""


def one_thread(graph: bytes) -> onnxruntime.InferenceSession:
    """A graph as a gateway runs it. Raises BadBundle if onnxruntime cannot load it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors come as exceptions, too
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except ENGINE_FAILED as error:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"onnxruntime cannot load the graph: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """What an engine says, without the pages that follow."""
    return str(error).strip().partition("\n")[0][:400] or type(error).__name__


class Graph:
    """An ONNX graph on one thread, as a gateway runs it."""

    def __init__(self, graph: bytes) -> None:
        self._session = one_thread(graph)

    @property
    def asks_who(self) -> bool:
        """Whether the graph has the second input."""
        return any(given.name == WHO for given in self._session.get_inputs())

    def __call__(self, x: NDArray[np.float32], who: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Answers [N, ...]; who [N, 2] as the passport's machines and signals say (None: unknown). Row by row: an int8
        graph scales its activations over the whole batch, so only a batch of one gives what a gateway will see."""
        given: Arrays = {INPUT: x}
        if self.asks_who:
            given[WHO] = np.zeros((len(x), 2), dtype=np.int64) if who is None else who
        return np.concatenate(
            [
                self._session.run([OUTPUT], {name: rows[i : i + 1] for name, rows in given.items()})[0]
                for i in range(len(x))
            ]
        )


@dataclass(frozen=True)
class Decoded:
    """What packing did to a language model: largest and root mean square error of logits over the same tokens, the latter
    relative to their deviation; the share of tokens where both take the same next one; n tokens."""

    max_abs: float
    rel_rms: float
    agreement: float
    n: int


def compare_decoders(reference: Decoder, packed: Decoder, prompts: Sequence[Sequence[int]], most: int) -> Decoded:
    """Each prompt is continued by what `reference` finds likeliest, `most` tokens; `packed` is asked over the same ones. Both
    are fed token by token after the prompt, as a gateway does."""
    gaps: list[NDArray[np.float64]] = []
    wanted: list[NDArray[np.float64]] = []
    alike: list[bool] = []
    for prompt in prompts:
        reference.rewind(0)
        packed.rewind(0)
        ids: Sequence[int] = prompt
        for _ in range(min(most, reference.context - len(prompt))):
            theirs, ours = reference.feed(ids)[-1].astype(np.float64), packed.feed(ids)[-1].astype(np.float64)
            gaps.append(ours - theirs)
            wanted.append(theirs)
            alike.append(bool(ours.argmax() == theirs.argmax()))
            ids = [int(theirs.argmax())]
    if not gaps:
        raise ValueError("no prompt leaves room to go on: give shorter ones")
    gap, spread = np.stack(gaps), float(np.std(np.stack(wanted)))
    return Decoded(
        max_abs=float(np.abs(gap).max()),
        rel_rms=float(np.sqrt(np.mean(gap**2)) / max(spread, 1e-12)),
        agreement=float(np.mean(alike)),
        n=len(alike),
    )


def golden_decoder(packed: Decoder, prompts: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
    """Prompts [n, T] and what follows each, computed one by one: ({"ids": [n, T]}, {"logits": [n, V]})."""
    rows = []
    for ids in prompts:
        packed.rewind(0)
        rows.append(packed.feed(ids.tolist())[-1])
    packed.rewind(0)
    return {"ids": np.ascontiguousarray(prompts, dtype=np.int64)}, {"logits": np.stack(rows)}


def compare(
    float_answers: NDArray[np.floating],
    packed_answers: NDArray[np.floating],
    float_task: float,
    packed_task: float,
    *,
    lower_is_better: bool,
    bound: Bound = FORECASTER,
) -> Parity:
    """Parity of two answers to the same rows, and of the task's figure with each; a worse task is a positive
    change. bound: what it will be held to, which says how the change is counted."""
    gap = np.asarray(packed_answers, dtype=np.float64) - np.asarray(float_answers, dtype=np.float64)
    spread = float(np.std(float_answers, dtype=np.float64))
    return Parity(
        max_abs=float(np.abs(gap).max(initial=0.0)),
        rel_rms=float(np.sqrt(np.mean(gap**2)) / max(spread, 1e-12)) if gap.size else 0.0,
        task_change=bound.change(float_task, packed_task, lower_is_better=lower_is_better),
        n=len(gap),
        bound=bound.words,
    )


def within_bound(parity: Parity, bound: Bound = FORECASTER) -> bool:
    """Whether a packed model may be rolled out."""
    return not bound.broken(parity)


def golden_graph(run: Graph, x: NDArray[np.float32], who: NDArray[np.int64] | None = None) -> tuple[Arrays, Arrays]:
    """A few spread rows and their answers, each computed at batch 1: ({"x": [n, ...]}, {"q": [n, ...]}), with "who"
    [n, 2] beside x for a graph that asks for it; its first row is then an unknown machine."""
    chosen = np.linspace(0, len(x) - 1, min(GOLDEN_ROWS, len(x))).astype(np.int64)
    inputs: Arrays = {INPUT: np.ascontiguousarray(x[chosen])}
    if not run.asks_who:
        return inputs, {OUTPUT: run(np.asarray(inputs[INPUT], dtype=np.float32))}
    names = np.zeros((len(chosen), 2), dtype=np.int64) if who is None else np.array(who[chosen], dtype=np.int64)
    names[:1] = 0
    inputs[WHO] = names
    return inputs, {OUTPUT: run(np.asarray(inputs[INPUT], dtype=np.float32), names)}


def golden_windows(model: Ridge, context: NDArray[np.float64], rows: NDArray[np.int64]) -> tuple[Arrays, Arrays]:
    """A few spread windows of a ridge and its answers; the first row is an unknown series. In: `context` [n, T], `rows`
    [n]. Out: `mean` [n, H], `quantiles` [n, H, Q]."""
    chosen = np.linspace(0, len(context) - 1, min(GOLDEN_ROWS, len(context))).astype(np.int64)
    inputs: Arrays = {"context": np.ascontiguousarray(context[chosen]), "rows": np.where(chosen == 0, -1, rows[chosen])}
    return inputs, model.golden(inputs, {})


def golden_series(tables: Tables, start_ms: int, step_ms: int, horizon: int) -> tuple[Arrays, Arrays]:
    """A few buckets fed to the filter, then one forecast. In: `values` [T, S], `times_ms` [T] (starts of
    those buckets), `step_ms` [1]; `known` [T, S, C] and `known_ahead` [S, C, horizon] where the model has known
    inputs. Out: `mean`, `deviation` [S, horizon] of the buckets that follow."""
    filter_ = StateSpace(dict(tables))
    swing = np.array([0.5, np.nan, -1.0, 2.0, 0.0])[:, None]
    values = filter_.center + filter_.scale * np.where(np.isnan(swing), 0.0, swing)
    values[np.isnan(swing[:, 0])] = np.nan
    times = start_ms + step_ms * np.arange(len(values), dtype=np.int64)
    inputs: Arrays = {"values": values, "times_ms": times, "step_ms": np.array([step_ms], dtype=np.int64)}
    outputs: Arrays = {"mean": np.zeros((len(filter_), horizon))}
    if filter_.gamma.shape[1]:
        wave = np.sin(np.arange(len(filter_) * filter_.gamma.shape[1] * (len(times) + horizon)))
        wave = wave.reshape(-1, len(filter_), filter_.gamma.shape[1])
        inputs |= {"known": wave[: len(times)], "known_ahead": wave[len(times) :].transpose(1, 2, 0)}
    return inputs, filter_.golden(inputs, outputs)


def golden_lists(
    items: list[str], users: list[str], tables: Tables, profiles: list[dict[str, float]], top: int
) -> tuple[Arrays, Arrays]:
    """A few spread profiles of a hybrid, the first one empty, and its lists. In: `indptr` [n+1], `ids`, `strengths`. Out:
    `ranked` [n, top], ids of the best items (-1: none), and `scores`."""
    hybrid = Hybrid(items, users, tables)
    chosen = [{}, *profiles[:: max(len(profiles) // GOLDEN_ROWS, 1)][:GOLDEN_ROWS]]
    known = [sorted((hybrid.index[n], s) for n, s in profile.items() if n in hybrid.index) for profile in chosen]
    inputs: Arrays = {
        "indptr": np.cumsum([0, *map(len, known)]),
        "ids": np.array([i for row in known for i, _ in row], dtype=np.int64),
        "strengths": np.array([s for row in known for _, s in row], dtype=np.float64),
    }
    return inputs, hybrid.golden(inputs, {"ranked": np.zeros((len(chosen), top), dtype=np.int64)})


def overlap(ours: list[list[str]], reference: list[list[str]]) -> float:
    """Mean share of each reference list that stands in ours too, whatever the order; an empty one counts as met."""
    shares = [len(set(a) & set(b)) / len(b) if b else 1.0 for a, b in zip(ours, reference, strict=True)]
    return float(np.mean(shares)) if shares else 1.0


def latency_us(call: Callable[[], object], repeats: int = 40) -> float:
    """Median wall time of one call in microseconds, after a warm-up."""
    call()
    spent: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return float(np.median(spent) * 1e6)
