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


def trial_of_decoder(
    fitted: Decoder, spec: WriterSpec, rows: Sequence[Sequence[int]], told: Sequence[int] | None = None
) -> Trial:
    """A trial of graphs of `export.to_decoder`. rows: token ids of held-out texts, by whose likelihood a form is judged;
    told: with how many tokens each begins that a model is told and never learned to say (None: its first), by which it is
    not judged. What is timed is one token: so a gateway goes on. Raises ValueError where nothing is left to say."""
    places, words = to_say(rows, told)
    exact = logits(fitted, rows)[places]
    before = surprise(exact, words)

    def cost(run: Run) -> Parity:
        said = run(rows)[places]
        return parity.compare(exact, said, before, surprise(said, words), lower_is_better=True, bound=WRITER)

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


def to_say(
    rows: Sequence[Sequence[int]], told: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(places [n] among all tokens of the rows, the tokens [n] that follow there) of what is said after the `told` first ones
    of each row (None: one). Raises ValueError where that is nothing."""
    places: list[int] = []
    words: list[int] = []
    begins = 0
    for row, first in zip(rows, told or [1] * len(rows), strict=True):
        first = max(first, 1)
        places += range(begins + first - 1, begins + len(row) - 1)
        words += row[first:]
        begins += len(row)
    if not words:
        raise ValueError("no row has a token after those that the model is told")
    return np.array(places, dtype=np.int64), np.array(words, dtype=np.int64)


def surprise(said: NDArray[np.floating], words: NDArray[np.int64]) -> float:
    """Negative log-likelihood (nats a token) of words [n] by the logits [n, V] before them."""
    logits = said.astype(np.float64)
    largest = logits.max(axis=1)
    normal = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest
    return float((normal - logits[np.arange(len(words)), words]).mean())
