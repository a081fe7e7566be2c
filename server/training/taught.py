"""Networks that taught others, as the fit of those knows them: which distance holds which kind of answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from export import distill
from protocol.life_windows import LifeSpec
from server.algorithms.bert import Rows
from server.algorithms.gpt import Gpt
from server.algorithms.note_heads import NoteHeads, logits_of
from server.algorithms.remaining_life import LifeNet, LifeSettings, expected, log_deaths_of
from server.algorithms.teaching import Teaching
from server.training.language import IGNORED, Batch, Loss, next_token_loss

TEMPERATURE = 2.0


def by_heads(teacher: NoteHeads, share: float = 0.5, temperature: float = TEMPERATURE) -> Teaching:
    """A fine-tuned reader of notes teaches another: its softened chances, the mean over the kinds of judgement."""

    def ask(rows: Rows) -> dict[str, Tensor]:
        return logits_of(teacher, rows)

    def apart(answer: Mapping[str, Tensor], told: Mapping[str, Tensor]) -> Tensor:
        each = [distill.softened(answer[about], said, temperature) for about, said in told.items()]
        return torch.stack(each).mean()

    return Teaching(ask, apart, share)


def by_lives(teacher: LifeNet, spec: LifeSpec, settings: LifeSettings, share: float = 0.5) -> Teaching:
    """A network of remaining life teaches another, also of units that still work, whose end nobody knows: its chances of
    failing in each bin, and the expected life, weighted as `settings` weigh the truth."""
    width = spec.cap / spec.bins

    def ask(x: Tensor) -> Tensor:
        return log_deaths_of(teacher(x))

    def mean(log_deaths: Tensor) -> Tensor:
        return expected(1.0 - log_deaths.exp().cumsum(dim=1)[:, :-1], width) / spec.cap

    def apart(answer: Tensor, told: Tensor) -> Tensor:
        gap = (mean(answer) - mean(told)).square().mean()
        return settings.likelihood_weight * distill.softened(answer, told, 1.0) + settings.mean_weight * gap

    return Teaching(ask, apart, share)


def by_writer(teacher: Gpt, share: float = 0.5, temperature: float = TEMPERATURE) -> Loss:
    """The loss of a language model that another one of the same vocabulary teaches: the next token, and the teacher's
    softened chances for it. While nothing is learned (validation), the next token alone. Raises ValueError for a teacher of
    another vocabulary."""
    teacher.eval()

    def loss(net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not net.training:
            return next_token_loss(net, batch)
        logits, _ = net(batch["ids"])
        targets = batch["targets"].flatten()
        asked = targets != IGNORED
        with torch.no_grad():
            told, _ = teacher.to(targets.device)(batch["ids"])
        if told.shape[-1] != logits.shape[-1]:
            raise ValueError(f"a teacher of {told.shape[-1]} tokens cannot teach a network of {logits.shape[-1]}")
        said = logits.flatten(0, 1)[asked].float()
        truth = nn.functional.cross_entropy(said, targets[asked], reduction="sum")
        count = asked.sum()
        apart = distill.softened(said, told.flatten(0, 1)[asked].float(), temperature)
        return (1.0 - share) * truth + share * apart * count, count

    return loss
