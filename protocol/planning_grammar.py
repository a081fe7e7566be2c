"""Which plans there can be: from the catalogue and a request to what may be said next at each point.

A plan is a row of choices: a remedy (for maintenance), then for each step an operation, the machine that does it, the tool,
and one value for each parameter; at last the end, once everything that was asked for is done. Whoever chooses (rules, or a
language model) chooses among what is offered here and can say nothing else, so that every machine can do its operation, every
value lies within the limits of operation, machine, tool and product, and every operation comes after what it must follow.

There are no dead ends: what is asked for is closed under `must_follow`, found free of cycles, and found to have a machine, a
tool and values, before the first choice; where that fails, the refusal says why."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from protocol.capabilities import (
    Limit,
    OperationType,
    OperationUse,
    Parameter,
    PlanKind,
    Product,
    Remedy,
    Tool,
    levels,
    window,
)
from protocol.catalogue import Catalogue
from protocol.errors import Reason, Refused
from protocol.expressions import formula, value
from protocol.plans import MOST_STEPS, PlanPart, PlanStep, Setting, WorkPlan

MOST_OFFERED = 200
"""Choices at one point; more of a kind (machines of one type, say) are not offered."""
SHORTEST_MINUTES = 0.01


class Pick(StrEnum):
    """What is chosen."""

    REMEDY = "remedy"
    OPERATION = "operation"
    MACHINE = "machine"
    TOOL = "tool"
    LEVEL = "level"
    END = "end"


@dataclass(frozen=True, slots=True)
class Choice:
    """One admissible continuation. `text` is how a language model says it: a level by its place among the others ("typical",
    "level-2"), never by its number."""

    pick: Pick
    name: str
    value: float = 0.0
    word: str = ""

    @property
    def text(self) -> str:
        """One line."""
        return f"{self.pick} {' '.join((self.word or self.name).split())}\n"


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a plan is for. Maintenance: a machine with a failure ("": whatever one of `actions` mends), actions being items
    that were recommended or accepted, best first (none: every remedy of the failure). unavailable: machines not to use."""

    kind: PlanKind
    product: str = ""
    machine: str = ""
    machine_type: str = ""
    failure: str = ""
    actions: tuple[str, ...] = ()
    unavailable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """A machine that can do an operation, with a tool ("": none is needed), and the values that may be set there."""

    machine: str
    tool: str
    levels: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Job:
    """What must be done and what may be, under one remedy or for one product. order: pairs of (first, then)."""

    remedy: Remedy | None
    required: frozenset[str]
    optional: frozenset[str]
    before: Mapping[str, frozenset[str]]
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Draft:
    """A plan as far as it is said."""

    path: tuple[Choice, ...] = ()
    job: Job | None = None
    steps: tuple[PlanStep, ...] = ()
    operation: str = ""
    machine: str = ""
    tool: str | None = None
    settings: tuple[Setting, ...] = ()
    ended: bool = False

    @property
    def done(self) -> frozenset[str]:
        """Operations that it holds."""
        return frozenset(step.operation for step in self.steps)


@dataclass
class PlanGrammar:
    """The plans of one request. Raises Refused when made: an unknown product, failure or operation (UNKNOWN_TARGET), or
    nothing that can be done, with every reason (NOT_ELIGIBLE)."""

    catalogue: Catalogue
    request: PlanRequest
    jobs: list[Job] = field(init=False)
    _operations: dict[str, OperationType] = field(init=False)
    _rank: dict[str, int] = field(init=False)
    _places: dict[tuple[str, int], list[Place]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._operations = {one.operation: one for one in self.catalogue.operation}
        self._rank = {one.operation: at for at, one in enumerate(self.catalogue.operation)}
        self._tools = {one.tool: one for one in self.catalogue.tool}
        self._machines = {one.machine: one.machine_type for one in self.catalogue.machine}
        if self.request.machine and self.request.machine_type:
            self._machines.setdefault(self.request.machine, self.request.machine_type)
        self._words = _machine_words(self._machines, self.request.machine)
        self._by_machine, self._by_type = self._capable()
        self.jobs = self._jobs()

    # what may be said -------------------------------------------------------------------------------------------------

    def start(self) -> Draft:
        """Nothing said yet; where there is no remedy to choose, the job is known."""
        return Draft(job=None if self.request.kind is PlanKind.MAINTENANCE else self.jobs[0])

    def choices(self, draft: Draft) -> list[Choice]:
        """Admissible continuations in the catalogue's order (remedies: as recommended); none once it has ended."""
        if draft.ended:
            return []
        if draft.job is None:
            return [Choice(Pick.REMEDY, _remedy_name(job.remedy)) for job in self.jobs if job.remedy is not None]
        if not draft.operation:
            return self._next(draft, draft.job)
        places = self._at(draft.job, draft.operation)
        if not draft.machine:
            names = dict.fromkeys(place.machine for place in places)
            return [Choice(Pick.MACHINE, name, word=self._words[name]) for name in names][:MOST_OFFERED]
        if draft.tool is None:
            return [Choice(Pick.TOOL, p.tool) for p in places if p.machine == draft.machine][:MOST_OFFERED]
        return self._levels(draft, places)

    def take(self, draft: Draft, choice: Choice) -> Draft:
        """The draft with one more choice. Raises ValueError for one that is not offered."""
        if choice not in self.choices(draft):
            raise ValueError(f"{choice} may not follow here")
        path = (*draft.path, choice)
        match choice.pick:
            case Pick.REMEDY:
                job = next(j for j in self.jobs if j.remedy is not None and _remedy_name(j.remedy) == choice.name)
                return replace(draft, path=path, job=job)
            case Pick.END:
                return replace(draft, path=path, ended=True)
            case Pick.OPERATION:
                return replace(draft, path=path, operation=choice.name, machine="", tool=None, settings=())
            case Pick.MACHINE:
                tool = None if self._operations[draft.operation].tools else ""
                return self._step_if_whole(replace(draft, path=path, machine=choice.name, tool=tool))
            case Pick.TOOL:
                return self._step_if_whole(replace(draft, path=path, tool=choice.name))
        parameter = self._operations[draft.operation].parameter[len(draft.settings)]
        setting = Setting(parameter.name, choice.value, parameter.unit)
        return self._step_if_whole(replace(draft, path=path, settings=(*draft.settings, setting)))

    def path_of(self, plan: WorkPlan) -> list[Choice] | None:
        """The choices that a plan is made of; None if this grammar cannot say it."""
        for start in self._starts(plan):
            draft: Draft | None = start
            while draft is not None and not draft.ended:
                draft = self._towards(draft, plan.steps)
            if draft is not None and list(draft.steps) == plan.steps:
                return list(draft.path)
        return None

    def typical(self, operation: str, name: str) -> float:
        """The typical value of a parameter."""
        return next(one.typical for one in self._operations[operation].parameter if one.name == name)

    def parameter(self, draft: Draft) -> Parameter:
        """The one whose value is chosen next."""
        return self._operations[draft.operation].parameter[len(draft.settings)]

    def minutes(self, operation: str, settings: Iterable[Setting]) -> float:
        """How long an operation takes with these settings, the others typical."""
        known = self._operations[operation]
        if not known.minutes_by:
            return known.minutes
        values = {one.name: one.typical for one in known.parameter} | {one.name: one.value for one in settings}
        return round(max(value(formula(known.minutes_by), values), SHORTEST_MINUTES), 2)

    # the job ----------------------------------------------------------------------------------------------------------

    def _jobs(self) -> list[Job]:
        if self.request.kind is PlanKind.PROCESS:
            return [self._process()]
        found: list[Job] = []
        refused: list[str] = []
        for remedy in self._remedies():
            try:
                found.append(self._mending(remedy))
            except Refused as why:
                refused.append(f"{remedy.action}: {why.detail}")
        if not found:
            raise Refused(Reason.NOT_ELIGIBLE, f"no remedy can be carried out: {'; '.join(refused)}")
        return found

    def _process(self) -> Job:
        asked = self.request.product
        product = next((one for one in self.catalogue.product if one.product == asked), None)
        if product is None:
            known = ", ".join(one.product for one in self.catalogue.product[:20]) or "none"
            raise Refused(Reason.UNKNOWN_TARGET, f"no [[product]] {asked[:80]!r}: known are {known}")
        required, optional = self._features(product)
        if not required:
            raise Refused(
                Reason.NOT_ELIGIBLE, f"product {asked!r} asks for no operation: give it `operations` or `features`"
            )
        return self._job(None, required, optional, (), product.limit)

    def _features(self, product: Product) -> tuple[list[str], list[str]]:
        required, optional = [*product.operations], [*product.optional]
        for wanted in product.features:
            fits = [
                one
                for one in self.catalogue.feature
                if one.feature == wanted and (not one.materials or product.material in one.materials)
            ]
            if not fits:
                raise Refused(
                    Reason.NOT_ELIGIBLE,
                    f"product {product.product!r}: no [[feature]] {wanted!r} for material {product.material!r}: add one",
                )
            for one in fits:
                required += one.operations
                optional += one.optional
        return required, optional

    def _remedies(self) -> list[Remedy]:
        request = self.request
        fits = [
            one
            for one in self.catalogue.remedy
            if one.machine_type in ("", request.machine_type)
            and (not request.failure or one.failure == request.failure)
            and (not request.actions or one.action in request.actions)
        ]
        if not fits:
            asked = " ".join(filter(None, (repr(request.failure) if request.failure else "", *request.actions)))
            known = sorted({r.failure for r in self.catalogue.remedy if r.machine_type in ("", request.machine_type)})
            raise Refused(
                Reason.UNKNOWN_TARGET,
                f"no [[remedy]] for {asked or 'anything'} of {request.machine or 'a machine'}"
                f" ({request.machine_type or 'any type'}): known failures of it are {', '.join(known[:20]) or 'none'}",
            )
        order = {action: at for at, action in enumerate(request.actions)}
        own = {(one.failure, one.action) for one in fits if one.machine_type}
        fits = [one for one in fits if one.machine_type or (one.failure, one.action) not in own]
        return sorted(fits, key=lambda one: order.get(one.action, 0))

    def _mending(self, remedy: Remedy) -> Job:
        pairs = tuple(zip(remedy.operations, remedy.operations[1:], strict=False))
        return self._job(remedy, remedy.operations, remedy.optional, pairs, remedy.limit)

    def _job(
        self,
        remedy: Remedy | None,
        asked: Sequence[str],
        may: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        limits: Sequence[Limit],
    ) -> Job:
        required = self._closed(asked)
        optional = [name for name in self._closed([*may]) if name not in required]
        before = self._before({*required, *optional}, pairs)
        self._can_begin(required, before)
        job = Job(remedy, frozenset(required), frozenset(optional), before, tuple(limits))
        for name in sorted(required, key=self._rank.__getitem__):
            self._at(job, name)
        fit = [name for name in optional if self._is_possible(job, name)]
        return replace(job, optional=frozenset(fit))

    def _closed(self, asked: Sequence[str]) -> list[str]:
        """What is asked for and everything that it must follow."""
        found: dict[str, None] = {}
        waiting = deque(asked)
        while waiting:
            name = waiting.popleft()
            if name in found:
                continue
            known = self._operations.get(name)
            if known is None:
                raise Refused(Reason.UNKNOWN_TARGET, f"no [[operation]] {name!r}: add it to the catalogue")
            if known.use not in (OperationUse.ANY, OperationUse(self.request.kind)):
                raise Refused(Reason.NOT_ELIGIBLE, f"operation {name!r} is for {known.use} plans: mend its `use`")
            found[name] = None
            if len(found) > MOST_STEPS:
                raise Refused(
                    Reason.NOT_ELIGIBLE,
                    f"more than {MOST_STEPS} operations are needed: split the product or the remedy",
                )
            waiting.extend(known.must_follow)
        return list(found)

    def _before(self, names: set[str], pairs: Sequence[tuple[str, str]]) -> dict[str, frozenset[str]]:
        before = {
            name: {*self._operations[name].must_follow, *self._operations[name].may_not_precede} & names
            for name in names
        }
        for first, then in pairs:
            before[then].add(first)
        return {name: frozenset(needed) for name, needed in before.items()}

    def _can_begin(self, required: Sequence[str], before: Mapping[str, frozenset[str]]) -> None:
        left, done = set(required), set[str]()
        while left:
            ready = {name for name in left if not (before[name] & left)}
            if not ready:
                raise Refused(
                    Reason.NOT_ELIGIBLE,
                    f"the order of {', '.join(sorted(left)[:6])} goes round in a circle: the remedy's order and the"
                    " operations' own contradict one another",
                )
            done |= ready
            left -= ready

    # where it can be done ---------------------------------------------------------------------------------------------

    def _capable(self) -> tuple[dict[str, dict[str, list[Limit]]], dict[str, dict[str, list[Limit]]]]:
        """operation -> machine -> limits, and operation -> machine type -> limits; several sections add up."""
        by_machine: dict[str, dict[str, list[Limit]]] = {}
        by_type: dict[str, dict[str, list[Limit]]] = {}
        for one in self.catalogue.capability:
            told, place = (by_machine, one.machine) if one.machine else (by_type, one.machine_type)
            for name in one.operations:
                told.setdefault(name, {}).setdefault(place, []).extend(one.limit)
        return by_machine, by_type

    def _is_possible(self, job: Job, name: str) -> bool:
        try:
            return bool(self._at(job, name))
        except Refused:
            return False

    def _at(self, job: Job, name: str) -> list[Place]:
        """Where an operation can be done, the machine that is mended first. Raises Refused with the reasons if nowhere."""
        key = (name, id(job.remedy))
        if key not in self._places:
            found: list[Place] = []
            why: dict[str, None] = {}
            for machine, limits in self._able(name):
                if machine in self.request.unavailable:
                    why[f"{machine} is not available"] = None
                    continue
                found += self._with_tools(name, machine, [*limits, *job.limits], why)
            if not found:
                reasons = "; ".join(list(why)[:5]) or "no [[capability]] names a machine that is there"
                raise Refused(Reason.NOT_ELIGIBLE, f"nothing can do {name!r}: {reasons}")
            own = self.request.machine
            found.sort(key=lambda place: place.machine != own)
            self._places[key] = found
        return self._places[key]

    def _able(self, name: str) -> list[tuple[str, list[Limit]]]:
        """(machine, limits there) of all that can do it; one that mends is never another machine of the same kind."""
        own, by_type = self._by_machine.get(name, {}), self._by_type.get(name, {})
        found: list[tuple[str, list[Limit]]] = []
        for machine, kind in self._machines.items():
            if machine not in own and kind not in by_type:
                continue
            twin = machine != self.request.machine and kind and kind == self.request.machine_type
            if not twin:
                found.append((machine, [*own.get(machine, []), *(by_type.get(kind, []) if kind else [])]))
        return found

    def _with_tools(self, name: str, machine: str, limits: list[Limit], why: dict[str, None]) -> list[Place]:
        operation, found = self._operations[name], []
        tools: list[Tool | None] = [self._tools[tool] for tool in operation.tools] if operation.tools else [None]
        for tool in tools:
            if tool is not None and tool.count == 0:
                why[f"there is no {tool.tool} (count = 0)"] = None
            elif tool is not None and tool.machines and not {machine, self._machines[machine]} & set(tool.machines):
                why[f"{tool.tool} does not fit {machine}"] = None
            else:
                there = [*limits, *(tool.limit if tool is not None else [])]
                values = [levels(p, *window(p, name, there)) for p in operation.parameter]
                empty = [p.name for p, some in zip(operation.parameter, values, strict=True) if not some]
                if empty:
                    why[f"the limits of {empty[0]} leave nothing on {machine}"] = None
                else:
                    found.append(Place(machine, tool.tool if tool is not None else "", tuple(map(tuple, values))))
        return found

    # one step ---------------------------------------------------------------------------------------------------------

    def _next(self, draft: Draft, job: Job) -> list[Choice]:
        done = draft.done
        over = set().union(*(job.before[name] for name in done)) - done
        """What may no longer come, because something that it had to precede is done."""
        ready: list[str] = []
        for name in job.required | job.optional:
            fits = name not in done and name not in over
            waits = job.before[name] & job.required - done
            leads = set(self._operations[name].must_follow) - done
            if fits and not waits and not leads:
                ready.append(name)
        ready.sort(key=self._rank.__getitem__)
        whole = job.required <= done
        room = MOST_STEPS - len(draft.steps) > len(job.required - done)
        offered = [Choice(Pick.OPERATION, name) for name in ready if name in job.required or room]
        return [*offered[:MOST_OFFERED], *([Choice(Pick.END, "plan")] if whole else [])]

    def _levels(self, draft: Draft, places: list[Place]) -> list[Choice]:
        place = next(p for p in places if p.machine == draft.machine and p.tool == draft.tool)
        values = place.levels[len(draft.settings)]
        typical = self.parameter(draft).typical
        nearest = min(values, key=lambda level: (abs(level - typical), level))
        return [
            Choice(Pick.LEVEL, f"level-{at}", level, level_word(values, at, nearest)) for at, level in enumerate(values)
        ]

    def _step_if_whole(self, draft: Draft) -> Draft:
        operation, job = self._operations[draft.operation], draft.job
        if job is None or draft.tool is None or len(draft.settings) < len(operation.parameter):
            return draft
        step = PlanStep(
            operation=draft.operation,
            machine=draft.machine,
            tool=draft.tool,
            settings=list(draft.settings),
            parts=self._parts(operation, job),
            minutes=self.minutes(draft.operation, draft.settings),
            after=self._after(draft, job),
        )
        return replace(draft, steps=(*draft.steps, step), operation="", machine="", tool=None, settings=())

    def _after(self, draft: Draft, job: Job) -> list[int]:
        """The nearest steps that this one waits for. A workpiece is at one place at a time: it waits for the step before."""
        if self.request.kind is PlanKind.PROCESS:
            return [len(draft.steps) - 1] if draft.steps else []
        place = {step.operation: at for at, step in enumerate(draft.steps)}
        waits = {place[name] for name in job.before[draft.operation] if name in place}
        covered: set[int] = set()
        for at in sorted(waits, reverse=True):
            if at not in covered:
                covered |= _ancestors(draft.steps, at)
        return sorted(waits - covered)

    def _parts(self, operation: OperationType, job: Job) -> list[PlanPart]:
        units = {one.part: one.unit for one in self.catalogue.part}
        found = []
        for one in operation.takes:
            quantity = one.quantity
            if job.remedy is not None:
                quantity = billed(self.catalogue, one.part, self.request.machine_type, job.remedy.failure) or quantity
            found.append(PlanPart(one.part, quantity, units.get(one.part, "")))
        return found

    # reading back -----------------------------------------------------------------------------------------------------

    def _starts(self, plan: WorkPlan) -> list[Draft]:
        start = self.start()
        if start.job is not None:
            return [start]
        wanted = [c for c in self.choices(start) if c.name == f"{plan.failure}/{plan.action}"]
        return [self.take(start, choice) for choice in wanted]

    def _towards(self, draft: Draft, steps: Sequence[PlanStep]) -> Draft | None:
        at = len(draft.steps)
        if list(draft.steps) != list(steps[:at]):
            return None
        for choice in self.choices(draft):
            if _says(choice, draft, steps[at] if at < len(steps) else None):
                return self.take(draft, choice)
        return None


def billed(catalogue: Catalogue, part: str, machine_type: str, failure: str) -> int:
    """How many of a part this failure takes by the bill; 0 if the bill does not say. A line for the failure counts before one
    for any ("*")."""
    lines = [
        one
        for one in catalogue.bill
        if one.part == part and one.machine_type in ("", machine_type) and one.failure in ("*", failure)
    ]
    lines.sort(key=lambda one: (one.failure == "*", one.machine_type == ""))
    return lines[0].quantity if lines else 0


def _says(choice: Choice, draft: Draft, step: PlanStep | None) -> bool:
    """Whether a choice is the next one of a plan whose next step this is (None: there is none)."""
    if step is None:
        return choice.pick is Pick.END
    match choice.pick:
        case Pick.OPERATION:
            return choice.name == step.operation
        case Pick.MACHINE:
            return choice.name == step.machine
        case Pick.TOOL:
            return choice.name == step.tool
        case Pick.LEVEL:
            at = len(draft.settings)
            return at < len(step.settings) and choice.value == step.settings[at].value
    return False


def _machine_words(machines: Mapping[str, str], own: str) -> dict[str, str]:
    """Machines as a model hears of them: the one that is mended, or the type and the place among those of the type."""
    counts: dict[str, int] = {}
    words: dict[str, str] = {}
    for name, kind in machines.items():
        counts[kind] = counts.get(kind, 0) + 1
        words[name] = "itself" if name == own else f"{kind or 'place'} {counts[kind]}"
    return words


def _remedy_name(remedy: Remedy | None) -> str:
    return f"{remedy.failure}/{remedy.action}" if remedy is not None else ""


def level_word(values: Sequence[float], at: int, nearest: float) -> str:
    """How a value is called among those that may be chosen: by its place, never by its number."""
    if values[at] == nearest:
        return "typical"
    return "lowest" if at == 0 else "highest" if at == len(values) - 1 else f"level-{at}"


def _ancestors(steps: Sequence[PlanStep], at: int) -> set[int]:
    found: set[int] = set()
    waiting = list(steps[at].after)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(steps[one].after)
    return found
