"""How the forms of one model's weights are tried: what answers, what that costs on held-out rows, and rows out of the
ordinary. One kind a family of graphs: rows of numbers, tokens of a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bounds import WRITER
from export.decoding import PackedDecoder
from export.strain import strained_rows, strained_tokens
from protocol.bundles import Parity
from protocol.writing.decoder import Decoder, WriterSpec

STRAINED_ROWS = 24
STRAINED_TOKENS = 48
"""Of so many rows, or so many tokens a row, an error out of the ordinary is measured."""


class Run(Protocol):
    """A loaded graph: rows of its inputs to their answers."""

    def __call__(self, *rows: Any) -> NDArray[np.floating]: ...


@dataclass(frozen=True)
class Trial:
    """How the forms of one model are tried. load: from a graph's bytes to what answers. measure: what a form costs on
    held-out rows, the fitted model beside it. rows: a few ordinary held-out rows, as what `load` makes takes them; strained:
    kind -> rows that are not ordinary; one: a single call, to be timed. calibration: name of an input -> rows [N, ...] that
    the model learned from, for fixed ranges (none: that form cannot be made)."""

    load: Callable[[bytes], Run]
    measure: Callable[[Any], Parity]
    rows: tuple[Any, ...]
    strained: Mapping[str, tuple[Any, ...]]
    one: tuple[Any, ...]
    calibration: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


def trial_of_rows(
    measure: Callable[[parity.Graph], Parity],
    x: NDArray[np.float32],
    who: NDArray[np.int64] | None = None,
    calibration: Mapping[str, NDArray[np.generic]] | None = None,
) -> Trial:
    """A trial of graphs of `export.to_onnx`, strained on at most STRAINED_ROWS of the held-out rows x [N, ...]."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(STRAINED_ROWS, len(x))).astype(np.int64))
    beside = () if who is None else (who[chosen],)
    return Trial(
        load=parity.Graph,
        measure=measure,
        rows=(x[chosen], *beside),
        strained={kind: (rows, *beside) for kind, rows in strained_rows(x[chosen]).items()},
        one=(x[:1], *(() if who is None else (who[:1],))),
        calibration=calibration or {},
    )


def trial_of_decoder(fitted: Decoder, spec: WriterSpec, rows: Sequence[Sequence[int]]) -> Trial:
    """A trial of graphs of `export.to_decoder`. rows: token ids of held-out texts, by whose likelihood a form is judged;
    what is timed is one token, since that is how a gateway goes on. Raises ValueError where no row has two tokens."""
    exact = logits(fitted, rows)
    before = surprise(exact, rows)

    def cost(run: Run) -> Parity:
        said = run(rows)
        return parity.compare(exact, said, before, surprise(said, rows), lower_is_better=True, bound=WRITER)

    def load(graph: bytes) -> Run:
        packed = PackedDecoder(graph, spec)
        return lambda *asked: logits(packed, asked[0])

    few = [list(row[:STRAINED_TOKENS]) for row in rows[:STRAINED_ROWS]]
    strained = {kind: (odd,) for kind, odd in strained_tokens(few, spec.vocabulary).items()}
    return Trial(load=load, measure=cost, rows=(few,), strained=strained, one=([few[0][:1]],))


def logits(decoder: Decoder, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """[all tokens, V]: what each row is followed by, each read from the beginning."""
    found = []
    for row in rows:
        decoder.rewind(0)
        found.append(decoder.feed(row))
    decoder.rewind(0)
    return np.concatenate(found)


def surprise(said: NDArray[np.floating], rows: Sequence[Sequence[int]]) -> float:
    """Negative log-likelihood (nats a token) of rows, their first tokens given. said: as `logits` answers. Raises ValueError
    where no row has two tokens."""
    total, count, at = 0.0, 0, 0
    for row in rows:
        before, after = said[at : at + len(row) - 1].astype(np.float64), np.asarray(row[1:], dtype=np.int64)
        at += len(row)
        largest = before.max(axis=1, keepdims=True)
        normal = np.log(np.exp(before - largest).sum(axis=1)) + largest[:, 0]
        total += float((normal - before[np.arange(len(after)), after]).sum())
        count += len(after)
    if not count:
        raise ValueError("no row has two tokens, of which the second could be expected")
    return total / count
