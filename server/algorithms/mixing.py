"""How much each recommender counts, learned for every length of profile on lessons that none of them was fitted on.

A lesson is judged by nDCG@10 (Järvelin & Kekäläinen 2002) over everything on offer. Only what some part ranks high can reach
the head of a mixed list, so that each lesson keeps a short list and a thousand mixtures are tried in a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms.neighbourhood import ranked

Mask = NDArray[np.bool_]
TOP = 10
SHORT = 60
"""Kept for a lesson: so many of each part's best."""
ENOUGH = 100
"""Lessons from which on a length has weights of its own."""
SURE = 20
"""The even mixture counts like so many lessons: a few cases do not switch a part off."""
STEPS = (0.5, 0.25, 0.1, 0.05)
DECIMALS = 9
"""Scores are compared after rounding, as on a gateway."""
TINY = 1e-9


@dataclass(frozen=True)
class Shortlists:
    """lengths [B] of the profiles; scores [B, C, P] of each part for what may head a list; open [B, C]: what is no padding;
    wanted [B, C]; many [B]: how many were to be found."""

    lengths: NDArray[np.int64]
    scores: Floats
    open: Mask
    wanted: Mask
    many: NDArray[np.int64]

    def of(self, rows: NDArray[np.integer]) -> Shortlists:
        """Some of the lessons."""
        return Shortlists(self.lengths[rows], self.scores[rows], self.open[rows], self.wanted[rows], self.many[rows])

    def gains(self, weights: Floats) -> Floats:
        """nDCG@10 of each lesson [B] under weights [P]; what scores zero or less is not offered, ties by place."""
        total = np.round(self.scores @ weights, DECIMALS)
        places = ranked(np.where(self.open & (total > TINY), total, -np.inf), TOP)
        hits = np.take_along_axis(self.wanted, np.maximum(places, 0), axis=1) & (places >= 0)
        gain = 1 / np.log2(np.arange(TOP) + 2)
        best = np.cumsum(gain)[np.minimum(self.many, TOP) - 1]
        return np.asarray((hits * gain[: hits.shape[1]]).sum(axis=1) / best)


def shortlists(parts: list[Floats], wanted: sparse.csr_matrix, closed: Mask, lengths: NDArray[np.int64]) -> Shortlists:
    """From every part's scores [B, n]; closed [B, n]: what may not be shown. Lessons that want nothing on offer go."""
    ids = np.concatenate([ranked(np.where(closed | (part <= 0), -np.inf, part), SHORT) for part in parts], axis=1)
    ids.sort(axis=1)
    open_ = ids >= 0
    open_[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    ids = np.maximum(ids, 0)
    right = np.asarray(wanted.toarray() > 0) & ~closed
    many = right.sum(axis=1)
    scores = np.stack([np.take_along_axis(np.asarray(part, dtype=np.float64), ids, axis=1) for part in parts], axis=2)
    made = Shortlists(lengths, scores, open_, np.take_along_axis(right, ids, axis=1), many)
    return made.of(np.flatnonzero(many > 0))


def joined(lists: list[Shortlists]) -> Shortlists:
    """One after the other; shorter ones are padded."""
    width = max((one.open.shape[1] for one in lists), default=0)

    def wide(array: NDArray[np.generic]) -> NDArray[np.generic]:
        missing = [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(array, missing)

    return Shortlists(
        np.concatenate([one.lengths for one in lists]),
        np.concatenate([np.asarray(wide(one.scores), dtype=np.float64) for one in lists]),
        np.concatenate([np.asarray(wide(one.open), dtype=bool) for one in lists]),
        np.concatenate([np.asarray(wide(one.wanted), dtype=bool) for one in lists]),
        np.concatenate([one.many for one in lists]),
    )


def learn_mix(lists: Shortlists, lengths: tuple[int, ...], least: Floats) -> tuple[Floats, Floats]:
    """(weights, scale) [k, P]. A length with too few lessons takes those of the nearest one that has enough, or of all
    lessons together. least [P]: what a part that says anything counts at least."""
    if not len(lists.many):
        raise Refused(Reason.NOT_ELIGIBLE, "no lesson to learn weights from: more histories or cases are needed")
    bucket = np.searchsorted(lengths, lists.lengths, side="right") - 1
    known = [b for b in range(len(lengths)) if (bucket == b).sum() >= ENOUGH]
    rows = {b: np.flatnonzero(bucket == b) for b in known} or {0: np.arange(len(bucket))}
    found = {b: learned(lists.of(some), least) for b, some in rows.items()}
    near = [min(found, key=lambda k: (abs(k - b), -k)) for b in range(len(lengths))]
    return np.stack([found[b][0] for b in near]), np.stack([found[b][1] for b in near])


def learned(lists: Shortlists, least: Floats) -> tuple[Floats, Floats]:
    """(weights [P], adding up to 1; scale [P]) of these lessons together."""
    scale = sizes(lists)
    sized = Shortlists(lists.lengths, lists.scores / scale, lists.open, lists.wanted, lists.many)
    says = speaking(lists)
    even = says / max(says.sum(), 1)
    count = len(lists.many)
    weights = np.maximum((count * best_mix(sized) + SURE * even) / (count + SURE), np.where(says, least, 0.0))
    return weights / weights.sum(), scale


def sizes(lists: Shortlists) -> Floats:
    """Mean over lessons of each part's best score [P]; 1 for a part that says nothing."""
    best = np.where(lists.open[:, :, None], lists.scores, 0.0).max(axis=1, initial=0.0)
    count = (best > 0).sum(axis=0)
    mean = best.sum(axis=0) / np.maximum(count, 1)
    return np.asarray(np.where(mean > TINY, mean, 1.0))


def speaking(lists: Shortlists) -> Mask:
    """Parts that give anything a score above zero [P]."""
    return np.asarray((lists.scores * lists.open[:, :, None] > 0).any(axis=(0, 1)))


def best_mix(lists: Shortlists) -> Floats:
    """Weights [P] that add up to 1 and give the best mean nDCG@10: from all parts alike and from every one alone, towards one
    part after the other in ever smaller steps, as long as it gets better. Of equals the evener one stays."""
    alone = np.eye(lists.scores.shape[2])
    starts = [alone[p] for p in np.flatnonzero(speaking(lists))] or [alone[0]]
    known: dict[tuple[float, ...], float] = {}

    def worth(weights: Floats) -> float:
        key = tuple(np.round(weights, 4))
        if key not in known:
            known[key] = round(float(lists.gains(weights).mean()), DECIMALS)
        return known[key]

    best = max([np.mean(starts, axis=0), *starts], key=worth)
    for step in STEPS:
        for _ in range(8):
            better = max([(1 - step) * best + step * start for start in starts], key=worth)
            if worth(better) <= worth(best):
                break
            best = better
    return np.asarray(best)
