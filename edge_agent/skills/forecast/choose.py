"""Which answer is shown for a signal, and how much each counts in the combination.

Before enough values were scored here, the passports decide (error of each series on held-out data, shares of a validated
combination); after that only what was measured here does. The reference has error 1 by definition and wins where nothing
is below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.skills import Key
from edge_agent.skills.forecast.answers import Answer, Slot
from protocol.windows import Floats

NEAR_THE_BEST = 1.5
"""Members of a combination are at most so much worse than the best one."""


def promised(slot: Slot, keys: Sequence[Key]) -> Floats:
    """The held-out error over the naive forecast's that the passport states [N]: the series' own where it has one, else the
    model's, else 1."""
    passport = slot.model.passport
    general = next((q.model for q in passport.quality if q.metric == "mae_relative_to_naive"), 1.0)
    mine = passport.series_error
    rows = [slot.rows.get(key, -1) for key in keys]
    return np.array([mine[row] if 0 <= row < len(mine) else general for row in rows])


def promised_shares(slots: Sequence[Slot], keys: Sequence[Key]) -> tuple[Floats, Floats]:
    """(shares [1 + M, N] of the reference and the slots in the validated combination, its error over the naive forecast's
    [N]); NaN where the passports state none, or the slots are not all of it."""
    shares = np.full((1 + len(slots), len(keys)), np.nan)
    error = np.full(len(keys), np.nan)
    for n, key in enumerate(keys):
        stated = [getattr(s.model.passport, "weights", {}).get("/".join(key)) for s in slots]
        given = [pair for pair in stated if pair]
        if not given:
            continue
        parts = [given[0][1], *(pair[0] if pair else 0.0 for pair in stated)]
        if abs(sum(parts) - 1.0) < 0.01:
            shares[:, n] = parts
            figures = [getattr(s.model.passport, "combined", None) for s in slots]
            error[n] = next((figure for figure in figures if figure is not None), np.nan)
    return shares, error


def shares(errors: Floats) -> Floats:
    """Shares [M, N] by the inverse square of errors [M, N] (NaN: not a member); columns add up to one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.nanmin(np.where(np.isnan(errors).all(axis=0), 1.0, errors), axis=0)
        power = np.where(errors <= NEAR_THE_BEST * best, np.maximum(errors, 1e-3) ** -2.0, 0.0)
    power = np.nan_to_num(power)
    return np.asarray(power / np.maximum(power.sum(axis=0), 1e-300))


def combine(answers: Sequence[Answer], errors: Floats, stated: Floats) -> tuple[Floats, Answer, NDArray[np.bool_]]:
    """The weighted mean of several answers, with shares as stated [M, N] where they are (no NaN) and all that count answer,
    else by errors [M, N]. Returns (shares [M, N], the answer with NaN rows where fewer than two count, whether its shares
    are the stated ones [N]). Its prior is the mean of the members': they are not taken for independent."""
    answerable = np.stack([answer.usable() for answer in answers])
    as_stated = np.isfinite(stated).all(axis=0)
    stated = np.nan_to_num(stated)
    as_stated &= (answerable | (stated == 0)).all(axis=0)
    given = np.where(as_stated, stated, shares(np.where(answerable, errors, np.nan)))
    several = (given > 0).sum(axis=0) > 1
    made = [np.zeros_like(answers[0].mean), np.zeros_like(answers[0].mean)]
    for share, answer in zip(given, answers, strict=True):
        rows = share > 0
        made[0][rows] += share[rows, None] * answer.mean[rows]
        made[1][rows] += share[rows, None] * answer.prior[rows]
    mean, prior = (np.where(several[:, None], part, np.nan) for part in made)
    return given, Answer(mean, prior), as_stated & several


def lowest(errors: dict[str, Floats], reference: str) -> list[str]:
    """The name with the lowest error for each signal, `reference` where nothing is below 1: errors name -> [N], NaN where
    there is no answer or nothing is known."""
    names = [reference, *errors]
    n = len(next(iter(errors.values()))) if errors else 0
    table = np.stack([np.ones(n), *(np.nan_to_num(e, nan=np.inf) for e in errors.values())])
    return [names[i] for i in table.argmin(axis=0)]
