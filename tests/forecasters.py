"""A bundle of the small forecaster that `lite_files` writes, by its graph and, if wanted, its TFLite file."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.bundles import Golden, Lite, Parity, Runtime, pack
from protocol.windows import WindowSpec
from tests.bundles import small
from tests.lite_files import CHANNELS, HORIZON, STEPS, forecast

SLOT, STEP_MS = "forecast.lstm", 1000


def windows(rows: int, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """x [rows, STEPS, CHANNELS] and who [rows, 2]."""
    drawn = np.random.default_rng(seed)
    return drawn.normal(size=(rows, STEPS, CHANNELS)).astype(np.float32), drawn.integers(0, 4, (rows, 2))


def forecasting(graph: bytes, tolerance: float, file: bytes = b"") -> bytes:
    """The archive; its golden answers are those of the float graph."""
    x, who = windows(4)
    none = Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="")
    told = Lite(recipe="float32", inputs=["x", "who"], outputs=["q"], size=len(file), parity=none) if file else None
    bundle = small(
        slot=SLOT,
        family="forecast",
        algorithm="lstm",
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=STEP_MS, length=STEPS, horizon=HORIZON),
        levels=[0.1, 0.5, 0.9],
        items=[],
        lite=told,
    )
    passport = msgspec.structs.replace(bundle.passport, golden=Golden(atol=tolerance, rtol=0))
    return pack(
        msgspec.structs.replace(
            bundle,
            passport=passport,
            tables={},
            graph=graph,
            lite=file,
            golden_inputs={"x": x, "who": who},
            golden_outputs={"q": forecast(x, who)},
        )
    )
