"""Demand until the next order could arrive, as a distribution over whole units: what history says, over a lead time that is
itself uncertain, plus what threatened machines would take. No I/O.

Rules.
- A month has MONTH_DAYS days. Between whole months the mean and the variance of demand grow evenly, as independent days
  would make them; beyond the last forecast month both go on as in that month.
- A machine fails at most once in the time looked at, machines fail independently, and a failure takes each bill line of the
  part with the line's share.
- History holds the repairs of the past. What machines at their usual rate would take is therefore taken out of history's
  share (demand thinned by a factor, never below 0) and what they take at their predicted rate is put in. So a machine that is
  as threatened as usual changes nothing in the mean, and a failure is never counted twice.
- A fault risk speaks for its horizon; beyond it the machine fails at its usual rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocol.catalogue import BillLine, Supplier
from protocol.counts import LARGEST_SIZE, pmf, size_of
from protocol.errors import BadMessage, Reason
from protocol.reports import FaultRisk, RemainingLife

Floats = NDArray[np.float64]
MONTH_DAYS = 365.25 / 12
DAY_MS = 86_400_000
MOST_CELLS = 2048
ANY_FAILURE = "*"
_TAIL_DEVIATIONS = 9.0
_LEAD_POINTS = 11
_SURE = 1 - 1e-9
_UNIT_HOURS = {"h": 1.0, "hour": 1.0, "hours": 1.0, "d": 24.0, "day": 24.0, "days": 24.0, "min": 1 / 60, "s": 1 / 3600}


@dataclass(frozen=True)
class Pmf:
    """A count that is i * step with probability chances[i]; chances [K] sum to 1."""

    chances: Floats
    step: int = 1

    @cached_property
    def values(self) -> Floats:
        """The counts: [K]."""
        return np.arange(len(self.chances), dtype=np.float64) * self.step

    @property
    def mean(self) -> float:
        """The expected count."""
        return float(self.chances @ self.values)

    @property
    def variance(self) -> float:
        """Its variance."""
        return float(self.chances @ (self.values - self.mean) ** 2)

    def quantile(self, level: float) -> int:
        """The smallest count that is not exceeded with probability `level`; 0 for a level of 0 or less."""
        if level <= 0:
            return 0
        at = int(np.searchsorted(np.cumsum(self.chances), min(level, 1 - 1e-12) - 1e-12))
        return min(at, len(self.chances) - 1) * self.step

    def exceeds(self, stock: float) -> float:
        """The chance of more than `stock`."""
        return float(min(max(self.chances[self.values > stock].sum(), 0.0), 1.0))

    def shortage(self, stock: float) -> float:
        """Units expected beyond `stock`."""
        return float(self.chances @ np.maximum(self.values - stock, 0.0))

    def left(self, stock: float) -> float:
        """Units expected to be left of `stock`."""
        return float(self.chances @ np.maximum(stock - self.values, 0.0))

    def plus(self, other: Pmf) -> Pmf:
        """The sum of two independent counts of the same step."""
        if self.step != other.step:
            raise ValueError(f"steps {self.step} and {other.step} differ")
        return Pmf(np.convolve(self.chances, other.chances), self.step)


def newsvendor(demand: Pmf, holding: float, shortage: float) -> int:
    """Stock whose expected cost is least where a unit left costs `holding` and a unit missing costs `shortage`: the
    quantile at shortage / (shortage + holding) (Arrow, Harris & Marschak 1951)."""
    return demand.quantile(shortage / (shortage + holding)) if shortage > 0 else 0


@dataclass(frozen=True)
class MonthsDemand:
    """What is asked for of one part in the first 1..H months together: with probability weight[q] a negative binomial of
    mean[q, h] and size[q, h] (one component: a forecast; several: what a short history leaves open)."""

    weight: Floats
    mean: Floats
    size: Floats

    def within(self, days: Floats) -> tuple[Floats, Floats]:
        """(mean, size) of the first `days` [J] days: [Q, J] each."""
        months = np.maximum(np.asarray(days, dtype=np.float64), 0.0) / MONTH_DAYS
        variance = self.mean + self.mean**2 / self.size
        mean, spread = _grown(self.mean, months), _grown(variance, months)
        return mean, np.asarray(size_of(mean, spread))

    def expected(self, days: Floats) -> Floats:
        """Units expected in the first `days` [J] days: [J]."""
        return np.asarray(self.weight @ self.within(days)[0])

    def of(self, days: float) -> Pmf:
        """Demand of so many days."""
        mean, size = self.within(np.array([days]))
        return mixed(self.weight, mean[:, 0], size[:, 0])


def _grown(totals: Floats, months: Floats) -> Floats:
    """Running totals [Q, H] at fractional months [J]: [Q, J]."""
    whole = np.concatenate([np.zeros((len(totals), 1)), totals], axis=1)
    last = whole.shape[1] - 1
    low = np.minimum(np.floor(months).astype(np.int64), last - 1)
    return np.asarray(whole[:, low] + (whole[:, low + 1] - whole[:, low]) * (months - low))


def reach_of(mean: Floats, size: Floats) -> Floats:
    """Counts above these are less likely than 1e-9: [Q]. A tail falls like a Poisson's or like mean / (mean + size)."""
    m = np.maximum(mean, 1e-12)
    return np.asarray(m + _TAIL_DEVIATIONS * np.sqrt(m + m**2 / size) + 21 / np.log1p(size / m) + 12)


def step_for(mean: Floats, size: Floats) -> int:
    """The least step with which MOST_CELLS cells hold these counts."""
    return max(1, math.ceil(float(np.max(reach_of(mean, size))) / MOST_CELLS))


def mixed(weight: Floats, mean: Floats, size: Floats, step: int | None = None) -> Pmf:
    """A mixture of negative binomials [Q], cut where less than 1e-9 is left, and normalized."""
    step = step or step_for(mean, size)
    cells = int(min(np.max(reach_of(mean, size)) / step, MOST_CELLS)) + 1
    chances = weight @ _cells(cells, step, mean, size)
    chances = chances / chances.sum()
    kept = int(np.searchsorted(np.cumsum(chances), 1 - 1e-9)) + 1
    return Pmf(chances[:kept] / chances[:kept].sum(), step)


def _cells(cells: int, step: int, mean: Floats, size: Floats) -> Floats:
    """Probabilities of 0, step, 2 step, … under means and sizes [Q]: [Q, cells]. With a step above 1 a cell holds what lies
    around it, and the first one what is left near 0, where a small size piles up."""
    if step == 1:
        return pmf(cells - 1, mean, size)
    m, k = np.maximum(mean, 1e-12)[:, None], np.minimum(size, LARGEST_SIZE)[:, None]
    n = np.arange(cells, dtype=np.float64)[None, :] * step
    ways = log_gamma(n + k) - log_gamma(k) - log_gamma(n + 1)
    found = np.exp(ways - k * np.log1p(m / k) + n * (np.log(m) - np.log(m + k))) * step
    found[:, 0] = np.maximum(1 - found[:, 1:].sum(axis=1), 0.0)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def log_gamma(x: Floats) -> Floats:
    """Logarithm of the gamma function for x > 0: Stirling's series at x + 7, right to 1e-9."""
    y = x + 7.0
    series = (1 / 12 - (1 / 360 - 1 / (1260 * y * y)) / (y * y)) / y
    product = x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5) * (x + 6)
    return np.asarray((y - 0.5) * np.log(y) - y + 0.9189385332046727 + series - np.log(product))


@dataclass(frozen=True)
class LeadTime:
    """Days from order to shelf: days[j] with probability chance[j]."""

    days: Floats
    chance: Floats

    @property
    def mean(self) -> float:
        """Expected days."""
        return float(self.days @ self.chance)


def lead_time(supplier: Supplier) -> LeadTime:
    """Lognormal with the supplier's mean and spread, at Gauss-Hermite points; later by `late_days` with the chance of a
    broken promise. Raises BadMessage for a lead time that is not above 0."""
    if not (supplier.lead_days > 0 and math.isfinite(supplier.lead_days)):
        raise BadMessage(
            Reason.WRONG_TYPE,
            f"supplier {supplier.supplier} has a lead time of {supplier.lead_days} days: say how many days above 0",
        )
    days, chance = _lognormal(supplier.lead_days, supplier.lead_days_spread)
    late = supplier.late_probability or 0.0
    if late and supplier.late_days:
        days = np.concatenate([days, days + supplier.late_days])
        chance = np.concatenate([chance * (1 - late), chance * late])
    return LeadTime(days, chance)


def lead_from_deliveries(days: Sequence[float]) -> tuple[float, float]:
    """(mean, spread) to expect of the next delivery after these [days]: the spread includes that the mean is an estimate.
    One delivery alone is taken to vary by half. Raises BadMessage without a delivery."""
    seen = np.asarray(days, dtype=np.float64)
    if not len(seen) or not np.all(np.isfinite(seen)) or np.any(seen < 0):
        raise BadMessage(Reason.WRONG_TYPE, "lead times of past deliveries: give at least one, in days, 0 or more")
    mean = max(float(seen.mean()), 0.01)
    spread = float(seen.std(ddof=1)) if len(seen) > 1 else 0.5 * mean
    return mean, spread * math.sqrt(1 + 1 / len(seen))


def _lognormal(mean: float, spread: float) -> tuple[Floats, Floats]:
    if spread <= 0:
        return np.array([mean]), np.array([1.0])
    wide = math.sqrt(math.log1p((spread / mean) ** 2))
    points, weight = np.polynomial.hermite_e.hermegauss(_LEAD_POINTS)
    return np.asarray(mean * np.exp(wide * points - wide**2 / 2)), np.asarray(weight / weight.sum())


@dataclass(frozen=True)
class FailureOutlook:
    """How a machine may fail: cumulative hazard at `days` [P] from now, straight between them, `usual_rate` a day beyond
    (a life: as steep as at its end). `usual_rate`: failures a day of such a machine when nothing is the matter."""

    machine: str
    machine_type: str
    failure: str
    days: Floats
    hazard: Floats
    usual_rate: float
    end_rate: float

    def within(self, days: Floats) -> Floats:
        """Chance of failing within `days` [J]: [J]."""
        inside = np.interp(days, self.days, self.hazard)
        beyond = np.maximum(np.asarray(days) - self.days[-1], 0.0) * self.end_rate
        return np.asarray(-np.expm1(-(inside + beyond)))


def failure_outlooks(
    lives: Iterable[RemainingLife], risks: Iterable[FaultRisk], now_ms: int, types: dict[str, str] | None = None
) -> list[FailureOutlook]:
    """The newest life of each machine (any failure) and the newest risk of each machine and component, as seen from now:
    that it did not fail since it was issued is known. A life in cycles says nothing about days and is left out, and so is
    a risk whose horizon is over. `types`: machine types that the lives do not tell."""
    newest_life = {life.machine: life for life in sorted(lives, key=lambda one: one.issued_ms)}
    newest_risk = {(risk.machine, risk.component): risk for risk in sorted(risks, key=lambda one: one.issued_ms)}
    kinds = dict(types or {}) | {m: life.machine_type for m, life in newest_life.items() if life.machine_type}
    found = [_of_life(life, kinds.get(life.machine, ""), now_ms) for life in newest_life.values()]
    found += [_of_risk(risk, kinds.get(risk.machine, ""), now_ms) for risk in newest_risk.values()]
    return [one for one in found if one is not None]


def _of_life(life: RemainingLife, kind: str, now_ms: int) -> FailureOutlook | None:
    hours = _UNIT_HOURS.get(life.unit.lower())
    if hours is None:
        return None
    known = [(q, p) for q, p in zip(life.quantiles, life.levels, strict=True) if q < life.cap and 0 < p < 1]
    days = np.array([0.0, *(q * hours / 24 for q, _ in known)])
    hazard = np.maximum.accumulate(np.array([0.0, *(-math.log1p(-p) for _, p in known)]))
    usual = 24 / (life.usual * hours) if life.usual > 0 else 0.0
    end = float((hazard[-1] - hazard[-2]) / max(days[-1] - days[-2], 1e-9)) if len(known) else usual
    return _seen_from(FailureOutlook(life.machine, kind, ANY_FAILURE, days, hazard, usual, end), life.issued_ms, now_ms)


def _of_risk(risk: FaultRisk, kind: str, now_ms: int) -> FailureOutlook | None:
    horizon = max(risk.horizon_ms / DAY_MS, 1.0 if risk.horizon_ms == 0 else 1e-3)
    if now_ms - risk.issued_ms > horizon * DAY_MS:
        return None
    base = 0.5 * (1 + math.tanh(0.5 * risk.expected_score))
    usual = -math.log1p(-min(base, _SURE)) / horizon
    hazard = np.array([0.0, -math.log1p(-min(risk.probability, _SURE))])
    days = np.array([0.0, horizon])
    return _seen_from(
        FailureOutlook(risk.machine, kind, risk.component, days, hazard, usual, usual), risk.issued_ms, now_ms
    )


def _seen_from(outlook: FailureOutlook, issued_ms: int, now_ms: int) -> FailureOutlook:
    """The same outlook when `now` is later than it was issued, given that nothing failed in between."""
    gone = max(now_ms - issued_ms, 0) / DAY_MS
    if gone == 0:
        return outlook
    at = np.interp(gone, outlook.days, outlook.hazard)
    ahead = outlook.days > gone
    days = np.concatenate([[0.0], outlook.days[ahead] - gone])
    hazard = np.concatenate([[0.0], outlook.hazard[ahead] - at])
    return FailureOutlook(
        outlook.machine, outlook.machine_type, outlook.failure, days, hazard, outlook.usual_rate, outlook.end_rate
    )


@dataclass(frozen=True)
class RepairDemand:
    """What one machine's possible failure takes of a part. takes: the count if it happens; chance [J]: that it happens
    within each time looked at; usual [J]: the same chance at the usual rate."""

    because: str
    takes: Pmf
    chance: Floats
    usual: Floats


def risk_demand(
    part: str, outlooks: Sequence[FailureOutlook], bill: Sequence[BillLine], days: Floats
) -> list[RepairDemand]:
    """forecast -> recommend: failure risk x bill of parts, for each of the times `days` [J]. A bill line of a failure goes
    with the risk of that failure; a line for any failure ("*") with what remains of the machine's chance to fail at all."""
    lines = [line for line in bill if line.part == part]
    found: list[RepairDemand] = []
    for machine in dict.fromkeys(one.machine for one in outlooks) if lines else ():
        found += _of_machine([one for one in outlooks if one.machine == machine], lines, days)
    return found


def _of_machine(outlooks: list[FailureOutlook], lines: list[BillLine], days: Floats) -> list[RepairDemand]:
    lines = [line for line in lines if line.machine_type in ("", outlooks[0].machine_type)]
    any_line = [line for line in lines if line.failure == ANY_FAILURE]
    found: list[RepairDemand] = []
    survives, usual_named = np.ones(len(days)), 0.0
    for one in outlooks:
        own = [line for line in lines if one.failure != ANY_FAILURE and _same(line.failure, one.failure)]
        if own:
            chance, usual = one.within(days), -np.expm1(-one.usual_rate * days)
            found.append(RepairDemand(f"risk:{one.machine} {one.failure}"[:128], _takes(own), chance, usual))
            survives, usual_named = survives * (1 - chance), usual_named + one.usual_rate
    if any_line:
        lives = [one for one in outlooks if one.failure == ANY_FAILURE]
        named = [one for one in outlooks if one.failure != ANY_FAILURE]
        none_named = np.prod([1 - one.within(days) for one in named], axis=0) if named else np.ones(len(days))
        none = np.min([none_named, *(1 - one.within(days) for one in lives)], axis=0)
        usual_any = max(sum(one.usual_rate for one in group) for group in (lives, named))
        rest = np.clip(1 - none / np.maximum(survives, 1e-12), 0.0, 1.0)
        usual_rest = -np.expm1(-max(usual_any - usual_named, 0.0) * days)
        found.append(RepairDemand(f"risk:{outlooks[0].machine}"[:128], _takes(any_line), rest, usual_rest))
    return [one for one in found if np.any(one.chance > 0) or np.any(one.usual > 0)]


def _takes(lines: list[BillLine]) -> Pmf:
    """Units that one repair takes."""
    whole = Pmf(np.ones(1))
    for line in lines:
        one = np.zeros(line.quantity + 1)
        one[0], one[-1] = 1 - line.share, line.share
        whole = whole.plus(Pmf(one))
    return whole


def _same(left: str, right: str) -> bool:
    return left.strip().lower() == right.strip().lower()


@dataclass(frozen=True)
class CoverDemand:
    """Demand until the next order could arrive. sources: (because, expected units); they sum to `expected`."""

    pmf: Pmf
    days: float
    sources: tuple[tuple[str, float], ...]

    @property
    def expected(self) -> float:
        """Units expected."""
        return sum(amount for _, amount in self.sources)


def cover_demand(
    history: MonthsDemand,
    lead: LeadTime,
    review_days: float,
    part: str = "",
    outlooks: Sequence[FailureOutlook] = (),
    bill: Sequence[BillLine] = (),
) -> CoverDemand:
    """Demand over lead time and review: for each lead time that may come, history's demand (less the usual repairs of the
    machines at hand) and the repairs that threaten, convolved; then mixed over the lead times."""
    days = lead.days + review_days
    mean, size = history.within(days)
    repairs = risk_demand(part, outlooks, bill, days)
    expected = history.weight @ mean
    usual = sum((one.usual * one.takes.mean for one in repairs), np.zeros(len(days)))
    kept = np.clip(1 - usual / np.maximum(expected, 1e-12), 0.0, 1.0)
    mean = mean * kept
    sources = [("history", float(lead.chance @ (expected * kept)))]
    sources += [(one.because, float(lead.chance @ one.chance) * one.takes.mean) for one in repairs]
    if not repairs:
        weight = (history.weight[:, None] * lead.chance).ravel()
        return CoverDemand(mixed(weight, mean.ravel(), size.ravel()), float(lead.chance @ days), tuple(sources))
    reach = sum(len(one.takes.chances) for one in repairs)
    step = max(step_for(mean.ravel(), size.ravel()), math.ceil(reach / MOST_CELLS))
    pmfs = [
        _with_repairs(mixed(history.weight, mean[:, j], size[:, j], step), repairs, j) for j in range(len(lead.days))
    ]
    return CoverDemand(_mixture(lead.chance, pmfs), float(lead.chance @ days), tuple(sources))


def _with_repairs(demand: Pmf, repairs: Sequence[RepairDemand], at: int) -> Pmf:
    """Adds each machine's repair exactly: it comes with its chance (Poisson-binomial where each takes one unit)."""
    for one in repairs:
        takes = one.takes.chances * one.chance[at]
        takes[0] += 1 - one.chance[at]
        demand = demand.plus(_coarse(takes, demand.step))
    return demand


def _coarse(chances: Floats, step: int) -> Pmf:
    """Counts on a wider grid, each shared between the two cells beside it so that the mean stays."""
    if step == 1:
        return Pmf(chances)
    place = np.arange(len(chances)) / step
    low = np.floor(place).astype(np.int64)
    wide = np.zeros(int(low[-1]) + 2)
    np.add.at(wide, low, chances * (1 - (place - low)))
    np.add.at(wide, low + 1, chances * (place - low))
    return Pmf(wide, step)


def _mixture(weight: Floats, pmfs: Sequence[Pmf]) -> Pmf:
    whole = np.zeros(max(len(one.chances) for one in pmfs))
    for share, one in zip(weight, pmfs, strict=True):
        whole[: len(one.chances)] += share * one.chances
    return Pmf(whole / whole.sum(), pmfs[0].step)
