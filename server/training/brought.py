"""A model that someone brings becomes the smallest graph that is still right: a Hugging Face folder of the GPT-2, Llama or
BERT families, or a float ONNX file. A BERT's may become a TFLite file, too. Nothing in it is run as code.

A file of torch.export (.pt2) is refused, since reading one can run code: torch.export.load falls back to unpickling anything,
parses sizes with sympy's evaluating parser and looks operators up by name anywhere in torch. torch.onnx.export makes an ONNX
file of the same program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export import from_onnx, parity
from export.bounds import ENCODER, GRAPH, WRITER, Bound
from export.forms import AUTO, OF_DECODERS, OF_WINDOWS, Choice, choose
from export.strain import strained_rows
from export.to_decoder import gateway_graph
from export.to_tflite import NO_DECODERS, OF_TARGET, LiteFile, LiteTokens, converter, measured
from export.trials import STRAINED_ROWS, Run, Trial, trial_of_decoder
from protocol.bundles import TOKENIZER, Lite, Parity
from protocol.errors import BadBundle, BadSettings, Reason
from protocol.writing.decoder import WriterSpec
from server import checkpoints, checkpoints_bert
from server.algorithms import bert, byte_pairs, word_pieces
from server.algorithms.gpt import Gpt, TorchDecoder
from server.checkpoints import Folder, load_gpt
from server.checkpoints_bert import load_bert
from server.training.text_encoder import TextEncoder, lite_file, packed, trial_of_texts

ONNX = "onnx"
OF_GRAPHS = (*OF_WINDOWS, "int4_blocks")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
OWN_TEXTS, OWN_TOKENS = 6, 40
"""What a language model writes itself, to be judged by, where no texts are given."""
MOST_ROWS, MOST_TOKENS = 64, 64


@dataclass(frozen=True)
class BroughtLite:
    """A TFLite file and what it costs. strained: kind of row -> its element rms; refused: the bounds that it breaks (empty:
    none); latency_us: of a call by the runtime that gateways have."""

    file: LiteFile
    told: Lite
    strained: dict[str, float]
    refused: str
    latency_us: float


@dataclass(frozen=True)
class Brought:
    """What became of it. kind: "decoder", "encoder" or "graph"; family: as its source calls it; choice, lite: None where that
    target was not asked for; judged_on: which rows, in words; texts: files that belong beside the graph."""

    kind: str
    family: str
    choice: Choice | None
    bound: Bound
    judged_on: str
    texts: dict[str, bytes] = field(default_factory=dict)
    lite: BroughtLite | None = None


def smallest(
    path: Path,
    quantize: str = AUTO,
    *,
    targets: Sequence[str] = (ONNX,),
    texts: Sequence[str] = (),
    rows: from_onnx.Rows | None = None,
) -> Brought:
    """The model at `path` in the form that suits it, or in the one that is asked for. targets: ONNX, one of
    `export.to_tflite.OF_TARGET`, or both; texts, rows: held-out ones, to judge by. Raises BadBundle for what cannot be read
    or packed, BadSettings for what is asked wrongly; both say what to do."""
    recipe = _checked_targets(targets, quantize)
    if path.is_dir():
        return _of_folder(path, quantize, texts, recipe, ONNX in targets)
    kind = path.suffix.lower()
    if not path.is_file():
        raise BadSettings(f"there is no {path}: give a Hugging Face folder, or a float .onnx file")
    if kind == ".pt2":
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"{path.name}: torch reads .pt2 files in ways that can run code, so they are refused: write the same program "
            "with torch.onnx.export(..., dynamo=True) and bring the .onnx file",
        )
    if kind in PICKLES:
        raise BadBundle(
            Reason.BAD_ARCHIVE,
            f"{path.name} is a pickle, which can run code when it is read, and is refused: save it as safetensors in a "
            "Hugging Face folder, or as .onnx",
        )
    if kind == ".bundle":
        raise BadBundle(
            Reason.WRONG_TYPE, f"{path.name} is packed already: bring the float model that it was made from"
        )
    if kind != ".onnx":
        raise BadSettings(f"{path.name}: a Hugging Face folder or a float .onnx file is known")
    if recipe:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"{path.name}: TFLite files are made of torch modules, not of ONNX files: bring an encoder's Hugging Face "
            'folder, have training pack a model of your data ([training] targets = ["onnx", "tflite"]; millwright train '
            "forecast --tflite), or ask for --target onnx",
        )
    return _of_graph(path, quantize, rows)


def _checked_targets(targets: Sequence[str], quantize: str) -> str:
    """The recipe of the TFLite file that is asked for; empty: none."""
    known = (ONNX, *OF_TARGET)
    lite = [target for target in targets if target in OF_TARGET]
    if not targets or not set(targets) <= set(known) or len(set(targets)) < len(targets) or len(lite) > 1:
        asked = ",".join(targets) or "nothing"
        raise BadSettings(f"--target {asked}: name onnx, one of {' and '.join(OF_TARGET)}, or onnx and one of them")
    if ONNX not in targets and quantize != AUTO:
        raise BadSettings(
            f"--quantize {quantize} is a form of the ONNX graph, which --target {lite[0]} does not write: the target says "
            "the form of a TFLite file"
        )
    return OF_TARGET[lite[0]] if lite else ""


def _of_folder(path: Path, quantize: str, texts: Sequence[str], recipe: str, graph: bool) -> Brought:
    family = Folder(path).family
    if family in checkpoints_bert.FAMILIES:
        return _encoder(path, family, quantize, texts, recipe, graph)
    if family in checkpoints.FAMILIES:
        if recipe:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{path.name}: {NO_DECODERS}: ask for --target onnx")
        return _decoder(path, family, quantize, texts)
    known = ", ".join(sorted((*checkpoints.FAMILIES, *checkpoints_bert.FAMILIES)))
    raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"architecture {family!r}: known are {known}")


def _decoder(path: Path, family: str, quantize: str, texts: Sequence[str]) -> Brought:
    net, tokenizer = load_gpt(path)
    s = net.settings
    spec = WriterSpec(
        layers=s.layers, kv_heads=s.kv, head_width=s.each, vocabulary=s.vocabulary, context=s.context, end=0
    )
    fitted = TorchDecoder(net)
    words = byte_pairs.read(tokenizer)
    most = min(MOST_TOKENS, s.context)
    given = [row for text in texts[:MOST_ROWS] if len(row := byte_pairs.encode(words, text)[:most]) > 1]
    trial = trial_of_decoder(fitted, spec, given or _written(net, fitted, min(OWN_TOKENS, s.context)))
    choice = choose(gateway_graph(net, spec), WRITER, trial, wanted=quantize, tried=OF_DECODERS)
    judged = f"{len(given)} texts that were given" if given else f"{OWN_TEXTS} texts that the float model wrote itself"
    return Brought("decoder", family, choice, WRITER, judged, {TOKENIZER: tokenizer})


def _written(net: Gpt, fitted: TorchDecoder, tokens: int) -> list[list[int]]:
    """Texts of the model's own, drawn token by token by its own chances: what it holds for likely is where its likelihood
    matters."""
    chance = np.random.default_rng(0)
    found = []
    for first in chance.integers(0, net.settings.vocabulary, OWN_TEXTS):
        row, said = [int(first)], fitted
        said.rewind(0)
        while len(row) < tokens:
            logits = said.feed(row[-1:])[-1].astype(np.float64)
            odds = np.exp(logits - logits.max())
            row.append(int(chance.choice(len(odds), p=odds / odds.sum())))
        found.append(row)
    return found


def _encoder(path: Path, family: str, quantize: str, texts: Sequence[str], recipe: str, graph: bool) -> Brought:
    if recipe:
        converter()  # raises where there is none, before anything is read
    net, tokenizer = load_bert(path)
    encoder = TextEncoder(net, tokenizer)
    judged = f"{len(texts)} texts that were given" if texts else "texts made of its own vocabulary"
    judging = list(texts) or _of_pieces(encoder)
    choice = packed(encoder, judging, quantize)[0] if graph else None
    lite = _lite(encoder, judging, recipe) if recipe else None
    return Brought(
        "encoder", family, choice, ENCODER, judged, {TOKENIZER: word_pieces.written(encoder.tokenizer)}, lite
    )


def _lite(encoder: TextEncoder, texts: Sequence[str], recipe: str) -> BroughtLite:
    trial = trial_of_texts(encoder, texts)
    file = lite_file(encoder, recipe)
    run = LiteTokens(file)
    told, strained, broken = measured(file, run, lambda rows: bert.vectors(encoder.net.bert, rows), ENCODER, trial)
    ((row,),) = trial.one
    return BroughtLite(file, told, strained, broken, run.call_us(row))


def _of_pieces(encoder: TextEncoder) -> list[str]:
    """Texts of words that the vocabulary holds whole."""
    chance = np.random.default_rng(0)
    words = sorted(piece.strip("Ġ▁") for piece in encoder.tokenizer.get_vocab() if piece.strip("Ġ▁").isalpha())
    if not words:
        raise BadSettings("the tokenizer holds no whole word: give held-out texts (--texts FILE)")
    return [" ".join(chance.choice(words, 8)) for _ in range(MOST_ROWS)]


def _of_graph(path: Path, quantize: str, rows: from_onnx.Rows | None) -> Brought:
    graph = from_onnx.read_float_graph(path)
    fitted = from_onnx.AnyGraph(graph)
    held = fitted.drawn() if rows is None else fitted.checked(rows)
    count = len(next(iter(held.values())))
    learned = {name: values[::2][:MOST_ROWS] for name, values in held.items()}
    judging = tuple(values[1::2][:MOST_ROWS] for values in held.values())
    exact = fitted(*judging)
    if not np.isfinite(exact).all():
        raise BadBundle(Reason.NOT_FINITE, f"{path.name} answers rows with what is no finite number")

    def cost(run: Run) -> Parity:
        return parity.compare(exact, run(*judging), 1.0, 1.0, lower_is_better=True, bound=GRAPH)

    few = tuple(values[:STRAINED_ROWS] for values in judging)
    trial = Trial(
        load=from_onnx.AnyGraph,
        measure=cost,
        rows=few,
        strained=_strained(few),
        one=tuple(values[:1] for values in judging),
        calibration=learned,
    )
    choice = choose(graph, GRAPH, trial, wanted=quantize, tried=OF_GRAPHS)
    judged = (
        f"every second of {count} rows, {'drawn at random' if rows is None else 'given'}; the others set fixed ranges"
    )
    return Brought("graph", f"opset {from_onnx.opset_of(graph)}", choice, GRAPH, judged)


def _strained(rows: tuple[NDArray[np.generic], ...]) -> dict[str, tuple[NDArray[np.generic], ...]]:
    """All float inputs strained in the same way; whole numbers stay as they are."""
    odd = [
        strained_rows(np.asarray(values, dtype=np.float32)) if values.dtype == np.float32 and values.ndim > 1 else None
        for values in rows
    ]
    kinds = next((list(one) for one in odd if one is not None), [])
    return {
        kind: tuple(values if one is None else one[kind] for values, one in zip(rows, odd, strict=True))
        for kind in kinds
    }
