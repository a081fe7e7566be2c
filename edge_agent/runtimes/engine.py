"""onnxruntime as a gateway uses it: one thread, the processor, no telemetry."""

from __future__ import annotations

import os
from typing import Any

from protocol.errors import BadBundle, Reason


def session(graph: bytes) -> Any:
    """A graph that can be asked. Raises BadBundle (unsupported_runtime) if this engine cannot load it."""
    # onnxruntime has telemetry of its own, which starts at import: nothing leaves a gateway but through privacy.py
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no root but Exception
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"onnxruntime {ort.__version__} cannot load the graph: {error}"
        ) from error


def failures() -> tuple[type[Exception], ...]:
    """What the engine raises; its exceptions share no root but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    names = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException")
    return tuple(getattr(raised, name) for name in names)
