"""`millwright notes read`: what notes say, with a reader's bundle and the gateway's own code, and no server.

What is given is a file of notes, one a line (a `.txt`), or the note itself. Each answer says what it is, with a chance or
"I am not sure", the words that decided, and what was alike. A note that cannot be read is named with its reason and the rest
is read all the same.

Exit status: 0 everything was read, 1 some notes could not be, 2 wrong input."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.once.bundles import bundle_at
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.read_notes import read
from protocol.errors import BadSettings, Refused
from protocol.names import stable_id
from protocol.reading.notes import Judged, Note, NoteReading
from protocol.reading.words import MOST_CHARACTERS

MOST_BYTES = 16 * 1024 * 1024
SHOWN = 3
ABOUT_ZH = {"failure": "故障模式", "event": "事件类型", "urgency": "紧急程度"}
ABOUT_EN = {"failure": "failure mode", "event": "event type", "urgency": "urgency"}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One note's reading, or why there is none."""

    text: str
    reading: NoteReading | None = None
    refused: str = ""


def main(argv: list[str]) -> int:
    """`millwright notes read …`."""
    arguments = _parser().parse_args(argv)
    model = load_reader(arguments.bundle)
    now_ms = int(time.time() * 1000)
    answers = [answer(text, model, now_ms) for text in texts(arguments.note)]
    if arguments.json:
        sys.stdout.write(_as_json(answers, model))
    else:
        sys.stdout.write("\n".join(_as_text(one, zh=arguments.lang == "zh") for one in answers))
    return 1 if any(one.reading is None for one in answers) else 0


def texts(given: str) -> list[str]:
    """The notes of a file, or the one that was given."""
    path = Path(given)
    if len(given) < 1000 and "\n" not in given and "\0" not in given and path.is_file():
        try:
            if path.stat().st_size > MOST_BYTES:
                raise BadSettings(f"{path} is larger than {MOST_BYTES} bytes: split it")
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise BadSettings(f"cannot read {path}: {error.strerror}") from error
        found = [line for line in lines if line.strip()]
        if not found:
            raise BadSettings(f"{path} holds no note: one a line is read")
        return found
    return [given]


def answer(text: str, model: LoadedModel, now_ms: int) -> Answer:
    """A text read, or why it cannot be."""
    if not text.strip():
        return Answer(text=text, refused="an empty note says nothing: write what was seen")
    note = Note(id=stable_id("note", text[:MOST_CHARACTERS]), machine="unknown", time_ms=now_ms, text=text)
    try:
        return Answer(text=text, reading=read(note, model, now_ms))
    except Refused as why:
        return Answer(text=text[:200], refused=why.detail)


def load_reader(place: Path) -> LoadedModel:
    """The bundle of a folder, or one file's, proven on this machine. Raises BadSettings if there is none, BadBundle if it is
    altered or wrong here."""
    file, model = bundle_at(place, "notes")
    if model.reader is None:
        raise BadSettings(f"{file} reads no notes: it is {model.passport.algorithm}")
    return model


def _as_json(answers: list[Answer], model: LoadedModel) -> str:
    told: dict[str, Any] = {
        "model": msgspec.to_builtins(model.ref) | {"eligible": model.passport.eligible},
        "notes": [msgspec.to_builtins(one) for one in answers],
    }
    return msgspec.json.encode(told).decode() + "\n"


def _as_text(one: Answer, *, zh: bool) -> str:
    shown = one.text if len(one.text) <= 120 else one.text[:117] + "..."
    lines = [f"“{_plain(shown)}”"]
    if one.reading is None:
        lines.append(f"  未读取：{one.refused}" if zh else f"  not read: {one.refused}")
        return "\n".join([*lines, ""])
    for judged in one.reading.judged:
        lines += _judged(judged, one.text, zh=zh)
    if one.reading.normalised and one.reading.normalised != one.text:
        lines.append(f"  {'规范写法' if zh else 'written out'}: {_plain(one.reading.normalised)}")
    for entity in one.reading.entities:
        lines.append(f"  {entity.kind}: {_plain(one.text[entity.start : entity.end])}")
    for like in one.reading.like[:SHOWN]:
        fixed = f"  -> {', '.join(like.fixed_by)}" if like.fixed_by else ""
        about = f" [{like.failure}]" if like.failure else ""
        lines.append(
            f"  {'相似' if zh else 'alike'} {like.similarity:.2f}  {like.case}: {_plain(like.text[:80])}{about}{fixed}"
        )
    return "\n".join([*lines, ""])


def _judged(judged: Judged, text: str, *, zh: bool) -> Iterator[str]:
    called = (ABOUT_ZH if zh else ABOUT_EN)[judged.about.value]
    best = ", ".join(f"{one.name} {one.probability:.0%}" for one in judged.classes[: 1 if judged.sure else SHOWN])
    unsure = "不确定：" if zh else "I am not sure: "
    yield f"  {called}: {best}" if judged.sure else f"  {called}: {unsure}{best}"
    words = [f"{_named(one.because, text)} {one.amount:+.2f}" for one in judged.words[:SHOWN]]
    if words:
        yield f"    {'依据' if zh else 'because of'} {', '.join(words)}"


def _named(because: str, text: str) -> str:
    """The stretch of the text that a contribution names, or the part that it is."""
    start, _, end = because.partition(":")
    return _plain(text[int(start) : int(end)]) if start.isdigit() and end.isdigit() else because


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "·" for c in text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright notes", description="Reads notes with a bundle of `millwright train notes`, and says why."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    one = verbs.add_parser(
        "read", help="what notes say: failure mode, event, urgency, what was alike and what fixed it"
    )
    add = one.add_argument
    add("note", metavar="FILE|TEXT", help="a file of notes, one a line, or the note itself")
    add("--bundle", type=Path, required=True, metavar="DIR|FILE", help="the folder that `millwright train notes` wrote")
    add("--lang", choices=("en", "zh"), default="en", help="language of the answer; default: en")
    add("--json", action="store_true", help="print one JSON object")
    return parser
