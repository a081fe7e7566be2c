"""Fine-tuning a large network through small ones: beside every linear map stands a product of two thin matrices, and only
those learn (Hu et al. 2021, LoRA). Folded back in, the network has its old shape and costs nothing more to run."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class LowRank(nn.Module):
    """x -> base(x) + scale * B A x, where B begins at zero: at first the network says what it said."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.base, self.scale, self.drop = base, scale, nn.Dropout(dropout)
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        thin = nn.functional.linear(nn.functional.linear(self.drop(x), self.a), self.b)
        answer: Tensor = self.base(x) + self.scale * thin
        return answer

    def folded(self) -> nn.Linear:
        """The base with the product added to its weights."""
        with torch.no_grad():
            self.base.weight += self.scale * (self.b @ self.a).to(self.base.weight.dtype)
        return self.base


def adapt(net: nn.Module, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, seed: int = 7) -> int:
    """Freezes the network and puts a LowRank in the place of every linear map of its blocks (not of the head, whose weights
    may be the embedding's); answers how many numbers learn now."""
    if rank < 1:
        raise ValueError(f"rank {rank}: at least 1")
    for value in net.parameters():
        value.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parent, name, child in _maps(net, nn.Linear):
            setattr(parent, name, LowRank(child, rank, alpha / rank, dropout))
    return sum(value.numel() for value in net.parameters() if value.requires_grad)


def fold(net: nn.Module) -> None:
    """Takes every LowRank out again, its product folded in; all numbers may learn again."""
    for parent, name, child in _maps(net, LowRank):
        setattr(parent, name, child.folded())
    for value in net.parameters():
        value.requires_grad_(True)


def _maps(net: nn.Module, kind: type[M]) -> list[tuple[nn.Module, str, M]]:
    return [
        (parent, name, child)
        for path, parent in net.named_modules()
        for name, child in parent.named_children()
        if isinstance(child, kind) and (path or name != "head")
    ]
