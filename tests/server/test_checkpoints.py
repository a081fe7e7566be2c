"""A checkpoint that someone brings: the same answers as Hugging Face's own classes, both ways, and nothing of it is run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from protocol.errors import BadBundle, Reason
from server.algorithms import byte_pairs, low_rank
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder, continued
from server.checkpoints import load_gpt, save_gpt

transformers = pytest.importorskip("transformers", reason="transformers is the oracle: pip install 'millwright[dev]'")
TOKENIZER = byte_pairs.written(byte_pairs.learn(["The pump stands still.", "泵停了。"] * 4, 300))
SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def theirs(kind: str, **more: Any) -> Any:
    """A random network of Hugging Face's, biases and gains moved off their start so that each of them matters."""
    torch.manual_seed(3)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, **more)
        net = transformers.GPT2LMHeadModel(config)
    else:
        name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}[kind]
        net = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**(SMALL | more)))
    with torch.no_grad():
        for value in net.parameters():
            value += 0.05 * torch.randn_like(value)
    return net.eval()


def saved(net: Any, folder: Path, **more: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.save_pretrained(folder, **more)
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    return folder


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False, "n_inner": 40}),
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0}}),
    ("mistral", {"sliding_window": 32}),
    ("qwen2", {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("kind", "more"), CASES)
def test_loaded_network_says_what_their_class_says_and_so_does_what_is_saved_back(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    oracle = theirs(kind, **more)
    net, tokenizer = load_gpt(saved(oracle, tmp_path / "in"))
    ids = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = oracle(ids).logits
        assert torch.allclose(net(ids)[0], expected, atol=1e-4)
        prompt = ids[:1, :6]
        greedy = oracle.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, eos_token_id=-1,
            pad_token_id=0,
        )  # fmt: skip
    assert continued(TorchDecoder(net), prompt[0].tolist(), 12) == greedy[0, 6:].tolist()
    assert tokenizer == TOKENIZER
    save_gpt(net, tokenizer, tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        assert torch.allclose(again(ids).logits, expected, atol=1e-4)
    assert continued(TorchDecoder(load_gpt(tmp_path / "out")[0]), [5, 6], 5) == continued(TorchDecoder(net), [5, 6], 5)


def test_shards_and_half_precision_are_read(tmp_path: Path) -> None:
    oracle = theirs("llama").half()
    folder = saved(oracle, tmp_path, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    net, _ = load_gpt(folder)
    assert torch.allclose(net.token.weight, oracle.model.embed_tokens.weight.float())


def test_files_of_the_first_gpt2_without_the_prefix_and_with_stored_masks_are_read(tmp_path: Path) -> None:
    oracle = theirs("gpt2")
    folder = saved(oracle, tmp_path)
    old = {name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        assert torch.allclose(load_gpt(folder)[0](ids)[0], oracle(ids).logits, atol=1e-4)


def test_pickles_foreign_code_and_unknown_architectures_are_refused(tmp_path: Path) -> None:
    folder = saved(theirs("gpt2"), tmp_path)
    config = json.loads((folder / "config.json").read_text())

    def refused(**change: Any) -> BadBundle:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadBundle) as caught:
            load_gpt(folder)
        return caught.value

    assert "auto_map" in refused(auto_map={"AutoModel": "own.Model"}).detail
    assert "'bloom'" in refused(model_type="bloom").detail
    assert refused(n_embd=64).reason == Reason.WRONG_TYPE
    assert refused(n_embd=1_000_000, n_layer=200).reason == Reason.TOO_LARGE
    assert refused(n_layer=10**9).reason == Reason.WRONG_TYPE
    assert refused(n_head=5).reason == Reason.WRONG_TYPE
    assert refused(activation_function="relu").reason == Reason.WRONG_TYPE
    assert "holds no transformer.h.2" in refused(n_layer=3).detail
    assert "does not have" in refused(n_layer=1).detail
    assert refused(scale_attn_by_inverse_layer_idx=True).reason == Reason.UNSUPPORTED_RUNTIME
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in refused().detail


def test_index_that_points_outside_its_folder_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    folder = saved(theirs("gpt2"), tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(BadBundle, match=r"model\.safetensors"):
        load_gpt(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(BadBundle, match="plain names"):
        load_gpt(folder)
    with pytest.raises(BadBundle, match="not a folder"):
        load_gpt(tmp_path / "absent")


def test_tokenizer_that_does_not_match_its_model_is_refused(tmp_path: Path) -> None:
    folder = saved(theirs("gpt2"), tmp_path)
    (folder / "tokenizer.json").write_bytes(
        byte_pairs.written(byte_pairs.learn(["a b"], 300, [f"<{i}>" for i in range(41)]))
    )
    load_gpt(folder)
    (folder / "tokenizer.json").write_bytes(
        byte_pairs.written(byte_pairs.learn(["a b"], 400, [f"<{i}>" for i in range(42)]))
    )
    with pytest.raises(BadBundle, match="do not match"):
        load_gpt(folder)
    (folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(BadBundle, match=r"tokenizer\.json"):
        load_gpt(folder)


def test_low_rank_fine_tuning_learns_little_and_folds_back_into_the_same_names(tmp_path: Path) -> None:
    net, tokenizer = load_gpt(saved(theirs("llama"), tmp_path / "in"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ids = torch.arange(1, 25).reshape(2, 12)
    first = net(ids)[0].detach()
    learning = low_rank.adapt(net, rank=2)
    assert learning < sum(value.numel() for value in before.values()) / 3
    assert torch.equal(net(ids)[0], first)
    optimiser = torch.optim.AdamW([value for value in net.parameters() if value.requires_grad], lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimiser.step()
    adapted = net(ids)[0].detach()
    low_rank.fold(net)
    assert torch.allclose(net(ids)[0], adapted, atol=1e-5)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["token.weight"], before["token.weight"])
    assert not torch.equal(after["blocks.0.attention.qkv.weight"], before["blocks.0.attention.qkv.weight"])
    save_gpt(net, tokenizer, tmp_path / "out")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        assert np.allclose(again(ids).logits, adapted, atol=1e-4)


def test_options_that_no_family_has_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Hugging Face family"):
        save_gpt(Gpt(GptSettings(vocabulary=20, context=8, layers=1, width=16, norm="rms")), TOKENIZER, tmp_path)
