"""Tokens a second of language models on one thread, and what a gateway pays for one.

    python benchmarks/generate_speed.py [--quick] [--json]

GPT-2 models of three sizes with random weights (seed 0), a prompt of 16 tokens, then the likeliest token again and again, one
thread, batch 1. All runtimes stand in one process and take turns, round after round; the best round of each counts. Ours:
onnxruntime on the exported graph, memory in place, matrices in blocks of 8 bits (128 weights a scale) and of 4 bits (32), and
without a target int8 with scaled activations ("int8 dynamic"), which reads a prompt faster and goes on slower. Reference:
torch eager with our own memory (float32). Peers: transformers generate (float32), ctranslate2 (int8 and float32), llama.cpp
where it is installed.

The roofline is how often one core could read the weights that a token needs: bandwidth (a dot product over 256 MB in the same
run) / bytes of the quantized matrices. What fits the cache goes beyond it.

Further rows: a report of about 55 tokens written strictly by a model of 4 layers of 128, resident memory of an agent that
holds 8L-512 in int8 and an int8 text encoder of 6 layers of 384, and seconds from the start of a process to its first report.
Random weights do not change time or size. --quick: the smallest size only, two rounds."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from fault_cases import Made, ordinary_case
from onnx import numpy_helper
from speed_peers import Generate, by_feeding, in_ctranslate2, in_transformers

from edge_agent.runtimes import load
from edge_agent.runtimes.engine import session
from edge_agent.runtimes.text_graphs import OnnxDecoder
from edge_agent.skills.write_report import write_with
from export.blocks import GATHERED, weight_only
from export.parity import golden_decoder
from export.quantize import quantize
from export.to_decoder import encoder_graph, gateway_graph
from protocol.bundles import TOKENIZER, Bundle, Golden, Lineage, Parity, Passport, Runtime, digest, pack
from protocol.writing.author import Author, LanguageModel, language_model
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import WriterSpec
from protocol.writing.facts import Fact, Mode
from protocol.writing.fault_report import facts_of
from protocol.writing.frames import Clause, slots, wordings
from protocol.writing.prompt import prefix
from protocol.writing.realise import Alternatives, Facts, licensed
from protocol.writing.strict import Limits
from server.algorithms import byte_pairs
from server.algorithms.bert import BertSettings, EncoderForExport, fresh
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder

ROOT = Path(__file__).resolve().parent.parent
PROMPT = 16
CONTEXT = 256
TIMES_EAGER, OF_PEER, WHOLE_PEER = 4.5, 0.95, 1.0
REPORT_TOKENS, TOLERANCE, REPORT_MS = 55, 12, 3.0
RSS_MIB, COLD_S = 300.0, 1.5
NOW_MS = 1_772_000_000_000
BLOCK = {8: 128, 4: 32}
"""Weights that share a scale: more of 8 bits than of 4."""


@dataclass(frozen=True)
class Size:
    """A model's size, and how many tokens it writes in a round."""

    name: str
    layers: int
    heads: int
    width: int
    vocabulary: int
    tokens: int

    def net(self) -> Gpt:
        """With random weights."""
        return Gpt(
            GptSettings(
                vocabulary=self.vocabulary,
                context=CONTEXT,
                layers=self.layers,
                heads=self.heads,
                width=self.width,
                dropout=0.0,
                seed=0,
            )
        ).eval()

    @property
    def spec(self) -> WriterSpec:
        """What its bundle says."""
        return WriterSpec(
            layers=self.layers,
            kv_heads=self.heads,
            head_width=self.width // self.heads,
            vocabulary=self.vocabulary,
            context=CONTEXT,
            end=0,
            documents=["fault_report"],
            prefer={"fault_report": True},
        )


SMALL = Size("4L-256", 4, 4, 256, 2048, 100)
MIDDLE = Size("8L-512", 8, 8, 512, 8192, 60)
LARGE = Size("12L-768", 12, 12, 768, 32768, 24)
WRITES = Size("4L-128", 4, 4, 128, 2048, 55)
SIZES, ROUNDS = (SMALL, MIDDLE, LARGE), 7
ENCODER = BertSettings(vocabulary=30_522, width=384, layers=6, heads=12, inner=1536, context=128)
REPEATS = 3


def measure(sheet: contract.Sheet) -> None:
    """All rows."""
    torch.set_num_threads(1)
    logging.getLogger("onnxruntime").setLevel(logging.WARNING)
    quick = sheet.options.quick
    read_s = bandwidth()
    sheet.note(f"one core reads {read_s / 1e9:.1f} GB/s here")
    if contract.peer(sheet, "llama_cpp") is not None:
        sheet.note("llama.cpp is installed but this script writes no GGUF file: its figure is null")
    for size in SIZES[:1] if quick else SIZES:
        speed(sheet, size, 2 if quick else ROUNDS, read_s)
    with tempfile.TemporaryDirectory() as folder:
        writer = bundle_of(WRITES, Path(folder) / "writer.bundle", quantize)
        strict_report(sheet, writer)
        cold_start(sheet, writer)
        if not quick:
            resident(sheet, Path(folder))


def bandwidth() -> float:
    """Bytes a second that one core reads: the best of several dot products over 256 MB."""
    x = np.ones(64_000_000, dtype=np.float32)
    return max(x.nbytes / seconds(lambda: float(x @ x)) for _ in range(6))


def seconds(call: Any) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def speed(sheet: contract.Sheet, size: Size, rounds: int, read_s: float) -> None:
    """Rows of one size."""
    started = time.monotonic()
    net = size.net()
    sheet.say(f"{size.name}: {sum(p.numel() for p in net.parameters()) / 1e6:.1f}M parameters, exporting")
    graph = gateway_graph(net, size.spec)
    packed = {bits: weight_only(graph, bits, BLOCK[bits]) for bits in (8, 4)}
    dynamic = quantize(graph)
    del graph
    runners: dict[str, Generate | None] = {
        "ours int8": by_feeding(OnnxDecoder(session(packed[8]), size.spec)),
        "ours int4": by_feeding(OnnxDecoder(session(packed[4]), size.spec)),
        "ours int8 dynamic": by_feeding(OnnxDecoder(session(dynamic), size.spec)),
        "torch eager": by_feeding(TorchDecoder(net)),
        "transformers": in_transformers(sheet, net),
        "ctranslate2 int8": in_ctranslate2(sheet, net, "int8"),
        "ctranslate2 float": in_ctranslate2(sheet, net, "float32"),
    }
    per_s, said = take_turns({name: run for name, run in runners.items() if run is not None}, size, rounds)
    agree = {name: float(np.mean(np.array(ids) == np.array(said["torch eager"]))) for name, ids in said.items()}
    sheet.note(
        f"{size.name}: tokens/s {', '.join(f'{k} {v:.0f}' for k, v in per_s.items())}; "
        f"the same tokens as torch: {', '.join(f'{k} {v:.0%}' for k, v in agree.items())}"
    )
    eager = per_s["torch eager"]
    peers = {name: per_s.get(name) for name in ("transformers", "ctranslate2 int8", "ctranslate2 float")}
    peers["llama.cpp"] = None
    spent = time.monotonic() - started
    for bits in (8, 4):
        ours = per_s[f"ours int{bits}"]
        touched = touched_bytes(packed[bits])
        sheet.row(
            f"{size.name} int{bits}",
            "tokens/s / torch eager",
            ours / eager,
            reference=1.0,
            peers={name: None if value is None else value / eager for name, value in peers.items()},
            target=TIMES_EAGER if bits == 8 else None,
            holds=ours >= TIMES_EAGER * eager if bits == 8 else None,
            n=size.tokens * rounds,
            seconds=spent,
            tokens_s=ours,
            eager_tokens_s=eager,
            roofline=ours * touched / read_s,
            megabytes=len(packed[bits]) / 1e6,
            agreement=agree[f"ours int{bits}"],
        )
    sheet.row(
        f"{size.name} int8 dynamic",
        "tokens/s / torch eager",
        per_s["ours int8 dynamic"] / eager,
        reference=1.0,
        n=size.tokens * rounds,
        tokens_s=per_s["ours int8 dynamic"],
        agreement=agree["ours int8 dynamic"],
    )
    best = max((value for value in peers.values() if value is not None), default=None)
    wanted = WHOLE_PEER if size is SMALL else OF_PEER
    ratio = None if best is None else per_s["ours int8"] / best
    for target, what in ((wanted, ""), *([] if size is SMALL else [(WHOLE_PEER, ", stretch")])):
        sheet.row(
            f"{size.name} int8{what}",
            "tokens/s / best peer",
            ratio,
            peers=peers,
            target=target,
            holds=None if ratio is None else ratio >= target,
            n=size.tokens * rounds,
        )


def take_turns(runners: dict[str, Generate], size: Size, rounds: int) -> tuple[dict[str, float], dict[str, list[int]]]:
    """Tokens a second of each, the best round, and what it wrote; a round to warm up does not count."""
    prompt = np.random.default_rng(0).integers(1, size.vocabulary, PROMPT).tolist()
    best = dict.fromkeys(runners, 0.0)
    said: dict[str, list[int]] = {}
    for number in range(rounds + 1):
        for name, run in runners.items():
            started = time.perf_counter()
            said[name] = run(prompt, size.tokens)
            spent = time.perf_counter() - started
            if number:
                best[name] = max(best[name], size.tokens / spent)
    return best, said


def touched_bytes(graph: bytes) -> int:
    """Bytes of the weights that every token multiplies; of embeddings only a row is read."""
    model = onnx.load_from_string(graph).graph
    looked_up = {node.input[0] for node in model.node if node.op_type in (GATHERED, "Gather")}
    looked_up |= {node.input[2] for node in model.node if node.op_type == GATHERED}
    return sum(numpy_helper.to_array(one).nbytes for one in model.initializer if one.name not in looked_up)


def vocabulary() -> bytes:
    """A tokenizer.json learned as training learns it: from the built-in catalogue and what a model is told of events, here of
    other cases than those that are timed."""
    texts = [text for clause in FAULT_REPORT.clauses for lang in ("en", "zh") for text in wordings(clause, lang)]
    told = [ordinary_case(seed) for seed in range(10_000, 10_200)]
    texts += [prefix(FAULT_REPORT, facts_of(made.case, made.names)) for made in told]
    named = sorted({f"<{slot}>" for text in texts for slot in slots(text)})
    return byte_pairs.written(byte_pairs.learn(texts, WRITES.vocabulary, named))


def in_blocks(graph: bytes) -> bytes:
    """Of 8 bits: what goes on token by token fastest."""
    return weight_only(graph, 8, BLOCK[8])


def bundle_of(size: Size, path: Path, small: Callable[[bytes], bytes] = in_blocks) -> Path:
    """A language model's bundle as training seals one, but with random weights."""
    graph = small(gateway_graph(size.net(), size.spec))
    decoder = OnnxDecoder(session(graph), size.spec)
    inputs, outputs = golden_decoder(decoder, np.random.default_rng(0).integers(1, size.vocabulary, (2, PROMPT)))
    passport = Passport(
        slot="report.writer",
        family="generate",
        algorithm="gpt",
        version=1,
        runtime=Runtime.DECODER,
        writer=size.spec,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="1", seed=0, trained_ms=0),
        quality=[],
        eligible=False,
        verdict="random weights",
        parity=Parity(max_abs=0.0, rel_rms=0.0, task_change=0.0, n=0, bound="none"),
        golden=Golden(atol=0.1, rtol=0.0),
        float_bytes=0,
        packed_bytes=len(graph),
        latency_us=0.0,
        intended_use="measuring time and memory",
        limits="knows nothing",
    )
    bundle = Bundle(
        passport=passport,
        graph=graph,
        golden_inputs=inputs,
        golden_outputs=outputs,
        texts={TOKENIZER: vocabulary()},
    )
    path.write_bytes(pack(bundle))
    return path


def writer_of(path: Path) -> LanguageModel:
    """A bundle, loaded and proven, as a writer of reports."""
    archive = path.read_bytes()
    model = load(archive, digest(archive))
    if model.decoder is None or model.tokenizer is None or model.passport.writer is None:
        raise SystemExit(f"generate_speed: {path.name} holds no language model")
    made = language_model(model.decoder, model.tokenizer, model.passport.writer, model.ref)
    return replace(made, limits=Limits(seconds=60.0, tokens=2000))


def strict_report(sheet: contract.Sheet, path: Path) -> None:
    """Milliseconds of reports whose first sections are about 55 tokens, and of whole reports in both languages;
    what tells the model of the event is fed each time. With scaled activations: mostly whole runs of tokens are fed."""
    started = time.monotonic()
    model = writer_of(path)
    cases = about_so_long(model, 5 if sheet.options.quick else 25)
    spent: list[float] = []
    written: list[int] = []
    asked: list[int] = []
    whole: list[float] = []
    for made in [cases[0], *cases]:  # the first one warms up
        facts = facts_of(made.case, made.names)
        begun = time.perf_counter()
        tokens, calls = some_sections(model, facts)
        spent.append((time.perf_counter() - begun) * 1000)
        written.append(tokens)
        asked.append(calls)
        begun = time.perf_counter()
        write_with(model, made.case, made.names, NOW_MS, time.monotonic)
        whole.append((time.perf_counter() - begun) * 1000)
    middle = float(np.median(spent[1:]))
    sheet.row(
        f"{WRITES.name} int8, strict report of {REPORT_TOKENS} tokens",
        "ms, median",
        middle,
        target=REPORT_MS,
        holds=middle <= REPORT_MS,
        n=len(cases),
        seconds=time.monotonic() - started,
        tokens=float(np.median(written[1:])),
        calls=float(np.median(asked[1:])),
    )
    sheet.row(
        f"{WRITES.name} int8, whole report, English and Chinese",
        "ms, median",
        float(np.median(whole[1:])),
        n=len(cases),
    )


def about_so_long(model: LanguageModel, count: int) -> list[Made]:
    """Cases whose first sections are about REPORT_TOKENS tokens long, as this model writes them."""
    found: list[Made] = []
    for seed in range(2000):
        made = ordinary_case(seed)
        tokens, _ = some_sections(model, facts_of(made.case, made.names))
        if abs(tokens - REPORT_TOKENS) <= TOLERANCE:
            found.append(made)
        if len(found) == count:
            return found
    raise SystemExit(f"generate_speed: only {len(found)} reports of about {REPORT_TOKENS} tokens")


def some_sections(model: LanguageModel, facts: Sequence[Fact]) -> tuple[int, int]:
    """Writes English sections until about REPORT_TOKENS tokens are written: (tokens, calls of the model)."""
    author, known = Author(model, FAULT_REPORT, facts, time.monotonic), Facts(facts)
    clauses, tokens = licensed(FAULT_REPORT, known), 0
    for heading in FAULT_REPORT.headings:
        if heading.section in clauses and tokens < REPORT_TOKENS - TOLERANCE:
            said = author(Alternatives(heading.section, "en", known, clauses[heading.section]))
            if said.mode is not Mode.STRICT:
                raise SystemExit(f"generate_speed: {heading.section} was not written strictly: {author.fell}")
            tokens += 1 + sum(tokens_of(model, clauses[heading.section], name) for name in said.clauses)
    return tokens, author.calls


def tokens_of(model: LanguageModel, clauses: Sequence[Clause], name: str) -> int:
    """Tokens of a wording, named as a section names it."""
    clause, _, wording = name.partition("#")
    one = next(each for each in clauses if each.id == clause)
    return len(model.turn(one, "en", optional=False).wordings[int(wording)])


COLD = """
import sys, time
from pathlib import Path
import msgspec
import edge_agent.agent
from edge_agent.explain import Labels
from edge_agent.runtimes import load
from edge_agent.skills.write_report import write_with
from protocol.bundles import digest
from protocol.writing.author import language_model
from protocol.writing.fault_report import FaultCase
archive = Path(sys.argv[1]).read_bytes()
model = load(archive, digest(archive))
writer = language_model(model.decoder, model.tokenizer, model.passport.writer, model.ref)
made = write_with(writer, msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=FaultCase), Labels(), 0, time.monotonic)
assert not [name for name in made.tally if "template" in name], made.tally
print(made.report.sections[0].text_en, flush=True)
"""
"""What a gateway does from the start of its process to a first report in a language model's words."""


def cold_start(sheet: contract.Sheet, path: Path) -> None:
    """Seconds from the start of an agent-like process to its first report."""
    started = time.monotonic()
    case = path.with_name("case.json")
    case.write_bytes(msgspec.json.encode(ordinary_case(0).case))
    spent = sorted(seconds(lambda: child(COLD, path, case)) for _ in range(REPEATS))
    middle = spent[len(spent) // 2]
    sheet.row(
        f"{WRITES.name} int8, cold start to first report",
        f"s, median of {REPEATS}",
        middle,
        target=COLD_S,
        holds=middle <= COLD_S,
        n=REPEATS,
        seconds=time.monotonic() - started,
    )


HELD = """
import sys
from pathlib import Path
import edge_agent.agent
from edge_agent.runtimes import load
from edge_agent.runtimes.engine import OnnxEngine
from edge_agent.runtimes.text_graphs import GraphEncoder
from protocol.bundles import digest
archive = Path(sys.argv[1]).read_bytes()
model = load(archive, digest(archive))
encoder = GraphEncoder(OnnxEngine(Path(sys.argv[2]).read_bytes()), model.tokenizer, int(sys.argv[3]), 128)
del archive
logits = model.decoder.feed(list(range(1, 17)))
for _ in range(100):
    logits = model.decoder.feed([int(logits[-1].argmax())])
assert encoder.encode("pump leaks at the shaft seal, tightened and watched").whole.any()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmRSS"].split()[0], status["VmHWM"].split()[0])
"""
"""An agent that holds both models and has used them."""


def resident(sheet: contract.Sheet, folder: Path, size: Size = MIDDLE, encoder: BertSettings = ENCODER) -> None:
    """MiB of memory of an agent-like process with a language model and a text encoder, both in int8."""
    started = time.monotonic()
    bundle = bundle_of(size, folder / "held.bundle")
    graph = folder / "encoder.onnx"
    graph.write_bytes(quantize(encoder_graph(EncoderForExport(fresh(encoder, 0).bert).eval())))
    rows = [child(HELD, bundle, graph, encoder.width).split() for _ in range(REPEATS)]
    now, peak = (sorted(int(row[which]) / 1024 for row in rows)[len(rows) // 2] for which in (0, 1))
    sheet.row(
        f"agent with {size.name} int8 and an encoder {encoder.layers}L-{encoder.width} int8",
        f"RSS MiB, median of {REPEATS}",
        now,
        target=RSS_MIB,
        holds=now <= RSS_MIB,
        n=REPEATS,
        seconds=time.monotonic() - started,
        peak_mib=peak,
    )


def child(code: str, *arguments: object) -> str:
    """Standard output of a fresh interpreter in the project's root."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(contract.run("generate_speed", __doc__, measure, needs_data=False))
