"""Is a language model worth its place in the writer, and is it sound where no mask holds it?

Masks hide a bad model: held to licensed wordings, even random weights write a true report. So two things are measured on
reports that people edited and that the model never saw:

unmasked    the mean log-probability per token of what the person left, over the whole vocabulary; and, in free mode, the
            share of sections that the verifier had to reject
worth       at each clause where the person had a choice (several wordings, or leaving it out), the probability that the model
            gives to what the person chose, among what was licensed. Against it: a uniform chooser; one that mostly takes the
            first wording, as often as people did in the training part; and one that counts what people chose for the clause
            in the training part, whatever the circumstances

The model may choose only if, in every language, it is better than the uniform and the first-wording chooser beyond the luck
of the held-out reports; else the template writes. Pure: arrays and tokens in, figures out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protocol.writing.author import Author, LanguageModel
from protocol.writing.decoder import Decoder
from protocol.writing.facts import LANGUAGES, Fact
from protocol.writing.frames import TITLE, Frames
from protocol.writing.realise import Alternatives, Facts, licensed
from protocol.writing.strict import Budget, Limits, Path, Pen, Stopped, Turn, WayOn, log_softmax, ways_on
from protocol.writing.verify import complaints_of

CONFIDENCE_Z = 1.645
"""One-sided 95 %: the mean gain less this many standard errors must be above zero."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EditedSection:
    """lead: tokens before its words; turns: what was licensed; said: what the person left of it."""

    lead: tuple[int, ...]
    turns: tuple[Turn, ...]
    said: Path

    @property
    def words(self) -> list[int]:
        """The tokens that the person left."""
        return [token for clause, wording in self.said for token in self.turns[clause].wordings[wording]]


@dataclass(frozen=True, slots=True)
class EditedReport:
    """One report in one language as a person left it. prefix: tokens before its sections."""

    language: str
    prefix: tuple[int, ...]
    sections: tuple[EditedSection, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A clause that could have been said otherwise: how many ways there were, and which was taken (wordings in order, leaving
    it out last where that was allowed)."""

    clause: str
    ways: int
    taken: int


@dataclass(frozen=True, slots=True)
class Chooser:
    """What one chooser makes of the same choices. likelihood: mean over reports of the summed log-probability of what people
    chose; agreement: share of choices where its likeliest way is the person's; by_report: the summed ones."""

    likelihood: float
    agreement: float
    by_report: Floats


@dataclass(frozen=True, slots=True)
class Worth:
    """Of one language. gain[rival]: mean of the model's likelihood less the rival's over reports; sure[rival]: its one-sided
    95 % lower bound."""

    reports: int
    choices: int
    model: Chooser
    rivals: Mapping[str, Chooser]
    gain: Mapping[str, float]
    sure: Mapping[str, float]

    @property
    def holds(self) -> bool:
        """Better than chance and than always the first wording, beyond luck."""
        return self.choices > 0 and self.sure["uniform"] > 0 and self.sure["first"] > 0


Counts = Mapping[str, Counter[int]]
"""Clause -> way -> how often people took it in the training part."""


def choices(report: EditedReport) -> list[Choice]:
    """The choices that a person had, in order."""
    found = []
    for section in report.sections:
        said = dict(section.said)
        for k, turn in enumerate(section.turns):
            ways = len(turn.wordings) + turn.optional
            if ways > 1:
                found.append(Choice(turn.clause, ways, said.get(k, len(turn.wordings))))
    return found


def count(reports: Sequence[EditedReport]) -> dict[str, Counter[int]]:
    """How often each way was taken; of one language, whose wordings they are."""
    found: dict[str, Counter[int]] = {}
    for report in reports:
        for choice in choices(report):
            found.setdefault(choice.clause, Counter())[choice.taken] += 1
    return found


def model_chances(decoder: Decoder, report: EditedReport, end: int) -> list[WayOn]:
    """The model's distribution at each of a report's choices, given what the person had said before it in its section; as in
    writing, every section begins anew after the prefix."""
    decoder.rewind(0)
    pen = Pen(decoder, Budget(Limits(seconds=math.inf), lambda: 0.0))
    pen.append(report.prefix)
    found = []
    for section in report.sections:
        for k, turn in enumerate(section.turns):
            if len(turn.wordings) + turn.optional > 1:
                pen.rewind(len(report.prefix))
                pen.append(section.lead)
                before = tuple(step for step in section.said if step[0] < k)
                found.append(ways_on(pen, section.turns, end, before, k))
    return found


def worth(decoder: Decoder, training: Sequence[EditedReport], held_out: Sequence[EditedReport], end: int) -> Worth:
    """The model against the choosers; reports of one language. Raises ValueError where there is nothing to judge by."""
    if len(held_out) < 2 or not training:
        raise ValueError(f"{len(training)} training and {len(held_out)} held-out reports: at least 1 and 2 are needed")
    counted = count(training)
    made = [choices(report) for report in held_out]
    model = [
        [(float(found.chances[choice.taken]), found.chosen) for found, choice in zip(told, chosen, strict=True)]
        for told, chosen in zip((model_chances(decoder, report, end) for report in held_out), made, strict=True)
    ]
    rivals = {
        "uniform": _chooser(made, lambda c: np.full(c.ways, 1 / c.ways)),
        "first": _chooser(made, _first([choice for report in training for choice in choices(report)])),
        "frequency": _chooser(made, _frequency(counted)),
    }
    by_luck = [1 / choice.ways for report in made for choice in report]
    rivals["uniform"] = replace(rivals["uniform"], agreement=float(np.mean(by_luck)) if by_luck else 0.0)
    ours = _judged(made, model)
    gains = {name: ours.by_report - rival.by_report for name, rival in rivals.items()}
    return Worth(
        reports=len(held_out),
        choices=sum(map(len, made)),
        model=ours,
        rivals=rivals,
        gain={name: float(gain.mean()) for name, gain in gains.items()},
        sure={
            name: float(gain.mean() - CONFIDENCE_Z * gain.std(ddof=1) / math.sqrt(len(gain)))
            for name, gain in gains.items()
        },
    )


def _first(training: Sequence[Choice]) -> Callable[[Choice], Floats]:
    """The first way with the share that it had among people, the others alike; one made-up choice on either side."""
    share = (1 + sum(choice.taken == 0 for choice in training)) / (2 + len(training))

    def chances(choice: Choice) -> Floats:
        return np.array([share, *[(1 - share) / (choice.ways - 1)] * (choice.ways - 1)])

    return chances


def _frequency(counted: Counts) -> Callable[[Choice], Floats]:
    """Laplace's rule over a clause's ways; a clause that nobody met is uniform."""

    def chances(choice: Choice) -> Floats:
        counts = counted.get(choice.clause, Counter())
        seen = np.array([1.0 + counts[way] for way in range(choice.ways)])
        return np.asarray(seen / seen.sum())

    return chances


def _chooser(made: Sequence[Sequence[Choice]], chances: Callable[[Choice], Floats]) -> Chooser:
    told = []
    for report in made:
        whole = [(choice, chances(choice)) for choice in report]
        told.append([(float(each[choice.taken]), int(np.argmax(each))) for choice, each in whole])
    return _judged(made, told)


def _judged(made: Sequence[Sequence[Choice]], told: Sequence[Sequence[tuple[float, int]]]) -> Chooser:
    """told: of every choice the probability of what was taken, and the chooser's own pick."""
    sums = np.array([sum(math.log(max(chance, 1e-300)) for chance, _ in report) for report in told])
    right = [
        pick == choice.taken
        for report, chosen in zip(told, made, strict=True)
        for (_, pick), choice in zip(report, chosen, strict=True)
    ]
    return Chooser(float(sums.mean()), float(np.mean(right)) if right else 0.0, sums)


def prefer(by_language: Mapping[str, Worth]) -> bool:
    """Whether a document's words are left to the model: worth it in every language that it was measured in."""
    return bool(by_language) and all(each.holds for each in by_language.values())


def log_probability(decoder: Decoder, reports: Sequence[EditedReport], end: int) -> tuple[float, int]:
    """(mean log-probability per token, tokens) of what people left, over the whole vocabulary and without a mask."""
    total, tokens = log_probabilities(decoder, reports, end).sum(axis=0)
    return float(total / max(tokens, 1)), int(tokens)


def log_probabilities(decoder: Decoder, reports: Sequence[EditedReport], end: int) -> Floats:
    """The same of each report, [N, 2]: its summed log-probability and its tokens."""
    found = np.zeros((len(reports), 2))
    for sums, report in zip(found, reports, strict=True):
        decoder.rewind(0)
        before = list(report.prefix)
        for section in report.sections:
            words = [*section.words, end]
            decoder.rewind(min(decoder.length, len(report.prefix)))
            rows = decoder.feed([*before, *section.lead, *words])[-len(words) - 1 : -1]
            sums += log_softmax(rows)[np.arange(len(words)), words].sum(), len(words)
            before = []
    return found


@dataclass(frozen=True, slots=True)
class Prose:
    """What became of freely written sections, before any was written anew. sections: each language by itself; unfinished: no
    prose came about (no end, no text, a limit); rejected: the verifier would not let it stand."""

    sections: int
    unfinished: int
    rejected: int

    @property
    def error_share(self) -> float:
        """Share of sections that could not stay; 1 where nothing was written."""
        return (self.unfinished + self.rejected) / self.sections if self.sections else 1.0


def unverified_prose(
    model: LanguageModel, frames: Frames, fact_sets: Sequence[Sequence[Fact]], clock: Callable[[], float]
) -> Prose:
    """How often free mode is wrong without its safety nets, over the sections of held-out facts."""
    sections = unfinished = rejected = 0
    for facts in fact_sets:
        known, author = Facts(facts), Author(model, frames, facts, clock)
        for section, clauses in licensed(frames, known).items():
            for language in LANGUAGES if section != TITLE else ():
                sections += 1
                asked = Alternatives(section, language, known, clauses)
                try:
                    rejected += bool(complaints_of(asked, author.prose(asked)))
                except Stopped:
                    unfinished += 1
    return Prose(sections, unfinished, rejected)
