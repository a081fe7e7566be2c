"""What comes next after an ordered history: item-based collaborative filtering that knows the order.

Transitions between items with decay over the gap (Rendle et al. 2010, FPMC's chain; Ludewig & Jannach 2018, who found such
rules as good as recurrent networks), co-occurrence (Sarwar et al. 2001), popularity, and what the cards say: text (TF-IDF,
Salton & Buckley 1988) and shared attributes. `bridge` carries a transition over to items whose text is alike, which reaches
items that nobody has chosen yet. Each part is pressed by log1p and weighted by `listwise`; the score is their sum, so every
part's contribution is exact. An item may follow itself: people order again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms import listwise
from server.algorithms.likeness import dense, scaled_rows, text_rows, to_profiles, word_neighbours
from server.algorithms.listwise import Part

PARTS = ("popularity", "next", "together", "text", "text_last", "bridge", "attributes", "again", "seen")
AS_THEY_ARE = ("popularity", "again", "seen")
BLOCK = 512


@dataclass(frozen=True)
class Card:
    """What is known of an item before anybody has chosen it. attributes: e.g. "brand:Dixon"."""

    text: str = ""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SequenceSettings:
    """gap_decay: what a transition over one more place in between is worth. near_decay, far_decay: what a history's item
    one place earlier is worth, for transitions and for likeness. shrinkage: choices an item needs before its transitions
    count in full. longest: places of a history, and of a gap, that are looked at. text_neighbours: items alike over which a
    transition is carried. most_rows: histories that the weights are learned from."""

    gap_decay: float = 0.5
    near_decay: float = 0.5
    far_decay: float = 0.8
    shrinkage: float = 8.0
    longest: int = 10
    text_neighbours: int = 8
    most_rows: int = 2000


@dataclass(frozen=True)
class FittedSequences:
    """items: names [I], sorted. popularity [I]: choices. next, together, bridge [I, I]: row = what was had, column = what
    follows. text [I, V], attributes [I, A]: rows of length 1 and 0/1. weights, scale [P], in the order of PARTS."""

    items: list[str]
    popularity: Floats
    following: sparse.csr_matrix
    together: sparse.csr_matrix
    bridge: sparse.csr_matrix
    text: sparse.csr_matrix
    attributes: sparse.csr_matrix
    settings: SequenceSettings
    weights: Floats = field(default_factory=lambda: np.ones(len(PARTS)))
    scale: Floats = field(default_factory=lambda: np.ones(len(PARTS)))

    def scores(self, history: Sequence[str]) -> Floats:
        """Every item's score after a history, oldest first [I]; unknown names are passed over."""
        return np.asarray(self.score_rows([history])[0])

    def score_rows(self, histories: Sequence[Sequence[str]]) -> Floats:
        """[B, I]."""
        blocks = [
            listwise.mixed(self.parts(histories[start : start + BLOCK]), self.weights)
            for start in range(0, len(histories), BLOCK)
        ]
        return np.concatenate(blocks).astype(np.float64) if blocks else np.zeros((0, len(self.items)))

    def because(self, history: Sequence[str], item: str) -> dict[str, float]:
        """What each part gives to an item's score; the values add up to it."""
        place = self.items.index(item)
        return {
            name: float(weight * part[0, place])
            for name, weight, part in zip(PARTS, self.weights, self.parts([history]), strict=True)
        }

    def parts(self, histories: Sequence[Sequence[str]]) -> list[Part]:
        """Each part as it enters the sum, [B, I] in the order of PARTS."""
        return [
            _pressed(raw, scale, name) for raw, scale, name in zip(self.raw(histories), self.scale, PARTS, strict=True)
        ]

    def raw(self, histories: Sequence[Sequence[str]]) -> list[Part]:
        """Each part before it is pressed, [B, I] in the order of PARTS."""
        near, far = (
            self._profiles(histories, self.settings.near_decay),
            self._profiles(histories, self.settings.far_decay),
        )
        last = self._profiles(histories, 0.0)
        popular = np.tile(np.log1p(self.popularity).astype(np.float32), (len(histories), 1))
        return [
            popular,
            dense(near @ self.following),
            dense(near @ self.together),
            to_profiles(far, self.text),
            to_profiles(last, self.text),
            dense(near @ self.bridge),
            dense((far @ self.attributes) @ self.attributes.T),
            dense(last),
            (dense(far) > 0).astype(np.float32),
        ]

    def _profiles(self, histories: Sequence[Sequence[str]], decay: float) -> sparse.csr_matrix:
        """Histories as rows [B, I]: 1 for the last place, decay for the one before, and so on."""
        index = {name: i for i, name in enumerate(self.items)}
        row, column, value = [], [], []
        for b, history in enumerate(histories):
            known = [index[name] for name in history if name in index][-self.settings.longest :]
            for age, item in enumerate(reversed(known)):
                row.append(b)
                column.append(item)
                value.append(decay**age)
        made = sparse.csr_matrix((value, (row, column)), shape=(len(histories), len(self.items)), dtype=np.float32)
        made.eliminate_zeros()
        return made


def fit(
    sequences: Sequence[Sequence[str]],
    cards: Mapping[str, Card] | None = None,
    settings: SequenceSettings | None = None,
) -> FittedSequences:
    """Learns the parts from all sequences (oldest choice first), and the weights from each one's last choice with parts that
    have not seen it. Raises Refused where no sequence has two choices."""
    longer = [s for s in sequences if len(s) > 1]
    if not longer:
        raise Refused(Reason.NOT_ELIGIBLE, "no sequence has two choices; an order of choices is what is learned here")
    before = learn_parts([s[:-1] if len(s) > 1 else s for s in sequences], cards, settings)
    known = set(before.items)
    rows = [(s[:-1], s[-1]) for s in longer if s[-1] in known]
    if not rows:
        raise Refused(
            Reason.NOT_ELIGIBLE, "every last choice is an item never chosen before; give longer histories or cards"
        )
    weighed = learn_weights(before, [h for h, _ in rows], [c for _, c in rows])
    return replace(learn_parts(sequences, cards, settings), weights=weighed.weights, scale=weighed.scale)


def learn_parts(
    sequences: Sequence[Sequence[str]],
    cards: Mapping[str, Card] | None = None,
    settings: SequenceSettings | None = None,
) -> FittedSequences:
    """The parts, with equal weights. Items are all that were chosen and all that have a card."""
    cards, settings = cards or {}, settings or SequenceSettings()
    items = sorted({name for s in sequences for name in s} | set(cards))
    if not items:
        raise Refused(Reason.NOT_ELIGIBLE, "no sequences and no cards: there is nothing to recommend")
    index = {name: i for i, name in enumerate(items)}
    ordered = sorted(
        [index[name] for name in s] for s in sequences
    )  # sums of floats in one order: the same answer always
    popularity = np.bincount([i for s in ordered for i in s], minlength=len(items)).astype(np.float64)
    moves = _moves(ordered, len(items), settings)
    following = scaled_rows(moves, 1 / (_sums(moves) + settings.shrinkage))
    together = scaled_rows((moves + moves.T).tocsr(), 1 / (popularity + settings.shrinkage))
    text = text_rows([cards.get(name, Card()).text for name in items])
    alike = word_neighbours(text, settings.text_neighbours)
    return FittedSequences(
        items,
        popularity,
        following,
        together,
        (alike @ following + following @ alike.T).tocsr(),
        text,
        _attribute_rows([cards.get(name, Card()).attributes for name in items]),
        settings,
    )


def learn_weights(
    fitted: FittedSequences, histories: Sequence[Sequence[str]], chosen: Sequence[str]
) -> FittedSequences:
    """The same parts, weighted so that what was chosen after each history ranks high. Histories and choices must be newer
    than what the parts were learned from. Choices that are no known items are passed over."""
    index = {name: i for i, name in enumerate(fitted.items)}
    rows = sorted((tuple(h), index[name]) for h, name in zip(histories, chosen, strict=True) if name in index)
    if not rows:
        raise Refused(
            Reason.NOT_ELIGIBLE, "none of the choices is a known item; learn the parts from the same catalogue"
        )
    rows = rows[:: -(-len(rows) // fitted.settings.most_rows)]
    said = sparse.csr_matrix(
        (np.ones(len(rows)), (np.arange(len(rows)), [i for _, i in rows])), shape=(len(rows), len(fitted.items))
    )
    raw = fitted.raw([history for history, _ in rows])
    scale = np.array([_scale(part, name) for part, name in zip(raw, PARTS, strict=True)])
    parts = [_pressed(part, size, name) for part, size, name in zip(raw, scale, PARTS, strict=True)]
    return replace(fitted, scale=scale, weights=listwise.fit_weights(parts, said))


def _moves(ordered: Sequence[Sequence[int]], n: int, settings: SequenceSettings) -> sparse.csr_matrix:
    """How often b came after a, decayed over the gap [I, I]."""
    row, column, value = [], [], []
    for s in ordered:
        for a, before in enumerate(s):
            for gap, after in enumerate(s[a + 1 : a + 1 + settings.longest]):
                row.append(before)
                column.append(after)
                value.append(settings.gap_decay**gap)
    return sparse.csr_matrix((value, (row, column)), shape=(n, n), dtype=np.float32)


def _attribute_rows(attributes: Sequence[tuple[str, ...]]) -> sparse.csr_matrix:
    names = sorted({a for each in attributes for a in each})
    index = {name: i for i, name in enumerate(names)}
    pairs = [(i, index[a]) for i, each in enumerate(attributes) for a in sorted(set(each))]
    row, column = [i for i, _ in pairs], [a for _, a in pairs]
    shape = (len(attributes), max(len(names), 1))
    return sparse.csr_matrix((np.ones(len(pairs)), (row, column)), shape=shape, dtype=np.float32)


def _scale(raw: Part, name: str) -> float:
    there = raw[raw > 0]
    return 1.0 if name in AS_THEY_ARE or not len(there) else float(there.mean())


def _pressed(raw: Part, scale: float, name: str) -> Part:
    return raw if name in AS_THEY_ARE else np.log1p(raw / np.float32(scale))


def _sums(matrix: sparse.csr_matrix) -> Floats:
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
