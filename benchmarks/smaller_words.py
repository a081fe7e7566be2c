"""The part of `smaller.py` that writes: a language model reads the manuals of a machine control, and tells the next token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import contract
import language_model
from smaller_rows import Task, Timed, pruned_rows, student_row

from edge_agent.runtimes.engine import session
from edge_agent.runtimes.text_graphs import OnnxDecoder
from export.blocks import weight_only
from export.compact import bare
from export.to_decoder import gateway_graph
from protocol.writing.decoder import WriterSpec
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, GptSettings, continued
from server.training.language import Batch, LoopSettings, Loss, Stream, learn, log_likelihoods, next_token_loss
from server.training.pruning import pruned_writer, slower
from server.training.taught import by_writer
from server.training.writer_lessons import TUNING

TEACHER = GptSettings(
    vocabulary=1024, context=128, layers=3, heads=4, width=96, inner=256, dropout=0.0,
    positions="rotary", norm="rms", gate="swiglu", bias=False,
)  # fmt: skip
STUDENT = replace(TEACHER, layers=2, heads=2, width=48, inner=128)
LOOP = LoopSettings(
    steps=500, learning_rate=1e-2, matrix_rate=1e-2, floor=0.02, check_every=100, patience=0, precision="bfloat16"
)
TEACHER_STEPS = 900
QUICK_STEPS = 20
ROWS = 8
"""Windows of a whole context in a batch."""
MOST_SEEDS = 3
READ, WRITTEN = 32, 32
"""Tokens of a prompt, and how many after it are timed."""


@dataclass(frozen=True)
class Manuals:
    """Tokens of what is learned from, of what keeps the best weights, and of the test files."""

    learn: list[list[int]]
    check: list[Batch]
    test: list[list[int]]
    vocabulary: int
    end: int

    def stream(self, seed: int) -> Stream:
        """Windows that teach."""
        return Stream(self.learn, self.end, TEACHER.context, ROWS, seed)

    def fitted(self, sizes: GptSettings, loop: LoopSettings, loss: Loss = next_token_loss) -> Gpt:
        """A network of these sizes; its start and its windows by the loop's seed."""
        net = Gpt(replace(sizes, vocabulary=self.vocabulary, seed=loop.seed))
        learn(net, loss, self.stream(loop.seed), self.check, loop, _quiet)
        return net

    def pruned(self, net: Gpt, loop: LoopSettings) -> Gpt:
        """Half of it, having learned on."""
        return pruned_writer(net, 0.5, self.stream(loop.seed), self.check, slower(loop, TUNING), _quiet)

    def loss(self, net: Gpt) -> float:
        """Nats a token of the test files."""
        sums, counts = log_likelihoods(net, self.test, self.end)
        return -float(sums.sum()) / int(counts.sum())


def read(path: Path, quick: bool) -> Manuals:
    """Split by files, as `language_model.py` splits them."""
    corpus = language_model.read(path, 8 if quick else 1)
    tokenizer = byte_pairs.learn(corpus.learn, TEACHER.vocabulary)
    end = byte_pairs.id_of(tokenizer, byte_pairs.END)
    learned, check, test = (
        [byte_pairs.encode(tokenizer, text) for text in part] for part in (corpus.learn, corpus.check, corpus.test)
    )
    checked = Stream(language_model.shortened(check), end, TEACHER.context, 2 * ROWS, 0).in_order()
    return Manuals(learned, checked, test, int(tokenizer.get_vocab_size()), end)


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Student and pruned language model."""
    quick = sheet.options.quick
    manuals = read(path, quick)
    began = time.monotonic()
    loop = replace(LOOP, steps=QUICK_STEPS) if quick else LOOP
    long = replace(loop, steps=QUICK_STEPS if quick else TEACHER_STEPS)
    seeds = range(1, (2 if quick else min(max(sheet.options.seeds, 2), MOST_SEEDS)) + 1)
    teacher = manuals.fitted(TEACHER, replace(long, seed=1))
    sheet.say(f"teacher: {manuals.loss(teacher):.4f}")
    alone = [manuals.fitted(STUDENT, replace(loop, seed=seed)) for seed in seeds]
    taught = [manuals.fitted(STUDENT, replace(loop, seed=seed), by_writer(teacher)) for seed in seeds]
    tokens = sum(map(len, manuals.test)) + len(manuals.test)
    task = Task(f"next token of {path.name.partition('.')[0]}'s manuals, GPT", "nats a token", True, tokens)
    student_row(
        sheet,
        task,
        (manuals.loss(teacher), _parameters(teacher)),
        [manuals.loss(net) for net in taught],
        [manuals.loss(net) for net in alone],
        _parameters(taught[0]),
        judged=not quick,
        seconds=time.monotonic() - began,
    )
    began = time.monotonic()
    nets = {"whole": teacher, "pruned": manuals.pruned(teacher, replace(loop, seed=1))}
    graphs: dict[str, bytes] = {}
    for name, net in nets.items():
        made = gateway_graph(net, _spec(net, manuals.end))
        graphs |= {f"{name} float": bare(made), f"{name} int8": bare(weight_only(made, 8))}
    pruned_rows(
        sheet,
        task,
        {name: [manuals.loss(net)] for name, net in nets.items()},
        (_parameters(nets["whole"]), _parameters(nets["pruned"])),
        Timed(
            f"{WRITTEN} tokens after {READ}",
            {name: _call(graph, nets[name.split()[0]], manuals) for name, graph in graphs.items()},
            {name: len(graph) for name, graph in graphs.items()},
            WRITTEN,
        ),
        judged=not quick,
        seconds=time.monotonic() - began,
    )


def _call(graph: bytes, net: Gpt, manuals: Manuals) -> Callable[[], object]:
    """Reads a prompt and goes on."""
    decoder = OnnxDecoder(session(graph), _spec(net, manuals.end))
    prompt = max(manuals.test, key=len)[:READ]

    def written() -> list[int]:
        decoder.rewind(0)
        return continued(decoder, prompt, WRITTEN)

    return written


def _spec(net: Gpt, end: int) -> WriterSpec:
    s = net.settings
    return WriterSpec(
        layers=s.layers, kv_heads=s.kv, head_width=s.each, vocabulary=s.vocabulary, context=s.context, end=end
    )


def _parameters(net: Gpt) -> int:
    return sum(value.numel() for value in net.parameters())


def _quiet(_share: float, _step: str) -> None:
    return
