"""What this machine has for running graphs: its processor, memory and disk, and each engine with whether it answers a probe
and why not. Each is asked in a process of its own, since one that was built for another processor ends the process."""

from __future__ import annotations

import base64
import os
import platform
import shutil
import time
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config import ONNXRUNTIME, TFLITE, EngineName, RuntimeSettings
from edge_agent.runtimes.apart import answer_alone, in_a_process
from protocol.errors import BadBundle
from protocol.processors import processor

GRAPH = zlib.decompress(
    base64.b64decode(
        "eNrj4LDaxcwlz8WYyMWYJMRRUJSfUppcUqzE65tY4lua45lXkpqeWsQlDlQgxFihxOKcWFyixcnFVJIvwbiAkYlLjYuxQoi1JL8kMUeJMygVqDk1uDRX"
        "i5+LIzs1tSAlM7dYggGoTogVaHJSqlYPE4cDB4sAsxNjklcDU/0IB1HCoGDl4+LhYBLi4GLiYARihyQpLng0gOXY4HIsSfxckLAWYuNi4WAUYnBi4WIQ"
        "EAQAtBOnyA=="
    )
)
"""An ONNX graph of 453 bytes, written with onnx.helper: a uint8 [1, 64] -> products int32 [1, 4], MatMulInteger with int8
weights that are all 127, and total float32 [], the sum of a."""
TERMS, LARGEST, WEIGHT = 64, 255, 127
EXACT = TERMS * LARGEST * WEIGHT
"""What `products` are of the largest a. A processor without VNNI adds pairs of them in 16 bits, which overflow."""
LIMIT_S = 60.0
CALLS = 20
ASK = "import sys; from edge_agent.runtimes import machine; machine.child(sys.argv[1])"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, or one execution provider of onnxruntime. works: it answers the probe; why: if not, why not; note: what is
    to be known of it all the same. call_us: the least of CALLS calls of the probe, microseconds."""

    name: str
    version: str = ""
    works: bool = False
    why: str = ""
    note: str = ""
    call_us: float = 0.0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What `millwright doctor` tells. Memory and disk in MiB, 0: not known."""

    python: str
    numpy: str
    system: str
    processor: str
    features: list[str]
    threads: int
    memory_free_mb: int
    disk_free_mb: int
    onnxruntime: list[Answered]
    tflite: list[Answered]
    runtime: RuntimeSettings
    advice: list[str]

    @property
    def works(self) -> bool:
        """Whether any engine does."""
        return any(one.works for one in (*self.onnxruntime, *self.tflite))


def look(folder: Path) -> Machine:
    """Asks everything. folder: where the agent's data lie, for the room on its disk."""
    import numpy as np

    name, features = processor(_text("/proc/cpuinfo"))
    found = {name: _asked(name) for name in (ONNXRUNTIME, TFLITE)}
    runtime, advice = recommended(found[ONNXRUNTIME], found[TFLITE])
    return Machine(
        python=platform.python_version(),
        numpy=np.__version__,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=name or platform.processor() or platform.machine(),
        features=features,
        threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_free_mb=_memory_mb(_text("/proc/meminfo")),
        disk_free_mb=shutil.disk_usage(folder).free >> 20,
        onnxruntime=found[ONNXRUNTIME],
        tflite=found[TFLITE],
        runtime=runtime,
        advice=advice,
    )


def recommended(onnx: list[Answered], tflite: list[Answered]) -> tuple[RuntimeSettings, list[str]]:
    """([runtime] for this machine, why). One thread: a call of these models takes less than waking a second one is worth."""
    engines: list[EngineName] = [
        name for name, found in ((ONNXRUNTIME, onnx), (TFLITE, tflite)) if any(one.works for one in found)
    ]
    advice = [f"{one.name}: {one.note}" for one in (*onnx, *tflite) if one.note]
    if not engines:
        return RuntimeSettings(), [*advice, "no engine works: models of numbers and tables run, graphs are refused"]
    if len(engines) == 1:
        other = "pip install 'millwright[tflite]'" if engines[0] == ONNXRUNTIME else "pip install onnxruntime"
        advice.append(f"only {engines[0]} works; {other} would give bundles with two forms a choice")
        return RuntimeSettings(engines=(engines[0],)), advice
    return RuntimeSettings(), [*advice, "both engines work: each bundle is served by what is fastest here"]


def child(engine: str) -> None:
    """Asks one engine; what it says goes to standard output as JSON."""
    with answer_alone() as out:
        out.write(msgspec.json.encode(_onnxruntime() if engine == ONNXRUNTIME else _tflite()))


def _asked(engine: EngineName) -> list[Answered]:
    try:
        done = in_a_process(ASK, [engine], b"", LIMIT_S, f"{engine}'s probe")
    except BadBundle as error:
        return [Answered(name=engine, why=error.detail)]
    if done.returncode:
        return [Answered(name=engine, why=done.stderr.decode(errors="replace").strip()[-400:])]
    return msgspec.json.decode(done.stdout, type=list[Answered])


def _onnxruntime() -> list[Answered]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from edge_agent.runtimes.engine import REMOTE

    try:
        import onnxruntime as ort
    except ImportError as error:
        return [Answered(name=ONNXRUNTIME, why=f"not installed or does not load: {error}")]
    here = [name for name in ort.get_available_providers() if name != REMOTE]
    return [_provider(name, str(ort.__version__)) for name in here]


def _provider(name: str, version: str) -> Answered:
    """Of one execution provider; the answer of the probe tells how its products of 8 bits come out."""
    import numpy as np

    from edge_agent.runtimes.engine import OnnxEngine

    try:
        engine = OnnxEngine(GRAPH, RuntimeSettings(providers=(name,)))
        given: dict[str, Any] = {"a": np.full((1, TERMS), LARGEST, dtype=np.uint8)}
        said, spent = _timed(partial(engine.run, given))
    except BadBundle as error:
        return Answered(name=name, version=version, why=error.detail)
    if name.removesuffix("ExecutionProvider") not in engine.name:
        return Answered(name=name, version=version, why="is built in, and this machine has not what it runs on")
    if float(said["total"]) != TERMS * LARGEST:
        return Answered(name=name, version=version, why=f"sums to {said['total']}, right is {TERMS * LARGEST}")
    short = "" if (said["products"] == EXACT).all() else _short(int(said["products"].min()))
    return Answered(name=name, version=version, works=True, note=short, call_us=round(spent, 1))


def _short(product: int) -> str:
    return (
        f"products of 8 bits overflow here ({product} for {EXACT}): int8 models may be refused by their golden vectors; "
        "ask for another form ([training] quantize), or for TFLite beside it"
    )


def _tflite() -> list[Answered]:
    from edge_agent.runtimes.lite import PROBE, PROBE_ASKED, RUNTIMES, probe

    answered = []
    for found in map(probe, RUNTIMES):
        if found.runtime is None:
            answered.append(Answered(name=found.package, why=found.why))
            continue
        runner = found.runtime.make(PROBE, 1).get_signature_runner("probe")
        _, spent = _timed(partial(runner, x=PROBE_ASKED))
        answered.append(
            Answered(name=found.package, version=found.runtime.version, works=True, call_us=round(spent, 1))
        )
    return answered


def _timed(ask: Any) -> tuple[Any, float]:
    """(the last answer, least microseconds of CALLS calls)."""
    least = float("inf")
    for _ in range(CALLS):
        started = time.perf_counter()
        said = ask()
        least = min(least, (time.perf_counter() - started) * 1e6)
    return said, least


def _memory_mb(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
