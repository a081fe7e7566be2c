"""What a writer learns, and in which order: a network with its tokenizer comes out, nothing is packed or judged.

Three stages, each from where the last one ended: next tokens of domain text and of made-up reports; sections of made-up
reports, told what holds, the section's words alone teaching; and, where there are any, reports that people left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from export.forms import AUTO
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import WriterSpec
from protocol.writing.facts import LANGUAGES, Fact
from protocol.writing.frames import Frames, slots
from server.algorithms import byte_pairs, low_rank
from server.algorithms.gpt import Gpt, GptSettings
from server.checkpoints import load_gpt, with_tokens
from server.left import LeftBook, LeftReport
from server.training.circumstances import Progress
from server.training.language import Batch, Batches, Examples, LoopSettings, Loss, Stream, learn, next_token_loss
from server.training.left_reports import judged, longest_section, made_up, sections
from server.training.pruning import pruned_writer, slower
from server.training.taught import by_writer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHECK_EVERY = 8
"""Of what teaches, every eighth report stops the training early instead."""
MOST_CHECKED, MOST_JUDGED = 400, 60
LEAST_MADE, LEAST_STEPS, HIGHEST_RATE = 24, 10, 3e-3
LEAST_JUDGED = 2
"""Of people's reports; the gate's bounds need two."""
SHAPE = GptSettings(context=320, layers=4, heads=4, width=128)
ON_TEXTS = LoopSettings(steps=150, learning_rate=5e-3, matrix_rate=1e-2, check_every=50, patience=0)
ON_MADE = LoopSettings(steps=600, learning_rate=5e-3, matrix_rate=1e-2, check_every=100, patience=4)
ON_LEFT = LoopSettings(steps=800, learning_rate=1e-3, check_every=20, patience=6)
"""AdamW alone: at rates at which Muon learns anew, it unlearns what it can."""
TUNING = 0.4
"""Of the last stage's steps and of its rates, after each step of a pruning."""
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class WriterPlan:
    """What to learn, from what and how long. frames: catalogues of the documents it writes. texts: of the domain, for the
    first stage; left: reports that people left; facts: of simulated or past events, that every second made-up report is about
    (the others' are invented from the catalogue, so that what never happened yet is known, too). made: how many of those;
    quantize: the form of the weights (`export.forms`).

    checkpoint: a local Hugging Face folder of the GPT-2 or Llama family to begin from; its tokenizer gets the slots, `shape`
    and `vocabulary` are not used. low_rank: above 0, only its embeddings and so many ranks beside each matrix learn.

    teacher: a larger network that goes through the same stages first, teaches this one and is thrown away (its vocabulary and
    context are this one's). prune: share of each block's heads and inner units that is taken out in the end, while it learns
    on from the last stage's reports. Neither is of use beside low_rank."""

    frames: tuple[Frames, ...] = (FAULT_REPORT,)
    texts: tuple[str, ...] = ()
    left: tuple[LeftReport, ...] = ()
    facts: tuple[tuple[Fact, ...], ...] = ()
    made: int = 800
    vocabulary: int = 1200
    shape: GptSettings = SHAPE
    checkpoint: Path | None = None
    low_rank: int = 0
    teacher: GptSettings | None = None
    prune: float = 0.0
    text_loop: LoopSettings = ON_TEXTS
    made_loop: LoopSettings = ON_MADE
    left_loop: LoopSettings = ON_LEFT
    batch: int = 16
    quantize: str = AUTO
    seed: int = 7

    @classmethod
    def of(cls, book: LeftBook, layers: int, width: int, seed: int) -> WriterPlan:
        """From what people left."""
        return cls(
            frames=tuple(book.frames),
            left=tuple(book.reports),
            facts=tuple(tuple(each) for each in book.facts),
            shape=replace(SHAPE, layers=layers, width=width),
            seed=seed,
        )

    def with_steps(self, steps: int) -> WriterPlan:
        """So many steps from made-up reports; how many those are, and the steps from people's, in proportion. Fewer of the
        latter are taken at a higher rate."""
        share = steps / self.made_loop.steps
        left = self.left_loop
        return replace(
            self,
            made=max(round(self.made * share), LEAST_MADE),
            made_loop=replace(self.made_loop, steps=steps),
            left_loop=replace(
                left,
                steps=max(round(left.steps * share), LEAST_STEPS),
                learning_rate=min(left.learning_rate / math.sqrt(share), HIGHEST_RATE),
            ),
        )


def learn_writer(plan: WriterPlan, progress: Progress, folder: Path | None = None) -> Learned:
    """The network and its tokenizer alone: nothing is packed or judged."""
    return Course(plan, progress, folder).learned()


@dataclass(frozen=True)
class Learned:
    """A network with its tokenizer, and what it learned from: rows of tokens, prompt and target together."""

    net: Gpt
    tokenizer: Tokenizer
    rows: list[list[int]]
    words: str

    @property
    def spec(self) -> WriterSpec:
        """Without its documents."""
        s = self.net.settings
        end = byte_pairs.id_of(self.tokenizer, byte_pairs.END)
        return WriterSpec(
            layers=s.layers, kv_heads=s.kv, head_width=s.each, vocabulary=s.vocabulary, context=s.context, end=end
        )


@dataclass(frozen=True)
class Stage:
    """What is learned from, how long, and how much of all stages' time that takes."""

    name: str
    batches: Batches
    check: list[Batch]
    loop: LoopSettings
    begins: float
    ends: float


class Course:
    """The parts of one training."""

    def __init__(self, plan: WriterPlan, progress: Progress, folder: Path | None) -> None:
        self.plan, self.progress, self.folder = plan, progress, folder
        self.frames = {frames.document: frames for frames in plan.frames}
        taught = [report for report in plan.left if not report.held_out]
        held_out = [report for report in plan.left if report.held_out]
        enough = taught and all(
            sum(report.document == document for report in held_out) >= LEAST_JUDGED
            for document in {report.document for report in held_out}
        )
        self.people = held_out if enough else []
        self.taught, self.taught_check = _apart(taught)
        first = plan.seed * 1_000_000
        facts, kept = shared_out(plan.facts, self.people)
        self.made, self.made_check = _apart(self._made(first, plan.made, facts))
        self.judging = self.people or self._made(first + 500_000, max(plan.made // 8, 8), kept)[:MOST_JUDGED]
        """People's held-out reports, or made-up ones of facts that did not teach."""

    def _made(self, first: int, count: int, facts: Sequence[Sequence[Fact]]) -> list[LeftReport]:
        """With people's reports at hand the made-up ones have no manner of their own."""
        return [
            made_up(
                frames,
                first + i,
                facts[i // 2 % len(facts)] if facts and i % 2 == 0 else None,
                styled=not self.plan.left,
            )
            for frames in self.plan.frames
            for i in range(count)
        ]

    def learned(self) -> Learned:
        """Tokenizer and network, through the stages."""
        plan = self.plan
        made = self.texts(self.made)
        net, tokenizer = self._begun(["".join(pair) for pair in made])
        shape = net.settings
        self._fits(tokenizer, shape.context)
        rows = [byte_pairs.encode(tokenizer, "".join(pair)) for pair in [*made, *self.texts(self.taught)]]
        stages, words = self._stages(tokenizer, rows, shape.context), list[str]()
        loss: Loss = next_token_loss
        begins = 0.0
        if plan.teacher is not None:
            sizes = replace(plan.teacher, vocabulary=shape.vocabulary, context=shape.context, seed=plan.seed)
            teacher, begins = Gpt(sizes), 0.45
            words += [f"teacher, {self._taken(stage, teacher, loss, 0.0, begins, 'teacher')}" for stage in stages]
            loss = by_writer(teacher)
        words += [self._taken(stage, net, loss, begins, 0.75) for stage in stages]
        if plan.low_rank:
            low_rank.fold(net)
        if plan.prune:
            net = self._pruned(net, stages[-1])
            words.append(f"pruned to {net.settings.heads} heads and {net.settings.wide} inner units")
        return Learned(net, tokenizer, rows, "; ".join(words))

    def _stages(self, tokenizer: Tokenizer, rows: list[list[int]], context: int) -> list[Stage]:
        """What is learned from, one after the other. rows: of made-up and people's reports."""
        plan = self.plan
        end, pad = (byte_pairs.id_of(tokenizer, token) for token in (byte_pairs.END, byte_pairs.PAD))

        def examples(reports: list[LeftReport], most: int | None = None) -> Examples:
            pairs = [self._pair(tokenizer, end, *row) for row in self.texts(reports)[:most]]
            return Examples(pairs, pad, context, plan.batch, plan.seed)

        def taught(
            name: str, teach: list[LeftReport], check: list[LeftReport], loop: LoopSettings, begins: float, ends: float
        ) -> Stage:
            checked = examples(check, MOST_CHECKED).in_order() if check else []
            return Stage(name, examples(teach), checked, loop, begins, ends)

        stages = []
        if plan.texts:
            plain = [byte_pairs.encode(tokenizer, text) for text in plan.texts]
            held = max(len(plain) // 20, 1) if len(plain) > 1 else 0
            stream = Stream([*plain[held:], *rows], end, context, max(plan.batch // 2, 1), plan.seed)
            check = Stream(plain[:held], end, context, plan.batch, plan.seed).in_order()[:8] if held else []
            stages.append(Stage("texts", stream, check, plan.text_loop, 0.0, 0.3))
        stages.append(taught("made reports", self.made, self.made_check, plan.made_loop, 0.3, 0.7))
        if self.taught:
            stages.append(taught("people's reports", self.taught, self.taught_check, plan.left_loop, 0.7, 1.0))
        return stages

    def _taken(self, stage: Stage, net: Gpt, loss: Loss, begins: float, ends: float, whose: str = "") -> str:
        """A network goes through a stage; begins, ends: of all stages, in the whole training. whose: what else than the
        writer learns, kept apart from it."""
        name = f"{whose} {stage.name}".strip()
        folder = self.folder / name.replace(" ", "_").replace("'", "") if self.folder is not None else None

        def told(share: float, text: str) -> None:
            done = stage.begins + share * (stage.ends - stage.begins)
            self.progress(begins + done * (ends - begins), f"GPT, {name}: {text}")

        loop = replace(stage.loop, seed=self.plan.seed)
        learned = learn(net, loss, stage.batches, stage.check, loop, told, folder)
        return f"{stage.name}: {learned.steps} steps, loss {learned.best:.3f}"

    def _pruned(self, net: Gpt, stage: Stage) -> Gpt:
        loop = replace(slower(stage.loop, TUNING), seed=self.plan.seed)

        def told(_share: float, text: str) -> None:
            self.progress(0.8, f"GPT, pruning: {text}")

        return pruned_writer(net, self.plan.prune, stage.batches, stage.check, loop, told)

    def _fits(self, tokenizer: Tokenizer, context: int) -> None:
        """Raises ValueError where a section that may be written is longer than the context."""
        encode = partial(byte_pairs.encode, tokenizer)
        longest = max(
            longest_section(judged(report, self.frames[report.document], language, encode))
            for report in [*self.judging, *self.taught, *self.taught_check]
            for language in LANGUAGES
        )
        if longest >= context:
            raise ValueError(
                f"a section needs up to {longest + 1} tokens, the model holds {context}: give it a longer context"
            )

    def _begun(self, made: list[str]) -> tuple[Gpt, Tokenizer]:
        """A new network and a tokenizer learned from its texts, or a checkpoint's with the slots in it."""
        plan = self.plan
        keys = {key for frames in plan.frames for clause in frames.clauses for key in slots(clause.en[0])}
        fixed = [f"<{key}>" for key in sorted(keys)]
        if plan.checkpoint is None:
            tokenizer = byte_pairs.learn([*plan.texts, *made], plan.vocabulary, fixed)
            net = Gpt(replace(plan.shape, vocabulary=int(tokenizer.get_vocab_size()), seed=plan.seed))
        else:
            net, body = with_tokens(*load_gpt(plan.checkpoint), [*byte_pairs.SPECIAL, *fixed])
            tokenizer = byte_pairs.read(body)
        if plan.low_rank:
            low_rank.adapt(net, plan.low_rank, seed=plan.seed)
            net.token.weight.requires_grad_(True)  # slots are new words
            if net.head is not None:
                net.head.weight.requires_grad_(True)
        return net, tokenizer

    def texts(self, reports: Sequence[LeftReport]) -> list[tuple[str, str]]:
        """(what is told, what was written) of every section, in both languages."""
        return [
            row
            for report in reports
            for language in LANGUAGES
            for row in sections(report, self.frames[report.document], language)
        ]

    @staticmethod
    def _pair(tokenizer: Tokenizer, end: int, prompt: str, text: str) -> Pair:
        return byte_pairs.encode(tokenizer, prompt), [*byte_pairs.encode(tokenizer, text), end]


def _apart(reports: list[LeftReport]) -> tuple[list[LeftReport], list[LeftReport]]:
    """(what teaches, what stops early)."""
    if len(reports) < CHECK_EVERY:
        return reports, []
    return [r for i, r in enumerate(reports) if i % CHECK_EVERY], reports[::CHECK_EVERY]


def shared_out(
    facts: Sequence[Sequence[Fact]], people: Sequence[LeftReport]
) -> tuple[list[Sequence[Fact]], list[Sequence[Fact]]]:
    """(what teaches, what judges where nobody's reports do); those of the reports that judge do neither."""
    judges = [list(report.facts) for report in people]
    others = [each for each in facts if list(each) not in judges]
    if people:
        return others, []
    return [f for i, f in enumerate(others) if i % CHECK_EVERY], others[::CHECK_EVERY]
