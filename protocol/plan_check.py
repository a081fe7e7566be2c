"""Is this plan, is this design, right? Rules over what is written and the catalogue; whoever made the plan is not asked, and
nothing here knows how plans are made. Every break of a rule is a complaint with the rule's name and the step.

    rules of a plan     subject · operations · covered · repeated · capability · available · tools · settings · limits ·
                        units · parts · order · sequence · durations
    rules of a design   family · values · limits · units · derived · rules · needs"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from protocol.capabilities import Limit, OperationType, OperationUse, Parameter, PlanKind, Remedy
from protocol.catalogue import Catalogue
from protocol.errors import Refused
from protocol.expressions import formula, holds, rule, value
from protocol.plans import Design, PlanStep, Setting, WorkPlan

PLAN_RULES = (
    "subject", "operations", "covered", "repeated", "capability", "available", "tools", "settings", "limits", "units",
    "parts", "order", "sequence", "durations",
)  # fmt: skip
DESIGN_RULES = ("family", "values", "limits", "units", "derived", "rules", "needs")
_NEAR = 1e-9


@dataclass(frozen=True)
class Complaint:
    """A broken rule. step: counted from 1 (0: the whole)."""

    rule: str
    step: int
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}{f', step {self.step}' if self.step else ''}: {self.detail}"


def plan_complaints(
    catalogue: Catalogue, plan: WorkPlan, unavailable: Collection[str] = (), machine_types: dict[str, str] | None = None
) -> list[Complaint]:
    """What is wrong with a plan; empty: nothing. unavailable: machines that may not be used now. machine_types: of machines
    that are not in the catalogue (a mapping file knows them)."""
    return list(_PlanCheck(catalogue, plan, frozenset(unavailable), machine_types or {}).complaints())


def design_complaints(catalogue: Catalogue, design: Design) -> list[Complaint]:
    """What is wrong with a design; empty: nothing."""
    return list(_design_complaints(catalogue, design))


class _PlanCheck:
    def __init__(
        self, catalogue: Catalogue, plan: WorkPlan, unavailable: frozenset[str], machine_types: dict[str, str]
    ) -> None:
        self._catalogue, self._plan, self._unavailable = catalogue, plan, unavailable
        self._operations = {one.operation: one for one in catalogue.operation}
        self._tools = {one.tool: one for one in catalogue.tool}
        self._parts = {one.part: one for one in catalogue.part}
        self._types = {one.machine: one.machine_type for one in catalogue.machine}
        for machine, kind in machine_types.items():
            self._types.setdefault(machine, kind)
        if plan.machine_type:
            self._types.setdefault(plan.machine, plan.machine_type)
        self._remedy = self._remedy_of(plan)

    def complaints(self) -> Iterator[Complaint]:
        asked, optional, limits, wrong = self._asked()
        if wrong:
            yield Complaint("subject", 0, wrong)
        yield from self._coverage(asked, optional)
        for at, step in enumerate(self._plan.steps, 1):
            known = self._operations.get(step.operation)
            if known is None:
                yield Complaint("operations", at, f"{step.operation!r} is not in the catalogue")
                continue
            if known.use is not OperationUse.ANY and known.use.value != self._plan.kind.value:
                yield Complaint("operations", at, f"{step.operation!r} is not for {self._plan.kind} plans")
            yield from self._place(at, step, known)
            yield from self._settings(at, step, known, limits)
            yield from self._taken(at, step, known)
            yield from self._time(at, step, known)
        yield from self._order()
        yield from self._sequence()
        total = sum(step.minutes for step in self._plan.steps)
        if not abs(total - self._plan.minutes) <= 0.005 * len(self._plan.steps) + _NEAR:
            yield Complaint("durations", 0, f"{self._plan.minutes:g} min in all, but the steps take {total:g}")

    # what is asked for ------------------------------------------------------------------------------------------------

    def _remedy_of(self, plan: WorkPlan) -> Remedy | None:
        fits = [
            one
            for one in self._catalogue.remedy
            if (one.failure, one.action) == (plan.failure, plan.action) and one.machine_type in ("", plan.machine_type)
        ]
        return max(fits, key=lambda one: bool(one.machine_type), default=None)

    def _asked(self) -> tuple[list[str], list[str], list[Limit], str]:
        """(required, optional, limits of the product or remedy, what is wrong with the subject)."""
        plan = self._plan
        if plan.kind is PlanKind.MAINTENANCE:
            if self._remedy is None:
                return (
                    [],
                    [],
                    [],
                    f"no remedy {plan.action!r} for {plan.failure!r} of a {plan.machine_type or 'machine'}",
                )
            if plan.product:
                return [], [], [], f"a maintenance plan makes no product, {plan.product!r}"
            return self._remedy.operations, self._remedy.optional, self._remedy.limit, ""
        product = next((one for one in self._catalogue.product if one.product == plan.product), None)
        if product is None:
            return [], [], [], f"no product {plan.product!r}"
        required, optional = list(product.operations), list(product.optional)
        for feature in self._catalogue.feature:
            if feature.feature in product.features and product.material in (feature.materials or [product.material]):
                required += feature.operations
                optional += feature.optional
        return required, optional, product.limit, ""

    def _closure(self, names: Sequence[str]) -> set[str]:
        found: set[str] = set()
        waiting = [name for name in names if name in self._operations]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [one for one in self._operations[name].must_follow if one in self._operations]
        return found

    def _coverage(self, asked: Sequence[str], optional: Sequence[str]) -> Iterator[Complaint]:
        held = Counter(step.operation for step in self._plan.steps)
        required = self._closure(asked)
        for name in sorted(required - held.keys()):
            yield Complaint("covered", 0, f"{name!r} is asked for and missing")
        allowed = required | self._closure(optional)
        for at, step in enumerate(self._plan.steps, 1):
            if step.operation in self._operations and step.operation not in allowed:
                yield Complaint("covered", at, f"nobody asked for {step.operation!r}")
        for name, count in held.items():
            if count > 1:
                yield Complaint("repeated", 0, f"{name!r} stands {count} times")

    # one step ---------------------------------------------------------------------------------------------------------

    def _place(self, at: int, step: PlanStep, known: OperationType) -> Iterator[Complaint]:
        kind = self._types.get(step.machine)
        if kind is None:
            yield Complaint("capability", at, f"no machine {step.machine!r}")
            return
        if step.machine in self._unavailable:
            yield Complaint("available", at, f"{step.machine} is not available")
        able = any(
            step.operation in one.operations and (one.machine == step.machine or (kind and one.machine_type == kind))
            for one in self._catalogue.capability
        )
        if not able:
            yield Complaint("capability", at, f"{step.machine} cannot do {step.operation!r}")
        mends = self._plan.kind is PlanKind.MAINTENANCE
        if mends and step.machine != self._plan.machine and kind and kind == self._plan.machine_type:
            yield Complaint("capability", at, f"{step.machine} is another machine of the kind that is mended")
        yield from self._tool(at, step, known, kind)

    def _tool(self, at: int, step: PlanStep, known: OperationType, kind: str) -> Iterator[Complaint]:
        if not known.tools:
            if step.tool:
                yield Complaint("tools", at, f"{step.operation!r} needs no tool, {step.tool!r} is given")
            return
        tool = self._tools.get(step.tool)
        if step.tool not in known.tools or tool is None:
            yield Complaint("tools", at, f"{step.operation!r} needs one of {', '.join(known.tools)}, not {step.tool!r}")
        elif tool.count == 0:
            yield Complaint("tools", at, f"there is no {step.tool} at present")
        elif tool.machines and step.machine not in tool.machines and kind not in tool.machines:
            yield Complaint("tools", at, f"{step.tool} does not fit {step.machine}")

    def _settings(self, at: int, step: PlanStep, known: OperationType, limits: Sequence[Limit]) -> Iterator[Complaint]:
        wanted, given = [one.name for one in known.parameter], [one.name for one in step.settings]
        if wanted != given:
            yield Complaint("settings", at, f"{step.operation!r} wants {wanted} set, given are {given}")
        parameters = {one.name: one for one in known.parameter}
        there = [*limits, *self._limits_of(step)]
        for setting in step.settings:
            parameter = parameters.get(setting.name)
            if parameter is None:
                continue
            if setting.unit != parameter.unit:
                yield Complaint("units", at, f"{setting.name} is in {parameter.unit!r}, not in {setting.unit!r}")
            fault = _beyond(parameter, setting, [one for one in there if one.operation in ("", step.operation)])
            if fault:
                yield Complaint("limits", at, fault)

    def _limits_of(self, step: PlanStep) -> list[Limit]:
        kind, found = self._types.get(step.machine, ""), list[Limit]()
        for one in self._catalogue.capability:
            here = one.machine == step.machine or (kind and one.machine_type == kind)
            if here and step.operation in one.operations:
                found += one.limit
        tool = self._tools.get(step.tool)
        return found + (tool.limit if tool is not None else [])

    def _taken(self, at: int, step: PlanStep, known: OperationType) -> Iterator[Complaint]:
        wanted = {one.part: self._billed(one.part) or one.quantity for one in known.takes}
        given = {one.part: one.quantity for one in step.parts}
        for name in given:
            if name not in self._parts:
                yield Complaint("parts", at, f"no part {name!r} in the catalogue")
        if len(given) < len(step.parts) or wanted != given:
            yield Complaint(
                "parts", at, f"{step.operation!r} takes {wanted or 'nothing'}, given is {given or 'nothing'}"
            )
        for part in step.parts:
            stocked = self._parts.get(part.part)
            if stocked is not None and part.unit != stocked.unit:
                yield Complaint("units", at, f"{part.part} is counted in {stocked.unit!r}, not in {part.unit!r}")

    def _billed(self, part: str) -> int:
        if self._remedy is None:
            return 0
        best, quantity = -1, 0
        for line in self._catalogue.bill:
            fits = line.machine_type in ("", self._plan.machine_type) and line.failure in ("*", self._plan.failure)
            weight = 2 * (line.failure != "*") + (line.machine_type != "")
            if line.part == part and fits and weight > best:
                best, quantity = weight, line.quantity
        return quantity

    def _time(self, at: int, step: PlanStep, known: OperationType) -> Iterator[Complaint]:
        if not (math.isfinite(step.minutes) and step.minutes > 0):
            yield Complaint("durations", at, f"{step.minutes:g} min is no duration")
            return
        expected = known.minutes
        if known.minutes_by:
            told = {one.name: one.typical for one in known.parameter} | {s.name: s.value for s in step.settings}
            try:
                expected = value(formula(known.minutes_by), told)
            except Refused as error:
                yield Complaint("durations", at, f"{step.operation!r}: {error.detail}")
                return
        if abs(step.minutes - expected) > 0.011:
            yield Complaint("durations", at, f"{step.operation!r} takes {expected:g} min so, not {step.minutes:g}")

    # order ------------------------------------------------------------------------------------------------------------

    def _order(self) -> Iterator[Complaint]:
        for at, step in enumerate(self._plan.steps):
            for earlier in step.after:
                if earlier >= at:
                    yield Complaint("order", at + 1, f"it waits for step {earlier + 1}, which does not come before it")
            if len(set(step.after)) < len(step.after):
                yield Complaint("order", at + 1, "it waits for one step twice")
        if self._plan.kind is PlanKind.PROCESS:
            for at, step in enumerate(self._plan.steps):
                if step.after != ([at - 1] if at else []):
                    yield Complaint("order", at + 1, "the workpiece goes from each step to the next")

    def _sequence(self) -> Iterator[Complaint]:
        place = {step.operation: at for at, step in enumerate(self._plan.steps)}
        waits = self._waits()
        for at, step in enumerate(self._plan.steps):
            known = self._operations.get(step.operation)
            if known is None:
                continue
            for name in known.must_follow:
                if place.get(name, len(place)) >= at:
                    yield Complaint("sequence", at + 1, f"{step.operation!r} must follow {name!r}")
                elif place[name] not in waits[at]:
                    yield Complaint("sequence", at + 1, f"{step.operation!r} does not wait for {name!r}")
            for name in known.may_not_precede:
                if place.get(name, -1) > at:
                    yield Complaint("sequence", at + 1, f"{step.operation!r} may not precede {name!r}")
                elif name in place and place[name] not in waits[at]:
                    yield Complaint("sequence", at + 1, f"{step.operation!r} does not wait for {name!r}")
        if self._remedy is not None:
            yield from self._remedy_order(self._remedy, place, waits)

    def _remedy_order(self, remedy: Remedy, place: dict[str, int], waits: list[set[int]]) -> Iterator[Complaint]:
        told = [name for name in remedy.operations if name in place]
        for first, then in pairwise(told):
            if place[first] > place[then] or place[first] not in waits[place[then]]:
                yield Complaint("sequence", place[then] + 1, f"the remedy does {first!r} before {then!r}")

    def _waits(self) -> list[set[int]]:
        """For each step all that must be finished before it, directly or not."""
        found: list[set[int]] = []
        for at, step in enumerate(self._plan.steps):
            direct = {one for one in step.after if one < at}
            found.append(direct.union(*(found[one] for one in direct)))
        return found


def _beyond(parameter: Parameter, setting: Setting, limits: Sequence[Limit]) -> str:
    """Why a value may not be set; empty if it may."""
    told = setting.value
    if not math.isfinite(told):
        return f"{setting.name} {told:g} is no number"
    for low, high in [(parameter.lowest, parameter.highest), *_of(parameter, limits)]:
        if not low - _NEAR * abs(low) <= told <= high + _NEAR * abs(high):
            return f"{setting.name} {told:g} {setting.unit} is not within {low:g} to {high:g}"
    if parameter.levels and not any(abs(told - level) <= _NEAR * abs(level) for level in parameter.levels):
        return f"{setting.name} {told:g} {setting.unit} is none of its standard values"
    return ""


def _of(parameter: Parameter, limits: Sequence[Limit]) -> list[tuple[float, float]]:
    return [(one.lowest, one.highest) for one in limits if one.parameter == parameter.name]


def _design_complaints(catalogue: Catalogue, design: Design) -> Iterator[Complaint]:
    family = next((one for one in catalogue.family if one.family == design.family), None)
    if family is None:
        yield Complaint("family", 0, f"no family {design.family!r}")
        return
    wanted = [(one.name, one.unit, False) for one in family.parameter]
    wanted += [(one.name, one.unit, True) for one in family.derived]
    if [(one.name, one.derived) for one in design.values] != [(name, derived) for name, _, derived in wanted]:
        yield Complaint("values", 0, f"its values are {[v.name for v in design.values]}, not {[w[0] for w in wanted]}")
        return
    for told, (name, unit, _) in zip(design.values, wanted, strict=True):
        if told.unit != unit:
            yield Complaint("units", 0, f"{name} is in {unit!r}, not in {told.unit!r}")
    known: dict[str, float] = {}
    for told, parameter in zip(design.values, family.parameter, strict=False):
        known[told.name] = told.value
        fault = _beyond(parameter, Setting(told.name, told.value, told.unit), [])
        if fault:
            yield Complaint("limits", 0, fault)
    for told, one in zip(design.values[len(family.parameter) :], family.derived, strict=True):
        try:
            known[one.name] = value(formula(one.formula), known)
        except Refused as error:
            yield Complaint("derived", 0, f"{one.name}: {error.detail}")
            return
        if not abs(told.value - known[one.name]) <= _NEAR * max(abs(known[one.name]), 1.0):
            yield Complaint("derived", 0, f"{one.name} is {known[one.name]:g}, not {told.value:g}")
    asked = [("rules", one.rule) for one in family.rule] + [("needs", one) for one in design.needs]
    for which, text in asked:
        try:
            if not holds(rule(text), known):
                yield Complaint(which, 0, f"{text} is not kept")
        except Refused as error:
            yield Complaint(which, 0, error.detail)
