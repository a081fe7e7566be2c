"""Which of a bundle's forms serves on this machine: of those that answer the golden vectors here, the fastest, or the first
one that the settings name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.config import FASTEST, ONNXRUNTIME, TFLITE, EngineName, RuntimeSettings
from protocol.bundles import Bundle, Runtime
from protocol.errors import BadBundle, Reason

ROUNDS = 10
"""Times that a form is asked all golden inputs; its least time counts."""


@dataclass(frozen=True)
class Chosen:
    """engine: the form that serves. why: in words, for people."""

    engine: EngineName
    why: str


def forms(bundle: Bundle, runtime: RuntimeSettings) -> list[EngineName]:
    """The engines that the bundle has a form for and that the settings allow, in the settings' order; empty: the bundle is
    tables. Raises BadBundle (unsupported_runtime) if the settings allow none."""
    held: list[EngineName] = [ONNXRUNTIME] if bundle.graph else []
    if bundle.lite and bundle.passport.runtime is not Runtime.DECODER:
        held.append(TFLITE)
    allowed = [one for one in held if runtime.allows(one)]
    if held and not allowed:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"the bundle has a form for {' and '.join(held)}, and [runtime] engines names none of them",
        )
    if runtime.engines != FASTEST:
        allowed.sort(key=runtime.engines.index)
    return allowed


def choose(
    spent: Mapping[EngineName, float], refused: Mapping[EngineName, BadBundle], runtime: RuntimeSettings
) -> Chosen:
    """spent: microseconds for all golden inputs of each form that is right here, in the settings' order; refused: of each
    other one, why. Raises BadBundle if none is right."""
    if not spent:
        raise _none_left(refused)
    told = [f"{name} does not serve: {error.detail}" for name, error in refused.items()]
    if runtime.engines != FASTEST:
        alone = "the settings allow no other" if len(runtime.engines) == 1 else "the settings prefer it"
        return Chosen(next(iter(spent)), "; ".join(told) or alone)
    if len(spent) == 1:
        return Chosen(next(iter(spent)), "; ".join(told) or "the only form that there is")
    order = sorted(spent, key=lambda name: spent[name])
    times = ", ".join(f"{name} {spent[name]:.0f} us" for name in order)
    return Chosen(order[0], "; ".join([f"the fastest here ({times} for the golden inputs)", *told]))


def least_us(ask: Callable[[], object]) -> float:
    """Microseconds of a call, the least of ROUNDS."""
    least = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        ask()
        least = min(least, (time.perf_counter() - started) * 1e6)
    return least


def _none_left(refused: Mapping[EngineName, BadBundle]) -> BadBundle:
    first = next(iter(refused.values()))
    if len(refused) == 1:
        return first
    return BadBundle(first.reason, "; ".join(f"{name}: {error.detail}" for name, error in refused.items()))
