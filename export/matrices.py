"""The matrices of a network, seen through something else while it learns: rounded, or with holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize


@contextmanager
def seen_through(net: nn.Module, make: Callable[[Tensor], nn.Module]) -> Iterator[list[nn.Module]]:
    """Each matrix of the linear and recurrent layers becomes what `make(matrix)` makes of it, in every call; those modules
    are given back. Afterwards the network keeps what they made, as ordinary parameters."""
    places = list(_matrices(net))
    hooks = [one.register_forward_pre_hook(_renewed) for one in net.modules() if isinstance(one, nn.RNNBase)]
    made = [make(getattr(module, name)) for module, name in places]
    for (module, name), through in zip(places, made, strict=True):
        parametrize.register_parametrization(module, name, through)
    try:
        yield made
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
