"""Distributions of counts in plain numpy: negative binomial, optionally with extra zeros; probabilities and quantiles.

`mean` and `size` are those of the negative binomial (variance = mean + mean² / size; size -> infinity is Poisson); `zero`
is the extra share of zeros, so that the mean of the whole is (1 - zero) * mean. Everything broadcasts. Quantiles are
counts (whole numbers): the smallest n with P(count <= n) >= level. Above a mean of LARGEST_EXACT they are scaled from a
smaller mean of the same relative deviation, which is right to a thousandth of the mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadMessage, Reason

Floats = NDArray[np.float64]
LARGEST_EXACT = 20_000.0
LARGEST_SIZE = 1e6
_SMALLEST = 1e-9
_CELLS = 2_000_000
_SCALED = 5_000.0


def log_pmf(upto: int, mean: Floats, size: Floats) -> Floats:
    """Log probabilities of 0..upto under the negative binomial, [..., upto + 1], by its recurrence, which needs no gamma
    function and does not underflow."""
    m, k = np.broadcast_arrays(np.maximum(mean, _SMALLEST), np.clip(size, _SMALLEST, LARGEST_SIZE))
    n = np.arange(1, upto + 1, dtype=np.float64)
    ratio = np.log(n - 1 + k[..., None]) - np.log(n) + (np.log(m) - np.log(m + k))[..., None]
    first = -k * np.log1p(m / k)
    return np.asarray(np.concatenate([np.zeros((*m.shape, 1)), np.cumsum(ratio, axis=-1)], axis=-1) + first[..., None])


def pmf(upto: int, mean: Floats, size: Floats, zero: Floats | float = 0.0) -> Floats:
    """Probabilities of 0..upto: [..., upto + 1]."""
    extra = np.asarray(zero, dtype=np.float64)[..., None]
    found = (1 - extra) * np.exp(log_pmf(upto, mean, size))
    found[..., 0] += np.broadcast_to(extra[..., 0], found.shape[:-1])
    return np.asarray(found)


def cdf(upto: int, mean: Floats, size: Floats, zero: Floats | float = 0.0) -> Floats:
    """P(count <= n) for n = 0..upto: [..., upto + 1]."""
    return np.asarray(np.minimum(np.cumsum(pmf(upto, mean, size, zero), axis=-1), 1.0))


def chance_of_none(mean: Floats, size: Floats, zero: Floats | float = 0.0) -> Floats:
    """P(count = 0)."""
    k = np.clip(size, _SMALLEST, LARGEST_SIZE)
    return np.asarray(zero + (1 - np.asarray(zero)) * np.exp(-k * np.log1p(np.maximum(mean, 0.0) / k)))


def quantile(level: float, mean: Floats, size: Floats, zero: Floats | float = 0.0) -> Floats:
    """Smallest whole n with P(count <= n) >= level, in the shape of mean, size and zero together; NaN where one of them
    is NaN. Raises BadMessage for a level outside of (0, 1)."""
    if not 0.0 < level < 1.0:
        raise BadMessage(Reason.WRONG_TYPE, f"quantile level {level}: give one between 0 and 1")
    m, k, extra = np.broadcast_arrays(
        np.asarray(mean, dtype=np.float64), np.asarray(size, dtype=np.float64), np.asarray(zero, dtype=np.float64)
    )
    shape, m, k, extra = m.shape, m.ravel(), np.clip(k.ravel(), _SMALLEST, LARGEST_SIZE), extra.ravel()
    answer = np.full(m.shape, np.nan)
    known = np.isfinite(m) & np.isfinite(k) & np.isfinite(extra)
    wanted = np.where(known, (level - extra) / np.maximum(1 - extra, _SMALLEST), 0.0)
    answer[known & ((m <= 0) | (wanted <= 0))] = 0.0
    large = known & (m > LARGEST_EXACT) & (wanted > 0)
    answer[large] = _scaled_quantile(wanted[large], m[large], k[large])
    todo = np.flatnonzero(known & (m > 0) & ~large & (wanted > 0))
    upto = np.maximum(8.0, m[todo] + 6 * np.sqrt(m[todo] + m[todo] ** 2 / k[todo]))
    reach = np.full(m.shape, 0, dtype=np.int64)
    reach[todo] = 2 ** np.ceil(np.log2(np.minimum(upto, 8 * LARGEST_EXACT))).astype(np.int64)
    while len(todo):
        most = int(reach[todo].min())
        rows = todo[reach[todo] == most][: max(_CELLS // most, 1)]
        below = cdf(most, m[rows], k[rows]) >= np.minimum(wanted[rows], 1 - 1e-12)[:, None]
        found = below[:, -1] | (most >= 2**22)
        answer[rows[found]] = np.where(below[found, -1], below[found].argmax(axis=1), most)
        reach[rows[~found]] *= 4
        todo = todo[np.isnan(answer[todo])]
    return answer.reshape(shape)


def size_of(mean: Floats, variance: Floats) -> Floats:
    """The size of the negative binomial with this mean and variance; Poisson where the variance is not larger."""
    over = np.asarray(variance, dtype=np.float64) - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(
            np.where(over > 0, np.minimum(mean**2 / np.maximum(over, 1e-300), LARGEST_SIZE), LARGEST_SIZE)
        )


def _scaled_quantile(level: Floats, mean: Floats, size: Floats) -> Floats:
    """A large count is its mean times what is left of it at a mean of _SCALED, with the same relative deviation; where
    that is less than Poisson's there, it is normal."""
    inverse = 1 / mean + 1 / size - 1 / _SCALED
    narrow = np.ceil(mean + _normal_quantile(level) * np.sqrt(mean + mean**2 / size))
    wide = np.array(
        [
            float(quantile(float(p), np.array(_SCALED), np.array(1 / max(i, 1e-12)))) * m / _SCALED if i > 0 else 0.0
            for p, m, i in zip(level, mean, inverse, strict=True)
        ]
    )
    return np.where(inverse > 0, np.ceil(wide), narrow)


def _normal_quantile(level: Floats) -> Floats:
    """Abramowitz & Stegun 26.2.23: off by less than 4.5e-4."""
    tail = np.minimum(level, 1 - level)
    t = np.sqrt(-2 * np.log(np.maximum(tail, 1e-300)))
    z = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    return np.asarray(np.where(level < 0.5, -z, z))
