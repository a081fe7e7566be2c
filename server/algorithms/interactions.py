"""Who chose what, and how sure that is: events become one sparse matrix, the input of every collaborative model.

Confidence as in Hu, Koren & Volinsky 2008: a stronger or repeated event is surer, not more liked. The rules kept here:
- The order of events changes nothing, not even the last bit.
- Repeated events of a pair add up to a cap, so that one item bought a million times is one capped entry.
- An event halves in weight with every half-life of age; an event from the future counts as one of now.
- A quantity that is negative (a return), zero or not a number is dropped and counted by its reason, or refused. With
  `rejections` a negative value is a verdict and stays, as confidence below 0.
- Explicit values (ratings) do not add up: the newest of a pair stands, zero and below included, without decay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats

DAY_MS = 86_400_000
CAP = 10.0
NOT_POSITIVE = "not_positive"
NOT_FINITE = "not_finite"
NO_NAME = "no_name"
NO_TIME = "no_time"
Ints = NDArray[np.int64]
Event = tuple[str, str, float, int | None]
"""(user, item, value, time_ms)"""


@dataclass(frozen=True)
class Interactions:
    """users [U] and items [I]: names in ascending order. matrix [U, I] float32: confidences, > 0 chosen, < 0 rejected.
    times_ms: the newest event of each entry, int64, same pattern; None where no event has a time. dropped: how many
    events were left out, by reason."""

    users: list[str]
    items: list[str]
    matrix: sparse.csr_matrix
    times_ms: sparse.csr_matrix | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def row(self, profile: dict[str, float]) -> sparse.csr_matrix:
        """A profile {item: strength} as one row [1, I]; unknown items and strengths that are no number are left out."""
        return profile_row(self.items, profile)


def profile_row(items: list[str], profile: dict[str, float]) -> sparse.csr_matrix:
    """A profile {item: strength} as one row [1, I] in ascending order of the ids."""
    place = {name: i for i, name in enumerate(items)}
    known = sorted((place[name], s) for name, s in profile.items() if name in place and isfinite(s) and s)
    ids = np.array([i for i, _ in known], dtype=np.int32)
    strengths = np.array([s for _, s in known], dtype=np.float32)
    return sparse.csr_matrix((strengths, ids, np.array([0, len(ids)], dtype=np.int32)), shape=(1, len(items)))


def interactions(
    events: Iterable[Event],
    *,
    half_life_days: float | None = None,
    cap: float = CAP,
    now_ms: int | None = None,
    explicit: bool = False,
    rejections: bool = False,
    refuse: bool = False,
) -> Interactions:
    """One matrix from events. now_ms: the newest event's time unless given. refuse: raise `Refused` at the first event
    that cannot be used, instead of counting it."""
    if not (isfinite(cap) and cap > 0):
        raise Refused(Reason.NOT_FINITE, f"cap is {cap}: give a number above 0")
    if half_life_days is not None and not half_life_days > 0:
        raise Refused(Reason.NOT_FINITE, f"half_life_days is {half_life_days}: give days above 0, or None for no decay")
    dropped: Counter[str] = Counter()
    timed = half_life_days is not None
    kept = _usable(events, dropped, any_sign=explicit or rejections, zero=explicit, timed=timed, refuse=refuse)
    users, items, who, what, values, times = _columns(kept)
    if explicit:
        ends, sums = _newest(who, what, values, times)
    else:
        now = now_ms if now_ms is not None else int(times.max(initial=0))
        ends, sums = _added(who, what, values * _decay(times, now, half_life_days), times, cap)
    shape = (len(users), len(items))
    pattern = (who[ends], what[ends])
    matrix = sparse.csr_matrix((sums.astype(np.float32), pattern), shape=shape)
    times_ms = sparse.csr_matrix((times[ends], pattern), shape=shape) if bool((times > 0).any()) else None
    return Interactions(users, items, matrix, times_ms, dict(sorted(dropped.items())))


def _usable(
    events: Iterable[Event], dropped: Counter[str], *, any_sign: bool, zero: bool, timed: bool, refuse: bool
) -> Iterator[tuple[str, str, float, int]]:
    for number, (user, item, value, time_ms) in enumerate(events):
        why = _fault(user, item, value, time_ms, any_sign=any_sign, zero=zero, timed=timed)
        if why is None:
            yield user, item, float(value), int(time_ms or 0)
        elif refuse:
            raise Refused(
                Reason.NO_TIME if why == NO_TIME else Reason.BAD_NAME if why == NO_NAME else Reason.NOT_FINITE,
                f"event {number} ({user!r}, {item!r}, {value!r}, {time_ms!r}) is {why}: correct it or leave it out",
            )
        else:
            dropped[why] += 1


def _fault(
    user: str, item: str, value: float, time_ms: int | None, *, any_sign: bool, zero: bool, timed: bool
) -> str | None:
    if not user or not item:
        return NO_NAME
    if not isfinite(value):
        return NOT_FINITE
    if (value == 0 and not zero) or (value < 0 and not any_sign):
        return NOT_POSITIVE
    return NO_TIME if timed and time_ms is None else None


def _columns(
    kept: Iterable[tuple[str, str, float, int]],
) -> tuple[list[str], list[str], Ints, Ints, Floats, Ints]:
    """Names in order, and the events as columns, sorted by (user, item, time, value)."""
    user_place: dict[str, int] = {}
    item_place: dict[str, int] = {}
    who, what, values, times = [], [], [], []
    for user, item, value, time_ms in kept:
        who.append(user_place.setdefault(user, len(user_place)))
        what.append(item_place.setdefault(item, len(item_place)))
        values.append(value)
        times.append(time_ms)
    users, user_rank = _ranked(user_place)
    items, item_rank = _ranked(item_place)
    by_user = user_rank[np.array(who, dtype=np.int64)]
    by_item = item_rank[np.array(what, dtype=np.int64)]
    value_of, time_of = np.array(values, dtype=np.float64), np.array(times, dtype=np.int64)
    order = np.lexsort((value_of, time_of, by_item, by_user))
    return users, items, by_user[order], by_item[order], value_of[order], time_of[order]


def _ranked(place: dict[str, int]) -> tuple[list[str], Ints]:
    """Names in ascending order, and first-seen number -> rank."""
    names = sorted(place)
    rank = np.empty(len(names), dtype=np.int64)
    rank[[place[name] for name in names]] = np.arange(len(names))
    return names, rank


def _decay(times: Ints, now_ms: int, half_life_days: float | None) -> Floats:
    if half_life_days is None:
        return np.ones(len(times))
    return np.asarray(0.5 ** (np.maximum(now_ms - times, 0) / DAY_MS / half_life_days), dtype=np.float64)


def _last_of_pair(who: Ints, what: Ints) -> Ints:
    """Places of the last event of each (user, item), events sorted."""
    change = (who[1:] != who[:-1]) | (what[1:] != what[:-1])
    return np.flatnonzero(np.append(change, True)) if len(who) else np.zeros(0, dtype=np.int64)


def _added(who: Ints, what: Ints, values: Floats, times: Ints, cap: float) -> tuple[Ints, Floats]:
    ends = _last_of_pair(who, what)
    if not len(ends):
        return ends, np.zeros(0)
    starts = np.append(0, ends[:-1] + 1)
    sums = np.clip(np.add.reduceat(np.clip(values, -cap, cap), starts), -cap, cap)
    said = np.abs(sums) > np.finfo(np.float32).tiny  # nothing is left of it: decayed away, or yes and no cancel out
    return ends[said], sums[said]


def _newest(who: Ints, what: Ints, values: Floats, times: Ints) -> tuple[Ints, Floats]:
    ends = _last_of_pair(who, what)
    return ends, values[ends]
