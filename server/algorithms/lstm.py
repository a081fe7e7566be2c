"""One LSTM for every signal of a site, all horizons at once: windows in, a torch module out.

Hochreiter & Schmidhuber 1997 (LSTM); Wen et al. 2017, "A Multi-Horizon Quantile Recurrent Forecaster" (direct
horizons, pinball loss). The network answers what to add to a naive anchor (a blend of the last value and the
value one season ago, fitted by least squares), so that an untrained network already is a simple forecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.windows import CHANNELS

LEVELS = (0.1, 0.5, 0.9)
Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class LstmSettings:
    """`most_windows`: more are thinned out evenly, so that a training stays a matter of seconds on two
    cores."""

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.1
    weight_decay: float = 1e-3
    learning_rate: float = 2e-3
    batch: int = 128
    epochs: int = 12
    patience: int = 4
    most_windows: int = 5000
    seed: int = 7


class QuantileLstm(nn.Module):
    """x [N, length, channels] -> quantiles [N, horizon, 3], never crossing, in scaled units."""

    blend: Tensor
    widen: Tensor

    def __init__(self, horizon: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.horizon = horizon
        self.lstm = nn.LSTM(len(CHANNELS), hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, horizon * len(LEVELS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("blend", torch.zeros(horizon))
        self.register_buffer("widen", torch.ones(horizon))

    def forward(self, x: Tensor) -> Tensor:
        state, _ = self.lstm(x)  # [N, length, hidden]
        answer = self.head(self.drop(state[:, -1])).reshape(-1, self.horizon, len(LEVELS))
        middle = self.anchor(x) + answer[:, :, 1]
        low = middle - self.widen * nn.functional.softplus(answer[:, :, 0])
        high = middle + self.widen * nn.functional.softplus(answer[:, :, 2])
        return torch.stack([low, middle, high], dim=2)  # [N, horizon, 3]

    def anchor(self, x: Tensor) -> Tensor:
        """The naive blend [N, horizon]: the last `horizon` steps of `season_ago` lie over the horizon."""
        last = x[:, -1:, 0]
        return last + self.blend * (x[:, -self.horizon :, CHANNELS.index("season_ago")] - last)


def fit(
    train: tuple[Float32s, Float32s],
    check: tuple[Float32s, Float32s],
    settings: LstmSettings,
    progress: Callable[[float, str], None],
) -> QuantileLstm:
    """Fits on `train` (x [N, length, channels], y [N, horizon], NaN: not observed), stops early on `check`,
    which lies later in time. The same arrays and seed give the same network on the same machine."""
    torch.set_num_threads(2)
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed)
    x, y = (torch.from_numpy(_thinned(part, settings.most_windows)) for part in train)
    check_x, check_y = (torch.from_numpy(_thinned(part, settings.most_windows // 4)) for part in check)
    net = QuantileLstm(y.shape[1], settings.hidden, settings.layers, settings.dropout)
    net.blend.copy_(_blend(x, y))
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, max(settings.epochs, 1), settings.learning_rate / 20
    )
    best, best_state, waited = _judge(net, check_x, check_y), _copy(net), 0
    for epoch in range(settings.epochs):
        net.train()
        shuffled = torch.from_numpy(order.permutation(len(x)))
        for rows in shuffled.split(settings.batch):
            optimiser.zero_grad()
            pinball(net(x[rows]), y[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
        schedule.step()
        loss = _judge(net, check_x, check_y)
        progress((epoch + 1) / settings.epochs, f"LSTM epoch {epoch + 1} of {settings.epochs}, loss {loss:.4f}")
        if loss < best:
            best, best_state, waited = loss, _copy(net), 0
        else:
            waited += 1
            if waited >= settings.patience:
                break
    net.load_state_dict(best_state)
    _calibrate(net.eval(), check_x, check_y)
    return net.eval()


def pinball(answer: Tensor, y: Tensor) -> Tensor:
    """Mean quantile loss over observed targets."""
    seen = torch.isfinite(y)
    gap = (torch.nan_to_num(y)[:, :, None] - answer) * seen[:, :, None]
    levels = torch.tensor(LEVELS)
    return torch.maximum(levels * gap, (levels - 1) * gap).sum() / (seen.sum() * len(LEVELS)).clamp(min=1)


def answer(net: QuantileLstm, x: Float32s) -> Float32s:
    """The float network's quantiles [N, horizon, 3]."""
    with torch.inference_mode():
        parts = [net.eval()(part).numpy() for part in torch.from_numpy(x).split(512)]
    return np.concatenate(parts) if parts else np.zeros((0, net.horizon, len(LEVELS)), dtype=np.float32)


def _thinned(rows: Float32s, most: int) -> Float32s:
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    return np.ascontiguousarray(rows, dtype=np.float32)


def _copy(net: QuantileLstm) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _judge(net: QuantileLstm, x: Tensor, y: Tensor) -> float:
    net.eval()
    with torch.inference_mode():
        return float(pinball(net(x), y))


def _blend(x: Tensor, y: Tensor) -> Tensor:
    """Least-squares weight of "one season ago" against "last value" for each step of the horizon, within
    0..1."""
    horizon = y.shape[1]
    if x.shape[1] < horizon:
        raise ValueError(f"window of {x.shape[1]} steps is shorter than the horizon of {horizon}")
    last = x[:, -1:, 0]
    season = x[:, -horizon:, CHANNELS.index("season_ago")] - last
    target = torch.nan_to_num(y - last)
    season = torch.where(torch.isfinite(y), season, torch.zeros_like(season))
    return ((season * target).sum(0) / (season * season).sum(0).clamp(min=1e-6)).clamp(0.0, 1.0)


def _calibrate(net: QuantileLstm, x: Tensor, y: Tensor) -> None:
    """Stretches each horizon's interval until it holds the nominal share of the check rows (split conformal,
    Romano et al. 2019, in its multiplicative form)."""
    with torch.inference_mode():
        low, middle, high = net(x).unbind(dim=2)
        gap = y - middle
        needed = torch.where(gap >= 0, gap / (high - middle).clamp(min=1e-6), -gap / (middle - low).clamp(min=1e-6))
        share = LEVELS[-1] - LEVELS[0]
        for h in range(net.horizon):
            column = needed[:, h][torch.isfinite(needed[:, h])]
            if len(column) >= 20:
                net.widen[h] = torch.quantile(column, share).clamp(0.3, 4.0)
