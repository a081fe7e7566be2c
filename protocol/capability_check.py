"""What is wrong with a catalogue's operations, capabilities, tools, products, remedies and families, before anything is
planned with them. Every complaint names the section, the fact and the remedy. Linear in the size of the catalogue."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from protocol.capabilities import (
    UNITS,
    Family,
    Limit,
    OperationType,
    Parameter,
    called,
    levels,
    window,
)
from protocol.catalogue import Catalogue
from protocol.errors import Refused
from protocol.expressions import formula, names, rule, value
from protocol.writing.facts import LONGEST_NAME

MOST_TOLD = 200
"""Complaints after which reading on helps nobody."""
_IDENTIFIER = "letters, digits and _, not beginning with a digit"


def capability_problems(catalogue: Catalogue) -> list[str]:
    """Complaints, at most MOST_TOLD; none for a catalogue that can be planned with."""
    found: list[str] = []
    for one in _problems(catalogue):
        found.append(one)
        if len(found) == MOST_TOLD:
            break
    return found


def _problems(catalogue: Catalogue) -> Iterator[str]:
    units = UNITS | set(catalogue.units)
    operations = {one.operation: one for one in catalogue.operation}
    tools = {one.tool for one in catalogue.tool}
    parts = {one.part for one in catalogue.part}
    yield from _names(catalogue)
    for operation in catalogue.operation:
        where = f"[[operation]] {operation.operation!r}"
        yield from _parameters(operation.parameter, units, where)
        yield from _unknown(operation.tools, tools, f"{where}: tool", "[[tool]]")
        yield from _unknown([one.part for one in operation.takes], parts, f"{where}: part", "[[part]]")
        yield from _unknown(operation.must_follow, operations, f"{where}: must_follow", "[[operation]]")
        yield from _unknown(operation.may_not_precede, operations, f"{where}: may_not_precede", "[[operation]]")
        yield from _minutes(operation, where)
    yield from _places(catalogue, operations)
    yield from _asked_for(catalogue, operations)
    yield from _cycle(operations)
    for family in catalogue.family:
        yield from _family(family, units)


def _names(catalogue: Catalogue) -> Iterator[str]:
    for section, named in (
        ("machine", [one.machine for one in catalogue.machine]),
        ("operation", [one.operation for one in catalogue.operation]),
        ("tool", [one.tool for one in catalogue.tool]),
        ("product", [one.product for one in catalogue.product]),
        ("family", [one.family for one in catalogue.family]),
        ("remedy", ["/".join((one.machine_type, one.failure, one.action)) for one in catalogue.remedy]),
    ):
        for name, count in Counter(named).items():
            if count > 1:
                yield f"[[{section}]] {name!r} stands {count} times: keep one"
    for where, texts in _said(catalogue):
        yield from (f"{where}: {fault}" for text in texts for fault in _unreadable(text))
    known = {one.feature for one in catalogue.feature}
    for product in catalogue.product:
        yield from _unknown(product.features, known, f"[[product]] {product.product!r}: feature", "[[feature]]")


def _said(catalogue: Catalogue) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Everything that a plan shows, by where it stands."""
    for machine in catalogue.machine:
        yield f"[[machine]] {machine.machine!r}", (machine.machine, machine.en, machine.zh)
    for part in catalogue.part:
        yield f"[[part]] {part.part!r}", (part.en, part.zh)
    for tool in catalogue.tool:
        yield f"[[tool]] {tool.tool!r}", (tool.tool, tool.en, tool.zh)
    for operation in catalogue.operation:
        yield f"[[operation]] {operation.operation!r}", (operation.operation, operation.en, operation.zh)
        for one in operation.parameter:
            yield f"[[operation]] {operation.operation!r}: {one.name!r}", (one.name, one.en, one.zh)
    for product in catalogue.product:
        about = (product.material, product.material_en, product.material_zh)
        yield f"[[product]] {product.product!r}", (product.product, product.en, product.zh, *about)
    for remedy in catalogue.remedy:
        done = (remedy.do_en, remedy.do_zh)
        yield f"[[remedy]] {remedy.action!r}", (remedy.failure, remedy.action, remedy.en, remedy.zh, *done)
    for family in catalogue.family:
        yield f"[[family]] {family.family!r}", (family.family, family.en, family.zh)
        for each in family.rule:
            yield f"[[family]] {family.family!r}: rule {each.rule[:40]!r}", (each.en, each.zh)
        measures = [(one.name, one.en, one.zh) for one in family.parameter]
        for words in [*measures, *((one.name, one.en, one.zh) for one in family.derived)]:
            yield f"[[family]] {family.family!r}: {words[0]!r}", words


def _unreadable(text: str) -> Iterator[str]:
    """Why a plan could not show a text as it is."""
    if text != text.strip() or any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") for c in text):
        yield f"{text[:40]!r} holds control characters or outer blanks: take them out"
    if len(text) > LONGEST_NAME:
        yield f"{text[:40]!r}… has {len(text)} characters; a plan shows {LONGEST_NAME}: shorten it"


def _unknown(asked: Iterable[str], known: Iterable[str], where: str, section: str) -> Iterator[str]:
    known = known if isinstance(known, set | dict) else set(known)
    for name in asked:
        if name not in known:
            yield f"{where} {name!r} is no {section}: add it or mend its name"


def _parameters(parameters: list[Parameter], units: Iterable[str], where: str) -> Iterator[str]:
    units = set(units)
    for name, count in Counter(one.name for one in parameters).items():
        if count > 1:
            yield f"{where}: parameter {name!r} stands {count} times: keep one"
    for one in parameters:
        here = f"{where}: parameter {one.name!r}"
        if not all(math.isfinite(v) for v in (one.lowest, one.typical, one.highest, *one.levels)):
            yield f"{here}: limits must be finite numbers"
        elif not one.lowest <= one.typical <= one.highest:
            yield (
                f"{here}: lowest {one.lowest:g}, typical {one.typical:g} and highest {one.highest:g} contradict one another:"
                " put them in order"
            )
        elif one.levels and not levels(one, one.lowest, one.highest):
            yield f"{here}: none of its levels lies between {one.lowest:g} and {one.highest:g}"
        yield from _unit(one.unit, units, here)


def _unit(unit: str, units: set[str], where: str) -> Iterator[str]:
    if unit and unit not in units:
        near = get_close_matches(unit, sorted(units), n=3, cutoff=0.5)
        said = f"did you mean {', '.join(near)}? If not, " if near else ""
        yield f"{where}: unknown unit {unit!r}: {said}add it to `units`"


def _minutes(operation: OperationType, where: str) -> Iterator[str]:
    if not operation.minutes_by:
        return
    try:
        made = formula(operation.minutes_by)
        unknown = names(made) - {one.name for one in operation.parameter}
        if unknown:
            known = ", ".join(p.name for p in operation.parameter)
            yield f"{where}: minutes_by asks for {sorted(unknown)}: its parameters are {known}"
            return
        for pick in ("lowest", "typical", "highest"):
            if value(made, {one.name: getattr(one, pick) for one in operation.parameter}) <= 0:
                yield f"{where}: minutes_by gives no time above 0 at the {pick} settings"
    except Refused as error:
        yield f"{where}: minutes_by: {error.detail}"


def _places(catalogue: Catalogue, operations: Mapping[str, OperationType]) -> Iterator[str]:
    machines = {one.machine for one in catalogue.machine}
    types = {one.machine_type for one in catalogue.machine}
    for at, one in enumerate(catalogue.capability, 1):
        where = f"[[capability]] number {at}"
        if bool(one.machine) == bool(one.machine_type):
            yield f"{where}: name a machine or a machine_type, one of the two"
        elif one.machine and one.machine not in machines:
            yield f"{where}: machine {one.machine!r} is no [[machine]]: add it or mend its name"
        yield from _unknown(one.operations, operations, f"{where}: operation", "[[operation]]")
        told = set(one.operations)
        yield from _limits(one.limit, [operations[name] for name in told if name in operations], where)
    by_tool: dict[str, list[OperationType]] = {}
    for operation in catalogue.operation:
        for name in operation.tools:
            by_tool.setdefault(name, []).append(operation)
    for tool in catalogue.tool:
        where = f"[[tool]] {tool.tool!r}"
        for place in tool.machines:
            if place not in machines and place not in types:
                yield f"{where}: {place!r} is neither a [[machine]] nor a machine_type: add it or mend its name"
        yield from _limits(tool.limit, by_tool.get(tool.tool, []), where)


def _limits(limits: list[Limit], operations: list[OperationType], where: str) -> Iterator[str]:
    known = {one.operation: one for one in operations}
    by_parameter: dict[str, list[OperationType]] = {}
    for operation in operations:
        for parameter in operation.parameter:
            by_parameter.setdefault(parameter.name, []).append(operation)
    for limit in limits:
        here = f"{where}: limit of {limit.parameter!r}"
        if not limit.lowest <= limit.highest:
            yield f"{here}: lowest {limit.lowest:g} is above highest {limit.highest:g}: put them in order"
            continue
        of = by_parameter.get(limit.parameter, [])
        meant = [one for one in of if limit.operation in ("", one.operation)]
        if not meant or (limit.operation and limit.operation not in known):
            yield f"{here}: no operation here has such a parameter{f' ({limit.operation})' if limit.operation else ''}"
        for operation in meant:
            parameter = next(p for p in operation.parameter if p.name == limit.parameter)
            if limit.unit and limit.unit != parameter.unit:
                yield f"{here} is in {limit.unit!r}; {operation.operation!r} has {parameter.unit!r}: use one unit"
            lowest, highest = window(parameter, operation.operation, [limit])
            if not levels(parameter, lowest, highest):
                yield (
                    f"{here} ({limit.lowest:g} to {limit.highest:g}) leaves nothing of {operation.operation!r}'s"
                    f" {parameter.lowest:g} to {parameter.highest:g}"
                )


def _asked_for(catalogue: Catalogue, operations: Mapping[str, OperationType]) -> Iterator[str]:
    for feature in catalogue.feature:
        asked = [*feature.operations, *feature.optional]
        yield from _unknown(asked, operations, f"[[feature]] {feature.feature!r}: operation", "[[operation]]")
    for product in catalogue.product:
        asked = [*product.operations, *product.optional]
        yield from _unknown(asked, operations, f"[[product]] {product.product!r}: operation", "[[operation]]")
    for remedy in catalogue.remedy:
        asked = [*remedy.operations, *remedy.optional]
        where = f"[[remedy]] {called(remedy.action, '', '')[0]!r} for {remedy.failure!r}"
        yield from _unknown(asked, operations, f"{where}: operation", "[[operation]]")
        if len(set(asked)) < len(asked):
            yield f"{where}: an operation stands twice: give the second one a name of its own"
        yield from _limits(remedy.limit, [operations[name] for name in asked if name in operations], where)


def _cycle(operations: Mapping[str, OperationType]) -> Iterator[str]:
    """Operations that wait for one another (Kahn 1962: what is left when nothing can begin any more)."""
    before = {
        name: {other for other in (*one.must_follow, *one.may_not_precede) if other in operations}
        for name, one in operations.items()
    }
    follows: dict[str, list[str]] = {}
    for name, needed in before.items():
        for other in needed:
            follows.setdefault(other, []).append(name)
    waits = {name: len(needed) for name, needed in before.items()}
    ready = deque(name for name, count in waits.items() if not count)
    while ready:
        for name in follows.get(ready.popleft(), ()):
            waits[name] -= 1
            if not waits[name]:
                ready.append(name)
    left = [name for name, count in waits.items() if count > 0]
    if left:
        yield f"[[operation]]: {' before '.join(_round(left, before))}: nothing can begin: take one of these orders out"


def _round(left: list[str], before: Mapping[str, set[str]]) -> list[str]:
    """One way round, at most five of its names."""
    still = set(left)
    path, seen = [left[0]], {left[0]: 0}
    while True:
        following = min(before[path[-1]] & still)
        if following in seen:
            way = [*path[seen[following] :], following][::-1]
            return way if len(way) <= 6 else [*way[:5], "…"]
        seen[following] = len(path)
        path.append(following)


def _family(family: Family, units: Iterable[str]) -> Iterator[str]:
    where = f"[[family]] {family.family!r}"
    yield from _parameters(family.parameter, units, where)
    known = {one.name: one.typical for one in family.parameter}
    for name in [*known, *(one.name for one in family.derived)]:
        if not name.isidentifier():
            yield f"{where}: {name!r} cannot stand in a formula: use {_IDENTIFIER}"
    for one in family.derived:
        yield from _unit(one.unit, set(units), f"{where}: {one.name!r}")
        if one.name in known:
            yield f"{where}: {one.name!r} stands twice: keep one"
        try:
            unknown = names(formula(one.formula)) - known.keys()
            if unknown:
                yield f"{where}: {one.name!r} asks for {sorted(unknown)}: known before it are {list(known)}"
        except Refused as error:
            yield f"{where}: {one.name!r}: {error.detail}"
        known[one.name] = 0.0
    for each in family.rule:
        try:
            unknown = names(rule(each.rule)) - known.keys()
            if unknown:
                yield f"{where}: rule {each.rule!r} asks for {sorted(unknown)}: known are {list(known)}"
        except Refused as error:
            yield f"{where}: {error.detail}"
