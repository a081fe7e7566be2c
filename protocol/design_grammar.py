"""Which designs there can be: one value after the other for the parameters of a family, each out of its standard values.

After every choice what is still open is looked at as ranges: a value after which a rule or a need can surely not be kept any
more is not offered. What is left may still lead to a dead end; whoever decodes goes back then, within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from protocol.capabilities import Family, Parameter, levels
from protocol.catalogue import Catalogue
from protocol.errors import Reason, Refused
from protocol.expressions import Node, Range, Rule, formula, holds, may_hold, names, reach, rule, size, value
from protocol.planning_grammar import Choice, Pick, level_word
from protocol.plans import DesignValue

MOST_NEEDS = 9
MOST_WORK = 1_000_000
"""Parts of formulas that are computed for one grammar: a few seconds."""


@dataclass(frozen=True, kw_only=True)
class DesignRequest:
    """A family, and what the part must be: rules over its parameters and derived values ("force >= 20")."""

    family: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sketch:
    """A design as far as it is said."""

    path: tuple[Choice, ...] = ()
    chosen: tuple[float, ...] = ()
    ended: bool = False


@dataclass
class DesignGrammar:
    """The designs of one request. Raises Refused when made: an unknown family or name in a need (UNKNOWN_TARGET, BAD_NAME), a
    need that cannot be read (WRONG_TYPE)."""

    catalogue: Catalogue
    request: DesignRequest
    family: Family = field(init=False)

    def __post_init__(self) -> None:
        asked = self.request.family
        found = next((one for one in self.catalogue.family if one.family == asked), None)
        if found is None:
            known = ", ".join(one.family for one in self.catalogue.family[:20]) or "none"
            raise Refused(Reason.UNKNOWN_TARGET, f"no [[family]] {asked[:80]!r}: known are {known}")
        self.family = found
        self._levels = [levels(one, one.lowest, one.highest) for one in found.parameter]
        self._derived: list[tuple[str, Node]] = [(one.name, formula(one.formula)) for one in found.derived]
        self._rules = [rule(one.rule) for one in found.rule] + self._needs()
        self._cost = sum(size(node) for _, node in self._derived) + sum(size(one) for one in self._rules) + 1
        self._left = MOST_WORK

    def start(self) -> Sketch:
        """Nothing said yet."""
        return Sketch()

    def choices(self, sketch: Sketch) -> list[Choice]:
        """Values for the next parameter, ascending, after which every rule may still be kept; the end once all are chosen and
        all rules are kept; none in a dead end."""
        if sketch.ended:
            return []
        at = len(sketch.chosen)
        if at == len(self.family.parameter):
            return [Choice(Pick.END, "design")] if self._kept(sketch.chosen) else []
        values, typical = self._levels[at], self.family.parameter[at].typical
        nearest = min(values, key=lambda level: (abs(level - typical), level))
        return [
            Choice(Pick.LEVEL, f"level-{i}", level, level_word(values, i, nearest))
            for i, level in enumerate(values)
            if self._may_be((*sketch.chosen, level))
        ]

    def take(self, sketch: Sketch, choice: Choice) -> Sketch:
        """The sketch with one more choice. Raises ValueError for one that is not offered."""
        at, path = len(sketch.chosen), (*sketch.path, choice)
        whole = at == len(self.family.parameter)
        if choice.pick is Pick.END and whole and not sketch.ended and self._kept(sketch.chosen):
            return replace(sketch, path=path, ended=True)
        offered = choice.pick is Pick.LEVEL and not whole and choice.value in self._levels[at]
        if not offered or not self._may_be((*sketch.chosen, choice.value)):
            raise ValueError(f"{choice} may not follow here")
        return replace(sketch, path=path, chosen=(*sketch.chosen, choice.value))

    def parameter(self, sketch: Sketch) -> Parameter:
        """The one whose value is chosen next."""
        return self.family.parameter[len(sketch.chosen)]

    def values(self, chosen: tuple[float, ...]) -> list[DesignValue]:
        """Parameters and what follows from them. Raises Refused where a formula has no value."""
        made = [
            DesignValue(name=p.name, value=v, unit=p.unit) for p, v in zip(self.family.parameter, chosen, strict=True)
        ]
        known = {one.name: one.value for one in made}
        for (name, node), told in zip(self._derived, self.family.derived, strict=True):
            known[name] = value(node, known)
            made.append(DesignValue(name=name, value=known[name], unit=told.unit, derived=True))
        return made

    def _needs(self) -> list[Rule]:
        if len(self.request.needs) > MOST_NEEDS:
            raise Refused(Reason.TOO_LARGE, f"{len(self.request.needs)} needs; at most {MOST_NEEDS}")
        known = {one.name for one in self.family.parameter} | {name for name, _ in self._derived}
        found = [rule(text) for text in self.request.needs]
        for text, one in zip(self.request.needs, found, strict=True):
            unknown = names(one) - known
            if unknown:
                raise Refused(
                    Reason.BAD_NAME,
                    f"need {text[:80]!r} asks for {', '.join(sorted(unknown))}: known are {', '.join(sorted(known))}",
                )
        return found

    def _kept(self, chosen: tuple[float, ...]) -> bool:
        try:
            known = {one.name: one.value for one in self.values(chosen)}
        except Refused:
            return False
        return all(holds(one, known) for one in self._rules)

    def _may_be(self, chosen: tuple[float, ...]) -> bool:
        self._left -= self._cost
        if self._left < 0:
            raise Refused(
                Reason.NOT_ELIGIBLE,
                "no design was found in the time allowed: ask for more of it, or take levels or rules away",
            )
        ranges: dict[str, Range] = {}
        for at, parameter in enumerate(self.family.parameter):
            if at < len(chosen):
                ranges[parameter.name] = (chosen[at], chosen[at])
            else:
                ranges[parameter.name] = (self._levels[at][0], self._levels[at][-1])
        for name, node in self._derived:
            ranges[name] = reach(node, ranges)
        return all(may_hold(one, ranges) for one in self._rules)
