"""Runs in an environment of its own, beside litert-torch: it imports nothing of ours and is called as a program.

One JSON object on standard input, one on standard output; everything else that is said goes to standard error.

{"task": "convert", "program": path of a torch.export program, "recipe": "float32" | "w8" | "dyn8", "model": path to write,
 "kinds": {input: "float32" | "int32"}, "outputs": [names in the program's order], "shapes": {signature: {input: [1, …]}},
 "threads": 1, "memory_mb": 8192}
    -> {"bytes": n, "versions": {package: version}, "peak_mb": n}
{"task": "answer", "model": path, "rows": path of an .npz with "3/x" for input x [n, …] of group 3, "answers": path of an .npz
 to write likewise, "threads": 1, "memory_mb": 8192}
    -> {"rows": n, "versions": {…}, "peak_mb": n}
{"task": "time", "model": path, "rows": path of an .npz with "0/x" for input x [1, …], "threads": 1, "memory_mb": 8192}
    -> {"call_us": least time of CALLS calls, "versions": {…}, "peak_mb": n}

Rows of one group have the same shapes; each is asked alone, of the signature whose inputs have these shapes. Exit status 0;
another one: the last line of standard error says why."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = (
    "torch",
    "litert-torch",
    "litert-converter",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
)
CALLS = 40
"""Of which the quickest counts."""
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def convert(asked: dict[str, Any]) -> dict[str, Any]:
    """Writes the TFLite file."""
    import litert_torch
    import torch

    torch.set_num_threads(asked["threads"])
    program = torch.export.load(asked["program"]).module()

    class Named(torch.nn.Module):
        """The program with its inputs and outputs by name: a file's signature takes them from here."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
            said = self.program(*given.values())
            return dict(zip(asked["outputs"], said if isinstance(said, (tuple, list)) else (said,), strict=True))

    named: Any = Named()
    converter: Any = litert_torch
    for signature, shapes in asked["shapes"].items():
        example = {
            name: torch.zeros(shape, dtype=getattr(torch, asked["kinds"][name])) for name, shape in shapes.items()
        }
        converter = converter.signature(signature, named, sample_kwargs=example)
    whole = converter.convert().model_content()
    if asked["recipe"] != "float32":
        from ai_edge_quantizer import quantizer, recipe

        recipes = {"w8": recipe.weight_only_wi8_afp32, "dyn8": recipe.dynamic_wi8_afp32}
        whole = quantizer.Quantizer(bytearray(whole), recipes[asked["recipe"]]()).quantize().quantized_model
    with open(asked["model"], "wb") as file:  # noqa: PTH123 - a plain script
        file.write(whole)
    return {"bytes": len(whole)}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Asks the file row by row, by the runtime that gateways have."""
    import numpy as np

    runners = _runners(asked)
    said: dict[str, Any] = {}
    count = 0
    for group, arrays in _groups(asked).items():
        runner = _runner(runners, arrays)
        each = range(len(next(iter(arrays.values()))))
        rows = [runner(**{name: array[at : at + 1] for name, array in arrays.items()}) for at in each]
        said |= {f"{group}/{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
        count += len(rows)
    np.savez(asked["answers"], **said)
    return {"rows": count}


def timed(asked: dict[str, Any]) -> dict[str, Any]:
    """How long a call takes that has been made before."""
    (row,) = _groups(asked).values()
    runner = _runner(_runners(asked), row)
    least = float("inf")
    for _ in range(CALLS):
        started = time.perf_counter()
        runner(**row)
        least = min(least, time.perf_counter() - started)
    return {"call_us": least * 1e6}


def _runners(asked: dict[str, Any]) -> dict[Shapes, Any]:
    """Shapes of inputs -> the signature that takes them."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter

    with open(asked["model"], "rb") as file:  # noqa: PTH123
        interpreter = Interpreter(model_content=file.read(), num_threads=asked["threads"])
    runners = [interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()]
    return {_shapes({n: one["shape"] for n, one in runner.get_input_details().items()}): runner for runner in runners}


def _runner(runners: dict[Shapes, Any], arrays: dict[str, Any]) -> Any:
    shapes = _shapes({name: (1, *array.shape[1:]) for name, array in arrays.items()})
    if shapes not in runners:
        raise ValueError(f"no signature takes {shapes}: {list(runners)}")
    return runners[shapes]


def _groups(asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Group -> input -> rows."""
    import numpy as np

    groups: dict[str, dict[str, Any]] = {}
    with np.load(asked["rows"], allow_pickle=False) as given:
        for key in given.files:
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = given[key]
    return groups


def _shapes(shapes: dict[str, Any]) -> Shapes:
    return tuple(sorted((name, tuple(int(n) for n in shape)) for name, shape in shapes.items()))


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Reads what is asked, does it, says what came of it."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the converter's native parts print is not our answer
    asked = json.loads(sys.stdin.read())
    most = int(asked["memory_mb"]) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    done = {"convert": convert, "answer": answer, "time": timed}[asked["task"]](asked)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    os.write(out, json.dumps({**done, "versions": _versions(), "peak_mb": peak_mb}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
