"""What is known about an open order line on the day it is judged: how often its vendor, route, part and their pairs were late
before, near and far in the past, and the line's own numbers.

The learner and the gateway compute the same columns. A line is judged `notice_days` before its scheduled day; only lines that
were due before that day count, and of those lateness is known for certain: what was due and has not arrived is late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.observations import Name
from protocol.windows import Floats

Days = NDArray[np.int64]
UNKNOWN = "?"
PRIOR_LATE = 0.05
PRIOR_LINES = 20.0
GROUP_LINES = 4.0
MOST_LOG_DAYS = 7.0


class LateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`keys`: fields, or several together, whose history of lateness is counted; the history halves its weight in each of
    `half_lives_days`. `numbers`: the line's own numbers, read as log(1 + number). `notice_days`: how long before the
    scheduled day a line is judged. `drift_days`, `firmness`: the past that `drift_offsets` follows, and its prior
    precision."""

    keys: list[list[Name]]
    numbers: list[Name]
    half_lives_days: tuple[int, ...] = (30, 90, 365, 1500)
    notice_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 0
    drift_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 60
    firmness: Annotated[float, msgspec.Meta(gt=0)] = 1.0

    @property
    def features(self) -> list[str]:
        """Names of the columns."""
        named = [" x ".join(key) for key in self.keys]
        return [
            *(f"late share, all, {days} days" for days in self.half_lives_days),
            *(f"late share, {name}, {days} days" for name in named for days in self.half_lives_days),
            *(f"lines known, {name}" for name in named),
            *(f"lines overdue, {name}" for name in named),
            *self.numbers,
        ]


@dataclass(frozen=True)
class OrderLines:
    """N order lines. `fields`: name -> N texts; `numbers`: name -> [N], NaN or negative: not known; days count from
    1970-01-01; `delivered_day` NaN: not arrived."""

    ids: list[str]
    fields: dict[str, list[str]]
    numbers: dict[str, Floats]
    scheduled_day: Days
    delivered_day: Floats

    def __post_init__(self) -> None:
        widths = {len(column) for column in self.fields.values()} | {len(column) for column in self.numbers.values()}
        widths |= {len(self.scheduled_day), len(self.delivered_day), len(self.ids)}
        if len(widths) > 1:
            raise Refused(Reason.WRONG_TYPE, f"order lines with columns of {sorted(widths)} rows")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def late(self) -> NDArray[np.bool_]:
        """Whether a line came after its scheduled day; one that has not come counts as late once it is due."""
        return np.asarray(~(self.delivered_day <= self.scheduled_day))

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> OrderLines:
        """The chosen lines."""
        places = np.arange(len(self))[chosen]
        return OrderLines(
            [self.ids[i] for i in places],
            {name: [column[i] for i in places] for name, column in self.fields.items()},
            {name: column[places] for name, column in self.numbers.items()},
            self.scheduled_day[places],
            self.delivered_day[places],
        )


def late_features(history: OrderLines, asked: OrderLines, spec: LateSpec) -> Floats:
    """Columns [N, F] of the asked lines, NaN where a number is not known. Shares are log odds, drawn to the share of the
    key's first field and that to the share of all lines, so that an unknown vendor is judged as any vendor. Raises Refused
    if a field of the spec is missing."""
    for lines in (history, asked):
        absent = sorted({name for key in spec.keys for name in key} - set(lines.fields))
        absent += sorted(set(spec.numbers) - set(lines.numbers))
        if absent:
            raise Refused(Reason.WRONG_TYPE, f"order lines lack the columns {absent}")
    judged = asked.scheduled_day - spec.notice_days
    everything = _counted([UNKNOWN] * len(history), history, [UNKNOWN] * len(asked), judged, spec)
    overall = (everything[1] + PRIOR_LATE * PRIOR_LINES) / (everything[0] + PRIOR_LINES)
    shares, known, overdue = [overall], [], []
    single: dict[str, Floats] = {}
    for key in spec.keys:
        count, late = _counted(_joined(history, key), history, _joined(asked, key), judged, spec)
        parent = single.get(key[0], overall) if len(key) > 1 else overall
        share = (late + parent * GROUP_LINES) / (count + GROUP_LINES)
        if len(key) == 1:
            single[key[0]] = share
        shares.append(share)
        known.append(np.log1p(count[:, -1]))
        overdue.append(np.log1p(_overdue(_joined(history, key), history, _joined(asked, key), judged)))
    odds = np.clip(np.concatenate(shares, axis=1), 1e-3, 1.0 - 1e-3)
    numbers = [_log_number(asked.numbers[name]) for name in spec.numbers]
    return np.column_stack([np.log(odds / (1.0 - odds)), *known, *overdue, *numbers])


def drift_offsets(
    raw: Floats, late: NDArray[np.bool_], scheduled_day: Days, judged_days: Days, drift_days: int, firmness: float
) -> Floats:
    """What to add to a frozen score (log odds) on each judged day [D], so that the lines [N] due in the `drift_days` before
    it come out as they did: the mode of a shift whose prior is normal around 0 with precision `firmness`; 0 where no line
    was due."""
    order = np.argsort(scheduled_day, kind="stable")
    due = scheduled_day[order]
    first = np.searchsorted(due, judged_days - drift_days, "left")
    end = np.searchsorted(due, judged_days, "left")
    widest = int((end - first).max(initial=0))
    place = first[:, None] + np.arange(widest)[None]
    there = (place < end[:, None]).astype(np.float64)  # [D, widest]
    line = order[np.minimum(place, max(len(due) - 1, 0))] if len(due) else place
    score, truth = raw[line], late[line].astype(np.float64)
    shift = np.zeros(len(judged_days))
    for _ in range(30):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (score + shift[:, None])))
        slope = ((truth - chance) * there).sum(axis=1) - firmness * shift
        step = np.clip(slope / ((chance * (1.0 - chance) * there).sum(axis=1) + firmness), -2.0, 2.0)
        shift = shift + step
        if float(np.abs(step).max(initial=0.0)) < 1e-9:
            break
    return shift


def _log_number(column: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where(column >= 0, np.log1p(np.maximum(column, 0.0)), np.nan)


def _joined(lines: OrderLines, key: list[str]) -> list[str]:
    return ["\x1f".join(parts) for parts in zip(*(lines.fields[name] for name in key), strict=True)]


def _overdue(names: list[str], history: OrderLines, asked_names: list[str], judged: Days) -> Floats:
    """How many lines [N] of the same name were due before the judged day and had not come by its morning."""
    late = np.flatnonzero(history.late)
    due: dict[str, list[int]] = {}
    for i in late:
        due.setdefault(names[i], []).append(int(i))
    ends = {
        name: (np.sort(history.scheduled_day[rows]), np.sort(np.nan_to_num(history.delivered_day[rows], nan=np.inf)))
        for name, rows in due.items()
    }
    counts = np.zeros(len(judged))
    for place, name in enumerate(asked_names):
        if name in ends:
            scheduled, came = ends[name]
            today = judged[place]
            counts[place] = np.searchsorted(scheduled, today, "left") - np.searchsorted(came, today, "left")
    return counts


def _counted(
    names: list[str], history: OrderLines, asked_names: list[str], judged: Days, spec: LateSpec
) -> tuple[Floats, Floats]:
    """Decayed numbers of (lines, late lines) [N, half-lives] of the same name that were due before the judged day."""
    halving = np.array(spec.half_lives_days, dtype=np.float64)
    due: dict[str, list[int]] = {}
    for i in np.argsort(history.scheduled_day, kind="stable"):
        due.setdefault(names[i], []).append(int(i))
    late, scheduled = history.late, history.scheduled_day
    lines, lates = np.zeros((len(judged), len(halving))), np.zeros((len(judged), len(halving)))
    questions: dict[str, list[int]] = {}
    for i in np.argsort(judged, kind="stable"):
        questions.setdefault(asked_names[i], []).append(int(i))
    for name, places in questions.items():
        past = due.get(name, [])
        at, day = 0, 0
        weight, late_weight = np.zeros(len(halving)), np.zeros(len(halving))
        for place in places:
            today = int(judged[place])
            while at < len(past) and scheduled[past[at]] < today:
                faded = 0.5 ** ((scheduled[past[at]] - day) / halving)
                weight = weight * faded + 1.0
                late_weight = late_weight * faded + float(late[past[at]])
                day = int(scheduled[past[at]])
                at += 1
            if at:
                faded = 0.5 ** ((today - day) / halving)
                lines[place], lates[place] = weight * faded, late_weight * faded
    return lines, lates
