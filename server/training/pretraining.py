"""From plain texts to an encoder: a vocabulary, hidden words and pairs, then likeness. What the texts are is the caller's
affair; nothing of them stays in the encoder's files but the vocabulary's pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from server.algorithms import bert, word_pieces
from server.algorithms.bert import BertSettings
from server.algorithms.descent import Descent, Watch
from server.algorithms.masking import Alignment, Pair, PreTraining, align, alone, pretrain
from server.training.circumstances import Progress
from server.training.text_encoder import TextEncoder

MANY = 1_000_000
"""Steps, where minutes are the limit."""


@dataclass(frozen=True)
class TextPair:
    """A text and what follows it, or says the same: a symptom and what was done, shorthand and the same in full. group,
    corpus: as `masking.Pair`."""

    first: str
    second: str
    group: int = -1
    corpus: int = 0


@dataclass(frozen=True)
class EncoderPlan:
    """pieces: most of the vocabulary. sizes: of the network, but for the vocabulary. aligned: share of the minutes in which
    likeness is learned; 0: not at all."""

    pieces: int = 4096
    sizes: BertSettings = field(
        default_factory=lambda: BertSettings(width=256, layers=4, heads=4, inner=1024, context=64)
    )
    pretraining: PreTraining = field(default_factory=PreTraining)
    alignment: Alignment = field(default_factory=Alignment)
    aligned: float = 0.2


def pretrained_encoder(
    texts: Sequence[str],
    seed: int,
    minutes: float | None = None,
    *,
    pairs: Sequence[TextPair] = (),
    likenesses: Sequence[TextPair] | None = None,
    plan: EncoderPlan | None = None,
    progress: Progress | None = None,
) -> TextEncoder:
    """An encoder that has read the texts. pairs: whose second text follows the first (next-sentence prediction).
    likenesses: whose texts say the same (contrastive); None: each text and itself. minutes: at most, on this machine; None:
    as many steps as the plan says, and then the same texts and seed give the same encoder. Raises ValueError if there is
    nothing to read."""
    plan = plan or EncoderPlan()
    said = [text for text in texts if text.strip()]
    both = [side for pair in (*pairs, *(likenesses or ())) for side in (pair.first, pair.second)]
    tokenizer = word_pieces.learn([*said, *both], plan.pieces)
    sizes = replace(plan.sizes, vocabulary=tokenizer.get_vocab_size())
    encoder = TextEncoder(bert.fresh(sizes, seed), tokenizer)
    told = progress or (lambda _share, _step: None)
    first = 1.0 - plan.aligned
    pretrain(
        encoder.net,
        encoder.rows(said),
        _rows(encoder, pairs),
        encoder.marks(),
        replace(plan.pretraining, descent=_within(plan.pretraining.descent, minutes, first), seed=seed),
        _watch(told, 0.0, first, "hidden words"),
    )
    if plan.aligned > 0:
        near = alone(encoder.rows(said)) if likenesses is None else _rows(encoder, likenesses)
        align(
            encoder.net.bert,
            near,
            replace(plan.alignment, descent=_within(plan.alignment.descent, minutes, plan.aligned), seed=seed),
            _watch(told, first, plan.aligned, "likeness"),
        )
    return encoder


def _rows(encoder: TextEncoder, pairs: Sequence[TextPair]) -> list[Pair]:
    first, second = (encoder.rows([getattr(pair, side) for pair in pairs]) for side in ("first", "second"))
    return [Pair(a, b, pair.group, pair.corpus) for a, b, pair in zip(first, second, pairs, strict=True)]


def _within(descent: Descent, minutes: float | None, share: float) -> Descent:
    """A descent that takes its share of the minutes, however many steps those are; without minutes, as it stands."""
    return descent if minutes is None else replace(descent, steps=MANY, minutes=minutes * share)


def _watch(progress: Progress, start: float, share: float, what: str) -> Watch:
    def watch(_step: int, gone: float, loss: float) -> bool:
        progress(start + share * gone, f"{what}, loss {loss:.3f}")
        return True

    return watch
