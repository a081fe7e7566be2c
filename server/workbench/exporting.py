"""`millwright export`: a model that someone brings becomes a folder: the smallest graph that is still right, a TFLite file
where it is asked for, and the table of the forms that were tried. Exit status: 0 written, 1 measured and refused (the folder
says why and holds no model), 2 wrong input."""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol import arrays
from protocol.bundles import BROKEN_ZIP, GRAPH, LITE, Form, Parity
from protocol.errors import BadBundle, BadSettings
from server.workbench.training import MARK, check_place, written_whole

if TYPE_CHECKING:
    from export.forms import Choice
    from server.training.brought import Brought, BroughtLite

ONNX = "onnx"
MOST_TEXT_BYTES, MOST_ROW_BYTES = 16 * 1024 * 1024, 256 * 1024 * 1024


class LiteReport(msgspec.Struct, frozen=True, kw_only=True):
    """The TFLite file. file: its name; empty: it was refused. recipe: form of its weights; lengths: numbers of tokens that it
    has a signature for; latency_us: of a call by the runtime that gateways have; strained: kind of row -> element rms;
    refused: the bounds that it breaks; made_by: package -> version."""

    file: str
    sha256: str
    recipe: str
    bytes: int
    lengths: list[int]
    latency_us: float
    parity: Parity
    strained: dict[str, float]
    refused: str
    made_by: dict[str, str]


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried and what was taken. eligible: every target that was asked for is written; file: of the graph; empty: it
    was refused, or not asked for (then there are no forms). bound: what a form was held to; judged_on: the rows that it was
    judged on, in words. beside: files that belong to the model; lite: where TFLite was asked for."""

    source: str
    kind: str
    family: str
    targets: list[str]
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
    lite: LiteReport | None = None


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
        "and latency of each, and takes the smallest within its bound. Writes model.onnx, report.json and report.md; of an "
        "encoder also model.tflite where --target asks for it.",
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
    add(
        "--target",
        default=ONNX,
        metavar="NAME[,NAME]",
        help="onnx (default), tflite (8-bit weights), tflite-dyn8 (faster, ai-edge-litert only), or onnx and one of them",
    )
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
    """Writes the folder `out`, which must not exist, or be an earlier one. A model that breaks its bound in a form that was
    asked for leaves a report and nothing else. Raises BadSettings and BadBundle, which say what to do."""
    check_place(out)
    told = _texts(texts) if texts is not None else []
    given = _rows(rows) if rows is not None else None
    from server.training.brought import smallest  # torch, only here

    made = smallest(model, quantize, targets=targets, texts=told, rows=given)
    report = _report(model, targets, quantize, made)
    with written_whole(out) as folder:
        if report.eligible:
            for name, body in _files(made).items():
                (folder / name).write_bytes(body)
        (folder / "report.md").write_text(summary(report), encoding="utf-8")
        (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def _files(made: Brought) -> dict[str, bytes]:
    graph = {} if made.choice is None else {GRAPH: made.choice.graph}
    lite = {} if made.lite is None else {LITE: made.lite.file.content}
    return graph | lite | made.texts


def _report(model: Path, targets: tuple[str, ...], quantize: str, made: Brought) -> ExportReport:
    choice, lite = made.choice, made.lite
    eligible = not ((choice is not None and choice.refused) or (lite is not None and lite.refused))
    return ExportReport(
        source=model.resolve().name,
        kind=made.kind,
        family=made.family,
        targets=list(targets),
        quantize=quantize,
        chosen="" if choice is None else choice.name,
        eligible=eligible,
        verdict=" ".join([*_of_graph(choice), *_of_lite(lite, alone=choice is None)]),
        file=GRAPH if eligible and choice is not None else "",
        sha256="" if choice is None else hashlib.sha256(choice.graph).hexdigest(),
        bytes=0 if choice is None else len(choice.graph),
        float_bytes=0 if choice is None else choice.float_bytes,
        latency_us=0.0 if choice is None else round(choice.latency_us, 1),
        bound=made.bound.words,
        judged_on=made.judged_on,
        forms=[] if choice is None else choice.forms,
        beside=sorted(made.texts) if eligible else [],
        lite=None if lite is None else _lite_report(lite, eligible),
    )


def _of_graph(choice: Choice | None) -> list[str]:
    if choice is None:
        return []
    return [f"Refused: {choice.refused}. Ask for another form, or auto." if choice.refused else choice.words]


def _of_lite(lite: BroughtLite | None, *, alone: bool) -> list[str]:
    if lite is None:
        return []
    if lite.refused:
        return [
            f"TFLite refused ({lite.told.recipe}): {lite.refused}. Ask for {'another target' if alone else 'onnx alone'}."
        ]
    return [
        f"TFLite ({lite.told.recipe}, {lite.told.size / 1024:.0f} KiB): element rms {lite.told.parity.rel_rms:.2g} by the "
        "runtime that gateways have."
    ]


def _lite_report(lite: BroughtLite, eligible: bool) -> LiteReport:
    return LiteReport(
        file=LITE if eligible else "",
        sha256=hashlib.sha256(lite.file.content).hexdigest(),
        recipe=lite.told.recipe,
        bytes=lite.told.size,
        lengths=list(lite.file.lengths),
        latency_us=round(lite.latency_us, 1),
        parity=lite.told.parity,
        strained=lite.strained,
        refused=lite.refused,
        made_by=dict(lite.file.versions),
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
    rows = [_line(form, report) for form in report.forms]
    if (lite := report.lite) is not None:
        name, why = f"TFLite {lite.recipe}", lite.refused or _stands(report)
        rows.append(_row(name, lite.bytes, report.float_bytes, lite.latency_us, lite.parity, lite.strained, why))
    return "\n".join([*lines, *rows, ""])


def _line(form: Form, report: ExportReport) -> str:
    if form.parity is None:
        return f"| {form.name} | | | | | | | {form.why} |"
    why = form.why or _stands(report)
    return _row(form.name, form.size, report.float_bytes, form.latency_us, form.parity, form.strained, why)


def _stands(report: ExportReport) -> str:
    return "**taken**" if report.eligible else "within its bound"


def _row(
    name: str, size: int, whole: int, latency_us: float, parity: Parity, strained: Mapping[str, float], why: str
) -> str:
    share = f"{size / whole:.2f}" if whole else ""
    return (
        f"| {name} | {size / 1024:.1f} | {share} | {latency_us:.0f} | {parity.task_change:+.3%} | {parity.rel_rms:.2g} "
        f"| {max(strained.values(), default=0.0):.2g} | {why} |"
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
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(one.file_size for one in entries) > MOST_ROW_BYTES:
                raise BadSettings(f"{path} unpacks to over {MOST_ROW_BYTES} bytes: a few hundred rows are enough")
            return {one.filename.removesuffix(".npy"): _array(archive, one) for one in entries}
    except BadBundle as error:
        raise BadSettings(f"{path} is no .npz file of arrays of numbers: {error.detail}") from error
    except BROKEN_ZIP as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise BadSettings(f"cannot read {path} as an .npz file of arrays: {why or error}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[np.generic]:
    """One member; what does not begin like an array is not unpacked."""
    with archive.open(entry) as stream:
        head = stream.read(len(arrays.MAGIC))
        return arrays.read(entry.filename, head + stream.read() if head == arrays.MAGIC else head)
