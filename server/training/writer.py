"""GPT: from texts and left reports to a sealed writer.

Three stages, each from where the last one ended: next tokens of domain text and of made-up reports; sections of made-up
reports, told what holds, the section's words alone teaching; and, where there are any, reports that people left.

The gate (server/evaluation_writing.py) reads reports that nothing was learned from: at each place where somebody had a
choice, what probability the packed model gives to what stands there, against choosers that need no network. Where people's
reports are held out, they judge, and whether the model may choose a document's words follows; where there are none, made-up
ones in the house style judge whether it can learn a manner at all, and the template goes on writing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bounds import WRITER as BOUND
from export.bundle import Draft, seal
from export.decoding import PackedDecoder
from export.forms import AUTO, OF_DECODERS, choose
from export.to_decoder import gateway_graph
from export.trials import trial_of_decoder
from protocol.bundles import TOKENIZER, Golden, Quality, Runtime, unpack
from protocol.reading import tokens
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import LANGUAGES, Fact, Language
from protocol.writing.frames import Frames, encode_frames, slots
from server.algorithms import byte_pairs, low_rank, ngrams
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.checkpoints import load_gpt, with_tokens
from server.evaluation_writing import EditedReport, Worth, log_probability, prefer, worth
from server.left import LeftReport
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.language import Examples, LoopSettings, Stream, learn, next_token_loss
from server.training.left_reports import judged, longest_section, made_up, sections

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WRITER = "report.writer"
PACKED_ATOL = 0.25
"""How far a packed model's logits may lie apart on two processors; they are some ten nats wide."""
GOLDEN_TOKENS, GOLDEN_ROWS = 12, 4
CHECK_EVERY = 8
"""Of what teaches, every eighth report stops the training early instead."""
MOST_CHECKED, MOST_JUDGED = 400, 60
LEAST_JUDGED = 2
"""Of people's reports; the gate's bounds need two."""
SHAPE = GptSettings(context=384, layers=4, heads=4, width=128)
ON_TEXTS = LoopSettings(steps=300, learning_rate=2e-3, check_every=50, patience=0)
ON_MADE = LoopSettings(steps=1200, learning_rate=3e-3, check_every=100, patience=4)
ON_LEFT = LoopSettings(steps=160, learning_rate=5e-4, check_every=10, patience=4)
Encode = Callable[[str], Sequence[int]]
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class WriterPlan:
    """What to learn, from what and how long. frames: catalogues of the documents it writes. texts: of the domain, for the
    first stage; left: reports that people left; facts: of simulated or past events, that made-up reports are about (none:
    they are invented from the catalogue). made: how many of those; quantize: the form of the weights (`export.forms`).

    checkpoint: a local Hugging Face folder of the GPT-2 or Llama family to begin from; its tokenizer gets the slots, `shape`
    and `vocabulary` are not used. low_rank: above 0, only its embeddings and so many ranks beside each matrix learn."""

    frames: tuple[Frames, ...] = (FAULT_REPORT,)
    texts: tuple[str, ...] = ()
    left: tuple[LeftReport, ...] = ()
    facts: tuple[tuple[Fact, ...], ...] = ()
    made: int = 400
    vocabulary: int = 1600
    shape: GptSettings = SHAPE
    checkpoint: Path | None = None
    low_rank: int = 0
    text_loop: LoopSettings = ON_TEXTS
    made_loop: LoopSettings = ON_MADE
    left_loop: LoopSettings = ON_LEFT
    batch: int = 8
    quantize: str = AUTO
    seed: int = 7


def train_writer(
    plan: WriterPlan, world: Circumstances, progress: Progress, folder: Path | None = None
) -> list[Candidate]:
    """One candidate. folder: where each stage keeps its state and curve, so that a stopped training goes on. Raises
    ValueError where a catalogue's texts do not fit the context."""
    course = _Course(plan, progress, folder)
    learned = course.learned()
    return [Candidate(*seal(_draft(course, learned, world)))]


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


class _Course:
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
        made = self._made(plan.seed * 1_000_000, plan.made)
        self.made, self.made_check = _apart(made)

    def _made(self, first: int, count: int) -> list[LeftReport]:
        """With people's reports at hand the made-up ones have no manner of their own."""
        given = self.plan.facts or (None,)
        return [
            made_up(frames, first + i, given[i % len(given)], styled=not self.plan.left)
            for frames in self.plan.frames
            for i in range(count)
        ]

    @property
    def judging(self) -> list[LeftReport]:
        """People's held-out reports, or made-up ones of facts that did not teach."""
        if self.people:
            return self.people
        return self._made(self.plan.seed * 1_000_000 + 500_000, max(self.plan.made // 8, 8))[:MOST_JUDGED]

    def learned(self) -> Learned:
        """Tokenizer and network, through the stages."""
        plan = self.plan
        made = self.texts(self.made)
        net, tokenizer = self._begun(["".join(pair) for pair in made])
        end, pad = (byte_pairs.id_of(tokenizer, token) for token in (byte_pairs.END, byte_pairs.PAD))
        shape = net.settings
        self._fits(tokenizer, shape.context)

        def examples(reports: list[LeftReport], most: int | None = None) -> Examples:
            pairs = [self._pair(tokenizer, end, *row) for row in self.texts(reports)[:most]]
            return Examples(pairs, pad, shape.context, plan.batch, plan.seed)

        rows = [byte_pairs.encode(tokenizer, "".join(pair)) for pair in [*made, *self.texts(self.taught)]]
        words = []
        if plan.texts:
            plain = [byte_pairs.encode(tokenizer, text) for text in plan.texts]
            held = max(len(plain) // 20, 1) if len(plain) > 1 else 0
            stream = Stream([*plain[held:], *rows], end, shape.context, max(plan.batch // 2, 1), plan.seed)
            check = Stream(plain[:held], end, shape.context, plan.batch, plan.seed).in_order()[:8] if held else []
            words.append(self._stage("texts", net, stream, check, plan.text_loop, 0.0, 0.35))
        teaching, check = examples(self.made), examples(self.made_check, MOST_CHECKED).in_order()
        words.append(self._stage("made reports", net, teaching, check, plan.made_loop, 0.35, 0.7))
        if self.taught:
            teaching = examples(self.taught)
            check = examples(self.taught_check).in_order() if self.taught_check else []
            words.append(self._stage("people's reports", net, teaching, check, plan.left_loop, 0.7, 0.85))
        if plan.low_rank:
            low_rank.fold(net)
        return Learned(net, tokenizer, rows, "; ".join(words))

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

    def _stage(
        self, name: str, net: Gpt, batches: Any, check: Any, loop: LoopSettings, begins: float, ends: float
    ) -> str:
        folder = self.folder / name.replace(" ", "_").replace("'", "") if self.folder is not None else None

        def told(share: float, text: str) -> None:
            self.progress(begins + share * (ends - begins), f"GPT, {name}: {text}")

        learned = learn(net, next_token_loss, batches, check, replace(loop, seed=self.plan.seed), told, folder)
        return f"{name}: {learned.steps} steps, loss {learned.best:.3f}"

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


@dataclass(frozen=True)
class Judgement:
    """worth[document][language], the mean likelihood of what was chosen a report, and the unmasked loss a token (nats)."""

    worth: Mapping[str, Mapping[Language, Worth]]
    loss: float
    tokens: int

    @property
    def ours(self) -> float:
        """Of the model, over documents and languages."""
        return float(np.mean([each.model.likelihood for each in self._each]))

    def rival(self, name: str) -> float:
        """Of a chooser."""
        return float(np.mean([each.rivals[name].likelihood for each in self._each]))

    @property
    def reference(self) -> tuple[str, float]:
        """The better of the choosers that need no network."""
        return max(((name, self.rival(name)) for name in ("first", "frequency")), key=lambda one: one[1])

    @property
    def reports(self) -> int:
        """Held-out reports, each language by itself."""
        return sum(each.reports for each in self._each)

    @property
    def _each(self) -> list[Worth]:
        return [each for languages in self.worth.values() for each in languages.values()]


def judge_writer(
    decoder: Decoder,
    encode: Encode,
    end: int,
    frames: Mapping[str, Frames],
    taught: Sequence[LeftReport],
    held_out: Sequence[LeftReport],
) -> Judgement:
    """Measures a writer on reports that did not teach it; `taught` is what the other choosers count."""
    found: dict[str, dict[Language, Worth]] = {}
    told: list[EditedReport] = []
    for document in sorted({report.document for report in held_out}):
        for language in LANGUAGES:

            def read(
                reports: Sequence[LeftReport], document: str = document, language: Language = language
            ) -> list[EditedReport]:
                mine = [report for report in reports if report.document == document]
                return [judged(report, frames[document], language, encode) for report in mine]

            judging = read(held_out)
            told += judging
            found.setdefault(document, {})[language] = worth(decoder, read(taught), judging, end)
    mean, count = log_probability(decoder, told, end)
    return Judgement(found, -mean, count)


def _draft(course: _Course, learned: Learned, world: Circumstances) -> Draft:
    plan, spec = course.plan, learned.spec
    course.progress(0.86, "GPT: exporting")
    graph = gateway_graph(learned.net.eval(), spec)
    body = byte_pairs.written(learned.tokenizer)
    encode = _gateway_encoding(body)
    rows, prompts = _held_out_rows(course, encode)
    fitted = TorchDecoder(learned.net)
    choice = choose(graph, BOUND, trial_of_decoder(fitted, spec, rows), wanted=plan.quantize, tried=OF_DECODERS)
    packed = PackedDecoder(choice.graph, spec)
    held_out, taught = course.judging, [*course.taught, *course.taught_check] or course.made
    course.progress(0.9, f"GPT: judged on {len(held_out)} held-out reports")
    ours = judge_writer(packed, encode, spec.end, course.frames, taught, held_out)
    full = judge_writer(fitted, encode, spec.end, course.frames, taught, held_out)
    inputs: parity.Arrays = {"ids": np.array(prompts, dtype=np.int64)}
    outputs: parity.Arrays = {"logits": np.stack([_last(packed, row) for row in prompts])}
    chosen = bool(course.people)
    may = {name: chosen and prefer({str(k): found for k, found in each.items()}) for name, each in ours.worth.items()}
    quality = _quality(course, learned, ours, world.champions.get(WRITER), taught, held_out)
    return Draft(
        slot=WRITER,
        family="generate",
        algorithm="gpt",
        version=world.versions.get(WRITER, 1),
        runtime=Runtime.DECODER,
        writer=_with_documents(spec, may),
        graph=choice.graph,
        forms=choice.forms,
        texts={TOKENIZER: body} | {f"frames_{name}.json": encode_frames(f) for name, f in course.frames.items()},
        lineage=world.lineage(plan.seed, _parameters(plan, learned, course)),
        quality=quality,
        parity=choice.parity,
        golden=Golden(atol=PACKED_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=choice.float_bytes,
        latency_us=parity.latency_us(lambda: _last(packed, prompts[0])),
        intended_use="Chooses among the wordings of a catalogue that an event's facts license; never writes a figure.",
        limits="Knows the manner of the reports that it learned from; says nothing that the catalogue does not hold.",
        refused=_hidden_by_the_mask(quality[1]) or choice.refused,
        words=f"{choice.words} {_words(ours, full, chosen, may)}",
        because=world.because,
    )


def _quality(
    course: _Course,
    learned: Learned,
    ours: Judgement,
    champion: bytes | None,
    taught: Sequence[LeftReport],
    held_out: Sequence[LeftReport],
) -> list[Quality]:
    name, reference = ours.reference
    split = (
        f"{len(held_out)} reports that people left, held out"
        if course.people
        else f"{len(held_out)} made-up reports in the house style, of other facts"
    )
    theirs = _champion_likelihood(champion, course, taught, held_out)
    counted = _ngram_loss(learned, course, held_out)
    return [
        Quality(
            metric="choice_log_likelihood",
            lower_is_better=False,
            model=round(ours.ours, DIGITS),
            reference=round(reference, DIGITS),
            reference_name=f"{name}_wording" if name == "first" else name,
            champion=None if theirs is None else round(theirs, DIGITS),
            split=split,
            n=ours.reports,
        ),
        Quality(
            metric="perplexity_without_mask",
            lower_is_better=True,
            model=round(math.exp(min(ours.loss, 50.0)), DIGITS),
            reference=round(math.exp(min(counted, 50.0)), DIGITS),
            reference_name="five_gram",
            split=split,
            n=ours.tokens,
        ),
    ]


def _hidden_by_the_mask(perplexity: Quality) -> str:
    """Held to licensed words even a bad model writes well; so it must know them without being held."""
    if perplexity.beats_reference:
        return ""
    return (
        f"without a mask its words are no better than a five-gram's (perplexity {perplexity.model:.4g} against "
        f"{perplexity.reference:.4g})"
    )


def _ngram_loss(learned: Learned, course: _Course, held_out: Sequence[LeftReport]) -> float:
    """Nats a token of the same words for a five-gram over what the network was taught, prompts told alike."""
    end = learned.spec.end
    model = ngrams.fit([[*row, end] for row in learned.rows], learned.spec.vocabulary)
    total, count = 0.0, 0
    for prompt, text in course.texts(held_out):
        before = byte_pairs.encode(learned.tokenizer, prompt)
        row = [*before, *byte_pairs.encode(learned.tokenizer, text), end]
        total -= float(model.log_probabilities(row)[len(before) :].sum())
        count += len(row) - len(before)
    return total / max(count, 1)


def _champion_likelihood(
    archive: bytes | None, course: _Course, taught: Sequence[LeftReport], held_out: Sequence[LeftReport]
) -> float | None:
    """What serves now, on the same choices, in its own tokens."""
    if archive is None:
        return None
    bundle = unpack(archive)
    if bundle.passport.writer is None:
        return None
    spec = bundle.passport.writer
    decoder = PackedDecoder(bundle.graph, spec)
    encode = _gateway_encoding(bundle.texts[TOKENIZER])
    return judge_writer(decoder, encode, spec.end, course.frames, taught, held_out).ours


def _held_out_rows(course: _Course, encode: Encode) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of held-out sections, by which the forms of the weights are judged; and prompts of equal length."""
    texts = [prompt + text for prompt, text in course.texts(course.judging)]
    rows = [list(encode(text))[:64] for text in texts[:: max(len(texts) // 24, 1)]]
    long = [row for row in rows if len(row) >= GOLDEN_TOKENS]
    spread = [long[i] for i in np.linspace(0, len(long) - 1, min(GOLDEN_ROWS, len(long))).astype(int)]
    return rows, [row[:GOLDEN_TOKENS] for row in spread]


def _whole(decoder: Decoder, ids: list[int]) -> NDArray[np.float32]:
    decoder.rewind(0)
    return decoder.feed(ids)


def _last(decoder: Decoder, ids: list[int]) -> NDArray[np.float32]:
    return np.asarray(_whole(decoder, ids)[-1])


def _with_documents(spec: WriterSpec, may: Mapping[str, bool]) -> WriterSpec:
    return msgspec.structs.replace(spec, documents=sorted(may), prefer=dict(may))


def _gateway_encoding(body: bytes) -> Callable[[str], list[int]]:
    words = tokens.tokenizer(body)
    return lambda text: list(words.encode(text)[0])


def _apart(reports: list[LeftReport]) -> tuple[list[LeftReport], list[LeftReport]]:
    """(what teaches, what stops early)."""
    if len(reports) < CHECK_EVERY:
        return reports, []
    return [r for i, r in enumerate(reports) if i % CHECK_EVERY], reports[::CHECK_EVERY]


def _parameters(plan: WriterPlan, learned: Learned, course: _Course) -> dict[str, object]:
    loops = {name: asdict(getattr(plan, name)) for name in ("text_loop", "made_loop", "left_loop")}
    return {
        **{name: value for name, value in asdict(learned.net.settings).items() if name != "seed"},
        **loops,
        "texts": len(plan.texts),
        "made_reports": len(course.made) + len(course.made_check),
        "people_reports": len(course.taught) + len(course.taught_check),
        "quantize": plan.quantize,
        "began_from": "random weights" if plan.checkpoint is None else plan.checkpoint.name,
        "low_rank": plan.low_rank,
        "course": learned.words,
    }


def _words(ours: Judgement, full: Judgement, people: bool, may: Mapping[str, bool]) -> str:
    agreement = np.mean([w.model.agreement for each in ours.worth.values() for w in each.values()])
    rivals = ", ".join(f"{name} {ours.rival(name):.3f}" for name in ("uniform", "first", "frequency"))
    who = "people's reports" if people else "made-up reports: the template writes until people's reports were seen"
    chooses = ", ".join(document for document, allowed in sorted(may.items()) if allowed) or "nothing"
    return (
        f"Agrees with {agreement:.0%} of the choices in held-out {who}; log-likelihood a report {ours.ours:.3f} "
        f"(float {full.ours:.3f}; {rivals}). It may choose the words of: {chooses}."
    )
