"""Answers that came after a table was trained: they show in the next list, and cost nothing once they are in the tables.

An answer says that an item was right (or wrong) for a case. It moves that item in cases like that one, by an exact amount
of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from protocol.tables.ranking import Ids, summed
from protocol.windows import Floats

MOST_ANSWERS = 500
MOST_TOKENS = 200
ANSWER = "answer:"


class LocalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`item` was right (value 1) or wrong (value -1) for a case known by `profile`; `weight`: how much it counts beside a
    work order. `id` stands for what was judged: a newer answer with the same id takes the place of the older one."""

    id: str
    profile: dict[str, float]
    item: str
    value: float
    weight: float
    time_ms: int

    @property
    def says_something(self) -> bool:
        """Whether there is a finite verdict on an item of a case that is known by something."""
        strong = 0.0 < abs(self.value) <= 1.0 and 0.0 < self.weight < math.inf
        return strong and bool(_tokens(self.profile))


@dataclass(frozen=True)
class LocalAnswers:
    """The newest answers after data_until_ms, oldest first; made by `local_answers`, one more by `plus`. Never changed."""

    answers: tuple[LocalAnswer, ...] = ()
    data_until_ms: int = 0
    _vocabulary: dict[str, int] = field(default_factory=dict, repr=False)
    _tokens: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.intp), repr=False)  # [T]
    _places: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.intp), repr=False)  # [T], which answer
    _strengths: Floats = field(default_factory=lambda: np.zeros(0), repr=False)  # [T], of unit length for each answer

    def __len__(self) -> int:
        return len(self.answers)

    def plus(self, answer: LocalAnswer) -> LocalAnswers:
        """These and one more: the oldest goes when there are too many."""
        if answer.time_ms <= self.data_until_ms or not answer.says_something:
            return self
        newest = not self.answers or _when(answer) > _when(self.answers[-1])
        if not newest or any(known.id == answer.id for known in self.answers):
            return local_answers((*self.answers, answer), self.data_until_ms)
        gone = len(self.answers) == MOST_ANSWERS
        kept = slice(int((self._places == 0).sum()) if gone else 0, None)
        vocabulary = dict(self._vocabulary)
        tokens, strengths = _coded(answer, vocabulary)
        place = len(self.answers) - gone
        return LocalAnswers(
            (*self.answers[gone:], answer),
            self.data_until_ms,
            vocabulary,
            np.concatenate([self._tokens[kept], tokens]),
            np.concatenate([self._places[kept] - gone, np.full(len(tokens), place, dtype=np.intp)]),
            np.concatenate([self._strengths[kept], strengths]),
        )

    def similarities(self, profile: Mapping[str, float], without: Collection[str] = frozenset()) -> Floats:
        """Cosine of a profile with each answer's [answers]; 0 for those in `without` ("answer:<id>") and for unlike ones."""
        asked = _tokens({name: s for name, s in profile.items() if name not in without})
        size = math.sqrt(math.fsum(s * s for s in asked.values()))
        if not size or not self.answers:
            return np.zeros(len(self.answers))
        strength = np.zeros(len(self._vocabulary))
        for name, s in asked.items():
            code = self._vocabulary.get(name)
            if code is not None:
                strength[code] = s / size
        cosine = summed(self._places, self._strengths * strength[self._tokens], len(self.answers))
        for place, answer in enumerate(self.answers) if without else ():
            if ANSWER + answer.id in without:
                cosine[place] = 0.0
        return np.asarray(np.clip(cosine, 0.0, 1.0))


class Moves:
    """What answers do to the items of one table. Items the table does not know are left alone.

    With V = the sum of cosine * value * weight over an item's answers, the item's score changes by best * V / (1 + |V|),
    where `best` is the best score on offer without answers: one answer of weight 3 to this very case moves its item by three
    quarters of it, contradicting answers cancel, and no number of answers moves it by more than `best`."""

    def __init__(self, answers: LocalAnswers, index: Mapping[str, int]) -> None:
        self.answers = answers
        at = [index.get(answer.item, -1) for answer in answers.answers]
        self._kept = np.array([place for place, i in enumerate(at) if i >= 0], dtype=np.intp)
        self.items, self._which = np.unique(np.array(at, dtype=np.intp)[self._kept], return_inverse=True)
        verdicts = [answer.value * answer.weight for answer in answers.answers]
        self._verdict = np.array(verdicts, dtype=np.float64)[self._kept]

    def shares(self, profile: Mapping[str, float], best: float, without: Collection[str]) -> AnswerShares:
        """What each answer adds for a profile."""
        cosine = self.answers.similarities(profile, without)[self._kept]
        said = cosine * self._verdict
        total = summed(self._which, said, len(self.items))
        amount = best * said / (1.0 + np.abs(total))[self._which]
        changes = summed(self._which, amount, len(self.items))
        return AnswerShares(self.items, changes, self.items[self._which], cosine, amount, self._kept)


@dataclass(frozen=True)
class AnswerShares:
    """`changes` of `items` [i], and of each answer [a]: its item, the cosine of its case, its amount, its place."""

    items: Ids
    changes: Floats
    item: Ids
    cosine: Floats
    amount: Floats
    place: Ids


def local_answers(answers: Iterable[LocalAnswer], data_until_ms: int = 0) -> LocalAnswers:
    """The newest MOST_ANSWERS after data_until_ms (older ones are in the tables already), one for each id; in whatever
    order they come. What says nothing (a value of 0, NaN, no profile) is left out."""
    newest: dict[str, LocalAnswer] = {}
    for answer in answers:
        if answer.time_ms > data_until_ms and answer.says_something:
            known = newest.get(answer.id)
            if known is None or _order(answer) > _order(known):
                newest[answer.id] = answer
    chosen = tuple(sorted(newest.values(), key=_when)[-MOST_ANSWERS:])
    vocabulary: dict[str, int] = {}
    coded = [_coded(answer, vocabulary) for answer in chosen]
    if not coded:
        return LocalAnswers(data_until_ms=data_until_ms)
    return LocalAnswers(
        chosen,
        data_until_ms,
        vocabulary,
        np.concatenate([tokens for tokens, _ in coded]),
        np.repeat(np.arange(len(coded)), [len(tokens) for tokens, _ in coded]),
        np.concatenate([strengths for _, strengths in coded]),
    )


def _when(answer: LocalAnswer) -> tuple[int, str]:
    return answer.time_ms, answer.id


def _order(answer: LocalAnswer) -> tuple[int, str, float, float, list[tuple[str, float]]]:
    return answer.time_ms, answer.item, answer.value, answer.weight, sorted(answer.profile.items())


def _tokens(profile: Mapping[str, float]) -> dict[str, float]:
    """What can be compared of a profile: finite strengths, the names in order."""
    named = sorted((name, float(s)) for name, s in profile.items() if math.isfinite(s) and abs(s) > 1e-9)
    return {name: max(-1e6, min(1e6, s)) for name, s in named[:MOST_TOKENS]}


def _coded(answer: LocalAnswer, vocabulary: dict[str, int]) -> tuple[Ids, Floats]:
    """Codes of an answer's tokens, new ones added to the vocabulary, and strengths of unit length."""
    known_by = _tokens(answer.profile)
    size = math.sqrt(math.fsum(s * s for s in known_by.values()))
    codes = [vocabulary.setdefault(name, len(vocabulary)) for name in known_by]
    return np.array(codes, dtype=np.intp), np.array([s / size for s in known_by.values()])
