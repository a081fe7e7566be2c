"""From recorded lives to a sealed remaining-life model: fit, pack, measure what packing cost, measure against the better
of two simple references on units that nothing was learned from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from protocol.bundles import Golden, Parity, Quality, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.life_windows import Float32s, Floats, Life, LifeSpec, read_answer
from server.lives import RecordedLives
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.course import ONNX_ALONE

REMAINING_LIFE = "fault.life"
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
INT8_ATOL = 0.05
"""In probability: the same int8 graph rounds differently on CPUs with and without VNNI."""
HOUR_MS = 3_600_000
HELD_OUT_EACH = 4
MOST_CHECKED = 400
WINDOWS_A_LIFE = 60
"""Windows closer together than that say the same again."""


STUDENT: dict[str, Any] = {"members": 1, "hidden": 32, "dropout": 0.05}
"""Of a network that was taught: an eighth of five usual ones. A teacher leaves less to dropout."""


@dataclass(frozen=True)
class LifePlan:
    """What the lives mean. `settings`: columns that tell the operating condition, in `conditions` clusters; `cap_h`:
    longest life told apart, hours (0: three fifths of the median recorded life); `renewed_by`: actions that renew;
    `quantize`: the form of the network's weights (`export.forms`); `targets`: as of a forecast's plan (`ForecastPlan`);
    `teacher`: networks of the usual size that teach one small one together and are thrown away (0: the usual ones answer
    themselves)."""

    settings: tuple[str, ...] = ()
    conditions: int = 1
    cap_h: float = 0.0
    renewed_by: tuple[str, ...] = ("replace-*",)
    epochs: int = 20
    seed: int = 7
    quantize: str = "auto"
    targets: tuple[str, ...] = ONNX_ALONE
    teacher: int = 0


def train_life(recorded: RecordedLives, plan: LifePlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate. Every fourth unit is held out and never learned from. Raises Refused where too few units failed or
    nothing in their signals moves, BadSettings where a target is asked for that cannot be made here."""
    import torch

    from export.bounds import FORECASTER
    from export.forms import choose
    from export.to_onnx import INPUT, to_onnx
    from export.to_tflite import lite_of_rows, recipe_of
    from export.trials import trial_of_rows
    from server.algorithms import remaining_life as algorithm

    recipe = recipe_of(plan.targets)
    learn, held = split(recorded.lives)
    names, settings = _columns(recorded, plan)
    learn, held = (_parted(recorded, part, names, settings) for part in (learn, held))
    spec = algorithm.learn_spec(learn, _wanted(recorded, plan, names, settings, learn), plan.conditions, plan.seed)
    learn, held = (algorithm.keep_signals(part, names, spec) for part in (learn, held))
    every = max(int(np.median([len(life) for life in learn])) // WINDOWS_A_LIFE, sum(map(len, learn)) // 12_000, 1)
    how = algorithm.LifeSettings(epochs=plan.epochs, every=every, seed=plan.seed)
    teaching = None
    if plan.teacher:
        from server.training.taught import by_lives

        large = replace(how, members=plan.teacher)
        teacher = algorithm.fit(
            learn, spec, large, lambda share, step: progress(0.02 + 0.4 * share, f"teacher: {step}")
        )
        how = replace(how, **STUDENT)
        teaching = by_lives(teacher, spec, how)
    begun = 0.42 if plan.teacher else 0.02
    net = algorithm.fit(learn, spec, how, lambda share, step: progress(begun + (0.72 - begun) * share, step), teaching)
    progress(0.75, "remaining life: exporting to ONNX")
    learned = algorithm.sample(learn, spec, max(every, 4))
    checked = _checked(held, spec)
    pair = torch.from_numpy(learned.x[:2].copy())
    graph = to_onnx(net, pair)
    float_told, labels = algorithm.answer(net, checked.x), np.minimum(checked.lived, spec.cap)
    float_error = _rmse(read_answer(float_told, spec).expected, labels)

    def cost(run: parity.Graph) -> Parity:
        told = run(checked.x)
        error = _rmse(read_answer(told, spec).expected, labels)
        return parity.compare(float_told, told, float_error, error, lower_is_better=True)

    trial = trial_of_rows(cost, checked.x)
    choice = choose(graph, FORECASTER, trial, wanted=plan.quantize)
    run = parity.Graph(choice.graph)
    answer = read_answer(run(checked.x), spec)
    error = _rmse(answer.expected, labels)
    references = _references(learned, checked, spec)
    best = min(references, key=lambda name: references[name])
    inside = float(np.mean((answer.quantile(0.1) <= labels) & (labels <= answer.quantile(0.9))))
    low, high = certainty.of_sums(
        [
            certainty.by_group((np.asarray(answer.expected, dtype=np.float64) - labels) ** 2, checked.units),
            certainty.by_group(np.ones(len(labels)), checked.units),
        ],
        lambda squares, count: np.sqrt(squares / count),
    )
    inputs, outputs = parity.golden_graph(run, checked.x)
    golden = Golden(atol=INT8_ATOL, rtol=0.0)
    progress(0.9, "remaining life: packing for TFLite" if recipe else "remaining life: measuring")
    lite = lite_of_rows(
        net, {INPUT: pair}, recipe, lambda x: algorithm.answer(net, x), trial, golden, (inputs, outputs)
    )
    censored = sum(not life.failed for life in recorded.lives)
    draft = Draft(
        slot=REMAINING_LIFE,
        family="fault",
        algorithm="hazard_net",
        version=world.versions.get(REMAINING_LIFE, 1),
        runtime=Runtime.ONNX,
        life=spec,
        levels=list(LEVELS),
        graph=choice.graph,
        forms=choice.forms,
        lineage=world.lineage(
            plan.seed, {**asdict(how), "units": len(learn), "censored": censored, "teacher_members": plan.teacher}
        ),
        quality=[
            Quality(
                metric=f"remaining_life_rmse_{spec.unit}",
                lower_is_better=True,
                model=round(error, DIGITS),
                reference=round(references[best], DIGITS),
                reference_name=best,
                champion=_champion_error(held, recorded, spec, world.champions.get(REMAINING_LIFE)),
                low=low,
                high=high,
                split=f"{sum(life.failed for life in held)} failed units held out, every {HELD_OUT_EACH}th of "
                f"{len(recorded.lives)}; labels capped at {spec.cap:g} {spec.unit}",
                n=len(labels),
            )
        ],
        parity=choice.parity,
        golden=golden,
        lite=lite.told,
        lite_graph=lite.content,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=choice.float_bytes,
        latency_us=parity.latency_us(lambda: run(checked.x[:1])),
        refused=choice.refused,
        intended_use=f"Remaining life of machines of type {spec.machine_type or 'any'} and the chance of failing soon.",
        limits=f"Knows failures like the recorded ones only; lives over {spec.cap:g} {spec.unit} are not told apart; age "
        "counts from the last renewal that the gateway heard of, else from the first reading it has.",
        words=f"{choice.words} {len(learn)} units learned from ({censored} of all still worked at the end of their record); "
        f"{algorithm.parameters(net)} weights; the 80 % interval held {inside:.0%} of held-out moments."
        + (f" {lite.words}" if lite.words else ""),
        because=world.because,
    )
    progress(1.0, "remaining life: sealed")
    return [Candidate(*seal(draft))]


def split(lives: list[Life]) -> tuple[list[Life], list[Life]]:
    """(to learn from, held out): every fourth unit that failed, and every fourth of the others, by name. Raises Refused
    where fewer than four units failed."""
    failed = sorted((life for life in lives if life.failed and len(life)), key=lambda life: life.unit)
    working = sorted((life for life in lives if not life.failed and len(life)), key=lambda life: life.unit)
    if len(failed) < HELD_OUT_EACH:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{len(failed)} recorded units failed; {HELD_OUT_EACH} are needed, one of them to check on: record more",
        )
    held = failed[HELD_OUT_EACH - 1 :: HELD_OUT_EACH] + working[HELD_OUT_EACH - 1 :: HELD_OUT_EACH]
    names = {life.unit for life in held}
    return [life for life in (*failed, *working) if life.unit not in names], held


def _columns(recorded: RecordedLives, plan: LifePlan) -> tuple[list[str], list[str]]:
    absent = [name for name in plan.settings if name not in recorded.signals]
    if absent:
        raise Refused(
            Reason.UNKNOWN_SIGNAL,
            f"no column {', '.join(absent)} in the recorded lives: correct [training] life_settings",
        )
    return list(recorded.signals), list(plan.settings)


def _parted(recorded: RecordedLives, lives: list[Life], names: list[str], settings: list[str]) -> list[Life]:
    """Signals and settings as columns of their own; a setting stays a signal, too."""
    columns = [recorded.signals.index(name) for name in names]
    told = [recorded.signals.index(name) for name in settings]
    return [Life(life.unit, life.signals[:, columns], life.signals[:, told], life.failed) for life in lives]


def _wanted(
    recorded: RecordedLives, plan: LifePlan, names: list[str], settings: list[str], learn: list[Life]
) -> LifeSpec:
    per_row = recorded.step_ms / HOUR_MS
    usual = float(np.median([len(life) for life in learn if life.failed])) * per_row
    cap = plan.cap_h or float(f"{max(0.6 * usual, 10 * per_row):.2g}")
    rows = max(round(usual / per_row), 1)
    return LifeSpec(
        machine_type=recorded.machine_type,
        unit="h",
        per_row=per_row,
        step_ms=recorded.step_ms,
        signals=names,
        settings=settings,
        stride=int(np.clip(rows // 40, 1, 100)),
        smoothing=float(np.clip(30.0 / rows, 0.02, 0.3)),
        first_rows=int(np.clip(rows // 10, 1, 1000)),
        least_rows=int(np.clip(rows // 20, 1, 1000)),
        cap=cap,
        horizons=[cap / 8, cap / 4, cap / 2],
        renewed_by=list(plan.renewed_by),
        mean=[[0.0] * len(names)],
        scale=[[1.0] * len(names)],
    )


@dataclass(frozen=True)
class _Moments:
    """Held-out windows, the life that was left then, and which unit's each is."""

    x: Float32s
    lived: Floats
    units: list[str]


def _checked(held: list[Life], spec: LifeSpec) -> _Moments:
    """Moments of held-out units that failed, evenly spread, at most MOST_CHECKED."""
    from server.algorithms import remaining_life as algorithm

    failed = [life for life in held if life.failed]
    every = max(sum(map(len, failed)) // MOST_CHECKED, 1)
    rows = {life.unit: algorithm.sample([life], spec, every) for life in failed}
    if not any(map(len, rows.values())):
        raise Refused(Reason.NOT_ELIGIBLE, "no held-out unit was watched long enough to check on: record longer lives")
    return _Moments(
        np.concatenate([one.x for one in rows.values()]),
        np.concatenate([one.lived for one in rows.values()]).astype(np.float64),
        [unit for unit, one in rows.items() for _ in range(len(one))],
    )


def _references(learned: object, checked: _Moments, spec: LifeSpec) -> dict[str, float]:
    """RMSE of a constant and of ridge on the newest row of the window, fitted on windows of units that failed."""
    from server.algorithms.remaining_life import Sample

    assert isinstance(learned, Sample)  # noqa: S101 - narrows a type that is imported late
    y = np.minimum(learned.lived[learned.failed].astype(np.float64), spec.cap)
    labels = np.minimum(checked.lived, spec.cap)
    x, last = (_with_one(part[:, -1].astype(np.float64)) for part in (learned.x[learned.failed], checked.x))
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    return {
        "constant": _rmse(np.full(len(labels), y.mean()), labels),
        "ridge": _rmse(np.clip(last @ weights, 0.0, spec.cap), labels),
    }


def _with_one(x: Floats) -> Floats:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _champion_error(held: list[Life], recorded: RecordedLives, spec: LifeSpec, archive: bytes | None) -> float | None:
    """The serving model's figure on the same units; None if there is none or it answers other signals or another cap."""
    if archive is None:
        return None
    bundle = unpack(archive)
    theirs = bundle.passport.life
    if theirs is None or (theirs.signals, theirs.settings, theirs.cap, theirs.step_ms) != (
        spec.signals,
        spec.settings,
        spec.cap,
        recorded.step_ms,
    ):
        return None
    moments = _checked(held, theirs)
    answer = read_answer(parity.Graph(bundle.graph)(moments.x), theirs)
    return round(_rmse(answer.expected, np.minimum(moments.lived, spec.cap)), DIGITS)


def _rmse(answer: Floats | NDArray[np.floating], labels: Floats) -> float:
    return float(np.sqrt(np.mean((np.asarray(answer, dtype=np.float64) - labels) ** 2)))
