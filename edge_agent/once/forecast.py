"""`millwright forecast`: one forecast of a file with trained bundles, with the gateway's own code and no server.

Never NaN. Where the file or the models do not allow the usual answer, a simpler one with a wider interval is given and its
`fallback` names why:

- `no_eligible_model`: no bundle beats the simple reference, which answers;
- `unknown_series`: in no bundle's training; the fleet's network answers if it may, else the simple reference; x 1.25;
- `short_history`: fewer values than the models look at, or fewer than two seasons for the simple reference; x 1.5;
- `one_point`: a single value; it is repeated, as wide as the file's other series move in a step, else half its size;
- `constant_history`: it never changed; it is repeated, with a token interval of a thousandth;
- `stale_inputs`: the newest value is STALE_AFTER_BUCKETS or more before the file's end; widened as for steps farther ahead;
- `beyond_horizon`: from the step where the chosen model's answer ends, the filter or the simple reference goes on; x 1.5.

A series without any value has no forecast and is named. Exit status: 0 every series answered, 1 some not, 2 wrong input."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.explain import explain_shown
from edge_agent.explain.picture import draw
from edge_agent.runtimes import LoadedModel, load
from edge_agent.skills import Key
from edge_agent.skills.forecast import NAIVE, STALE_AFTER_BUCKETS, ForecastSkill
from protocol import columns
from protocol.bundles import MAX_BUNDLE_BYTES, digest
from protocol.covariates import reader
from protocol.errors import BadBundle, BadSettings, Reason
from protocol.recordings import Finding, Layout, Recordings, known_inputs, lay_out, step_words
from protocol.reports import Forecast, ForecastExplanation
from protocol.twin import Role
from protocol.unreadable import UNREADABLE
from protocol.windows import Floats

RECORDINGS = "recordings"
"""Where in a passport's lineage the layout of the file it was trained on is kept."""
MOST_HORIZON = 1000
_WIDER = {"unknown_series": 1.25, "short_history": 1.5, "no_eligible_model": 1.0}


@dataclass(frozen=True)
class Answer:
    """One series' forecast. `series`: values of the series columns joined; times_ms: what the steps' stamps would be."""

    forecast: Forecast
    times_ms: list[int]
    fallback: tuple[str, ...] = ()
    why: ForecastExplanation | None = None


@dataclass(frozen=True)
class Answers:
    """Everything that one run says. `silent`: series without a forecast, and why."""

    recordings: Recordings
    answers: list[Answer]
    silent: dict[str, str]
    models: list[LoadedModel]
    findings: list[Finding] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """`millwright forecast …`."""
    arguments = _parser().parse_args(argv)
    _check_places(arguments.plot, arguments.out)
    models = load_bundles(arguments.bundle)
    layout = layout_of(models, arguments)
    answered = forecast_file(arguments.data, layout, models, horizon=arguments.horizon, explain=arguments.explain)
    if arguments.out is not None:
        arguments.out.write_text(_as_csv(answered), encoding="utf-8")
    if arguments.plot is not None:
        arguments.plot.write_text(picture(answered), encoding="utf-8")
    sys.stdout.write(_as_json(answered) if arguments.json else _as_text(answered))
    return 1 if answered.silent or not answered.answers else 0


def forecast_file(
    path: Path, layout: Layout, models: list[LoadedModel], *, horizon: int | None = None, explain: bool = False
) -> Answers:
    """Forecasts every series of a CSV or Parquet file. horizon None: what the models were trained for. Raises Refused for a
    file that cannot be read as `layout` says, BadSettings for a missing file or an impossible horizon."""
    window = next(m.passport.window for m in models if m.passport.window is not None)
    steps = window.horizon if horizon is None else horizon
    if not 1 <= steps <= MOST_HORIZON:
        raise BadSettings(f"horizon {steps}: 1 to {MOST_HORIZON} steps can be answered")
    try:
        with path.open("rb") as stream:
            recordings = lay_out(columns.read(stream, layout.wanted), layout)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    return _Run(recordings, models, window.season, min(steps, window.horizon), steps).answers(explain=explain)


def load_bundles(place: Path) -> list[LoadedModel]:
    """Every bundle of a folder, or one file's, proven on this machine. Raises BadSettings if there is none or they belong to
    different grids, BadBundle if one is altered or wrong here."""
    files = sorted(place.glob("*.bundle")) if place.is_dir() else [place]
    if not files:
        raise BadSettings(f"no *.bundle in {place}: give the folder that `millwright train forecast` wrote")
    models = []
    for file in files:
        try:
            if file.stat().st_size > MAX_BUNDLE_BYTES:
                raise BadSettings(f"{file} is larger than {MAX_BUNDLE_BYTES} bytes")
            archive = file.read_bytes()
        except OSError as error:
            raise BadSettings(f"cannot read {file}: {error.strerror}") from error
        models.append(load(archive, digest(archive)))
    models = [m for m in models if m.passport.family == "forecast" and m.passport.window is not None]
    if not models:
        raise BadSettings(f"no forecaster among the bundles of {place}")
    if len({m.passport.window.step_ms for m in models if m.passport.window}) > 1:
        raise BadSettings(f"the bundles of {place} have different steps: give one file")
    return models


def layout_of(models: list[LoadedModel], arguments: argparse.Namespace) -> Layout:
    """The columns: as the bundle was trained on, and what the command line says otherwise."""
    window = next(m.passport.window for m in models if m.passport.window is not None)
    kept = next((p for m in models if (p := m.passport.lineage.parameters.get(RECORDINGS))), None)
    told: dict[str, Any] = {
        name: value
        for name, value in (
            ("time", arguments.time),
            ("series", _names(arguments.series)),
            ("targets", _names(arguments.target)),
            ("time_zone", arguments.time_zone),
            ("time_format", arguments.time_format),
        )
        if value
    }
    if kept is None and not ("time" in told and "targets" in told):
        raise BadSettings("these bundles were not trained on a file: say --time, --target and --series")
    try:
        layout = msgspec.json.decode(kept, type=Layout) if kept else Layout(**told)
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the bundle's columns cannot be read: {error}") from error
    known = () if arguments.ignore_known else layout.known
    return msgspec.structs.replace(layout, **told, step_ms=window.step_ms, known=known)


class _Run:
    """One file, once. `near`: steps that every model answers; `steps`: steps asked for."""

    def __init__(self, recordings: Recordings, models: list[LoadedModel], season: int, near: int, steps: int) -> None:
        self._recordings = recordings
        self._models = models
        self._season = season
        self._near, self._steps = near, steps
        self._row = {key: i for i, key in enumerate(recordings.series)}
        self._by_slot = {m.passport.slot: m for m in models}
        self._known = reader(known_inputs(recordings))
        for model in models:
            _rewind(model, recordings)

    def answers(self, *, explain: bool) -> Answers:
        """A forecast for every series that has a value."""
        histories = {key: self._recordings.values[i] for key, i in self._row.items()}
        near = self._issue(histories, self._near)
        far = near if self._steps == self._near else self._issue(histories, self._steps)
        made = [self._answer(key, histories[key], near[key], far[key], explain=explain) for key in histories]
        typical = self._typical_move(histories)
        silent: dict[str, str] = {}
        for key, why in self._recordings.left_out.items():
            if why.startswith("one point"):
                made.append(self._one_point(key, float(why.split("(")[1].rstrip(")")), typical))
            else:
                silent["/".join(key)] = f"{why}: nothing can be said"
        return Answers(self._recordings, made, silent, self._models, self._recordings.findings)

    def _issue(self, histories: dict[Key, Floats], horizon: int) -> dict[Key, Forecast]:
        skill = ForecastSkill(step_ms=self._recordings.step_ms, horizon=horizon, season=self._season, known=self._known)
        for model in self._models:
            role = Role.SERVING if model.passport.eligible else Role.SHADOW
            skill.install(model.passport.slot, role, model, self._read, self._recordings.until_ms)
            # what was caught up with once must not be caught up with again by the second skill
            if model.state_space is not None:
                until = [self._recordings.until_ms] * len(model.passport.series)
                model.passport = msgspec.structs.replace(model.passport, series_until_ms=until)
        return {(f.machine, f.signal): f for f in skill.issue(self._recordings.until_ms, histories)}

    def _read(self, key: Key, start_ms: int, buckets: int) -> Floats:
        """Bucket means of a series from start_ms on, NaN where the file has none."""
        out = np.full(buckets, np.nan)
        row = self._row.get(key)
        if row is not None:
            values, skip = (
                self._recordings.values[row],
                (start_ms - self._recordings.start_ms) // self._recordings.step_ms,
            )
            first, behind = max(skip, 0), min(skip + buckets, len(values))
            if behind > first:
                out[first - skip : behind - skip] = values[first:behind]
        return out

    def _answer(self, key: Key, history: Floats, near: Forecast, far: Forecast, *, explain: bool) -> Answer:
        seen = np.flatnonzero(np.isfinite(history))
        mean, low, high = (np.array(part) for part in (near.mean, near.low, near.high))
        fallback: list[str] = []
        if self._steps > self._near:
            mean, low, high, bridged = _bridge(near, far)
            fallback += ["beyond_horizon"] if bridged else []
        if np.ptp(history[seen]) == 0:
            return self._constant(near, float(history[seen[0]]))
        known = any(key in m.passport.series for m in self._models)
        if not any(m.passport.eligible for m in self._models):
            fallback.append("no_eligible_model")
        if not known:
            fallback.append("unknown_series")
        if len(seen) < self._enough(near):
            fallback.append("short_history")
        told = near.fallback  # what the gateway's own code has widened already
        factor = math.prod(_WIDER.get(name, 1.0) for name in fallback if name != told)
        behind = len(history) - 1 - int(seen[-1])
        ahead = np.arange(1, len(mean) + 1)
        wider = np.full(len(mean), factor)
        if behind >= STALE_AFTER_BUCKETS:
            fallback.append("stale_inputs")
            if told != "stale_inputs":
                wider = wider * np.sqrt((ahead + behind) / ahead)
        if told and told not in fallback:
            fallback.append(told)
        least = 1e-3 * float(np.ptp(history[seen]))  # an interval without width is never meant
        low = mean - np.maximum((mean - low) * wider, least)
        high = mean + np.maximum((high - mean) * wider, least)
        forecast = msgspec.structs.replace(near, mean=mean.tolist(), low=low.tolist(), high=high.tolist())
        why = self._why(near, history) if explain else None
        return Answer(forecast, self._times(len(mean)), tuple(fallback), why)

    def _enough(self, forecast: Forecast) -> int:
        """Values that the answering model wants to have seen."""
        model = self._by_slot.get(forecast.model.slot)
        if model is not None and model.passport.window is not None:
            return round(model.passport.window.length * (1 - model.passport.window.max_missing))
        return max(2 * self._season, 8)

    def _constant(self, forecast: Forecast, value: float) -> Answer:
        half = max(1e-3 * abs(value), 1e-9)
        return self._repeated(forecast, value, np.full(self._steps, half), "constant_history")

    def _one_point(self, key: Key, value: float, typical: float | None) -> Answer:
        half = max((typical if typical is not None else 0.5) * abs(value), 1e-9) if value else 1.0
        end = self._recordings.until_ms
        forecast = Forecast(
            id=f"once-{len(self._row)}",
            machine=key[0],
            signal=key[1],
            issued_ms=end,
            inputs_until_ms=end,
            stale=True,
            start_ms=end,
            step_ms=self._recordings.step_ms,
            mean=[value],
            low=[value],
            high=[value],
            model=NAIVE,
        )
        return self._repeated(forecast, value, half * np.sqrt(np.arange(1, self._steps + 1)), "one_point")

    def _repeated(self, forecast: Forecast, value: float, half: Floats, why: str) -> Answer:
        made = msgspec.structs.replace(
            forecast,
            model=NAIVE,
            mean=[value] * self._steps,
            low=(value - half).tolist(),
            high=(value + half).tolist(),
        )
        return Answer(made, self._times(self._steps), (why,))

    def _typical_move(self, histories: dict[Key, Floats]) -> float | None:
        """Median over series of the mean step, relative to the series' size."""
        moves = []
        for history in histories.values():
            values = history[np.isfinite(history)]
            size = float(np.abs(values).mean())
            if len(values) > 2 and size > 0:
                moves.append(1.6 * float(np.abs(np.diff(values)).mean()) / size)
        return float(np.median(moves)) if moves else None

    def _times(self, steps: int) -> list[int]:
        first = self._recordings.until_ms + self._recordings.stamp_ms
        return [first + i * self._recordings.step_ms for i in range(steps)]

    def _why(self, forecast: Forecast, history: Floats) -> ForecastExplanation | None:
        named = [(m.weight, m.model.slot) for m in forecast.members] or [(1.0, forecast.model.slot)]
        members = [(weight, self._by_slot.get(slot)) for weight, slot in named]
        if any(model is None and slot != NAIVE.slot for (_, slot), (_, model) in zip(named, members, strict=True)):
            return None
        return explain_shown(forecast, members, history, season=self._season, known=self._known)


def _rewind(model: LoadedModel, recordings: Recordings) -> None:
    """A filter that has seen beyond the end of this file starts over from an unknown state, at the file's start."""
    space = model.state_space
    if space is None or max(model.passport.series_until_ms, default=0) <= recordings.until_ms:
        return
    space.a = np.zeros_like(space.a)
    space.p = np.tile(1e4 * np.eye(space.a.shape[1]), (len(space), 1, 1))
    start = [recordings.start_ms] * len(model.passport.series)
    model.passport = msgspec.structs.replace(model.passport, series_until_ms=start)


def _bridge(near: Forecast, far: Forecast) -> tuple[Floats, Floats, Floats, bool]:
    """The chosen model as far as it answers, then the one that goes on; the tail is 1.5 times as wide, and no narrower than
    where it takes over."""
    mean, low, high = (np.array(part) for part in (far.mean, far.low, far.high))
    reach = len(near.mean)
    if far.model == near.model and far.model != NAIVE:
        return mean, low, high, False
    mean[:reach], low[:reach], high[:reach] = near.mean, near.low, near.high
    least = (near.mean[-1] - near.low[-1], near.high[-1] - near.mean[-1])
    low[reach:] = mean[reach:] - np.maximum(1.5 * (mean[reach:] - low[reach:]), least[0])
    high[reach:] = mean[reach:] + np.maximum(1.5 * (high[reach:] - mean[reach:]), least[1])
    return mean, low, high, True


def picture(answered: Answers) -> str:
    """The forecasts as an SVG document; with explanations, their shares beside them."""
    rows = dict(zip(answered.recordings.series, answered.recordings.values, strict=True))
    none = np.full(1, np.nan)
    return draw(
        [(rows.get((a.forecast.machine, a.forecast.signal), none), a.forecast, a.why) for a in answered.answers]
    )


def _as_json(answered: Answers) -> str:
    told = {
        "step": step_words(answered.recordings.step_ms),
        "models": [
            {
                "slot": m.passport.slot,
                "version": m.passport.version,
                "eligible": m.passport.eligible,
                "digest": m.digest,
            }
            for m in answered.models
        ],
        "forecasts": [
            {
                "machine": a.forecast.machine,
                "signal": a.forecast.signal,
                "model": a.forecast.model.algorithm,
                "level": a.forecast.level,
                "stale": a.forecast.stale,
                "inputs_until": _stamp(a.forecast.inputs_until_ms),
                "fallback": list(a.fallback),
                "time": [_stamp(ms) for ms in a.times_ms],
                "mean": a.forecast.mean,
                "low": a.forecast.low,
                "high": a.forecast.high,
                "explanation": None if a.why is None else msgspec.to_builtins(a.why),
            }
            for a in answered.answers
        ],
        "silent": answered.silent,
        "findings": [{"kind": f.kind, "count": f.count, "words": f.words} for f in answered.findings],
    }
    return msgspec.json.encode(told).decode() + "\n"


def _as_csv(answered: Answers) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["machine", "signal", "time", "mean", "low", "high", "model", "fallback"])
    for a in answered.answers:
        f = a.forecast
        for ms, mean, low, high in zip(a.times_ms, f.mean, f.low, f.high, strict=True):
            rows.writerow([f.machine, f.signal, _stamp(ms), mean, low, high, f.model.algorithm, " ".join(a.fallback)])
    return out.getvalue()


def _as_text(answered: Answers) -> str:
    lines = [
        f"{len(answered.answers)} forecasts by steps of {step_words(answered.recordings.step_ms)}, 80 % interval",
        "",
    ]
    for a in answered.answers:
        f = a.forecast
        note = f"  [{', '.join(a.fallback)}]" if a.fallback else ""
        lines.append(f"{f.machine} / {f.signal}  by {f.model.algorithm}{note}")
        shown = range(len(f.mean)) if len(f.mean) <= 6 else [0, 1, 2, len(f.mean) - 1]
        lines += [f"  {_stamp(a.times_ms[i])}  {f.mean[i]:12.6g}  ({f.low[i]:.6g} … {f.high[i]:.6g})" for i in shown]
        if a.why is not None:
            lines += _why_words(a.why)
    lines += [f"{name}: no forecast: {why}" for name, why in answered.silent.items()]
    if answered.findings:
        lines += ["", "In the file:"] + [f"  {f.words}" for f in answered.findings]
    return "\n".join(lines) + "\n"


def _why_words(why: ForecastExplanation) -> list[str]:
    lines = [f"  on average {why.total:.6g} = {why.base:.6g} ({why.baseline_en})"]
    for share in why.shares:
        error = f" ± {share.error:.2g}" if share.error else ""
        amount = share.amount if abs(share.amount) > 1e-6 * abs(why.total) else 0.0
        lines.append(f"    {amount:+.4g}{error}  {share.label_en}")
    for case in why.cases:
        seen = [v for v in case.followed if v is not None]
        then = f"then {np.mean(seen):.6g} on average" if seen else "nothing was recorded after it"
        lines.append(
            f"    like {_stamp(case.start_ms)} … {_stamp(case.end_ms)} (correlation {case.similarity:.2f}), {then}"
        )
    return lines


def _stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_places(plot: Path | None, out: Path | None) -> None:
    if plot is not None and plot.suffix.lower() != ".svg":
        raise BadSettings(f"--plot {plot}: pictures of forecasts are SVG, which every browser shows: name a .svg")
    for path in (plot, out):
        if path is not None and not path.parent.is_dir():
            raise BadSettings(f"there is no folder {path.parent}: make it, or name another place")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright forecast",
        description="Forecasts every series of a CSV or Parquet file with bundles of `millwright train forecast`. The "
        "columns are those of the training; name them only if they differ.",
    )
    add = parser.add_argument
    add("--ignore-known", action="store_true", help="do without the known columns that the models were trained with")
    add("--bundle", type=Path, required=True, metavar="DIR|FILE", help="folder of bundles, or one bundle")
    add("--data", type=Path, required=True, metavar="FILE", help="CSV with a header, or Parquet (needs pyarrow)")
    add("--horizon", type=int, metavar="N", help="steps to forecast; default: what the models were trained for")
    add("--time", default="", metavar="COL", help="column of times")
    add("--series", default="", metavar="COL[,COL]", help="columns that together name a machine")
    add("--target", default="", metavar="COL[,COL]", help="columns to forecast")
    add("--time-zone", default="", metavar="ZONE", help="zone of stamps that name none")
    add("--time-format", default="", metavar="FORMAT", help="strptime format of stamps that are not ISO 8601")
    add("--explain", action="store_true", help="also what each stretch of the input adds, and the nearest past cases")
    add("--plot", type=Path, metavar="FILE.svg", help="write a picture")
    add("--out", type=Path, metavar="FILE.csv", help="write the forecasts as a table")
    add("--json", action="store_true", help="print one JSON object")
    return parser
