"""What an answer shows as its evidence, and what things are called in both languages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocol.observations import TimeMs
from protocol.reports import Evidence, ModelRef
from protocol.windows import Floats

Words = tuple[str, str]
"""English, Simplified Chinese."""


@dataclass(frozen=True)
class Labels:
    """Names from the mapping file; what has none is called by its id."""

    machines: dict[str, Words] = field(default_factory=dict)
    signals: dict[str, Words] = field(default_factory=dict)
    items: dict[str, Words] = field(default_factory=dict)

    def machine(self, name: str) -> Words:
        """What a machine is called."""
        return self.machines.get(name, (name, name))

    def signal(self, name: str) -> Words:
        """What a signal is called."""
        return self.signals.get(name, (name, name))

    def item(self, name: str) -> Words:
        """What an action, a part or a profile token is called."""
        if name in self.items:
            return self.items[name]
        kind, _, rest = name.partition(":")
        if kind == "symptom":
            signal, _, state = rest.partition(":")
            en, zh = self.signal(signal)
            return f"{en} {state}", f"{zh}{'偏高' if state == 'high' else '偏低' if state == 'low' else state}"
        if kind == "type":
            return f"a machine of type {rest}", f"设备类型 {rest}"
        if kind == "machine":
            en, zh = self.machine(rest)
            return f"earlier jobs on {en}", f"{zh} 的历史工单"
        return rest.replace("-", " ") or name, rest or name


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
