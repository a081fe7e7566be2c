"""`millwright export`: a model that someone brings becomes a folder: the smallest graph that is still right, and the table of
the forms that were tried. Exit status: 0 written, 1 measured and refused (the folder says why), 2 wrong input."""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.bundles import GRAPH, Form
from protocol.errors import BadSettings
from server.workbench.training import MARK, check_place, written_whole

if TYPE_CHECKING:
    from server.training.brought import Brought

ONNX = "onnx"
MOST_TEXT_BYTES, MOST_ROW_BYTES = 16 * 1024 * 1024, 256 * 1024 * 1024


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried and what was taken. file: of the graph; empty: it was refused. bound: what a form was held to;
    judged_on: the rows that it was judged on, in words. beside: files that belong to the graph."""

    source: str
    kind: str
    family: str
    quantize: str
    chosen: str
    eligible: bool
    verdict: str
    file: str
    sha256: str
    bytes: int
    float_bytes: int
    latency_us: float
    bound: str
    judged_on: str
    forms: list[Form]
    beside: list[str]


def main(argv: list[str]) -> int:
    """Reads the arguments, exports, prints."""
    arguments = parser().parse_args(argv)
    report = export_model(
        arguments.model,
        arguments.out,
        targets=tuple(name.strip() for name in arguments.target.split(",") if name.strip()),
        quantize=arguments.quantize,
        texts=arguments.texts,
        rows=arguments.rows,
    )
    if arguments.json:
        sys.stdout.write(
            msgspec.json.encode(msgspec.to_builtins(report) | {"folder": str(arguments.out)}).decode() + "\n"
        )
    else:
        sys.stdout.write(summary(report) + f"\nWritten to {arguments.out}\n")
    return 0 if report.eligible else 1


def parser() -> argparse.ArgumentParser:
    """The arguments of `millwright export`."""
    made = argparse.ArgumentParser(
        prog="millwright export",
        description="Makes a model that you bring as small as it may be. Tries the forms of its weights, measures loss, size "
        "and latency of each, and takes the smallest within its bound. Writes model.onnx, report.json and report.md.",
    )
    add = made.add_argument
    add(
        "--model",
        type=Path,
        required=True,
        metavar="PATH",
        help="a Hugging Face folder (GPT-2, Llama, BERT families; safetensors), or a float .onnx file",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier export's is replaced")
    add("--target", default=ONNX, metavar="NAME[,NAME]", help="default: onnx")
    add(
        "--quantize",
        default="auto",
        metavar="FORM",
        help="auto (default), float32, float16, int8, int8_static, int8_blocks, int4_blocks (or int4)",
    )
    add("--texts", type=Path, metavar="FILE", help="held-out texts to judge a language model by, one a line")
    add("--rows", type=Path, metavar="FILE", help=".npz of held-out rows to judge an .onnx file by, an array an input")
    add("--json", action="store_true", help="print the report as one JSON object")
    return made


def export_model(
    model: Path,
    out: Path,
    *,
    targets: tuple[str, ...] = (ONNX,),
    quantize: str = "auto",
    texts: Path | None = None,
    rows: Path | None = None,
) -> ExportReport:
    """Writes the folder `out`, which must not exist, or be an earlier one. A model whose asked form breaks its bound leaves a
    report and no graph. Raises BadSettings and BadBundle, which say what to do."""
    if targets != (ONNX,):
        raise BadSettings(f"--target {','.join(targets) or 'nothing'}: onnx is the target that this version writes")
    check_place(out)
    told = _texts(texts) if texts is not None else []
    given = _rows(rows) if rows is not None else None
    from server.training.brought import smallest  # torch, only here

    made = smallest(model, quantize, texts=told, rows=given)
    report = _report(model, quantize, made)
    with written_whole(out) as folder:
        if report.eligible:
            (folder / GRAPH).write_bytes(made.choice.graph)
            for name, body in made.texts.items():
                (folder / name).write_bytes(body)
        (folder / "report.md").write_text(summary(report), encoding="utf-8")
        (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def _report(model: Path, quantize: str, made: Brought) -> ExportReport:
    choice = made.choice
    eligible = not choice.refused
    return ExportReport(
        source=model.resolve().name,
        kind=made.kind,
        family=made.family,
        quantize=quantize,
        chosen=choice.name,
        eligible=eligible,
        verdict=choice.words if eligible else f"Refused: {choice.refused}. Ask for another form, or auto.",
        file=GRAPH if eligible else "",
        sha256=hashlib.sha256(choice.graph).hexdigest(),
        bytes=len(choice.graph),
        float_bytes=choice.float_bytes,
        latency_us=round(choice.latency_us, 1),
        bound=made.bound.words,
        judged_on=made.judged_on,
        forms=choice.forms,
        beside=sorted(made.texts) if eligible else [],
    )


def summary(report: ExportReport) -> str:
    """The report in words, as Markdown."""
    lines = [
        f"# {report.source}",
        "",
        report.verdict,
        "",
        f"{report.kind.capitalize()} ({report.family}), judged on {report.judged_on}. Bound: {report.bound}.",
        "",
        "| form | KiB | of float | µs a call | task change | element rms | worst out of range | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(form, report) for form in report.forms), ""])


def _line(form: Form, report: ExportReport) -> str:
    if form.parity is None:
        return f"| {form.name} | | | | | | | {form.why} |"
    strained = max(form.strained.values(), default=0.0)
    why = form.why or "**taken**"
    return (
        f"| {form.name} | {form.size / 1024:.1f} | {form.size / report.float_bytes:.2f} | {form.latency_us:.0f} "
        f"| {form.parity.task_change:+.3%} | {form.parity.rel_rms:.2g} | {strained:.2g} | {why} |"
    )


def _texts(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise BadSettings(f"{path} is over {MOST_TEXT_BYTES} bytes: a few hundred lines are enough")
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} is no UTF-8 text: {error.reason}") from error


def _rows(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        if path.stat().st_size > MOST_ROW_BYTES:
            raise BadSettings(f"{path} is over {MOST_ROW_BYTES} bytes: a few hundred rows are enough")
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise BadSettings(f"{path} is no .npz file of arrays: {error}") from error
