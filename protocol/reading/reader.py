"""A note is read: what it is, with a calibrated chance or "I am not sure"; what it names; what was alike; and why.

For each question the parts' scores are added: words (`WordModel`), the encoder's vector (a linear head) and the votes of past
cases, each with a weight learned on notes that the parts had not seen; a softmax of the sum is the calibrated chance. The
reader is sure only from the chance on at which it was measured to be right often enough, only of a text of which it knows
something, and only in a language that it was measured on.

What a person corrected counts at once: a corrected note speaks for its class by TAUGHT log odds times its likeness to the
fourth power, so that the same words are read as corrected and a distant note hardly moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, BadMessage, Reason
from protocol.names import stable_id
from protocol.reading.cases import PAST, Cases, CaseWeights, Found, agreed, read_past, votes
from protocol.reading.encoder import Encoded, Encoder
from protocol.reading.normalise import Normaliser
from protocol.reading.notes import About, Class, Entity, Judged, LikeNote, Note, NoteReading, PastNote, ReaderSpec
from protocol.reading.spans import SpanTagger
from protocol.reading.words import MOST_CHARACTERS, Counted, Shape, WordModel, stretches
from protocol.reports import Contribution, ModelRef
from protocol.tables.checked import Tables, table
from protocol.unreadable import UNREADABLE
from protocol.windows import Floats

WORDS, ENCODER, CASES = "words", "encoder", "cases"
MOST_CLASSES = 10
MOST_WORDS = 50
MOST_LIKE = 5
LEAST_KNOWN = 0.2
"""Of what a text weighs, the share that training has met, below which nothing is sure: some 3 in 100 real notes have less."""
SAME = 0.95
"""A text so like a corrected note is known."""
LEAST_LIKE = 0.05
TAUGHT = 6.0
TAUGHT_SHARPNESS = 4.0
_HAN = ("一", "鿿")


@dataclass(frozen=True)
class Seen:
    """A text as each part sees it; encoded None: no encoder."""

    text: str
    counted: Counted
    encoded: Encoded | None
    found: list[Found]


@dataclass(frozen=True)
class Decided:
    """Of one question: logits [C] and chances [C]; which class is first and which second; the first one's lead is
    baseline + sum(units) + sum(named), exactly: units [U] of the text, and parts that cannot be told from its words."""

    logits: Floats
    chances: Floats
    first: int
    second: int
    baseline: float
    units: Floats
    named: dict[str, float]


Entities = Callable[[str], Sequence[Entity]]
"""What a text names."""
WrittenOut = Callable[[str], str]
"""A text written out in full."""


class Reader:
    """The tables of a note reader's bundle, and what was added to its past cases since.

    `read_ABOUT_mix` float [3]: weights of words, encoder and cases. `read_ABOUT_bias` float [C]. `encoder_ABOUT_weights` int8
    [d, C], `encoder_ABOUT_scale` float [d], `encoder_ABOUT_bias` float [C]: the encoder's head. `cases_vectors` int8 [N, d],
    `cases_scale` float [N]: the encoder's vectors of the past notes. The words' and the cases' tables are theirs."""

    def __init__(
        self,
        spec: ReaderSpec,
        tables: Tables,
        texts: Mapping[str, bytes],
        encoder: Encoder | None = None,
        *,
        entities: Entities | None = None,
        normaliser: WrittenOut | None = None,
    ) -> None:
        if spec.width and (encoder is None or encoder.width != spec.width):
            raise BadBundle(Reason.BAD_ARCHIVE, f"the reader needs an encoder of width {spec.width}")
        self.spec = spec
        self._encoder = encoder if spec.width else None
        self._words = WordModel(tables, spec.classes)
        self._mix: dict[str, Floats] = {}
        self._bias: dict[str, Floats] = {}
        self._head: dict[str, tuple[Floats, Floats]] = {}
        for about, names in spec.classes.items():
            self._load(tables, about, len(names))
        self.cases = _cases(tables, texts, self._words.vocabulary.shape)
        self._entities, self._normaliser = entities, normaliser

    def _load(self, tables: Tables, about: str, many: int) -> None:
        mix = np.asarray(table(tables, f"read_{about}_mix", "f", (3,)), dtype=np.float64)
        self._mix[about] = mix
        self._bias[about] = np.asarray(table(tables, f"read_{about}_bias", "f", (many,)), dtype=np.float64)
        if mix[0] and about not in self._words.abouts:
            raise BadBundle(Reason.BAD_ARCHIVE, f"words decide {about}, and their weights are missing")
        if mix[1]:
            width = self.spec.width
            weights = table(tables, f"encoder_{about}_weights", "i", (width, many))
            scale = np.asarray(table(tables, f"encoder_{about}_scale", "f", (width,)), dtype=np.float64)
            bias = np.asarray(table(tables, f"encoder_{about}_bias", "f", (many,)), dtype=np.float64)
            self._head[about] = (weights.astype(np.float64) * scale[:, None], bias)

    def teach(self, past: PastNote) -> None:
        """A past note from now on; one of the same case is replaced."""
        self.cases.add(past, None if self._encoder is None else self._encoder.encode(past.text).whole)

    def see(self, text: str) -> Seen:
        """Raises BadMessage (too_large) for a text beyond what a note can hold."""
        if len(text) > MOST_CHARACTERS:
            raise BadMessage(
                Reason.TOO_LARGE,
                f"a note of {len(text)} characters: {MOST_CHARACTERS} can be read; send its first part",
            )
        encoded = None if self._encoder is None else self._encoder.encode(text)
        found = self.cases.nearest(text, None if encoded is None else encoded.whole)
        return Seen(text, self._words.counted(text), encoded, found)

    def decide(self, about: str, seen: Seen) -> Decided:
        """What the parts say together."""
        classes = self.spec.classes[about]
        words, encoder, cases = (float(w) for w in self._mix[about])
        bias = self._bias[about].copy()
        if words:
            bias += words * self._words.bias(about)
        voters = seen.found[: self.cases.weights.nearest]
        said = votes(voters, about, classes, self.cases.weights.sharpness) * cases + taught(voters, about, classes)
        whole = bias + said.sum(axis=0)
        if words:
            whole = whole + words * (self._words.scores(about, seen.counted) - self._words.bias(about))
        if encoder and seen.encoded is not None:
            weights, level = self._head[about]
            bias += encoder * level
            whole = whole + encoder * (seen.encoded.whole @ weights + level)
        first, second = _best_two(whole)
        units = np.zeros(len(seen.counted.units.words))
        if words:
            step = self._words.weights(about, seen.counted.ids)
            units += seen.counted.by_unit(words * seen.counted.values * (step[:, first] - step[:, second]))
        named: dict[str, float] = {}
        if encoder and seen.encoded is not None:
            weights, _ = self._head[about]
            told, rest = _by_token(seen, encoder * (weights[:, first] - weights[:, second]))
            units += told
            named |= {ENCODER: rest} if rest else {}
        for found, amount in zip(voters, said[:, first] - said[:, second], strict=True):
            shared = float(found.shared.sum())
            if amount and shared > 0:
                units += amount * found.shared / shared
            elif amount:
                named[f"like:{found.past.case}"[:128]] = float(amount)
        return Decided(whole, softmax(whole), first, second, float(bias[first] - bias[second]), units, named)

    def judged(self, about: About, seen: Seen) -> Judged:
        """One question answered."""
        decided = self.decide(about, seen)
        names = self.spec.classes[about]
        order = np.argsort(-decided.chances, kind="stable")[:MOST_CLASSES]
        chance = float(decided.chances[decided.first])
        because = [
            Contribution(f"{start}:{end}", amount)
            for start, end, amount in stretches(seen.counted.units, decided.units)
        ]
        because += [Contribution(name, amount) for name, amount in decided.named.items()]
        return Judged(
            about=about,
            classes=[Class(names[i], min(float(decided.chances[i]), 1.0)) for i in order],
            sure=chance >= self.spec.sure_from.get(about, 1.0) and self.may_be_sure(seen),
            score=float(decided.logits[decided.first] - decided.logits[decided.second]),
            baseline=decided.baseline,
            words=sorted(because, key=lambda one: -abs(one.amount))[:MOST_WORDS],
        )

    def may_be_sure(self, seen: Seen) -> bool:
        """Enough of the text is known, and it is written in a language that was measured."""
        told = any(one.past.taught and one.similarity >= SAME for one in seen.found[:MOST_LIKE])
        if seen.counted.known < LEAST_KNOWN and not told:
            return False
        han = sum(_HAN[0] <= c <= _HAN[1] for c in seen.text)
        letters = sum(c.isalpha() for c in seen.text)
        language = "zh" if 2 * han > letters else "en"
        return not self.spec.languages or language in self.spec.languages

    def read(self, note: Note, now_ms: int, model: ModelRef, *, name: str = "") -> NoteReading:
        """What is understood of a note. Raises BadMessage for a text that is too long."""
        seen = self.see(note.text)
        near = [one for one in seen.found if one.similarity >= LEAST_LIKE]
        alike = agreed(near, self.cases.weights.sharpness)[:MOST_LIKE]
        if near and near[0] not in alike:
            alike[-1] = near[0]  # whatever fixed it: the most alike one is always shown
        return NoteReading(
            id=name or stable_id("reading", note.id, model.digest, now_ms),
            note=note.id,
            machine=note.machine,
            issued_ms=now_ms,
            judged=[self.judged(about, seen) for about in About if about in self.spec.classes],
            entities=[] if self._entities is None else list(self._entities(note.text))[:100],
            normalised="" if self._normaliser is None else self._normaliser(note.text)[:4000],
            like=[_like(one) for one in alike],
            model=model,
        )

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """In: `texts` uint8 (JSON list of texts). Out: `ABOUT` float [n, C], chances; `like` float [n], likeness of the
        nearest past note."""
        texts = read_golden_texts(inputs["texts"])
        seen = [self.see(text) for text in texts]
        answers: Tables = {
            about: np.stack([self.decide(about, one).chances for one in seen])
            for about in self.spec.classes
            if about in outputs
        }
        answers["like"] = np.array([max((f.similarity for f in one.found), default=0.0) for one in seen])
        return answers


def reader_of(spec: ReaderSpec, tables: Tables, texts: Mapping[str, bytes], encoder: Encoder | None = None) -> Reader:
    """The reader of a bundle, with whatever finds entities and writes shorthand out that lies in it. Raises BadBundle."""
    tagger = SpanTagger(tables) if "spans_classes" in tables else None
    if tagger is not None and list(tagger.classes) != list(spec.entities):
        raise BadBundle(Reason.BAD_ARCHIVE, f"the passport names entities {spec.entities}, the tables {tagger.classes}")
    return Reader(
        spec,
        tables,
        texts,
        encoder,
        entities=None if tagger is None else tagger.entities,
        normaliser=Normaliser(tables, texts).normalise if "norm_weights" in tables else None,
    )


def taught(found: Sequence[Found], about: str, classes: Sequence[str]) -> Floats:
    """[K, C] log odds: what people corrected."""
    said = np.zeros((len(found), len(classes)))
    for k, one in enumerate(found):
        name = one.past.said.get(about, "")
        if one.past.taught and name in classes:
            said[k, classes.index(name)] = TAUGHT * max(one.similarity, 0.0) ** TAUGHT_SHARPNESS
    return said


def _by_token(seen: Seen, lead: Floats) -> tuple[Floats, float]:
    """(what each unit [U] gives to whole @ lead by its tokens, what is left of it). A text's vector points where the sum of
    its tokens' vectors points: each token gives the part that it adds to that sum; what the sum does not explain, and tokens
    outside every word, are left."""
    encoded, places = seen.encoded, seen.counted.units.places
    units = np.zeros(len(places))
    if encoded is None:
        return units, 0.0
    total = float(encoded.whole @ lead)
    together = encoded.tokens.sum(axis=0)
    size = float(together @ together)
    if len(places) and len(encoded.tokens) and size > 0:
        gives = encoded.tokens @ lead * (float(encoded.whole @ together) / size)
        at = np.searchsorted(places[:, 0], encoded.places[:, 0], side="right") - 1
        inside = (at >= 0) & (encoded.places[:, 0] < places[np.maximum(at, 0), 1])
        units += np.bincount(at[inside], gives[inside], len(units))
    rest = total - float(units.sum())
    return units, rest if abs(rest) > 1e-12 else 0.0


def softmax(logits: Floats) -> Floats:
    """Chances [..., C]."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _best_two(logits: Floats) -> tuple[int, int]:
    order = np.argsort(-logits, kind="stable")
    return int(order[0]), int(order[min(1, len(order) - 1)])


def _like(one: Found) -> LikeNote:
    return LikeNote(
        case=one.past.case,
        similarity=max(min(one.similarity, 1.0), -1.0),
        text=one.past.text,
        failure=one.past.said.get(About.FAILURE, ""),
        fixed_by=one.past.fixed_by,
    )


def _cases(tables: Tables, texts: Mapping[str, bytes], shape: Shape) -> Cases:
    past = read_past(texts[PAST]) if PAST in texts else []
    if not past:
        return Cases([], shape=shape)
    vectors: Floats | None = None
    if "cases_vectors" in tables:
        packed = table(tables, "cases_vectors", "i", (len(past), None))
        scale = np.asarray(table(tables, "cases_scale", "f", (len(past),)), dtype=np.float64)
        vectors = packed.astype(np.float64) * scale[:, None]
    return Cases(past, CaseWeights.of(tables), vectors, shape)


def golden_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as an array of a bundle's golden inputs."""
    return np.frombuffer(msgspec.json.encode(list(texts)), dtype=np.uint8)


def read_golden_texts(packed: NDArray[np.generic]) -> list[str]:
    """Raises BadBundle."""
    try:
        return msgspec.json.decode(packed.tobytes(), type=list[str])
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"golden texts cannot be read: {error}") from error
