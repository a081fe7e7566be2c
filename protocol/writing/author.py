"""One report's writer, where a language model is at hand: strict, or free and then strict, and the template where neither
came about. Which way each section took is kept, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from protocol.reading.tokens import BytePairs, Tokenizer
from protocol.reports import ModelRef
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import Fact, Language, Mode, Said, Span
from protocol.writing.frames import Clause, Frames, markers, parts, slots, wordings
from protocol.writing.free import Alphabet, alphabet, compose
from protocol.writing.prompt import lead, prefix
from protocol.writing.realise import Alternatives, say, template
from protocol.writing.strict import Budget, Encode, Limits, Pen, Pick, Stopped, Turn, Why, choose, turn
from protocol.writing.verify import complaints_of

FREE_SHARE = 0.5
"""Of a report's time and tokens, what free prose may use up; the rest is for writing strictly what failed."""
FREE_SECTION_TOKENS = 200
Place = tuple[str, Language]
_Words = tuple[Language, tuple[str, ...]]


@dataclass(frozen=True)
class LanguageModel:
    """A model that can write, loaded once. encode: its tokenizer, nothing added to the text; pieces: the bytes that each
    token stands for (needed in free mode); mode: STRICT or FREE; pick: how a token is chosen (None: the likeliest)."""

    decoder: Decoder
    encode: Encode
    spec: WriterSpec
    ref: ModelRef
    mode: Mode = Mode.STRICT
    pieces: Sequence[bytes] = ()
    limits: Limits = field(default_factory=Limits)
    pick: Pick | None = None
    _turns: dict[_Words, Turn] = field(default_factory=dict, repr=False, compare=False)
    _alphabets: list[Alphabet] = field(default_factory=list, repr=False, compare=False)

    def why_not(self, document: str) -> Why | None:
        """Why it does not write a kind of document; None: it does."""
        if document not in self.spec.documents:
            return Why.NOT_TAUGHT
        return None if self.spec.prefer.get(document, False) else Why.NOT_PREFERRED

    def turn(self, clause: Clause, language: Language, *, optional: bool) -> Turn:
        """A clause's wordings as tokens; made once."""
        key = (language, tuple(wordings(clause, language)))
        if key not in self._turns:
            self._turns[key] = turn(clause, language, self.encode, optional=optional)
        return replace(self._turns[key], clause=clause.id, optional=optional)

    def alphabet(self) -> Alphabet:
        """What its tokens stand for; judged once."""
        if not self._alphabets:
            self._alphabets.append(alphabet(self.pieces, self.spec.end))
        return self._alphabets[0]


def language_model(
    decoder: Decoder, words: Tokenizer, spec: WriterSpec, ref: ModelRef, mode: Mode = Mode.STRICT
) -> LanguageModel:
    """A bundle's parts as a model that can write. Raises ValueError for a tokenizer that cannot give a text back."""
    if not isinstance(words, BytePairs):
        raise ValueError("a writer needs a byte-level tokenizer: others change what they read")
    pieces = [words.piece(token) for token in range(spec.vocabulary)]
    return LanguageModel(decoder, lambda text: words.encode(text)[0], spec, ref, mode, pieces)


class Author:
    """Answers every section of one report (`realise.Writer`). fell: why a section is the template's; rejected: what was
    wrong with prose that was then written strictly."""

    def __init__(self, model: LanguageModel, frames: Frames, facts: Sequence[Fact], clock: Callable[[], float]) -> None:
        self.fell: dict[Place, Stopped] = {}
        self.rejected: dict[Place, str] = {}
        self._model = model
        limits = model.limits
        self._whole = Budget(limits, clock)
        self._free = Budget(Limits(limits.seconds * FREE_SHARE, int(limits.tokens * FREE_SHARE)), clock)
        model.decoder.rewind(0)
        self._pen = Pen(model.decoder, self._whole)
        self._pen.append(model.encode(prefix(frames, facts)))
        self._start = self._pen.length
        self._prose: dict[str, Said] = {}

    @property
    def calls(self) -> int:
        """How often the model was asked."""
        return self._pen.calls

    def __call__(self, asked: Alternatives) -> Said:
        """One section in one language; never raises Stopped."""
        place = (asked.section, asked.language)
        if self._model.mode is Mode.FREE:
            said = self._tried_freely(asked, place)
            if said is not None:
                return said
        try:
            return self._strictly(self._as_told(asked))
        except Stopped as stopped:
            self.fell[place] = stopped
            return template(asked)

    def _strictly(self, asked: Alternatives) -> Said:
        self._begin(asked, self._whole)
        turns = [
            self._model.turn(clause, asked.language, optional=asked.may_omit(at))
            for at, clause in enumerate(asked.clauses)
        ]
        path = dict(choose(self._pen, turns, self._model.spec.end, self._model.pick))
        return say(asked, [path.get(at) for at in range(len(turns))], Mode.STRICT)

    def _tried_freely(self, asked: Alternatives, place: Place) -> Said | None:
        """Prose that was read back and found true, or None. Chinese says what English prose said, or nothing."""
        told = self._prose.get(asked.section)
        if asked.language == "zh" and told is None:
            return None
        try:
            said = self.prose(asked)
        except Stopped as stopped:
            self.rejected[place] = str(stopped)
            return None
        complaints = complaints_of(asked, said)
        if complaints or (told is not None and _shown(told) != _shown(said)):
            self.rejected[place] = str(complaints[0]) if complaints else "the two languages say different facts"
            return None
        self._prose[asked.section] = said
        return said

    def prose(self, asked: Alternatives) -> Said:
        """A section in the model's own words, slots filled, nothing verified. Raises Stopped."""
        self._begin(asked, self._free)
        text = compose(
            self._pen,
            self._model.alphabet(),
            self._model.encode,
            insertions(asked),
            self._model.spec.end,
            FREE_SECTION_TOKENS,
            self._model.pick,
        )
        return filled(asked, text)

    def _begin(self, asked: Alternatives, budget: Budget) -> None:
        self._pen.rewind(self._start)
        self._pen.budget = budget
        self._pen.append(self._model.encode(lead(asked.section, asked.language)))

    def _as_told(self, asked: Alternatives) -> Alternatives:
        """Beside English prose, only clauses that show the same facts."""
        told = self._prose.get(asked.section)
        if asked.language != "zh" or told is None:
            return asked
        shown = {asked.facts.all[fact].key for fact in _shown(told)}
        names = [
            clause.id
            for at, clause in enumerate(asked.clauses)
            if not asked.may_omit(at) or (slots(clause.zh[0]) and shown.issuperset(slots(clause.zh[0])))
        ]
        return asked.only(names)


def insertions(asked: Alternatives) -> list[str]:
    """What free prose of a section may insert, each once: the slots of its clauses and their marks of evidence."""
    first = [wordings(clause, asked.language)[0] for clause in asked.clauses]
    keys = dict.fromkeys(key for text in first for key in slots(text))
    marks = dict.fromkeys(number for text in first for number in markers(text))
    return [*(f"<{key}>" for key in keys), *(f"[{number}]" for number in marks)]


def filled(asked: Alternatives, prose: str) -> Said:
    """Prose with its slots filled; a claim of nothing before it was verified. Raises Refused where a fact cannot be shown."""
    text, spans = "", []
    for number, part in enumerate(parts(prose)):
        shown = asked.facts.text(part, asked.language) if number % 2 else part
        if number % 2:
            spans.append(Span(len(text), len(text) + len(shown), asked.facts.at[part]))
        text += shown
    return Said(text=text, spans=spans, mode=Mode.FREE)


def _shown(said: Said) -> set[int]:
    return {span.fact for span in said.spans}


def why(author: Author) -> dict[str, int]:
    """Reason -> how many sections fell to the template for it."""
    return dict(Counter(stopped.why.value for stopped in author.fell.values()))
