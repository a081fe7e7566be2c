"""The part of `export.py` that writes: a GPT of 4 layers of 128 that learned to write fault reports (`small_writer.py`), and
one of 8 layers of 512 with random weights for size and speed."""

from __future__ import annotations

import logging
import time

import contract
import numpy as np
from edited_reports import read
from export_rows import change_row, forms_note, named, parity_of, size_row, strain_of
from generate_speed import MIDDLE, Size, take_turns
from small_writer import FULL, QUICK, SmallWriter, taught
from speed_peers import by_feeding

from edge_agent.runtimes.engine import session
from edge_agent.runtimes.text_graphs import OnnxDecoder
from export.blocks import weight_only
from export.bounds import WRITER
from export.compact import bare
from export.forms import FLOAT32, OF_DECODERS, choose
from export.quantize import quantize
from export.to_decoder import gateway_graph
from export.trials import trial_of_decoder
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import WriterSpec
from protocol.writing.facts import LANGUAGES
from server.algorithms.gpt import Gpt, TorchDecoder
from server.left import LeftReport
from server.training.left_reports import sections

MOST_BYTES = {"int8": 0.28, "int8_blocks": 0.28, "int4_blocks": 0.18}
MOST_CHANGE, TIMES_EAGER = 0.01, 2.0
MOST_ROWS, ROUNDS = 120, 5


def measure(sheet: contract.Sheet) -> None:
    """Rows of both sizes."""
    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)
    quick = sheet.options.quick
    edited = read()
    began = time.monotonic()
    writer = taught([one for one in edited if not one.held_out], QUICK if quick else FULL, sheet.say)
    s = writer.net.settings
    small = Size(f"{s.layers}L-{s.width}", s.layers, s.heads, s.width, s.vocabulary, 100)
    graph = gateway_graph(writer.net, writer.spec)
    lessons = held_out(writer, [one for one in edited if one.held_out], 8 if quick else MOST_ROWS)
    rows, told = [row for row, _ in lessons], [first for _, first in lessons]
    trial = trial_of_decoder(TorchDecoder(writer.net), writer.spec, rows, told)
    choice = choose(graph, WRITER, trial, tried=OF_DECODERS)
    what = f"GPT report writer {small.name}"
    forms_note(sheet, what, choice.forms)
    graphs = _packed(graph)
    _sizes(sheet, what, graphs, len(graph), judged=not quick)
    spent, many = time.monotonic() - began, sum(len(row) - first for row, first in lessons)
    for name in OF_DECODERS:
        form = named(choice.forms, name)
        change_row(
            sheet,
            f"{what}, {name}, words of held-out sections of edited reports",
            "negative log-likelihood, change",
            [parity_of(form).task_change],
            MOST_CHANGE,
            n=many,
            seconds=spent,
            judged=not quick,
            **strain_of(form),
        )
    _speeds(sheet, what, small, writer.spec, graphs, writer.net)
    if not quick:
        net = MIDDLE.net()
        graph = gateway_graph(net, MIDDLE.spec)
        graphs, what = _packed(graph), f"GPT {MIDDLE.name}, random weights"
        _sizes(sheet, what, graphs, len(graph), judged=True)
        _speeds(sheet, what, MIDDLE, MIDDLE.spec, graphs, net)


def held_out(writer: SmallWriter, reports: list[LeftReport], most: int) -> list[tuple[list[int], int]]:
    """(tokens of a section after what the model is told, how many of them it is told), spread over reports and languages."""
    said = [each for language in LANGUAGES for one in reports for each in sections(one, FAULT_REPORT, language)]
    found = []
    for told, words in said[:: max(len(said) // most, 1)]:
        before = writer.encode(told)
        found.append(([*before, *writer.encode(words), writer.spec.end][: writer.spec.context], len(before)))
    return [(row, first) for row, first in found if len(row) > first]


def _packed(graph: bytes) -> dict[str, bytes]:
    """The float graph and its small forms, as they lie in a bundle."""
    made = {
        FLOAT32: graph,
        "int8": quantize(graph),
        "int8_blocks": weight_only(graph, 8),
        "int4_blocks": weight_only(graph, 4),
    }
    return {name: bare(one) for name, one in made.items()}


def _sizes(sheet: contract.Sheet, what: str, graphs: dict[str, bytes], exported: int, *, judged: bool) -> None:
    whole = len(graphs[FLOAT32])
    for name, most in MOST_BYTES.items():
        size_row(sheet, f"{what}, {name}", len(graphs[name]), whole, most, exported=exported, judged=judged)


def _speeds(sheet: contract.Sheet, what: str, size: Size, spec: WriterSpec, graphs: dict[str, bytes], net: Gpt) -> None:
    """Tokens a second beside torch eager with the same memory."""
    began = time.monotonic()
    runners = {name: by_feeding(OnnxDecoder(session(graph), spec)) for name, graph in graphs.items()}
    rounds = 2 if sheet.options.quick else ROUNDS
    per_s, said = take_turns({**runners, "torch eager": by_feeding(TorchDecoder(net))}, size, rounds)
    spent, eager = time.monotonic() - began, per_s["torch eager"]
    for name in MOST_BYTES:
        sheet.row(
            f"{what}, {name}",
            "tokens/s / torch eager",
            per_s[name] / eager,
            reference=1.0,
            peers={"onnxruntime float": per_s[FLOAT32] / eager},
            target=TIMES_EAGER,
            holds=None if sheet.options.quick else per_s[name] >= TIMES_EAGER * eager,
            n=size.tokens * rounds,
            seconds=spent,
            tokens_s=round(per_s[name], 1),
            agreement=round(float(np.mean(np.array(said[name]) == np.array(said["torch eager"]))), 4),
        )
