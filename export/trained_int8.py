"""A network learns with the weights that it will have in 8 bits: rounded on the way forward, as if it had not been on the way
back (straight-through estimator; Bengio et al. 2013; Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"). For a model that loses too much when it is rounded afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn

from export.matrices import seen_through

LARGEST = 127
Net = TypeVar("Net", bound=nn.Module)


class Rounded(nn.Module):
    """A matrix [out, ...] with each row on its own grid of 255 steps, as `export.quantize.quantize` will round it."""

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.detach().flatten(1)
        scale = (rows.abs().amax(dim=1) / LARGEST).clamp(min=1e-12).reshape(-1, *[1] * (weight.dim() - 1))
        rounded = (weight.detach() / scale).round() * scale
        return weight + (rounded - weight).detach()


@contextmanager
def rounded_weights(net: Net) -> Iterator[Net]:
    """The network with the matrices of its linear and recurrent layers rounded in every call; afterwards it keeps the rounded
    ones, as ordinary parameters."""
    with seen_through(net, lambda _weight: Rounded()):
        yield net
