"""The models whose time and memory on a gateway are measured, of the sizes that training makes by default: an LSTM forecaster
and a closed-form one beside it, a note reader with a BERT encoder. They learn from simulated rows for as short as it takes to
seal them; what they answer is worth little, and what it takes to ask them is the same.

A writer of reports is `generate_speed.bundle_of`."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import warnings
from dataclasses import replace

import msgspec
import numpy as np

from export.to_tflite import LitePart, converter, recipe_of
from protocol.bundles import digest, pack, unpack
from protocol.errors import BadSettings
from protocol.windows import WindowSpec
from server import training
from server.algorithms import bert, word_pieces
from server.algorithms.note_reader import ReaderSettings
from server.datasets import SignalGrid
from server.training import Circumstances, ForecastPlan
from server.training.pretraining import EncoderPlan
from server.training.reader import Understood, train_reader
from server.training.simulated_notes import ISO, NotePlan, notes
from server.training.starter import labelled
from server.training.text_encoder import PackedEncoder, TextEncoder, packed, packed_lite

STEP_MS = 60_000
LENGTH, HORIZON = 48, 12
MACHINES, BUCKETS = 3, 320
BOTH, GRAPH_ONLY = ("onnx", "tflite"), ("onnx",)
MODES = ("Leaking", "Noise")
READ, TRIED, TAUGHT = 400, 12, 48
"""Simulated notes that the vocabulary is learned from; by which the packed encoder is judged; that the reader learns."""
ENCODER = EncoderPlan()
INT8 = "int8"


def targets(sheet: contract.Sheet) -> tuple[str, ...]:
    """For both engines where the converter is there and there is time for it; else a note, and ONNX alone."""
    if sheet.options.quick:
        sheet.note("--quick makes no TFLite files: their figures are null")
        return GRAPH_ONLY
    try:
        converter()
    except BadSettings as why:
        sheet.note(f"no TFLite converter, its figures are null: {str(why).splitlines()[0]}")
        return GRAPH_ONLY
    return BOTH


def forecasters(targets: tuple[str, ...]) -> dict[str, bytes]:
    """Slot -> bundle of an LSTM (2 x 64, int8) and of the closed-form forecaster of the same windows."""
    drawn, t = np.random.default_rng(0), np.arange(BUCKETS)
    turns = [np.sin(t / 7 + s) + np.sign(np.sin(t / 23 + 2 * s)) for s in range(MACHINES)]
    values = 20 + 3 * np.stack(turns) + 0.3 * drawn.normal(size=(MACHINES, BUCKETS))
    grid = SignalGrid(0, STEP_MS, [(f"M-{s}", "current") for s in range(MACHINES)], values, ())
    plan = ForecastPlan(
        window=WindowSpec(step_ms=STEP_MS, length=LENGTH, horizon=HORIZON),
        epochs=1,
        slots=(training.RIDGE, training.LSTM),
        targets=targets,
        quantize=INT8,
    )
    made = training.train_forecast(grid, plan, _world(), _quiet)
    return {one.passport.slot: one.archive for one in made}


def reader(targets: tuple[str, ...], plan: EncoderPlan = ENCODER) -> bytes:
    """Bundle of a note reader whose encoder (int8) has random weights: it decides by the words that it shares with them."""
    plain = NotePlan(tuple(mode for mode in ISO.modes if mode.name in MODES))
    said = list(notes(ISO, READ, 0))
    vocabulary = word_pieces.learn([one.text for one in said], plan.pieces)
    net = bert.fresh(replace(plan.sizes, vocabulary=vocabulary.get_vocab_size()), 0).eval()
    encoder, tried = TextEncoder(net, vocabulary), [one.text for one in said[:TRIED]]
    choice, tokenizer = packed(encoder, tried, INT8)
    recipe = recipe_of(targets)
    lite, lite_encoder = packed_lite(encoder, tried, recipe) if recipe else (LitePart(), None)
    run = PackedEncoder(choice.graph, tokenizer, plan.sizes.context)
    understood = Understood(
        run,
        choice.graph,
        tokenizer,
        plan.sizes.context,
        forms=tuple(choice.forms),
        float_bytes=choice.float_bytes,
        refused=choice.refused,
        lite=lite,
        lite_encoder=lite_encoder,
    )
    body = [labelled(one, number) for number, one in enumerate(notes(plain, TAUGHT, 1))]
    settings = ReaderSettings(shares=(0.5,), folds=2, repeats=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of so few notes nearly each has a class of its own
        made = train_reader(body, 0, _world(body), _quiet, encoder=understood, settings=settings)
    return made[0].archive


def graph_only(archive: bytes) -> bytes:
    """The bundle without its TFLite file."""
    bundle = unpack(archive)
    passport = msgspec.structs.replace(bundle.passport, lite=None)
    return pack(msgspec.structs.replace(bundle, passport=passport, lite=b""))


def _world(rows: object = "") -> Circumstances:
    return Circumstances(dataset_digest=digest(msgspec.json.encode(rows)), dataset_rows=0, now_ms=0)


def _quiet(_share: float, _step: str) -> None:
    return None
