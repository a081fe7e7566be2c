"""A small language model that learns to write fault reports, for benchmarks: minutes on one core, nothing kept.

Its tokenizer and first training see reports of made cases (`fault_cases.made_case`, other seeds than any that is judged) in
which every clause has a random one of its wordings and every optional clause is left out by the toss of a coin: it learns the
catalogue's language and has no taste. Then it is fine-tuned on reports that a person left (`edited_reports`, the training
part). Both as (prompt, target) pairs, the target alone teaching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from fault_cases import made_case
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_agent.runtimes.engine import session
from edge_agent.runtimes.text_graphs import OnnxDecoder
from export.quantize import quantize, weight_only
from export.to_decoder import gateway_graph
from protocol.reading import tokens
from protocol.reports import ModelRef
from protocol.writing.author import LanguageModel, language_model
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import LANGUAGES, Mode
from protocol.writing.fault_report import facts_of
from protocol.writing.frames import slots
from protocol.writing.strict import Limits
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.left import LeftReport
from server.training.language import Examples, LoopSettings, learn, next_token_loss
from server.training.left_reports import made_up, sections

FIRST_SEED = 1_000_000
VOCABULARY, CONTEXT = 1200, 320
CHECK_EVERY = 5
LAYERS, HEADS, WIDTH = 4, 4, 128
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """How long it learns. cases: made reports; steps: of the first training; tuning: of the fine-tuning at most. That ends
    where the loss on every fifth edited report of the training part, which does not teach, has not fallen four times."""

    cases: int
    steps: int
    tuning: int
    batch: int = 16
    rate: float = 2e-3
    tuning_rate: float = 1e-3


FULL = Lesson(cases=400, steps=400, tuning=800)
QUICK = Lesson(cases=40, steps=30, tuning=10)


class SmallWriter:
    """A tokenizer and a network."""

    def __init__(self, tokenizer: Tokenizer, net: Gpt) -> None:
        self.words, self.net = tokens.tokenizer(byte_pairs.written(tokenizer)), net
        s = net.settings
        self.spec = WriterSpec(
            layers=s.layers,
            kv_heads=s.kv,
            head_width=s.each,
            vocabulary=s.vocabulary,
            context=s.context,
            end=byte_pairs.SPECIAL.index(byte_pairs.END),
            documents=[FAULT_REPORT.document],
            prefer={FAULT_REPORT.document: True},
        )

    def encode(self, text: str) -> list[int]:
        """Token ids, as a gateway makes them."""
        return self.words.encode(text)[0]

    def model(self, decoder: Decoder, mode: Mode = Mode.STRICT, seconds: float = 60.0) -> LanguageModel:
        """As a gateway loads it, behind any decoder of its vocabulary."""
        made = language_model(decoder, self.words, self.spec, ModelRef("writer", "gpt", 1), mode)
        return replace(made, limits=Limits(seconds, 20_000))


def taught(edited: Sequence[LeftReport], lesson: Lesson, say: Callable[[str], None], seed: int = 7) -> SmallWriter:
    """Tokenizer, first training, fine-tuning on the edited reports."""
    made = [row for number in range(lesson.cases) for row in told_and_written(random_report(FIRST_SEED + number))]
    keys = sorted({key for clause in FAULT_REPORT.clauses for key in slots(clause.en[0])})
    tokenizer = byte_pairs.learn((prompt + text for prompt, text in made), VOCABULARY, [f"<{key}>" for key in keys])
    net = Gpt(
        GptSettings(
            vocabulary=tokenizer.get_vocab_size(), context=CONTEXT, layers=LAYERS, heads=HEADS, width=WIDTH, seed=seed
        )
    )
    writer = SmallWriter(tokenizer, net)

    def learned(rows: Sequence[tuple[str, str]], check: Sequence[tuple[str, str]], steps: int, rate: float) -> str:
        loop = LoopSettings(
            steps=steps, learning_rate=rate, device="cpu", precision="float32", check_every=10, patience=4, seed=seed
        )
        teaching, judging = (
            Examples([as_pair(writer, *row) for row in part], pad=1, length=CONTEXT, batch=lesson.batch, seed=seed)
            if part
            else None
            for part in (rows, check)
        )
        if teaching is None or not steps:
            return "not at all"
        found = learn(
            net, next_token_loss, teaching, judging.in_order() if judging else [], loop, lambda share, text: None
        )
        return f"from {len(rows)} sections in {found.steps} steps" + (f", best at {found.best_step}" if judging else "")

    say(f"made reports: learned {learned(made, [], lesson.steps, lesson.rate)}")
    check = edited[::CHECK_EVERY] if len(edited) > CHECK_EVERY else []
    teaching = [each for each in edited if not any(each is one for one in check)]
    rows, judging = ([row for each in part for row in told_and_written(each)] for part in (teaching, check))
    say(f"edited reports: learned {learned(rows, judging, lesson.tuning, lesson.tuning_rate)}")
    return writer


def as_pair(writer: SmallWriter, prompt: str, text: str) -> Pair:
    """(prompt, target) as tokens."""
    return writer.encode(prompt), [*writer.encode(text), writer.spec.end]


def random_report(seed: int) -> LeftReport:
    """A made case, worded at random."""
    made = made_case(seed)
    return made_up(FAULT_REPORT, seed, facts_of(made.case, made.names), styled=False)


def told_and_written(report: LeftReport) -> list[tuple[str, str]]:
    """(what the model is told, what was written) of every section, in both languages."""
    return [row for language in LANGUAGES for row in sections(report, FAULT_REPORT, language)]


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
    """What a report is written with: the graphs that a gateway runs, and two that must not be able to do harm."""
    spec = writer.spec
    graph = gateway_graph(writer.net, spec)
    return {
        "float32": OnnxDecoder(session(graph), spec),
        "int8": OnnxDecoder(session(quantize(graph)), spec),
        "int4": OnnxDecoder(session(weight_only(graph, 4)), spec),
        "random weights": untaught(writer),
        "upside down": UpsideDown(writer.net),
    }
