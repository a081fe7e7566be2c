"""A float graph in the form that suits it: the forms are made, measured as a gateway runs them, and one is taken.

The rule: of the forms within their family's bound (`export.bounds`) the smallest is taken; one that is up to a tenth larger
is taken instead if it is at least 15 % faster. float32 is the last resort, and the verdict says why. A form whose operators
did not become what they should is no form: it is recorded with the reason and never measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from export.blocks import weight_only
from export.bounds import Bound
from export.compact import bare
from export.quantize import quantize, static
from export.strain import strained_error
from export.trials import Run, Trial
from export.widened import halved
from protocol.bundles import Form, Parity
from protocol.errors import BadBundle, BadSettings, Reason

AUTO, FLOAT32 = "auto", "float32"
EIGHT_BITS = ("int8", "int8_static", "int8_blocks")
TRAINED = "int8_trained"
FORMS = (FLOAT32, "float16", *EIGHT_BITS, "int4_blocks", TRAINED)
SHORT = {"int4": "int4_blocks"}
"""Other names of forms."""
OF_WINDOWS = ("float16", "int8", "int8_static", "int8_blocks")
"""What is tried for networks on windows, and for encoders: in 4 bits these are slower than float."""
OF_DECODERS = ("int8", "int8_blocks", "int4_blocks")
LARGER, FASTER = 1.10, 0.85
ROUNDS, MOST_S = 40, 0.5
"""Of timing all forms of one model in turn."""


@dataclass(frozen=True)
class Choice:
    """The form that was taken. forms: all that were tried, for the passport. float_bytes: of the float graph. refused: why it
    may not serve (only where a person asked for this form); words: what the verdict says of it."""

    name: str
    graph: bytes
    forms: list[Form]
    parity: Parity
    float_bytes: int
    latency_us: float
    refused: str
    words: str


def choose(
    graph: bytes,
    bound: Bound,
    trial: Trial,
    *,
    wanted: str = AUTO,
    tried: Sequence[str] = OF_WINDOWS,
    finetune: Callable[[], bytes] | None = None,
) -> Choice:
    """Tries the forms `tried` of a float graph, or takes the one that is `wanted`. finetune: makes the float graph of the
    model after training with rounded weights (`export.trained_int8`); called only where no other form of 8 bits is within the
    bound. Raises BadSettings for a form that there is none of, BadBundle where the wanted one cannot be made."""
    wanted = checked_name(wanted)
    tries = _Tries(graph, bound, trial)
    for name in tried if wanted == AUTO else (wanted,):
        if name not in (FLOAT32, TRAINED):
            tries.make(name)
    if finetune is not None and not tries.fit(EIGHT_BITS) and wanted in (AUTO, TRAINED):
        tries.make_trained(finetune)
    if wanted not in (AUTO, *tries.made):
        why = tries.failed.get(wanted, "the model's trainer has no way to train it further")
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, f"{wanted} could not be made: {why}; ask for another form, or auto")
    tries.measure()
    name = taken(tries.forms(), tries.broken) if wanted == AUTO else wanted
    return tries.choice(name, by_rule=wanted == AUTO)


def checked_name(wanted: str) -> str:
    """The full name of a form. Raises BadSettings for one that there is none of."""
    name = SHORT.get(wanted, wanted)
    if name not in (AUTO, *FORMS):
        raise BadSettings(f"quantize {wanted!r}: name one of {', '.join((AUTO, *FORMS))}")
    return name


def taken(forms: Sequence[Form], broken: Mapping[str, str]) -> str:
    """The rule. forms: what was tried, float32 among them; broken: name of a measured one -> which of its bounds it broke
    (empty: none)."""
    whole = next(form for form in forms if form.name == FLOAT32)
    fit = [form for form in forms if not broken.get(form.name, "not made") and form.size < whole.size]
    if not fit:
        return FLOAT32
    least = min(fit, key=lambda form: form.size)
    near = [f for f in fit if f.size <= LARGER * least.size and f.latency_us <= FASTER * least.latency_us]
    return min(near, key=lambda form: form.latency_us, default=least).name


@dataclass
class _Tries:
    """The forms of one graph, as they are made and measured."""

    graph: bytes
    bound: Bound
    trial: Trial
    made: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, Run] = field(default_factory=dict)
    costs: dict[str, Parity] = field(default_factory=dict)
    strains: dict[str, dict[str, float]] = field(default_factory=dict)
    latencies: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keep(FLOAT32, self.graph)

    @property
    def broken(self) -> dict[str, str]:
        """Name of a form -> which of its bounds it broke."""
        return {name: self.bound.broken(cost, self.strains[name]) for name, cost in self.costs.items()}

    def fit(self, names: Sequence[str]) -> bool:
        """Whether one of the forms is within the bound."""
        broken = self.broken
        return any(not broken[name] for name in names if name in broken)

    def make(self, name: str) -> None:
        """Makes a form and measures what it costs; one that cannot be made is remembered with the reason."""
        try:
            self._keep(name, self._made(name))
        except BadBundle as error:
            self.failed[name] = error.detail

    def make_trained(self, finetune: Callable[[], bytes]) -> None:
        """The form of the model that was trained further. Its answers are another network's than the fitted one's: the task's
        figure is held against the fitted model's, single answers against its own float ones."""
        try:
            whole = finetune()
            self._keep(TRAINED, quantize(whole), self.trial.load(whole))
        except BadBundle as error:
            self.failed[TRAINED] = error.detail

    def measure(self) -> None:
        """Times the forms, all in turn, so that a busy moment meets them alike."""
        one = self.trial.one
        self.latencies = latencies({name: partial(run, *one) for name, run in self.loaded.items()})

    def forms(self, why: Mapping[str, str] | None = None) -> list[Form]:
        """Of all that was tried, the largest first; those that could not be made last."""
        made = [
            Form(
                name=name,
                size=len(graph),
                latency_us=round(self.latencies[name], 1),
                parity=self.costs[name],
                strained=self.strains[name],
                why=(why or {}).get(name, ""),
            )
            for name, graph in sorted(self.made.items(), key=lambda one: -len(one[1]))
        ]
        return made + [Form(name=name, why=f"could not be made: {told}") for name, told in self.failed.items()]

    def choice(self, name: str, *, by_rule: bool) -> Choice:
        """What was taken, and why the others were not."""
        broken = self.broken
        why = {
            other: broken[other] or self._worse(other, name, by_rule=by_rule) for other in self.made if other != name
        }
        share = len(self.made[name]) / len(self.made[FLOAT32])
        words = f"Packed as {name}, {share:.0%} of the float size."
        if name == FLOAT32 and by_rule:
            told = [f"{form.name}: {form.why}" for form in self.forms(why) if form.name != FLOAT32]
            words = f"Kept as float32: no smaller form is within its bound ({' | '.join(told)})."
        return Choice(
            name=name,
            graph=self.made[name],
            forms=self.forms(why),
            parity=self.costs[name],
            float_bytes=len(self.made[FLOAT32]),
            latency_us=self.latencies[name],
            refused=f"{name}: {broken[name]}" if broken[name] else "",
            words=words,
        )

    def _made(self, name: str) -> bytes:
        if name == "float16":
            return halved(self.graph)
        if name == "int8":
            return quantize(self.graph)
        if name == "int8_static":
            return static(self.graph, self.trial.calibration)
        return weight_only(self.graph, 4 if name == "int4_blocks" else 8)

    def _keep(self, name: str, graph: bytes, own: Run | None = None) -> None:
        graph = bare(graph)
        run = self.trial.load(graph)
        cost = self.trial.measure(run)
        beside = own or self.loaded.get(FLOAT32, run)
        ordinary = beside(*self.trial.rows)
        if own is not None:
            cost = _against(cost, ordinary, run(*self.trial.rows))
        exact, said = ({kind: of(*rows) for kind, rows in self.trial.strained.items()} for of in (beside, run))
        self.strains[name] = {} if name == FLOAT32 else strained_error(exact, said, ordinary)
        self.made[name], self.loaded[name], self.costs[name] = graph, run, cost

    def _worse(self, other: str, name: str, *, by_rule: bool) -> str:
        if other == FLOAT32:
            return "the last resort"
        if not by_rule:
            return f"{name} was asked for"
        if len(self.made[other]) >= len(self.made[FLOAT32]):
            return "not smaller than float32"
        return f"within its bound; {name} is {'faster' if len(self.made[other]) < len(self.made[name]) else 'smaller'}"


def latencies(
    calls: Mapping[str, Callable[[], object]],
    most_s: float = MOST_S,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Microseconds of each call by the clock, the least of ROUNDS in turn (of fewer where most_s seconds have gone)."""
    for call in calls.values():
        call()
    least = dict.fromkeys(calls, np.inf)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = clock()
            call()
            least[name] = min(least[name], clock() - started)
        if time.perf_counter() - began > most_s:
            break
    return {name: 1e6 * float(spent) for name, spent in least.items()}


def _against(cost: Parity, wanted: NDArray[np.floating], said: NDArray[np.floating]) -> Parity:
    """The same cost with single answers held against others."""
    gap = np.asarray(said, dtype=np.float64) - wanted
    rms = float(np.sqrt(np.mean(gap**2)) / max(float(np.std(wanted, dtype=np.float64)), 1e-12))
    return msgspec.structs.replace(cost, max_abs=float(np.abs(gap).max()), rel_rms=rms)
