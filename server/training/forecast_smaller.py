"""An LSTM that a larger one taught, that was pruned, or both: a curve of error against size, and the network to take.

A pruned network learns on between the steps, taught by the network that it was, at half the pace of a fresh one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from export import distill
from export.prune import Surgery, checked_share, pruned, thinned
from server.algorithms import lstm
from server.algorithms.lstm import LstmSettings, QuantileLstm
from server.algorithms.teaching import Teaching
from server.training.circumstances import DIGITS, Progress
from server.training.course import SIZES, WORTH_PRUNING, LstmPlan, Size

TAUGHT = 0.8
"""What the teacher's quantiles count; the truth counts the rest. Chosen on ETTh1 before its test rows."""
TUNING = 0.5
"""Of the epochs and of the learning rate of a fit, after each step of a pruning."""


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

    def pruned(self, net: QuantileLstm, share: float, teacher: QuantileLstm, of: str = "units") -> QuantileLstm:
        """Another network without a share of the hidden units, or of the weights, having learned on."""
        settings = self.settings
        slower = replace(
            settings,
            epochs=max(round(TUNING * settings.epochs), 1),
            learning_rate=TUNING * settings.learning_rate,
        )

        def tune(small: QuantileLstm) -> None:
            lstm.learn_on(small, self.train, self.check, slower, taught_by(teacher))

        if of == "units":
            how = Surgery(
                units=lstm.units,
                smaller=lambda whole, counts: lstm.resized(whole, min(counts.values())),
                losses=lambda whole: lstm.losses(whole, self.train, settings),
                tune=tune,
            )
            small = pruned(net, share, how)
        else:
            small = thinned(copy.deepcopy(net), share, tune)
        lstm.recalibrate(small, self.check, settings)
        return small


@dataclass(frozen=True)
class Schooled:
    """The network to take; sizes: of all that were made, where pruning was asked for, and `size` its own among them."""

    net: QuantileLstm
    plan: LstmPlan
    sizes: tuple[Size, ...] = ()
    size: Size | None = None

    def told(self) -> dict[str, object]:
        """For the lineage."""
        found: dict[str, object] = {"teacher_hidden": self.plan.teacher, "parameters": lstm.parameters(self.net)}
        if self.size is not None:
            one = self.size
            found |= {"pruned": one.share, "pruned_of": self.plan.prune_of, "hidden_after_pruning": one.hidden}
            found[SIZES] = msgspec.json.encode(self.sizes).decode()
        return found

    @property
    def words(self) -> str:
        """For the verdict."""
        taught = f"Taught by a network of {self.plan.teacher} hidden units. " if self.plan.teacher else ""
        if self.size is None:
            return taught
        whole = self.sizes[0]
        return f"{taught}Pruned from {whole.parameters} to {self.size.parameters} weights. "


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
        tell(0.0, f"LSTM: taking out {share:.0%} of its {plan.prune_of}")
        # what is zero already stays: of weights the whole share is counted, of units what is left of it
        further = share if plan.prune_of == "weights" else 1.0 - (1.0 - share) / (1.0 - begun)
        nets[share] = lessons.pruned(nets[begun], further, net, plan.prune_of)
        begun = share
    sizes = tuple(_size(share, each, error(each)) for share, each in nets.items())
    size = taken(sizes)
    return Schooled(nets[size.share], plan, sizes, size)


def taken(sizes: tuple[Size, ...]) -> Size:
    """What was asked for, or of several the one with the largest share that costs at most WORTH_PRUNING of the error."""
    if len(sizes) == 2:
        return sizes[1]
    most = sizes[0].error * (1.0 + WORTH_PRUNING)
    return max((one for one in sizes if one.error <= most or one.share == 0.0), key=lambda one: one.share)


def _size(share: float, net: QuantileLstm, error: float) -> Size:
    weights = sum(int(value.count_nonzero()) for value in net.parameters())
    return Size(share=share, hidden=net.lstm.hidden_size, parameters=weights, error=round(error, DIGITS))


def _part(progress: Progress, begin: int, steps: int, share: float, step: str) -> None:
    progress((begin + share) / steps, step)
