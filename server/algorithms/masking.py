"""How an encoder learns from text that nobody labelled, and from pairs of texts.

Devlin et al. 2019: some words are hidden and told from the others (15 %; of them 80 % masked, 10 % another word, 10 % left
as they are; whole words), and of two texts it is told whether the second follows the first: here, whether this action
follows that symptom. van den Oord et al. 2018 and Gao et al. 2021 (SimCSE): of all second texts of a batch, a text's own
lies nearest; where there is no second text, the text itself, seen through other dropout, stands for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from server.algorithms.bert import Bert, BertForPreTraining, BertSettings, Rows, padded, whole
from server.algorithms.descent import Descent, Watch, descend

UNASKED = -100
POOL = 16
"""Batches that are sorted by length together."""


@dataclass(frozen=True)
class Marks:
    """Ids of a vocabulary that are no words, and which of its tokens continue a word (bool [V])."""

    opening: int
    closing: int
    hidden: int
    special: tuple[int, ...]
    continues: NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Two texts as rows of ids. Those of one `group` say the same, and none is shown as another's opposite. corpus: what
    a false second text is drawn from; a second text of another corpus would be told by its style alone."""

    first: Sequence[int]
    second: Sequence[int]
    group: int = -1
    corpus: int = 0


@dataclass(frozen=True)
class PreTraining:
    """hide: share of words hidden, at least one a text. follows: weight of the question about pairs. paired: share of
    steps that look at pairs, where there are any."""

    descent: Descent = field(default_factory=Descent)
    batch: int = 64
    hide: float = 0.15
    whole_words: bool = True
    follows: float = 0.5
    paired: float = 0.5
    seed: int = 7


@dataclass(frozen=True)
class Alignment:
    """Contrastive learning. temperature: as SimCSE's."""

    descent: Descent = field(default_factory=lambda: Descent(steps=300, learning_rate=2e-4))
    batch: int = 64
    temperature: float = 0.05
    seed: int = 7


def pretrain(
    net: BertForPreTraining,
    rows: Rows,
    pairs: Sequence[Pair],
    marks: Marks,
    settings: PreTraining,
    watch: Watch | None = None,
) -> list[float]:
    """Hidden words of rows and of pairs, and whether pairs belong together. Changes `net`; answers each step's loss.
    Raises ValueError if there is nothing to read."""
    rows = [row for row in rows if len(row) > 2]
    if not rows and not pairs:
        raise ValueError("nothing to read: give texts, pairs, or both")
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    chance = torch.Generator().manual_seed(settings.seed)
    partners = _Partners(pairs)
    alone_next = dealt([len(row) for row in rows], settings.batch, order)
    paired_next = dealt([len(pair.first) + len(pair.second) for pair in pairs], settings.batch, order)

    def loss_of(_step: int) -> Tensor:
        if pairs and (not rows or order.random() < settings.paired):
            joined, belongs = partners.drawn(next(paired_next), order)
            ids, mask, types = joined_rows(joined, net.settings)
            return _hidden_loss(net, ids, mask, types, belongs, marks, settings, chance)
        ids, mask = padded([rows[i] for i in next(alone_next)], net.settings)
        return _hidden_loss(net, ids, mask, None, None, marks, settings, chance)

    net.train()
    losses = descend([(net, 1.0)], loss_of, settings.descent, watch)
    net.eval()
    return losses


def align(bert: Bert, pairs: Sequence[Pair], settings: Alignment, watch: Watch | None = None) -> list[float]:
    """Brings the two texts of a pair together and apart from the batch's others. Changes `bert`; answers each step's loss.
    Raises ValueError for fewer than two pairs."""
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs: a text needs others to be apart from; give at least two")
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    batches = dealt([len(pair.first) for pair in pairs], settings.batch, order)

    def loss_of(_step: int) -> Tensor:
        chosen = [pairs[i] for i in next(batches)]
        one, other = (
            whole(bert(*side), side[1])
            for side in (padded([getattr(p, which) for p in chosen], bert.settings) for which in ("first", "second"))
        )
        return info_nce(one, other, torch.tensor([p.group for p in chosen]), settings.temperature)

    bert.train()
    losses = descend([(bert, 1.0)], loss_of, settings.descent, watch)
    bert.eval()
    return losses


def dealt(lengths: Sequence[int], batch: int, order: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Places of batches without end: all in a new order, time and again, those of like length together."""
    sizes, pool = np.asarray(lengths), POOL * batch
    while True:
        shuffled = order.permutation(len(sizes))
        for start in range(0, len(shuffled), pool):
            some = shuffled[start : start + pool]
            some = some[np.argsort(sizes[some], kind="stable")]
            for at in order.permutation(-(-len(some) // batch)):
                yield some[at * batch : (at + 1) * batch]


def alone(rows: Rows) -> list[Pair]:
    """Each text paired with itself: dropout makes the two differ."""
    return [Pair(row, row) for row in rows]


def of_classes(rows: Rows, classes: Sequence[int], seed: int) -> list[Pair]:
    """Each text paired with another of its class, or with itself where it is the only one."""
    order, members = np.random.default_rng(seed), dict[int, list[int]]()
    for at, group in enumerate(classes):
        members.setdefault(group, []).append(at)
    found = []
    for at, group in enumerate(classes):
        others = [other for other in members[group] if other != at] or [at]
        found.append(Pair(rows[at], rows[others[order.integers(len(others))]], group))
    return found


def hide(
    ids: Tensor, mask: Tensor, marks: Marks, settings: PreTraining, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    """ids [N, T] with words hidden, and what stood there [N, T] (UNASKED elsewhere). The word with the lowest lot is
    hidden in any case, so that a note of three words teaches too."""
    special = torch.isin(ids, torch.tensor(marks.special)) | (mask == 0)
    lots = torch.rand(ids.shape, generator=chance)
    if settings.whole_words:
        follows_special = functional.pad(special[:, :-1], (1, 0), value=True)
        begins = ~torch.from_numpy(marks.continues)[ids] | special | follows_special
        lots = lots.gather(1, begins.long().cumsum(dim=1) - 1)
    lots = lots.masked_fill(special, 2.0)
    lowest = lots.min(dim=1, keepdim=True).values
    chosen = (lots < settings.hide) | ((lots == lowest) & ~special)
    fate = torch.rand(ids.shape, generator=chance)
    ordinary = np.setdiff1d(np.arange(len(marks.continues)), marks.special)
    others = torch.from_numpy(ordinary)[torch.randint(len(ordinary), ids.shape, generator=chance)]
    shown = torch.where(chosen & (fate < 0.8), marks.hidden, ids)
    shown = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), others, shown)
    return shown, ids.masked_fill(~chosen, UNASKED)


def info_nce(one: Tensor, other: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Of unit vectors [N, d] each: how surely each finds its own among the others, both ways. Texts of the same group (0 and
    up; -1: of none) are not held against one another."""
    likeness = one @ other.T / temperature  # [N, N]
    same = (groups[:, None] == groups[None]) & (groups[:, None] >= 0)
    same.fill_diagonal_(False)
    likeness = likeness.masked_fill(same, float("-inf"))
    own = torch.arange(len(one))
    return 0.5 * (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own))


def joined_rows(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], settings: BertSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """ids, mask and types [N, T]: the first text, then the second without its opening token, in segment 1. The longer of the
    two is cut until both fit."""
    rows, lengths = [], []
    for first, second in pairs:
        one, two = list(first), list(second)[1:]
        over = len(one) + len(two) - settings.context
        while over > 0:
            longer = one if len(one) >= len(two) else two
            del longer[-2]  # the closing token stays
            over -= 1
        rows.append(one + two)
        lengths.append(len(one))
    ids, mask = padded(rows, settings)
    types = (torch.arange(ids.shape[1])[None] >= torch.tensor(lengths)[:, None]).long() * mask
    return ids, mask, types


class _Partners:
    """Second texts, true and false, of the same corpus."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs
        self.of_corpus: dict[int, list[int]] = {}
        self.true: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        for at, pair in enumerate(pairs):
            self.of_corpus.setdefault(pair.corpus, []).append(at)
            self.true.setdefault(tuple(pair.first), set()).add(tuple(pair.second))

    def drawn(
        self, chosen: NDArray[np.int64], order: np.random.Generator
    ) -> tuple[list[tuple[Sequence[int], Sequence[int]]], Tensor]:
        """Half of them with a second text that does not follow (label 1), where one is found in a few draws."""
        joined, belongs = [], []
        for at in chosen:
            pair = self.pairs[at]
            second, label = pair.second, 0
            if order.random() < 0.5:
                second, label = self._false(pair, order)
            joined.append((pair.first, second))
            belongs.append(label)
        return joined, torch.tensor(belongs)

    def _false(self, pair: Pair, order: np.random.Generator) -> tuple[Sequence[int], int]:
        within = self.of_corpus[pair.corpus]
        for _ in range(5):
            other = self.pairs[within[order.integers(len(within))]]
            same_group = pair.group >= 0 and other.group == pair.group
            if not same_group and tuple(other.second) not in self.true[tuple(pair.first)]:
                return other.second, 1
        return pair.second, 0


def _hidden_loss(
    net: BertForPreTraining,
    ids: Tensor,
    mask: Tensor,
    types: Tensor | None,
    belongs: Tensor | None,
    marks: Marks,
    settings: PreTraining,
    chance: torch.Generator,
) -> Tensor:
    shown, stood = hide(ids, mask, marks, settings, chance)
    tokens = net.bert(shown, mask, types)
    asked = stood != UNASKED
    loss = functional.cross_entropy(net.words(tokens[asked]), stood[asked])
    if belongs is not None:
        loss = loss + settings.follows * functional.cross_entropy(net.follows(tokens), belongs)
    return loss
