"""Weights go downhill: AdamW (Loshchilov & Hutter 2019), a warm-up and a cosine to nothing, over steps or minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Watch = Callable[[int, float, float], bool]
"""Told the steps taken, the share of the way and the last loss; answers whether to go on."""


@dataclass(frozen=True)
class Descent:
    """minutes: stop then at the latest, the pace of the learning rate foreseeing it; the result then depends on the
    machine's speed, without it on the seed alone. decay: of weights with two axes. warm_up: share of the way."""

    steps: int = 1000
    minutes: float | None = None
    learning_rate: float = 5e-4
    decay: float = 0.01
    warm_up: float = 0.06
    steepest: float = 1.0


def descend(
    modules: Sequence[tuple[nn.Module, float]],
    loss_of: Callable[[int], Tensor],
    plan: Descent,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[float]:
    """Takes steps; `loss_of(step)` answers the loss of that step's batch. modules: what learns, each with its multiple of the
    learning rate. Answers the loss of each step. Raises ValueError if a loss is not finite: a smaller learning rate is the
    remedy."""
    groups = [group for module, times in modules for group in _groups(module, times, plan.decay)]
    learned = [p for group in groups for p in group["params"]]
    optimiser = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))
    begun, losses = clock(), list[float]()
    for step in range(plan.steps):
        gone = step / plan.steps
        if plan.minutes is not None:
            gone = max(gone, (clock() - begun) / (60 * plan.minutes))
        if gone >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.learning_rate * group["times"] * pace(gone, plan.warm_up)
        optimiser.zero_grad()
        loss = loss_of(step)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"loss {losses[-1]} at step {step}: lower the learning rate of {plan.learning_rate:g}")
        loss.backward()
        nn.utils.clip_grad_norm_(learned, plan.steepest)
        optimiser.step()
        if watch is not None and not watch(step + 1, gone, losses[-1]):
            break
    return losses


def _groups(module: nn.Module, times: float, decay: float) -> list[dict[str, Any]]:
    """Parameters that learn: those with two axes decay."""
    learned = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": decay, "times": times},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0, "times": times},
    ]


def pace(gone: float, warm_up: float) -> float:
    """Share of the learning rate after a share of the way: up in a straight line, then down half a cosine."""
    if gone < warm_up:
        return 0.02 + 0.98 * gone / warm_up
    return 0.5 * (1 + math.cos(math.pi * (gone - warm_up) / max(1 - warm_up, 1e-9)))
