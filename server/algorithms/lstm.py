"""One LSTM for every signal of a site, all horizons at once: windows in, a torch module out.

Hochreiter & Schmidhuber 1997 (LSTM); Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster" (direct horizons,
pinball loss); Kim et al. 2022 (reversible normalisation, done in protocol/windows.py); Perez et al. 2018 (identity as
a gain and a shift). The network answers what to add to a closed-form ridge over the window and last season, so that an
untrained network already is a sound forecast and training can only be asked for what a linear map cannot say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.windows import CHANNELS
from server.algorithms.teaching import Teaching
from server.algorithms.units import Part, Units, blocks, columns, rows_and_bias

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
MIDDLE = LEVELS.index(0.5)
NEARER = (1, MIDDLE, MIDDLE, MIDDLE, 3)
"""The level next to each on the way to the middle; the middle's own for those beside it."""
REFINING_EPOCHS = 4
IDENTITY = 8
"""Numbers that stand for a machine, and as many for a signal."""
VALUE, OBSERVED, SEASON_AGO = (CHANNELS.index(name) for name in ("value", "observed", "season_ago"))
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LstmSettings:
    """`most_windows`: more are thinned out evenly, so that a training stays a matter of minutes on one core.
    forget_machine, forget_signal: share of training rows that are shown without their identity, which is what makes
    a machine that was never seen answerable."""

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.1
    weight_decay: float = 1e-3
    learning_rate: float = 2e-3
    batch: int = 128
    epochs: int = 12
    patience: int = 4
    most_windows: int = 5000
    forget_machine: float = 0.2
    forget_signal: float = 0.05
    threads: int = 1
    seed: int = 7


@dataclass(frozen=True)
class Lessons:
    """x [N, length, channels] (protocol.windows), y [N, horizon] scaled (NaN: not observed), who [N, 2] (machine, signal;
    0: unknown; None: all unknown)."""

    x: Float32s
    y: Float32s
    who: Ints | None = field(default=None)

    def names(self) -> Ints:
        """`who`, or zeros."""
        return np.zeros((len(self.x), 2), dtype=np.int64) if self.who is None else self.who

    def thinned(self, most: int) -> Lessons:
        """At most `most` rows, evenly."""
        if len(self.x) <= most:
            return self
        chosen = np.linspace(0, len(self.x) - 1, most).astype(np.int64)
        return Lessons(self.x[chosen], self.y[chosen], self.names()[chosen])


class QuantileLstm(nn.Module):
    """(x [N, length, channels], who int64 [N, 2]) -> quantiles [N, horizon, LEVELS], never crossing, in scaled units."""

    anchor_weights: Tensor
    usual_scale: Tensor
    widen: Tensor
    first_names: Tensor
    nearer: Tensor

    def __init__(
        self,
        horizon: int,
        length: int,
        settings: LstmSettings,
        *,
        channels: int = len(CHANNELS),
        machines: int = 0,
        signals: int = 0,
    ) -> None:
        super().__init__()
        self.horizon, self.length = horizon, length
        self.covariates = (channels - len(CHANNELS)) // 2  # the channel left over is the window's scale
        hidden, layers = settings.hidden, settings.layers
        self.lstm = nn.LSTM(
            len(CHANNELS) + 2 * self.covariates,
            hidden,
            layers,
            batch_first=True,
            dropout=settings.dropout if layers > 1 else 0.0,
        )
        self.drop = nn.Dropout(settings.dropout)
        self.machine = nn.Embedding(machines + 1, IDENTITY)
        self.signal = nn.Embedding(signals + 1, IDENTITY)
        self.gain = nn.Linear(2 * IDENTITY, hidden)
        self.shift = nn.Linear(2 * IDENTITY, hidden)
        self.head = nn.Linear(hidden, horizon * len(LEVELS))
        self.effect = nn.Embedding(signals + 1, max(2 * self.covariates, 1))
        nn.init.zeros_(self.effect.weight)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for table in (self.machine, self.signal):
            nn.init.normal_(table.weight, std=0.3)
        self.register_buffer("anchor_weights", torch.zeros(horizon, length + horizon))
        self.register_buffer("usual_scale", torch.zeros(signals + 1))
        self.register_buffer("widen", torch.ones(2, horizon))
        self.register_buffer("first_names", torch.tensor([0, machines + 1]), persistent=False)
        self.register_buffer("nearer", torch.tensor(NEARER), persistent=False)

    def forward(self, x: Tensor, who: Tensor) -> Tensor:
        names = torch.cat([self.machine.weight, self.signal.weight])  # one table, so that both are looked up at once
        identity = nn.functional.embedding(who + self.first_names, names).reshape(-1, 2 * IDENTITY)
        state, _ = self.lstm(x[:, :, : len(CHANNELS) + 2 * self.covariates])  # [N, length, hidden]
        last = self.drop(state[:, -1]) * (1.0 + self.gain(identity)) + self.shift(identity)
        answer = self.head(last).reshape(-1, self.horizon, len(LEVELS))
        middle = self.anchor(x) + answer[:, :, MIDDLE]
        if self.covariates:
            middle = middle + self.known_effect(x, who)
        inner, outer = self.widen[0], self.widen[1]
        widths = torch.stack([-outer, -inner, torch.zeros_like(inner), inner, outer], dim=1)  # [horizon, LEVELS]
        steps = nn.functional.softplus(answer) * widths  # [N, horizon, LEVELS], none of the middle
        return middle[:, :, None] + (steps + steps.index_select(2, self.nearer))

    def anchor(self, x: Tensor) -> Tensor:
        """The closed-form forecast [N, horizon]: the last value plus a linear map of the window and of last season over
        the horizon, both seen from the last value. Sums of products, not a matrix product: those become int8."""
        seen = _anchor_inputs(x, self.horizon)  # [N, length + horizon]
        return x[:, -1:, VALUE] + (seen[:, None, :] * self.anchor_weights[None]).sum(dim=2)

    def known_effect(self, x: Tensor, who: Tensor) -> Tensor:
        """What the known future adds at its own step [N, horizon], by signal, in the signal's own unit."""
        effect: Tensor = (self.known_changes(x, who) * self.effect(who[:, 1])[:, None, :]).sum(dim=2)
        return effect

    def known_changes(self, x: Tensor, who: Tensor) -> Tensor:
        """Of each covariate over the horizon [N, horizon, 2C]: how far it lies from its mean in the window (a load that
        acts while it lasts), and how much of it has come since the window's end (an amount that stays); larger where the
        window is calmer than the signal usually is, so that the effect in the signal's unit is the same."""
        first, end = len(CHANNELS), len(CHANNELS) + 2 * self.covariates
        now, ahead = x[:, :, first:end:2], x[:, -self.horizon :, first + 1 : end : 2]
        changes = torch.cat([ahead - now.mean(dim=1, keepdim=True), ahead.cumsum(dim=1)], dim=2)
        calm = torch.exp(torch.clamp(self.usual_scale[who[:, 1]] - x[:, -1, -1], -4.0, 4.0))
        return changes * torch.where(who[:, 1] > 0, calm, torch.ones_like(calm))[:, None, None]


def fit(
    train: Lessons,
    check: Lessons,
    settings: LstmSettings,
    progress: Callable[[float, str], None],
    *,
    machines: int = 0,
    signals: int = 0,
    teaching: Teaching | None = None,
) -> QuantileLstm:
    """Fits on `train`, stops early on `check`, which lies later in time. The same arrays and seed give the same network
    on the same machine. teaching: asked (x, who) once for all rows, with the quantiles of another network. Raises ValueError
    if the window is shorter than the horizon, or there is nothing to learn."""
    if not len(train.x) or not len(check.x):
        raise ValueError(f"{len(train.x)} windows to learn from and {len(check.x)} to check on: both are needed")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    x, y, who = _tensors(train.thinned(settings.most_windows))
    later = _tensors(check.thinned(max(settings.most_windows // 4, 1)))
    net = QuantileLstm(y.shape[1], x.shape[1], settings, channels=x.shape[2], machines=machines, signals=signals)
    _start_closed_form(net, x, y, who, later)
    _descend(net, (x, y, who), later, settings, order, progress, teaching)
    _calibrate(net.eval(), later)
    return net.eval()


def refine(
    net: QuantileLstm, train: Lessons, check: Lessons, settings: LstmSettings, teaching: Teaching | None = None
) -> None:
    """A few more epochs at a fifth of the pace, in place: for a fitted network whose weights were rounded since."""
    slower = replace(settings, epochs=min(settings.epochs, REFINING_EPOCHS), learning_rate=settings.learning_rate / 5)
    learn_on(net, train, check, slower, teaching)


def learn_on(
    net: QuantileLstm, train: Lessons, check: Lessons, settings: LstmSettings, teaching: Teaching | None = None
) -> None:
    """More epochs as the settings say, in place, to the best of them; intervals stay as they were stretched."""
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    later = _tensors(check.thinned(max(settings.most_windows // 4, 1)))
    lessons = _tensors(train.thinned(settings.most_windows))
    _descend(net, lessons, later, settings, order, lambda _share, _step: None, teaching)


def recalibrate(net: QuantileLstm, check: Lessons, settings: LstmSettings) -> None:
    """Stretches the intervals anew, in place, as `fit` does in the end."""
    net.widen.fill_(1.0)
    _calibrate(net.eval(), _tensors(check.thinned(max(settings.most_windows // 4, 1))))


def units(net: QuantileLstm) -> list[Units]:
    """The hidden units of each layer: their gates, what the layer itself, the next one and the head read of them."""
    hidden, last = net.lstm.hidden_size, net.lstm.num_layers - 1
    gates, own = blocks(hidden, 1, 0, hidden, 2 * hidden, 3 * hidden), blocks(hidden, 1, 0)
    found = []
    for layer in range(last + 1):
        written = [Part(f"lstm.{kind}_l{layer}", 0, gates) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        read = [Part(f"lstm.weight_hh_l{layer}", 1, own)]
        if layer < last:
            read.append(Part(f"lstm.weight_ih_l{layer + 1}", 1, own))
        else:
            read += [*columns("head", own), *rows_and_bias("gain", own), *rows_and_bias("shift", own)]
        found.append(Units(f"layer {layer}", (*written, *read)))
    return found


def resized(net: QuantileLstm, hidden: int) -> QuantileLstm:
    """An unfitted network like `net` with so many hidden units a layer."""
    return QuantileLstm(
        net.horizon,
        net.length,
        LstmSettings(hidden=hidden, layers=net.lstm.num_layers, dropout=net.drop.p),
        channels=len(CHANNELS) + 2 * net.covariates,
        machines=net.machine.num_embeddings - 1,
        signals=net.signal.num_embeddings - 1,
    )


def losses(net: QuantileLstm, train: Lessons, settings: LstmSettings, most: int = 16) -> Iterator[Tensor]:
    """Quantile losses of at most so many batches, evenly out of `train`."""
    x, y, who = _tensors(train.thinned(most * settings.batch))
    for rows in torch.arange(len(x)).split(settings.batch):
        yield pinball(net(x[rows], who[rows]), y[rows])


def parameters(net: QuantileLstm) -> int:
    """How many weights there are."""
    return sum(weight.numel() for weight in net.parameters())


def _descend(
    net: QuantileLstm,
    lessons: tuple[Tensor, Tensor, Tensor],
    later: tuple[Tensor, Tensor, Tensor],
    settings: LstmSettings,
    order: np.random.Generator,
    progress: Callable[[float, str], None],
    teaching: Teaching | None = None,
) -> None:
    """Stochastic descent, in place, to the epoch that was best on the rows `later`."""
    x, y, who = lessons
    told = None if teaching is None else _told(teaching, x, who)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, max(settings.epochs, 1), settings.learning_rate / 20
    )
    best, best_state, waited = _judge(net, later), _copy(net), 0
    for epoch in range(settings.epochs):
        net.train()
        shuffled = torch.from_numpy(order.permutation(len(x)))
        forget = torch.from_numpy(order.random((len(x), 2)) < (settings.forget_machine, settings.forget_signal))
        shown = who.masked_fill(forget, 0)
        for rows in shuffled.split(settings.batch):
            optimiser.zero_grad()
            said = net(x[rows], shown[rows])
            loss = pinball(said, y[rows])
            if teaching is not None and told is not None:
                loss = teaching.mixed(loss, said, told[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
        schedule.step()
        checked = _judge(net, later)
        progress((epoch + 1) / settings.epochs, f"LSTM epoch {epoch + 1} of {settings.epochs}, loss {checked:.4f}")
        if checked < best:
            best, best_state, waited = checked, _copy(net), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    net.load_state_dict(best_state)


def pinball(answer: Tensor, y: Tensor) -> Tensor:
    """Mean quantile loss over observed targets."""
    seen = torch.isfinite(y)
    gap = (torch.nan_to_num(y)[:, :, None] - answer) * seen[:, :, None]
    levels = torch.tensor(LEVELS)
    return torch.maximum(levels * gap, (levels - 1) * gap).sum() / (seen.sum() * len(LEVELS)).clamp(min=1)


def answer(net: QuantileLstm, x: Float32s, who: Ints | None = None) -> Float32s:
    """The float network's quantiles [N, horizon, LEVELS]; who [N, 2] (None: all unknown)."""
    names = np.zeros((len(x), 2), dtype=np.int64) if who is None else who
    with torch.inference_mode():
        parts = [
            net.eval()(torch.from_numpy(x[at : at + 512]), torch.from_numpy(names[at : at + 512])).numpy()
            for at in range(0, len(x), 512)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, net.horizon, len(LEVELS)), dtype=np.float32)


def _tensors(lessons: Lessons) -> tuple[Tensor, Tensor, Tensor]:
    x, y = (np.ascontiguousarray(part, dtype=np.float32) for part in (lessons.x, lessons.y))
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(np.ascontiguousarray(lessons.names()))


def _copy(net: QuantileLstm) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _judge(net: QuantileLstm, later: tuple[Tensor, Tensor, Tensor]) -> float:
    x, y, who = later
    net.eval()
    with torch.inference_mode():
        return float(pinball(torch.cat([net(*part) for part in zip(x.split(512), who.split(512), strict=True)]), y))


def _told(teaching: Teaching, x: Tensor, who: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([teaching.ask(*part) for part in zip(x.split(512), who.split(512), strict=True)])


def _anchor_inputs(x: Tensor, horizon: int) -> Tensor:
    return torch.cat([x[:, :, VALUE], x[:, -horizon:, SEASON_AGO]], dim=1) - x[:, -1:, VALUE]


def _start_closed_form(
    net: QuantileLstm, x: Tensor, y: Tensor, who: Tensor, later: tuple[Tensor, Tensor, Tensor]
) -> None:
    """The anchor and the effects of covariates by least squares, one after the other until they agree."""
    if not net.covariates:
        net.anchor_weights.copy_(_anchor(x, y, later[0], later[1]))
        return
    with torch.no_grad():
        for signal in who[:, 1].unique().tolist():
            net.usual_scale[signal] = x[who[:, 1] == signal, -1, -1].mean()
        changes, unscaled = net.known_changes(x, who), net.known_changes(x, torch.zeros_like(who))
        for _ in range(3):
            net.anchor_weights.copy_(
                _anchor(x, y - net.known_effect(x, who), later[0], later[1] - net.known_effect(later[0], later[2]))
            )
            left = y - net.anchor(x)
            for signal in range(net.effect.num_embeddings):
                rows = (who[:, 1] == signal) if signal else torch.ones(len(who), dtype=torch.bool)
                if int(rows.sum()) >= 8:
                    net.effect.weight[signal] = _least_squares((changes if signal else unscaled)[rows], left[rows])


def _least_squares(z: Tensor, left: Tensor) -> Tensor:
    """Lightly ridged coefficients [K] of z [N, horizon, K] for what is left [N, horizon] (NaN: not observed)."""
    seen = torch.isfinite(left)
    columns, target = z[seen].double(), left[seen].double()
    gram = columns.T @ columns + 1e-3 * len(columns) * torch.eye(columns.shape[1], dtype=torch.float64)
    found: Tensor = torch.linalg.solve(gram + 1e-6 * torch.eye(len(gram), dtype=torch.float64), columns.T @ target)
    return found.float()


def _anchor(x: Tensor, y: Tensor, check_x: Tensor, check_y: Tensor) -> Tensor:
    """Ridge weights [horizon, length + horizon]; the penalty with the lowest absolute error on the check rows. What was
    not observed is taken as the last value, so that it teaches nothing."""
    horizon = y.shape[1]
    if x.shape[1] < horizon:
        raise ValueError(f"window of {x.shape[1]} steps is shorter than the horizon of {horizon}")
    z = _anchor_inputs(x, horizon).double()
    target = torch.nan_to_num((y - x[:, -1:, VALUE]).double())
    gram, cross = z.T @ z, z.T @ target
    seen = _anchor_inputs(check_x, horizon).double()
    left = (check_y - check_x[:, -1:, VALUE]).double()
    found: list[tuple[float, Tensor]] = []
    for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
        weights = torch.linalg.solve(gram + penalty * len(z) * torch.eye(len(gram), dtype=torch.float64), cross)
        found.append((float((left - seen @ weights).abs().nanmean()), weights))
    return min(found, key=lambda one: one[0])[1].T.float()


def _calibrate(net: QuantileLstm, later: tuple[Tensor, Tensor, Tensor]) -> None:
    """Stretches each horizon's 80 and 95 % intervals until they hold the nominal share of the check rows (split conformal,
    Romano et al. 2019, in its multiplicative form)."""
    x, y, who = later
    with torch.inference_mode():
        q = torch.cat([net(*part) for part in zip(x.split(512), who.split(512), strict=True)])
        lowest, low, middle, high, highest = q.unbind(dim=2)
        gap = y - middle
        above = gap >= 0
        inner = torch.where(above, high - middle, middle - low).clamp(min=1e-6)
        outer = torch.where(above, highest - high, low - lowest).clamp(min=1e-6)
        for h in range(net.horizon):
            seen = torch.isfinite(gap[:, h])
            if int(seen.sum()) < 20:
                continue
            miss = gap[seen, h].abs()
            first = torch.quantile(miss / inner[seen, h], LEVELS[3] - LEVELS[1]).clamp(0.3, 4.0)
            left = (miss - first * inner[seen, h]) / outer[seen, h]
            net.widen[0, h] = first
            net.widen[1, h] = torch.quantile(left, LEVELS[4] - LEVELS[0]).clamp(0.1, 8.0)
