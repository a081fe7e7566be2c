"""Readers and writers that larger ones taught, and that lost parts: they follow the teacher, and stay what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from export.distill import Likened
from server.algorithms import bert
from server.algorithms.bert import BertSettings, Float32s
from server.algorithms.descent import Descent
from server.algorithms.gpt import Gpt, GptSettings
from server.algorithms.imitation import Imitation, imitate
from server.algorithms.note_heads import UNTOLD, FineTuning, finetune, judge, logits_of
from server.training.language import IGNORED, LoopSettings, Stream, learn, next_token_loss
from server.training.pruning import Notes, pruned_heads, pruned_writer, shorter
from server.training.taught import by_heads, by_writer

SIZES = BertSettings(vocabulary=40, width=16, layers=1, heads=2, inner=32, context=12, dropout=0.0)
LARGE = BertSettings(vocabulary=40, width=32, layers=1, heads=2, inner=64, context=12, dropout=0.0)
DRAW = np.random.default_rng(1)
ROWS = [[1, *DRAW.integers(5, 40, 5).tolist(), 2] for _ in range(80)]
TOLD = np.array([int(sum(token > 22 for token in row) > 3) for row in ROWS])
SETTINGS = FineTuning(epochs=8, batch=16, learning_rate=3e-3, refit=False)
LONGER = replace(SETTINGS, epochs=40)


def quiet(_share: float, _text: str) -> None:
    """Nobody watches."""


def test_a_reader_follows_its_teacher_also_where_nobody_told_the_truth() -> None:
    teacher = finetune(bert.fresh(LARGE, 1).bert, ROWS, {"kind": TOLD}, {"kind": 2}, LONGER)
    few = np.where(np.arange(len(ROWS)) < 8, TOLD, UNTOLD)
    student = bert.fresh(SIZES, 2).bert
    alone, taught = (
        finetune(student, ROWS, {"kind": few}, {"kind": 2}, LONGER, teaching=teaching)
        for teaching in (None, by_heads(teacher, share=0.9))
    )
    wanted = judge(teacher, ROWS)["kind"]
    apart = [float(np.abs(judge(heads, ROWS)["kind"] - wanted).mean()) for heads in (alone, taught)]
    assert apart[1] < 0.7 * apart[0]
    assert logits_of(teacher, ROWS[:3])["kind"].shape == (3, 2)


def test_students_of_two_seeds_differ_by_their_start_and_by_the_order_of_their_rows() -> None:
    teacher = finetune(bert.fresh(LARGE, 1).bert, ROWS, {"kind": TOLD}, {"kind": 2}, SETTINGS)

    def taught(start: int, order: int) -> Float32s:
        how = replace(SETTINGS, seed=order)
        heads = finetune(
            bert.fresh(SIZES, start).bert, ROWS, {"kind": TOLD}, {"kind": 2}, how, teaching=by_heads(teacher)
        )
        return judge(heads, ROWS)["kind"]

    one = taught(1, 1)
    assert np.array_equal(one, taught(1, 1))
    assert np.abs(one - taught(2, 1)).max() > 0.01
    assert np.abs(one - taught(1, 2)).max() > 0.01


def test_an_encoder_learns_to_say_what_a_larger_one_says() -> None:
    teacher, student = bert.fresh(LARGE, 1).bert, bert.fresh(SIZES, 2).bert
    losses = imitate(student, teacher, ROWS, Imitation(Descent(steps=50, learning_rate=5e-3), batch=16), Likened)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    with pytest.raises(ValueError, match="nothing to read"):
        imitate(student, teacher, [], Imitation(), Likened)


def test_a_reader_loses_half_of_its_heads_and_inner_units_and_still_reads() -> None:
    heads = finetune(bert.fresh(SIZES, 1).bert, ROWS, {"kind": TOLD}, {"kind": 2}, SETTINGS)
    made = pruned_heads(heads, 0.5, Notes(ROWS, {"kind": TOLD}, {"kind": 2}, shorter(SETTINGS, 0.5)))
    assert (made.bert.settings.heads, made.bert.settings.each, made.bert.settings.inner) == (1, 8, 16)
    right = [float((judge(one, ROWS)["kind"].argmax(axis=1) == TOLD).mean()) for one in (heads, made)]
    assert right[1] > right[0] - 0.1
    assert (shorter(SETTINGS, 0.5).epochs, shorter(SETTINGS, 0.5).head_learning_rate) == (4, 1.5e-3)


TEXT = [([3, 4, 5, 6, 7, 8] * 8)[start : start + 40] for start in range(6)]
LOOP = LoopSettings(steps=40, learning_rate=5e-3, check_every=40, patience=0)
WRITER = GptSettings(vocabulary=12, context=16, layers=1, heads=2, width=16, dropout=0.0)


def batches() -> Stream:
    return Stream(TEXT, 0, 12, 4, 1)


def test_a_writer_is_taught_while_it_learns_and_judged_by_the_truth_alone() -> None:
    teacher, student = Gpt(GptSettings(vocabulary=12, context=16, layers=1, heads=2, width=32)), Gpt(WRITER)
    loss, batch = by_writer(teacher, share=0.5), batches()(0)
    taught, count = loss(student.train(), batch)
    truth, _ = next_token_loss(student, batch)
    assert int(count) == int((batch["targets"] != IGNORED).sum())
    assert float(taught.detach()) != pytest.approx(float(truth.detach()))
    assert float(loss(student.eval(), batch)[0].detach()) == pytest.approx(float(truth.detach()), rel=1e-5)
    itself = by_writer(student, share=1.0)
    student.train()
    assert float(itself(student, batch)[0].detach()) == pytest.approx(0.0, abs=1e-3)


def test_a_teacher_of_another_vocabulary_is_refused() -> None:
    loss = by_writer(Gpt(GptSettings(vocabulary=13, context=16, layers=1, heads=2, width=16)))
    with pytest.raises(ValueError, match="13 tokens cannot teach a network of 12"):
        loss(Gpt(WRITER).train(), batches()(0))


def test_a_writer_loses_half_of_its_heads_and_inner_units_and_learns_on() -> None:
    net = Gpt(WRITER)
    learn(net, next_token_loss, batches(), [], LOOP, quiet)
    made = pruned_writer(net, 0.5, batches(), [], LoopSettings(steps=10, check_every=10, learning_rate=2e-3), quiet)
    assert (made.settings.heads, made.settings.each, made.settings.wide) == (1, 8, 32)
    with torch.no_grad():
        losses = [next_token_loss(one.eval(), batches()(99)) for one in (Gpt(WRITER), net, made)]
    fresh, whole, half = (float(summed / count) for summed, count in losses)
    assert half < 0.5 * fresh
    assert half < whole + 0.5
