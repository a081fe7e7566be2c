"""How long a machine will last, as a distribution: recorded lives in, a torch module out.

Discrete-time hazards (Gensheimer & Narasimhan 2019, "A scalable discrete-time survival model for neural networks"; Lee et
al. 2018): the network answers the chance of failing in each bin of remaining life up to a cap, given that the bin was
reached. A unit that had not failed when its record ends contributes P(T > t) and nothing else to the likelihood, so censored
lives are neither thrown away nor taken for failures; beside it, the squared error of the expected life is weighted by the
inverse chance that such a moment escaped censoring (Robins & Rotnitzky 1992; the chance by Kaplan & Meier 1958). Lives
beyond the cap are not told apart (the piecewise target of Heimes 2008).
Operating conditions are clusters of the setting columns (Lloyd 1982 from spread starts), each with its own scaling.

Several small networks answer together inside one graph; their weights are running averages over the training
(Polyak & Juditsky 1992). How sharp the curve may be is learned on units that the networks have not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.errors import Reason, Refused
from protocol.life_windows import Life, LifeSpec, windows_of
from server.algorithms.teaching import Teaching

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class LifeSettings:
    """`every`: a training window each so many rows. `members`: networks in the graph. `mean_weight`: pull of the squared
    error of the expected life, beside the likelihood."""

    members: int = 3
    hidden: int = 48
    dropout: float = 0.2
    weight_decay: float = 1e-2
    learning_rate: float = 3e-3
    batch: int = 256
    epochs: int = 20
    every: int = 2
    likelihood_weight: float = 0.2
    mean_weight: float = 10.0
    folds: int = 4
    most_windows: int = 12_000
    seed: int = 7


class Member(nn.Module):
    """x [N, looks, channels] -> logits of the hazards [N, bins]."""

    def __init__(self, looks: int, channels: int, bins: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(looks * channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, bins)
        nn.init.constant_(self.head.bias, -3.0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


class LifeNet(nn.Module):
    """x [N, looks, channels] -> survival [N, bins], the mean of the members' curves, flattened by `sharpness` (1: as
    learned) in log-odds, which leaves the median where it was."""

    sharpness: Tensor

    def __init__(self, looks: int, channels: int, bins: int, settings: LifeSettings) -> None:
        super().__init__()
        self.bins = bins
        self.members = nn.ModuleList(
            [Member(looks, channels, bins, settings.hidden, settings.dropout) for _ in range(settings.members)]
        )
        self.register_buffer("sharpness", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        curves = torch.stack([torch.exp(log_survival(member(x))) for member in self.members])  # [members, N, bins]
        mean = curves.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        return torch.sigmoid(self.sharpness * (torch.log(mean) - torch.log(1 - mean)))


@dataclass(frozen=True)
class Sample:
    """Windows x [N, looks, channels]; `lived` [N]: life left until the failure or, where not `failed` [N], at least; `age`
    [N]: life until then."""

    x: Float32s
    lived: Float32s
    failed: NDArray[np.bool_]
    age: Float32s

    def __len__(self) -> int:
        return len(self.x)


def log_survival(logits: Tensor) -> Tensor:
    """log P(outliving each bin) [N, bins] from hazard logits."""
    return torch.cumsum(nn.functional.logsigmoid(-logits), dim=1)


def log_deaths(logits: Tensor) -> Tensor:
    """log P(failing in each bin) and last of outliving them all, [N, bins + 1], from hazard logits."""
    alive = log_survival(logits)
    before = torch.cat([torch.zeros_like(alive[:, :1]), alive[:, :-1]], dim=1)
    return torch.cat([before + nn.functional.logsigmoid(logits), alive[:, -1:]], dim=1)


def log_deaths_of(survival: Tensor) -> Tensor:
    """The same [N, bins + 1] of a survival curve [N, bins]."""
    whole = torch.cat([torch.ones_like(survival[:, :1]), survival, torch.zeros_like(survival[:, :1])], dim=1)
    return torch.log((whole[:, :-1] - whole[:, 1:]).clamp(min=1e-7))


def expected(survival: Tensor, width: float) -> Tensor:
    """Area under the curve [N]: expected life up to the cap."""
    whole = torch.cat([torch.ones_like(survival[:, :1]), survival], dim=1)
    return ((whole[:, 1:] + whole[:, :-1]) / 2 * width).sum(dim=1)


def hazard_loss(logits: Tensor, lived: Tensor, failed: Tensor, width: float) -> Tensor:
    """Negative log likelihood [N]: each bin outlived counts 1 - hazard, the bin of the failure its hazard, and nothing is
    said of bins that a censored unit has not finished."""
    bins = logits.shape[1]
    reached = torch.clamp((lived / width).long(), max=bins)
    k = torch.arange(bins)[None]
    alive = (k < reached[:, None]).float()
    died = ((k == reached[:, None]) & failed[:, None]).float()
    return -(nn.functional.logsigmoid(-logits) * alive + nn.functional.logsigmoid(logits) * died).sum(dim=1)


def learn_spec(lives: list[Life], wanted: LifeSpec, conditions: int, seed: int = 7) -> LifeSpec:
    """`wanted` with what only training units can tell: clusters of the settings, each cluster's mean and deviation of every
    signal; signals that never change are dropped. Raises Refused (not_eligible) where nothing is left to learn from."""
    if not lives or sum(len(life) for life in lives) == 0:
        raise Refused(Reason.NOT_ELIGIBLE, "no recorded lives: give a folder with at least one unit's history")
    signals = np.concatenate([life.signals for life in lives])
    settings = np.concatenate([life.settings for life in lives])
    if signals.shape[1] != len(wanted.signals) or settings.shape[1] != len(wanted.settings):
        raise Refused(
            Reason.WRONG_TYPE,
            f"lives of {signals.shape[1]} signals and {settings.shape[1]} settings; "
            f"{len(wanted.signals)} and {len(wanted.settings)} were named",
        )
    center, spread, clusters, member = _conditions(settings, conditions, seed)
    mean, scale, lively = _scales(signals, member, len(clusters))
    kept = np.flatnonzero(lively)
    if not len(kept):
        raise Refused(Reason.NOT_ELIGIBLE, "every signal is constant or empty: nothing tells how a machine ages")
    return _replaced(
        wanted,
        signals=[wanted.signals[k] for k in kept],
        setting_center=center.tolist(),
        setting_scale=spread.tolist(),
        conditions=clusters.tolist(),
        mean=mean[:, kept].tolist(),
        scale=scale[:, kept].tolist(),
    )


def keep_signals(lives: list[Life], names: list[str], spec: LifeSpec) -> list[Life]:
    """The lives with the signals of `spec` only, in its order; `names` are the columns they have now."""
    columns = [names.index(name) for name in spec.signals]
    return [replace(life, signals=life.signals[:, columns]) for life in lives]


def sample(lives: list[Life], spec: LifeSpec, every: int, rng: np.random.Generator | None = None) -> Sample:
    """Windows of recorded lives, each `every` rows from a random start (the first usable row without `rng`)."""
    xs: list[Float32s] = []
    lived: list[Floats] = []
    failed: list[NDArray[np.bool_]] = []
    ages: list[Floats] = []
    for life in lives:
        first = min(spec.least_rows, len(life)) - 1
        start = first + (int(rng.integers(every)) if rng is not None else 0)
        at = np.arange(max(start, 0), len(life), every, dtype=np.int64)
        x, usable = windows_of(life, spec, at)
        xs.append(x[usable])
        lived.append(np.asarray((len(life) - 1 - at[usable]) * spec.per_row, dtype=np.float64))
        failed.append(np.full(int(usable.sum()), life.failed))
        ages.append(np.asarray((at[usable] + 1) * spec.per_row, dtype=np.float64))
    if not xs:
        none = np.zeros(0, np.float32)
        return Sample(np.zeros((0, spec.looks, spec.channels), np.float32), none, np.zeros(0, bool), none)
    return Sample(
        np.concatenate(xs),
        np.concatenate(lived).astype(np.float32),
        np.concatenate(failed),
        np.concatenate(ages).astype(np.float32),
    )


def escaped_censoring(rows: Sample, lives: list[Life], spec: LifeSpec) -> Float32s:
    """Weight [N] of each moment whose life up to the cap is known: one over the chance that a unit of its age was still
    watched when it became known; 0 where it is not known."""
    ends = np.array([len(life) * spec.per_row for life in lives])
    order = np.argsort(ends, kind="stable")
    at_risk = len(ends) - np.arange(len(ends))
    lost = np.array([not life.failed for life in lives])[order]
    watched = np.concatenate([[1.0], np.cumprod(1.0 - lost / at_risk)])
    known = rows.failed | (rows.lived >= spec.cap)
    until = rows.age + np.minimum(rows.lived, spec.cap)
    now, then = (watched[np.searchsorted(ends[order], t - 1e-6 * spec.per_row)] for t in (rows.age, until))
    return np.where(known, now / np.maximum(then, 0.05), 0.0).astype(np.float32)


def fit(
    lives: list[Life],
    spec: LifeSpec,
    settings: LifeSettings,
    progress: Callable[[float, str], None],
    teaching: Teaching | None = None,
) -> LifeNet:
    """Networks for `lives` whose signals are those of `spec`. The curve's sharpness is learned on units held out in turn
    (`folds`; 0 leaves it as it is). The same lives and seed give the same networks on the same machine. teaching: asked once
    for all windows; says log P of failing in each bin and of outliving them all, [N, bins + 1], which the student is held
    to likewise. Raises Refused (not_eligible) with fewer than two units that failed or no usable window."""
    if sum(life.failed for life in lives) < 2:
        raise Refused(
            Reason.NOT_ELIGIBLE, f"{sum(life.failed for life in lives)} units failed; at least two must have failed"
        )
    torch.set_num_threads(1)
    folds = min(settings.folds, len(lives))
    share = 1 / (folds + settings.members)
    told, lived, failed = [], [], []
    for fold in range(folds if folds >= 2 else 0):
        held = lives[fold::folds]
        rest = [life for i, life in enumerate(lives) if i % folds != fold]
        if not any(life.failed for life in rest):
            continue
        # trained like the real ones, or they would not be as sure of themselves as the real ones
        small = replace(settings, members=1, seed=settings.seed + 1000 * (fold + 1))
        net = _train(rest, spec, small, None)  # a teacher has seen the units that are held out here
        checked = sample(held, spec, max(settings.every * 3, 1))
        if len(checked):
            told.append(answer(net, checked.x))
            lived.append(checked.lived)
            failed.append(checked.failed)
        progress(share * (fold + 1), f"remaining life: units held out, part {fold + 1} of {folds}")
    net = _train(lives, spec, settings, teaching)
    if told:
        net.sharpness.fill_(
            _sharpness(np.concatenate(told), np.concatenate(lived), np.concatenate(failed), spec.cap / spec.bins)
        )
    progress(1.0, "remaining life: trained")
    return net.eval()


def answer(net: LifeNet, x: Float32s) -> Float32s:
    """The float network's survival curves [N, bins]."""
    with torch.inference_mode():
        parts = [net.eval()(part).numpy() for part in torch.from_numpy(np.ascontiguousarray(x)).split(1024)]
    return np.concatenate(parts) if parts else np.zeros((0, net.bins), dtype=np.float32)


def parameters(net: LifeNet) -> int:
    """How many weights the graph holds."""
    return sum(weight.numel() for weight in net.parameters())


def _train(lives: list[Life], spec: LifeSpec, settings: LifeSettings, teaching: Teaching | None) -> LifeNet:
    rows = sample(lives, spec, settings.every, np.random.default_rng(settings.seed))
    if not len(rows):
        raise Refused(Reason.NOT_ELIGIBLE, f"no window of {spec.least_rows} rows or more with enough readings in it")
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    if len(rows) > settings.most_windows:
        kept = np.sort(order.choice(len(rows), settings.most_windows, replace=False))
        rows = Sample(rows.x[kept], rows.lived[kept], rows.failed[kept], rows.age[kept])
    x, lived, failed = (torch.from_numpy(part) for part in (rows.x, rows.lived, rows.failed))
    weight = torch.from_numpy(escaped_censoring(rows, lives, spec))
    width = spec.cap / spec.bins
    with torch.no_grad():
        told = None if teaching is None else torch.cat([teaching.ask(part) for part in x.split(1024)])
    net = LifeNet(spec.looks, spec.channels, spec.bins, settings)
    batch = int(np.clip(len(x) // 20, min(16, len(x)), settings.batch))  # a small set still gives twenty steps an epoch
    steps = max(settings.epochs * (len(x) // batch), 20)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps, pct_start=0.1)
    weights = list(net.parameters())
    averages = [weight.detach().clone() for weight in weights]
    step = 0
    while step < steps:
        for chosen in torch.from_numpy(order.permutation(len(x))).split(batch):
            if step >= steps or (len(chosen) < batch and len(x) >= batch):
                break
            target = torch.clamp(lived[chosen], max=spec.cap)
            loss = torch.zeros(())
            for member in net.members:
                logits = member(x[chosen])
                gap = (expected(torch.exp(log_survival(logits)), width) - target) / spec.cap
                likelihood = hazard_loss(logits, lived[chosen], failed[chosen], width).mean()
                squared = (weight[chosen] * gap.pow(2)).mean()
                truth = settings.likelihood_weight * likelihood + settings.mean_weight * squared
                if teaching is not None and told is not None:
                    truth = teaching.mixed(truth, log_deaths(logits), told[chosen])
                loss = loss + truth
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(
                    averages, [weight.detach() for weight in weights], 1 - min(0.995, step / (step + 10))
                )
    with torch.no_grad():
        for weight, average in zip(weights, averages, strict=True):
            weight.copy_(average)
    return net.eval()


def _sharpness(told: Float32s, lived: Float32s, failed: NDArray[np.bool_], width: float) -> float:
    """Which flattening of held-out survival curves `told` [N, bins] makes what happened most likely, 0.3 to 3."""
    curve = np.clip(told.astype(np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(curve) - np.log1p(-curve)
    bins = curve.shape[1]
    rows = np.arange(len(curve))
    reached = np.minimum((lived / width).astype(np.int64), bins)
    died = failed & (reached < bins)
    grid = np.linspace(0.3, 3.0, 109)
    found = []
    for sharp in grid:
        whole = np.concatenate([np.ones((len(curve), 1)), 1 / (1 + np.exp(-sharp * odds))], axis=1)
        before = whole[rows, reached]
        after = whole[rows, np.minimum(reached + 1, bins)]
        found.append(np.log(np.maximum(np.where(died, before - after, before), 1e-9)).mean())
    return float(grid[int(np.argmax(found))])


def _conditions(settings: Floats, wanted: int, seed: int) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """(center, scale, clusters, cluster of each row): k-means from starts that are far apart. A setting that never changes
    counts for nothing; fewer distinct settings than `wanted` give fewer clusters."""
    if settings.shape[1] == 0 or wanted <= 1:
        width = settings.shape[1]
        return np.zeros(width), np.ones(width), np.zeros((1, width)), np.zeros(len(settings), dtype=np.int64)
    seen = np.asarray(np.isfinite(settings).all(axis=1), dtype=bool)
    if not seen.any():
        raise Refused(Reason.NOT_ELIGIBLE, "no row with every setting read: leave the settings out or give them")
    center = settings[seen].mean(axis=0)
    spread = settings[seen].std(axis=0)
    scale = np.where(spread > 1e-9 * np.maximum(np.abs(center), 1.0), spread, 1e12)
    rows = np.where(seen[:, None], (settings - center) / scale, 0.0)
    rng = np.random.default_rng(seed)
    some = rows[seen][rng.permutation(int(seen.sum()))[:20_000]]
    clusters = some[:1]
    while len(clusters) < wanted:
        away = ((some[:, None] - clusters[None]) ** 2).sum(axis=2).min(axis=1)
        if away.max() < 1e-6:
            break
        clusters = np.concatenate([clusters, some[[int(np.argmax(away))]]])
    for _ in range(50):
        nearest = ((some[:, None] - clusters[None]) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack(
            [some[nearest == c].mean(axis=0) if (nearest == c).any() else clusters[c] for c in range(len(clusters))]
        )
        if np.allclose(moved, clusters, atol=1e-6):
            break
        clusters = moved
    member = ((rows[:, None] - clusters[None]) ** 2).sum(axis=2).argmin(axis=1)
    return center, scale, clusters, member


def _scales(signals: Floats, member: NDArray[np.int64], conditions: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Mean and deviation [conditions, S] of each signal in each condition, and which signals live in any of them."""
    width = signals.shape[1]
    mean, scale = np.zeros((conditions, width)), np.ones((conditions, width))
    lively = np.zeros(width, dtype=bool)
    for c in range(conditions):
        for s in range(width):
            values = signals[member == c, s]
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            mean[c, s] = values.mean()
            deviation = float(values.std())
            moves = deviation > 1e-7 * max(abs(float(values.mean())), 1e-12) and len(np.unique(values)) > 3
            scale[c, s] = deviation if moves else max(abs(mean[c, s]), 1.0)
            lively[s] |= moves
    return mean, scale, lively


def _replaced(spec: LifeSpec, **changes: object) -> LifeSpec:
    made: LifeSpec = msgspec.structs.replace(spec, **changes)
    made.check()
    return made
