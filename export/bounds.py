"""How much packing may cost: one bound a family, all of them here.

A packed form is refused where any of three is beyond its bound: the task's figure on held-out rows, the error of single
answers there, and that error on rows outside of what calibration saw (`export.strain`), since a plant needs a model most when
its readings are like nothing before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.bundles import Parity


@dataclass(frozen=True)
class Bound:
    """task: what the task's figure is, in words; empty: there is none. most_task: its largest change for the worse, a share
    of the float model's figure, or in the figure's own units (`points`). most_rms: largest root mean square error of single
    answers, over the deviation of the float ones. most_strained: how many times as much on strained rows."""

    task: str
    most_task: float
    points: bool = False
    most_rms: float = 0.05
    most_strained: float = 3.0

    @property
    def words(self) -> str:
        """The bound as a passport states it."""
        task = f"{self.task} at most {self._task(self.most_task)} worse; " if self.task else ""
        return (
            f"{task}element rms at most {self.most_rms:g} of the answers' deviation, "
            f"{self.most_rms * self.most_strained:g} outside of the calibrated range"
        )

    def change(self, float_task: float, packed_task: float, *, lower_is_better: bool) -> float:
        """How much worse (above zero) a packed model's figure is, as the bound counts it."""
        worse = (packed_task - float_task) * (1 if lower_is_better else -1)
        return worse if self.points else worse / max(abs(float_task), 1e-12)

    def broken(self, parity: Parity, strained: Mapping[str, float] | None = None) -> str:
        """Which checks failed and by how much; empty: none. strained: kind of row -> its element rms. What could not be
        measured (NaN) has failed."""
        failed = []
        if self.task and not parity.task_change <= self.most_task:
            change, most = self._task(parity.task_change), self._task(self.most_task)
            failed.append(f"{self.task} {change} worse, at most {most}")
        if not parity.rel_rms <= self.most_rms:
            failed.append(f"element rms {parity.rel_rms:.3g}, at most {self.most_rms:g}")
        most_rms = self.most_rms * self.most_strained
        failed += [
            f"element rms {rms:.3g} with {kind}, at most {most_rms:g}"
            for kind, rms in (strained or {}).items()
            if not rms <= most_rms
        ]
        return "; ".join(failed)

    def _task(self, change: float) -> str:
        return f"{100 * change:.3g} points" if self.points else f"{change:.2%}"


FORECASTER = Bound("task error", 0.005)
"""Also of chances, remaining lives and demand: whatever answers with numbers that have an error."""
READER = Bound("share of right answers", 0.005, points=True)
ENCODER = Bound("cosine to the float vectors", 0.005, points=True)
WRITER = Bound("negative log-likelihood", 0.01, most_rms=0.1)
"""Logits are looked at through a softmax: their single errors may be larger than their effect."""
RECOMMENDER = Bound("ranking of held-out choices (nDCG)", 0.005)
GRAPH = Bound("", 0.0)
"""Of a graph that someone brings without a task: its answers alone are compared."""
_OF = {"recommend": RECOMMENDER, "reader": READER, "gpt": WRITER}


def bound_of(family: str, algorithm: str) -> Bound:
    """The bound of a passport's family and algorithm."""
    return _OF.get(algorithm, _OF.get(family, FORECASTER))
