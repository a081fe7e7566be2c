"""GPT: from texts and left reports to a sealed writer.

The gate (server/evaluation_writing.py) reads reports that nothing was learned from: at each place where somebody had a
choice, what probability the packed model gives to what stands there, against choosers that need no network. Where people's
reports are held out, they judge, and whether the model may choose a document's words follows; where there are none, made-up
ones in the house style judge whether it can learn a manner at all, and the template goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bounds import WRITER as BOUND
from export.bundle import Draft, seal
from export.decoding import PackedDecoder
from export.forms import OF_DECODERS, choose
from export.to_decoder import gateway_graph
from export.trials import trial_of_decoder
from protocol.bundles import TOKENIZER, Golden, Quality, Runtime, unpack
from protocol.reading import tokens
from protocol.reading.reader import golden_texts
from protocol.writing.decoder import Decoder, WriterSpec
from protocol.writing.facts import LANGUAGES, Language
from protocol.writing.frames import Frames, encode_frames
from server.algorithms import byte_pairs, ngrams
from server.algorithms.gpt import TorchDecoder
from server.evaluation_writing import EditedReport, Worth, log_probabilities, prefer, worth
from server.left import LeftReport
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.left_reports import judged
from server.training.writer_lessons import Course, Learned, WriterPlan

WRITER = "report.writer"
PACKED_ATOL = 0.25
"""How far a packed model's logits may lie apart on two processors; they are some ten nats wide."""
GOLDEN_TOKENS, GOLDEN_ROWS, GOLDEN_TEXTS = 12, 4, 2
MOST_NATS = 50.0
"""A token, beyond which a perplexity says nothing more."""
Encode = Callable[[str], Sequence[int]]
Floats = NDArray[np.float64]


def train_writer(
    plan: WriterPlan, world: Circumstances, progress: Progress, folder: Path | None = None
) -> list[Candidate]:
    """One candidate. folder: where each stage keeps its state and curve, so that a stopped training goes on. Raises
    ValueError where a catalogue's texts do not fit the context."""
    course = Course(plan, progress, folder)
    learned = course.learned()
    return [Candidate(*seal(_draft(course, learned, world)))]


@dataclass(frozen=True)
class Judgement:
    """worth[document][language], the mean likelihood of what was chosen a report. surprise [R, 2]: of each held-out report,
    in all languages, the unmasked loss (nats) and its tokens; documents [R]: of which document it is, in that order."""

    worth: Mapping[str, Mapping[Language, Worth]]
    surprise: Floats
    documents: Sequence[str]

    @property
    def tokens(self) -> int:
        """That were judged without a mask."""
        return int(self.surprise[:, 1].sum())

    @property
    def perplexity(self) -> float:
        """Without a mask, a token."""
        return float(_perplexity(*self.surprise.sum(axis=0)))

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

    def ours_between(self) -> certainty.Interval:
        """95 % interval of `ours`: reports drawn again, each in all of its languages."""
        place = np.array(self.documents)
        likelihood, counted = (np.zeros((len(place), len(self._each))) for _ in range(2))
        columns = ((document, each) for document, languages in self.worth.items() for each in languages.values())
        for column, (document, each) in enumerate(columns):
            likelihood[place == document, column] = each.model.by_report
            counted[place == document, column] = 1.0
        return certainty.of_sums([likelihood, counted], lambda total, count: (total / count).mean(axis=1))

    def perplexity_between(self) -> certainty.Interval:
        """95 % interval of `perplexity`, likewise."""
        return certainty.of_sums([self.surprise[:, 0], self.surprise[:, 1]], _perplexity)

    @property
    def _each(self) -> list[Worth]:
        return [each for languages in self.worth.values() for each in languages.values()]


def _perplexity(nats: Floats | float, count: Floats | float) -> Floats:
    return np.exp(np.minimum(np.asarray(nats) / np.maximum(count, 1), MOST_NATS))


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
    surprise: list[Floats] = []
    documents: list[str] = []
    for document in sorted({report.document for report in held_out}):
        sums = np.zeros((sum(report.document == document for report in held_out), 2))
        for language in LANGUAGES:

            def read(
                reports: Sequence[LeftReport], document: str = document, language: Language = language
            ) -> list[EditedReport]:
                mine = [report for report in reports if report.document == document]
                return [judged(report, frames[document], language, encode) for report in mine]

            judging = read(held_out)
            found.setdefault(document, {})[language] = worth(decoder, read(taught), judging, end)
            sums += log_probabilities(decoder, judging, end) * (-1, 1)
        surprise.append(sums)
        documents += [document] * len(sums)
    return Judgement(found, np.concatenate(surprise), documents)


def _draft(course: Course, learned: Learned, world: Circumstances) -> Draft:
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
    texts = [prompt + text for prompt, text in course.texts(course.judging)][:GOLDEN_TEXTS]
    inputs: parity.Arrays = {"ids": np.array(prompts, dtype=np.int64), "texts": golden_texts(texts)}
    outputs: parity.Arrays = {
        "logits": np.stack([_last(packed, row) for row in prompts]),
        "tokens": tokens.golden_tokens(tokens.tokenizer(body), texts),
    }
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
    course: Course,
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
    (low, high), (least, most) = ours.ours_between(), ours.perplexity_between()
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
            low=low,
            high=high,
            split=split,
            n=ours.reports,
        ),
        Quality(
            metric="perplexity_without_mask",
            lower_is_better=True,
            model=round(ours.perplexity, DIGITS),
            reference=round(float(_perplexity(counted, 1)), DIGITS),
            reference_name="five_gram",
            low=least,
            high=most,
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


def _ngram_loss(learned: Learned, course: Course, held_out: Sequence[LeftReport]) -> float:
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
    archive: bytes | None, course: Course, taught: Sequence[LeftReport], held_out: Sequence[LeftReport]
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


def _held_out_rows(course: Course, encode: Encode) -> tuple[list[list[int]], list[list[int]]]:
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


def _parameters(plan: WriterPlan, learned: Learned, course: Course) -> dict[str, object]:
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
        "pruned": plan.prune,
        "teacher": "none" if plan.teacher is None else f"{plan.teacher.layers} layers of {plan.teacher.width}",
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
