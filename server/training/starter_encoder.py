"""The encoder of the models to start with: what it reads, what it is asked, who teaches it and what is taken out of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from export.distill import Likened
from protocol.reading.notes import About
from server.algorithms.bert import Bert, BertForPreTraining, BertSettings
from server.algorithms.imitation import Imitation, imitate
from server.algorithms.note_heads import UNTOLD, FineTuning, NoteHeads, finetune
from server.algorithms.teaching import Teaching
from server.training.circumstances import Progress
from server.training.pretraining import EncoderPlan, TextPair, pretrained_encoder
from server.training.pruning import Notes, pruned_heads, shorter
from server.training.simulated_notes import SimulatedNote
from server.training.taught import by_heads
from server.training.text_encoder import TextEncoder

READING, ASKING = 0.65, 0.35
"""Of an encoder's minutes."""
TUNING = 0.5
"""Of the epochs and the pace of the questions, after each step of a pruning."""


@dataclass(frozen=True)
class EncoderCourse:
    """How an encoder learns. teacher: sizes of a larger one that learns the same first and is thrown away; the encoder then
    says of texts what the teacher says (`imitation`) before it answers questions with it. prune: share of each layer's heads
    and inner units that is taken out in the end. minutes: of each of the two, at most; None: as the plans say."""

    encoder: EncoderPlan
    heads: FineTuning
    teacher: BertSettings | None = None
    imitation: Imitation = field(default_factory=Imitation)
    prune: float = 0.0
    minutes: float | None = None
    seed: int = 7

    def told(self, settings: BertSettings) -> dict[str, object]:
        """For the lineage of what has an encoder of these settings in it."""
        return {
            "encoder": asdict(settings),
            "encoder_dropout": settings.dropout,
            "encoder_weight_decay": self.heads.decay,
            "encoder_pretraining": asdict(self.encoder.pretraining),
            "encoder_heads": asdict(self.heads),
            "encoder_teacher": "none"
            if self.teacher is None
            else f"{self.teacher.layers} layers of {self.teacher.width}",
            "encoder_pruned": self.prune,
        }


def encoder_of(told: Sequence[SimulatedNote], course: EncoderCourse, progress: Progress) -> TextEncoder:
    """Hidden words and what fixed what, likeness across wordings and languages, then the questions themselves."""
    teaching, teacher, begin = None, None, 0.0
    if course.teacher is not None:
        begin = 0.5
        large = _read(told, course, course.teacher, lambda share, step: progress(begin * share, f"teacher: {step}"))
        teacher = _asked(large, told, course, lambda _share, step: progress(begin, f"teacher: {step}"))
        teaching = by_heads(teacher)
    rest = 1.0 - begin
    encoder = _read(
        told, course, course.encoder.sizes, lambda share, step: progress(begin + READING * rest * share, step)
    )
    if teacher is not None:
        rows = encoder.rows([one.text for one in told])
        imitate(encoder.net.bert, teacher.bert, rows, replace(course.imitation, seed=course.seed), Likened)
    at = begin + READING * rest
    fitted = _asked(encoder, told, course, lambda share, step: progress(at + (1.0 - at) * share, step), teaching)
    if course.prune:
        labels, classes = numbered(told)
        rows = encoder.rows([one.text for one in told])
        fitted = pruned_heads(fitted, course.prune, Notes(rows, labels, classes, shorter(course.heads, TUNING)))
    return _with(encoder, fitted.bert)


def likenesses(told: Sequence[SimulatedNote], groups: dict[str, int], seed: int) -> list[TextPair]:
    """Each note with itself written in full, and each that tells its mode with another of that mode, in either language."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    members: dict[str, list[SimulatedNote]] = {}
    for one in told:
        if one.told:
            members.setdefault(one.mode, []).append(one)
    found = [TextPair(one.text, one.plain, groups[one.mode]) for one in told if one.text.lower() != one.plain.lower()]
    return found + [
        TextPair(one.text, chance.choice(members[one.mode]).seen, groups[one.mode]) for one in told if one.told
    ]


def numbered(told: Sequence[SimulatedNote]) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
    """Each question's labels [N] (UNTOLD where a note does not say) and number of classes."""
    labels: dict[str, NDArray[np.int64]] = {}
    classes: dict[str, int] = {}
    for about in About:
        names = sorted({one.said()[about] for one in told if about in one.said()})
        if len(names) > 1:
            at = {name: number for number, name in enumerate(names)}
            labels[about] = np.array([at.get(one.said().get(about, ""), UNTOLD) for one in told], dtype=np.int64)
            classes[about] = len(names)
    return labels, classes


def _read(told: Sequence[SimulatedNote], course: EncoderCourse, sizes: BertSettings, progress: Progress) -> TextEncoder:
    groups = {name: at for at, name in enumerate(sorted({one.mode for one in told}))}
    return pretrained_encoder(
        [one.text for one in told],
        course.seed,
        None if course.minutes is None else READING * course.minutes,
        pairs=[TextPair(one.text, one.fix, groups[one.mode]) for one in told if one.told],
        likenesses=likenesses(told, groups, course.seed),
        plan=replace(course.encoder, sizes=sizes),
        progress=progress,
    )


def _asked(
    encoder: TextEncoder,
    told: Sequence[SimulatedNote],
    course: EncoderCourse,
    progress: Progress,
    teaching: Teaching | None = None,
) -> NoteHeads:
    minutes = None if course.minutes is None else ASKING * course.minutes
    heads = replace(course.heads, minutes=minutes, seed=course.seed)
    labels, classes = numbered(told)
    rows = encoder.rows([one.text for one in told])
    return finetune(encoder.net.bert, rows, labels, classes, heads, progress, teaching)


def _with(encoder: TextEncoder, learned: Bert) -> TextEncoder:
    """The same tokenizer, word and pair heads, and the fine-tuned encoder, which may be smaller by now."""
    net = BertForPreTraining(learned.settings)
    net.cls.load_state_dict(encoder.net.cls.state_dict())
    net.bert.load_state_dict(learned.state_dict())
    return TextEncoder(net.eval(), encoder.tokenizer)
