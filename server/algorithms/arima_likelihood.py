"""The exact Gaussian likelihood of a seasonal ARMA, compiled, and its maximum in a few least-squares steps.

- Stationary and invertible by construction: parameters are partial autocorrelations (Jones 1980, Technometrics 22).
- Innovations by the Chandrasekhar recursion (Morf, Sidhu & Kailath 1974; Herbst 2015): O(states) per observation, and
  a constant gain once it has converged. A series with gaps takes the full covariance recursion, O(states^2).
- Constant, drift and regressors are concentrated out by generalized least squares through the same filter.
- The likelihood is a sum of squares (Ansley 1979, Biometrika 66: innovations times the geometric mean of their
  variances), so Levenberg-Marquardt maximizes it in about ten iterations of a numeric Jacobian.

Polynomials: w[t] = phi[0] w[t-1] + ... + e[t] + theta[0] e[t-1] + ..., both expanded over the season."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from protocol.windows import Floats

_Function = TypeVar("_Function", bound=Callable[..., Any])
STEEPEST = 6.0
"""Largest parameter before the transform: a partial autocorrelation of 0.986 (u / sqrt(1 + u^2))."""


def compiled(function: _Function) -> _Function:
    """njit with its cache on disk, or without where nothing may be written."""
    try:
        return cast(_Function, njit(cache=True)(function))
    except RuntimeError:  # no writable place for the cache
        return cast(_Function, njit(function))


@compiled
def coefficients(raw: Floats) -> Floats:
    """Coefficients of a stationary autoregression from unbounded parameters (Durbin-Levinson steps)."""
    n = len(raw)
    phi = np.zeros(n)
    before = np.zeros(n)
    for k in range(n):
        r = raw[k] / np.sqrt(1.0 + raw[k] * raw[k])
        for i in range(k):
            before[i] = phi[i]
        for i in range(k):
            phi[i] = before[i] - r * before[k - 1 - i]
        phi[k] = r
    return phi


@compiled
def is_stationary(phi: Floats, margin: float) -> bool:
    """Whether every root of 1 - phi[0] B - ... lies outside of the circle of radius `margin` (step-down test)."""
    n = len(phi)
    a = np.zeros(n)
    power = 1.0
    for i in range(n):
        power *= margin
        a[i] = phi[i] * power
    before = np.zeros(n)
    for k in range(n - 1, -1, -1):
        r = a[k]
        if abs(r) >= 1.0:
            return False
        for i in range(k):
            before[i] = a[i]
        for i in range(k):
            a[i] = (before[i] + r * before[k - 1 - i]) / (1.0 - r * r)
    return True


@compiled
def expanded(short: Floats, seasonal: Floats, season: int) -> Floats:
    """Coefficients of (1 - short(B)) (1 - seasonal(B^season)), as 1 - result(B)."""
    p, s = len(short), len(seasonal)
    full = np.zeros(p + s * season)
    for i in range(p):
        full[i] += short[i]
    for j in range(s):
        full[(j + 1) * season - 1] += seasonal[j]
        for i in range(p):
            full[(j + 1) * season + i] -= seasonal[j] * short[i]
    return full


@compiled
def polynomials(raw: Floats, shape: tuple[int, int, int, int], season: int) -> tuple[Floats, Floats]:
    """(phi, theta), expanded, of parameters ordered p, q, P, Q."""
    p, q, sp, sq = shape
    phi = expanded(coefficients(raw[:p]), coefficients(raw[p + q : p + q + sp]), season)
    theta = -expanded(coefficients(raw[p : p + q]), coefficients(raw[p + q + sp : p + q + sp + sq]), season)
    return phi, theta


@compiled
def _solve(a: Floats, b: Floats) -> Floats:
    """Gaussian elimination with pivoting; a and b are spent. A vanishing pivot is taken as tiny."""
    n = len(b)
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[best, k]):
                best = i
        if best != k:
            for j in range(n):
                a[k, j], a[best, j] = a[best, j], a[k, j]
            b[k], b[best] = b[best], b[k]
        pivot = a[k, k]
        if abs(pivot) < 1e-300:
            pivot = 1e-300
            a[k, k] = pivot
        for i in range(k + 1, n):
            f = a[i, k] / pivot
            if f != 0.0:
                for j in range(k, n):
                    a[i, j] -= f * a[k, j]
                b[i] -= f * b[k]
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            b[k] -= a[k, j] * b[j]
        b[k] /= a[k, k]
    return b


@compiled
def _first_column(phi: Floats, theta: Floats, r: int) -> Floats:
    """Covariance of the r states (Harvey's form) with the first of them, before anything was seen; noise variance 1."""
    p, q = len(phi), len(theta)
    psi = np.zeros(r + 1)
    psi[0] = 1.0
    for j in range(1, r + 1):
        total = theta[j - 1] if j <= q else 0.0
        for i in range(1, min(j, p) + 1):
            total += phi[i - 1] * psi[j - i]
        psi[j] = total
    a = np.zeros((p + 1, p + 1))
    b = np.zeros(p + 1)
    for k in range(p + 1):
        a[k, k] += 1.0
        for j in range(1, p + 1):
            a[k, abs(k - j)] -= phi[j - 1]
        for j in range(k, q + 1):
            b[k] += (theta[j - 1] if j > 0 else 1.0) * psi[j - k]
    known = _solve(a, b)
    gamma = np.zeros(r + 1)
    for k in range(r + 1):
        if k <= p:
            gamma[k] = known[k]
        else:
            total = 0.0
            for j in range(1, p + 1):
                total += phi[j - 1] * gamma[k - j]
            for j in range(k, q + 1):
                total += theta[j - 1] * psi[j - k]
            gamma[k] = total
    column = np.zeros(r)
    for i in range(r):
        total = 0.0
        for j in range(i, p):
            total += phi[j] * gamma[j - i + 1]
        for j in range(i, q + 1):
            total += (theta[j - 1] if j > 0 else 1.0) * psi[j - i]
        column[i] = total
    return column


@compiled
def _full_covariance(phi: Floats, noise: Floats) -> Floats:
    """Stationary covariance of the states by doubling (Anderson & Moore 1979, section 6.7)."""
    r = len(noise)
    t = np.zeros((r, r))
    for i in range(r):
        if i < len(phi):
            t[i, 0] = phi[i]
        if i + 1 < r:
            t[i, i + 1] = 1.0
    p = np.outer(noise, noise)
    for _ in range(40):
        step = t @ p @ t.T
        p = p + step
        if np.abs(step).max() <= 1e-13 * np.abs(p).max():
            break
        t = t @ t
    return p


@compiled
def _filtered_gaps(w: Floats, seen: Any, phi: Floats, theta: Floats, out: Floats) -> tuple[float, int, Floats, Floats]:
    n, c = w.shape
    p, q = len(phi), len(theta)
    r = max(p, q + 1)
    noise = np.zeros(r)
    noise[0] = 1.0
    noise[1 : q + 1] = theta
    cov = _full_covariance(phi, noise)
    a = np.zeros((r, c))
    gain = np.zeros(r)
    moved = np.zeros((r, r))
    logs, count = 0.0, 0
    for t in range(n):
        if seen[t]:
            f = max(cov[0, 0], 1e-300)
            logs += np.log(f)
            count += 1
            for i in range(r):
                gain[i] = cov[i, 0] / f
            for k in range(c):
                v = w[t, k] - a[0, k]
                out[t, k] = v / np.sqrt(f)
                for i in range(r):
                    a[i, k] += gain[i] * v
            for i in range(r):
                for j in range(i + 1):
                    cov[i, j] -= gain[i] * gain[j] * f
                    cov[j, i] = cov[i, j]
        else:
            for k in range(c):
                out[t, k] = 0.0
        for k in range(c):
            first = a[0, k]
            for i in range(r):
                a[i, k] = (a[i + 1, k] if i + 1 < r else 0.0) + (phi[i] * first if i < p else 0.0)
        for i in range(r):
            f = phi[i] if i < p else 0.0
            for j in range(r):
                moved[i, j] = (cov[i + 1, j] if i + 1 < r else 0.0) + f * cov[0, j]
        for j in range(r):
            f = phi[j] if j < p else 0.0
            for i in range(r):
                cov[i, j] = (moved[i, j + 1] if j + 1 < r else 0.0) + f * moved[i, 0] + noise[i] * noise[j]
    return logs, count, a, cov


@compiled
def _filtered(w: Floats, phi: Floats, theta: Floats, out: Floats) -> tuple[float, Floats]:
    """Standardized innovations of each column of w [n, c] into out [n, c]; (sum of log variances, states [r, c] for
    the step after the last)."""
    n, c = w.shape
    p, q = len(phi), len(theta)
    r = max(p, q + 1)
    column = _first_column(phi, theta, r)
    f = max(column[0], 1e-300)
    coef = np.zeros(r)
    coef[:p] = phi
    gain = np.zeros(r)  # transition @ covariance @ design, not yet divided by f
    for i in range(r):
        gain[i] = coef[i] * column[0] + (column[i + 1] if i + 1 < r else 0.0)
    low = gain.copy()
    m = -1.0 / f
    a = np.zeros((r, c))
    logs = 0.0
    t = 0
    while t < n:
        logs += np.log(f)
        root = np.sqrt(f)
        for k in range(c):
            first = a[0, k]
            v = w[t, k] - first
            out[t, k] = v / root
            v /= f
            for i in range(r - 1):
                a[i, k] = a[i + 1, k] + coef[i] * first + gain[i] * v
            a[r - 1, k] = coef[r - 1] * first + gain[r - 1] * v
        t += 1
        head = low[0]
        largest = 0.0
        for i in range(r):
            largest = max(largest, abs(low[i]))
        if abs(m) * largest * largest < 1e-13 * f:
            break
        step = m * head
        old = f
        f = max(f + step * head, 1e-300)
        for i in range(r):
            gain[i] += step * (coef[i] * head + (low[i + 1] if i + 1 < r else 0.0))
        m += step * step / old
        for i in range(r):
            low[i] = coef[i] * head + (low[i + 1] if i + 1 < r else 0.0) - gain[i] / f * head
    if t < n:
        logs += (n - t) * np.log(f)
        root = np.sqrt(f)
        for i in range(r):
            gain[i] /= f
        for k in range(c):
            state = a[:, k].copy()
            for u in range(t, n):
                first = state[0]
                v = w[u, k] - first
                out[u, k] = v / root
                for i in range(r - 1):
                    state[i] = state[i + 1] + coef[i] * first + gain[i] * v
                state[r - 1] = coef[r - 1] * first + gain[r - 1] * v
            a[:, k] = state
    return logs, a


@compiled
def _least_squares(v: Floats) -> Floats:
    """Coefficients of the first column on the others."""
    c = v.shape[1] - 1
    a = np.zeros((c, c))
    b = np.zeros(c)
    for i in range(c):
        for t in range(len(v)):
            b[i] += v[t, i + 1] * v[t, 0]
        for j in range(i + 1):
            total = 0.0
            for t in range(len(v)):
                total += v[t, i + 1] * v[t, j + 1]
            a[i, j] = total
            a[j, i] = total
        a[i, i] += 1e-12 * a[i, i] + 1e-300
    return _solve(a, b)


@compiled
def _residuals(
    w: Floats, seen: Any, gaps: bool, raw: Floats, shape: tuple[int, int, int, int], season: int, out: Floats
) -> tuple[Floats, float]:
    """(Ansley's residuals [n], their sum of squares). `out` [n, c] is room to work in."""
    phi, theta = polynomials(raw, shape, season)
    if gaps:
        logs, count, _, _ = _filtered_gaps(w, seen, phi, theta, out)
    else:
        logs, _ = _filtered(w, phi, theta, out)
        count = len(w)
    e = out[:, 0].copy()
    if w.shape[1] > 1:
        beta = _least_squares(out)
        for j in range(len(beta)):
            for t in range(len(e)):
                e[t] -= beta[j] * out[t, j + 1]
    grown = np.exp(logs / (2.0 * max(count, 1)))
    total = 0.0
    for t in range(len(e)):
        e[t] *= grown
        total += e[t] * e[t]
    return e, total


@compiled
def maximized(
    w: Floats, seen: Any, gaps: bool, start: Floats, shape: tuple[int, int, int, int], season: int, most: int
) -> tuple[Floats, float]:
    """Parameters of the largest likelihood, from `start`, and Ansley's sum of squares there (n times the concentrated
    variance times the geometric mean of the innovations' variances)."""
    k, n = len(start), len(w)
    raw = start.copy()
    out = np.zeros(w.shape)
    e, total = _residuals(w, seen, gaps, raw, shape, season, out)
    jacobian = np.zeros((n, k))
    damping = 1e-3
    for _ in range(most if k else 0):
        for j in range(k):
            step = 1e-5 if raw[j] <= 0 else -1e-5
            moved = raw.copy()
            moved[j] += step
            shifted, _ = _residuals(w, seen, gaps, moved, shape, season, out)
            for t in range(n):
                jacobian[t, j] = (shifted[t] - e[t]) / step
        normal = np.zeros((k, k))
        slope = np.zeros(k)
        for i in range(k):
            for t in range(n):
                slope[i] -= jacobian[t, i] * e[t]
            for j in range(i + 1):
                product = 0.0
                for t in range(n):
                    product += jacobian[t, i] * jacobian[t, j]
                normal[i, j] = product
                normal[j, i] = product
        better = False
        fallen = 0.0
        for _ in range(8):
            damped = normal.copy()
            for i in range(k):
                damped[i, i] += damping * normal[i, i] + 1e-10 * total / n
            step_to = _solve(damped, slope.copy())
            trial = np.minimum(np.maximum(raw + step_to, -STEEPEST), STEEPEST)
            tried, value = _residuals(w, seen, gaps, trial, shape, season, out)
            if value < total:
                fallen = total - value
                raw, e, total = trial, tried, value
                damping = max(damping * 0.2, 1e-9)
                better = True
                break
            damping = min(damping * 6.0, 1e9)
        if not better or fallen < 1e-7 * total:
            break
    return raw, total


@compiled
def settled(w: Floats, seen: Any, gaps: bool, phi: Floats, theta: Floats) -> tuple[Floats, float, float, Floats]:
    """At given polynomials: (regression coefficients [c - 1], noise variance, log likelihood, states [r] of what the
    regression leaves, for the step after the last)."""
    out = np.zeros(w.shape)
    if gaps:
        logs, count, a, _ = _filtered_gaps(w, seen, phi, theta, out)
    else:
        logs, a = _filtered(w, phi, theta, out)
        count = len(w)
    e = out[:, 0].copy()
    state = a[:, 0].copy()
    beta = np.zeros(w.shape[1] - 1)
    if w.shape[1] > 1:
        beta = _least_squares(out)
        for j in range(len(beta)):
            e -= beta[j] * out[:, j + 1]
            state -= beta[j] * a[:, j + 1]
    count = max(count, 1)
    variance = max(float(np.sum(e * e)) / count, 1e-300)
    likelihood = -0.5 * count * (np.log(2.0 * np.pi * variance) + 1.0) - 0.5 * logs
    return beta, variance, likelihood, state
