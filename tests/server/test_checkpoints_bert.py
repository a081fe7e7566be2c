"""Encoders that other people saved: the same numbers as their own library, or a refusal that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from protocol.errors import BadBundle
from server.algorithms import bert, word_pieces
from server.algorithms.bert import BertSettings
from server.checkpoints_bert import load_bert, save_bert

transformers = pytest.importorskip("transformers", reason="the oracle for checkpoints of other people")
NOTES = ["Pump P-101 leaking oil, seal worn", "bearing noisy, replaced bearing", "泵漏油，更换密封", "轴承异响"] * 5
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]])
MASK = (IDS != 0).long()
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}


def vocabulary() -> Tokenizer:
    return word_pieces.learn(NOTES, 64)


def folder(path: Path, net: Any) -> Path:
    net.save_pretrained(path, safe_serialization=True)
    (path / "tokenizer.json").write_bytes(word_pieces.written(vocabulary()))
    return path


def oracle(kind: str, **more: Any) -> Any:
    torch.manual_seed(3)
    return getattr(transformers, kind)(getattr(transformers, more.pop("config"))(**(SIZES | more))).eval()


def ours(path: Path) -> tuple[torch.Tensor, bert.BertForPreTraining]:
    net, _ = load_bert(path)
    with torch.no_grad():
        return net.bert(IDS, MASK), net


def same(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    stands = MASK.bool()
    np.testing.assert_allclose(mine[stands].detach().numpy(), theirs[stands].detach().numpy(), atol=1e-4)


def test_bert_with_its_heads_gives_the_same_numbers(tmp_path: Path) -> None:
    theirs = oracle("BertForPreTraining", config="BertConfig")
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    tokens, net = ours(folder(tmp_path / "bert", theirs))
    with torch.no_grad():
        told = theirs(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    same(tokens, told.hidden_states[-1])
    same(net.words(tokens), told.prediction_logits)
    np.testing.assert_allclose(net.follows(tokens).detach().numpy(), told.seq_relationship_logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "config", "more"),
    [
        ("BertModel", "BertConfig", {"hidden_act": "gelu_new"}),
        ("BertForSequenceClassification", "BertConfig", {"num_labels": 4}),
        ("ElectraModel", "ElectraConfig", {"embedding_size": 16}),
        ("ElectraForPreTraining", "ElectraConfig", {"embedding_size": 16}),
    ],
)
def test_encoder_of_the_family_gives_the_same_vectors(
    tmp_path: Path, kind: str, config: str, more: dict[str, Any]
) -> None:
    theirs = oracle(kind, config=config, **more)
    tokens, _ = ours(folder(tmp_path / kind, theirs))
    with torch.no_grad():
        same(tokens, theirs(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[-1])


def test_roberta_counts_positions_from_behind_its_padding(tmp_path: Path) -> None:
    theirs = oracle("RobertaForMaskedLM", config="RobertaConfig", type_vocab_size=1, pad_token_id=0)
    tokens, net = ours(folder(tmp_path / "roberta", theirs))
    assert net.settings.context == 19
    with torch.no_grad():
        told = theirs(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    same(tokens, told.hidden_states[-1])
    same(net.words(tokens), told.logits)


def test_distilbert_is_the_same_block_under_other_names(tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 20}
    torch.manual_seed(3)
    theirs = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**sizes)).eval()
    tokens, net = ours(folder(tmp_path / "distil", theirs))
    with torch.no_grad():
        told = theirs(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    same(tokens, told.hidden_states[-1])
    same(net.words(tokens), told.logits)


def test_what_we_saved_is_read_by_their_library_and_by_ours(tmp_path: Path) -> None:
    net = bert.fresh(BertSettings(64, 16, 2, 2, 32, 20), 7).eval()
    with torch.no_grad():
        net.get_submodule("cls.predictions.decoder").bias.normal_()
    save_bert(net, vocabulary(), tmp_path / "saved")
    theirs, loading = transformers.BertForPreTraining.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["mismatched_keys"]
    with torch.no_grad():
        tokens = net.bert(IDS, MASK)
        told = theirs.eval()(input_ids=IDS, attention_mask=MASK)
    same(net.words(tokens), told.prediction_logits)
    again, tokenizer = load_bert(tmp_path / "saved")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())
    assert again.settings == net.settings
    assert tokenizer.encode("pump leaking 泵").ids == vocabulary().encode("pump leaking 泵").ids


def test_vocabulary_in_a_text_file_cuts_words_as_their_library_does(tmp_path: Path) -> None:
    path = folder(tmp_path / "text", oracle("BertModel", config="BertConfig"))
    (path / "tokenizer.json").unlink()
    pieces = [piece for piece, _ in sorted(vocabulary().get_vocab().items(), key=lambda it: it[1])]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    _, tokenizer = load_bert(path)
    theirs = transformers.BertTokenizer(str(path / "vocab.txt"))
    for text in ("Pump P-101 leaking", "泵漏油 replaced", "", "ZZZ??"):
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"]


def test_a_tokenizer_that_fills_up_and_cuts_no_longer_does(tmp_path: Path) -> None:
    path = folder(tmp_path / "padded", oracle("BertModel", config="BertConfig"))
    tokenizer = vocabulary()
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    (path / "tokenizer.json").write_bytes(word_pieces.written(tokenizer))
    plain = vocabulary().encode("pump leaking oil seal worn").ids
    assert len(plain) > 16
    assert load_bert(path)[1].encode("pump leaking oil seal worn").ids == plain


def test_numbers_of_positions_that_old_writers_stored_are_passed_over(tmp_path: Path) -> None:
    path = folder(tmp_path / "old", oracle("BertModel", config="BertConfig"))
    stored = load_file(path / "model.safetensors")
    save_file({**stored, "embeddings.position_ids": torch.arange(20)[None]}, path / "model.safetensors")
    assert load_bert(path)[0].settings.width == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "modernbert"}, "known are bert"),
        ({"position_embedding_type": "relative_key"}, "absolute positions"),
        ({"hidden_act": "swish"}, "activation 'swish'"),
        ({"num_attention_heads": 3}, "do not fit together"),
        ({"hidden_size": 32}, r"has shape .* says"),
        ({"num_hidden_layers": 3}, "holds no bert.encoder.layer.2"),
        ({"vocab_size": -1}, "config.json"),
        ({"vocab_size": 1_000_000, "hidden_size": 1_000_000}, "the limit is"),
        ({"auto_map": {"AutoModel": "code.Net"}}, "never run"),
    ],
)
def test_a_config_that_ours_cannot_be_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = folder(tmp_path / "bert", oracle("BertModel", config="BertConfig"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_bytes(msgspec.json.encode(config | change))
    with pytest.raises(BadBundle, match=words):
        load_bert(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "bert", oracle("BertModel", config="BertConfig"))
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(BadBundle, match="pickle"):
        load_bert(path)


def test_a_strange_part_of_the_encoder_is_refused_and_another_head_is_left(tmp_path: Path) -> None:
    path = folder(tmp_path / "bert", oracle("BertModel", config="BertConfig"))
    stored = load_file(path / "model.safetensors")
    save_file({**stored, "classifier.weight": torch.zeros(4, 16)}, path / "model.safetensors")
    assert load_bert(path)[0].settings.layers == 2
    save_file({**stored, "encoder.layer.0.adapter.weight": torch.zeros(4, 16)}, path / "model.safetensors")
    with pytest.raises(BadBundle, match=r"adapter\.weight"):
        load_bert(path)


def test_a_tokenizer_that_does_not_match_its_model_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "bert", oracle("BertModel", config="BertConfig"))
    (path / "tokenizer.json").write_bytes(word_pieces.written(word_pieces.learn([*NOTES, "gearbox motor valve"], 90)))
    with pytest.raises(BadBundle, match="do not match"):
        load_bert(path)
