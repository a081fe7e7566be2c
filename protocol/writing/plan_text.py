"""A plan or a design in words, English and Chinese: facts from the plan and the plant's catalogue, clauses from the
catalogues of clauses, and the way back. Whoever holds both can read every sentence back.

A value of the catalogue is written exactly as it is, never rounded: a whole one as a count, one that three digits show
exactly as a number, any other as a name that spells it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from protocol.capabilities import Family, PlanKind, Remedy, called
from protocol.catalogue import Catalogue
from protocol.errors import Refused
from protocol.expressions import Relation, rule
from protocol.plans import Design, DesignValue, Passage, PlanStep, WorkPlan
from protocol.reports import Section
from protocol.writing.clauses.listing import MOST_LISTED
from protocol.writing.clauses.plans import DESIGN, MAINTENANCE, PLAN_CATALOGUES, PROCESS, STEP, VALUE
from protocol.writing.facts import Fact, Kind, Mode, Said, number
from protocol.writing.frames import TITLE, Clause, Frames, reference
from protocol.writing.realise import Alternatives, Checked, Facts, Writer, licensed, template, write_document
from protocol.writing.verify import complaints_of

Words = tuple[str, str]
Document = TypeVar("Document", WorkPlan, Design)
_RELATIONS = {
    Relation.AT_LEAST: ("at least", "不小于"),
    Relation.AT_MOST: ("at most", "不大于"),
    Relation.ABOVE: ("above", "大于"),
    Relation.BELOW: ("below", "小于"),
    Relation.EQUAL: ("exactly", "等于"),
}


@dataclass
class PlantNames:
    """What things are called. machines: of a mapping file, where the catalogue has no words."""

    catalogue: Catalogue
    machines: Mapping[str, Words] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = self.catalogue
        self._operations = {one.operation: called(one.operation, one.en, one.zh) for one in told.operation}
        self._tools = {one.tool: called(one.tool, one.en, one.zh) for one in told.tool}
        self._machines = {one.machine: (one.en, one.zh or one.en) for one in told.machine if one.en}
        self._settings = {
            (one.operation, p.name): called(p.name, p.en, p.zh) for one in told.operation for p in one.parameter
        }
        self._products = {one.product: called(one.product, one.en, one.zh) for one in told.product}
        self._parts = {one.part: called(one.part, one.en, one.zh) for one in told.part}

    def operation(self, name: str) -> Words:
        """What to do."""
        return self._operations.get(name, called(name, "", ""))

    def tool(self, name: str) -> Words:
        """A tool."""
        return self._tools.get(name, called(name, "", ""))

    def machine(self, name: str) -> Words:
        """A machine or work place."""
        return self._machines.get(name) or self.machines.get(name, (name, name))

    def setting(self, operation: str, name: str) -> Words:
        """A parameter of an operation."""
        return self._settings.get((operation, name), called(name, "", ""))

    def product(self, name: str) -> Words:
        """What is made."""
        return self._products.get(name, called(name, "", ""))

    def part(self, name: str) -> Words:
        """A spare part or material."""
        return self._parts.get(name, called(name, "", ""))


def write_plan(
    plan: WorkPlan, names: PlantNames, writer: Writer = template, checked: Checked | None = None
) -> WorkPlan:
    """The plan with its text. Raises Refused where a fact cannot be rendered."""
    return msgspec.structs.replace(plan, passages=_passages(plan_facts(plan, names), writer, checked))


def write_design(
    design: Design, names: PlantNames, writer: Writer = template, checked: Checked | None = None
) -> Design:
    """The design with its text. Raises Refused where a fact cannot be rendered."""
    return msgspec.structs.replace(design, passages=_passages(design_facts(design, names), writer, checked))


def text_complaints(document: WorkPlan | Design, names: PlantNames) -> list[str]:
    """What in a text is not so: facts that are not the plan's, sentences that are no licensed clauses of the facts. Empty:
    every claim was read back."""
    told = plan_facts(document, names) if isinstance(document, WorkPlan) else design_facts(document, names)
    if len(told) != len(document.passages):
        return [f"{len(document.passages)} passages, not {len(told)}"]
    found: list[str] = []
    for at, ((name, facts), passage) in enumerate(zip(told, document.passages, strict=True)):
        found += [f"passage {at}: {fault}" for fault in passage_complaints(passage, name, facts)]
    return found


# facts ----------------------------------------------------------------------------------------------------------------

Told = list[tuple[str, list[Fact]]]


def plan_facts(plan: WorkPlan, names: PlantNames) -> Told:
    """(document, facts) of each passage: the whole plan first, then every step."""
    whole = MAINTENANCE if plan.kind is PlanKind.MAINTENANCE else PROCESS
    steps = [(STEP, _step_facts(plan, at, step, names)) for at, step in enumerate(plan.steps)]
    return [(whole, [*_subject(plan, names), *_origin(plan), *_glance(plan, names), *_choice(plan)]), *steps]


def design_facts(design: Design, names: PlantNames) -> Told:
    """(document, facts) of each passage: the whole design first, then every value."""
    family = next(
        (one for one in names.catalogue.family if one.family == design.family), Family(family="?", parameter=[])
    )
    words = called(design.family, family.en, family.zh)
    labels = {one.name: (called(one.name, one.en, one.zh), one.unit) for one in family.parameter}
    labels |= {one.name: (called(one.name, one.en, one.zh), one.unit) for one in family.derived}
    source = f"catalogue/family/{design.family}"[:128]
    facts = [_name("family", design.family, words, source)]
    facts += [
        _name(f"need_{at}", need[:128], _rule_words(need, "", "", labels), design.asked_by or "request", first=at == 1)
        for at, need in enumerate(design.needs, 1)
    ]
    if not design.needs:
        facts.append(_category("needs", "none"))
    facts += [
        _name(f"rule_{at}", one.rule[:128], _rule_words(one.rule, one.en, one.zh, labels), source, first=at == 1)
        for at, one in enumerate(family.rule, 1)
    ]
    values = [(VALUE, _value_facts(one, family, labels, source)) for one in design.values]
    return [(DESIGN, [*facts, *_choice(design)]), *values]


def _subject(plan: WorkPlan, names: PlantNames) -> list[Fact]:
    if plan.kind is PlanKind.PROCESS:
        product = next((one for one in names.catalogue.product if one.product == plan.product), None)
        facts = [_name("product", plan.product, names.product(plan.product), f"catalogue/product/{plan.product}")]
        if product is not None and product.material:
            words = (product.material_en or product.material, product.material_zh or product.material)
            facts.append(_name("material", product.material, words, f"catalogue/product/{plan.product}"))
        return facts
    remedy = _remedy(plan, names.catalogue)
    failure = called(plan.failure, remedy.en if remedy else "", remedy.zh if remedy else "")
    action = called(plan.action, remedy.do_en if remedy else "", remedy.do_zh if remedy else "")
    source = f"catalogue/remedy/{plan.action}"
    return [
        _name("machine", plan.machine, names.machine(plan.machine), plan.asked_by),
        _name("failure", plan.failure, failure, source),
        _name("action", plan.action, action, source),
    ]


def _remedy(plan: WorkPlan, catalogue: Catalogue) -> Remedy | None:
    fits = [
        one
        for one in catalogue.remedy
        if (one.failure, one.action) == (plan.failure, plan.action) and one.machine_type in ("", plan.machine_type)
    ]
    return max(fits, key=lambda one: bool(one.machine_type), default=None)


def _origin(plan: WorkPlan) -> list[Fact]:
    facts = [_category("asked", plan.asked.value, plan.asked_by)]
    if plan.asked_ms is not None:
        facts.append(Fact(key="asked_at", kind=Kind.MOMENT, value=float(plan.asked_ms), source=plan.asked_by))
    if plan.place:
        source = plan.sources[0] if plan.sources else plan.asked_by
        facts.append(Fact(key="place", kind=Kind.COUNT, value=float(plan.place), source=source))
    return facts


def _glance(plan: WorkPlan, names: PlantNames) -> list[Fact]:
    facts = [
        _category("size", "one" if len(plan.steps) == 1 else "many"),
        Fact(key="steps", kind=Kind.COUNT, value=float(len(plan.steps))),
        _quantity("minutes", plan.minutes, "min"),
    ]
    if plan.kind is PlanKind.PROCESS:
        machines = list(dict.fromkeys(step.machine for step in plan.steps))
        facts += _list("machine", [_name("", one, names.machine(one), f"catalogue/machine/{one}") for one in machines])
    tools = list(dict.fromkeys(step.tool for step in plan.steps if step.tool))
    facts += _list("tool", [_name("", one, names.tool(one), f"catalogue/tool/{one}") for one in tools])
    totals: dict[tuple[str, str], int] = {}
    for part in (part for step in plan.steps for part in step.parts):
        totals[part.part, part.unit] = totals.get((part.part, part.unit), 0) + part.quantity
    quantities = [_quantity("", float(count), unit) for (_, unit), count in totals.items()]
    parts = [_name("", part, names.part(part), f"catalogue/part/{part}") for part, _ in totals]
    return [*facts, *_list("part", parts), *(_list("quantity", quantities) if len(parts) <= MOST_LISTED else [])]


def _list(key: str, facts: Sequence[Fact]) -> list[Fact]:
    """Numbered from 1; the category says when there are none, or more than a sentence holds."""
    if key == "quantity":
        return [_keyed(f"{key}_{at}", fact) for at, fact in enumerate(facts, 1)]
    if not facts or len(facts) > MOST_LISTED:
        return [_category(f"{key}s", "many" if facts else "none")]
    return [_keyed(f"{key}_{at}", fact) for at, fact in enumerate(facts, 1)]


def _choice(document: WorkPlan | Design) -> list[Fact]:
    facts = [_category("aim", document.aim.value)]
    if document.candidates > 1:
        facts.append(Fact(key="candidate", kind=Kind.COUNT, value=float(document.candidate)))
        facts.append(Fact(key="candidates", kind=Kind.COUNT, value=float(document.candidates)))
    if document.score is not None:
        facts.append(Fact(key="score", kind=Kind.NUMBER, value=document.score, source="ranking"))
    if document.checks:
        facts.append(Fact(key="checks", kind=Kind.COUNT, value=float(len(document.checks)), source="checks"))
    return facts


def _step_facts(plan: WorkPlan, at: int, step: PlanStep, names: PlantNames) -> list[Fact]:
    source = f"catalogue/operation/{step.operation}"
    facts = [
        Fact(key="number", kind=Kind.COUNT, value=float(at + 1)),
        _name("operation", step.operation, names.operation(step.operation), source, first=step.machine == plan.machine),
    ]
    if step.machine != plan.machine:
        facts.append(_name("machine", step.machine, names.machine(step.machine), f"catalogue/machine/{step.machine}"))
    if at and step.after != [at - 1]:
        facts += [
            Fact(key=f"after_{i}", kind=Kind.COUNT, value=float(one + 1))
            for i, one in enumerate(step.after[:MOST_LISTED], 1)
        ] or [_category("start", "free")]
    if step.tool:
        facts.append(_name("tool", step.tool, names.tool(step.tool), f"catalogue/tool/{step.tool}"))
    for i, setting in enumerate(step.settings, 1):
        facts.append(_name(f"setting_{i}", setting.name, names.setting(step.operation, setting.name), source))
        facts.append(_quantity(f"value_{i}", setting.value, setting.unit, source))
    for i, part in enumerate(step.parts, 1):
        facts.append(_name(f"part_{i}", part.part, names.part(part.part), f"catalogue/part/{part.part}"))
        facts.append(_quantity(f"quantity_{i}", float(part.quantity), part.unit, source))
    return [*facts, _quantity("minutes", step.minutes, "min", source)]


def _value_facts(told: DesignValue, family: Family, labels: Mapping[str, tuple[Words, str]], source: str) -> list[Fact]:
    words, _ = labels.get(told.name, (called(told.name, "", ""), ""))
    facts = [_name("name", told.name, words, source, first=True)]
    if told.derived:
        derived = Fact(key="value", kind=Kind.NUMBER, value=told.value, unit=told.unit, source=source)
        return [*facts, derived, _category("origin", "derived")]
    parameter = next((one for one in family.parameter if one.name == told.name), None)
    facts.append(_quantity("value", told.value, told.unit, source))
    if parameter is not None:
        standard = [v for v in parameter.levels if parameter.lowest <= v <= parameter.highest]
        low, high = (min(standard), max(standard)) if standard else (parameter.lowest, parameter.highest)
        facts += [_quantity("lowest", low, told.unit, source), _quantity("highest", high, told.unit, source)]
        facts.append(_category("origin", "standard" if standard else "range"))
    return facts


def _name(key: str, token: str, words: Words, source: str, *, first: bool = False) -> Fact:
    en = words[0][:1].upper() + words[0][1:] if first else words[0]
    return Fact(key=key or "unnamed", kind=Kind.NAME, value=token, en=en, zh=words[1], source=source[:128])


def _category(key: str, value: str, source: str = "") -> Fact:
    return Fact(key=key, kind=Kind.CATEGORY, value=value, source=source)


def _keyed(key: str, fact: Fact) -> Fact:
    return msgspec.structs.replace(fact, key=key)


def _quantity(key: str, value: float, unit: str, source: str = "") -> Fact:
    """A value that is written exactly as it is. A unit of "1" is none."""
    unit = "" if unit == "1" else unit
    key, source = key or "unnamed", source[:128]
    if value >= 0 and value == int(value) and value < 1e9:
        return Fact(key=key, kind=Kind.COUNT, value=value, unit=unit, source=source)
    spelled = f"{value:.12g}"
    if number(value) == spelled:
        return Fact(key=key, kind=Kind.NUMBER, value=value, unit=unit, source=source)
    text = f"{spelled} {unit}".strip()
    return Fact(key=key, kind=Kind.NAME, value=text, en=text, zh=text, source=source)


def _rule_words(text: str, en: str, zh: str, labels: Mapping[str, tuple[Words, str]]) -> Words:
    """A rule in its own words; without any, what it says where it is a name and a number; else as it was written."""
    if en:
        return en, zh or en
    try:
        asked = rule(text)
    except Refused:
        return _spelled(text)
    if asked.left.what != "name" or asked.right.what != "number" or asked.left.name not in labels:
        return _spelled(text)
    words, unit = labels[asked.left.name]
    said = _RELATIONS[asked.relation]
    amount = f"{asked.right.value:.12g}{f' {unit}' if unit not in ('', '1') else ''}"
    return f"{words[0]} {said[0]} {amount}", f"{words[1]}{said[1]} {amount}"


def _spelled(text: str) -> Words:
    shown = text.replace("<=", "≤").replace(">=", "≥").replace("<", "＜").replace(">", "＞")
    return shown[:128], shown[:128]


# words and back -------------------------------------------------------------------------------------------------------


def _passages(told: Told, writer: Writer, checked: Checked | None) -> list[Passage]:
    found = []
    for name, facts in told:
        frames = PLAN_CATALOGUES[name]
        written = write_document(frames, facts, writer, checked)
        found.append(
            Passage(
                document=name,
                title_en=written.title_en,
                title_zh=written.title_zh,
                frames=reference(frames),
                facts=facts,
                sections=written.sections,
            )
        )
    return found


def passage_complaints(passage: Passage, document: str = "", facts: Sequence[Fact] | None = None) -> list[str]:
    """What in a passage is not so. document, facts: what it is to be about; without them it is read against its own facts
    alone, as a reader can who does not have the plant's catalogue."""
    name, facts = document or passage.document, passage.facts if facts is None else list(facts)
    frames = PLAN_CATALOGUES.get(name)
    if frames is None or passage.document != name or passage.frames != reference(frames):
        return [f"written with {passage.frames[:80] or passage.document}, a catalogue that is not known here"]
    if passage.facts != facts:
        pairs = zip(passage.facts, facts, strict=False)
        differ = (f"{a.key} {a.value!r}, not {b.key} {b.value!r}" for a, b in pairs if a != b)
        wrong = next(differ, "their number differs")
        return [f"its facts are not the plan's: {wrong}"]
    try:
        return _read_back(passage, frames, facts)
    except Refused as why:
        return [why.detail]


def _read_back(passage: Passage, frames: Frames, facts: list[Fact]) -> list[str]:
    known = Facts(facts)
    said = licensed(frames, known)
    titles = [(known.fill(c, 0, "en").text, known.fill(c, 0, "zh").text) for c in said.get(TITLE, ())]
    found = [] if (passage.title_en, passage.title_zh) in titles else ["its title is none of the facts'"]
    headings = {one.section: one for one in frames.headings if one.section in said}
    if [one.section for one in passage.sections] != list(headings):
        return [*found, f"its sections are {[one.section for one in passage.sections]}, not {list(headings)}"]
    for section in passage.sections:
        heading = headings[section.section]
        if (section.title_en, section.title_zh) != (heading.en, heading.zh):
            found.append(f"{section.section} is headed {section.title_en[:60]!r}")
        found += _section_complaints(section, known, said[section.section])
    return found


def _section_complaints(section: Section, known: Facts, clauses: tuple[Clause, ...]) -> list[str]:
    en = Said(text=section.text_en, spans=section.spans_en, clauses=section.clauses_en, mode=section.mode_en)
    zh = Said(text=section.text_zh, spans=section.spans_zh, clauses=section.clauses_zh, mode=section.mode_zh)
    found = [str(one) for one in complaints_of(Alternatives(section.section, "en", known, clauses), en)]
    found += [str(one) for one in complaints_of(Alternatives(section.section, "zh", known, clauses), zh)]
    strict = Mode.FREE not in (en.mode, zh.mode)
    if strict and [c.partition("#")[0] for c in en.clauses] != [c.partition("#")[0] for c in zh.clauses]:
        found.append(f"{section.section}: the two languages say different things")
    return found
