"""A small language model that learns to write fault reports, for benchmarks: minutes on one core, nothing kept.

Its tokenizer and first training see reports of made cases (`fault_cases.made_case`, other seeds than any that is judged) in
which every clause has a random one of its wordings and every optional clause is left out by the toss of a coin: it learns the
catalogue's language and has no taste. Then it is fine-tuned on reports that a person left (`edited_reports`, the training
part). Both as (prompt, target) pairs, the target alone teaching."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from edited_reports import Edited, texts
from fault_cases import made_case
from numpy.typing import NDArray
from tokenizers import Tokenizer

from protocol.reports import ModelRef
from protocol.writing.author import LanguageModel
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import LANGUAGES, Fact, Language, Mode
from protocol.writing.fault_report import facts_of
from protocol.writing.frames import TITLE, slots, wordings
from protocol.writing.prompt import lead, prefix, words
from protocol.writing.realise import BETWEEN, Facts, licensed
from protocol.writing.strict import Limits
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.training.language import Examples, LoopSettings, learn, next_token_loss

FIRST_SEED = 1_000_000
VOCABULARY, CONTEXT = 1200, 320
SHAPE = {"layers": 4, "heads": 4, "width": 128}
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """How long it learns. cases: made reports; steps: of the first training; tuning: of the fine-tuning (chosen by the log-
    likelihood of every fourth edited report of the training part, left out for it: it no longer grew after that)."""

    cases: int
    steps: int
    tuning: int
    batch: int = 16
    rate: float = 2e-3
    tuning_rate: float = 5e-4


FULL = Lesson(cases=400, steps=500, tuning=120)
QUICK = Lesson(cases=60, steps=40, tuning=20)


class SmallWriter:
    """A tokenizer and a network."""

    def __init__(self, tokenizer: Tokenizer, net: Gpt) -> None:
        self.tokenizer, self.net = tokenizer, net
        self.end = int(tokenizer.token_to_id(byte_pairs.END))
        self.pieces = [piece(tokenizer, token) for token in range(net.settings.vocabulary)]

    def encode(self, text: str) -> list[int]:
        """Token ids, nothing added."""
        return byte_pairs.encode(self.tokenizer, text)

    def model(self, decoder: Decoder, mode: Mode = Mode.STRICT, seconds: float = 60.0) -> LanguageModel:
        """As a gateway loads it, behind any decoder of its vocabulary."""
        s = self.net.settings
        spec = WriterSpec(
            layers=s.layers,
            kv_heads=s.kv,
            head_width=s.each,
            vocabulary=s.vocabulary,
            context=s.context,
            end=self.end,
            documents=[FAULT_REPORT.document],
            prefer={FAULT_REPORT.document: True},
        )
        ref = ModelRef("writer", "gpt", 1)
        return LanguageModel(decoder, self.encode, spec, ref, mode, self.pieces, Limits(seconds, 20_000))


def piece(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a token of a byte-level vocabulary."""
    text = tokenizer.id_to_token(token)
    if text is None:
        return b""
    return text.encode() if text.startswith("<") and text.endswith(">") else bytes(_BYTES[c] for c in text)


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for code points from 256 on."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_letters()


def taught(edited: Sequence[Edited], lesson: Lesson, say: Callable[[str], None], seed: int = 7) -> SmallWriter:
    """Tokenizer, first training, fine-tuning on the edited reports."""
    made = [row for number in range(lesson.cases) for row in random_report(FIRST_SEED + number)]
    keys = sorted({key for clause in FAULT_REPORT.clauses for key in slots(clause.en[0])})
    tokenizer = byte_pairs.learn(
        (prompt + text for prompt, text in made), VOCABULARY, [f"<{key}>" for key in keys]
    )
    net = Gpt(GptSettings(vocabulary=tokenizer.get_vocab_size(), context=CONTEXT, dropout=0.1, seed=seed, **SHAPE))
    writer = SmallWriter(tokenizer, net)
    for name, rows, steps, rate in (
        ("made reports", made, lesson.steps, lesson.rate),
        ("edited reports", [row for each in edited for row in left_by_people(each)], lesson.tuning, lesson.tuning_rate),
    ):
        if steps:
            examples = Examples([as_pair(writer, *row) for row in rows], pad=1, length=CONTEXT, batch=lesson.batch, seed=seed)
            learn(net, next_token_loss, examples, [], _loop(steps, rate, seed), lambda share, text: None)
            say(f"learned from {len(rows)} sections of {name} in {steps} steps")
    return writer


def _loop(steps: int, rate: float, seed: int) -> LoopSettings:
    return LoopSettings(steps=steps, learning_rate=rate, device="cpu", precision="float32", check_every=10**9, seed=seed)


def as_pair(writer: SmallWriter, prompt: str, text: str) -> Pair:
    """(prompt, target) as tokens."""
    return writer.encode(prompt), [*writer.encode(text), writer.end]


def prompt_of(facts: Sequence[Fact], section: str, language: Language) -> str:
    """What the model is told before a section."""
    return prefix(FAULT_REPORT, facts) + lead(section, language)


def random_report(seed: int) -> list[tuple[str, str]]:
    """(prompt, words) of every section of a made case, worded at random."""
    made, draw = made_case(seed), random.Random(seed)
    facts = facts_of(made.case, made.names)
    rows = []
    for section, clauses in licensed(FAULT_REPORT, Facts(facts)).items():
        if section == TITLE:
            continue
        said = [clause for clause in clauses if clause.mandatory or draw.random() < 0.5] or list(clauses)
        for language in LANGUAGES:
            text = BETWEEN[language].join(draw.choice(wordings(clause, language)) for clause in said)
            rows.append((prompt_of(facts, section, language), words(text, language)))
    return rows


def left_by_people(edited: Edited) -> list[tuple[str, str]]:
    """(prompt, words) of every section of an edited report."""
    return [
        (prompt_of(edited.facts, section, language), words(text, language))
        for language in LANGUAGES
        for section, text in texts(edited, language)
    ]


def rounded(net: Gpt, bits: int, block: int = 32) -> Gpt:
    """The network with its matrices rounded to `bits` (symmetric, a scale for each `block` weights of a row), as an export of
    that width has them; sums stay in float32."""
    made = copy.deepcopy(net)
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() == 2 and not name.startswith("place"):
                rows = weight.reshape(-1, block)
                scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / most
                weight.copy_((torch.round(rows / scale) * scale).reshape(weight.shape))
    return made


def untaught(writer: SmallWriter) -> Decoder:
    """The same shape with the weights it began with."""
    return TorchDecoder(Gpt(writer.net.settings))


class UpsideDown:
    """A decoder that likes least what the model likes most, and now and then is infinitely sure."""

    def __init__(self, net: Gpt) -> None:
        self._inner = TorchDecoder(net)
        self.vocabulary, self.context = self._inner.vocabulary, self._inner.context

    @property
    def length(self) -> int:
        """Tokens fed."""
        return self._inner.length

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The model's logits, negated; a tenth of them infinite."""
        logits = -self._inner.feed(ids)
        logits[:, self._inner.length % 10 :: 10] *= np.float32(np.inf)
        return np.nan_to_num(logits, nan=np.inf, posinf=np.inf, neginf=-np.inf)

    def rewind(self, length: int) -> None:
        """Forgets."""
        self._inner.rewind(length)


def decoders(writer: SmallWriter) -> dict[str, Decoder]:
    """What a report is written with: the model, the model rounded, and two that must not be able to do harm."""
    return {
        "float32": TorchDecoder(writer.net),
        "int8": TorchDecoder(rounded(writer.net, 8)),
        "int4": TorchDecoder(rounded(writer.net, 4)),
        "random weights": untaught(writer),
        "upside down": UpsideDown(writer.net),
    }

