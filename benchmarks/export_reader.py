"""The part of `export.py` that reads: a BERT of 4 layers of 192 over titles of accidents, for the type of event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import contract
import numpy as np
import readers
import torch
from export_lite import Lites, lite_rows
from export_rows import change_row, faster_row, forms_note, named, size_row, strain_of, timed
from numpy.typing import NDArray
from smaller_text import ABOUT, HEADS, READ, TEACHER, Titles, read

from edge_agent.runtimes.engine import Engine
from export.bounds import READER
from export.compact import bare
from export.forms import OF_WINDOWS, Choice, choose
from export.parity import compare
from export.quantize import quantize
from export.strain import strained_tokens
from export.to_decoder import encoder_graph
from export.to_tflite import SHORTEST, lengths_up_to
from export.trials import STRAINED_ROWS, Run, Trial
from protocol.bundles import Parity
from server.algorithms import bert
from server.algorithms.bert import EncoderForExport, Float32s, Rows
from server.algorithms.descent import Descent
from server.algorithms.note_heads import NoteHeads, finetune
from server.training.pretraining import EncoderPlan, pretrained_encoder
from server.training.text_encoder import GraphOfTokens

WHAT = "BERT note reader 4x192"
MOST_BYTES, MOST_POINTS, OF_FLOAT = 0.28, 0.005, 1 / 1.6
QUICK_ROWS = 60


@dataclass(frozen=True)
class Task:
    """A fine-tuned encoder and titles that it did not learn from, cut to its context."""

    net: NoteHeads
    rows: Rows
    truth: NDArray[np.int64]
    classes: int

    def judged(self, whole: NDArray[np.floating]) -> NDArray[np.int64]:
        """Classes by the texts' vectors [N, d], however those were made."""
        seen = torch.from_numpy(np.asarray(whole, dtype=np.float32)) * whole.shape[1] ** 0.5
        with torch.inference_mode():
            return np.asarray(self.net.heads[ABOUT](seen).argmax(dim=1).numpy(), dtype=np.int64)

    def right(self, whole: NDArray[np.floating]) -> float:
        """Share of right classes."""
        return float((self.judged(whole) == self.truth).mean())

    def f1(self, whole: NDArray[np.floating]) -> float:
        """Mean F1 of the classes."""
        return readers.macro_f1(self.truth, self.judged(whole), self.classes)

    def exact(self, rows: Rows) -> Float32s:
        """The float network's vectors."""
        return bert.vectors(self.net.bert, rows)

    def trial(self) -> Trial:
        """As `export.forms` tries graphs: by the share of right classes."""
        exact = self.exact(self.rows)
        before = self.right(exact)

        def cost(run: Run) -> Parity:
            said = run(self.rows)
            return compare(exact, said, before, self.right(said), lower_is_better=False, bound=READER)

        few = self.rows[:STRAINED_ROWS]
        odd = strained_tokens(few, self.net.bert.settings.vocabulary)
        usual = sorted(self.rows, key=len)[len(self.rows) // 2]
        return Trial(
            load=GraphOfTokens,
            measure=cost,
            rows=(few,),
            strained={kind: (rows,) for kind, rows in odd.items()},
            one=([usual],),
        )


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Rows of size, loss and time."""
    began = time.monotonic()
    quick = sheet.options.quick
    task = learned(read(path, quick), quick)
    trial = task.trial()
    graph = encoder_graph(EncoderForExport(task.net.bert))
    choice: Choice = choose(graph, READER, trial, tried=OF_WINDOWS)
    ours = named(choice.forms, "int8")
    forms_note(sheet, WHAT, choice.forms)
    size_row(sheet, f"{WHAT}, int8", ours.size, choice.float_bytes, MOST_BYTES, exported=len(graph), judged=not quick)
    runs = {"float": GraphOfTokens(bare(graph)), "int8": GraphOfTokens(bare(quantize(graph)))}
    whole = {name: run(task.rows) for name, run in runs.items()}
    spent = time.monotonic() - began
    for metric, figure in (("share right", task.right), ("macro F1", task.f1)):
        before, after = figure(whole["float"]), figure(whole["int8"])
        change_row(
            sheet,
            f"{WHAT}, int8, type of event from held-out titles",
            f"{metric}, change",
            [before - after],
            MOST_POINTS,
            n=len(task.rows),
            seconds=spent,
            judged=not quick,
            figure=round(after, 5),
            float_figure=round(before, 5),
            answers_alike=round(float((task.judged(whole["float"]) == task.judged(whole["int8"])).mean()), 5),
            **strain_of(ours),
        )
    times = timed({name: partial(run, *trial.one) for name, run in runs.items()})
    tokens = len(trial.one[0][0])
    faster_row(
        sheet,
        f"{WHAT}, int8, a title of {tokens} tokens, one thread",
        "time / onnxruntime float",
        times,
        "int8",
        "float",
        OF_FLOAT,
        judged=not quick,
    )
    ids = torch.ones((1, SHORTEST), dtype=torch.int32)
    lengths = lengths_up_to(task.net.bert.settings.context)
    lites = Lites(
        what=WHAT,
        module=EncoderForExport(task.net.bert),
        examples={"ids": ids, "mask": torch.ones_like(ids)},
        outputs=["tokens", "whole"],
        exact=task.exact,
        trial=trial,
        bound=READER,
        asked=in_lengths,
        lengths=lengths,
    )
    lite_rows(sheet, lites, partial(runs["int8"], *trial.one))


def learned(titles: Titles, quick: bool) -> Task:
    """Pre-trained on the training part's sentences, then fine-tuned on its titles."""
    reading = replace(READ, descent=Descent(steps=4)) if quick else READ
    plan = EncoderPlan(pieces=3000, sizes=TEACHER, pretraining=reading, aligned=0.0)
    encoder = pretrained_encoder(titles.texts, 1, plan=plan)
    how = replace(HEADS, epochs=1 if quick else HEADS.epochs, seed=1)
    net = finetune(encoder.net.bert, encoder.rows(titles.learn), {ABOUT: titles.told}, {ABOUT: titles.classes}, how)
    most = QUICK_ROWS if quick else len(titles.test)
    context = TEACHER.context
    rows = [row if len(row) <= context else [*row[: context - 1], row[-1]] for row in encoder.rows(titles.test[:most])]
    return Task(net.eval(), rows, titles.truth[:most], titles.classes)


def in_lengths(engine: Engine) -> Run:
    """Rows of token ids through an engine that takes certain lengths, each filled up to the next."""

    def run(rows: Sequence[Sequence[int]]) -> Float32s:
        said = []
        for row in rows:
            ids = np.zeros((1, next(n for n in engine.lengths if n >= len(row))), dtype=np.int64)
            mask = np.zeros_like(ids)
            ids[0, : len(row)], mask[0, : len(row)] = row, 1
            said.append(engine.run({"ids": ids, "mask": mask})["whole"])
        return np.concatenate(said)

    return run
