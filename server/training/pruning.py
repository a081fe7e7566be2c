"""Readers and writers with fewer heads and inner units, by `export.prune`: after each step they learn on as they learned,
taught by the network that they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from export.prune import Surgery, pruned
from server.algorithms import bert, gpt, note_heads
from server.algorithms.bert import Bert, Rows
from server.algorithms.gpt import Gpt
from server.algorithms.note_heads import FineTuning, Labels, NoteHeads
from server.training.circumstances import Progress
from server.training.language import Batch, Batches, LoopSettings, learn, next_token_loss
from server.training.taught import by_heads, by_writer

LOOKED_AT = 16
"""Batches by which importance is estimated."""


@dataclass(frozen=True)
class Notes:
    """What heads learned from, as `note_heads.finetune` takes it."""

    rows: Rows
    labels: Mapping[str, Labels]
    classes: Mapping[str, int]
    settings: FineTuning


def pruned_heads(heads: NoteHeads, share: float, notes: Notes) -> NoteHeads:
    """The same judgements by an encoder without a share of each layer's heads and inner units. Raises BadSettings for a share
    that is none."""
    teaching = by_heads(heads)

    def tune(small: NoteHeads) -> None:
        learned = note_heads.finetune(
            small.bert, notes.rows, notes.labels, notes.classes, notes.settings, teaching=teaching
        )
        small.load_state_dict(learned.state_dict())

    how = Surgery(
        units=lambda net: bert.units(net.bert, "bert."),
        smaller=lambda net, counts: NoteHeads(
            Bert(bert.with_units(net.bert.settings, counts)), notes.classes, pooled=net.pooled
        ),
        losses=lambda net: note_heads.losses(net, notes.rows, notes.labels, notes.settings, LOOKED_AT),
        tune=tune,
    )
    return pruned(heads, share, how).eval()


def pruned_writer(
    net: Gpt, share: float, batches: Batches, check: list[Batch], loop: LoopSettings, progress: Progress
) -> Gpt:
    """The same language model without a share of each block's heads and inner units. loop: of the learning after each of the
    steps. Raises BadSettings as `pruned_heads`."""
    taught = by_writer(net)

    def losses(small: Gpt) -> Iterator[Tensor]:
        for number in range(LOOKED_AT):
            summed, count = next_token_loss(small, batches(number))
            yield summed / count

    def tune(small: Gpt) -> None:
        learn(small, taught, batches, check, loop, progress)

    how = Surgery(
        units=gpt.units,
        smaller=lambda whole, counts: Gpt(gpt.with_units(whole.settings, counts)),
        losses=losses,
        tune=tune,
    )
    return pruned(net, share, how).eval()


def shorter(settings: FineTuning, share: float) -> FineTuning:
    """The same learning for a share of its epochs, at a share of its pace."""
    return replace(
        settings,
        epochs=max(round(share * settings.epochs), 1),
        learning_rate=share * settings.learning_rate,
        head_learning_rate=share * settings.head_learning_rate,
    )


def slower(loop: LoopSettings, share: float) -> LoopSettings:
    """The same of a language model: a share of its steps, at a share of its rates."""
    return replace(
        loop,
        steps=max(round(share * loop.steps), 1),
        learning_rate=share * loop.learning_rate,
        matrix_rate=None if loop.matrix_rate is None else share * loop.matrix_rate,
    )
