"""A small language model that learns to write fault reports, for benchmarks: trained as the product trains its writers
(server/training/writer_lessons.py), minutes on one core, nothing kept.

Its tokenizer and first training see made-up reports, every second one of a made case (`fault_cases.made_case`, other seeds
than any that is judged), in which every clause has a random one of its wordings and every optional clause is left out by the
toss of a coin: it learns the catalogue's language and has no taste. Then it is fine-tuned on reports that a person left
(`edited_reports`, the training part)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from fault_cases import made_case
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_agent.runtimes.engine import session
from edge_agent.runtimes.text_graphs import OnnxDecoder
from export.blocks import weight_only
from export.quantize import quantize
from export.to_decoder import gateway_graph
from protocol.reading import tokens
from protocol.reports import ModelRef
from protocol.writing.author import LanguageModel, language_model
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import Fact, Mode
from protocol.writing.fault_report import facts_of
from protocol.writing.strict import Limits
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, TorchDecoder
from server.left import LeftReport
from server.training.writer_lessons import WriterPlan, learn_writer

FIRST_SEED, CASES = 1_000_000, 400
FULL = WriterPlan()
QUICK = FULL.with_steps(30)


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


def taught(edited: Sequence[LeftReport], plan: WriterPlan, say: Callable[[str], None]) -> SmallWriter:
    """Tokenizer, first training, fine-tuning on the edited reports."""
    facts = tuple(_facts_of(FIRST_SEED + number) for number in range(min(CASES, plan.made)))
    learned = learn_writer(replace(plan, left=tuple(edited), facts=facts), lambda share, text: None)
    say(f"learned from {learned.words}")
    return SmallWriter(learned.tokenizer, learned.net)


def _facts_of(seed: int) -> tuple[Fact, ...]:
    made = made_case(seed)
    return tuple(facts_of(made.case, made.names))


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
