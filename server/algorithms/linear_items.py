"""Linear item models in closed form: every item is predicted from all others, and never from itself.

EASE (Steck 2019), and its denoising form EDLAE (Steck 2020), where the penalty of an item grows with its popularity as
dropout would make it. With G = X'X + diag(penalty) and P = inv(G), the weights are B = I - P / diag(P). Where there are
fewer users than items the same P comes from a users x users system (Woodbury): P = L - L X' inv(I + X L X') X L with
L = 1 / diag(penalty), so that 610 users and 10,000 items take milliseconds. A user's row may count by length^-user_power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms.interactions import Interactions, profile_row

BLOCK = 500


@dataclass(frozen=True)
class LinearSettings:
    """penalty: EASE's lambda. dropout in [0, 1): share of entries that training would hide (0: EASE). user_power: a user
    of n items counts n^-user_power in the fit. damping: an item's score counts popularity^-damping."""

    penalty: float = 300.0
    dropout: float = 0.0
    user_power: float = 0.0
    damping: float = 0.0


@dataclass(frozen=True)
class LinearItems:
    """score(x) = share * (x - x P / diag(P)), where x P = x * direct - (x seen') solved. seen [U, I] and solved [U, I] in
    the users' form; in the items' form seen is the identity, and solved = -P + diag(direct)."""

    items: list[str]
    direct: Floats
    seen: sparse.csr_matrix | None
    solved: Floats
    diagonal: Floats
    share: Floats

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for {item: strength} [I]."""
        return np.asarray(self.score_rows(profile_row(self.items, profile))[0], dtype=np.float64)

    def score_rows(self, rows: sparse.csr_matrix) -> Floats:
        """Every item's score for each profile: [B, I] -> [B, I]."""
        rows = sparse.csr_matrix(rows, dtype=np.float64)
        own = rows.toarray()
        through = own if self.seen is None else (rows @ self.seen.T).toarray()
        scores = through @ self.solved  # the inverse's part off the penalty, negated
        scores += own * (self.diagonal - self.direct)
        scores *= self.share / self.diagonal
        return np.asarray(scores, dtype=np.float64)

    def strongest(self, most: int) -> sparse.csr_matrix:
        """The weights as a table [I, I] float32: row j holds the `most` strongest that item j gives, block by block."""
        made = []
        for start in range(0, len(self.items), BLOCK):
            ids = np.arange(start, min(start + BLOCK, len(self.items)))
            one = sparse.csr_matrix((np.ones(len(ids)), (np.arange(len(ids)), ids)), shape=(len(ids), len(self.items)))
            block = self.score_rows(one)
            block[np.arange(len(ids)), ids] = 0.0
            order = np.argsort(-np.abs(block), axis=1, kind="stable")[:, :most]
            place = np.repeat(np.arange(len(ids)), order.shape[1])
            kept = np.take_along_axis(block, order, axis=1).ravel().astype(np.float32)
            made.append(sparse.csr_matrix((kept, (place, order.ravel())), shape=block.shape))
        return sparse.csr_matrix(sparse.vstack(made)) if made else sparse.csr_matrix((0, 0), dtype=np.float32)


def fit(events: Interactions, settings: LinearSettings) -> LinearItems:
    """Solves on the smaller side. O(min(U, I)^3) time, U x I or I x I numbers of memory."""
    if not (settings.penalty > 0 and 0 <= settings.dropout < 1):
        raise Refused(Reason.NOT_FINITE, f"{settings}: a penalty above 0 and a dropout in [0, 1) are needed")
    x = sparse.csr_matrix(events.matrix, dtype=np.float64)
    lengths = np.maximum(np.diff(x.indptr), 1)
    x = sparse.csr_matrix(sparse.diags(lengths ** (-settings.user_power / 2)) @ x)
    energy = np.asarray(x.multiply(x).sum(axis=0)).ravel()
    penalty = settings.penalty + settings.dropout / (1 - settings.dropout) * energy
    popularity = np.maximum(np.bincount(events.matrix.indices, minlength=len(events.items)), 1)
    share = popularity.astype(np.float64) ** -settings.damping
    if x.shape[0] < x.shape[1]:
        return _by_users(events.items, x, penalty, share)
    return _by_items(events.items, x, penalty, share)


def _by_users(items: list[str], x: sparse.csr_matrix, penalty: Floats, share: Floats) -> LinearItems:
    seen = sparse.csr_matrix(x @ sparse.diags(1 / penalty))
    gram = (seen @ x.T).toarray()
    gram[np.diag_indices_from(gram)] += 1.0
    solved = linalg.solve(gram, seen.toarray(), assume_a="pos") if len(gram) else np.zeros(x.shape)
    diagonal = 1 / penalty - np.asarray(seen.multiply(solved).sum(axis=0)).ravel()
    return LinearItems(items, 1 / penalty, seen, solved, diagonal, share)


def _by_items(items: list[str], x: sparse.csr_matrix, penalty: Floats, share: Floats) -> LinearItems:
    gram = (x.T @ x).toarray()
    gram[np.diag_indices_from(gram)] += penalty
    inverse = linalg.inv(gram, overwrite_a=True) if len(gram) else gram
    return LinearItems(items, np.zeros(len(items)), None, -inverse, np.diag(inverse).copy(), share)


def blended(parts: list[tuple[float, Floats]]) -> Floats:
    """Several models' scores [B, I] as one: each profile's scores are brought to one size, then weighed and added."""
    return np.asarray(sum(weight * scaled(scores) for weight, scores in parts), dtype=np.float64)


def scaled(scores: Floats) -> Floats:
    """Scores [B, I] of each profile over the root of their mean square; a profile without any stays 0."""
    size = np.sqrt(np.square(scores).mean(axis=1, keepdims=True))
    return np.asarray(scores / np.where(size > 0, size, 1), dtype=np.float64)
