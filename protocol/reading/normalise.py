"""Shorthand becomes words: "PH639 REPL 2x HYD HOSE'S" is read as "<id> replace <num> x hydraulic hoses".

Each token of a text gets candidates: what people wrote for it before (as it stands, in lower case, with its digits masked, by
its shape), its parts at slashes, hyphens and changes from letters to digits, known words one slip of the pen away (Damerau
1964), words that it abbreviates, what it makes together with its neighbour, and itself. A log-linear model (Berger, Della
Pietra & Della Pietra 1996; learned in `server/algorithms/shorthand.py`) ranks them by where they come from, how often each
was right, and by the words beside them, from left to right. Identifiers, numbers and names become masks as in the MaintNorm
scheme (Bikaun et al. 2024): <id>, <num>, <date>, <sensitive>; they are masked in the normalised text only, which is for
searching and comparing: the note itself keeps them.

Bounded: MOST_TOKENS tokens of LONGEST_TOKEN characters are looked at, MOST_CANDIDATES candidates of each; the rest and
Chinese stay as they are written."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import numpy as np

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.unreadable import UNREADABLE

MOST_CHARACTERS = 4000
MOST_TOKENS = 400
LONGEST_TOKEN = 40
MOST_CANDIDATES = 24
MOST_WORDS = 200_000
PLACES = 1 << 16
"""Hashed features."""
MEMORY = "normaliser.json"
PREFIX = "norm_"
MASKS = frozenset({"<id>", "<num>", "<date>", "<sensitive>"})
SAME, LOWER, OTHER = "\x01same", "\x01lower", "\x01other"
RARE = 3
"""A token met less often than this is also compared with known words."""
_HAN = re.compile("[一-鿿㐀-䶿]")
_DIGITS = re.compile(r"\d+")
_SEPARATED = re.compile(r"[/&+\-,;:]+")
_BOUNDARY = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[a-z])(?=[A-Z])")
_SPELLED = {"/": " / ", "-": " - ", "&": " and ", "+": " and ", ",": " , ", ";": " ; ", ":": " : "}
_VOWELS = frozenset("aeiou")
Outcomes = dict[str, int]
"""What a token became, and how often."""


class Memory(msgspec.Struct, frozen=True):
    """What was written for what. seen, folded, patterns: by the token as it stands, in lower case, in lower case with runs of
    digits as 0; shapes: by its shape, with SAME and LOWER for what it became. joined: two tokens that were one word. words,
    pairs: the written words and pairs of neighbours, counted. longest: characters of the longest text; where a form holds no
    more, last words are cut there."""

    seen: dict[str, Outcomes]
    folded: dict[str, Outcomes]
    patterns: dict[str, Outcomes]
    shapes: dict[str, Outcomes]
    joined: dict[str, Outcomes]
    words: dict[str, int]
    pairs: dict[str, int]
    longest: int = 0


def remember(texts: Sequence[Sequence[tuple[str, str]]]) -> Memory:
    """From texts of (token, what it became)."""
    levels: tuple[dict[str, Counter[str]], ...] = tuple(defaultdict(Counter) for _ in range(5))
    words: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    seen, folded, patterns, shapes, joined = levels
    for text in texts:
        written = ["^"]
        for i, (raw, norm) in enumerate(text):
            seen[raw][norm] += 1
            folded[raw.lower()][norm] += 1
            shapes[shape(raw)][abstract(raw, norm)] += 1
            if pattern(raw) != raw.lower():
                patterns[pattern(raw)][norm] += 1
            if i and not norm and text[i - 1][1]:
                joined[f"{text[i - 1][0].lower()} {raw.lower()}"][text[i - 1][1]] += 1
            written += norm.split()
        words.update(word for word in written[1:] if word not in MASKS)
        pairs.update(f"{a} {b}" for a, b in zip(written, [*written[1:], "$"], strict=True))
    kept = ({key: dict(c.most_common(8)) for key, c in level.items()} for level in levels)
    said, folded_said, patterned, shaped, together = kept
    longest = max((length([raw for raw, _ in text]) for text in texts), default=0)
    return Memory(said, folded_said, patterned, shaped, together, dict(words), dict(pairs), longest)


def length(tokens: Sequence[str]) -> int:
    """Characters of a text of tokens with a space between."""
    return sum(map(len, tokens)) + len(tokens) - 1


@lru_cache(maxsize=20_000)
def shape(raw: str) -> str:
    """Runs of capitals, small letters and digits as A, a and 0; other characters as they are."""
    made = ""
    for c in raw[:LONGEST_TOKEN]:
        kind = "0" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c
        if not made.endswith(kind):
            made += kind
    return made


def pattern(raw: str) -> str:
    """Lower case, each run of digits as 0: "POS4" and "pos12" are one."""
    return _DIGITS.sub("0", raw.lower())


def abstract(raw: str, norm: str) -> str:
    """What happened to a token, without its letters."""
    if norm == raw:
        return SAME
    if norm == raw.lower():
        return LOWER
    return norm if not norm or all(word in MASKS or not word.isalpha() for word in norm.split()) else OTHER


@dataclass
class Candidates:
    """Of one token: candidate -> the sources that propose it."""

    sources: dict[str, set[str]] = field(default_factory=dict)

    def add(self, norm: str, source: str) -> None:
        """One more, while there is room."""
        known = self.sources.get(norm)
        if known is not None:
            known.add(source)
        elif len(self.sources) < MOST_CANDIDATES:
            self.sources[norm] = {source}


class Lexicon:
    """Memory with its indices: what can be meant by a token."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        known = set(memory.words) | {key for key in memory.folded if key.isalpha()}
        self._slips: dict[str, list[str]] = defaultdict(list)
        self._initial: dict[str, list[str]] = defaultdict(list)
        for word in sorted(known, key=lambda w: (-memory.words.get(w, 0), w)):
            if 3 <= len(word) <= LONGEST_TOKEN // 2 and word.isalpha():
                for variant in _deletions(word.lower()):
                    self._slips[variant].append(word)
            if memory.words.get(word, 0) > 1 and word.isalpha() and len(word) > 3:
                self._initial[word[0]].append(word)
        self._total = {id(level): {key: sum(c.values()) for key, c in level.items()} for level in self._levels()}
        self._written: dict[str, str] = {}

    def _levels(self) -> tuple[dict[str, Outcomes], ...]:
        m = self.memory
        return m.seen, m.folded, m.patterns, m.shapes, m.joined

    def share(self, level: dict[str, Outcomes], key: str, norm: str) -> tuple[int, int]:
        """(how often the key became norm, how often it was met)."""
        found = level.get(key)
        return (0, 0) if found is None else (found.get(norm, 0), self._total[id(level)][key])

    def met(self, raw: str) -> int:
        """How often a token was met, whatever its case."""
        return self._total[id(self.memory.folded)].get(raw.lower(), 0)

    def candidates(self, tokens: Sequence[str], i: int, before: str) -> Candidates:
        """Of token i, where `before` is what the token before it became."""
        m, raw = self.memory, tokens[i]
        low, found = raw.lower(), Candidates()
        found.add(low, "lower")
        found.add(raw, "same")
        for level, key, source in (
            (m.seen, raw, "seen"),
            (m.folded, low, "folded"),
            (m.patterns, pattern(raw), "pattern"),
        ):
            for norm in level.get(key, ()):
                found.add(norm, source)
        for norm in m.shapes.get(shape(raw), ()):
            if norm not in (SAME, LOWER, OTHER):
                found.add(norm, "shape")
        if any(c.isdigit() for c in raw):
            found.add("<id>", "mask")
            found.add("<num>", "mask")
        self._neighbours(tokens, i, before, found)
        if self.met(raw) < RARE:
            for norm in self._parts(raw):
                found.add(norm, "parts")
            self._slipped(low, found)
            self._abbreviated(low, found)
        return found

    def _neighbours(self, tokens: Sequence[str], i: int, before: str, found: Candidates) -> None:
        low = tokens[i].lower()
        if i + 1 < len(tokens):
            after = tokens[i + 1].lower()
            for norm in self.memory.joined.get(f"{low} {after}", ()):
                found.add(norm, "joined")
            for norm in (low + after, f"{low}-{after}"):
                if norm in self.memory.words:
                    found.add(norm, "together")
        if i and (self.follows(tokens, i, before) or before == "<id>" or not before):
            found.add("", "followed")

    def follows(self, tokens: Sequence[str], i: int, before: str) -> bool:
        """Whether the token before already stands for this one."""
        if not i:
            return False
        first, low = tokens[i - 1].lower(), tokens[i].lower()
        known = self.memory.joined.get(f"{first} {low}", {})
        return before in known or before in (first + low, f"{first}-{low}")

    def written(self, part: str) -> str:
        """The likeliest reading of a part of a token, without its neighbours."""
        known = self._written.get(part)
        if known is None:
            known = self._read(part)
            if len(self._written) < 20_000:
                self._written[part] = known
        return known

    def _read(self, part: str) -> str:
        m = self.memory
        for level, key in ((m.seen, part), (m.folded, part.lower()), (m.patterns, pattern(part))):
            for norm in level.get(key, ()):
                if norm:
                    return norm
        if any(c.isdigit() for c in part):
            return next((n for n in m.shapes.get(shape(part), ()) if n in MASKS), "<num>" if part.isdigit() else "<id>")
        return part.lower()

    def _parts(self, raw: str) -> Iterator[str]:
        """Readings of a token that holds several words."""
        if _SEPARATED.search(raw):
            yield self._separated(raw)
        for cut in list(_BOUNDARY.finditer(raw))[:4]:
            left, right = raw[: cut.start()], raw[cut.start() :]
            yield f"{self.written(left)} {self.written(right)}"
        low = raw.lower()
        if low.isalpha() and len(low) >= 5:
            for cut_at in range(2, len(low) - 1):
                if self._known(low[:cut_at]) and self._known(low[cut_at:]):
                    yield f"{self.written(low[:cut_at])} {self.written(low[cut_at:])}"
        if "'" in raw or "’" in raw:
            yield re.sub("['’]", "", low)
        bare = re.sub(r"[^\w<>]+$|^[^\w<>]+", "", raw)
        if bare and bare != raw:
            yield self.written(bare)

    def _separated(self, raw: str) -> str:
        made, at = "", 0
        for found in _SEPARATED.finditer(raw):
            made += self._words_of(raw[at : found.start()]) + _SPELLED[found[0][0]]
            at = found.end()
        return " ".join((made + self._words_of(raw[at:])).split())

    def _words_of(self, part: str) -> str:
        if not part:
            return ""
        cut = _BOUNDARY.search(part)
        if cut and part not in self.memory.seen and shape(part) not in self.memory.shapes:
            return f"{self.written(part[: cut.start()])} {self.written(part[cut.start() :])}"
        return self.written(part)

    def _known(self, word: str) -> bool:
        return self.memory.words.get(word, 0) > 1 or self.met(word) > 1

    def _slipped(self, low: str, found: Candidates) -> None:
        if not 3 <= len(low) <= LONGEST_TOKEN // 2:
            return
        near = {word for variant in _deletions(low) for word in self._slips.get(variant, ())[:8]}
        for word in sorted(near, key=lambda w: (-self.memory.words.get(w, 0) - self.met(w), w))[:6]:
            found.add(self.written(word) if word not in self.memory.words else word, "slip")

    def _abbreviated(self, low: str, found: Candidates) -> None:
        if not 2 <= len(low) <= 10 or not low.isalpha():
            return
        words = self._initial.get(low[0], ())
        for word in [w for w in words if w.startswith(low) and w != low][:4]:
            found.add(word, "prefix")
        for word in [w for w in words if len(w) > len(low) and not w.startswith(low) and _within(low, w)][:4]:
            found.add(word, "letters")


def _deletions(word: str) -> set[str]:
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _within(short: str, word: str) -> bool:
    rest = iter(word)
    return all(c in rest for c in short)


def kind(raw: str, norm: str) -> str:
    """What a candidate does to its token."""
    made = abstract(raw, norm)
    if made != OTHER:
        return made
    return "several" if " " in norm else "word"


@lru_cache(maxsize=50_000)
def edit(low: str, norm: str) -> str:
    """What was changed between two spellings: "swap" for the same letters, else "where:from>to"."""
    if sorted(low) == sorted(norm):
        return "swap"
    start = 0
    while start < min(len(low), len(norm)) and low[start] == norm[start]:
        start += 1
    end = 0
    while end < min(len(low), len(norm)) - start and low[-1 - end] == norm[-1 - end]:
        end += 1
    left, right = low[start : len(low) - end], norm[start : len(norm) - end]
    if len(left) > 2 or len(right) > 2:
        left, right = str(min(len(left), 6)), str(min(len(right), 6))
    return f"{'end' if not end else 'in' if start else 'start'}:{left}>{right}"


DENSE = (
    "share",
    "met",
    "folded",
    "pattern",
    "shape",
    "before",
    "after",
    "rare",
    "joined",
    "parted",
    "likeness",
    "first",
)


class Ranking:
    """Features of a token's candidates: places of those that are there or not, and numbers."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def features(
        self, tokens: Sequence[str], i: int, before: str, norm: str, sources: set[str]
    ) -> tuple[list[int], list[float]]:
        """(hashed places, DENSE numbers) of one candidate."""
        return (
            [
                zlib.crc32(name.encode(errors="replace")) % PLACES
                for name in self._named(tokens, i, before, norm, sources)
            ],
            self._numbers(tokens, i, before, norm),
        )

    def _named(self, tokens: Sequence[str], i: int, before: str, norm: str, sources: set[str]) -> Iterator[str]:
        raw = tokens[i]
        left = tokens[i - 1] if i else "^"
        right = tokens[i + 1] if i + 1 < len(tokens) else "$"
        what, form = kind(raw, norm), shape(raw)
        met = min(self.lexicon.met(raw), 3)
        place = self._place(tokens, i)
        for source in sources:
            yield f"s:{source}:{met}"
            yield f"sk:{source}:{what}"
        yield "ss:" + ",".join(sorted(sources))
        yield f"k:{what}:{met}"
        yield f"kf:{what}:{form}"
        yield f"kl:{what}:{min(len(raw), 9)}:{form}"
        yield f"kp:{what}:{place}"
        yield f"kpf:{what}:{place}:{form}"
        yield f"kL:{what}:{shape(left)}"
        yield f"kR:{what}:{shape(right)}"
        yield f"kfL:{what}:{form}:{left.lower()}"
        yield f"kfR:{what}:{form}:{right.lower()}"
        yield f"kb:{what}:{before if before in MASKS else bool(before)}"
        if what == "word" and met < RARE:
            changed = edit(raw.lower(), norm)
            yield f"e:{changed}"
            yield f"ep:{place}:{changed}"
            yield f"em:{changed[:4]}:{min(len(raw), 9)}:{norm in self.lexicon.memory.words}"
        yield f"y:{norm}"
        yield f"yx:{norm}:{raw.lower()}"
        yield f"yL:{norm}:{left.lower()}"
        yield f"yR:{norm}:{right.lower()}"
        yield f"yB:{norm}:{before}"
        yield f"yR2:{norm}:{tokens[i + 2].lower() if i + 2 < len(tokens) else '$'}"
        yield f"yC:{norm}:{form}"
        yield f"ky:{what}:{raw.lower()[-3:]}"
        if not norm:
            yield f"j:{self.lexicon.follows(tokens, i, before)}"
            yield f"jL:{left.lower()}:{raw.lower()}"
        for word in tokens[max(i - 3, 0) : i + 4]:
            yield f"yw:{norm}:{word.lower()}"

    def _place(self, tokens: Sequence[str], i: int) -> str:
        if i < len(tokens) - 1:
            return "inside" if i else "first"
        return "cut" if length(tokens) >= self.lexicon.memory.longest - 1 else "last" if i else "only"

    def _numbers(self, tokens: Sequence[str], i: int, before: str, norm: str) -> list[float]:
        m, raw = self.lexicon.memory, tokens[i]
        seen, folded, patterned, shaped = (
            self.lexicon.share(level, key, outcome)
            for level, key, outcome in (
                (m.seen, raw, norm),
                (m.folded, raw.lower(), norm),
                (m.patterns, pattern(raw), norm),
                (m.shapes, shape(raw), abstract(raw, norm)),
            )
        )
        words = norm.split()
        last = before.split()[-1] if before else "^" if not i else "?"
        right = self.lexicon.written(tokens[i + 1]).split()[:1] if i + 1 < len(tokens) else ["$"]
        joined = (
            self.lexicon.share(m.joined, f"{raw.lower()} {tokens[i + 1].lower()}", norm)[0]
            if i + 1 < len(tokens)
            else 0
        )
        parted = bool(i) and self.lexicon.follows(tokens, i, before)
        return [
            _odds(*seen),
            math.log1p(seen[1]) * _odds(*seen),
            _odds(*folded),
            _odds(*patterned),
            _odds(*shaped),
            math.log1p(m.pairs.get(f"{last} {words[0]}", 0)) if words else 0.0,
            math.log1p(m.pairs.get(f"{words[-1]} {right[0]}", 0)) if words and right else 0.0,
            math.log1p(min((m.words.get(w, 0) for w in words if w not in MASKS), default=0)),
            math.log1p(joined),
            float(parted and not norm) - float(parted and bool(norm)),
            _alike(raw.lower(), norm),
            float(bool(words) and bool(raw) and words[0][0] == raw[0].lower()),
        ]


def _odds(times: int, of: int) -> float:
    """Log odds of a share, drawn towards even; 0 where nothing was met."""
    return math.log((times + 0.3) / (of - times + 0.3)) if of else 0.0


@lru_cache(maxsize=50_000)
def _alike(a: str, b: str) -> float:
    """Share of pairs of neighbouring characters that two words have in common (Dice 1945)."""
    first, second = (Counter(w[k : k + 2] for k in range(len(w) - 1)) for w in (f"^{a}$", f"^{b}$"))
    total = sum(first.values()) + sum(second.values())
    return 2.0 * sum((first & second).values()) / total


class Normaliser:
    """`norm_weights` int8 [PLACES] and `norm_scale` float [1]: weights of hashed features; `norm_dense` float [12]: of the
    numbers DENSE. The text member MEMORY holds what was written for what. Raises BadBundle."""

    def __init__(self, tables: Tables, texts: Mapping[str, bytes]) -> None:
        weights = table(tables, "norm_weights", "i", (PLACES,))
        scale = table(tables, "norm_scale", "f", (1,))
        self._weights = weights.astype(np.float64) * float(scale[0])
        self._dense = np.asarray(table(tables, "norm_dense", "f", (len(DENSE),)), dtype=np.float64)
        if MEMORY not in texts:
            raise BadBundle(Reason.BAD_ARCHIVE, f"a normaliser needs the text member {MEMORY}: train and seal it again")
        self._ranking = Ranking(Lexicon(read_memory(texts[MEMORY])))

    def normalise(self, text: str) -> str:
        """The text in full words; what lies beyond the bounds is left as it is."""
        tokens = text[:MOST_CHARACTERS].split()
        made = [*self.tokens(tokens[:MOST_TOKENS]), *tokens[MOST_TOKENS:]]
        return " ".join(word for word in made if word) + text[MOST_CHARACTERS:]

    def tokens(self, tokens: Sequence[str]) -> list[str]:
        """What each token becomes; "" where it is part of the word before."""
        made: list[str] = []
        for i, raw in enumerate(tokens):
            made.append(self._chosen(tokens, i, made[-1] if made else ""))
            if raw and not made[-1] and not i:
                made[-1] = raw
        return made

    def _chosen(self, tokens: Sequence[str], i: int, before: str) -> str:
        raw = tokens[i]
        if len(raw) > LONGEST_TOKEN or _HAN.search(raw):
            return raw
        found = self._ranking.lexicon.candidates(tokens, i, before)
        scores = [self._score(tokens, i, before, norm, sources) for norm, sources in found.sources.items()]
        return list(found.sources)[int(np.argmax(scores))]

    def _score(self, tokens: Sequence[str], i: int, before: str, norm: str, sources: set[str]) -> float:
        places, numbers = self._ranking.features(tokens, i, before, norm, sources)
        return float(self._weights[places].sum() + self._dense @ np.array(numbers))


def read_memory(body: bytes) -> Memory:
    """Raises BadBundle."""
    try:
        memory = msgspec.json.decode(body, type=Memory)
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{MEMORY} cannot be read: {error}") from error
    if max(len(memory.folded), len(memory.words), len(memory.seen)) > MOST_WORDS:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{MEMORY} holds more than {MOST_WORDS} words: train it on less")
    return memory
