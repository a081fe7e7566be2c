"""Who stands beside ours when tokens are counted by the second: the same weights in other people's engines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contract
import torch

from protocol.writing.decoder import Decoder
from server.algorithms.gpt import Gpt, continued
from server.checkpoints import save_gpt

Generate = Callable[[Sequence[int], int], list[int]]
"""Prompt and how many tokens -> the likeliest ones."""


def by_feeding(decoder: Decoder) -> Generate:
    """Ours, and torch with our own memory: one token after the other."""

    def generate(prompt: Sequence[int], count: int) -> list[int]:
        decoder.rewind(0)
        return continued(decoder, prompt, count)

    return generate


def in_transformers(sheet: contract.Sheet, net: Gpt) -> Generate | None:
    """GPT2LMHeadModel.generate with its own cache, from the folder that our checkpoint is saved as."""
    theirs = contract.peer(sheet, "transformers")
    if theirs is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        save_gpt(net, b"{}", Path(folder))
        model = theirs.GPT2LMHeadModel.from_pretrained(folder).eval()

    def generate(prompt: Sequence[int], count: int) -> list[int]:
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                use_cache=True,
                pad_token_id=0,
            )
        return [int(token) for token in made[0, len(prompt) :]]

    return generate


def in_ctranslate2(sheet: contract.Sheet, net: Gpt, compute: str) -> Generate | None:
    """A GPT-2 of ctranslate2, filled from our weights; one thread. compute: "int8" or "float32"."""
    theirs = contract.peer(sheet, "ctranslate2")
    if theirs is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        _ctranslate2_spec(theirs, net, compute).save(folder)
        generator = theirs.Generator(folder, device="cpu", compute_type=compute, inter_threads=1, intra_threads=1)

    def generate(prompt: Sequence[int], count: int) -> list[int]:
        made = generator.generate_batch(
            [[str(token) for token in prompt]],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
        )
        return [int(token) for token in made[0].sequences_ids[0]]

    return generate


def _ctranslate2_spec(theirs: Any, net: Gpt, compute: str) -> Any:
    """Its description of a decoder, filled and quantized; saved by the caller."""
    spec = theirs.specs.TransformerDecoderModelSpec.from_config(
        net.settings.layers, net.settings.heads, pre_norm=True, activation=theirs.specs.Activation.GELUTanh
    )
    decoder, state = spec.decoder, {name: value.detach().numpy().copy() for name, value in net.state_dict().items()}

    def norm(part: Any, name: str) -> None:
        part.gamma, part.beta = state[f"{name}.weight"], state[f"{name}.bias"]

    def linear(part: Any, name: str) -> None:
        part.weight, part.bias = state[f"{name}.weight"], state[f"{name}.bias"]

    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = state["token.weight"]
    decoder.position_encodings.encodings = state["place.weight"]
    norm(decoder.layer_norm, "norm")
    for i, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"blocks.{i}.norm_1")
        linear(layer.self_attention.linear[0], f"blocks.{i}.attention.qkv")
        linear(layer.self_attention.linear[1], f"blocks.{i}.attention.out")
        norm(layer.ffn.layer_norm, f"blocks.{i}.norm_2")
        linear(layer.ffn.linear_0, f"blocks.{i}.feed_forward.up")
        linear(layer.ffn.linear_1, f"blocks.{i}.feed_forward.down")
    spec.register_vocabulary([str(token) for token in range(net.settings.vocabulary)])
    for name in ("bos_token", "eos_token", "unk_token"):
        setattr(spec.config, name, "0")
    spec.validate()
    spec.optimize(quantization=compute)
    return spec
