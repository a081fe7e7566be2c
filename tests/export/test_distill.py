"""What a student is taught by: nothing to learn from itself, the right way to go from anything else."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from export.distill import Likened, numbers, softened

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 3.0]])


@given(temperature=st.floats(0.5, 10.0), shift=st.floats(-5.0, 5.0))
def test_a_student_that_says_the_same_has_nothing_to_learn(temperature: float, shift: float) -> None:
    assert float(softened(LOGITS + shift, LOGITS, temperature)) == pytest.approx(0.0, abs=1e-4)
    assert float(softened(LOGITS.flip(0), LOGITS, temperature)) > 0.0


def test_softened_chances_are_the_divergence_that_hinton_defines() -> None:
    student = torch.tensor([[1.0, 0.0, 0.0], [0.5, -0.5, 1.0]])
    at = 3.0
    wanted = at**2 * functional.kl_div(
        functional.log_softmax(student / at, dim=1), functional.softmax(LOGITS / at, dim=1), reduction="batchmean"
    )
    assert float(softened(student, LOGITS, at)) == pytest.approx(float(wanted), rel=1e-5)


def test_gradients_keep_their_size_when_chances_are_softened() -> None:
    sizes = []
    for temperature in (4.0, 8.0):
        student = torch.zeros_like(LOGITS, requires_grad=True)
        softened(student, LOGITS, temperature).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


def test_numbers_are_as_far_apart_as_a_median_counts_it() -> None:
    assert float(numbers(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))) == 0.5


def test_inner_vectors_of_another_length_are_reached_through_a_map_that_learns() -> None:
    torch.manual_seed(1)
    teacher = torch.randn(64, 6)
    student = teacher[:, :4] @ torch.randn(4, 4)
    teacher[:, 4:] = teacher[:, :2]
    likened = Likened(4, 6)
    optimiser = torch.optim.Adam(likened.parameters(), lr=0.05)
    first = float(likened(student, teacher).detach())
    for _ in range(300):
        optimiser.zero_grad()
        likened(student, teacher).backward()
        optimiser.step()
    assert float(likened(student, teacher).detach()) < 0.02 * first
    silent = Likened(4, 6)(torch.zeros(3, 4), torch.zeros(3, 6))
    assert torch.isfinite(silent)
