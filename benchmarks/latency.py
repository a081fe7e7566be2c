"""What running models costs a gateway: time and memory of an LSTM forecaster, a BERT note reader and a GPT report writer.

    python benchmarks/latency.py [--quick] [--json]

The models have the sizes that training makes by default and int8 weights (`gateway_models`). Times are the least of many, in
turn with what they are compared with. Rows:

- process: a real agent (`python -m edge_agent run`) that was sent readings, a note and a fault until each of the three had
  answered; needs a mosquitto on the PATH. Target: resident memory then, and the most until then, at most 350 MiB.
- threads: a window, a text of 64 tokens and tokens written one by one, with 1 and 2 threads ([runtime] threads).
- machines: windows of 1 to 128 machines, as the agent's loop asks for them (at most 32 in a call) against one by one. Target:
  more of them a second. "One loud": the largest difference that neighbours make, one of them 20 times as loud, over the
  golden tolerance. Target: at most 1. By the process's CPU time, one thread: a call of 128 windows is longer than a busy
  machine leaves alone.
- providers: each execution provider that onnxruntime has on this machine ([runtime] providers).
- engines: the same bundle by onnxruntime and by TFLite, and what the gateway chose. "numpy tables" is the closed-form
  forecaster of the same windows.
- lengths: notes of many lengths as they are, and filled up to 16, 32 or 64 tokens ([runtime] text_lengths).

--quick: no TFLite files, one agent."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from agent_intake import broker
from gateway_models import ENCODER, HORIZON, STEP_MS, forecasters, graph_only, reader, targets
from generate_speed import MIDDLE, PROMPT, WRITES, Size, bundle_of
from speed_peers import by_feeding
from whole_agent import SAID, lived

from edge_agent.config import ONNXRUNTIME, TFLITE, RuntimeSettings
from edge_agent.runtimes import ROWS_A_CALL, LoadedModel, load
from edge_agent.runtimes.engine import OnnxEngine, session
from edge_agent.runtimes.machine import look
from edge_agent.runtimes.proof import LOUD
from edge_agent.runtimes.text_graphs import GraphEncoder, OnnxDecoder
from edge_agent.skills.forecast import ForecastSkill
from export import forms
from protocol.bundles import TOKENIZER, Bundle, digest, unpack
from protocol.reading.notes import Note
from protocol.reading.tokens import tokenizer
from protocol.twin import Role
from server.training.simulated_notes import ISO, notes

LSTM, RIDGE, READER, WRITER = "forecast.lstm", "forecast.ridge", "notes.reader", "report.writer"
RSS_MIB = 350.0
TOKENS, WRITTEN = 64, 60
MACHINES = (1, 8, 32, 128)
LENGTHS, NOTES = (16, 32), 40
AGENTS = 3
MOST_S, QUICK_S = 4.0, 1.0


@dataclass(frozen=True)
class Models:
    """Bundles by slot, for both engines where there are TFLite files."""

    archives: Mapping[str, bytes]

    def bundle(self, slot: str) -> Bundle:
        """What is in it."""
        return unpack(self.archives[slot])

    def loaded(self, slot: str, **runtime: object) -> LoadedModel:
        """As a gateway with these [runtime] settings has it."""
        archive = self.archives[slot]
        return load(archive, digest(archive), RuntimeSettings(**runtime))  # type: ignore[arg-type]


def measure(sheet: contract.Sheet) -> None:
    """All rows."""
    torch.set_num_threads(1)
    logging.getLogger("onnxruntime").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder, wanted = Path(name), targets(sheet)
        sheet.say("making the models")
        writer = bundle_of(WRITES, folder / "writer.bundle").read_bytes()
        models = Models({**forecasters(wanted), READER: reader(wanted), WRITER: writer})
        process(sheet, models, folder, WRITES)
        threads(sheet, models)
        machines(sheet, models)
        providers(sheet, models, folder)
        engines(sheet, models)
        lengths(sheet, models)
        if not sheet.options.quick:
            large = bundle_of(MIDDLE, folder / "large.bundle").read_bytes()
            process(sheet, Models({**models.archives, WRITER: large}), folder, MIDDLE)


def process(sheet: contract.Sheet, models: Models, folder: Path, size: Size) -> None:
    """Memory and cold start of agents, one after the other."""
    started, what = time.monotonic(), f"agent with LSTM, BERT and GPT {size.name}"
    if shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") is None:
        sheet.note("no mosquitto on the PATH (Debian: apt-get install mosquitto): no agent was measured")
        sheet.row(what, "RSS MiB", None, target=RSS_MIB)
        return
    bundles = {slot: graph_only(models.archives[slot]) for slot in (LSTM, READER)} | {WRITER: models.archives[WRITER]}
    count = 1 if sheet.options.quick else AGENTS
    lives = []
    with tempfile.TemporaryDirectory(dir=folder) as name, broker(Path(name)) as port:
        for number in range(count):
            place = Path(name) / f"agent-{number}"
            place.mkdir()
            lives.append(lived(port, place, bundles, STEP_MS))
    seconds = time.monotonic() - started
    for metric, figures in (("RSS", [one.rss_mib for one in lives]), ("peak RSS", [one.peak_mib for one in lives])):
        figure = median(figures)
        sheet.row(
            what,
            f"{metric} MiB, median of {count}",
            figure,
            target=RSS_MIB,
            holds=figure <= RSS_MIB,
            n=count,
            seconds=seconds,
            answers=lives[-1].results,
        )
    cold_s = median(one.cold_s for one in lives)
    sheet.row(
        what,
        "s from start to all serving",
        cold_s,
        n=count,
        answered_s=round(median(one.answered_s for one in lives), 2),
    )


def threads(sheet: contract.Sheet, models: Models) -> None:
    """One call with one thread and with two."""
    started = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        sheet.note("one core here: two threads share it")
    window, text = one_window(models.bundle(LSTM)), one_text(models.bundle(READER))
    prompt = np.random.default_rng(0).integers(1, WRITES.vocabulary, PROMPT).tolist()
    calls: dict[str, dict[int, Callable[[], object]]] = {}
    for count in (1, 2):
        runtime = RuntimeSettings(threads=count)
        lstm, bert = (OnnxEngine(models.bundle(slot).graph, runtime) for slot in (LSTM, READER))
        write = by_feeding(OnnxDecoder(session(models.bundle(WRITER).graph, runtime), WRITES.spec))
        calls.setdefault("LSTM 2 x 64, a window", {})[count] = partial(lstm.run, window)
        name = f"BERT {ENCODER.sizes.layers} x {ENCODER.sizes.width}, {TOKENS} tokens"
        calls.setdefault(name, {})[count] = partial(bert.run, text)
        calls.setdefault(f"GPT {WRITES.name}", {})[count] = partial(write, prompt, WRITTEN)
    for what, by_threads in calls.items():
        one, two = latencies(sheet, {str(count): call for count, call in by_threads.items()}).values()
        if what.startswith("GPT"):
            one, two, metric = 1e6 * WRITTEN / one, 1e6 * WRITTEN / two, "tokens/s"
        else:
            metric = "us a call"
        seconds = time.monotonic() - started
        sheet.row(f"{what}, 1 thread", metric, one, n=1, seconds=seconds)
        sheet.row(f"{what}, 2 threads", metric, two, reference=one, n=1, cores=cores)


def machines(sheet: contract.Sheet, models: Models) -> None:
    """Windows of many machines in one call against one by one, alone and in the agent's whole step."""
    model = models.loaded(LSTM, engines=(ONNXRUNTIME,))
    if not model.together:
        sheet.note(
            "this form's answers are beyond their golden tolerance beside loud neighbours: it is asked one by one"
        )
    for count in MACHINES:
        started = time.monotonic()
        x, who = many_windows(models.bundle(LSTM), count)
        spent = latencies(
            sheet,
            {
                "alone": partial(model.asked, x, who, 1),
                "together": partial(model.quantiles_of_many, x, who),
                "one call": partial(model.asked, x, who, count),
            },
            time.process_time,
        )
        per_s = {name: 1e6 * count / us for name, us in spent.items()}
        ratio = per_s["together"] / per_s["alone"]
        sheet.row(
            f"LSTM int8, {count} machine{'s' if count > 1 else ''}",
            "windows per CPU-s / one by one",
            ratio,
            reference=1.0,
            target=1.0 if count > 1 else None,
            holds=ratio > 1.0 if count > 1 else None,
            n=count,
            seconds=time.monotonic() - started,
            windows_s=round(per_s["together"]),
            alone_windows_s=round(per_s["alone"]),
            one_call_windows_s=round(per_s["one call"]),
        )
    x, who = many_windows(models.bundle(LSTM), ROWS_A_CALL)
    x[0] *= LOUD
    alone, allowed = model.asked(x, who, 1), model.passport.golden.atol
    share, forced = (
        float(np.abs(answers - alone).max()) / allowed
        for answers in (model.quantiles_of_many(x, who), model.asked(x, who, len(x)))
    )
    sheet.row(
        f"LSTM int8, {ROWS_A_CALL} machines, one loud",
        "difference / golden tolerance",
        share,
        target=1.0,
        holds=share <= 1.0,
        n=ROWS_A_CALL,
        together=model.together,
        in_one_call=forced,
    )
    whole_step(sheet, model, MACHINES[-1])


def whole_step(sheet: contract.Sheet, model: LoadedModel, count: int) -> None:
    """The agent's `issue`: references, windows, the model, corrections, intervals and messages of every machine."""
    started = time.monotonic()
    drawn = np.random.default_rng(0)
    seen = {(f"M-{i}", "current"): 50 + drawn.standard_normal(96) for i in range(count)}
    skill = ForecastSkill(step_ms=STEP_MS, horizon=HORIZON, season=0)
    skill.install(LSTM, Role.SERVING, model, lambda _key, _start, buckets: np.full(buckets, np.nan), 0)
    allowed = model.together

    def issue(together: bool) -> None:
        model.together = together
        skill.issue(96 * STEP_MS, seen)

    spent = latencies(sheet, {"alone": partial(issue, False), "together": partial(issue, allowed)}, time.process_time)
    model.together = allowed
    sheet.row(
        f"agent's forecasting step, {count} machines",
        "forecasts per CPU-s",
        1e6 * count / spent["together"],
        reference=1e6 * count / spent["alone"],
        n=count,
        seconds=time.monotonic() - started,
    )


def providers(sheet: contract.Sheet, models: Models, folder: Path) -> None:
    """Each execution provider that is built in and works here; the others are named."""
    started = time.monotonic()
    answered = look(folder).onnxruntime
    absent = [name for name in onnxruntime.get_all_providers() if name not in {one.name for one in answered}]
    sheet.note(f"not in this onnxruntime, or never used on a gateway: {', '.join(absent)}")
    for one in answered:
        if not one.works:
            sheet.note(f"{one.name}: {one.why}")
            continue
        runtime = RuntimeSettings(providers=(one.name,))
        lstm, bert = (OnnxEngine(models.bundle(slot).graph, runtime) for slot in (LSTM, READER))
        window, text = one_window(models.bundle(LSTM)), one_text(models.bundle(READER))
        spent = latencies(
            sheet,
            {
                "LSTM, a window": partial(lstm.run, window),
                f"BERT, {TOKENS} tokens": partial(bert.run, text),
            },
        )
        for what, us in spent.items():
            sheet.row(f"{what}, {one.name}", "us a call", us, n=1, seconds=time.monotonic() - started, by=lstm.name)


def engines(sheet: contract.Sheet, models: Models) -> None:
    """The same bundle by each engine, and the gateway's choice."""
    window, who = many_windows(models.bundle(LSTM), 1)
    note = Note(id="n", machine="M-0", time_ms=0, text=SAID)
    context = np.random.default_rng(0).standard_normal((1, 96)).cumsum(axis=1)
    table = models.loaded(RIDGE).ridge
    if table is None:
        raise SystemExit("latency: the closed-form forecaster's bundle holds no ridge")

    def of(slot: str, model: LoadedModel) -> Callable[[], object]:
        if slot == LSTM:
            return partial(model.quantiles, window, who)
        if model.reader is None:
            raise SystemExit("latency: the reader's bundle holds no reader")
        return partial(model.reader.read, note, 0, model.ref)

    for slot, what in ((LSTM, "LSTM, a window"), (READER, "BERT reader, a whole note")):
        started = time.monotonic()
        names = [ONNXRUNTIME, *([TFLITE] if models.bundle(slot).lite else [])]
        by = {name: models.loaded(slot, engines=(name,)) for name in names}
        calls = {name: of(slot, model) for name, model in by.items()}
        if slot == LSTM:
            calls["numpy tables"] = partial(table.quantiles, context, np.zeros(1, dtype=np.int64))
        spent = latencies(sheet, calls)
        chosen = models.loaded(slot)
        taken = next(name for name in names if chosen.engine.startswith(name))
        sheet.row(
            f"{what}, by the gateway's choice",
            "us",
            spent[taken],
            reference=spent[ONNXRUNTIME],
            peers={TFLITE: spent.get(TFLITE), **({"numpy tables": spent["numpy tables"]} if slot == LSTM else {})},
            n=1,
            seconds=time.monotonic() - started,
            chosen=chosen.engine,
            why=chosen.engine_why,
        )


def lengths(sheet: contract.Sheet, models: Models) -> None:
    """Texts as long as they are against texts that are filled up to few lengths."""
    started = time.monotonic()
    bundle = models.bundle(READER)
    spec, context = bundle.passport.reader, ENCODER.sizes.context
    if spec is None:
        raise SystemExit("latency: the reader's bundle holds no reader")
    words, width = tokenizer(bundle.texts[TOKENIZER]), spec.width
    texts = [one.text for one in notes(ISO, NOTES, 5)]
    counted = [min(len(words.encode(text)[0]), context) for text in texts]

    def encoder(filled: Sequence[int]) -> GraphEncoder:
        return GraphEncoder(OnnxEngine(bundle.graph, RuntimeSettings(), filled), words, width, context)

    kinds = {"any": encoder(()), "filled": encoder((*LENGTHS, context))}

    def all_read(one: GraphEncoder) -> None:
        for text in texts:
            one.encode(text)

    first: dict[str, float] = {}
    for name, one in kinds.items():
        begun = time.perf_counter()
        all_read(one)
        first[name] = 1e6 * (time.perf_counter() - begun) / NOTES
    spent = latencies(sheet, {name: partial(all_read, one) for name, one in kinds.items()})
    sheet.row(
        f"BERT, notes of {min(counted)} to {max(counted)} tokens, filled up to {', '.join(map(str, (*LENGTHS, context)))}",
        "us a note",
        spent["filled"] / NOTES,
        reference=spent["any"] / NOTES,
        n=NOTES,
        seconds=time.monotonic() - started,
        mean_tokens=float(np.mean(counted)),
        lengths=len(set(counted)),
        first_us=round(first["filled"]),
        first_reference_us=round(first["any"]),
    )


def latencies(
    sheet: contract.Sheet, calls: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Microseconds of each, long enough for a machine that does other things, too."""
    return forms.latencies(calls, QUICK_S if sheet.options.quick else MOST_S, clock)


def one_window(bundle: Bundle) -> dict[str, np.ndarray]:
    """A forecaster's golden row, as its graph is given it."""
    x, who = many_windows(bundle, 1)
    return {"x": x, "who": who}


def many_windows(bundle: Bundle, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Golden windows again and again, each a little different."""
    x, who = np.asarray(bundle.golden_inputs["x"], dtype=np.float32), bundle.golden_inputs["who"]
    turns = np.arange(count) % len(x)
    noise = 0.1 * np.random.default_rng(0).standard_normal((count, *x.shape[1:]))
    return (x[turns] + noise).astype(np.float32), who[turns].astype(np.int64)


def one_text(bundle: Bundle) -> dict[str, np.ndarray]:
    """TOKENS tokens of the encoder's vocabulary."""
    known = tokenizer(bundle.texts[TOKENIZER]).vocabulary
    ids = np.random.default_rng(0).integers(5, known, (1, TOKENS))
    return {"ids": ids, "mask": np.ones_like(ids)}


if __name__ == "__main__":
    sys.exit(contract.run("latency", __doc__, measure, needs_data=False))
