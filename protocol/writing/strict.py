"""A language model chooses among the wordings that the facts license, and can say nothing else.

The licensed wordings of a section are a trie of tokens: every clause in its order, a mandatory one always, an optional one
said or left out, a section never empty. Where more than one token may follow, the model's logits choose; where only one may,
it is appended without a call and fed together with the next call that is needed (jump-forward). So whatever the logits are,
what comes out is a row of licensed wordings (`Walk` admits nothing else), and a section without a choice costs nothing.

A choice is made token by token among the tokens that may follow, the largest logit winning and the earlier wording where
two are equal. Of the model's probabilities only those are compared, renormalised over what may follow; a token without an
alternative counts 1. So a wording is not punished for being long: its probability is the product over the points where it
parts from the others, and the probabilities of all licensed sections add up to one. `ways_on` gives that distribution
for one clause.

A limit reached (tokens, time, the model's context), ids that the model does not know and logits that are not numbers end
the section with a reason; the caller then writes it from the template."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from protocol.writing.decoder import Decoder, feeding
from protocol.writing.facts import Language
from protocol.writing.frames import Clause, wordings
from protocol.writing.prompt import words

Encode = Callable[[str], Sequence[int]]
Pick = Callable[[NDArray[np.float32]], int]
"""Logits of the tokens that may follow [n] -> index of the chosen one."""
Path = tuple[tuple[int, int], ...]
"""(clause, wording) by index, in order; what is left out is absent."""
LEFT_OUT = -1
_NOT_NUMBERS = "the model's logits are not numbers: its file or its arithmetic is broken"


class Why(StrEnum):
    """Why a section fell to the template."""

    NO_WRITER = "no_writer"
    NOT_PREFERRED = "not_preferred"
    NOT_TAUGHT = "not_taught"
    TIME = "time"
    TOKENS = "tokens"
    CONTEXT = "context"
    TOKENIZER = "tokenizer"
    LOGITS = "logits"
    PROSE = "prose"
    REFUSED = "refused"
    NOTHING = "nothing"


class Stopped(Exception):  # noqa: N818 - no fault of the program: the template takes over
    """No section came about; `why` is counted and shown."""

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why = why


@dataclass(eq=False, slots=True)
class Node:
    """A place between two tokens of a clause's wordings: which may follow, and which wordings end here."""

    children: dict[int, Node] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    _tail: tuple[tuple[int, ...], Node] | None = None

    def tail(self) -> tuple[tuple[int, ...], Node]:
        """The tokens from here to the next place with a choice or an end, and that place. Kept: for a whole trie."""
        if self._tail is None:
            tokens: list[int] = []
            node = self
            while len(node.children) == 1 and not node.ends:
                ((token, node),) = node.children.items()
                tokens.append(token)
            self._tail = tuple(tokens), node
        return self._tail


@dataclass(frozen=True, slots=True)
class Turn:
    """A clause that may be said: the trie of its wordings."""

    clause: str
    wordings: tuple[tuple[int, ...], ...]
    optional: bool
    root: Node


def turn(clause: Clause, language: Language, encode: Encode, *, optional: bool) -> Turn:
    """A clause's wordings as tokens. Raises Stopped for a wording that the tokenizer makes nothing of."""
    ids = tuple(tuple(encode(words(text, language))) for text in wordings(clause, language))
    if not all(ids):
        raise Stopped(
            Why.TOKENIZER, f"a wording of {clause.id} has no tokens: the tokenizer does not fit the catalogue"
        )
    root = Node()
    for index, row in enumerate(ids):
        node = root
        for token in row:
            node = node.children.setdefault(token, Node())
        node.ends.append(index)
    return Turn(clause.id, ids, optional, root)


_Place = tuple[int, Node, Path]


class Walk:
    """Where in a section's licensed wordings the tokens so far may stand. One wording may be the beginning of another, or two
    clauses begin alike: then they stand at several places at once, until a token decides."""

    def __init__(self, turns: Sequence[Turn], end: int) -> None:
        self._turns, self._end = turns, end
        self.said: Path | None = None
        self._options: dict[int, list[_Place]] = {}
        self._open((), 0, nothing_yet=True)

    @property
    def allowed(self) -> list[int]:
        """Tokens that may follow, in the order of the catalogue; none once the section has ended."""
        return list(self._options)

    def settled(self, k: int) -> int | None:
        """Which wording of clause k was said, `LEFT_OUT` if none was; None while the tokens so far leave it open."""
        if self.said is not None:
            return dict(self.said).get(k, LEFT_OUT)
        ways = {
            dict(path).get(k, LEFT_OUT) if at > k else None
            for places in self._options.values()
            for at, _, path in places
        }
        return ways.pop() if len(ways) == 1 else None

    def step(self, token: int) -> None:
        """Goes on with a token. Raises ValueError for one that may not follow."""
        places = self._options.get(token)
        if places is None:
            raise ValueError(f"token {token} may not follow here")
        if token == self._end:
            self._options, self.said = {}, places[0][2]
        else:
            self._arrive(places)

    def run(self) -> list[int]:
        """Goes on as long as nothing is left open, and says with which tokens; none where there is a choice."""
        if len(self._options) != 1:
            return []
        ((token, places),) = self._options.items()
        if token == self._end or len(places) > 1:
            self.step(token)
            return [token]
        ((k, node, path),) = places
        tokens, there = node.tail()
        self._arrive([(k, there, path)])
        return [token, *tokens]

    def _arrive(self, places: Sequence[_Place]) -> None:
        """What may follow at these places."""
        self._options = {}
        for k, node, path in places:
            for child, after in node.children.items():
                self._add(child, k, after, path)
            for wording in node.ends:
                self._open((*path, (k, wording)), k + 1, nothing_yet=False)

    def _open(self, path: Path, first: int, *, nothing_yet: bool) -> None:
        """Adds what may begin once `path` is said: the next clauses up to the first mandatory one, or the end."""
        for k in range(first, len(self._turns)):
            for child, after in self._turns[k].root.children.items():
                self._add(child, k, after, path)
            if not self._turns[k].optional:
                return
        if not nothing_yet:
            self._options.setdefault(self._end, []).append((len(self._turns), Node(), path))

    def _add(self, token: int, k: int, node: Node, path: Path) -> None:
        """Of two ways to the same place the first is kept: what may follow is the same."""
        places = self._options.setdefault(token, [])
        if not any(at == k and there is node for at, there, _ in places):
            places.append((k, node, path))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one report, both languages together. tokens: written or begun; seconds: on the clock that is passed in."""

    seconds: float = 1.5
    tokens: int = 2000


class Budget:
    """What is left of a report's limits."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._until = clock() + limits.seconds
        self._left = limits.tokens

    def spend(self, tokens: int) -> None:
        """Raises Stopped once more is written than allowed."""
        self._left -= tokens
        if self._left < 0:
            raise Stopped(Why.TOKENS, f"more than {self._limits.tokens} tokens: allow more, or shorten the wordings")

    def check_time(self) -> None:
        """Raises Stopped once time is up; asked before every call of the model."""
        if self._clock() >= self._until:
            raise Stopped(Why.TIME, f"not done within {self._limits.seconds} s: allow more time, or a smaller model")


class Pen:
    """Feeds a decoder as late as possible: appended ids wait until an answer is needed."""

    def __init__(self, decoder: Decoder, budget: Budget) -> None:
        self.decoder, self.budget = decoder, budget
        self._feed = feeding(decoder)
        self.waiting: list[int] = []
        self.calls = 0

    @property
    def length(self) -> int:
        """Tokens fed and waiting."""
        return self.decoder.length + len(self.waiting)

    def append(self, ids: Sequence[int]) -> None:
        """Writes ids without asking."""
        self.waiting += ids

    def answer(self) -> NDArray[np.float32]:
        """Logits [V] for what follows everything written. Raises Stopped."""
        self.budget.check_time()
        if self.length > self.decoder.context:
            raise Stopped(Why.CONTEXT, f"{self.length} tokens do not fit the model's context of {self.decoder.context}")
        if not all(0 <= token < self.decoder.vocabulary for token in self.waiting):
            raise Stopped(
                Why.TOKENIZER,
                f"token {max(self.waiting)} is none of the model's {self.decoder.vocabulary}: "
                "the tokenizer belongs to another model",
            )
        try:
            logits = self._feed(self.waiting)
        except ValueError as error:
            raise Stopped(Why.REFUSED, f"the model did not take {len(self.waiting)} tokens: {error}") from error
        self.calls += 1
        if logits.shape not in ((len(self.waiting), self.decoder.vocabulary), (1, self.decoder.vocabulary)):
            raise Stopped(Why.LOGITS, f"logits {logits.shape} for {len(self.waiting)} tokens")
        self.waiting = []
        return np.asarray(logits[-1], dtype=np.float32)

    def rewind(self, length: int) -> None:
        """Forgets what was written beyond `length`."""
        fed = self.decoder.length
        self.waiting = self.waiting[: max(length - fed, 0)]
        if length < fed:
            self.decoder.rewind(length)


def choose(pen: Pen, turns: Sequence[Turn], end: int, pick: Pick | None = None) -> Path:
    """One section: writes its tokens and their end, and says which wordings they are. Raises Stopped."""
    walk = begin(pen, turns, end)
    while walk.said is None:
        tokens = walk.run()
        if not tokens:
            tokens = [walk.allowed[_picked(pen, walk.allowed, pick)]]
            walk.step(tokens[0])
        pen.budget.spend(len(tokens))
        pen.append(tokens)
    return walk.said


def begin(pen: Pen, turns: Sequence[Turn], end: int) -> Walk:
    """Raises Stopped where a section has no clause, or its tokens do not fit the model."""
    if not turns:
        raise Stopped(Why.NOTHING, "no clause of this section may be said")
    top = max(max(ids) for each in turns for ids in each.wordings)
    if top >= pen.decoder.vocabulary or not 0 <= end < pen.decoder.vocabulary:
        raise Stopped(Why.TOKENIZER, f"tokens {top}, end {end}: the model knows {pen.decoder.vocabulary}")
    if any(end in ids for each in turns for ids in each.wordings):
        raise Stopped(Why.TOKENIZER, f"a wording holds the end token {end}: the tokenizer belongs to another model")
    return Walk(turns, end)


def greedy(logits: NDArray[np.float32]) -> int:
    """The largest; the first of equals."""
    return int(np.argmax(logits))


def sampled(draw: np.random.Generator, temperature: float) -> Pick:
    """Draws from softmax(logits / temperature)."""

    def pick(logits: NDArray[np.float32]) -> int:
        chances = np.exp(log_softmax(logits / temperature))
        return int(draw.choice(len(logits), p=chances / chances.sum()))

    return pick


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Over the last axis; a largest logit of +inf takes all."""
    wide = np.clip(np.asarray(logits, dtype=np.float64), -1e30, 1e30)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))


def _picked(pen: Pen, allowed: Sequence[int], pick: Pick | None) -> int:
    logits = pen.answer()[allowed]
    if np.isnan(logits).any():
        raise Stopped(Why.LOGITS, _NOT_NUMBERS)
    return (pick or greedy)(logits)


@dataclass(frozen=True, slots=True)
class WayOn:
    """What may be said about a clause. chances: the probability of each wording and, last, of leaving it out (0 where it is
    mandatory). chosen: what `greedy` says, an index into them."""

    chances: NDArray[np.float64]
    chosen: int


def ways_on(pen: Pen, turns: Sequence[Turn], end: int, said: Path, k: int) -> WayOn:
    """What the model thinks of each way to go on with clause k of a section, of which `said` came before. The pen stands at
    the section's beginning, and does so again afterwards. Raises Stopped."""
    start = pen.length
    walk = begin(pen, turns, end)
    for token in (token for clause, wording in said for token in turns[clause].wordings[wording]):
        walk.step(token)
        pen.append([token])
    chances, chosen = np.zeros(len(turns[k].wordings) + 1), LEFT_OUT
    for way, chance, first in _ways(pen, walk, k, 1.0, True):
        chances[way] += chance
        chosen = way if first else chosen
    pen.rewind(start)
    return WayOn(chances, chosen % len(chances))


def _ways(pen: Pen, walk: Walk, k: int, chance: float, first: bool) -> Iterator[tuple[int, float, bool]]:
    """(wording of clause k, its probability, is it what `greedy` takes) of every way on."""
    while (way := walk.settled(k)) is None and (tokens := walk.run()):
        pen.append(tokens)
    if way is not None:
        yield way, chance, first
        return
    allowed = walk.allowed
    logits = pen.answer()[allowed]
    if np.isnan(logits).any():
        raise Stopped(Why.LOGITS, _NOT_NUMBERS)
    chances, best, here = np.exp(log_softmax(logits)), greedy(logits), pen.length
    for index, token in enumerate(allowed):
        onward = copy.copy(walk)
        onward.step(token)
        pen.rewind(here)
        pen.append([token])
        yield from _ways(pen, onward, k, chance * float(chances[index]), first and index == best)
