"""A larger network as a teacher, as the fit of a small one knows it: asked about rows, and a distance to what it says. Where
the distance comes from is not an algorithm's affair (`export.distill` has some)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Teaching:
    """ask: a network's inputs to what the teacher answers, without gradients. apart: (student's answer, teacher's) -> a loss.
    share: what that loss counts; the truth counts the rest."""

    ask: Callable[..., Any]
    apart: Callable[[Any, Any], Tensor]
    share: float = 0.5

    def mixed(self, truth: Tensor, answer: Any, told: Any) -> Tensor:
        """The loss of a student that is `truth` off what came and answers so."""
        return (1.0 - self.share) * truth + self.share * self.apart(answer, told)
