"""TFLite files on ai-edge-litert, or on its predecessor tflite-runtime, behind one `Engine`.

Neither is trusted by its name: tflite-runtime imports under numpy 2 and fails when it is asked, so a small file with a known
answer is asked first. And neither is trusted with a file. Measured: of the 4384 flips of one bit in PROBE three ended the
process of ai-edge-litert 2.3, and one of 1500 damaged forecasters hung it; tflite-runtime 2.14 died of 57 of 60 cuts of a
forecaster and of 23 of 60 flips. A file that was damaged on its way does not come that far (its sum is in the passport), one
that a runtime cannot take may: `apart.py` tries a bundle in a process of its own first."""

from __future__ import annotations

import base64
import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtimes.engine import Arrays
from protocol.bundles import Lite
from protocol.errors import BadBundle, Reason

MARK = slice(4, 8), b"TFL3"
"""Where a TFLite flatbuffer says that it is one."""
LEAST_BYTES = 64
RUNTIMES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
"""Package -> module with its `Interpreter`; the better one first."""
PROBE = zlib.decompress(
    base64.b64decode(
        "eNpdUTsOgkAQfSAS1I2hoLCw8A5ammBlZWlhYWFMTOw0NmrHQTyER7D0AJ7Ai+Cb2QHRhcfsvnnz2WEIYDlfjDMMMUCGFA4JZEU8gRxQEA/iSbwCoEVL"
        "Q62srsVE3IE7aNyEaBPH02G7M734EtNKjVCreN/VrJzfZVlW/MV0U4sHYo2PTTtSrsj5mfElCoPshSvyG/P995Jqvqzu3Rm3ItbExnSZ5u+rFW2P2n7N"
        "I0ltH+njY6TflvfrmeXLig+MF//e5iRxd2oSu2M1j7CRz2l11L26xkzFnk1XzdQ1/qOP+2ovjdzRzzzkft+Yjm+18wEBeiR2"
    )
)
"""A file of 548 bytes, written with the schema's own classes (ModelT of ai_edge_litert.schema_py_generated): signature
"probe", x float32 [1, 4] -> y [1, 2], one FULLY_CONNECTED of the weights [[1, 2, 3, 4], [4, 3, 2, 1]]."""
PROBE_ASKED = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)
PROBE_ANSWER = np.array([[30.0, 20.0]], dtype=np.float32)
FAILED = (ValueError, RuntimeError, TypeError, KeyError, SystemError, MemoryError, OSError)
"""What the interpreters raise for a file or an input that they do not take."""


@dataclass(frozen=True)
class TfliteRuntime:
    """One that answers the probe. make: (file, threads) -> its Interpreter."""

    package: str
    version: str
    make: Callable[[bytes, int], Any]


@dataclass(frozen=True)
class Probe:
    """What was found of one package: `runtime`, or `why` there is none."""

    package: str
    runtime: TfliteRuntime | None
    why: str


def tflite_runtime() -> TfliteRuntime:
    """The best one that works here. Raises BadBundle (unsupported_runtime) with what is wrong with each."""
    found = []
    for package in RUNTIMES:
        one = probe(package)
        if one.runtime is not None:
            return one.runtime
        found.append(one)
    told = "; ".join(f"{one.package}: {one.why}" for one in found)
    raise BadBundle(
        Reason.UNSUPPORTED_RUNTIME, f"no TFLite runtime works here ({told}): pip install 'millwright[tflite]'"
    )


@cache
def probe(package: str) -> Probe:
    """What is found of one of RUNTIMES; asked once in a process."""
    return asked(package, RUNTIMES[package])


def asked(package: str, module: str) -> Probe:
    """Loads a package and asks it for the known answer. module: the one with its `Interpreter`."""
    try:
        interpreter = importlib.import_module(module).Interpreter
    except ImportError as error:
        return Probe(package, None, f"not installed ({error})" if error.name else f"does not load: {error}")
    runtime = TfliteRuntime(
        package, _version(package), lambda content, threads: interpreter(model_content=content, num_threads=threads)
    )
    try:
        runner = runtime.make(PROBE, 1).get_signature_runner("probe")
        said = runner(x=PROBE_ASKED)["y"]
    except FAILED as error:
        return Probe(package, None, f"{runtime.version} loads and does not run with numpy {np.__version__}: {error}")
    if not np.array_equal(said, PROBE_ANSWER):
        return Probe(package, None, f"{runtime.version} answers {said.tolist()}, right is {PROBE_ANSWER.tolist()}")
    return Probe(package, runtime, "")


def _version(package: str) -> str:
    from importlib.metadata import (
        PackageNotFoundError,
        version,
    )  # milliseconds that an agent without TFLite need not spend

    try:
        return version(package)
    except PackageNotFoundError:  # a build of one's own
        return "of unknown version"


class LiteEngine:
    """An `Engine`. A signature is chosen by the shapes of what is given; integers of 64 bits are given as 32. Raises
    BadBundle: bad_archive for what is no TFLite file or not the one that the passport speaks of, unsupported_runtime where no
    runtime takes it."""

    def __init__(self, content: bytes, told: Lite, threads: int = 1, runtime: TfliteRuntime | None = None) -> None:
        check_file(content, told)
        self._runtime = runtime or tflite_runtime()
        self.inputs, self.outputs = tuple(told.inputs), tuple(told.outputs)
        try:
            interpreter = self._runtime.make(content, threads)
            signatures = interpreter.get_signature_list()
            runners = [interpreter.get_signature_runner(name) for name in signatures]
            details = [(runner.get_input_details(), runner.get_output_details()) for runner in runners]
        except FAILED as error:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{self.name} cannot load the file: {error}") from error
        self._by_shapes: dict[tuple[tuple[int, ...], ...], tuple[Any, dict[str, Any]]] = {}
        for runner, (asked, said) in zip(runners, details, strict=True):
            if set(asked) != set(self.inputs) or set(said) != set(self.outputs):
                raise BadBundle(
                    Reason.BAD_ARCHIVE,
                    f"the TFLite file maps {sorted(asked)} to {sorted(said)}, the passport says {list(self.inputs)} to "
                    f"{list(self.outputs)}",
                )
            kinds = {name: np.dtype(one["dtype"]) for name, one in asked.items()}
            strange = {name: str(kind) for name, kind in kinds.items() if kind not in (np.float32, np.int32)}
            if strange:
                raise BadBundle(Reason.BAD_ARCHIVE, f"inputs of a TFLite file are float32 or int32, not {strange}")
            shapes = tuple(tuple(int(n) for n in asked[name]["shape"]) for name in self.inputs)
            self._by_shapes[shapes] = runner, kinds
        self.lengths = _lengths(list(self._by_shapes))

    @property
    def name(self) -> str:
        """The runtime's package and version."""
        return f"tflite by {self._runtime.package} {self._runtime.version}"

    def run(self, given: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every output, to inputs of the shapes of one of the file's signatures."""
        shapes = tuple(given[name].shape if name in given else () for name in self.inputs)
        runner, kinds = self._by_shapes.get(shapes, (None, {}))
        if runner is None or len(given) != len(self.inputs):
            told = {name: one.shape for name, one in given.items()}
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"the TFLite file takes {list(self._by_shapes)} of {self.inputs}, not {told}",
            )
        try:
            said = runner(**{name: np.ascontiguousarray(one, dtype=kinds[name]) for name, one in given.items()})
        except FAILED as error:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"the TFLite file does not run: {error}") from error
        return {name: np.asarray(said[name]) for name in self.outputs}


def check_file(content: bytes, told: Lite) -> None:
    """Whether the bytes may be shown to a runtime at all: a flatbuffer of TFLite's kind, of the size that the passport says,
    whose root lies inside. (Its sum was compared when the bundle was opened.) Raises BadBundle."""
    where, mark = MARK
    if len(content) != told.size:
        raise BadBundle(
            Reason.BAD_ARCHIVE,
            f"the TFLite file has {len(content)} bytes, the passport says {told.size}: pack it again",
        )
    if len(content) < LEAST_BYTES or content[where] != mark:
        raise BadBundle(Reason.BAD_ARCHIVE, "model.tflite is no TFLite flatbuffer (TFL3)")
    root = int.from_bytes(content[:4], "little")
    if not 8 <= root <= len(content) - 4:
        raise BadBundle(
            Reason.BAD_ARCHIVE, f"the TFLite file begins at byte {root} of {len(content)}: it is cut or altered"
        )


def _lengths(shapes: Sequence[tuple[tuple[int, ...], ...]]) -> tuple[int, ...]:
    """Of files whose inputs are all tokens [1, T]: each T."""
    if not all(len(one) == 2 and one == every[0] for every in shapes for one in every):
        return ()
    return tuple(sorted(every[0][1] for every in shapes))
