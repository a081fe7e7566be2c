"""Which of a bundle's forms serves on this machine: of those that answer the golden vectors here, the fastest, or the first
one that the settings name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.config import FASTEST, ONNXRUNTIME, TFLITE, EngineName, RuntimeSettings
from protocol.bundles import Bundle, Runtime
from protocol.errors import BadBundle, Reason

ROUNDS = 5
"""Times that each form is asked all golden inputs, in turn; its least time counts."""


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
    asked: Mapping[EngineName, Callable[[], object]], refused: Mapping[EngineName, BadBundle], runtime: RuntimeSettings
) -> Chosen:
    """asked: of each form that is right here, in the settings' order, what asks it all golden inputs; refused: of each other
    one, why. Raises BadBundle if none is right."""
    if not asked:
        raise _none_left(refused)
    told = [f"{name} does not serve: {error.detail}" for name, error in refused.items()]
    if len(asked) == 1:
        (only,) = asked
        return Chosen(only, "; ".join(told) or "the only form that there is")
    if runtime.engines != FASTEST:
        return Chosen(next(iter(asked)), "; ".join(["the settings prefer it", *told]))
    spent = _least_us(asked)
    order = sorted(spent, key=lambda name: spent[name])
    times = ", ".join(f"{name} {spent[name]:.0f} us" for name in order)
    return Chosen(order[0], "; ".join([f"the fastest here ({times} for the golden inputs)", *told]))


def _least_us(asked: Mapping[EngineName, Callable[[], object]]) -> dict[EngineName, float]:
    least = dict.fromkeys(asked, float("inf"))
    for _ in range(ROUNDS):
        for name, ask in asked.items():
            started = time.perf_counter()
            ask()
            least[name] = min(least[name], (time.perf_counter() - started) * 1e6)
    return least


def _none_left(refused: Mapping[EngineName, BadBundle]) -> BadBundle:
    first = next(iter(refused.values()))
    if len(refused) == 1:
        return first
    return BadBundle(first.reason, "; ".join(f"{name}: {error.detail}" for name, error in refused.items()))
