"""A network learns with the weights that it will have in 8 bits: rounded on the way forward, as if it had not been on the way
back (straight-through estimator; Bengio et al. 2013; Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference"). For a model that loses too much when it is rounded afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

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
    places = list(_matrices(net))
    hooks = [one.register_forward_pre_hook(_renewed) for one in net.modules() if isinstance(one, nn.RNNBase)]
    for module, name in places:
        parametrize.register_parametrization(module, name, Rounded())
    try:
        yield net
    finally:
        for hook in hooks:
            hook.remove()
        for module, name in places:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for one in net.modules():
            if isinstance(one, nn.RNNBase):
                _renewed(one)


def _matrices(net: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in net.modules():
        if isinstance(module, nn.Linear):
            yield module, "weight"
        elif isinstance(module, nn.RNNBase):
            yield from ((module, name) for name, _ in module.named_parameters() if name.startswith("weight_"))


def _renewed(module: nn.Module, _given: object = None) -> None:
    """A recurrent layer reads its weights from a list of its own, which does not know of parametrizations."""
    names: list[str] = vars(module)["_flat_weights_names"]
    vars(module)["_flat_weights"] = [getattr(module, name) for name in names]
