"""One small LSTM for the demand of every spare part of a fleet, as a distribution of counts: histories in, a module out.

Salinas, Flunkert, Gasthaus & Januschowski 2020, "DeepAR" (a global recurrent network with a negative binomial head);
here all months ahead are answered at once, and the total over each lead time has a size of its own, learned on totals, in
place of sampled paths. The network answers factors on a smoothed rate (`protocol.demand_windows.anchor`) and on fixed
sizes, so that an untrained one already is a sensible smoothing forecast.

Everything is chosen on the newest `horizon` months of the given history (anchor, number of epochs, bias, tails); then the
network is fitted again with all months."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol import counts
from protocol.demand_windows import (
    ANSWERS,
    CHANNELS,
    CLASSES,
    DemandAhead,
    DemandSpec,
    DemandWindows,
    Floats,
    anchor,
    checked_history,
    demand_ahead,
    demand_windows,
)
from protocol.errors import Reason, Refused

Float32s = NDArray[np.float32]
Progress = Callable[[float, str], None]
DISCOUNTS = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
PRIORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
TAILS = tuple(float(tail) for tail in np.round(np.exp(np.linspace(-1.4, 1.4, 15)), 3))
TAIL_LEVELS = (0.9, 0.95, 0.98)
TAIL_DOUBT = 2.0
FEWEST_ORIGIN_MONTHS = 3
LEVEL_BOUNDS = (0.5, 2.0)
FEWEST_FLEET_MONTHS = 6
FEWEST_FLEET_TRIALS = 3
STATIC = (CHANNELS.index("log_rate"), CHANNELS.index("long_run"), CHANNELS.index("age"))


@dataclass(frozen=True)
class DemandSettings:
    """`rows`: histories seen per epoch, drawn evenly over origins; `cold`: share of them shortened at random, so that new
    parts are answered sensibly; `total_weight`: how much the totals count beside the single months; `square_weight`: how
    much the squared error of the totals counts (a likelihood alone cares little about the few large parts); `calendar`:
    whether the month of the year is an input (two or three years are too few to learn a season from: it made the fleet's
    total worse on validation months)."""

    length: int = 24
    hidden: int = 48
    members: int = 2
    dropout: float = 0.1
    weight_decay: float = 1e-3
    learning_rate: float = 5e-3
    batch: int = 384
    rows: int = 30_000
    epochs: int = 10
    cold: float = 0.1
    total_weight: float = 1.0
    square_weight: float = 0.3
    calendar: bool = False
    seed: int = 7


class DemandLstm(nn.Module):
    """x [N, length, channels] -> [N, horizon, 3]: logarithms of the factors on rate, month size and total size, averaged
    over `members` networks that started from different weights (Breiman 1996: averages err less than their members)."""

    def __init__(self, horizon: int, hidden: int, dropout: float, members: int = 1) -> None:
        super().__init__()
        self.horizon = horizon
        self.members = nn.ModuleList(_Member(horizon, hidden, dropout) for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:
        answers: list[Tensor] = [member(x) for member in self.members]
        return torch.stack(answers).mean(dim=0)


class _Member(nn.Module):
    def __init__(self, horizon: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.horizon = horizon
        self.lstm = nn.LSTM(len(CHANNELS), hidden, 1, batch_first=True)
        self.mix = nn.Linear(hidden + len(STATIC), hidden)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, horizon * len(ANSWERS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        state, _ = self.lstm(x)  # [N, length, hidden]
        last = torch.cat([self.drop(state[:, -1]), x[:, -1, STATIC[0] : STATIC[-1] + 1]], dim=1)
        answered: Tensor = self.head(self.drop(torch.tanh(self.mix(last))))
        return answered.reshape(-1, self.horizon, len(ANSWERS))


@dataclass(frozen=True)
class FittedDemand:
    """A network and how its answers are read. `epochs`: how many were best on the validation months."""

    net: DemandLstm
    spec: DemandSpec
    epochs: int

    def ahead(self, history: Floats, next_month: int | NDArray[np.int64] = 0) -> DemandAhead:
        """The float network's distributions for histories [N, T]."""
        windows = demand_windows(history, next_month, self.spec)
        return demand_ahead(windows, answer(self.net, windows.x), self.spec)


@dataclass(frozen=True)
class _Rows:
    """x [n, length, channels], rate [n, horizon], y [n, horizon] (NaN: not observed). The rate is the anchor, scaled in
    each month so that the parts sum to what the fleet did: the network learns how parts differ, not the few ups and downs
    that all of them shared (`_levelled` brings the fleet's own forecast back)."""

    x: Float32s
    rate: Float32s
    y: Float32s


def fit(
    history: Floats,
    horizon: int,
    next_month: int | None,
    settings: DemandSettings,
    progress: Progress,
) -> FittedDemand:
    """Fits on histories [N, T]. next_month: month of the year (0..11) that follows the history; None: unknown.
    Raises Refused where the history is too short to hold `horizon` months back, holds no demand or no record
    in those months; BadMessage for negative counts. The same histories and seed give the same network on the same machine."""
    table = checked_history(history)
    months = table.shape[1]
    if months < horizon + FEWEST_ORIGIN_MONTHS + 1 or not (np.nan_to_num(table) > 0).any():
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{months} months of demand; {horizon + FEWEST_ORIGIN_MONTHS + 1} with some demand are needed to learn to "
            f"look {horizon} months ahead: shorten the horizon or wait",
        )
    torch.set_num_threads(1)
    split = months - horizon
    inner, after = table[:, :split], table[:, split:]
    spec = _described(inner, after, horizon, settings.calendar and next_month is not None, settings)
    month = 0 if next_month is None else next_month
    check = _rows(table, spec, [split], month)
    net, epochs = _trained(
        _rows(inner, spec, _origins(split), month - horizon, settings.cold),
        check,
        spec,
        settings,
        lambda f, s: progress(0.5 * f, s),
    )
    spec = _levelled(net, inner, month - horizon, spec)
    spec = _with_tails(net, demand_windows(inner, month - horizon, spec), after, spec)
    final = msgspec.structs.replace(spec, prior_rate=_fleet_rate(table))
    net, _ = _trained(
        _rows(table, final, _origins(months), month, settings.cold),
        None,
        final,
        settings,
        lambda f, s: progress(0.5 + 0.5 * f, s),
        stop_after=epochs,
    )
    return FittedDemand(net, _levelled(net, table, month, final), epochs)


def answer(net: DemandLstm, x: Float32s) -> Float32s:
    """The float network's answers [N, horizon, 3]."""
    with torch.inference_mode():
        parts = [net.eval()(part).numpy() for part in torch.from_numpy(x).split(1024)]
    return np.concatenate(parts) if parts else np.zeros((0, net.horizon, len(ANSWERS)), dtype=np.float32)


def pinball(actual: Floats, quantile: Floats, level: float) -> float:
    """Mean quantile loss over observed cells; NaN if there are none."""
    gap = actual - quantile
    loss = np.maximum(level * gap, (level - 1) * gap)
    return float(np.nanmean(loss)) if np.isfinite(loss).any() else float("nan")


def _described(inner: Floats, after: Floats, horizon: int, calendar: bool, settings: DemandSettings) -> DemandSpec:
    """The anchor whose scaled rate explains the validation totals best (negative binomial likelihood), and the sizes that
    it leaves."""
    fleet = _fleet_rate(inner)
    total = after.sum(axis=1)
    seen = np.isfinite(total)
    best: tuple[float, float, float] | None = None
    for discount, prior in product(DISCOUNTS, PRIORS):
        mean = horizon * anchor(inner, discount, prior, fleet)[seen]
        mean *= total[seen].sum() / mean.sum() if total[seen].sum() > 0 else 1.0
        error = float(np.mean((total[seen] - mean) ** 2 / (mean + mean.mean()))) if len(mean) else 0.0
        if best is None or error < best[0]:
            best = (error, discount, prior)
    assert best is not None  # noqa: S101 - the grid is not empty
    _, discount, prior = best
    rate = anchor(inner, discount, prior, fleet)
    month = [_moment_size(rate, after[:, h]) for h in range(horizon)]
    totals = np.cumsum(after, axis=1)
    total_sizes = [_moment_size(rate * (h + 1), totals[:, h]) for h in range(horizon)]
    return DemandSpec(
        length=min(settings.length, inner.shape[1] + horizon),
        horizon=horizon,
        discount=discount,
        prior_months=prior,
        prior_rate=fleet,
        calendar=calendar,
        month_size=month,
        total_size=total_sizes,
    )


def _fleet_rate(table: Floats) -> float:
    recent = table[:, -12:]
    seen = np.isfinite(recent)
    return max(float(np.where(seen, recent, 0.0).sum() / max(int(seen.sum()), 1)), 1e-3)


def _moment_size(mean: Floats, actual: Floats) -> float:
    seen = np.isfinite(actual)
    over = float(np.sum((actual[seen] - mean[seen]) ** 2 - mean[seen]))
    return float(np.clip(np.sum(mean[seen] ** 2) / over, 0.2, 50.0)) if over > 0 else 50.0


def _origins(months: int) -> list[int]:
    return list(range(FEWEST_ORIGIN_MONTHS, months))


def _rows(table: Floats, spec: DemandSpec, origins: list[int], next_month: int, cold: float = 0.0) -> _Rows:
    """Inputs and targets at each origin; targets beyond the table are NaN, rows without any target are dropped.
    next_month: month of the year after the last column of `table`; cold: share of histories that are shortened."""
    parts, months = table.shape
    order = np.random.default_rng(months)
    padded = np.concatenate([table, np.full((parts, spec.horizon), np.nan)], axis=1)
    found: list[tuple[Float32s, Float32s, Float32s]] = []
    for at in origins:
        windows = demand_windows(_shortened(table[:, :at], cold, order), (next_month - (months - at)) % 12, spec)
        y = padded[:, at : at + spec.horizon].astype(np.float32)
        kept = np.isfinite(y).any(axis=1) & np.isfinite(table[:, :at]).any(axis=1)
        if kept.any():
            found.append((windows.x[kept], _shared(windows.rate[kept], y[kept]), y[kept]))
    if not found:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"no part has records before and after month {origins[-1]} of {months}: give months that were recorded",
        )
    return _Rows(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _shared(rate: Floats, y: Float32s) -> Float32s:
    """Anchors [n] scaled to the months' sums over the observed parts: [n, horizon]."""
    seen = np.isfinite(y)
    factor = np.where(seen, y, 0.0).sum(axis=0) / np.maximum(rate @ seen, 1e-6)
    return np.asarray(rate[:, None] * np.where(factor > 0, factor, 1.0), dtype=np.float32)


def _trained(
    learn: _Rows,
    check: _Rows | None,
    spec: DemandSpec,
    settings: DemandSettings,
    progress: Progress,
    stop_after: int | None = None,
) -> tuple[DemandLstm, int]:
    """A network and the number of epochs that was best on `check`; without `check`, exactly `stop_after` epochs."""
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    net = DemandLstm(spec.horizon, settings.hidden, settings.dropout, settings.members)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    each = min(settings.rows, len(learn.y))
    steps = -(-each // settings.batch) * settings.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, max(steps, 4), pct_start=0.2)
    x, rate, y = (torch.from_numpy(column) for column in (learn.x, learn.rate, learn.y))
    yard = float(torch.nan_to_num(y).square().sum() / torch.isfinite(y).sum())
    best, best_state, best_epoch = np.inf, _copy(net), 0
    if check is not None:
        best = _judge(net, check, spec, settings, yard)
    for epoch in range(settings.epochs if stop_after is None else stop_after):
        net.train()
        for rows in torch.from_numpy(order.permutation(len(learn.y))[:each]).split(settings.batch):
            optimiser.zero_grad()
            each_one = [loss(one(x[rows]), rate[rows], y[rows], spec, settings, yard) for one in net.members]
            torch.stack(each_one).sum().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if check is None:
            progress((epoch + 1) / max(stop_after or 1, 1), f"demand, all months: epoch {epoch + 1}")
            continue
        judged = _judge(net, check, spec, settings, yard)
        progress((epoch + 1) / settings.epochs, f"demand, validation: epoch {epoch + 1}, loss {judged:.4f}")
        if judged < best:
            best, best_state, best_epoch = judged, _copy(net), epoch + 1
    if check is not None:
        net.load_state_dict(best_state)
    return net.eval(), best_epoch


def loss(answered: Tensor, rate: Tensor, y: Tensor, spec: DemandSpec, settings: DemandSettings, yard: float) -> Tensor:
    """Negative log likelihood of the months and of the totals over each lead time, observed ones only."""
    mean = rate * torch.exp(answered[..., 0].clamp(-3, 3))
    month_size = torch.tensor(spec.month_size) * torch.exp(answered[..., 1].clamp(-3, 3))
    total_size = torch.tensor(spec.total_size) * torch.exp(answered[..., 2].clamp(-3, 3))
    totals, total_mean = torch.cumsum(y, dim=1), torch.cumsum(mean, dim=1)
    value = _surprise(y, mean, month_size) + settings.total_weight * _surprise(totals, total_mean, total_size)
    if settings.square_weight:
        seen = torch.isfinite(totals)
        leads = torch.arange(1, spec.horizon + 1)
        gap = (torch.nan_to_num(totals) - total_mean).square() * seen / leads
        value = value + settings.square_weight * gap.sum() / seen.sum().clamp(min=1) / yard
    return value


def _surprise(y: Tensor, mean: Tensor, size: Tensor) -> Tensor:
    """Mean negative log likelihood of the negative binomial over observed cells."""
    seen = torch.isfinite(y)
    n = torch.nan_to_num(y)
    joint = torch.log(size + mean)
    log_p = (
        torch.lgamma(n + size)
        - torch.lgamma(size)
        - torch.lgamma(n + 1)
        + size * (torch.log(size) - joint)
        + n * (torch.log(mean) - joint)
    )
    return -(log_p * seen).sum() / seen.sum().clamp(min=1)


def _judge(net: DemandLstm, rows: _Rows, spec: DemandSpec, settings: DemandSettings, yard: float) -> float:
    answered = torch.from_numpy(answer(net, rows.x))
    with torch.inference_mode():
        return float(loss(answered, torch.from_numpy(rows.rate), torch.from_numpy(rows.y), spec, settings, yard))


def _shortened(history: Floats, share: float, order: np.random.Generator) -> Floats:
    """A share of the histories begins later than it did, or has not begun: [N, T]."""
    parts, months = history.shape
    first = np.where(order.random(parts) < share, order.integers(0, months + 1, parts), 0)
    return np.where(np.arange(months) >= first[:, None], history, np.nan)


def _copy(net: DemandLstm) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def fleet_ahead(table: Floats, horizon: int) -> float:
    """Mean demand per part and month over the coming `horizon` months, from the fleet's own monthly means: a mean of the
    newest months, or their exponential trend damped by half, whichever would have erred least over these very months.
    The fleet as a whole moves smoothly; its parts do not. NaN for a table without a record in its last 12 months."""
    alive = np.isfinite(table[:, -12:]).any(axis=1)
    seen = np.isfinite(table[alive])
    count = seen.sum(axis=0)
    means = np.where(seen, table[alive], 0.0).sum(axis=0)[count > 0] / count[count > 0]
    if not len(means):
        return float("nan")
    origins = range(FEWEST_FLEET_MONTHS, len(means) - horizon + 1)
    if len(origins) < FEWEST_FLEET_TRIALS:
        return float(means[-12:].mean())
    tried = np.log(np.maximum([_fleet_candidates(means[:at], horizon) for at in origins], 1e-9))
    after = np.log(np.maximum([means[at : at + horizon].mean() for at in origins], 1e-9))
    best = int(np.argmin(np.mean((tried - after[:, None]) ** 2, axis=0)))
    return _fleet_candidates(means, horizon)[best]


def _fleet_candidates(means: Floats, horizon: int) -> list[float]:
    found = [float(means[-span:].mean()) for span in (len(means), 12, 6, 3)]
    for span in (12, 24, len(means)):
        recent = np.log(np.maximum(means[-span:], 1e-9))
        at = np.arange(len(recent)) - (len(recent) - 1) / 2
        slope = float(at @ recent / max(float(at @ at), 1e-9))
        found.append(float(np.exp(recent.mean() + slope * ((len(recent) - 1) / 2 + (horizon + 1) / 4))))
    return found


def _levelled(net: DemandLstm, table: Floats, next_month: int, spec: DemandSpec) -> DemandSpec:
    """The factor that brings the sum over parts to the fleet's own forecast (top-down reconciliation): what a network
    learns about the whole fleet's ups and downs rests on few distinct months."""
    alive = table[np.isfinite(table[:, -12:]).any(axis=1)]
    expected = fleet_ahead(table, spec.horizon)
    windows = demand_windows(alive, next_month, spec)
    plain = demand_ahead(windows, answer(net, windows.x), msgspec.structs.replace(spec, level=1.0))
    if not (expected > 0 and plain.month_mean.size):
        return spec
    level = float(np.clip(expected / plain.month_mean.mean(), *LEVEL_BOUNDS))
    return msgspec.structs.replace(spec, level=level)


def _with_tails(net: DemandLstm, windows: DemandWindows, after: Floats, spec: DemandSpec) -> DemandSpec:
    """Per intermittency class the factors on the sizes that the upper tail of the validation months and of their totals
    asks for."""
    ahead = demand_ahead(windows, answer(net, windows.x), spec)
    totals = np.cumsum(after, axis=1)
    month_tail = tails(after, ahead.month_mean, ahead.month_size, windows.kind)
    total_tail = tails(totals, ahead.total_mean, ahead.total_size, windows.kind)
    return msgspec.structs.replace(spec, month_tail=month_tail, total_tail=total_tail)


def tails(actual: Floats, mean: Floats, size: Floats, kind: NDArray[np.int64]) -> list[float]:
    """One factor on the sizes per class, 1 where fewer than 30 parts are in it: of those whose loss is not worse than the
    least by more than TAIL_DOUBT standard errors of the difference over parts, the nearest to 1. What one validation
    period likes best rests on a few parts' largest months, and does not hold in the next one."""
    found: list[float] = []
    for c in range(len(CLASSES)):
        rows = (kind == c) & np.isfinite(actual).any(axis=1)
        if (kind == c).sum() < 30 or not rows.any():
            found.append(1.0)
            continue
        losses = np.stack([_tail_loss(actual[rows], mean[rows], size[rows] * tail) for tail in TAILS])
        worse = losses - losses[int(np.argmin(losses.mean(axis=1)))]
        doubt = TAIL_DOUBT * worse.std(axis=1) / np.sqrt(worse.shape[1])
        good = [tail for tail, fits in zip(TAILS, worse.mean(axis=1) <= doubt, strict=True) if fits]
        found.append(min(good, key=lambda tail: abs(np.log(tail))))
    return found


def _tail_loss(actual: Floats, mean: Floats, size: Floats) -> Floats:
    """Each part's quantile losses at TAIL_LEVELS together, over its observed months [N]."""
    total = np.zeros(len(actual))
    for level in TAIL_LEVELS:
        gap = actual - counts.quantile(level, mean, size)
        total += np.nanmean(np.maximum(level * gap, (level - 1) * gap), axis=1)
    return total
