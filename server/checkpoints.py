"""A model that someone brings as a local Hugging Face folder: config.json, model.safetensors (or its shards) and
tokenizer.json. Nothing in it is run: pickle files and folders with their own code are refused, and every name, shape and
size is checked before memory is spent.

Families: GPT-2; Llama, Mistral and Qwen2 (one block, see server/algorithms/gpt.py). What we trained is saved the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from tokenizers import AddedToken
from torch import Tensor

from protocol.errors import BadBundle, Reason
from protocol.reading.tokens import tokenizer as gateway_tokens
from protocol.unreadable import UNREADABLE
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, GptSettings
from server.datasets import write_whole

MOST_CONFIG_BYTES = 1024 * 1024
MOST_TOKENIZER_BYTES = 64 * 1024 * 1024
MOST_SHARDS = 100
MOST_NUMBERS = 4_000_000_000
"""Parameters in all; a server holds four bytes for each."""
MOST_CONTEXT = 4096
"""Of a model with rotary positions; more is cut off, since a gateway keeps a memory of that length."""
CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.safetensors")
_FLOATS = {"F32", "F16", "BF16", "F64"}
_COUNTED = re.compile(r"(.*\.)?(position_ids|token_type_ids)")
"""Whole numbers that older writers stored and that follow from the settings."""

Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=200)]
Heads = Annotated[int, msgspec.Meta(ge=1, le=200)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Folder:
    """A checkpoint folder, its files checked; `config` is the parsed config.json, `shapes` every stored tensor's shape.
    Raises BadBundle for what is missing, too large, not safetensors, or needs code of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise BadBundle(Reason.BAD_ARCHIVE, f"{path} is not a folder: give the folder that holds {CONFIG}")
        self.config = self._json(CONFIG)
        if "auto_map" in self.config:
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"{CONFIG} names code of its own (auto_map), which is never run: bring a checkpoint of a known family",
            )
        self._holds: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name in self._shards():
            self._open(name)

    @property
    def family(self) -> str:
        """The config's `model_type`."""
        return str(self.config.get("model_type", ""))

    def tensor(self, name: str) -> Tensor:
        """A stored tensor as float32."""
        found: Tensor = self._holds[name].get_tensor(name)
        return found.float()

    def tokenizer(self) -> bytes:
        """The bytes of tokenizer.json."""
        return self._bytes(TOKENIZER, MOST_TOKENIZER_BYTES)

    def _bytes(self, name: str, most: int) -> bytes:
        file = self.path / name
        if not file.is_file():
            raise BadBundle(Reason.BAD_ARCHIVE, f"{self.path} holds no {name}")
        if file.stat().st_size > most:
            raise BadBundle(Reason.TOO_LARGE, f"{name} of {file.stat().st_size} bytes; the limit is {most}")
        return file.read_bytes()

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return msgspec.json.decode(self._bytes(name, MOST_CONFIG_BYTES), type=dict[str, Any])
        except UNREADABLE as error:
            raise BadBundle(Reason.MALFORMED_JSON, f"{name}: {error}") from error

    def _shards(self) -> list[str]:
        if (self.path / INDEX).is_file():
            index = self._json(INDEX).get("weight_map")
            names = sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []
            if not 1 <= len(names) <= MOST_SHARDS or not all(_SHARD.fullmatch(name) for name in names):
                raise BadBundle(
                    Reason.BAD_ARCHIVE, f"{INDEX}: 1 to {MOST_SHARDS} plain names of .safetensors files are expected"
                )
            return names
        if (self.path / WEIGHTS).is_file():
            return [WEIGHTS]
        pickled = sorted(p.name for p in self.path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))
        if pickled:
            raise BadBundle(
                Reason.BAD_ARCHIVE,
                f"{pickled[0]} is a pickle, which can run code when it is read, and is refused: save the model as "
                f"{WEIGHTS} where it comes from (save_pretrained does so)",
            )
        raise BadBundle(Reason.BAD_ARCHIVE, f"{self.path} holds neither {WEIGHTS} nor {INDEX}")

    def _open(self, shard: str) -> None:
        try:
            file: Any = safe_open(self.path / shard, framework="pt")
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if _COUNTED.fullmatch(name):
                    continue
                part = file.get_slice(name)
                if name in self._holds or part.get_dtype() not in _FLOATS:
                    raise BadBundle(
                        Reason.BAD_ARCHIVE, f"{shard}: {name} stands twice or is {part.get_dtype()}, not floating point"
                    )
                self.shapes[name] = tuple(part.get_shape())
                self._holds[name] = file
        except (SafetensorError, OSError) as error:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{shard}: {error}") from error


@dataclass(frozen=True)
class Place:
    """Where one of our parameters lies in a checkpoint: the rows of `theirs`, one after another, or one matrix turned over
    (GPT-2 keeps its linear maps as [in, out]). rows: of each."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    turned: bool = False

    def read(self, folder: Folder, shape: tuple[int, ...]) -> Tensor:
        """Our parameter, after its shape is found right."""
        for name, expected in self._expected(shape):
            if name not in folder.shapes:
                raise BadBundle(Reason.BAD_ARCHIVE, f"the checkpoint holds no {name}")
            if folder.shapes[name] != expected:
                raise BadBundle(
                    Reason.WRONG_TYPE, f"{name} has shape {folder.shapes[name]}; its {CONFIG} says {expected}"
                )
        found = torch.cat([folder.tensor(name) for name in self.theirs])
        return found.T.contiguous() if self.turned else found

    def stored(self, value: Tensor) -> dict[str, Tensor]:
        """Their tensors of our parameter."""
        if self.turned:
            return {self.theirs[0]: value.T.contiguous()}
        rows = list(self.rows or (value.shape[0],))
        return {name: part.clone() for name, part in zip(self.theirs, value.split(rows), strict=True)}

    def _expected(self, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
        if self.turned:
            yield self.theirs[0], shape[::-1]
        else:
            for name, rows in zip(self.theirs, self.rows or (shape[0],), strict=True):
                yield name, (rows, *shape[1:])


class Gpt2:
    """GPT-2's config.json."""

    class Config(msgspec.Struct):
        vocab_size: Size
        n_positions: Size
        n_embd: Size
        n_layer: Layers
        n_head: Heads
        n_inner: Size | None = None
        activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"
        layer_norm_epsilon: Positive = 1e-5
        tie_word_embeddings: bool = True
        scale_attn_weights: bool = True
        scale_attn_by_inverse_layer_idx: bool = False
        add_cross_attention: bool = False

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> GptSettings:
        c = msgspec.convert(config, cls.Config)
        if not c.scale_attn_weights or c.scale_attn_by_inverse_layer_idx or c.add_cross_attention:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "GPT-2 with unusual attention scaling or cross attention")
        return GptSettings(
            vocabulary=c.vocab_size, context=c.n_positions, layers=c.n_layer, heads=c.n_head, width=c.n_embd,
            inner=c.n_inner, norm_eps=c.layer_norm_epsilon, tied=c.tie_word_embeddings,
        )  # fmt: skip

    @staticmethod
    def config(s: GptSettings) -> dict[str, Any]:
        return {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": s.vocabulary,
            "n_positions": s.context, "n_embd": s.width, "n_layer": s.layers, "n_head": s.heads, "n_inner": s.wide,
            "activation_function": "gelu_new", "layer_norm_epsilon": s.norm_eps, "tie_word_embeddings": s.tied,
        }  # fmt: skip

    @staticmethod
    def places(s: GptSettings) -> Iterator[Place]:
        yield Place("token.weight", ("transformer.wte.weight",))
        yield Place("place.weight", ("transformer.wpe.weight",))
        for i in range(s.layers):
            ours, theirs = f"blocks.{i}.", f"transformer.h.{i}."
            for part in ("weight", "bias"):
                turned = part == "weight"
                yield Place(f"{ours}norm_1.{part}", (f"{theirs}ln_1.{part}",))
                yield Place(f"{ours}attention.qkv.{part}", (f"{theirs}attn.c_attn.{part}",), turned=turned)
                yield Place(f"{ours}attention.out.{part}", (f"{theirs}attn.c_proj.{part}",), turned=turned)
                yield Place(f"{ours}norm_2.{part}", (f"{theirs}ln_2.{part}",))
                yield Place(f"{ours}feed_forward.up.{part}", (f"{theirs}mlp.c_fc.{part}",), turned=turned)
                yield Place(f"{ours}feed_forward.down.{part}", (f"{theirs}mlp.c_proj.{part}",), turned=turned)
        yield Place("norm.weight", ("transformer.ln_f.weight",))
        yield Place("norm.bias", ("transformer.ln_f.bias",))
        if not s.tied:
            yield Place("head.weight", ("lm_head.weight",))


class Rope(msgspec.Struct):
    """How positions turn; older files call `rope_type` `type`."""

    rope_theta: Positive | None = None
    rope_type: str = "default"
    type: str = ""
    factor: Positive = 1.0
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_max_position_embeddings: Size = 8192

    def scaling(self) -> tuple[float, ...]:
        kind = self.type or self.rope_type
        if kind == "default":
            return ()
        if kind == "linear":
            return (self.factor,)
        if kind == "llama3" and self.high_freq_factor > self.low_freq_factor:
            original = float(self.original_max_position_embeddings)
            return (self.factor, self.low_freq_factor, self.high_freq_factor, original)
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"rotary positions of type {kind!r}: default, linear or llama3")


class Llama:
    """The config.json of Llama, Mistral and Qwen2."""

    class Config(msgspec.Struct):
        model_type: Literal["llama", "mistral", "qwen2"]
        vocab_size: Size
        max_position_embeddings: Size
        hidden_size: Size
        num_hidden_layers: Layers
        num_attention_heads: Heads
        intermediate_size: Size
        num_key_value_heads: Heads | None = None
        head_dim: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
        hidden_act: Literal["silu", "swish"] = "silu"
        rms_norm_eps: Positive = 1e-6
        rope_theta: Positive = 10_000.0
        rope_scaling: Rope | None = None
        rope_parameters: Rope | None = None
        tie_word_embeddings: bool = False
        attention_bias: bool = False
        mlp_bias: bool = False
        use_sliding_window: bool = True
        sliding_window: Size | None = None

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> GptSettings:
        c = msgspec.convert(config, cls.Config)
        rope = c.rope_parameters or c.rope_scaling or Rope()
        if c.attention_bias != c.mlp_bias:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "attention_bias and mlp_bias differ: only both or neither")
        context = min(c.max_position_embeddings, MOST_CONTEXT)
        if c.use_sliding_window and c.sliding_window is not None and c.model_type != "llama":
            context = min(context, c.sliding_window)  # within one window, sliding changes nothing
        return GptSettings(
            vocabulary=c.vocab_size, context=context, layers=c.num_hidden_layers, heads=c.num_attention_heads,
            width=c.hidden_size, kv_heads=c.num_key_value_heads, head_width=c.head_dim, inner=c.intermediate_size,
            positions="rotary", norm="rms", gate="swiglu", bias=c.mlp_bias,
            qkv_bias=True if c.model_type == "qwen2" else None, tied=c.tie_word_embeddings, norm_eps=c.rms_norm_eps,
            rope_base=rope.rope_theta or c.rope_theta, rope_scaling=rope.scaling(), dropout=0.0,
        )  # fmt: skip

    @staticmethod
    def config(s: GptSettings) -> dict[str, Any]:
        own_bias = bool(s.qkv_bias) and not s.bias
        rope: dict[str, Any] = {"rope_theta": s.rope_base, "rope_type": "default"}
        if len(s.rope_scaling) == 1:
            rope |= {"rope_type": "linear", "factor": s.rope_scaling[0]}
        elif s.rope_scaling:
            keys = ("factor", "low_freq_factor", "high_freq_factor")
            rope |= dict(zip(keys, s.rope_scaling, strict=False))
            rope |= {"rope_type": "llama3", "original_max_position_embeddings": int(s.rope_scaling[3])}
        return {
            "architectures": ["Qwen2ForCausalLM" if own_bias else "LlamaForCausalLM"],
            "model_type": "qwen2" if own_bias else "llama", "vocab_size": s.vocabulary,
            "max_position_embeddings": s.context, "hidden_size": s.width, "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads, "num_key_value_heads": s.kv, "head_dim": s.each,
            "intermediate_size": s.wide, "hidden_act": "silu", "rms_norm_eps": s.norm_eps, "rope_theta": s.rope_base,
            "rope_parameters": rope, "tie_word_embeddings": s.tied, "attention_bias": s.bias, "mlp_bias": s.bias,
            "use_sliding_window": False,
        }  # fmt: skip

    @staticmethod
    def places(s: GptSettings) -> Iterator[Place]:
        rows = (s.heads * s.each, s.kv * s.each, s.kv * s.each)
        yield Place("token.weight", ("model.embed_tokens.weight",))
        for i in range(s.layers):
            ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
            yield Place(f"{ours}norm_1.weight", (f"{theirs}input_layernorm.weight",))
            yield Place(f"{ours}norm_2.weight", (f"{theirs}post_attention_layernorm.weight",))
            for part, qkv, rest in (
                ("weight", True, True),
                ("bias", s.bias if s.qkv_bias is None else s.qkv_bias, s.bias),
            ):
                if qkv:
                    names = tuple(f"{theirs}self_attn.{one}_proj.{part}" for one in "qkv")
                    yield Place(f"{ours}attention.qkv.{part}", names, rows)
                if rest:
                    yield Place(f"{ours}attention.out.{part}", (f"{theirs}self_attn.o_proj.{part}",))
                    both = tuple(f"{theirs}mlp.{one}_proj.{part}" for one in ("gate", "up"))
                    yield Place(f"{ours}feed_forward.up.{part}", both, (s.wide, s.wide))
                    yield Place(f"{ours}feed_forward.down.{part}", (f"{theirs}mlp.down_proj.{part}",))
        yield Place("norm.weight", ("model.norm.weight",))
        if not s.tied:
            yield Place("head.weight", ("lm_head.weight",))


FAMILIES: dict[str, type[Gpt2] | type[Llama]] = {"gpt2": Gpt2, "llama": Llama, "mistral": Llama, "qwen2": Llama}
_IGNORED = re.compile(r"lm_head\.weight|.*\.attn\.(masked_)?bias|.*\.rotary_emb\.inv_freq")
"""Stored by some writers, and made from the settings or from another tensor."""


def load_gpt(path: Path) -> tuple[Gpt, bytes]:
    """A network and its tokenizer.json from a folder. Raises BadBundle (see `Folder`; unsupported_runtime for an
    architecture or an option that our module does not have, wrong_type for shapes that do not fit the config)."""
    folder = Folder(path)
    family = FAMILIES.get(folder.family)
    if family is None:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"architecture {folder.family!r}: known are {', '.join(sorted(FAMILIES))}"
        )
    settings = _settings(family.settings, folder.config)
    _bounded(settings)
    places = [_found(place, folder) for place in family.places(settings)]
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Gpt(settings).named_parameters()}
    read = {place.ours: place.read(folder, shapes[place.ours]) for place in places}
    extra = {n for n in folder.shapes if not _IGNORED.fullmatch(n)} - {n for place in places for n in place.theirs}
    if extra:
        raise BadBundle(
            Reason.WRONG_TYPE, f"{len(extra)} tensors that {folder.family} does not have, {min(extra)} first"
        )
    tokenizer = folder.tokenizer()
    fitting(tokenizer, settings.vocabulary)
    net = Gpt(settings)
    net.load_state_dict(read)
    return net.eval(), tokenizer


def with_tokens(net: Gpt, tokenizer: bytes, fixed: Sequence[str]) -> tuple[Gpt, bytes]:
    """The network and its tokenizer with more fixed tokens, the rows of new ones at the mean of the old. Raises BadBundle for
    a tokenizer of a form that a gateway does not read."""
    words = byte_pairs.read(tokenizer)
    words.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in fixed])
    body = byte_pairs.written(words)
    gateway_tokens(body)
    s = net.settings
    more = int(words.get_vocab_size(with_added_tokens=True)) - s.vocabulary
    if more <= 0:
        return net, body
    wider = Gpt(replace(s, vocabulary=s.vocabulary + more))
    state = net.state_dict()
    for name in ("token.weight", "head.weight"):
        if name in state:
            state[name] = torch.cat([state[name], state[name].mean(dim=0, keepdim=True).repeat(more, 1)])
    wider.load_state_dict(state)
    return wider.eval(), body


def save_gpt(net: Gpt, tokenizer: bytes, path: Path) -> None:
    """Writes config.json, model.safetensors and tokenizer.json so that Hugging Face's classes load them. Raises ValueError
    for a combination of options that neither family has."""
    family = family_of(net.settings)
    state = net.state_dict()
    stored = {
        name: part for place in family.places(net.settings) for name, part in place.stored(state[place.ours]).items()
    }
    write_whole(path / WEIGHTS, as_safetensors({n: t.cpu() for n, t in stored.items()}, metadata={"format": "pt"}))
    write_whole(path / TOKENIZER, tokenizer)
    write_whole(path / CONFIG, msgspec.json.format(msgspec.json.encode(family.config(net.settings)), indent=1))


def fitting(tokenizer: bytes, vocabulary: int) -> None:
    """Raises BadBundle where a tokenizer.json is none, or makes ids that a model of that vocabulary does not have."""
    try:
        ids = byte_pairs.read(tokenizer).get_vocab(with_added_tokens=True).values()
    except ValueError as error:
        raise BadBundle(Reason.MALFORMED_JSON, f"{TOKENIZER}: {error}") from error
    if max(ids, default=0) >= vocabulary:
        raise BadBundle(
            Reason.WRONG_TYPE,
            f"{TOKENIZER} makes ids up to {max(ids)}; the model knows {vocabulary}: they do not match",
        )


def family_of(s: GptSettings) -> type[Gpt2] | type[Llama]:
    """The family whose checkpoints these settings fit."""
    qkv_bias = s.bias if s.qkv_bias is None else s.qkv_bias
    if (s.positions, s.norm, s.gate) == ("learned", "layer", "gelu") and s.bias and qkv_bias:
        if s.kv == s.heads and s.each * s.heads == s.width:
            return Gpt2
    elif (s.positions, s.norm, s.gate) == ("rotary", "rms", "swiglu") and (qkv_bias or not s.bias):
        return Llama
    raise ValueError(f"no Hugging Face family has this combination: {s}")


def _settings(read: Callable[[Mapping[str, Any]], GptSettings], config: Mapping[str, Any]) -> GptSettings:
    try:
        return read(config)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadBundle(Reason.WRONG_TYPE, f"{CONFIG}: {error}") from error


def _bounded(s: GptSettings) -> None:
    block = s.width * s.each * (2 * s.heads + 2 * s.kv) + s.width * s.wide * (3 if s.gate == "swiglu" else 2)
    numbers = s.layers * block + s.vocabulary * s.width * (1 if s.tied else 2) + s.context * s.width
    if numbers > MOST_NUMBERS:
        raise BadBundle(Reason.TOO_LARGE, f"{numbers:,} parameters; the limit is {MOST_NUMBERS:,}")


def _found(place: Place, folder: Folder) -> Place:
    """Some GPT-2 files leave out the leading "transformer."."""
    short = tuple(name.removeprefix("transformer.") for name in place.theirs)
    return replace(place, theirs=short) if place.theirs[0] not in folder.shapes and short[0] in folder.shapes else place
