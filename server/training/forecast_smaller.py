"""An LSTM that a larger one taught, that was pruned, or both: a curve of error against size, and the network to take.

A pruned network learns on between the steps, taught by the network that it was (or by the teacher, where there is one), at the
pace of a fresh one: half of its hidden units are another network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from export import distill
from export.prune import Surgery, checked_share, pruned
from server.algorithms import lstm
from server.algorithms.lstm import LstmSettings, QuantileLstm
from server.algorithms.teaching import Teaching
from server.training.circumstances import DIGITS, Progress
from server.training.course import WORTH_PRUNING, LstmPlan

SIZES = "sizes"
"""Where in a passport's lineage the curve is kept (JSON, a list of `Size`)."""
TAUGHT = 0.5
TUNING = 0.5
"""Of the epochs and of the learning rate of a fit, after each step of a pruning."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One network of a curve. share: of hidden units taken out; error: relative to the simple reference's, before the
    tail."""

    share: float
    hidden: int
    parameters: int
    error: float


@dataclass(frozen=True)
class Schooling:
    """What the networks of one training learn from. settings: of the one that is asked for."""

    train: lstm.Lessons
    check: lstm.Lessons
    settings: LstmSettings
    machines: int
    signals: int

    def fitted(self, hidden: int, progress: Progress, teaching: Teaching | None = None) -> QuantileLstm:
        """A network of so many hidden units."""
        settings = replace(self.settings, hidden=hidden)
        names = {"machines": self.machines, "signals": self.signals}
        return lstm.fit(self.train, self.check, settings, progress, **names, teaching=teaching)

    def pruned(self, net: QuantileLstm, share: float, teacher: QuantileLstm) -> QuantileLstm:
        """The network without a share of its hidden units, having learned on."""
        settings = self.settings
        slower = replace(
            settings,
            epochs=max(round(TUNING * settings.epochs), 1),
            learning_rate=TUNING * settings.learning_rate,
        )
        how = Surgery(
            units=lstm.units,
            smaller=lambda whole, counts: lstm.resized(whole, min(counts.values())),
            losses=lambda whole: lstm.losses(whole, self.train, settings),
            tune=lambda small: lstm.learn_on(small, self.train, self.check, slower, taught_by(teacher)),
        )
        small = pruned(net, share, how)
        lstm.recalibrate(small, self.check, settings)
        return small


@dataclass(frozen=True)
class Schooled:
    """The network to take; sizes: of all that were made, where pruning was asked for."""

    net: QuantileLstm
    plan: LstmPlan
    sizes: tuple[Size, ...] = ()

    def told(self) -> dict[str, object]:
        """For the lineage."""
        found: dict[str, object] = {"teacher_hidden": self.plan.teacher, "parameters": lstm.parameters(self.net)}
        if self.sizes:
            taken = next(one for one in self.sizes if one.hidden == self.net.lstm.hidden_size)
            found |= {"pruned": taken.share, "hidden_after_pruning": taken.hidden}
            found[SIZES] = msgspec.json.encode(self.sizes).decode()
        return found

    @property
    def words(self) -> str:
        """For the verdict."""
        taught = f"Taught by a network of {self.plan.teacher} hidden units. " if self.plan.teacher else ""
        if not self.sizes:
            return taught
        whole, now = self.sizes[0], self.net.lstm.hidden_size
        return f"{taught}Pruned from {whole.hidden} to {now} hidden units a layer. "


def taught_by(teacher: QuantileLstm) -> Teaching:
    """The teacher's quantiles beside what came."""
    teacher.eval()
    return Teaching(ask=teacher, apart=distill.numbers, share=TAUGHT)


def schooled(
    lessons: Schooling, plan: LstmPlan, error: Callable[[QuantileLstm], float], progress: Progress
) -> Schooled:
    """Teacher, network, pruned networks, as the plan has them. error: of a network on rows that it may be chosen by. Raises
    BadSettings for a share to prune that is none."""
    shares = sorted({checked_share(share) for share in plan.prune} - {0.0})
    steps = (1 if plan.teacher else 0) + 1 + len(shares)
    done = iter(partial(_part, progress, begin, steps) for begin in range(steps))
    teaching = None
    if plan.teacher:
        teaching = taught_by(lessons.fitted(plan.teacher, next(done)))
    net = lessons.fitted(plan.hidden, next(done), teaching)
    if not shares:
        return Schooled(net, plan)
    nets, begun = {0.0: net}, 0.0
    for share in shares:
        tell = next(done)
        tell(0.0, f"LSTM: taking out {share:.0%} of the hidden units")
        further = 1.0 - (1.0 - share) / (1.0 - begun)
        nets[share] = lessons.pruned(nets[begun], further, net)
        begun = share
    sizes = tuple(_size(share, each, error(each)) for share, each in nets.items())
    return Schooled(nets[taken(sizes)], plan, sizes)


def taken(sizes: tuple[Size, ...]) -> float:
    """The share that was asked for, or of several the largest that costs at most WORTH_PRUNING of the error."""
    if len(sizes) == 2:
        return sizes[1].share
    most = sizes[0].error * (1.0 + WORTH_PRUNING)
    return max(one.share for one in sizes if one.error <= most or one.share == 0.0)


def _size(share: float, net: QuantileLstm, error: float) -> Size:
    return Size(share=share, hidden=net.lstm.hidden_size, parameters=lstm.parameters(net), error=round(error, DIGITS))


def _part(progress: Progress, begin: int, steps: int, share: float, step: str) -> None:
    progress((begin + share) / steps, step)
