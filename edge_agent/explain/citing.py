"""What an answer shows as its evidence: one number and where it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from protocol.observations import TimeMs
from protocol.reports import Evidence, ModelRef
from protocol.windows import Floats

STATISTICS: dict[str, Callable[[Floats], Any]] = {"max": np.max, "min": np.min, "mean": np.mean}


def evidence(
    machine: str,
    signal: str,
    unit: str,
    span_ms: tuple[TimeMs, TimeMs],
    values: Floats,
    statistic: str,
    expected: tuple[float, float] | None,
    model: ModelRef | None,
) -> Evidence:
    """One number with its origin: `statistic` (max, min, mean) of `values`, the observations of `span_ms`."""
    return Evidence(
        machine=machine,
        signal=signal,
        start_ms=span_ms[0],
        end_ms=span_ms[1],
        samples=len(values),
        statistic=statistic,
        value=float(STATISTICS[statistic](values)),
        unit=unit,
        expected_low=expected[0] if expected else None,
        expected_high=expected[1] if expected else None,
        model=model,
    )
