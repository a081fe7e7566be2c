"""BERT: the same numbers as the published form, texts apart and together, and heads that learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edge_agent.runtimes.engine import OnnxEngine
from edge_agent.runtimes.text_graphs import GraphEncoder
from protocol.reading import tokens
from server.algorithms import bert, word_pieces
from server.algorithms.bert import BertSettings, EncoderForExport
from server.algorithms.note_heads import UNTOLD, FineTuning, class_weights, finetune, inner_split, judge
from server.training.text_encoder import PackedEncoder, TextEncoder, packed

LITTLE = BertSettings(vocabulary=60, width=16, layers=2, heads=2, inner=32, context=12)
ROWS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 5, 6, 7, 8, 9, 10, 3]]
NOTES = ["Pump P-101 leaking oil, seal worn", "bearing noisy, replaced bearing", "泵漏油，更换密封", "轴承异响"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    tokenizer = word_pieces.learn(NOTES * 5, 120)
    sizes = BertSettings(vocabulary=tokenizer.get_vocab_size(), width=16, layers=1, heads=2, inner=32, context=10)
    return TextEncoder(bert.fresh(sizes, 7), tokenizer)


def test_same_seed_gives_the_same_weights_and_leaves_chance_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (bert.fresh(LITTLE, 7).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())


def test_a_text_has_the_same_vector_alone_and_in_a_batch() -> None:
    net = bert.fresh(LITTLE, 7).bert
    together = bert.vectors(net, ROWS)
    alone = np.concatenate([bert.vectors(net, [row]) for row in ROWS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)


def test_tokens_make_up_the_text_vector() -> None:
    net = bert.fresh(LITTLE, 7).bert
    for each, whole, row in zip(bert.token_vectors(net, ROWS), bert.vectors(net, ROWS), ROWS, strict=True):
        assert each.shape == (len(row), 16)
        mean = each.mean(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), whole, atol=1e-5)


def test_what_is_longer_than_the_context_keeps_its_closing_token() -> None:
    ids, mask = bert.padded([[2, *[7] * 30, 3], []], LITTLE)
    assert ids.shape == (2, 12)
    assert ids[0, -1] == 3
    assert mask.sum(dim=1).tolist() == [12, 0]


def test_no_text_at_all_is_a_zero_vector_and_no_number_is_strange() -> None:
    net = bert.fresh(LITTLE, 7).bert
    assert bert.vectors(net, [[], [2, 3]])[0].tolist() == [0.0] * 16
    assert bert.vectors(net, []).shape == (0, 16)


def test_width_that_the_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide among 3 heads"):
        bert.fresh(BertSettings(width=16, heads=3), 7)


def test_words_are_read_and_written_by_one_table() -> None:
    net = bert.fresh(LITTLE, 7)
    assert len({p.data_ptr() for p in net.parameters()}) == len(list(net.parameters()))
    assert isinstance(decoder := net.get_submodule("cls.predictions.decoder"), nn.Linear)
    assert decoder.weight is net.bert.embeddings.word_embeddings.weight


def test_what_a_gateway_runs_answers_as_the_encoder_does() -> None:
    net = bert.fresh(LITTLE, 7).bert.eval()
    each, whole = EncoderForExport(net)(*bert.padded(ROWS, LITTLE))
    assert each.shape == (3, 8, 16)
    np.testing.assert_allclose(whole.detach().numpy(), bert.vectors(net, ROWS), atol=1e-6)


def test_places_point_at_the_words_of_the_note(encoder: TextEncoder) -> None:
    read = encoder.encode("Pump 泵 leaking")
    assert [("Pump 泵 leaking"[a:b]).lower() for a, b in read.places] == ["pump", "泵", "leaking"]
    assert read.tokens.shape == (3, encoder.width)
    assert read.cut == 0


def test_a_note_beyond_the_context_says_how_much_was_not_read(encoder: TextEncoder) -> None:
    text = "pump " * 20
    read = encoder.encode(text.strip())
    assert len(read.tokens) == 8
    assert text[: read.places[-1, 1]].split() == ["pump"] * 8
    assert read.cut == 12 * 5


def test_an_empty_note_has_no_tokens_and_a_zero_vector(encoder: TextEncoder) -> None:
    for text in ("", "  \n\t"):
        read = encoder.encode(text)
        assert read.tokens.shape == (0, encoder.width)
        assert not read.whole.any()


def test_a_note_cannot_speak_with_special_tokens(encoder: TextEncoder) -> None:
    special = {encoder.tokenizer.token_to_id(token) for token in word_pieces.SPECIAL} - {1}
    assert not special & set(encoder.rows(["[MASK] [SEP] [CLS] pump"])[0][1:-1])


def test_vocabulary_does_not_depend_on_the_order_of_texts() -> None:
    one, other = (word_pieces.learn(texts, 120).to_str() for texts in (NOTES * 5, list(reversed(NOTES)) * 5))
    assert one == other
    with pytest.raises(ValueError, match="cannot hold"):
        word_pieces.learn(NOTES, 20)


def test_heads_learn_two_judgements_at_once_and_leave_the_encoder_alone() -> None:
    order = np.random.default_rng(3)
    words = order.integers(5, 55, size=(60, 4))
    kind, urgent = (words[:, 0] > 30).astype(np.int64), (words[:, 1] > 30).astype(np.int64)
    words[:, 0], words[:, 1] = 5 + kind, 10 + urgent
    urgent[:10] = UNTOLD
    rows = [[2, *row, 3] for row in words.tolist()]
    net = bert.fresh(LITTLE, 7).bert
    before = {name: value.clone() for name, value in net.state_dict().items()}
    settings = FineTuning(epochs=12, learning_rate=3e-3, head_learning_rate=1e-2, patience=12)
    labels, classes = {"kind": kind, "urgency": urgent}, {"kind": 2, "urgency": 2}
    told = judge(finetune(net, rows, labels, classes, settings), rows)
    again = judge(finetune(net, rows, labels, classes, settings), rows)
    assert (told["kind"].argmax(axis=1) == kind).mean() > 0.9
    assert (told["urgency"].argmax(axis=1)[10:] == urgent[10:]).mean() > 0.9
    np.testing.assert_array_equal(told["kind"], again["kind"])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert judge(finetune(net, rows, labels, classes, FineTuning(epochs=1, pooled=True)), [])["kind"].shape == (0, 2)


def test_a_class_of_one_is_learned_and_never_checked_on() -> None:
    told = np.array([0] * 20 + [1] * 6 + [2])
    learn, check = inner_split(told, 0.2, 7)
    assert 26 in learn
    assert sorted([*learn, *check]) == list(range(27))
    assert {0, 1} >= set(told[check]) > set()


def test_rare_classes_weigh_more_and_a_class_without_rows_nothing() -> None:
    weights = class_weights(np.array([0] * 9 + [1, UNTOLD]), 3, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[2] == 0
    assert (9 * weights[0] + weights[1]) / 10 == pytest.approx(1.0)


def test_labels_that_do_not_fit_are_refused() -> None:
    net = bert.fresh(LITTLE, 7).bert
    with pytest.raises(ValueError, match="do not fit"):
        finetune(net, ROWS, {"kind": np.array([0, 1])}, {"kind": 2}, FineTuning())
    with pytest.raises(ValueError, match="no row has a label"):
        finetune(net, ROWS, {"kind": np.full(3, UNTOLD)}, {"kind": 2}, FineTuning())


def test_what_a_gateway_runs_is_near_the_float_encoder_and_reads_the_same_places(encoder: TextEncoder) -> None:
    choice, tokenizer = packed(encoder, NOTES)
    graph = choice.graph
    here = PackedEncoder(graph, tokenizer, 10)
    there = GraphEncoder(OnnxEngine(graph), tokens.tokenizer(tokenizer), here.width, 10)
    for text in (*NOTES, "", " ", "pump " * 30, "🙂 [SEP] \x00 Ünd"):
        exact, run, gateway = (one.encode(text) for one in (encoder, here, there))
        np.testing.assert_array_equal(exact.places, run.places)
        np.testing.assert_array_equal(run.places, gateway.places)
        np.testing.assert_allclose(run.whole, gateway.whole, atol=1e-6)
        np.testing.assert_allclose(run.tokens, gateway.tokens, atol=1e-6)
        assert exact.cut == run.cut == gateway.cut
        if len(exact.places):
            assert exact.whole @ run.whole > 0.99
