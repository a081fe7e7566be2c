"""How far a small network's answers are from a larger one's: what a student is taught by, beside the truth.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network" (softened chances); Romero et al. 2015, "FitNets", and
Jiao et al. 2020, "TinyBERT" (inner vectors, through a map that is learned beside the student). Means over rows, so that a
loss does not depend on the batch's size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def softened(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Kullback-Leibler divergence of chances softened by a temperature, times its square, so that gradients keep their size.
    Logits [..., K]; the mean over all but the last axis."""
    told = functional.log_softmax(teacher / temperature, dim=-1)
    said = functional.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (told.exp() * (told - said)).sum(dim=-1).mean()


def numbers(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute distance of answers that are numbers (forecasts, quantiles), any shape; half of it, as the quantile loss
    of a median counts it."""
    return 0.5 * (student - teacher).abs().mean()


class Likened(nn.Module):
    """Inner vectors [..., d] of a student against a teacher's [..., D], through a linear map that learns with the student:
    mean squared distance over the teacher's mean square, which is 1 for a student that says nothing."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.through = nn.Linear(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        gap: Tensor = self.through(student) - teacher
        return gap.square().mean() / teacher.square().mean().clamp(min=1e-9)
