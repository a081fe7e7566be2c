"""How well a starter GPT knows a factory's language, beside a five-gram over the same tokens.

    python benchmarks/language_model.py --data DIR [--quick | --subset long] [--json]

DIR holds one or more corpora, each a `*.jsonl` or `*.jsonl.gz` of {"path": ..., "text": ...}; markup is taken out first. One
vocabulary, one GPT and one five-gram learn from all corpora; each is then measured by itself on files that neither has seen.
The split is by the sha256 of a file's path: of ten parts the first is the test, the second stops the training early and
chose its settings, the others teach. Bits per byte count every token of a document and its end, over the bytes of its plain
text, so that vocabularies can be compared; both models see a document's beginning and nothing of other documents before it.

The reference is interpolated Kneser-Ney with three discounts, order five, the better of two: taught by all corpora, or by the
corpus itself alone. Target: five per cent fewer bits per byte. `--quick`: every eighth file, a small network, few steps.
`--subset long`: a wider network and eight passes over the text, nearly two hours on one quiet core."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contract import Sheet, run

from server.algorithms import byte_pairs, ngrams
from server.algorithms.gpt import Gpt, GptSettings
from server.training.language import LoopSettings, Stream, learn, log_likelihoods, next_token_loss
from server.training.plain_text import plain

PARTS = 10
TEST, CHECK = 0, 1
CLEARLY = 0.95
MOST_CHECK_TOKENS = 30_000
LLAMA_BLOCK = GptSettings(
    vocabulary=2048, context=256, layers=4, heads=4, width=128, inner=344, dropout=0.0,
    positions="rotary", norm="rms", gate="swiglu", bias=False,
)  # fmt: skip
NETWORK = {
    "quick": replace(LLAMA_BLOCK, vocabulary=1024, context=128, layers=2, width=64, inner=172),
    "": LLAMA_BLOCK,
    "long": replace(LLAMA_BLOCK, width=256, inner=688, dropout=0.05),
}
"""By budget. The block was chosen on the check part: after the same 100 steps 6.02 nats a token against 6.16 of GPT-2's."""
LOOP = {
    "quick": LoopSettings(steps=90, learning_rate=4e-3, check_every=30, patience=0),
    "": LoopSettings(
        steps=2400, learning_rate=1e-2, matrix_rate=1e-2, floor=0.02, check_every=200, patience=4, precision="bfloat16"
    ),
    "long": LoopSettings(
        steps=9000, learning_rate=5e-3, matrix_rate=5e-3, floor=0.02, check_every=500, patience=4, precision="bfloat16"
    ),
}
ROWS = 10
"""Windows of a whole context in a batch."""


@dataclass(frozen=True)
class Corpus:
    """Plain texts of one file of documents, by part."""

    name: str
    learn: list[str]
    check: list[str]
    test: list[str]


def measure(sheet: Sheet) -> None:
    """Reads, learns, compares."""
    budget = "quick" if sheet.options.quick else sheet.options.subset
    if budget not in NETWORK:
        raise SystemExit(f"language_model: --subset {budget!r}: leave it out, or give 'long'")
    corpora = [
        read(path, 8 if sheet.options.quick else 1) for path in sheet.find(sheet.options.train, "*.jsonl", "*.jsonl.gz")
    ]
    settings, loop = NETWORK[budget], LOOP[budget]
    every = [text for corpus in corpora for text in corpus.learn]
    tokenizer = byte_pairs.learn(every[:: max(len(every) // 600, 1)], settings.vocabulary)
    end = byte_pairs.id_of(tokenizer, byte_pairs.END)
    vocabulary = int(tokenizer.get_vocab_size())

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return [byte_pairs.encode(tokenizer, text) for text in texts]

    taught = {corpus.name: ids(corpus.learn) for corpus in corpora}
    flat = [row for rows in taught.values() for row in rows]
    sheet.note(f"{len(flat)} files of {sum(map(len, flat))} tokens teach; vocabulary {vocabulary}")
    started = time.monotonic()
    whole = _counted(flat, end, vocabulary)
    counted_s = time.monotonic() - started
    started = time.monotonic()
    net = Gpt(settings)
    check = Stream(shortened(ids([t for c in corpora for t in c.check])), end, settings.context, ROWS, loop.seed)
    stream = Stream(flat, end, settings.context, ROWS, loop.seed)
    learned = learn(net, next_token_loss, stream, check.in_order(), loop, lambda _share, text: sheet.say(text))
    learned_s = time.monotonic() - started
    numbers = sum(value.numel() for value in net.parameters())
    seen = learned.steps * ROWS * stream.length
    sheet.note(
        f"GPT {settings.layers}L-{settings.width}, {numbers:,} parameters, {loop.precision}: {learned.steps} steps, "
        f"{seen:,} tokens in {learned_s:.0f} s; best check loss {learned.best:.4f} at step {learned.best_step}; "
        f"counting took {counted_s:.0f} s"
    )
    curve = [[point.step, round(point.loss, 4), round(point.check, 4)] for point in learned.curve]
    for corpus in corpora:
        own = _counted(taught[corpus.name], end, vocabulary)
        _compare(sheet, corpus, ids(corpus.test), end, net, {"5-gram of all": whole, "5-gram of its own": own}, curve)


def _compare(
    sheet: Sheet,
    corpus: Corpus,
    rows: list[list[int]],
    end: int,
    net: Gpt,
    counted: dict[str, ngrams.Ngrams],
    curve: list[list[float]],
) -> None:
    started = time.monotonic()
    sums, counts = log_likelihoods(net, rows, end)
    seconds = time.monotonic() - started
    tokens, size = int(counts.sum()), sum(len(text.encode()) for text in corpus.test)
    theirs = {
        name: sum(float(m.log_probabilities([end, *ids, end])[1:].sum()) for ids in rows) for name, m in counted.items()
    }
    best = max(theirs.values())
    bits = {
        name: -nats / math.log(2) / size for name, nats in {"gpt": float(sums.sum()), "best": best, **theirs}.items()
    }
    target = CLEARLY * bits["best"]
    sheet.row(
        corpus.name,
        "bits per byte",
        bits["gpt"],
        reference=bits["best"],
        peers={name: bits[name] for name in theirs},
        target=target,
        holds=bits["gpt"] <= target,
        n=size,
        seconds=seconds,
        curve=curve,
    )
    sheet.row(
        corpus.name,
        "perplexity per token",
        math.exp(-float(sums.sum()) / tokens),
        reference=math.exp(-best / tokens),
        peers={name: math.exp(-nats / tokens) for name, nats in theirs.items()},
        n=tokens,
        seconds=seconds,
    )


def _counted(rows: Sequence[Sequence[int]], end: int, vocabulary: int) -> ngrams.Ngrams:
    return ngrams.fit([[end, *ids, end] for ids in rows], vocabulary)


def shortened(rows: list[list[int]]) -> list[list[int]]:
    """The beginnings of files, so that checking does not cost more than learning."""
    each = max(MOST_CHECK_TOKENS // max(len(rows), 1), 64)
    return [ids[:each] for ids in rows]


def read(path: Path, every: int) -> Corpus:
    """Plain texts of one corpus, of every `every`-th file. Ends the script where there are too few."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    parts: list[list[str]] = [[] for _ in range(PARTS)]
    for row in sorted(found, key=lambda row: str(row["path"])):
        text = plain(str(row["text"]))
        if text:
            parts[int(hashlib.sha256(str(row["path"]).encode()).hexdigest()[:8], 16) % PARTS].append(text)
    kept = [texts[::every] for texts in parts]
    teaching = [text for part, texts in enumerate(kept) if part not in (TEST, CHECK) for text in texts]
    made = Corpus(path.name.partition(".")[0], teaching, kept[CHECK], kept[TEST])
    if not (made.learn and made.check and made.test):
        raise SystemExit(f"language_model: {path} has too few files for a split into {PARTS} parts by their names")
    return made


if __name__ == "__main__":
    raise SystemExit(run("language_model", __doc__, measure))
