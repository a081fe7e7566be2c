"""Rules judge plans and designs without knowing how they were made: every decoded one passes, every broken one is caught by
the rule that it breaks."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from edge_agent.devices.store import catalogue_toml
from edge_agent.skills.write_plan import Behind, write_designs, write_plans
from protocol.capabilities import (
    Capability,
    Limit,
    OperationType,
    Parameter,
    PlanKind,
    PlantMachine,
    Product,
    Remedy,
    Tool,
)
from protocol.catalogue import Catalogue
from protocol.design_grammar import DesignGrammar, DesignRequest
from protocol.errors import Refused
from protocol.plan_check import DESIGN_RULES, PLAN_RULES, design_complaints, plan_complaints
from protocol.plan_decoding import DesignRules, PlanRules, decode
from protocol.planning_grammar import PlanGrammar, PlanRequest
from protocol.plans import Design, PlanPart, PlanStep, Setting, WorkPlan

PLANT: Catalogue = msgspec.convert(tomllib.loads(catalogue_toml()), Catalogue)
OF_TYPE = {"pump": "P-101", "conveyor": "C-201", "press": "R-301", "oven": "V-401"}
REQUESTS = [
    PlanRequest(kind=PlanKind.PROCESS, product="cover-panel"),
    *(
        PlanRequest(kind=PlanKind.MAINTENANCE, machine=OF_TYPE[kind], machine_type=kind, failure=failure)
        for failure, kind in dict.fromkeys((r.failure, r.machine_type) for r in PLANT.remedy)
    ),
]
PLANS = [plan for request in REQUESTS for plan in write_plans(PLANT, request, Behind(), 1, candidates=4)]
DESIGNS = write_designs(PLANT, DesignRequest(family="hydraulic-cylinder", needs=("push >= 40",)), Behind(), 1)


def rules_broken(plan: WorkPlan) -> set[str]:
    return {one.rule for one in plan_complaints(PLANT, plan)}


def with_step(plan: WorkPlan, at: int, **changes: object) -> WorkPlan:
    steps = [*plan.steps]
    steps[at] = msgspec.structs.replace(steps[at], **changes)
    return msgspec.structs.replace(plan, steps=steps)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{p.action or p.product}-{p.aim}")
def test_every_plan_that_was_made_passes(plan: WorkPlan) -> None:
    assert plan_complaints(PLANT, plan) == []
    assert plan.checks == list(PLAN_RULES)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(REQUESTS), st.integers(0, 10_000))
def test_every_plan_that_could_be_made_passes(request: PlanRequest, seed: int) -> None:
    grammar = PlanGrammar(PLANT, request)
    draft = decode(grammar, PlanRules(grammar, loose=True), np.random.default_rng(seed))
    remedy = draft.job.remedy if draft.job is not None else None
    plan = msgspec.structs.replace(
        PLANS[0], kind=request.kind, machine=request.machine or "*", machine_type=request.machine_type,
        product=request.product, failure=remedy.failure if remedy else "", action=remedy.action if remedy else "",
        steps=list(draft.steps), minutes=sum(step.minutes for step in draft.steps),
    )  # fmt: skip
    assert plan_complaints(PLANT, plan) == []


# one mutation of a right plan: what it breaks -----------------------------------------------------------------------------

Mutation = Callable[[WorkPlan, np.random.Generator], WorkPlan | None]


def _some(draw: np.random.Generator, places: Sequence[int]) -> int | None:
    return int(draw.choice(places)) if len(places) else None


def _steps(plan: WorkPlan, fits: Callable[[PlanStep], bool]) -> list[int]:
    return [at for at, step in enumerate(plan.steps) if fits(step)]


def another_machine(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    offers = [one for one in PLANT.capability if plan.steps[at].operation in one.operations]
    able = {one.machine for one in offers} | {one.machine_type for one in offers}
    others = [one.machine for one in PLANT.machine if not {one.machine, one.machine_type} & able]
    return with_step(plan, at, machine=str(draw.choice([*others, "ghost"])))


def another_tool(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    known = next(one for one in PLANT.operation if one.operation == plan.steps[at].operation)
    others = [one.tool for one in PLANT.tool if one.tool not in known.tools]
    return with_step(plan, at, tool=str(draw.choice([*others, "magic-wand"])))


def no_tool(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = _some(draw, _steps(plan, lambda s: bool(s.tool)))
    return None if at is None else with_step(plan, at, tool="")


def _setting(plan: WorkPlan, draw: np.random.Generator, change: Callable[[Setting], Setting]) -> WorkPlan | None:
    at = _some(draw, _steps(plan, lambda s: bool(s.settings)))
    if at is None:
        return None
    told = [*plan.steps[at].settings]
    i = int(draw.integers(len(told)))
    told[i] = change(told[i])
    return with_step(plan, at, settings=told)


def beyond(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    factor = float(draw.choice([-1.0, 0.0, 40.0, 1e9]))
    return _setting(plan, draw, lambda s: Setting(s.name, s.value * factor, s.unit))


def not_a_number(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    return _setting(plan, draw, lambda s: Setting(s.name, float("nan"), s.unit))


def another_unit(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    return _setting(plan, draw, lambda s: Setting(s.name, s.value, "kPa"))


def another_setting(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    return _setting(plan, draw, lambda s: Setting("colour", s.value, s.unit))


def forgotten_setting(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = _some(draw, _steps(plan, lambda s: bool(s.settings)))
    return None if at is None else with_step(plan, at, settings=plan.steps[at].settings[:-1])


def dropped_step(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    kept = [step for i, step in enumerate(plan.steps) if i != at]
    shifted = [msgspec.structs.replace(s, after=[a - (a > at) for a in s.after if a != at]) for s in kept]
    total = sum(step.minutes for step in shifted)
    optional = {name for one in (*PLANT.remedy, *PLANT.feature) for name in one.optional}
    if plan.steps[at].operation in optional or not shifted:
        return None
    return msgspec.structs.replace(plan, steps=shifted, minutes=total)


def repeated_step(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    one = plan.steps[int(draw.integers(len(plan.steps)))]
    again = msgspec.structs.replace(one, after=[len(plan.steps) - 1])
    return msgspec.structs.replace(plan, steps=[*plan.steps, again], minutes=plan.minutes + one.minutes)


def stray_step(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    stray = "calibrate-controller" if plan.machine != "V-401" else "find-leak"
    step = PlanStep(operation=stray, machine="V-401", minutes=60, after=[len(plan.steps) - 1])
    return msgspec.structs.replace(plan, steps=[*plan.steps, step], minutes=plan.minutes + 60)


def made_up_step(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    return with_step(plan, int(draw.integers(len(plan.steps))), operation="say-a-prayer")


def swapped_steps(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    """Exchanges a step with one that it waits for, leaving the row of `after` as it is."""
    at = _some(draw, _steps(plan, lambda s: bool(s.after)))
    if at is None:
        return None
    other, steps = plan.steps[at].after[-1], [*plan.steps]
    steps[at], steps[other] = steps[other], steps[at]
    afters = [step.after for step in plan.steps]
    free = not _bound(plan.steps[at].operation, plan.steps[other].operation, plan)
    return None if free else msgspec.structs.replace(
        plan, steps=[msgspec.structs.replace(s, after=a) for s, a in zip(steps, afters, strict=True)]
    )  # fmt: skip


def _bound(later: str, earlier: str, plan: WorkPlan) -> bool:
    known = next(one for one in PLANT.operation if one.operation == later)
    remedy = next((r for r in PLANT.remedy if r.action == plan.action and r.failure == plan.failure), None)
    chain = list(zip(remedy.operations, remedy.operations[1:], strict=False)) if remedy else []
    return earlier in (*known.must_follow, *known.may_not_precede) or (earlier, later) in chain


def forgotten_wait(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = _some(draw, _steps(plan, lambda s: bool(s.after)))
    return None if at is None else with_step(plan, at, after=[])


def waits_for_the_future(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    return with_step(plan, at, after=[*plan.steps[at].after, int(draw.integers(at, len(plan.steps)))])


def another_duration(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    changed = plan.steps[at].minutes * float(draw.choice([-1.0, 0.0, 0.5, 2.0]))
    moved = with_step(plan, at, minutes=changed)
    return msgspec.structs.replace(moved, minutes=sum(step.minutes for step in moved.steps))


def another_total(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    return msgspec.structs.replace(plan, minutes=plan.minutes + 7)


def another_quantity(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = _some(draw, _steps(plan, lambda s: bool(s.parts)))
    if at is None:
        return None
    one = plan.steps[at].parts[0]
    return with_step(plan, at, parts=[PlanPart(one.part, one.quantity + 1, one.unit)])


def made_up_part(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    at = int(draw.integers(len(plan.steps)))
    return with_step(plan, at, parts=[*plan.steps[at].parts, PlanPart("flux-capacitor", 1)])


def another_product(plan: WorkPlan, draw: np.random.Generator) -> WorkPlan | None:
    changed = {"product": "unheard-of"} if plan.kind is PlanKind.PROCESS else {"failure": "unheard-of"}
    return msgspec.structs.replace(plan, **changed)


BREAKS: dict[Mutation, set[str]] = {
    another_machine: {"capability"},
    another_tool: {"tools"},
    no_tool: {"tools"},
    beyond: {"limits"},
    not_a_number: {"limits"},
    another_unit: {"units"},
    another_setting: {"settings"},
    forgotten_setting: {"settings"},
    dropped_step: {"covered", "sequence"},  # what must be done, or what another step must follow
    repeated_step: {"repeated"},
    stray_step: {"covered"},
    made_up_step: {"operations", "covered"},
    swapped_steps: {"sequence"},
    forgotten_wait: {"sequence", "order"},
    waits_for_the_future: {"order"},
    another_duration: {"durations"},
    another_total: {"durations"},
    another_quantity: {"parts"},
    made_up_part: {"parts"},
    another_product: {"subject"},
}


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PLANS), st.integers(0, 10_000))
@pytest.mark.parametrize("mutation", BREAKS, ids=lambda m: m.__name__)
def test_a_broken_plan_is_caught_by_the_rule_that_it_breaks(mutation: Mutation, plan: WorkPlan, seed: int) -> None:
    changed = mutation(plan, np.random.default_rng(seed))
    assume(changed is not None)
    assert changed is not None
    found = rules_broken(changed)
    assert found & BREAKS[mutation], (mutation.__name__, plan.item, found)


def test_every_rule_of_a_plan_can_be_broken() -> None:
    assert {rule for rules in BREAKS.values() for rule in rules} | {"available"} == set(PLAN_RULES)


def test_a_machine_that_is_away_and_a_tool_that_is_lent_are_complaints() -> None:
    plan = next(p for p in PLANS if p.product)
    assert {one.rule for one in plan_complaints(PLANT, plan, unavailable={"V-401"})} == {"available"}
    lent = [msgspec.structs.replace(t, count=0) if t.tool == "mould-a" else t for t in PLANT.tool]
    assert {one.rule for one in plan_complaints(msgspec.structs.replace(PLANT, tool=lent), plan)} == {"tools"}


def test_a_complaint_names_rule_step_and_fact() -> None:
    plan = next(p for p in PLANS if p.product)
    at = next(i for i, s in enumerate(plan.steps) if s.operation == "post-cure")
    hot = [Setting("temperature", 195.0, "°C"), plan.steps[at].settings[1]]
    (one,) = plan_complaints(PLANT, with_step(plan, at, settings=hot))
    assert str(one) == f"limits, step {at + 1}: temperature 195 °C is not within 170 to 190"


# designs ----------------------------------------------------------------------------------------------------------------


def changed(design: Design, name: str, **change: object) -> Design:
    values = [msgspec.structs.replace(v, **change) if v.name == name else v for v in design.values]
    return msgspec.structs.replace(design, values=values)


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.aim)
def test_every_design_that_was_made_passes_and_every_broken_one_is_caught(design: Design) -> None:
    assert design_complaints(PLANT, design) == []
    cases = {
        "family": msgspec.structs.replace(design, family="gear"),
        "values": msgspec.structs.replace(design, values=design.values[1:]),
        "limits": changed(design, "bore", value=64.0),
        "units": changed(design, "bore", unit="in"),
        "derived": changed(design, "push", value=design.values[7].value + 1),
        "rules": changed(design, "rod", value=12.0),
        "needs": msgspec.structs.replace(design, needs=["push >= 100000"]),
    }
    assert set(cases) == set(DESIGN_RULES)
    for rule, broken in cases.items():
        assert rule in {one.rule for one in design_complaints(PLANT, broken)}, rule


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_every_design_that_could_be_made_passes(seed: int) -> None:
    grammar = DesignGrammar(PLANT, DesignRequest(family="hydraulic-cylinder"))
    sketch = decode(grammar, DesignRules(grammar, loose=True), np.random.default_rng(seed))
    made = msgspec.structs.replace(DESIGNS[0], values=grammar.values(sketch.chosen), needs=[])
    assert design_complaints(PLANT, made) == []


# any plant ----------------------------------------------------------------------------------------------------------------


@st.composite
def plants(draw: st.DrawFn) -> Catalogue:
    """A small plant with operations in some order, tools that are there or not, machines that can do this or that, limits."""
    count = draw(st.integers(1, 9))
    names = [f"op-{n}" for n in range(count)]
    numbers = st.integers(0, 12).map(float)

    def span(least: float = 0.0, most: float = 12.0) -> tuple[float, float]:
        low, high = sorted((draw(numbers), draw(numbers)))
        return max(low, least), min(max(high, least), most)

    operations = []
    for at, name in enumerate(names):
        low, high = span()
        value = draw(st.sampled_from([low, high, (low + high) / 2]))
        series = draw(st.sampled_from([[], [low, high], [low]]))
        parameter = Parameter(name="p", unit="mm", lowest=low, typical=value, highest=high, levels=series)
        earlier = st.lists(st.sampled_from(names[:at]), unique=True, max_size=2) if at else st.just([])
        operations.append(
            OperationType(
                operation=name,
                minutes=1 + at,
                minutes_by=draw(st.sampled_from(["", "1 + 0 * 2"])),
                tools=draw(st.sampled_from([[], ["t-0"], ["t-0", "t-1"]])),
                parameter=draw(st.sampled_from([[], [parameter]])),
                must_follow=draw(earlier),
                may_not_precede=draw(earlier),
            )
        )
    some = st.lists(st.sampled_from(names), unique=True, min_size=1)
    limit = Limit(parameter="p", lowest=span()[0], highest=12.0)
    fits: list[str] = draw(st.sampled_from([[], ["M-0"], ["type-1"]]))
    asked = draw(some)
    rest = [name for name in names if name not in asked]
    return Catalogue(
        machine=[PlantMachine(machine=f"M-{n}", machine_type=f"type-{n % 2}") for n in range(3)],
        operation=draw(st.permutations(operations)),
        tool=[Tool(tool="t-0", count=draw(st.integers(0, 1)), machines=fits), Tool(tool="t-1", limit=[limit])],
        capability=[
            Capability(machine_type="type-0", operations=draw(some)),
            Capability(machine_type="type-1", operations=draw(some)),
            Capability(machine="M-2", operations=names, limit=draw(st.sampled_from([[], [limit]]))),
        ],
        product=[Product(product="x", operations=asked, optional=rest)],
        remedy=[Remedy(failure="f", action="action:a", machine_type="type-0", operations=asked, optional=rest)],
    )


def planned(plant: Catalogue, request: PlanRequest, seed: int) -> tuple[list[WorkPlan], str]:
    """Plans, or why there are none."""
    try:
        return write_plans(plant, request, Behind(), 1, candidates=6, seed=seed), ""
    except Refused as why:
        return [], why.detail


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(plants(), st.sampled_from(PlanKind), st.integers(0, 1000))
def test_of_any_plant_a_plan_is_right_or_refused_with_a_reason(plant: Catalogue, kind: PlanKind, seed: int) -> None:
    request = PlanRequest(kind=kind, product="x")
    if kind is PlanKind.MAINTENANCE:
        request = PlanRequest(kind=kind, machine="M-0", machine_type="type-0")
    made, why = planned(plant, request, seed)
    event("made" if made else "refused")
    assert made or "nothing can do" in why or "round in a circle" in why
    for plan in made:
        assert plan_complaints(plant, plan) == []
        assert PlanGrammar(plant, request).path_of(plan) is not None
