"""`millwright train`: learns from a file of the user's own. Exit status: 0 a model may serve, 1 trained and none is eligible
(the folder says why), 2 wrong input."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from protocol.errors import BadSettings
from protocol.recordings import Layout, parse_step
from server.training import LstmPlan, Progress
from server.workbench import MODELS, Trained, train_forecast_file, train_recommend_file
from server.workbench.list_worth import list_summary
from server.workbench.notes import notes_summary, train_notes_file
from server.workbench.starting import starter_summary, train_starter
from server.workbench.training import AUTO, FORMS_OF_ALL, quiet
from server.workbench.worth import summary

Kinds = Any
"""Sub-commands, as argparse makes them."""


def main(argv: list[str]) -> int:
    """`millwright train forecast …`, `millwright train recommend …`, `millwright train notes …`."""
    arguments = parser().parse_args(argv)
    told: int = arguments.run(arguments)
    return told


def _train_forecast(arguments: argparse.Namespace) -> int:
    layout = Layout(
        time=arguments.time,
        targets=_names(arguments.target),
        series=_names(arguments.series),
        known=_names(arguments.known),
        step_ms=parse_step(arguments.step) if arguments.step else None,
        time_zone=arguments.time_zone,
        time_format=arguments.time_format,
        counts=arguments.counts,
    )
    _check_picture(arguments.plot)
    with _progress(quietly=arguments.json) as progress:
        trained = train_forecast_file(
            arguments.data,
            layout,
            arguments.out,
            horizon=arguments.horizon,
            season=arguments.season,
            models=_names(arguments.models),
            epochs=arguments.epochs,
            seed=arguments.seed,
            quantize=arguments.quantize,
            lstm=LstmPlan(
                hidden=arguments.hidden,
                dropout=arguments.dropout,
                weight_decay=arguments.weight_decay,
                teacher=arguments.teacher,
                prune=tuple(_shares(arguments.prune)),
                prune_of=arguments.prune_of,
            ),
            tflite=arguments.tflite,
            progress=progress,
        )
    if arguments.plot is not None:
        _copy_picture(trained, arguments.plot)
    _tell(trained.report, summary(trained.report), trained.folder, as_json=arguments.json)
    return 0 if trained.eligible else 1


def _train_recommend(arguments: argparse.Namespace) -> int:
    with _progress(quietly=arguments.json or arguments.quiet) as progress:
        trained = train_recommend_file(
            arguments.events,
            arguments.out,
            items=arguments.items,
            user=arguments.user,
            item=arguments.item,
            time=arguments.time,
            value=arguments.value,
            text=tuple(arguments.text),
            half_life_days=arguments.half_life_days,
            candidates=tuple(arguments.candidates),
            seed=arguments.seed,
            progress=progress,
        )
    _tell(trained.report, list_summary(trained.report), trained.folder, as_json=arguments.json)
    return 0 if trained.eligible else 1


def _train_starter(arguments: argparse.Namespace) -> int:
    with _progress(quietly=arguments.json) as progress:
        trained = train_starter(
            arguments.out,
            minutes=arguments.minutes,
            seed=arguments.seed,
            tflite=arguments.tflite,
            teacher=arguments.teacher,
            prune=arguments.prune,
            progress=progress,
        )
    _tell(trained.report, starter_summary(trained.report), trained.folder, as_json=arguments.json)
    return 0 if trained.eligible else 1


def _train_notes(arguments: argparse.Namespace) -> int:
    with _progress(quietly=arguments.json or arguments.quiet) as progress:
        trained = train_notes_file(
            arguments.notes,
            arguments.out,
            text=arguments.text,
            label=arguments.label,
            precision=arguments.precision,
            seed=arguments.seed,
            progress=progress,
        )
    _tell(trained.report, notes_summary(trained.report), trained.folder, as_json=arguments.json)
    return 0 if trained.eligible else 1


def _tell(report: msgspec.Struct, words: str, folder: Path, *, as_json: bool) -> None:
    if as_json:
        told = msgspec.to_builtins(report, str_keys=True) | {"folder": str(folder)}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    else:
        sys.stdout.write(words + f"\nWritten to {folder}\n")


def parser() -> argparse.ArgumentParser:
    """The arguments of `millwright train`."""
    made = argparse.ArgumentParser(prog="millwright train", description="Learn from a file of your own.")
    kinds = made.add_subparsers(dest="kind", required=True, metavar="WHAT")
    _starter_arguments(kinds)
    _forecast_arguments(kinds)
    _recommend_arguments(kinds)
    _notes_arguments(kinds)
    return made


def _notes_arguments(kinds: Kinds) -> None:
    notes = kinds.add_parser(
        "notes",
        help="a reader of notes: what failed, with a chance or 'I am not sure', against a linear reference",
        description="Learns a reader from a table of labelled notes (CSV or Parquet, columns text and label; event, urgency, "
        "case and fixed_by where they are there). Writes a folder with a sealed bundle, report.json and report.md.",
    )
    notes.set_defaults(run=_train_notes)
    add = notes.add_argument
    add("--notes", type=Path, required=True, metavar="FILE", help="CSV with a header, or Parquet: one row a note")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier training's is replaced")
    add("--text", default="", metavar="COLUMN", help="what was written; default: text, note, description")
    add("--label", default="", metavar="COLUMN", help="what failed; default: label, failure, failure_mode")
    add("--precision", type=float, default=0.9, metavar="SHARE", help="share of right answers among the sure ones; 0.9")
    add("--seed", type=int, default=7, metavar="N", help="default: 7")
    add("--json", action="store_true", help="print the report as one JSON object, and no progress")
    add("--quiet", action="store_true", help="no progress")


def _recommend_arguments(kinds: Kinds) -> None:
    recommend = kinds.add_parser(
        "recommend",
        help="a recommender of any items: who chose what, and what items are, against popularity",
        description="Learns a hybrid recommender (popularity, item-based, user-based, content-based) from a table of events "
        "(CSV or Parquet): one row a choice. Writes a folder with a sealed bundle, report.json, report.md and a picture. "
        "Columns that are not named are found by their usual names (user, item, time, quantity, …).",
    )
    recommend.set_defaults(run=_train_recommend)
    add = recommend.add_argument
    add("--events", type=Path, required=True, metavar="FILE", help="CSV with a header, or Parquet: one row a choice")
    add("--items", type=Path, metavar="FILE", help="what items are: an id, words and attributes, one row an item")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier training's is replaced")
    add("--user", default="", metavar="COLUMN", help="who chose: a customer, a machine, a case")
    add("--item", default="", metavar="COLUMN", help="what was chosen")
    add("--time", default="", metavar="COLUMN", help="when: ISO 8601, or seconds or milliseconds since 1970")
    add("--value", default="", metavar="COLUMN", help="how many, or how surely; negative ones are returns and left out")
    add(
        "--text", nargs="+", default=[], metavar="COLUMN", help="columns of words in --items; the others are attributes"
    )
    add("--half-life-days", type=float, metavar="N", help="age at which a choice counts half; default: all count alike")
    add("--candidates", nargs="+", default=[], metavar="PREFIX", help="recommend only items whose ids start so")
    add("--seed", type=int, default=7, metavar="N", help="default: 7")
    add("--json", action="store_true", help="print the report as one JSON object, and no progress")
    add("--quiet", action="store_true", help="no progress")


def _forecast_arguments(kinds: Kinds) -> None:
    forecast = kinds.add_parser(
        "forecast",
        help="forecasters of signals: ARIMA and an LSTM, against the simple reference",
        description="Trains forecasters on a long table (CSV or Parquet): one row a time and series. Writes a folder with "
        "one sealed bundle a forecaster, report.json, report.md and a picture of held-out forecasts.",
    )
    forecast.set_defaults(run=_train_forecast)
    add = forecast.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="CSV with a header, or Parquet")
    add("--time", required=True, metavar="COL", help="column of times: ISO 8601, epoch numbers, or see --time-format")
    add("--series", default="", metavar="COL[,COL]", help="columns that together name a machine; none: one machine")
    add("--target", required=True, metavar="COL[,COL]", help="columns to forecast")
    add("--horizon", type=int, required=True, metavar="N", help="steps to forecast")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier training's is replaced")
    add("--season", type=int, metavar="N", help="steps of a season; 0: none; default: a day, week or year by the step")
    add("--step", default="", metavar="STEP", help="width of a bucket, such as 15min, 1h, 1d; default: the median step")
    add("--known", default="", metavar="COL[,COL]", help="columns known ahead, filled beyond the last target")
    add(
        "--time-zone",
        default="",
        metavar="ZONE",
        help="zone of stamps that name none, such as Europe/Berlin; default: UTC",
    )
    add(
        "--time-format",
        default="",
        metavar="FORMAT",
        help="strptime format of other stamps, such as %%d.%%m.%%Y %%H:%%M",
    )
    add("--counts", action="store_true", help="the targets count things: a negative value is taken as missing")
    add("--models", default=",".join(MODELS), metavar="NAME[,NAME]", help=f"of {', '.join(MODELS)}; default: all")
    add("--epochs", type=int, default=12, metavar="N", help="at most this many epochs of the LSTM; default: 12")
    add("--seed", type=int, default=7, metavar="N", help="default: 7")
    forms = ", ".join(FORMS_OF_ALL)
    add(
        "--quantize",
        default=AUTO,
        metavar="FORM",
        help=f"of the LSTM's weights: {forms}; auto: the smallest still right",
    )
    _network_arguments(add)
    add("--tflite", action="store_true", help="also write the LSTM as a TFLite file (docs/models.md)")
    add("--json", action="store_true", help="print the report as one JSON object, and no progress")
    add("--plot", type=Path, metavar="FILE", help="also write the picture of held-out forecasts here (png)")


def _network_arguments(add: Any) -> None:
    usual = LstmPlan()
    add("--hidden", type=int, default=usual.hidden, metavar="N", help=f"units of the LSTM's layers; {usual.hidden}")
    add("--dropout", type=float, default=usual.dropout, metavar="SHARE", help=f"of the LSTM; {usual.dropout:g}")
    add("--weight-decay", type=float, default=usual.weight_decay, metavar="X", help=f"{usual.weight_decay:g}")
    add(
        "--teacher",
        type=int,
        default=0,
        metavar="N",
        help="first train an LSTM of N units, which teaches the small one",
    )
    add(
        "--prune",
        default="",
        metavar="SHARE[,SHARE]",
        help="of the LSTM's units to take out; of several the largest is kept that costs at most 1 %% of the error. "
        "Writes sizes.json and sizes.png: error against size",
    )
    add("--prune-of", choices=("units", "weights"), default="units", help="weights: set single ones to zero instead")


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in _names(text)]
    except ValueError as error:
        raise BadSettings(f"--prune {text}: give shares such as 0.25,0.5,0.75") from error


def _starter_arguments(kinds: Kinds) -> None:
    starter = kinds.add_parser(
        "starter",
        help="models to start with, from our own simulated notes and clauses: needs no file",
        description="Trains a reader of notes with a text encoder, and a writer of reports, English and Chinese, from notes "
        "that our own grammar makes and reports that our own catalogue makes. Writes a folder with the two sealed bundles, "
        "report.json and report.md.",
    )
    starter.set_defaults(run=_train_starter)
    add = starter.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; an earlier training's is replaced")
    add("--minutes", type=float, metavar="N", help="at most so many for the encoder; default: as long as it takes")
    add("--seed", type=int, default=7, metavar="N", help="default: 7")
    add("--tflite", action="store_true", help="also write the reader's encoder as a TFLite file (docs/models.md)")
    add(
        "--teacher",
        type=int,
        default=0,
        metavar="N",
        help="first train networks of width N, which teach the small ones",
    )
    add("--prune", type=float, default=0.0, metavar="SHARE", help="of heads and inner units to take out in the end")
    add("--json", action="store_true", help="print the report as one JSON object, and no progress")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_picture(path: Path | None) -> None:
    if path is not None and (path.suffix.lower() != ".png" or not path.parent.is_dir()):
        raise BadSettings(f"--plot {path}: name a .png in a folder that exists")


def _copy_picture(trained: Trained, path: Path) -> None:
    if not trained.report.picture:
        sys.stderr.write(f"no picture was drawn, so {path} was not written: {trained.report.why or 'no matplotlib'}\n")
        return
    shutil.copyfile(trained.folder / trained.report.picture, path)


@contextlib.contextmanager
def _progress(*, quietly: bool) -> Iterator[Progress]:
    """A bar on a terminal, a line each tenth elsewhere, nothing beside JSON."""
    if quietly:
        yield quiet
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=100, bar_format="{l_bar}{bar}| {elapsed}", file=sys.stderr) as bar:

            def move(share: float, step: str) -> None:
                bar.set_description_str(step[:48], refresh=False)
                bar.n = round(100 * share)
                bar.refresh()

            yield move
    else:
        yield _lines()


def _lines() -> Progress:
    told = [-1]

    def line(share: float, step: str) -> None:
        if int(10 * share) > told[0]:
            told[0] = int(10 * share)
            sys.stderr.write(f"{share:4.0%} {step}\n")

    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
