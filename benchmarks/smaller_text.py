"""The part of `smaller.py` that reads: titles of accidents, by a BERT, for the type of event."""

from __future__ import annotations

import hashlib
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import contract
import numpy as np
import readers
import torch
from notes_events import read as read_table
from numpy.typing import NDArray
from smaller_rows import Task, Timed, pruned_rows, student_row

from export.parity import one_thread
from export.quantize import bare, quantize
from export.to_decoder import encoder_graph
from server.algorithms import bert
from server.algorithms.bert import BertSettings, EncoderForExport, Rows
from server.algorithms.descent import Descent
from server.algorithms.masking import PreTraining, pretrain
from server.algorithms.note_heads import FineTuning, NoteHeads, finetune, judge
from server.algorithms.note_reader import Labelled
from server.training.pretraining import EncoderPlan, pretrained_encoder
from server.training.pruning import Notes, pruned_heads, shorter
from server.training.taught import by_heads
from server.training.text_encoder import TextEncoder

LEAST_OF_A_CLASS = 50
ABOUT = "event"
TEACHER = BertSettings(width=192, layers=4, heads=4, inner=768, context=48)
STUDENT = BertSettings(width=64, layers=2, heads=2, inner=256, context=48)
READ = PreTraining(Descent(steps=300, learning_rate=1e-3), batch=32)
STUDENT_READ = PreTraining(Descent(steps=200, learning_rate=2e-3), batch=32)
HEADS = FineTuning(epochs=6, batch=32, refit=False, check_share=0.1, smoothing=0.1, rarity=0.0)
STUDENT_HEADS = replace(HEADS, epochs=10, learning_rate=1e-3)
WHOLES = 2
"""Whole networks that are pruned; the first of them teaches."""
TUNING = 0.5
"""Of the teacher's epochs and pace, after each step of a pruning."""


@dataclass(frozen=True)
class Titles:
    """texts: what is read before any question, of the training part alone."""

    texts: list[str]
    learn: list[str]
    told: NDArray[np.int64]
    test: list[str]
    truth: NDArray[np.int64]
    classes: int


def read(path: Path, quick: bool) -> Titles:
    """Titles of the common types of event."""
    rows = read_table(path)[:: 6 if quick else 1]
    often = Counter(row["Event type"] for row in rows)
    names = sorted(name for name, count in often.items() if count >= LEAST_OF_A_CLASS // (6 if quick else 1))
    rows = [row for row in rows if row["Event type"] in names]
    parts = [[row for row in rows if _held(row["summary_nr"]) == side] for side in (False, True)]
    learn, test = ([row["Event Description"].lower() for row in part] for part in parts)
    told, truth = (np.array([names.index(row["Event type"]) for row in part], dtype=np.int64) for part in parts)
    sentences = [
        sentence.lower()
        for row in parts[0]
        for sentence in re.split(r"(?<=\.)\s+", row["Abstract Text"])[:6]
        if len(sentence) > 10
    ]
    return Titles([*sentences, *learn], learn, told, test, truth, len(names))


def _held(name: str) -> bool:
    """The split: by a hash of the row's own number."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5 == 0


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Student and pruned encoder."""
    quick = sheet.options.quick
    titles = read(path, quick)
    seeds = range(1, (2 if quick else max(sheet.options.seeds, 3)) + 1)
    few = Descent(steps=4)
    began = time.monotonic()
    plan = EncoderPlan(
        pieces=3000, sizes=TEACHER, pretraining=replace(READ, descent=few) if quick else READ, aligned=0.0
    )
    encoder = pretrained_encoder(titles.texts, 1, plan=plan)
    sheet.say(f"teacher has read {len(titles.texts)} sentences")
    rows, test = encoder.rows(titles.learn), encoder.rows(titles.test)
    labels, classes = {ABOUT: titles.told}, {ABOUT: titles.classes}
    heads, student_heads = (replace(one, epochs=1) if quick else one for one in (HEADS, STUDENT_HEADS))

    def said(net: NoteHeads) -> NDArray[np.int64]:
        answers: NDArray[np.int64] = judge(net, test)[ABOUT].argmax(axis=1)
        return answers

    def right(net: NoteHeads) -> float:
        return float((said(net) == titles.truth).mean())

    wholes = [finetune(encoder.net.bert, rows, labels, classes, replace(heads, seed=seed)) for seed in seeds[:WHOLES]]
    teacher = wholes[0]
    sheet.say(f"teacher: {right(teacher):.4f}")
    alone, taught = [], []
    for seed in seeds:
        small = _started(encoder, titles, seed, few if quick else STUDENT_READ.descent)
        how = replace(student_heads, seed=seed)
        alone.append(finetune(small.net.bert, rows, labels, classes, how))
        taught.append(finetune(small.net.bert, rows, labels, classes, how, teaching=by_heads(teacher)))
    task = Task("type of event from a title, BERT", "share right", False, len(titles.test))
    student_row(
        sheet,
        task,
        (right(teacher), _parameters(teacher)),
        [right(net) for net in taught],
        [right(net) for net in alone],
        _parameters(taught[0]),
        judged=not quick,
        seconds=time.monotonic() - began,
        peers={"TF-IDF and a linear machine": _linear(titles)},
        seeds_differ=round(_differ([said(net) for net in taught]), 4),
    )
    began = time.monotonic()
    halves = []
    for seed, whole in zip(seeds, wholes, strict=False):
        how = replace(shorter(heads, TUNING), seed=seed)
        halves.append(pruned_heads(whole, 0.5, Notes(rows, labels, classes, how)))
    empty = bert.fresh(halves[0].bert.settings, 1).bert
    fresh = finetune(empty, rows, labels, classes, replace(heads, seed=1))
    nets = {"whole": wholes, "pruned": halves, "fresh, has not read": [fresh]}
    graphs: dict[str, bytes] = {}
    for name in ("whole", "pruned"):
        made = encoder_graph(EncoderForExport(nets[name][0].bert))
        graphs |= {f"{name} float": bare(made), f"{name} int8": bare(quantize(made))}
    pruned_rows(
        sheet,
        task,
        {name: [right(net) for net in each] for name, each in nets.items()},
        (_parameters(wholes[0]), _parameters(halves[0])),
        Timed(
            "one row",
            {name: _call(graph, test) for name, graph in graphs.items()},
            {name: len(graph) for name, graph in graphs.items()},
        ),
        judged=not quick,
        seconds=time.monotonic() - began,
    )


def _started(encoder: TextEncoder, titles: Titles, seed: int, descent: Descent) -> TextEncoder:
    """A student that has read, with the teacher's vocabulary; both students of a seed begin from it."""
    sizes = replace(STUDENT, vocabulary=encoder.net.settings.vocabulary)
    small = TextEncoder(bert.fresh(sizes, seed), encoder.tokenizer)
    how = replace(STUDENT_READ, descent=descent, seed=seed)
    pretrain(small.net, small.rows(titles.texts), [], small.marks(), how)
    return small


def _differ(answers: Sequence[NDArray[np.int64]]) -> float:
    """Share of titles that two networks judge differently, the mean over pairs: like counts are not like answers."""
    return float(np.mean([(one != other).mean() for one, other in combinations(answers, 2)]))


def _linear(titles: Titles) -> float:
    """The simple reference, which needs no network."""
    names = [str(number) for number in range(titles.classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = readers.linear_machine(Labelled(titles.learn, titles.told, names), titles.test)
    return float((said.labels == titles.truth).mean())


def _call(graph: bytes, rows: Rows) -> Callable[[], object]:
    """One title of usual length."""
    ids = np.array([sorted(rows, key=len)[len(rows) // 2]], dtype=np.int64)
    return partial(one_thread(graph).run, None, {"ids": ids, "mask": np.ones_like(ids)})


def _parameters(net: torch.nn.Module) -> int:
    return sum(value.numel() for value in net.parameters())
