"""An encoder that someone brings as a local Hugging Face folder: config.json, model.safetensors and tokenizer.json or
vocab.txt. Read as `server.checkpoints` reads any folder: no pickle, no code, every name, shape and size checked.

Families: BERT, ELECTRA, RoBERTa (XLM-R, CamemBERT) and DistilBERT, whose encoders are one and the same block under other
names. What is not the encoder's (a pooler, the word head, the pair head) is taken where it is stored and begun anew where
it is not; a head for something else is left. What we trained is saved as BERT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from safetensors.torch import save as as_safetensors
from tokenizers import Tokenizer
from torch import Tensor

from protocol.errors import BadBundle, Reason
from protocol.unreadable import UNREADABLE
from server.algorithms import bert, byte_pairs, word_pieces
from server.algorithms.bert import ACTIVATIONS, BertForPreTraining, BertSettings
from server.checkpoints import (
    CONFIG,
    MOST_NUMBERS,
    MOST_TOKENIZER_BYTES,
    TOKENIZER,
    WEIGHTS,
    Folder,
    Heads,
    Layers,
    Positive,
    Size,
    fitting,
)
from server.datasets import write_whole

VOCABULARY, TOKENIZER_CONFIG = "vocab.txt", "tokenizer_config.json"
Dropout = Annotated[float, msgspec.Meta(ge=0, lt=1)]
ROBERTA = ("roberta", "xlm-roberta", "camembert")
FAMILIES = ("bert", "electra", "distilbert", *ROBERTA)
_BEGUN_ANEW = re.compile(r"(bert\.pooler|cls)\..*|bert\.embeddings\.token_type_embeddings\.weight")
"""Ours that a checkpoint may lack."""
_BIASES = ("cls.predictions.bias", "lm_head.bias", "vocab_projector.bias")
"""Other names of the word head's bias."""


class BertConfig(msgspec.Struct):
    """config.json of BERT, ELECTRA and RoBERTa."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Heads
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: Dropout = 0.1
    layer_norm_eps: Positive = 1e-12
    pad_token_id: int | None = 0
    embedding_size: int | None = None
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    tie_word_embeddings: bool = True


class DistilConfig(msgspec.Struct):
    """config.json of DistilBERT."""

    vocab_size: Size
    dim: Size
    n_layers: Layers
    n_heads: Heads
    hidden_dim: Size
    max_position_embeddings: Size
    activation: str = "gelu"
    dropout: Dropout = 0.1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True


def load_bert(path: Path, seed: int = 7) -> tuple[BertForPreTraining, Tokenizer]:
    """A network and its tokenizer from a folder; what the folder lacks of the heads begins from `seed`. Raises BadBundle (see
    `server.checkpoints.Folder`; unsupported_runtime for a family or an option that our module does not have, wrong_type for
    shapes that do not fit the config)."""
    folder = Folder(path)
    settings = _settings(folder)
    net = bert.fresh(settings, seed)
    theirs = dict(_named(folder))
    read: dict[str, Tensor] = {}
    for ours, value in net.state_dict().items():
        if ours in theirs:
            read[ours] = _fitting(folder, theirs[ours], ours, value)
        elif not _BEGUN_ANEW.fullmatch(ours):
            raise BadBundle(Reason.BAD_ARCHIVE, f"the checkpoint holds no {ours}")
    _tied(folder, read)
    if "bert.embeddings.token_type_embeddings.weight" not in theirs:
        read["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(settings.types, settings.width)
    net.load_state_dict(read, strict=False)
    return net.eval(), _tokenizer(folder, settings.vocabulary)


def save_bert(net: BertForPreTraining, tokenizer: Tokenizer, path: Path) -> None:
    """Writes config.json, model.safetensors and tokenizer.json so that Hugging Face's BERT classes load them. Raises
    ValueError for a network whose heads do not fill its width (heads were taken out): those classes have no place for it."""
    if net.settings.heads * net.settings.each != net.settings.width:
        raise ValueError(f"no Hugging Face family has this combination: {net.settings}")
    stored = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    del stored["cls.predictions.decoder.weight"]  # the embeddings, once more
    stored["cls.predictions.bias"] = stored["cls.predictions.decoder.bias"].clone()
    write_whole(path / WEIGHTS, as_safetensors(stored, metadata={"format": "pt"}))
    write_whole(path / TOKENIZER, word_pieces.written(tokenizer))
    write_whole(path / CONFIG, msgspec.json.format(msgspec.json.encode(_config(net.settings)), indent=1))


def _config(s: BertSettings) -> dict[str, Any]:
    return {
        "architectures": ["BertForPreTraining"], "model_type": "bert", "vocab_size": s.vocabulary,
        "hidden_size": s.width, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "intermediate_size": s.inner, "max_position_embeddings": s.context, "type_vocab_size": s.types,
        "hidden_act": s.activation, "hidden_dropout_prob": s.dropout, "attention_probs_dropout_prob": s.dropout,
        "layer_norm_eps": s.epsilon, "pad_token_id": s.padding, "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
    }  # fmt: skip


def _settings(folder: Folder) -> BertSettings:
    if folder.family not in FAMILIES:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"architecture {folder.family!r}: known are {', '.join(sorted(FAMILIES))}"
        )
    try:
        settings = _distil(folder.config) if folder.family == "distilbert" else _bert(folder.config, folder.family)
    except msgspec.ValidationError as error:
        raise BadBundle(Reason.WRONG_TYPE, f"{CONFIG}: {error}") from error
    if settings.activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"activation {settings.activation!r}: known are {known}")
    if settings.width % settings.heads or not 0 <= settings.padding < settings.vocabulary:
        raise BadBundle(Reason.WRONG_TYPE, f"{CONFIG}: width, heads, padding and vocabulary do not fit together")
    layer = settings.width * (4 * settings.width + 2 * settings.inner)
    numbers = settings.layers * layer + (settings.vocabulary + settings.context) * settings.width
    if numbers > MOST_NUMBERS:
        raise BadBundle(Reason.TOO_LARGE, f"{numbers:,} parameters; the limit is {MOST_NUMBERS:,}")
    return settings


def _bert(config: Mapping[str, Any], family: str) -> BertSettings:
    c = msgspec.convert(config, BertConfig)
    if c.position_embedding_type != "absolute" or c.is_decoder or not c.tie_word_embeddings:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "only encoders with absolute positions and tied words are known")
    if c.embedding_size not in (None, c.hidden_size):
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"embeddings of {c.embedding_size} in a width of {c.hidden_size}")
    padding = c.pad_token_id or 0
    # RoBERTa counts positions from behind the padding's id; the rows before are never looked at
    context = c.max_position_embeddings - (padding + 1 if family in ROBERTA else 0)
    if context < 3:
        raise BadBundle(Reason.WRONG_TYPE, f"{CONFIG}: a context of {context} tokens holds no text")
    return BertSettings(
        vocabulary=c.vocab_size, width=c.hidden_size, layers=c.num_hidden_layers, heads=c.num_attention_heads,
        inner=c.intermediate_size, context=context, types=c.type_vocab_size, dropout=c.hidden_dropout_prob,
        padding=padding, activation=c.hidden_act, epsilon=c.layer_norm_eps,
    )  # fmt: skip


def _distil(config: Mapping[str, Any]) -> BertSettings:
    c = msgspec.convert(config, DistilConfig)
    if not c.tie_word_embeddings:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "only encoders with tied words are known")
    return BertSettings(
        vocabulary=c.vocab_size, width=c.dim, layers=c.n_layers, heads=c.n_heads, inner=c.hidden_dim,
        context=c.max_position_embeddings, types=2, dropout=c.dropout, padding=c.pad_token_id or 0,
        activation=c.activation,
    )  # fmt: skip


_OURS = [
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"\.gamma$", ".weight"),
        (r"\.beta$", ".bias"),
        (r"^(roberta|electra|distilbert)\.", "bert."),
        (r"^(embeddings|encoder|pooler|transformer)\.", r"bert.\1."),
        (r"^bert\.transformer\.", "bert.encoder."),
        (r"\.q_lin\.", ".self.query."),
        (r"\.k_lin\.", ".self.key."),
        (r"\.v_lin\.", ".self.value."),
        (r"\.out_lin\.", ".output.dense."),
        (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
        (r"\.ffn\.lin1\.", ".intermediate.dense."),
        (r"\.ffn\.lin2\.", ".output.dense."),
        (r"\.output_layer_norm\.", ".output.LayerNorm."),
        (r"^lm_head\.dense\.|^vocab_transform\.", "cls.predictions.transform.dense."),
        (r"^lm_head\.layer_norm\.|^vocab_layer_norm\.", "cls.predictions.transform.LayerNorm."),
        (r"^lm_head\.decoder\.|^vocab_projector\.", "cls.predictions.decoder."),
    )
]
"""What becomes of their names, one after the other."""


def _named(folder: Folder) -> Iterator[tuple[str, str]]:
    """(our name, theirs). Raises BadBundle for a part of the encoder that ours does not have."""
    known = re.compile(
        r"bert\.(embeddings\.(word|position|token_type)_embeddings\.weight|(embeddings|encoder\.layer\.\d+\.(attention\.)?output)"
        r"\.LayerNorm\.(weight|bias)|encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|attention\.output\.dense"
        r"|intermediate\.dense|output\.dense)\.(weight|bias)|pooler\.dense\.(weight|bias))"
    )
    for theirs in folder.shapes:
        if theirs in _BIASES:
            continue
        ours = theirs
        for pattern, replacement in _OURS:
            ours = pattern.sub(replacement, ours)
        if ours.startswith("bert.") and not known.fullmatch(ours):
            raise BadBundle(Reason.WRONG_TYPE, f"{theirs} is nothing that an encoder of this family has")
        yield ours, theirs


def _fitting(folder: Folder, theirs: str, ours: str, value: Tensor) -> Tensor:
    """Their tensor under our name, after its shape is found right."""
    before = int(folder.config.get("pad_token_id") or 0) + 1 if folder.family in ROBERTA else 0
    before = before if ours == "bert.embeddings.position_embeddings.weight" else 0
    expected = (value.shape[0] + before, *value.shape[1:])
    if folder.shapes[theirs] != expected:
        raise BadBundle(Reason.WRONG_TYPE, f"{theirs} has shape {folder.shapes[theirs]}; its {CONFIG} says {expected}")
    return folder.tensor(theirs)[before:]


def _tied(folder: Folder, read: dict[str, Tensor]) -> None:
    """The word head reads the embeddings' table; its bias goes under either of two names."""
    words = read["bert.embeddings.word_embeddings.weight"]
    decoder = read.pop("cls.predictions.decoder.weight", words)
    if decoder.shape != words.shape or not torch.equal(decoder, words):
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "the word head has a table of its own: only tied words are known")
    for name in _BIASES:
        if folder.shapes.get(name) == (len(words),):
            read["cls.predictions.decoder.bias"] = folder.tensor(name)


def _tokenizer(folder: Folder, vocabulary: int) -> Tokenizer:
    """tokenizer.json, or BERT's vocab.txt, without cutting and filling up, which are ours to do."""
    if (folder.path / TOKENIZER).is_file():
        body = folder.tokenizer()
        fitting(body, vocabulary)
        tokenizer = byte_pairs.read(body)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    tokenizer = _word_pieces(folder.path)
    fitting(word_pieces.written(tokenizer), vocabulary)
    return tokenizer


def _word_pieces(path: Path) -> Tokenizer:
    file = path / VOCABULARY
    if not file.is_file():
        raise BadBundle(Reason.BAD_ARCHIVE, f"{path} holds neither {TOKENIZER} nor {VOCABULARY}")
    if file.stat().st_size > MOST_TOKENIZER_BYTES:
        raise BadBundle(
            Reason.TOO_LARGE, f"{VOCABULARY} of {file.stat().st_size} bytes; the limit is {MOST_TOKENIZER_BYTES}"
        )
    try:
        pieces = file.read_text(encoding="utf-8").split("\n")
        return word_pieces.of_vocabulary(
            {piece: at for at, piece in enumerate(pieces) if piece}, lowercase=_lower(path)
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise BadBundle(Reason.WRONG_TYPE, f"{VOCABULARY}: {error}") from error


def _lower(path: Path) -> bool:
    """Whether letter case does not count, as tokenizer_config.json says (BERT's default: it does not)."""
    file = path / TOKENIZER_CONFIG
    if not file.is_file() or file.stat().st_size > MOST_TOKENIZER_BYTES:
        return True
    try:
        said = msgspec.json.decode(file.read_bytes(), type=dict[str, Any]).get("do_lower_case", True)
    except UNREADABLE as error:
        raise BadBundle(Reason.MALFORMED_JSON, f"{TOKENIZER_CONFIG}: {error}") from error
    return bool(said)
