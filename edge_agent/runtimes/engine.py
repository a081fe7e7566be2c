"""What a graph is asked through, whoever runs it: names in, arrays out. Here: onnxruntime as a gateway uses it, on one thread
and the processor unless its settings say otherwise, with no telemetry. TFLite is in `lite.py`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import ONNXRUNTIME, RuntimeSettings
from protocol.errors import BadBundle, Reason
from protocol.graphs import check_graph

Arrays = dict[str, NDArray[Any]]
ONE_THREAD = RuntimeSettings()
REMOTE = "AzureExecutionProvider"
"""It computes on another machine: nothing leaves a gateway but through privacy.py."""


class Engine(Protocol):
    """A loaded graph."""

    @property
    def name(self) -> str:
        """Which engine, its version, and where it computes."""
        ...

    @property
    def inputs(self) -> Sequence[str]:
        """Names of what it is given."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Names of what it answers."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Numbers of tokens that an encoder's graph takes, ascending (empty: any)."""
        ...

    def run(self, given: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every output. Raises BadBundle (unsupported_runtime) where the graph does not take what it is given."""
        ...


class OnnxEngine:
    """An `Engine` on onnxruntime. lengths: what an encoder's texts are filled up to; the engine itself takes any."""

    def __init__(self, graph: bytes, settings: RuntimeSettings = ONE_THREAD, lengths: Sequence[int] = ()) -> None:
        self._session = session(graph, settings)
        self._broken: tuple[type[Exception], ...] = (
            *failures(),
            ValueError,
        )  # ValueError: an input is missing or unknown
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.lengths = tuple(sorted(lengths))

    @property
    def name(self) -> str:
        """Which engine, and where it computes."""
        import onnxruntime as ort

        where = [one.removesuffix("ExecutionProvider") for one in self._session.get_providers()]
        return f"{ONNXRUNTIME} {ort.__version__} on {', '.join(where)}"

    def run(self, given: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every output."""
        try:
            said = self._session.run(self.outputs, dict(given))
        except self._broken as error:
            raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"the graph does not run: {error}") from error
        return {name: np.asarray(one) for name, one in zip(self.outputs, said, strict=True)}


def session(graph: bytes, settings: RuntimeSettings = ONE_THREAD) -> Any:
    """A graph as onnxruntime holds it. Raises BadBundle: bad_archive for what is no graph or wants files beside it (which
    onnxruntime would read from wherever this process stands), unsupported_runtime if onnxruntime is not here or cannot load
    it."""
    facts = check_graph(graph)
    # onnxruntime has telemetry of its own, which starts at import: nothing leaves a gateway but through privacy.py
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"onnxruntime does not load on this machine: {error}") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if settings.arena_mb:
        _limit_arena(ort, settings.arena_mb)
        options.add_session_config_entry("session.use_env_allocators", "1")
    wanted = providers(settings.providers)
    # onnxruntime tries the processor again where that alone was asked, and writes so into standard output
    again = int(len(wanted) > 1)
    try:
        return ort.InferenceSession(graph, options, providers=wanted, enable_fallback=again)
    except Exception as error:  # onnxruntime's own exceptions share no root but Exception
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"onnxruntime {ort.__version__} cannot load the graph (IR {facts.ir}, opset {facts.opsets.get('', 0)}): {error}",
        ) from error


def providers(wanted: Sequence[str]) -> list[str]:
    """Those of the wanted execution providers that this onnxruntime has; the processor always, as the last resort."""
    import onnxruntime as ort

    here = set(ort.get_available_providers()) - {REMOTE}
    last = "CPUExecutionProvider"
    return [*dict.fromkeys(one for one in wanted if one in here and one != last), last]


def failures() -> tuple[type[Exception], ...]:
    """What the engine raises; its exceptions share no root but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    names = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    return tuple(getattr(raised, name) for name in names)


def _limit_arena(ort: Any, most_mb: int) -> None:
    """One arena for all graphs of the process, that grows by what is asked and no further than this."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    limits = {
        "max_mem": most_mb << 20,
        "arena_extend_strategy": 1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(limits))
