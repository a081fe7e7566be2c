"""A network with fewer parts: what matters least is taken out a little at a time, and the rest learns on in between.

Units are what can be taken out whole and leaves smaller dense matrices, which are faster anywhere: hidden units of a
recurrent layer, attention heads, inner units of a feed-forward part. Which parameters a unit owns, its algorithm says. How
much a unit matters is the first-order Taylor estimate of what the loss would change without it (Molchanov et al. 2019,
"Importance Estimation for Neural Network Pruning"), or the size of its weights. Single weights are set to zero by size (Han
et al. 2015): matrices keep their shape and speed, and what is gained is a file that compresses.
The pace is Zhu & Gupta's (2017, "To prune, or not to prune"): much at first, ever less towards the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.matrices import seen_through
from protocol.errors import BadSettings

Net = TypeVar("Net", bound=nn.Module)
Importance = Literal["taylor", "size"]
STEPS = 4
"""Of a gradual pruning, each followed by training."""


class Part(Protocol):
    """Where units lie in one parameter: along `axis`, unit i at `places[i]` ([units, k])."""

    @property
    def parameter(self) -> str: ...
    @property
    def axis(self) -> int: ...
    @property
    def places(self) -> NDArray[np.int64]: ...


class Units(Protocol):
    """Like units of one layer, and all that they own."""

    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> Sequence[Part]: ...


@dataclass(frozen=True)
class Surgery(Generic[Net]):
    """How one kind of network is made smaller. units: what can be taken out; smaller: a network of the same kind with so many
    units of each name, its weights of no account; losses: on some rows that it learned from, one batch after another, by
    which importance is estimated; tune: learns on, in place."""

    units: Callable[[Net], Sequence[Units]]
    smaller: Callable[[Net, Mapping[str, int]], Net]
    losses: Callable[[Net], Iterable[Tensor]]
    tune: Callable[[Net], None]


def share_at(step: int, steps: int, share: float, begun: float = 0.0) -> float:
    """Share taken out after a step, 1 to `steps`: begun + (share - begun) (1 - (1 - step / steps)³)."""
    gone = min(max(step / max(steps, 1), 0.0), 1.0)
    return share + (begun - share) * (1.0 - gone) ** 3


def pruned(net: Net, share: float, how: Surgery[Net], *, steps: int = STEPS, importance: Importance = "taylor") -> Net:
    """A smaller network without the share of each layer's units that matters least; at least one stays. `net` is left as it
    is. Raises BadSettings for a share outside of 0 to 1 (not 1)."""
    checked_share(share)
    whole = {group.name: len(group.parts[0].places) for group in how.units(net)}
    for step in range(1, steps + 1):
        left = 1.0 - share_at(step, steps, share)
        counts = {name: max(round(n * left), 1) for name, n in whole.items()}
        groups = how.units(net)
        if all(len(group.parts[0].places) == counts[group.name] for group in groups):
            continue
        worth = taylor(net, groups, how.losses(net)) if importance == "taylor" else sizes(net, groups)
        kept = {name: most_worth(worth[name], counts[name]) for name in counts}
        smaller = how.smaller(net, counts)
        smaller.load_state_dict(without(net.state_dict(), groups, kept))
        how.tune(smaller)
        net = smaller
    return net


def checked_share(share: float) -> float:
    """The share. Raises BadSettings outside of 0 to 1 (not 1)."""
    if not 0.0 <= share < 1.0:
        raise BadSettings(f"prune {share:g}: give a share from 0 to less than 1, such as 0.5")
    return share


def taylor(net: nn.Module, groups: Sequence[Units], losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Importance [units] of each group: the mean over batches of (Σ gradient · weight over all that a unit owns)². A unit
    that nothing listens to is worth exactly 0."""
    named = dict(net.named_parameters())
    worth = {group.name: torch.zeros(len(group.parts[0].places)) for group in groups}
    batches = 0
    net.eval()
    for loss in losses:
        net.zero_grad(set_to_none=True)
        loss.backward()
        batches += 1
        for group in groups:
            total = torch.zeros_like(worth[group.name])
            for part in group.parts:
                weight = named[part.parameter]
                if weight.grad is not None:
                    total += _by_unit(weight.grad * weight.detach(), part).sum(dim=1)
            worth[group.name] += total.square()
    net.zero_grad(set_to_none=True)
    return {name: value / max(batches, 1) for name, value in worth.items()}


def sizes(net: nn.Module, groups: Sequence[Units]) -> dict[str, Tensor]:
    """Importance [units] of each group: the Euclidean length of all weights that a unit owns."""
    named = dict(net.named_parameters())
    return {
        group.name: torch.stack(
            [_by_unit(named[part.parameter].detach(), part).square().sum(dim=1) for part in group.parts]
        )
        .sum(dim=0)
        .sqrt()
        for group in groups
    }


def most_worth(worth: Tensor, count: int) -> Tensor:
    """The `count` most important units, in their old order."""
    return torch.topk(worth, count).indices.sort().values


def without(state: Mapping[str, Tensor], groups: Sequence[Units], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's state with the places of units that are not kept cut out of it."""
    stays: dict[tuple[str, int], Tensor] = {}
    for group in groups:
        lost = np.setdiff1d(np.arange(len(group.parts[0].places)), kept[group.name].numpy())
        for part in group.parts:
            length = state[part.parameter].shape[part.axis]
            mask = stays.setdefault((part.parameter, part.axis), torch.ones(length, dtype=torch.bool))
            mask[torch.from_numpy(part.places[lost].ravel())] = False
    made = dict(state)
    for (name, axis), mask in stays.items():
        made[name] = made[name].index_select(axis, mask.nonzero()[:, 0])
    return made


def thinned(net: Net, share: float, tune: Callable[[Net], None], *, steps: int = STEPS) -> Net:
    """The network, in place, with the share of each matrix's weights that are smallest set to zero. Raises BadSettings as
    `pruned`."""
    checked_share(share)
    with seen_through(net, lambda weight: Holes(weight)) as matrices:
        for step in range(1, steps + 1):
            for holes in matrices:
                assert isinstance(holes, Holes)  # noqa: S101 - for the type checker
                holes.widen(share_at(step, steps, share))
            tune(net)
    return net


class Holes(nn.Module):
    """A matrix some of whose weights are zero, and stay so."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = [weight]  # in a list: it is not a parameter of this module
        self.register_buffer("mask", torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def widen(self, share: float) -> None:
        """Sets the smallest weights to zero, in all `share` of them; what is zero already stays."""
        left = (self.weight[0].detach() * self.mask).abs().flatten()
        holes = torch.topk(left, round(share * left.numel()), largest=False).indices
        self.mask.view(-1)[holes] = 0.0


def _by_unit(value: Tensor, part: Part) -> Tensor:
    """[units, everything that each owns in this parameter]."""
    units, each = part.places.shape
    chosen = value.index_select(part.axis, torch.from_numpy(part.places.ravel())).movedim(part.axis, 0)
    return chosen.reshape(units, each, -1).flatten(1)
