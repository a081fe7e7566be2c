"""A plan or a design is decoded: at each point whoever chooses weighs what the grammar offers, and the best is taken; in a
dead end the last choice is taken back. Whoever chooses is a rule, or a language model whose logits are compared among the
offered continuations alone. The model never writes a word of its own, and no number at all.

A choice's weight under a model is the logarithm of its probability among what is offered: the texts of the choices are a trie
of tokens, and at each point where they part the model's logits are compared among the tokens that may follow. So a long
name is not punished for its length, and the probabilities of all choices add up to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from protocol.capabilities import PlanKind
from protocol.design_grammar import DesignGrammar, DesignRequest, Sketch
from protocol.errors import Reason, Refused
from protocol.planning_grammar import Choice, Draft, Pick, PlanGrammar, PlanRequest
from protocol.plans import Aim, Setting
from protocol.windows import Floats
from protocol.writing.decoder import Decoder

MOST_STEPS_BACK = 20_000
"""Choices tried for one plan or design; a family whose rules leave almost nothing may use them up."""
MOST_TOKENS = 8000
"""Fed to a model for one plan."""
NEVER = -1e9
Encode = Callable[[str], Sequence[int]]


class Said(Protocol):
    """What every draft can tell."""

    @property
    def path(self) -> tuple[Choice, ...]: ...
    @property
    def ended(self) -> bool: ...


D = TypeVar("D", bound=Said)
D_contra = TypeVar("D_contra", contravariant=True)


class Grammar(Protocol[D]):
    """What may be said next."""

    def start(self) -> D: ...
    def choices(self, draft: D) -> list[Choice]: ...
    def take(self, draft: D, choice: Choice) -> D: ...


class Chooser(Protocol[D_contra]):
    """Weighs what may follow."""

    def weigh(self, draft: D_contra, choices: Sequence[Choice]) -> Floats:
        """A weight for each choice; the largest is taken first, the earlier of equal ones."""
        ...


class Silent(Exception):  # noqa: N818
    """A model cannot choose: its context is full, its logits are no numbers, its tokenizer is another model's. Not an error
    of the program: rules choose instead."""


def decode(
    grammar: Grammar[D], chooser: Chooser[D], draw: np.random.Generator | None = None, most: int = MOST_STEPS_BACK
) -> D:
    """The first whole draft in the order of the weights, depth first. draw: choices are drawn from softmax(weights) instead.
    Raises Refused (NOT_ELIGIBLE) if there is none, or none within `most` choices; Silent as the chooser does."""
    draft = grammar.start()
    waiting: list[tuple[D, list[Choice]]] = []
    for _ in range(most):
        if draft.ended:
            return draft
        choices = grammar.choices(draft)
        ordered = _ordered(chooser, draft, choices, draw)
        while not ordered:
            if not waiting:
                raise Refused(
                    Reason.NOT_ELIGIBLE, "nothing keeps all rules and needs: ask for less, or widen the limits"
                )
            draft, ordered = waiting.pop()
        if len(ordered) > 1:
            waiting.append((draft, ordered[1:]))
        draft = grammar.take(draft, ordered[0])
    raise Refused(Reason.NOT_ELIGIBLE, f"nothing found in {most} choices: ask for less, or widen the limits")


def _ordered(chooser: Chooser[D], draft: D, choices: list[Choice], draw: np.random.Generator | None) -> list[Choice]:
    if len(choices) < 2:
        return choices
    weights = np.asarray(chooser.weigh(draft, choices), dtype=np.float64)
    if draw is not None:
        weights = weights + draw.gumbel(
            size=len(weights)
        )  # the order of draws without replacement from softmax(weights)
    return [choices[at] for at in np.argsort(-weights, kind="stable")]


@dataclass(frozen=True)
class PlanRules:
    """Chooses without a model: the best remedy, the operation that stands first in the catalogue, the first machine and tool,
    typical values, nothing optional. aim: what else it should be. remedy: only this one ("": as recommended). loose:
    machines, tools and the order of operations are equally good, for drawing alternatives."""

    grammar: PlanGrammar
    aim: Aim = Aim.USUAL
    remedy: str = ""
    loose: bool = False

    def weigh(self, draft: Draft, choices: Sequence[Choice]) -> Floats:
        """As `Chooser`."""
        pick = choices[0].pick
        if pick is Pick.REMEDY:
            return np.array([0.0 if c.name == self.remedy or not self.remedy else NEVER for c in choices])
        if pick is Pick.LEVEL:
            return self._level(draft, choices)
        if pick in (Pick.OPERATION, Pick.END) and draft.job is not None:
            wanted = draft.job.required | (draft.job.optional if self.aim is Aim.THOROUGH else frozenset())
            worth = np.array([0.0 if c.name in wanted else -20.0 if c.pick is Pick.END else NEVER for c in choices])
            return worth if self.loose else worth - 1e-3 * np.arange(len(choices))
        return np.zeros(len(choices))

    def _level(self, draft: Draft, choices: Sequence[Choice]) -> Floats:
        parameter = self.grammar.parameter(draft)
        away = np.array([abs(c.value - parameter.typical) for c in choices])
        if self.aim is not Aim.SHORT:
            return -1e3 * away / max(float(away.max()), 1e-12)
        told = [*draft.settings]
        takes = [
            self.grammar.minutes(draft.operation, [*told, Setting(parameter.name, c.value, parameter.unit)])
            for c in choices
        ]
        return -1e6 * np.array(takes) - 1e-3 * away / max(float(away.max()), 1e-12)


@dataclass(frozen=True)
class DesignRules:
    """Chooses without a model: values near the typical ones, the smallest, or the largest; loose: none is better."""

    grammar: DesignGrammar
    aim: Aim = Aim.USUAL
    loose: bool = False

    def weigh(self, draft: Sketch, choices: Sequence[Choice]) -> Floats:
        """As `Chooser`."""
        if self.loose or choices[0].pick is not Pick.LEVEL:
            return np.zeros(len(choices))
        places = np.arange(len(choices), dtype=np.float64)
        if self.aim in (Aim.SMALL, Aim.LARGE):
            return -1e3 * places if self.aim is Aim.SMALL else 1e3 * places
        typical = self.grammar.parameter(draft).typical
        return -1e3 * np.array([abs(c.value - typical) for c in choices])


class ModelChooser:
    """A language model chooses. prompt: what it is told before (`plan_prompt`, `design_prompt`); the texts of the choices so
    far follow it. Raises Silent where it cannot."""

    def __init__(self, decoder: Decoder, encode: Encode, prompt: str, most_tokens: int = MOST_TOKENS) -> None:
        self._decoder, self._encode, self._left = decoder, encode, most_tokens
        self._prompt = self._ids(prompt)
        self._held: list[int] = []
        decoder.rewind(0)

    def weigh(self, draft: Said, choices: Sequence[Choice]) -> Floats:
        """Log probabilities of the choices among themselves."""
        told = list(self._prompt)
        for choice in draft.path:
            told += self._ids(choice.text)
        weights = np.zeros(len(choices))
        self._part(told, [(at, self._ids(c.text)) for at, c in enumerate(choices)], 0, weights)
        return weights

    def _part(self, told: list[int], rest: list[tuple[int, list[int]]], depth: int, weights: Floats) -> None:
        """Goes down the trie of what is left of the choices' tokens; `depth` tokens of each are told already."""
        while True:
            branches: dict[int, list[tuple[int, list[int]]]] = {}
            for at, ids in rest:
                if depth < len(ids):
                    branches.setdefault(ids[depth], []).append((at, ids))
            if len(branches) != 1 or any(depth == len(ids) for _, ids in rest):
                break
            told = [*told, next(iter(branches))]
            depth += 1
        if not branches:
            return
        tokens = list(branches)
        logits = self._answer(told)[tokens]
        logits = logits - logits.max()
        logs = logits - np.log(np.exp(logits).sum())
        for token, log in zip(tokens, logs, strict=True):
            for at, _ in branches[token]:
                weights[at] += log
            if len(branches[token]) > 1:
                self._part([*told, token], branches[token], depth + 1, weights)

    def _answer(self, told: list[int]) -> Floats:
        """Logits [V] after these tokens; what the model already holds of them is not fed again."""
        same = 0
        while same < min(len(self._held), len(told) - 1) and self._held[same] == told[same]:
            same += 1
        fresh = told[same:]
        self._left -= len(fresh)
        if self._left < 0:
            raise Silent("more tokens than a plan may take")
        if len(told) > self._decoder.context:
            raise Silent(f"{len(told)} tokens do not fit the model's context of {self._decoder.context}")
        self._decoder.rewind(same)
        with np.errstate(invalid="ignore"):  # what is no number is seen below
            logits = np.asarray(self._decoder.feed(fresh)[-1], dtype=np.float64)
        self._held = list(told)
        if not np.isfinite(logits).all():
            raise Silent("the model's logits are no numbers: its file or its arithmetic is broken")
        return logits

    def _ids(self, text: str) -> list[int]:
        ids = list(self._encode(text))
        if not ids or not all(0 <= token < self._decoder.vocabulary for token in ids):
            raise Silent("the tokenizer makes nothing of the choices, or belongs to another model")
        return ids


def plan_prompt(request: PlanRequest) -> str:
    """What a model is told of a request: words of the catalogue and no free text."""
    if request.kind is PlanKind.PROCESS:
        return f"plan process {' '.join(request.product.split())}\n"
    about = " ".join([request.machine_type or "machine", request.failure or "failure"])
    return f"plan maintenance {' '.join(about.split())}\n"


def design_prompt(request: DesignRequest) -> str:
    """What a model is told of a request for a design: the family alone, its needs being numbers."""
    return f"design {' '.join(request.family.split())}\n"


def spoken(prompt: str, path: Sequence[Choice]) -> str:
    """A whole plan as a model says it: what one is trained on, from plans that people accepted."""
    return prompt + "".join(choice.text for choice in path)
