"""Text to token ids and back, as a `tokenizer.json` says: byte-level BPE in the form of GPT-2, and WordPiece in the form of
BERT. A gateway needs no library for it, and the same file gives the same ids as Hugging Face's `tokenizers` (tested).

Byte-level BPE: Sennrich et al. 2016; Radford et al. 2019. WordPiece: Schuster & Nakajima 2012; Devlin et al. 2019. A text of
n characters takes n log n steps at most, whatever stands in it."""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.unreadable import UNREADABLE

MOST_BYTES = 16 * 1024 * 1024
MOST_TOKENS = 1_000_000
LONGEST_WORD = 100
"""WordPiece knows no longer word (BERT's own limit)."""
_MOST_IN_A_WORD = 1000
_KEPT, _LONGEST_KEPT = 20_000, 64
_SPACES = frozenset(
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_HAN = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_ACCENTS = "Mn"

Places = NDArray[np.int64]


class Added(msgspec.Struct, frozen=True):
    """A token that is found in the text as it stands."""

    id: Annotated[int, msgspec.Meta(ge=0, lt=MOST_TOKENS)]
    content: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    special: bool = True
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


class Model(msgspec.Struct, frozen=True, tag_field="type"):
    """What turns a word into tokens."""

    vocab: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=MOST_TOKENS)]]


class Bpe(Model, frozen=True, tag="BPE"):
    """Merges in the order in which they were learned, as "a b" or ["a", "b"]."""

    merges: list[str | tuple[str, str]] = []
    byte_fallback: bool = False
    ignore_merges: bool = False
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    dropout: float | None = None


class WordPiece(Model, frozen=True, tag="WordPiece"):
    """Pieces; those that continue a word begin with the prefix."""

    unk_token: str = "[UNK]"  # noqa: S105 - a token of text
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: Annotated[int, msgspec.Meta(ge=1, le=_MOST_IN_A_WORD)] = LONGEST_WORD


class File(msgspec.Struct, frozen=True):
    """A tokenizer.json, as far as it is read."""

    model: Bpe | WordPiece
    added_tokens: list[Added] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocabulary(self) -> int:
        """Number of ids V."""
        ...

    def encode(self, text: str) -> tuple[list[int], Places]:
        """ids [T], and the characters [T, 2] of the text that each stands for (exclusive end; 0, 0 for what frames it)."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of ids; what is no valid UTF-8 becomes U+FFFD."""
        ...

    def id_of(self, token: str) -> int | None:
        """The id of a token as the file spells it."""
        ...


def tokenizer(body: bytes) -> Tokenizer:
    """Reads a tokenizer.json. Raises BadBundle (too_large, bad_archive, unsupported_runtime) with the fact and the remedy."""
    if len(body) > MOST_BYTES:
        raise BadBundle(Reason.TOO_LARGE, f"a tokenizer.json of {len(body)} bytes; the limit is {MOST_BYTES}")
    try:
        file = msgspec.json.decode(body, type=File)
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"not a tokenizer.json of byte-level BPE or WordPiece: {error}") from error
    if not file.model.vocab:
        raise BadBundle(Reason.BAD_ARCHIVE, "the tokenizer knows no token")
    try:
        return BytePairs(file) if isinstance(file.model, Bpe) else WordPieces(file)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the tokenizer's parts do not fit together: {error!r}") from error


def golden_tokens(words: Tokenizer, texts: Sequence[str]) -> NDArray[np.int64]:
    """Ids of texts, one after another: what a bundle's golden vectors hold a tokenizer to."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(np.asarray(words.encode(one)[0]) for one in texts)]).astype(
        np.int64
    )


def _added(file: File, *, as_it_stands: bool) -> dict[str, int]:
    """Tokens that are found in a text before anything else. as_it_stands: nothing normalises it."""
    for one in file.added_tokens:
        if one.single_word or (one.lstrip and not one.special) or one.rstrip or (one.normalized and not as_it_stands):
            raise _unsupported(f"the added token {one.content!r} with conditions on what stands around it")
    return {one.content: one.id for one in file.added_tokens}


def _unsupported(what: str) -> BadBundle:
    return BadBundle(
        Reason.UNSUPPORTED_RUNTIME,
        f"the tokenizer has {what}, which gateways do not read: train one of GPT-2's or BERT's form for this model",
    )


class BytePairs:
    """Byte-level BPE: words are split as GPT-2 splits them, and their bytes merged, the earliest learned pair first."""

    def __init__(self, file: File) -> None:
        model = file.model
        assert isinstance(model, Bpe)  # noqa: S101 - `tokenizer` looked
        form = file.pre_tokenizer or {}
        if form.get("type") != "ByteLevel" or not form.get("use_regex", True) or form.get("add_prefix_space", True):
            raise _unsupported(f"the pre-tokenizer {form.get('type')!r} (ByteLevel without prefix space is known)")
        if file.normalizer is not None:
            raise _unsupported(f"the normalizer {file.normalizer.get('type')!r}")
        odd = model.byte_fallback, model.ignore_merges, model.continuing_subword_prefix, model.end_of_word_suffix
        if any(odd) or model.dropout:
            raise _unsupported("a variant of BPE")
        self._ids = model.vocab
        pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model.merges]
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._added = _added(file, as_it_stands=True)
        self._known: dict[str, list[tuple[int, int, int]]] = {}
        self._texts = {i: token for token, i in self._ids.items()} | {i: text for text, i in self._added.items()}
        self._written = frozenset(self._added.values())
        after = file.post_processor or {}
        self._trims = bool(after.get("type") in ("ByteLevel", "RobertaProcessing") and after.get("trim_offsets", True))
        self._spares = self._trims and bool(after.get("add_prefix_space", True))
        self._before, self._after = _framed(file.post_processor, self._ids | self._added)

    @property
    def vocabulary(self) -> int:
        """Number of ids V."""
        return max(self._texts) + 1

    def id_of(self, token: str) -> int | None:
        """The id of a token as the file spells it."""
        return self._added.get(token, self._ids.get(token))

    def encode(self, text: str) -> tuple[list[int], Places]:
        """ids [T] and characters [T, 2]. A lone surrogate is read as U+FFFD."""
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        for start, end, special in _around(text, self._added):
            if special is not None:
                ids.append(special)
                places.append((start, end))
                continue
            part = text[start:end] if (start, end) != (0, len(text)) else text
            for word, at in _words(part):
                for i, first, last in self._known.get(word) or self._pieces(word):
                    ids.append(i)
                    places.append((start + at + first, start + at + last))
        if self._trims:
            places = [self._trimmed(i, place, k) for k, (i, place) in enumerate(zip(ids, places, strict=True))]
        ids = [*self._before, *ids, *self._after]
        places = [*[(0, 0)] * len(self._before), *places, *[(0, 0)] * len(self._after)]
        return ids, np.array(places, dtype=np.int64).reshape(-1, 2)

    def _trimmed(self, i: int, place: tuple[int, int], k: int) -> tuple[int, int]:
        """A place without the spaces at its ends, but for the one that the file says to be put before a text."""
        token = self._texts[i]
        start, end = place
        spaces = _spaces(token)
        if (k == 0 or start == 0) and self._spares:
            spaces = max(spaces - 1, 0)
        start = min(start + spaces, end)
        after = _spaces(token[::-1])
        return start, max(end - after, start) if end >= after else end

    def _pieces(self, word: str) -> list[tuple[int, int, int]]:
        """(id, first, last character, exclusive) of a word's tokens."""
        raw = [_utf8(c) for c in word]
        owner = [i for i, some in enumerate(raw) for _ in some]
        found: list[tuple[int, int, int]] = []
        byte = 0
        for token in _merge([_spelled()[b] for some in raw for b in some], self._ranks):
            i = self._ids.get(token)
            if i is not None:  # bytes that the vocabulary lacks are left out, as the library does
                found.append((i, owner[byte], owner[byte + len(token) - 1] + 1))
            byte += len(token)
        if len(self._known) < _KEPT and len(word) < _LONGEST_KEPT:
            self._known[word] = found
        return found

    def piece(self, token: int) -> bytes:
        """The bytes that an id stands for, half a character perhaps; none for an id that is not used."""
        text = self._texts.get(token, "")
        return text.encode() if token in self._written else bytes(_unspelled().get(c, 0x3F) for c in text)

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        return b"".join(self.piece(i) for i in ids).decode("utf-8", errors="replace")


class WordPieces:
    """WordPiece: cleaned, split at spaces and punctuation, each word cut into the longest known pieces from the left."""

    def __init__(self, file: File) -> None:
        model = file.model
        assert isinstance(model, WordPiece)  # noqa: S101 - `tokenizer` looked
        normal, split = file.normalizer or {}, file.pre_tokenizer or {}
        if normal.get("type") != "BertNormalizer" or split.get("type") != "BertPreTokenizer":
            raise _unsupported(f"{normal.get('type')!r} and {split.get('type')!r} (BERT's own are known)")
        lower = bool(normal.get("lowercase", True))
        accents = normal.get("strip_accents")
        self._clean, self._han = bool(normal.get("clean_text", True)), bool(normal.get("handle_chinese_chars", True))
        self._lower, self._bare = lower, lower if accents is None else bool(accents)
        if model.unk_token not in model.vocab:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"the tokenizer's vocabulary lacks its unknown token {model.unk_token!r}"
            )
        self._ids, self._unknown = model.vocab, model.vocab[model.unk_token]
        self._added = _added(file, as_it_stands=False)
        self._known: dict[str, list[tuple[int, int, int]]] = {}
        self._normalised: dict[str, str] = {}
        self._prefix, self._longest = model.continuing_subword_prefix, model.max_input_chars_per_word
        self._texts = {i: token for token, i in self._ids.items()} | {i: text for text, i in self._added.items()}
        self._before, self._after = _framed(file.post_processor, self._ids | self._added)
        self._frame = frozenset((*self._before, *self._after))

    @property
    def vocabulary(self) -> int:
        """Number of ids V."""
        return max(self._texts) + 1

    def id_of(self, token: str) -> int | None:
        """The id of a token as the file spells it."""
        return self._added.get(token, self._ids.get(token))

    def encode(self, text: str) -> tuple[list[int], Places]:
        """ids [T] and characters [T, 2], between the tokens that frame a text."""
        ids, places = list(self._before), [(0, 0)] * len(self._before)
        for start, end, special in _around(text, self._added):
            if special is not None:
                ids.append(special)
                places.append((start, end))
                continue
            for word, origin in self._bert_words(text[start:end]):
                for i, first, last in self._known.get(word) or self._pieces(word):
                    ids.append(i)
                    places.append((start + origin[first], start + origin[last] + 1))
        ids += self._after
        places += [(0, 0)] * len(self._after)
        return ids, np.array(places, dtype=np.int64).reshape(-1, 2)

    def _pieces(self, word: str) -> list[tuple[int, int, int]]:
        """(id, first, last character, inclusive) of a word's pieces: the longest that fits, again and again."""
        found: list[tuple[int, int, int]] = []
        start = 0
        while start < len(word) <= self._longest:
            end = len(word)
            prefix = self._prefix if start else ""
            while end > start and prefix + word[start:end] not in self._ids:
                end -= 1
            if end == start:
                break
            found.append((self._ids[prefix + word[start:end]], start, end - 1))
            start = end
        if start < len(word):
            found = [(self._unknown, 0, len(word) - 1)]
        if len(self._known) < _KEPT and len(word) < _LONGEST_KEPT:
            self._known[word] = found
        return found

    def _bert_words(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """Words, and for each of their characters where it came from."""
        word: list[str] = []
        origin: list[int] = []
        for at, character in enumerate(text):
            for c in self._normal_of(character):
                alone = c in _SPACES or _is_punctuation(c)
                if alone and word:
                    yield "".join(word), origin
                    word, origin = [], []
                if not alone:
                    word.append(c)
                    origin.append(at)
                elif c not in _SPACES:
                    yield c, [at]
        if word:
            yield "".join(word), origin

    def _normal_of(self, c: str) -> str:
        known = self._normalised.get(c)
        if known is None:
            known = self._normal(c)
            if len(self._normalised) < _KEPT:
                self._normalised[c] = known
        return known

    def _normal(self, c: str) -> str:
        if self._clean:
            if c in "\t\n\r":
                return " "
            if c in "\0\ufffd" or unicodedata.category(c) in _CONTROL:
                return ""
            c = " " if c in _SPACES else c
        around = " " if self._han and _is_han(c) else ""
        if self._bare:
            c = "".join(part for part in unicodedata.normalize("NFD", c) if unicodedata.category(part) != _ACCENTS)
        return around + (c.lower() if self._lower else c) + around

    def decode(self, ids: list[int]) -> str:
        """The words of ids, a space between them; what frames a text is left out."""
        made = ""
        for i in ids:
            token = self._texts.get(i, "")
            if i in self._frame or not token:
                continue
            made += (
                token[len(self._prefix) :]
                if token.startswith(self._prefix) and made
                else f" {token}"
                if made
                else token
            )
        return made


_CONTROL = frozenset(("Cc", "Cf", "Co", "Cs"))


def _spaces(token: str) -> int:
    """How many characters at its beginning stand for a space."""
    return next((n for n, c in enumerate(token) if c != "\u0120" and not c.isspace()), len(token))


def _around(text: str, added: dict[str, int]) -> Iterator[tuple[int, int, int | None]]:
    """(start, end, id of an added token or None) of the stretches of a text; at each place the longest added token wins."""
    if not added:
        if text:
            yield 0, len(text), None
        return
    lengths = sorted({len(one) for one in added}, reverse=True)
    first = frozenset(one[0] for one in added)
    start = at = 0
    while at < len(text):
        if text[at] in first:
            size = next((n for n in lengths if text[at : at + n] in added), 0)
            if size:
                if at > start:
                    yield start, at, None
                yield at, at + size, added[text[at : at + size]]
                start = at = at + size
                continue
        at += 1
    if start < len(text):
        yield start, len(text), None


def _words(text: str) -> Iterator[tuple[str, int]]:
    """Words as GPT-2 splits them, each with its place: endings such as 's; an optional space and a run of letters, of numbers
    or of other signs; a run of spaces but for the one that the next word takes."""
    at, n = 0, len(text)
    while at < n:
        end = _end_of_word(text, at)
        yield text[at:end], at
        at = end


def _end_of_word(text: str, at: int) -> int:
    n = len(text)
    if text[at] == "'":
        ending = next((e for e in _ENDINGS if text.startswith(e, at)), "")
        if ending:
            return at + len(ending)
    begin = at + 1 if text[at] == " " and at + 1 < n else at
    kind = _kind(text[begin])
    if kind != " ":
        end = begin + 1
        while end < n and _kind(text[end]) == kind:
            end += 1
        return end
    end = at + 1
    while end < n and _kind(text[end]) == " ":
        end += 1
    return end if end == n or end == at + 1 else end - 1


@lru_cache(maxsize=_KEPT)
def _kind(c: str) -> str:
    """ "L" a letter, "N" a number, " " a space, "S" another sign."""
    if c in _SPACES:
        return " "
    major = unicodedata.category(c)[0]
    return major if major in "LN" else "S"


def _utf8(c: str) -> bytes:
    return c.encode("utf-8") if not "\ud800" <= c <= "\udfff" else b"\xef\xbf\xbd"


def _merge(parts: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """Merges neighbours, the best rank first and of equal ones the left one, until none is known."""
    count = len(parts)
    after = [*range(1, count), -1]
    before = [-1, *range(count - 1)]
    waiting = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
    heapq.heapify(waiting)
    while waiting:
        rank, i = heapq.heappop(waiting)
        j = after[i]
        if not parts[i] or j < 0 or ranks.get((parts[i], parts[j])) != rank:
            continue  # one of the two has been merged meanwhile
        parts[i], parts[j] = parts[i] + parts[j], ""
        after[i] = after[j]
        if after[j] >= 0:
            before[after[j]] = i
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right >= 0 and (parts[left], parts[right]) in ranks:
                heapq.heappush(waiting, (ranks[parts[left], parts[right]], left))
    return [part for part in parts if part]


@cache
def _spelled() -> list[str]:
    """The character that stands for each byte: printable ones for themselves, the rest from U+0100 on (GPT-2)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


@cache
def _unspelled() -> dict[str, int]:
    return {c: b for b, c in enumerate(_spelled())}


@lru_cache(maxsize=_KEPT)
def _is_punctuation(c: str) -> bool:
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c)[0] == "P"


@lru_cache(maxsize=_KEPT)
def _is_han(c: str) -> bool:
    return any(low <= ord(c) <= high for low, high in _HAN)


def _framed(form: dict[str, Any] | None, ids: dict[str, int]) -> tuple[list[int], list[int]]:
    """Ids before and after a text."""
    kind = None if form is None else form.get("type")
    if form is None or kind == "ByteLevel":
        return [], []
    if kind in ("BertProcessing", "RobertaProcessing"):
        frame = int(form["cls"][1]), int(form["sep"][1])
        if not set(frame) <= set(ids.values()):
            raise BadBundle(Reason.BAD_ARCHIVE, "the tokenizer frames texts with tokens that its vocabulary lacks")
        return [frame[0]], [frame[1]]
    if kind != "TemplateProcessing":
        raise _unsupported(f"the post-processor {kind!r}")
    before: list[int] = []
    after: list[int] = []
    side = before
    for part in form["single"]:
        if "Sequence" in part:
            side = after
        else:
            name = part["SpecialToken"]["id"]
            if name not in ids:
                raise BadBundle(Reason.BAD_ARCHIVE, f"the tokenizer's vocabulary lacks {name!r}")
            side.append(ids[name])
    return before, after
