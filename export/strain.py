"""Rows like those of a fault, made from held-out ones, and what a packed model's error is on them.

Ranges that were fixed on ordinary rows clip such rows without a word: at three times the amplitude a statically quantized
convolution was off by 1.45 of its answers' deviation, one with ranges found at run time by 0.02."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Numbers = NDArray[np.floating]
AMPLITUDE = 3.0


def strained_rows(x: Float32s) -> dict[str, Float32s]:
    """Rows [N, ...] whose last axis are channels, three times: with the amplitude, with a channel missing (zero; each row
    another one), and constant: a window [N, T, C] stays where it began, other rows are all the mean one."""
    missing = x.copy()
    for row in range(len(x)):
        missing[row, ..., row % x.shape[-1]] = 0.0
    steady = x[:, :1] if x.ndim > 2 else x.mean(axis=0, keepdims=True)
    return {
        f"{AMPLITUDE:g} times the amplitude": x * np.float32(AMPLITUDE),
        "a missing channel": missing,
        "constant input": np.ascontiguousarray(np.broadcast_to(steady, x.shape)),
    }


def strained_tokens(rows: Sequence[Sequence[int]], vocabulary: int) -> dict[str, list[list[int]]]:
    """Rows of token ids as no text has them: one token over and over, backwards, and drawn at random."""
    drawn = np.random.default_rng(0)
    return {
        "one repeated token": [[row[len(row) // 2]] * len(row) for row in rows],
        "tokens backwards": [list(reversed(row)) for row in rows],
        "tokens at random": [drawn.integers(0, vocabulary, len(row)).tolist() for row in rows],
    }


def strained_error(exact: Mapping[str, Numbers], packed: Mapping[str, Numbers], ordinary: Numbers) -> dict[str, float]:
    """Kind -> root mean square error of the packed answers, over the deviation of the float answers to such rows or to
    ordinary ones, whichever is greater: answers to constant rows hardly differ from one another."""
    usual = float(np.std(ordinary, dtype=np.float64))
    found = {}
    for kind, wanted in exact.items():
        gap = packed[kind].astype(np.float64) - wanted
        found[kind] = float(np.sqrt(np.mean(gap**2)) / max(float(np.std(wanted, dtype=np.float64)), usual, 1e-12))
    return found
