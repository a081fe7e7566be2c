"""What a plant can make and mend: operations and their limits, machines, tools, products, remedies, and families of parts
that differ in their measures alone. Sections of the plant's catalogue file: every step and quantity of a plan is from here.

    [[operation]] may be done by what a [[capability]] names, at a [[machine]], with a [[tool]];
    a [[product]] and its [[feature]]s ask for operations; a [[remedy]] lists those that mend a failure, in order;
    a [[family]] has parameters, what is computed from them, and rules between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.observations import Name

Words = Annotated[str, msgspec.Meta(max_length=256)]
Unit = Annotated[str, msgspec.Meta(max_length=32)]
FormulaText = Annotated[str, msgspec.Meta(max_length=300)]
Minutes = Annotated[float, msgspec.Meta(gt=0, le=100_000)]
Names = Annotated[list[Name], msgspec.Meta(max_length=200)]
MOST_PARAMETERS = 9
"""Of an operation or a family; also most parts of an operation and most rules of a family: a sentence must hold them all."""
_UNITS_OF = {
    "share": ("1", "%", "ppm"),
    "count": ("pcs",),
    "length": ("mm", "cm", "m", "µm", "in"),
    "area": ("mm²", "cm²", "m²"),
    "volume": ("mm³", "cm³", "m³", "l", "ml"),
    "mass": ("g", "kg", "t"),
    "time": ("s", "min", "h", "d"),
    "rate": ("1/min", "1/s", "Hz"),
    "speed": ("m/s", "m/min", "mm/s", "mm/min", "mm/rev", "mm/tooth"),
    "flow": ("m³/h", "l/min"),
    "pressure": ("bar", "mbar", "Pa", "kPa", "MPa"),
    "force": ("N", "kN"),
    "torque": ("Nm", "kNm"),
    "energy": ("J", "kJ", "kWh"),
    "power": ("W", "kW"),
    "electricity": ("A", "mA", "V", "kV", "Ω", "kΩ", "MΩ"),
    "temperature": ("°C", "K"),
    "angle": ("°",),
    "material": ("kg/m³", "cSt", "mm²/s", "dB"),
}
UNITS = frozenset(unit for units in _UNITS_OF.values() for unit in units)
"""Units that are understood; `units` of a catalogue adds to them."""


class PlanKind(StrEnum):
    """A way to make something, or to mend something."""

    PROCESS = "process"
    MAINTENANCE = "maintenance"


class OperationUse(StrEnum):
    """Which kind of plan an operation may stand in."""

    PROCESS = "process"
    MAINTENANCE = "maintenance"
    ANY = "any"


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something to set, from lowest to highest, typically so. levels: the values that there are (a standard series); without
    them the lowest, the typical and the highest value may be chosen."""

    name: Name
    en: Words = ""
    zh: Words = ""
    unit: Unit = ""
    lowest: float
    typical: float
    highest: float
    levels: Annotated[list[float], msgspec.Meta(max_length=100)] = []


class PartTaken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operation uses up: a `[[part]]`. Where a `[[bill]]` line of the failure names the part, its quantity counts."""

    part: Name
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parameter of an operation ("": of any) may only be so here. `unit` must be the operation's own (empty: it is)."""

    operation: Annotated[str, msgspec.Meta(max_length=128)] = ""
    parameter: Name
    lowest: float
    highest: float
    unit: Unit = ""


class OperationType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of work. en, zh: what to do, as an order ("fit the new bearing").

    tools: it needs one of these. takes: parts that it uses up. minutes: how long it typically takes; minutes_by: a formula
    of its parameters that says it exactly ("10 + hold"). must_follow: must have been done before, in the same plan.
    may_not_precede: where they are in the same plan, they come first."""

    operation: Name
    en: Words = ""
    zh: Words = ""
    use: OperationUse = OperationUse.ANY
    tools: Names = []
    parameter: Annotated[list[Parameter], msgspec.Meta(max_length=MOST_PARAMETERS)] = []
    takes: Annotated[list[PartTaken], msgspec.Meta(max_length=MOST_PARAMETERS)] = []
    minutes: Minutes
    minutes_by: FormulaText = ""
    must_follow: Names = []
    may_not_precede: Names = []


class PlantMachine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine or a work place."""

    machine: Name
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    en: Words = ""
    zh: Words = ""


class Capability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine, or every machine of a type, can do these operations, within limits that may be narrower."""

    machine: Annotated[str, msgspec.Meta(max_length=128)] = ""
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    operations: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=10_000)]
    limit: Annotated[list[Limit], msgspec.Meta(max_length=1000)] = []


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """count: how many are there now (0: not planned with). machines: machines or types that it fits (none: any)."""

    tool: Name
    en: Words = ""
    zh: Words = ""
    count: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    machines: Names = []
    limit: Annotated[list[Limit], msgspec.Meta(max_length=100)] = []


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a product has (a bore, a coating) and the operations that it asks for, in these materials (none: in any)."""

    feature: Name
    materials: Names = []
    operations: Names = []
    optional: Names = []


class Product(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is made. operations: asked for beside those of its features; optional: may be added; limit: its own windows."""

    product: Name
    en: Words = ""
    zh: Words = ""
    material: Annotated[str, msgspec.Meta(max_length=128)] = ""
    material_en: Words = ""
    material_zh: Words = ""
    features: Names = []
    operations: Names = []
    optional: Names = []
    limit: Annotated[list[Limit], msgspec.Meta(max_length=100)] = []


class Remedy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to put right a failure of a type of machine ("": any): its operations in this order, what they must follow
    added. action: the item that a recommender ranks ("action:replace-bearing"). en, zh: what the failure is called;
    do_en, do_zh: what the remedy is called."""

    failure: Name
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    action: Name
    operations: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=100)]
    optional: Names = []
    limit: Annotated[list[Limit], msgspec.Meta(max_length=100)] = []
    en: Words = ""
    zh: Words = ""
    do_en: Words = ""
    do_zh: Words = ""


class Derived(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that follows from the parameters and from what was derived before it; the formula holds its own conversions."""

    name: Name
    en: Words = ""
    zh: Words = ""
    unit: Unit = ""
    formula: FormulaText


class DesignRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule between parameters and derived values, "wall >= 0.1 * bore"; en, zh: what it demands, in words."""

    rule: FormulaText
    en: Words = ""
    zh: Words = ""


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parts that differ in their measures alone."""

    family: Name
    en: Words = ""
    zh: Words = ""
    parameter: Annotated[list[Parameter], msgspec.Meta(min_length=1, max_length=MOST_PARAMETERS)]
    derived: Annotated[list[Derived], msgspec.Meta(max_length=20)] = []
    rule: Annotated[list[DesignRule], msgspec.Meta(max_length=MOST_PARAMETERS)] = []


def called(name: str, en: str, zh: str) -> tuple[str, str]:
    """English and Chinese; what has no words goes by its name."""
    plain = name.partition(":")[2] or name
    words = en or plain.replace("-", " ").replace("_", " ")
    return words, zh or words


def window(parameter: Parameter, operation: str, limits: list[Limit]) -> tuple[float, float]:
    """From lowest to highest under all limits that speak of the parameter; empty where the first is above the second."""
    asked = [one for one in limits if one.parameter == parameter.name and one.operation in ("", operation)]
    lowest = max([parameter.lowest, *(one.lowest for one in asked)])
    return lowest, min([parameter.highest, *(one.highest for one in asked)])


def levels(parameter: Parameter, lowest: float, highest: float) -> list[float]:
    """The values to choose from between lowest and highest, ascending; none where there are none."""
    if parameter.levels:
        return sorted({level for level in parameter.levels if lowest <= level <= highest})
    if lowest > highest:
        return []
    return sorted({lowest, min(max(parameter.typical, lowest), highest), highest})
