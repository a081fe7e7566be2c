"""Models that need no inference engine: what their tables mean, in numpy, for the parity check at export and for the
gateway alike. State-space tables are float64 and never quantized; neighbour weights are int8 with one scale a row."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.windows import Floats, day_harmonics

Tables = dict[str, NDArray[np.generic]]


def _table(tables: Tables, name: str, kind: str, shape: tuple[int | None, ...]) -> NDArray[np.generic]:
    array = tables.get(name)
    if array is None:
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} is missing")
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind not in kind or not fits:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"table {name!r} is {array.dtype}{array.shape}; expected kind {kind} shape {shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} holds NaN or infinity")
    return array


class StateSpace:
    """S linear Gaussian models of k states, updated together (Durbin & Koopman 2012, ch. 4; Harvey's form).

        y[t] = x[t] @ beta + design @ a[t] + e,   e ~ N(0, obs_var)
        a[t+1] = transition @ a[t] + w,           w ~ N(0, state_cov)

    y is the signal after (value - center) / scale; x[t] are `day_harmonics` of the bucket's start. `a`, `p` are the
    predicted state and covariance for the next bucket. Tables, all float64: transition [S,k,k], design [S,k],
    state_cov [S,k,k], obs_var [S], state [S,k], cov [S,k,k], beta [S,1+2K], center [S], scale [S]."""

    def __init__(self, tables: Tables) -> None:
        self.design = np.asarray(_table(tables, "design", "f", (None, None)), dtype=np.float64)
        s, k = self.design.shape
        self.transition = np.asarray(_table(tables, "transition", "f", (s, k, k)), dtype=np.float64)
        self.state_cov = np.asarray(_table(tables, "state_cov", "f", (s, k, k)), dtype=np.float64)
        self.obs_var = np.asarray(_table(tables, "obs_var", "f", (s,)), dtype=np.float64)
        self.beta = np.asarray(_table(tables, "beta", "f", (s, None)), dtype=np.float64)
        self.center = np.asarray(_table(tables, "center", "f", (s,)), dtype=np.float64)
        self.scale = np.asarray(_table(tables, "scale", "f", (s,)), dtype=np.float64)
        self.a = np.array(_table(tables, "state", "f", (s, k)), dtype=np.float64)
        self.p = np.array(_table(tables, "cov", "f", (s, k, k)), dtype=np.float64)
        if not (self.scale > 0).all() or self.beta.shape[1] % 2 == 0:
            raise BadBundle(Reason.BAD_ARCHIVE, "scale must be positive and beta have 1 + 2K columns")
        self.harmonics = (self.beta.shape[1] - 1) // 2

    def __len__(self) -> int:
        return len(self.design)

    def _known(self, time_ms: int, step_ms: int, steps: int) -> Floats:
        """Deterministic part at `steps` buckets from time_ms: [S, steps]."""
        x = day_harmonics(time_ms + step_ms * np.arange(steps, dtype=np.int64), self.harmonics)
        return np.asarray(self.beta @ x.T, dtype=np.float64)

    def step(self, values: Floats, time_ms: int) -> tuple[Floats, Floats]:
        """Takes one bucket's values [S] (NaN: missing), which starts at time_ms. Returns the innovation in units of
        its own standard deviation [S] (NaN where missing) and that standard deviation in the signal's unit [S]."""
        known = self._known(time_ms, 1, 1)[:, 0]
        y = (values - self.center) / self.scale - known
        seen = ~np.isnan(y)
        pz = np.einsum("sij,sj->si", self.p, self.design)
        variance = np.einsum("si,si->s", self.design, pz) + self.obs_var
        variance = np.maximum(variance, 1e-300)
        innovation = np.where(seen, y - np.einsum("si,si->s", self.design, self.a), 0.0)
        gain = np.where(seen[:, None], pz / variance[:, None], 0.0)
        a = self.a + gain * innovation[:, None]
        p = self.p - gain[:, :, None] * pz[:, None, :]
        self.a = np.einsum("sij,sj->si", self.transition, a)
        self.p = self.transition @ p @ self.transition.transpose(0, 2, 1) + self.state_cov
        deviation = np.sqrt(variance)
        return np.where(seen, innovation / deviation, np.nan), deviation * self.scale

    def forecast(self, start_ms: int, step_ms: int, horizon: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the next `horizon` buckets, the first of which starts at start_ms:
        [S, horizon] each, in the signal's unit. Does not move the state."""
        known = self._known(start_ms, step_ms, horizon)
        a, p = self.a, self.p
        mean = np.empty((len(self), horizon))
        variance = np.empty((len(self), horizon))
        for h in range(horizon):
            mean[:, h] = np.einsum("si,si->s", self.design, a)
            variance[:, h] = np.einsum("si,sij,sj->s", self.design, p, self.design) + self.obs_var
            a = np.einsum("sij,sj->si", self.transition, a)
            p = self.transition @ p @ self.transition.transpose(0, 2, 1) + self.state_cov
        return (mean + known) * self.scale[:, None] + self.center[:, None], np.sqrt(
            np.maximum(variance, 0)
        ) * self.scale[:, None]


class Scored(msgspec.Struct, frozen=True):
    """One ranked item; contributions are exact and sum to the score."""

    item: str
    score: float
    contributions: list[tuple[str, float]]


class Neighbours:
    """Item-based collaborative filtering at the edge (Sarwar et al. 2001; shrinkage as in Bell & Koren 2007).

    items: names, id = index. Tables: indptr int32 [n+1]; ids uint16/uint32 [nnz], neighbours of item j are
    ids[indptr[j]:indptr[j+1]]; weights int8 [nnz]; row_scale float32 [n]. Similarity(j, i) = weights * row_scale[j].
    The score of i for a profile {j: strength} is the sum over j of strength_j * similarity(j, i)."""

    def __init__(self, items: list[str], tables: Tables) -> None:
        n = len(items)
        self.items = items
        self.index = {name: i for i, name in enumerate(items)}
        self.indptr = np.asarray(_table(tables, "indptr", "iu", (n + 1,)), dtype=np.int64)
        self.ids = np.asarray(_table(tables, "ids", "iu", (None,)), dtype=np.int64)
        self.weights = np.asarray(_table(tables, "weights", "i", (len(self.ids),)), dtype=np.float64)
        self.row_scale = np.asarray(_table(tables, "row_scale", "f", (n,)), dtype=np.float64)
        if len(self.index) != n:
            raise BadBundle(Reason.BAD_ARCHIVE, "item names are not unique")
        sound = self.indptr[0] == 0 and self.indptr[-1] == len(self.ids) and bool((np.diff(self.indptr) >= 0).all())
        if not sound or (len(self.ids) and int(self.ids.max()) >= n):
            raise BadBundle(Reason.BAD_ARCHIVE, "neighbour lists point outside the table")

    def rank(self, profile: dict[str, float], top: int, prefixes: tuple[str, ...] = ()) -> list[Scored]:
        """The best `top` items whose names start with one of `prefixes` and that are not in the profile, by
        (score descending, id ascending), so that every runtime gives the same list. Scores <= 0 are not offered.
        Profile names the table does not know are ignored."""
        score = np.zeros(len(self.items))
        known = [(self.index[name], strength) for name, strength in profile.items() if name in self.index]
        for j, strength in known:
            row = slice(self.indptr[j], self.indptr[j + 1])
            np.add.at(score, self.ids[row], strength * self.weights[row] * self.row_scale[j])
        order = np.lexsort((np.arange(len(score)), -np.round(score, 9)))
        ranked: list[Scored] = []
        for i in order:
            if len(ranked) == top or score[i] <= 0:
                break
            name = self.items[i]
            if name in profile or (prefixes and not name.startswith(prefixes)):
                continue
            ranked.append(Scored(name, float(score[i]), self._contributions(int(i), known)))
        return ranked

    def _contributions(self, item: int, known: list[tuple[int, float]]) -> list[tuple[str, float]]:
        parts: list[tuple[str, float]] = []
        for j, strength in known:
            row = slice(self.indptr[j], self.indptr[j + 1])
            amount = float((self.weights[row] * (self.ids[row] == item)).sum() * strength * self.row_scale[j])
            if amount:
                parts.append((self.items[j], amount))
        return sorted(parts, key=lambda part: (-abs(part[1]), part[0]))
