"""An encoder learns from text without labels: what is hidden, what follows what, and what lies near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from server.algorithms import bert
from server.algorithms.bert import BertSettings
from server.algorithms.descent import Descent, descend, pace
from server.algorithms.masking import (
    UNASKED,
    Alignment,
    Marks,
    Pair,
    PreTraining,
    align,
    alone,
    dealt,
    hide,
    info_nce,
    joined_rows,
    of_classes,
    pretrain,
)

LITTLE = BertSettings(vocabulary=60, width=16, layers=1, heads=2, inner=32, context=16)
MARKS = Marks(opening=2, closing=3, hidden=4, special=(0, 1, 2, 3, 4), continues=np.array([False] * 40 + [True] * 20))


def symptoms(count: int, seed: int = 3) -> list[list[int]]:
    """A kind of trouble is three words that only it has."""
    order = np.random.default_rng(seed)
    return [[2, *order.permutation(np.arange(3) + 5 + 3 * kind).tolist(), 3] for kind in order.integers(4, size=count)]


def shown(rows: list[list[int]], settings: PreTraining, seed: int = 5) -> tuple[torch.Tensor, ...]:
    ids, mask = bert.padded(rows, LITTLE)
    return ids, mask, *hide(ids, mask, MARKS, settings, torch.Generator().manual_seed(seed))


def test_a_seventh_of_the_words_is_hidden_and_most_of_them_masked() -> None:
    rows = [[2, *[7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18], 3]] * 2000
    ids, _, found, stood = shown(rows, PreTraining())
    asked = stood != UNASKED
    assert (asked.sum() / (12 * 2000)).item() == pytest.approx(0.16, abs=0.02)  # a text hides one word at least
    fate = found[asked]
    assert (fate == MARKS.hidden).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (fate == ids[asked]).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(stood[asked], ids[asked])
    assert torch.equal(found[~asked], ids[~asked])


def test_special_tokens_and_padding_are_never_hidden_nor_put_in_a_word_s_place() -> None:
    _, mask, found, stood = shown([[2, 7, 3], [2, 7, 8, 9, 3], [2, 3]] * 500, PreTraining(hide=0.9))
    special = torch.tensor(MARKS.special)
    assert not torch.isin(stood[stood != UNASKED], special).any()
    assert not torch.isin(found[(stood != UNASKED) & (found != MARKS.hidden)], special).any()
    assert (stood[mask == 0] == UNASKED).all()


def test_the_shortest_note_hides_a_word_too() -> None:
    stood = shown([[2, 7, 3]] * 50, PreTraining(hide=0.01))[3]
    assert ((stood != UNASKED).sum(dim=1) == 1).all()


def test_pieces_of_a_word_are_hidden_together() -> None:
    rows = [[2, 7, 45, 46, 8, 50, 9, 3]] * 300
    stood = shown(rows, PreTraining(hide=0.3))[3] != UNASKED
    assert torch.equal(stood[:, 1], stood[:, 2])
    assert torch.equal(stood[:, 2], stood[:, 3])
    assert torch.equal(stood[:, 4], stood[:, 5])
    alone_too = shown(rows, PreTraining(hide=0.3, whole_words=False))[3] != UNASKED
    assert not torch.equal(alone_too[:, 1], alone_too[:, 2])


def test_a_piece_at_the_beginning_is_not_joined_to_the_opening_token() -> None:
    stood = shown([[2, 45, 46, 3]] * 20, PreTraining(hide=0.01))[3]
    assert ((stood != UNASKED).sum(dim=1) == 2).all()


def test_hidden_words_are_learned_and_the_same_seed_learns_the_same() -> None:
    settings = PreTraining(Descent(steps=80, learning_rate=1e-2), batch=32)
    nets = [bert.fresh(LITTLE, 7) for _ in range(2)]
    losses = [pretrain(net, symptoms(200), [], MARKS, settings) for net in nets]
    assert np.mean(losses[0][-10:]) < 0.6 * np.mean(losses[0][:5])
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_which_action_follows_which_symptom_is_learned() -> None:
    little = replace(LITTLE, layers=2, dropout=0.0)
    pairs = [Pair([2, 5 + kind, 9 + kind, 3], [2, 20 + kind, 25 + kind, 3]) for _ in range(16) for kind in range(3)]
    net = bert.fresh(little, 7)
    pretrain(net, [], pairs, MARKS, PreTraining(Descent(steps=220, learning_rate=1e-2), batch=32, follows=8.0))
    true = [(pair.first, pair.second) for pair in pairs]
    false = [(pair.first, other.second) for pair, other in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    with torch.no_grad():
        said = [
            torch.softmax(net.follows(net.bert(*joined_rows(these, little))), dim=1)[:, 0] for these in (true, false)
        ]
    assert said[0].min() > 0.8
    assert said[1].max() < 0.2


def test_a_pair_stands_in_one_row_with_its_segments_and_is_cut_to_fit() -> None:
    ids, mask, types = joined_rows([([2, 7, 8, 3], [2, 9, 3]), ([2, *[7] * 20, 3], [2, *[9] * 12, 3])], LITTLE)
    assert ids[0, :6].tolist() == [2, 7, 8, 3, 9, 3]
    assert types[0, :8].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert mask[1].sum() == 16
    assert ids[1, -1] == 3
    assert (ids[1] == 3).sum() == 2
    assert types[1].sum() in (8, 7)


def test_texts_of_a_pair_come_near_one_another() -> None:
    rows = symptoms(120)
    kinds = [(min(row[1:-1]) - 5) // 3 for row in rows]
    net = bert.fresh(LITTLE, 7).bert
    losses = align(net, of_classes(rows, kinds, 7), Alignment(Descent(steps=40, learning_rate=1e-2), batch=16))
    found = bert.vectors(net, rows)
    near = found @ found.T
    same = np.equal.outer(kinds, kinds)
    assert near[same].mean() > near[~same].mean() + 0.3
    assert all(np.isfinite(losses))


def test_where_there_are_no_pairs_a_text_is_its_own_partner() -> None:
    net = bert.fresh(LITTLE, 7).bert
    losses = align(
        net, alone([[2, i, i + 1, 3] for i in range(5, 37)]), Alignment(Descent(steps=30, learning_rate=3e-3))
    )
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    with pytest.raises(ValueError, match="give at least two"):
        align(net, alone([[2, 5, 3]]), Alignment())


def test_texts_of_the_same_group_are_not_held_against_one_another() -> None:
    one = torch.eye(3)
    other = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    apart = info_nce(one, other, torch.tensor([-1, -1, -1]), 0.05)
    together = info_nce(one, other, torch.tensor([4, 4, -1]), 0.05)
    assert together < apart


def test_false_second_texts_come_from_the_same_corpus_and_never_repeat_a_true_one() -> None:
    from server.algorithms.masking import _Partners

    pairs = [Pair([2, 5, 3], [2, 20 + i, 3], corpus=0) for i in range(3)]
    pairs += [Pair([2, 6, 3], [2, 30, 3], corpus=0), Pair([2, 7, 3], [2, 40, 3], corpus=1)]
    order = np.random.default_rng(3)
    joined, belongs = _Partners(pairs).drawn(np.array([0, 3, 4] * 100), order)
    said = {(tuple(a), tuple(b), int(label)) for (a, b), label in zip(joined, belongs, strict=True)}
    assert ((2, 5, 3), (2, 30, 3), 1) in said
    assert not any(a == (2, 5, 3) and b[1] in (20, 21, 22) and label for a, b, label in said)
    assert not any(b[1] == 40 and a != (2, 7, 3) for a, b, _ in said)
    assert not any(a == (2, 7, 3) and label for a, _, label in said)  # its corpus holds no other


def test_all_texts_are_dealt_before_one_comes_again_and_like_lengths_go_together() -> None:
    lengths = np.random.default_rng(3).integers(3, 60, size=1000)
    batches = dealt(lengths.tolist(), 10, np.random.default_rng(7))
    first = [next(batches) for _ in range(100)]
    assert sorted(np.concatenate(first).tolist()) == list(range(1000))
    assert np.mean([np.ptp(lengths[batch]) for batch in first]) < 10
    assert sorted(map(len, (next(dealt([3, 4, 5], 10, np.random.default_rng(7))),))) == [3]


def test_nothing_to_read_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to read"):
        pretrain(bert.fresh(LITTLE, 7), [[2, 3]], [], MARKS, PreTraining())


def test_the_pace_rises_then_falls_to_nothing() -> None:
    paces = [pace(gone / 100, 0.1) for gone in range(101)]
    assert paces[0] < 0.05
    assert max(paces) == pytest.approx(paces[10], abs=0.01)
    assert paces[-1] == pytest.approx(0.0, abs=1e-9)


def test_minutes_end_a_descent_before_its_steps_and_a_watcher_can_too() -> None:
    weight = torch.nn.Linear(1, 1)
    ticks = iter(range(1000))
    losses = descend(
        [(weight, 1.0)],
        lambda _step: weight(torch.ones(1, 1)).square().sum(),
        Descent(steps=500, minutes=0.5),
        clock=lambda: float(next(ticks)),
    )
    assert 25 <= len(losses) <= 31
    stopped = descend(
        [(weight, 1.0)], lambda _s: weight(torch.ones(1, 1)).square().sum(), Descent(), lambda step, _g, _l: step < 3
    )
    assert len(stopped) == 3


def test_a_loss_that_is_no_number_names_the_remedy() -> None:
    weight = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="lower the learning rate"):
        descend([(weight, 1.0)], lambda _step: weight(torch.ones(1, 1)).sum() * float("nan"), Descent())


def test_texts_become_an_encoder_that_finds_the_same_said_otherwise() -> None:
    from server.training.pretraining import EncoderPlan, TextPair, pretrained_encoder
    from server.training.simulated_notes import ISO, notes

    said = list(notes(ISO, 120, 7))
    plan = EncoderPlan(
        pieces=500,
        sizes=BertSettings(width=16, layers=1, heads=2, inner=32, context=24),
        pretraining=PreTraining(Descent(steps=5), batch=8),
        alignment=Alignment(Descent(steps=5), batch=8),
    )
    pairs = [TextPair(one.text, one.fix) for one in said]
    told: list[float] = []
    made = [
        pretrained_encoder(
            [one.text for one in said], 7, pairs=pairs, plan=plan, progress=lambda share, _step: told.append(share)
        )
        for _ in range(2)
    ]
    vectors = [one.vectors(["pump leaking", "泵漏油"]) for one in made]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.linalg.norm(vectors[0], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert max(told) > 0.9
    assert made[0].net.settings.vocabulary == made[0].tokenizer.get_vocab_size()
    marks = made[0].marks()
    assert marks.special == (2, 3, 4, 0, 1)
    assert marks.continues.any()
