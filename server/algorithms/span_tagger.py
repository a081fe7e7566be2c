"""Learns what notes name, span by span; the features are those of `protocol/reading/spans.py`.

A multinomial logistic regression over all spans of the texts (L-BFGS; Liu & Nocedal 1989). Three things besides the labelled
texts can be given: unlabelled texts, from which words get vectors (positive pointwise mutual information with neighbours to
the left and right, factorised: Levy & Goldberg 2014); texts labelled in another scheme, from which an earlier tagger is
learned whose answers the later one hears; and the lean towards telling, which is chosen on folds of the labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.linalg import svds
from scipy.special import logsumexp

from protocol.reading.notes import Entity
from protocol.reading.segments import Cut
from protocol.reading.spans import (
    LONGEST,
    LONGEST_WORD,
    MOST_WORDS,
    PLACES,
    UNLIKELY,
    Inside,
    Span,
    SpanTagger,
    WordVectors,
    composed,
    dense,
    heard,
    inside,
    places,
    softmax,
    spans,
    words,
)
from protocol.tables.checked import Tables
from protocol.windows import Floats

_BEFORE, _AFTER, _OTHER = "^", "$", "?"

SMALL = 2_000_000
"""Cells of a matrix that is factorised whole: ARPACK starts anew by chance where a small one has too few ranks."""


@dataclass(frozen=True)
class SpanText:
    """Words of a text, and what they name: (first word, one after the last) -> class."""

    tokens: Sequence[str]
    entities: Mapping[Span, str]


@dataclass(frozen=True)
class SpanSettings:
    """width: of a word's vector. window: neighbours on each side that tell what a word is. penalty, earlier_penalty,
    inner_penalty: of a weight's square, per span. steps: of the optimiser. leans: to choose from. folds: of the labelled
    texts, in their order, on which the lean is chosen."""

    width: int = 48
    window: int = 2
    penalty: float = 1e-5
    earlier_penalty: float = 3e-6
    inner_penalty: float = 1e-4
    steps: int = 80
    leans: tuple[float, ...] = (0.0, 0.1, 0.2)
    folds: int = 3


@dataclass(frozen=True)
class Rows:
    """All spans of all texts. hashed [S, PLACES] sparse; numbers [S, D]; label int [S], 0: nothing; every: each text's."""

    hashed: sparse.csr_matrix
    numbers: Floats
    label: NDArray[np.int64]
    every: Sequence[Sequence[Span]]

    @property
    def text(self) -> NDArray[np.int64]:
        """Which text a span is of [S]."""
        return np.repeat(np.arange(len(self.every)), [len(one) for one in self.every])

    def of(self, chosen: NDArray[np.bool_]) -> Rows:
        """Those of some texts [T]."""
        mine = chosen[self.text]
        every = [one for one, kept in zip(self.every, chosen, strict=True) if kept]
        return Rows(self.hashed[mine], self.numbers[mine], self.label[mine], every)

    @property
    def cut(self) -> Cut:
        """How the spans lie in their texts; texts without words have none."""
        text = np.unique(self.text, return_inverse=True)[1]
        start, end = (np.array([span[k] for one in self.every for span in one], dtype=np.int64) for k in (0, 1))
        lengths = np.zeros(int(text.max(initial=-1)) + 1, dtype=np.int64)
        np.maximum.at(lengths, text, end)
        return Cut(text, start, end - start, lengths, LONGEST)

    def inside(self) -> Inside:
        """Pairs of spans one inside the other, of all texts."""
        found = [inside(one) for one in self.every]
        first = np.cumsum([0, *(len(one) for one in self.every)])
        return Inside(
            np.concatenate([one.inner + at for one, at in zip(found, first, strict=False)]),
            np.concatenate([one.outer + at for one, at in zip(found, first, strict=False)]),
            np.vstack([one.sides for one in found]),
        )

    def within(self, inner: NDArray[np.int64], sides: Floats) -> Rows:
        """The spans at `inner` [M], each with how it lies in a longer one."""
        return Rows(self.hashed[inner], np.hstack([self.numbers[inner], sides]), self.label[inner], ())


@dataclass(frozen=True)
class Weights:
    """hashed [PLACES, C], dense [D, C], bias [C]."""

    hashed: Floats
    dense: Floats
    bias: Floats

    def logits(self, rows: Rows) -> Floats:
        """[S, C]."""
        return np.asarray(rows.hashed @ self.hashed + rows.numbers @ self.dense + self.bias)

    def tables(self, prefix: str) -> Tables:
        """int8, one scale a class."""
        scale = np.maximum(np.abs(self.hashed).max(axis=0), 1e-12) / 127
        return {
            f"{prefix}weights": np.round(self.hashed / scale).astype(np.int8),
            f"{prefix}scale": scale.astype(np.float32),
            f"{prefix}dense": self.dense.astype(np.float32),
            f"{prefix}bias": self.bias.astype(np.float32),
        }


@dataclass(frozen=True)
class Heads:
    """Weights of spans judged by themselves, of those that compete for the text, and of those inside one that won."""

    alone: Weights
    outer: Weights
    inner: Weights

    def chances(self, rows: Rows) -> Floats:
        """[S, C], as `SpanTagger` makes them."""
        _, outer = rows.cut.marginals(self.outer.logits(rows))
        pairs = rows.inside()
        held = outer[:, 1:].sum(axis=1)[pairs.outer]
        kept = held > UNLIKELY
        said = softmax(self.inner.logits(rows.within(pairs.inner[kept], pairs.sides[kept])))
        return (softmax(self.alone.logits(rows)) + composed(outer, pairs.inner[kept], held[kept], said)) / 2


@dataclass(frozen=True)
class FittedSpans:
    """Everything that `SpanTagger` needs. vectors [V, d] of names."""

    classes: Sequence[str]
    names: Sequence[str]
    vectors: Floats
    weights: Heads
    earlier: Weights | None
    lean: float

    def tables(self) -> Tables:
        """What `SpanTagger` reads."""
        scale = np.maximum(np.abs(self.vectors).max(axis=1, initial=0.0), 1e-12) / 127
        return {
            "spans_classes": _packed(self.classes),
            "spans_words": _packed(self.names),
            "spans_vectors": np.round(self.vectors / scale[:, None]).astype(np.int8),
            "spans_vector_scale": scale.astype(np.float32),
            "spans_lean": np.array([self.lean], dtype=np.float32),
            **self.weights.alone.tables("spans_"),
            **self.weights.outer.tables("spans_outer_"),
            **self.weights.inner.tables("spans_inner_"),
            **({} if self.earlier is None else self.earlier.tables("spans_earlier_")),
        }

    def tagger(self) -> SpanTagger:
        """As a gateway runs it."""
        return SpanTagger(self.tables())


def fit_spans(
    texts: Sequence[SpanText],
    settings: SpanSettings,
    *,
    unlabelled: Sequence[Sequence[str]] = (),
    earlier: Sequence[SpanText] = (),
) -> FittedSpans:
    """Learned from labelled texts; see the module for what else may be given. Raises ValueError if nothing is labelled."""
    classes = sorted({kind for text in texts for kind in text.entities.values()})
    if not classes:
        raise ValueError("no text has an entity: label some notes first")
    names, vectors = word_vectors([[*map(_low, t)] for t in (*(t.tokens for t in texts), *unlabelled)], settings)
    known = WordVectors(names, vectors)
    before: Weights | None = None
    if earlier:
        kinds = sorted({kind for text in earlier for kind in text.entities.values()})
        before = _fit(span_rows(earlier, kinds, known), len(kinds) + 1, settings, settings.earlier_penalty)
    rows = span_rows(texts, classes, known)
    if before is not None:
        rows = hearing(rows, before)
    lean = _lean(rows, texts, classes, settings)
    weights = fit_heads(rows, len(classes) + 1, settings)
    return FittedSpans(classes, names, vectors, weights, before, lean)


def fit_heads(rows: Rows, classes: int, settings: SpanSettings) -> Heads:
    """The three heads from the same rows."""
    outermost, pairs = _outermost(rows)
    named = outermost > 0
    held = named[pairs.outer]
    inner = rows.within(pairs.inner[held], pairs.sides[held])
    return Heads(
        _fit(rows, classes, settings, settings.penalty),
        _fit(replace(rows, label=outermost), classes, settings, settings.penalty, rows.cut),
        _fit(inner, classes, settings, settings.inner_penalty),
    )


def _outermost(rows: Rows) -> tuple[NDArray[np.int64], Inside]:
    """(label [S] of spans inside no other entity; -1: a span that the right cut does not hold), and all nestings."""
    pairs = rows.inside()
    label = rows.label.copy()
    label[pairs.inner[rows.label[pairs.outer] > 0]] = -1
    single = rows.cut.size == 1
    label[(label == 0) & ~single] = -1
    return label, pairs


def span_text(text: str, entities: Sequence[Entity]) -> SpanText:
    """A note's words and entities; an entity whose ends are inside words takes those words whole."""
    at = words(text)
    found: dict[Span, str] = {}
    for entity in entities:
        inside = [i for i, (start, end) in enumerate(at) if start < entity.end and end > entity.start]
        if inside:
            found[inside[0], inside[-1] + 1] = entity.kind
    return SpanText([text[start:end] for start, end in at], found)


def span_rows(texts: Sequence[SpanText], classes: Sequence[str], known: WordVectors) -> Rows:
    """Features and labels of all spans."""
    number = {kind: i + 1 for i, kind in enumerate(classes)}
    ids: list[int] = []
    ends, numbers, label, all_spans = [0], [], [], []
    for text in texts:
        low = [_low(word) for word in text.tokens[:MOST_WORDS]]
        every = spans(len(low))
        all_spans.append(every)
        numbers.append(dense(known.of(low), every))
        for start, end in every:
            ids += places(low, start, end)
            ends.append(len(ids))
            label.append(number.get(text.entities.get((start, end), ""), 0))
    hashed = sparse.csr_matrix((np.ones(len(ids)), np.array(ids, dtype=np.int32), np.array(ends)), (len(label), PLACES))
    stacked = np.vstack([*numbers, np.zeros((0, 6 * (known.width + 1)))])
    return Rows(hashed, stacked, np.array(label, dtype=np.int64), all_spans)


def hearing(rows: Rows, before: Weights) -> Rows:
    """The same rows, with what an earlier tagger says of them."""
    logits, text = before.logits(rows), rows.text
    starts = np.searchsorted(text, np.arange(len(rows.every) + 1))
    said = [heard(logits[starts[i] : starts[i + 1]], every) for i, every in enumerate(rows.every)]
    return replace(rows, numbers=np.hstack([rows.numbers, np.vstack(said)]))


def word_vectors(texts: Sequence[Sequence[str]], settings: SpanSettings) -> tuple[list[str], Floats]:
    """(words met twice and more, unit vectors [V, d])."""
    times = Counter(word for text in texts for word in text)
    names = [_BEFORE, _AFTER, *sorted(word for word, n in times.items() if n > 1 and "\n" not in word)]
    names = list(dict.fromkeys(names))
    number = {name: i for i, name in enumerate(names)}
    together: Counter[tuple[int, str]] = Counter()
    for text in texts:
        framed = [_BEFORE, *text, _AFTER]
        for i, word in enumerate(framed):
            if word not in number:
                continue
            for j in range(max(0, i - settings.window), min(len(framed), i + settings.window + 1)):
                if j != i:
                    other = framed[j] if framed[j] in number else _OTHER
                    together[number[word], ("<" if j < i else ">") + other] += 1 / abs(i - j)  # type: ignore[assignment]
    return names, _factorised(together, len(names), settings.width)


def _factorised(together: Mapping[tuple[int, str], float], many: int, width: int) -> Floats:
    contexts = {name: i for i, name in enumerate(sorted({context for _, context in together}))}
    row = np.array([word for word, _ in together], dtype=np.int64)
    column = np.array([contexts[context] for _, context in together], dtype=np.int64)
    weight = np.array(list(together.values()), dtype=np.float64)
    d = min(width, many - 1, len(contexts) - 1)
    if d < 1:
        return np.zeros((many, 1))
    of_word = np.bincount(row, weight, many)
    of_context = np.bincount(column, weight, len(contexts)) ** 0.75
    information = np.log(weight / (of_word[row] * of_context[column] / of_context.sum()))
    kept = information > 0
    matrix = sparse.csr_matrix((information[kept], (row[kept], column[kept])), (many, len(contexts)))
    if many * len(contexts) <= SMALL:
        left, sizes, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left, sizes = left[:, :d], sizes[:d]
    else:
        left, sizes, _ = svds(matrix, k=d, random_state=0)
    vectors = left * np.sqrt(np.where(sizes > 1e-9 * sizes.max(initial=0.0), sizes, 0.0))
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _fit(rows: Rows, classes: int, settings: SpanSettings, penalty: float, cut: Cut | None = None) -> Weights:
    """Maximum likelihood with a penalty, over the hashed places that occur: of each span by itself, or, given how they lie,
    of the right cut of each text."""
    if not len(rows.label):
        unsaid = np.where(np.arange(classes) > 0, -4.0, 0.0)
        return Weights(np.zeros((PLACES, classes)), np.zeros((rows.numbers.shape[1], classes)), unsaid)
    used = np.flatnonzero(np.bincount(rows.hashed.indices, minlength=PLACES))
    many = len(rows.label)
    whole = sparse.hstack(
        [rows.hashed[:, used], sparse.csr_matrix(np.hstack([rows.numbers, np.ones((many, 1))]))], format="csr"
    )
    turned = whole.T.tocsr()
    truth = np.zeros((many, classes))
    told = np.flatnonzero(rows.label >= 0)
    truth[told, rows.label[told]] = 1

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(-1, classes)
        scores = whole @ weights
        if cut is None:
            total = logsumexp(scores, axis=1)
            chances = np.exp(scores - total[:, None])
        else:
            total, chances = cut.marginals(scores)
            chances[cut.size > 1, 0] = 0.0
        miss = (float(total.sum()) - float((scores * truth).sum())) / many
        slope = turned @ (chances - truth) / many + 2 * penalty * weights
        return miss + penalty * float(flat @ flat), slope.ravel()

    found = minimize(
        loss, np.zeros(whole.shape[1] * classes), jac=True, method="L-BFGS-B", options={"maxiter": settings.steps}
    )
    weights = found.x.reshape(-1, classes)
    hashed = np.zeros((PLACES, classes))
    hashed[used] = weights[: len(used)]
    return Weights(hashed, weights[len(used) : -1], weights[-1])


def _lean(rows: Rows, texts: Sequence[SpanText], classes: Sequence[str], settings: SpanSettings) -> float:
    """The lean with the highest F1 over folds of the texts, in their order."""
    if len(texts) < 2 * settings.folds or len(settings.leans) < 2:
        return settings.leans[0]
    fold = np.arange(len(texts)) * settings.folds // len(texts)
    chances = np.zeros((len(rows.label), len(classes) + 1))
    for k in range(settings.folds):
        heads = fit_heads(rows.of(fold != k), len(classes) + 1, settings)
        chances[(fold == k)[rows.text]] = heads.chances(rows.of(fold == k))
    named = sum(len(one.entities) for one in texts)
    return max(settings.leans, key=lambda lean: (_f1(chances, rows.label, lean, named), -lean))


def _f1(chances: Floats, label: NDArray[np.int64], lean: float, named: int) -> float:
    leaning = chances.copy()
    leaning[:, 0] -= lean
    said = leaning.argmax(axis=1)
    right = int(((said == label) & (label > 0)).sum())
    return 2 * right / max(int((said > 0).sum()) + named, 1)


def _low(word: str) -> str:
    return word[:LONGEST_WORD].lower()


def _packed(names: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{name}\n" for name in names).encode(), dtype=np.uint8)
