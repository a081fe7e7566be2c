"""A fitted torch module becomes a TFLite file: batch 1, fixed shapes, int32 where the graph has int64, inputs and outputs by
the names that the graph gives them.

The converter (litert-torch) is large, pulls packages older than ours and has x86-64 wheels only, so it may live in an
environment of its own: the module travels there as a torch.export program, `lite_converter.py` is the program that is called.
What it made is measured through the runtime that gateways have, and a file beyond its family's bound is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.bounds import FORECASTER, Bound
from export.strain import strained_error
from export.to_onnx import INPUT, OUTPUT, WHO
from export.trials import Run, Trial
from protocol.bundles import Golden, Lite
from protocol.errors import BadBundle, BadSettings, Reason

Arrays = dict[str, NDArray[Any]]
Vectors = tuple[Arrays, Arrays]
VARIABLE = "MILLWRIGHT_TFLITE_PYTHON"
SCRIPT = Path(__file__).with_name("lite_converter.py")
FLOAT32, WEIGHTS, DYNAMIC = "float32", "w8", "dyn8"
RECIPES = (FLOAT32, WEIGHTS, DYNAMIC)
TAIL = 600
"""Characters of the converter's last words that an error repeats."""
MOST_LOOSENED = 4.0
"""Times the graph's tolerance that a TFLite file's own may be."""
OF_TARGET = {"tflite": WEIGHTS, "tflite-dyn8": DYNAMIC}
"""Target of a training -> recipe."""
NO_DECODERS = "a language model stays on ONNX: its memory grows with every token, and a TFLite file has fixed shapes"
SHORTEST = 16
"""Least number of tokens that an encoder's file is made for."""


@dataclass(frozen=True)
class Converter:
    """python: an interpreter that has litert-torch. Both limits are of one call."""

    python: Path
    limit_s: float = 900.0
    memory_mb: int = 8192
    threads: int = 1

    def call(self, asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """What the script answers. Raises BadBundle (unsupported_runtime) where it fails, with its last words."""
        request = json.dumps({**asked, "threads": self.threads, "memory_mb": self.memory_mb})
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MILLWRIGHT_"))}
        try:
            done = subprocess.run(
                [str(self.python), "-I", str(SCRIPT)],
                input=request.encode(),
                capture_output=True,
                timeout=self.limit_s,
                cwd=folder,
                env=plain | {"OMP_NUM_THREADS": str(self.threads)},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME, f"the TFLite converter took over {self.limit_s:g} s and was stopped"
            ) from error
        except OSError as error:
            raise BadSettings(f"{VARIABLE}: {self.python} does not start: {error.strerror}") from error
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip()[-TAIL:]
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME, f"the TFLite converter ended with status {done.returncode}: {told}"
            )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def converter() -> Converter:
    """By the environment variable, else this interpreter. Raises BadSettings where litert-torch is in neither."""
    named = os.environ.get(VARIABLE, "")
    if named:
        if not Path(named).is_file():
            raise BadSettings(f"{VARIABLE} names {named}, which is no file: give an interpreter that has litert-torch")
        return Converter(Path(named).absolute())
    if importlib.util.find_spec("litert_torch") is None:
        raise BadSettings(
            "TFLite files are made by litert-torch, which is not installed: "
            "pip install 'millwright[tflite-export]' here, or in an environment of its own:\n"
            "    python3 -m venv tflite && tflite/bin/pip install torch==2.13.0 litert-torch==0.10.0 "
            "ai-edge-quantizer==0.10.0\n"
            f"    export {VARIABLE}=$PWD/tflite/bin/python"
        )
    return Converter(Path(sys.executable))


@dataclass(frozen=True)
class LiteFile:
    """A TFLite file, and who made it. inputs, outputs: names, in the module's order. lengths: of an encoder, the numbers of
    tokens that it takes, one signature each over the same weights (none: the one shape of a forecaster)."""

    content: bytes
    recipe: str
    inputs: list[str]
    outputs: list[str]
    lengths: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    peak_mb: int = 0


def to_tflite(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    recipe: str = WEIGHTS,
    lengths: Sequence[int] = (),
    by: Converter | None = None,
) -> LiteFile:
    """The file of a module that is called with the examples in their order. recipe: "w8" keeps weights in 8 bits and is right
    on every runtime; "dyn8" rounds what flows through, too, is faster, and on tflite-runtime 2.14 answers nonsense without an
    error. lengths: sizes of the second axis of every input, for encoders. Raises BadSettings without a converter or for an
    unknown recipe, BadBundle for a module that it cannot convert."""
    if recipe not in RECIPES:
        raise BadSettings(f"TFLite recipe {recipe!r}: name one of {', '.join(RECIPES)}")
    if "past" in examples:
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, NO_DECODERS)
    used = by or converter()
    given = {name: _narrow(one[:1]) for name, one in examples.items()}
    shapes = {f"t{n}": {name: [1, n, *one.shape[2:]] for name, one in given.items()} for n in lengths}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _save_program(module, given, lengths, folder / "program.pt2")
        made = used.call(
            {
                "task": "convert",
                "program": str(folder / "program.pt2"),
                "recipe": recipe,
                "model": str(folder / "model.tflite"),
                "kinds": {name: str(one.dtype).removeprefix("torch.") for name, one in given.items()},
                "outputs": list(outputs),
                "shapes": shapes or {"serving_default": {name: list(one.shape) for name, one in given.items()}},
            },
            folder,
        )
        content = (folder / "model.tflite").read_bytes()
    return LiteFile(
        content, recipe, list(given), list(outputs), tuple(lengths), versions=made["versions"], peak_mb=made["peak_mb"]
    )


def recipe_of(targets: Sequence[str]) -> str:
    """The recipe that a training's targets ask for; empty: no file. Raises BadSettings where they do and no converter is
    here: a training that cannot be packed as it should is not begun."""
    asked = [OF_TARGET[target] for target in targets if target in OF_TARGET]
    if not asked:
        return ""
    converter()
    return asked[0]


def lengths_up_to(context: int) -> tuple[int, ...]:
    """Numbers of tokens that an encoder's file is made for: doubled from SHORTEST on, the last one the context."""
    doubled = [SHORTEST << n for n in range(context.bit_length()) if SHORTEST << n < context]
    return (*doubled, context)


def answers(file: LiteFile, groups: Sequence[Mapping[str, NDArray[Any]]], by: Converter | None = None) -> list[Arrays]:
    """What the shipped runtime says to the rows of each group (its inputs [n, ...]; one signature a group), all in one
    process of its own. Raises BadBundle where it fails."""
    used = by or converter()
    with _laid_out(file, groups) as (folder, asked):
        said = folder / "answers.npz"
        used.call({"task": "answer", **asked, "answers": str(said)}, folder)
        with np.load(said, allow_pickle=False) as found:
            return [{name: found[f"{at}/{name}"] for name in file.outputs} for at in range(len(groups))]


def call_us(file: LiteFile, row: Mapping[str, NDArray[Any]], by: Converter | None = None) -> float:
    """Microseconds of a call of the shipped runtime, the least of many. row: its inputs [1, ...]."""
    used = by or converter()
    with _laid_out(file, [row]) as (folder, asked):
        return float(used.call({"task": "time", **asked}, folder)["call_us"])


@contextmanager
def _laid_out(file: LiteFile, groups: Sequence[Mapping[str, NDArray[Any]]]) -> Iterator[tuple[Path, dict[str, str]]]:
    """(a folder for one call of the script, where in it the file and the groups' rows lie)."""
    with tempfile.TemporaryDirectory() as place:
        model, rows = Path(place, "model.tflite"), Path(place, "rows.npz")
        model.write_bytes(file.content)
        arrays = {f"{at}/{name}": _narrowed(one) for at, group in enumerate(groups) for name, one in group.items()}
        np.savez(rows, allow_pickle=False, **arrays)
        yield Path(place), {"model": str(model), "rows": str(rows)}


class LiteRows:
    """A forecaster's file as `export.parity.Graph` is asked."""

    def __init__(self, file: LiteFile, by: Converter | None = None) -> None:
        self._file, self._by = file, by

    def __call__(self, x: NDArray[np.float32], who: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Answers [N, ...] to x [N, ...]; who [N, 2], None: all unknown."""
        given: Arrays = {INPUT: x}
        if WHO in self._file.inputs:
            given[WHO] = np.zeros((len(x), 2), dtype=np.int64) if who is None else who
        return np.asarray(answers(self._file, [given], self._by)[0][OUTPUT], dtype=np.float32)


class LiteTokens:
    """An encoder's file: rows of token ids to their texts' vectors [N, d], each filled up to the next length."""

    def __init__(self, file: LiteFile, by: Converter | None = None) -> None:
        self._file, self._by = file, by

    def __call__(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return np.concatenate([whole for _, whole in self.vectors(rows)])

    def vectors(self, rows: Sequence[Sequence[int]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """(tokens [T, d], whole [1, d]) of each row."""
        said = answers(self._file, [self._filled(row) for row in rows], self._by)
        return [(one["tokens"][0, : len(row)], one["whole"]) for one, row in zip(said, rows, strict=True)]

    def call_us(self, row: Sequence[int]) -> float:
        """Microseconds of a call with this text."""
        return call_us(self._file, self._filled(row), self._by)

    def _filled(self, row: Sequence[int]) -> Arrays:
        ids = np.zeros((1, next(n for n in self._file.lengths if n >= len(row))), dtype=np.int32)
        mask = np.zeros_like(ids)
        ids[0, : len(row)], mask[0, : len(row)] = row, 1
        return {"ids": ids, "mask": mask}


@dataclass(frozen=True)
class LitePart:
    """What a bundle gets beside its graph: the file, what the passport says of it (None: none), and what the verdict says."""

    content: bytes = b""
    told: Lite | None = None
    words: str = ""


def lite_part(
    make: Callable[[], LiteFile], run: Callable[[LiteFile], Run], exact: Run, bound: Bound, trial: Trial
) -> tuple[LitePart, LiteFile | None]:
    """Makes a file and proves it; one that cannot be made or is beyond the bound leaves the bundle without, with the reason.
    run: asks the file as the trial's rows are; exact: the float module likewise."""
    try:
        file = make()
        told = proven(file, run(file), exact, bound, trial)
    except BadBundle as error:
        return LitePart(words=f"No TFLite file: {error.detail}."), None
    words = f"Beside it a TFLite file ({told.recipe}, {told.size / 1024:.0f} KiB, rms {told.parity.rel_rms:.2g})."
    return LitePart(file.content, told, words), file


def lite_of_rows(
    net: nn.Module,
    examples: Mapping[str, Tensor],
    recipe: str,
    exact: Run,
    trial: Trial,
    golden: Golden,
    vectors: Vectors,
) -> LitePart:
    """The file that lies beside the graph of a network on rows, proven like the graph's forms. examples: its inputs by name,
    each [n, ...]; exact: the float network; golden, vectors: the graph's tolerance, and its golden inputs and outputs. recipe
    empty: there is none."""
    if not recipe:
        return LitePart()
    part, file = lite_part(
        lambda: to_tflite(net, examples, [OUTPUT], recipe=recipe), LiteRows, exact, FORECASTER, trial
    )
    if file is None:
        return part
    inputs, outputs = vectors
    return held_to_golden(part, golden, outputs, answers(file, [inputs])[0])


def held_to_golden(part: LitePart, golden: Golden, wanted: Mapping[str, Any], said: Mapping[str, Any]) -> LitePart:
    """The part with a tolerance of its own: the golden vectors are the graph's answers, from which the file's differ by what
    packing did to each of the two. wanted, said: golden outputs, of the graph and of the file. One that would need more than
    MOST_LOOSENED times the graph's tolerance is left out: nonsense must not pass for it."""
    if part.told is None:
        return part
    worst = max(
        float(np.max(np.abs(np.asarray(said[name], dtype=np.float64) - one) - golden.rtol * np.abs(one), initial=0.0))
        for name, one in wanted.items()
    )
    if not worst + golden.atol <= MOST_LOOSENED * golden.atol:
        return LitePart(words=f"No TFLite file: it is off by {worst:.3g} from the graph's golden vectors.")
    own = Golden(atol=golden.atol + worst, rtol=golden.rtol)
    return replace(part, told=msgspec.structs.replace(part.told, golden=own))


def proven(file: LiteFile, run: Run, exact: Run, bound: Bound, trial: Trial) -> Lite:
    """What a passport says of the file. Raises BadBundle (golden_mismatch) for one beyond the bound, on held-out rows or on
    strained ones: it is not packed. Arguments as of `measured`."""
    told, _, broken = measured(file, run, exact, bound, trial)
    if broken:
        raise BadBundle(Reason.GOLDEN_MISMATCH, f"TFLite ({file.recipe}) is not packed: {broken}")
    return told


def measured(file: LiteFile, run: Run, exact: Run, bound: Bound, trial: Trial) -> tuple[Lite, dict[str, float], str]:
    """(what a passport says of the file, kind of strained row -> its element rms, which bounds it breaks; empty: none). run:
    the file as the trial's rows ask it; exact: the float module likewise."""
    cost = trial.measure(run)
    kinds = list(trial.strained)
    said = {kind: run(*trial.strained[kind]) for kind in kinds}
    wanted = {kind: exact(*trial.strained[kind]) for kind in kinds}
    strained = strained_error(wanted, said, exact(*trial.rows))
    told = Lite(recipe=file.recipe, inputs=file.inputs, outputs=file.outputs, size=len(file.content), parity=cost)
    return told, strained, bound.broken(cost, strained)


def _save_program(module: nn.Module, given: Mapping[str, Tensor], lengths: Sequence[int], path: Path) -> None:
    """A program of one shape, or with a free second axis where several lengths are wanted of the same weights."""
    free: tuple[dict[int, Any], ...] | None = None
    arguments = tuple(given.values())
    if lengths:
        tokens = torch.export.Dim("tokens", min=2, max=max(*lengths, 3))
        free = tuple({1: tokens} for _ in arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own internals
        try:
            torch.export.save(torch.export.export(module.eval(), arguments, dynamic_shapes=free), path)
        except (RuntimeError, ValueError, TypeError) as error:
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME, f"torch cannot export the module with fixed shapes: {error}"
            ) from error


def _narrow(one: Tensor) -> Tensor:
    return one.to(torch.int32) if one.dtype == torch.int64 else one


def _narrowed(one: NDArray[Any]) -> NDArray[Any]:
    return one.astype(np.int32) if one.dtype == np.int64 else one
