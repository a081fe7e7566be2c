"""A fitted torch module becomes an ONNX graph with a free batch size: input `x`, output `q`, and
where a module wants to know whose rows they are, a second input `who`."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.compact import plain_recurrence

INPUT, WHO, OUTPUT = "x", "who", "q"


def to_onnx(module: nn.Module, example: Tensor, who: Tensor | None = None) -> bytes:
    """The graph's bytes. who: int64 [N, 2], for modules that are called with (x, who). `example` needs a batch of two
    or more: the exporter takes a batch of one for a constant."""
    if example.shape[0] < 2:
        raise ValueError(
            f"example batch of {example.shape[0]}: give two rows or more, one would be frozen into the graph"
        )
    inputs = (example,) if who is None else (example, who)
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    return exported(module, inputs, free, [INPUT, WHO][: len(inputs)], [OUTPUT])


def exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    free: tuple[dict[int, Any], ...],
    input_names: list[str],
    output_names: list[str],
    opset: int | None = None,
) -> bytes:
    """The bytes of a module's graph. free: for each input, its axes of any size; an example needs two or more there. opset:
    version of ONNX's operators (None: the exporter's own choice)."""
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # it warns of operators of packages that are not installed
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            path = Path(folder) / "graph.onnx"
            torch.onnx.export(
                module.eval(),
                inputs,
                str(path),
                dynamo=True,
                dynamic_shapes=free,
                input_names=input_names,
                output_names=output_names,
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
            return plain_recurrence(path.read_bytes())
    finally:
        exporter_log.setLevel(level)
