"""What a plant can do becomes a grammar of plans: whoever chooses, rules, draws or a language model, only what can be done in
an order that is right comes out; what cannot be planned is refused with the reason, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.devices.store import catalogue_toml
from protocol.capabilities import Capability, OperationType, PlanKind, PlantMachine, Product
from protocol.capability_check import capability_problems
from protocol.catalogue import Catalogue
from protocol.design_grammar import DesignGrammar, DesignRequest
from protocol.errors import Refused
from protocol.expressions import Node, formula, holds, may_hold, names, reach, rule, value
from protocol.plan_decoding import DesignRules, ModelChooser, PlanRules, Silent, decode, plan_prompt, spoken
from protocol.planning_grammar import Choice, Draft, Pick, PlanGrammar, PlanRequest
from protocol.plans import Aim, WorkPlan
from protocol.reports import ModelRef


def read(text: str) -> Catalogue:
    import tomllib

    return msgspec.convert(tomllib.loads(text), Catalogue)


PLANT = read(catalogue_toml())
PROCESS = PlanRequest(kind=PlanKind.PROCESS, product="cover-panel")


def mend(failure: str = "", machine: str = "P-101", kind: str = "pump", **more: Any) -> PlanRequest:
    return PlanRequest(kind=PlanKind.MAINTENANCE, machine=machine, machine_type=kind, failure=failure, **more)


OF_TYPE = {"pump": "P-101", "conveyor": "C-201", "press": "R-301", "oven": "V-401"}
REQUESTS = [PROCESS, *(mend(r.failure, OF_TYPE[r.machine_type], r.machine_type) for r in PLANT.remedy)]


def as_plan(grammar: PlanGrammar, draft: Draft) -> WorkPlan:
    remedy = draft.job.remedy if draft.job is not None else None
    request = grammar.request
    return WorkPlan(
        id="p", item="plan:p", kind=request.kind, machine=request.machine or "*", machine_type=request.machine_type,
        product=request.product, failure=remedy.failure if remedy else "", action=remedy.action if remedy else "",
        issued_ms=1, steps=list(draft.steps), minutes=sum(s.minutes for s in draft.steps), model=ModelRef("r", "rules"),
    )  # fmt: skip


@dataclass
class Whims:
    """A chooser without sense: seeded noise."""

    seed: int
    _draw: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)

    def weigh(self, draft: object, choices: Sequence[Choice]) -> NDArray[np.float64]:
        return self._draw.normal(size=len(choices))


@dataclass
class Parrot:
    """A decoder of characters whose logits come from what it was fed alone; counts what it is fed."""

    seed: int = 0
    size: int = 64
    room: int = 100_000
    held: list[int] = field(default_factory=list)
    fed: int = 0

    @property
    def vocabulary(self) -> int:
        return self.size

    @property
    def context(self) -> int:
        return self.room

    @property
    def length(self) -> int:
        return len(self.held)

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        rows = []
        for token in ids:
            self.held.append(token)
            self.fed += 1
            state = (self.seed, len(self.held), *self.held[-6:])
            rows.append(np.random.default_rng(state).normal(size=self.size))
        return np.array(rows, dtype=np.float32)

    def rewind(self, length: int) -> None:
        del self.held[length:]


def encode(text: str) -> list[int]:
    return [ord(c) % 64 for c in text]


# formulas -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1 + 2 * 3", 7),
        ("-(2 - 5) ^ 2", -9),
        ("2 ^ 3 / 4", 2),
        ("max(1, a, 2) - min(3, a)", 2),
        ("sqrt(a * a)", 5),
        ("1e2 / a", 20),
    ],
)
def test_a_formula_is_read_as_it_is_written(text: str, result: float) -> None:
    assert value(formula(text), {"a": 5.0}) == pytest.approx(result)


NO_FORMULAS = ["", "1 +", "(1", "1)", "a b", "__import__('os')", "a.b", "a[0]", "open(1)", "1 if a else 2", "a ** 2"]
NO_FORMULAS += ["lambda: 1", "(" * 40 + "1" + ")" * 40, "1" * 400, "sqrt(1, 2)", "a; b"]


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_what_is_no_formula_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(Refused, match="formula"):
        formula(text)


@pytest.mark.parametrize(
    ("text", "known"), [("1 / a", {"a": 0.0}), ("sqrt(a)", {"a": -1.0}), ("a ^ 1000", {"a": 1e9}), ("b", {"a": 1.0})]
)
def test_a_formula_without_a_value_says_so(text: str, known: dict[str, float]) -> None:
    with pytest.raises(Refused):
        value(formula(text), known)


def test_rules_compare_and_forgive_rounding() -> None:
    assert holds(rule("0.1 * 3 <= a"), {"a": 0.3})
    assert holds(rule("a = 0.3"), {"a": 0.1 * 3})
    assert not holds(rule("0.1 * 3 < a"), {"a": 0.3})
    assert not holds(rule("1 / a > 0"), {"a": 0.0})  # without a value it is not kept
    with pytest.raises(Refused, match="compares two formulas"):
        rule("a + 1")


numbers = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 3))


def trees() -> st.SearchStrategy[Node]:
    named = st.sampled_from(["a", "b"]).map(lambda name: Node("name", name=name))
    leaf = st.one_of(named, numbers.map(lambda number: Node("number", value=number)))
    signs = st.sampled_from(["+", "-", "*", "/", "min", "max"])
    return st.recursive(
        leaf, lambda inner: st.builds(lambda sign, x, y: Node(sign, (x, y)), signs, inner, inner), max_leaves=8
    )


@settings(deadline=None)
@given(
    trees(),
    st.tuples(numbers, numbers).map(sorted),
    st.tuples(numbers, numbers).map(sorted),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_range_holds_every_value_that_comes_out_of_it(
    node: Node, a: list[float], b: list[float], at: float, there: float
) -> None:
    known = {"a": a[0] + at * (a[1] - a[0]), "b": b[0] + there * (b[1] - b[0])}
    try:
        told = value(node, known)
    except Refused:
        return
    low, high = reach(node, {"a": (a[0], a[1]), "b": (b[0], b[1])})
    slack = 1e-6 * max(abs(told), 1.0)
    assert low - slack <= told <= high + slack
    assert names(node) <= {"a", "b"}


def test_a_rule_that_may_still_be_kept_is_not_given_up() -> None:
    assert may_hold(rule("a * b >= 20"), {"a": (1, 5), "b": (1, 4)})
    assert not may_hold(rule("a * b > 20.1"), {"a": (1, 5), "b": (1, 4)})


# plans ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.failure or r.product)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_choices_the_plan_ends_and_is_one_of_the_grammar(request_: PlanRequest, seed: int) -> None:
    grammar = PlanGrammar(PLANT, request_)
    draft = decode(grammar, Whims(seed))
    assert draft.ended
    assert draft.job is not None
    assert draft.job.required <= draft.done <= draft.job.required | draft.job.optional
    plan = as_plan(grammar, draft)
    path = grammar.path_of(plan)
    assert path is not None
    again = grammar.start()
    for choice in path:
        again = grammar.take(again, choice)
    assert list(again.steps) == plan.steps


def test_what_is_not_offered_cannot_be_taken() -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    with pytest.raises(ValueError, match="may not follow"):
        grammar.take(grammar.start(), Choice(Pick.OPERATION, "drill-holes"))
    with pytest.raises(ValueError, match="may not follow"):
        grammar.take(grammar.start(), Choice(Pick.END, "plan"))
    stranger = msgspec.structs.replace(as_plan(grammar, decode(grammar, Whims(1))), product="blank-panel")
    swapped = msgspec.structs.replace(stranger, steps=stranger.steps[::-1])
    assert grammar.path_of(swapped) is None


def test_a_value_lies_within_the_limits_of_operation_machine_tool_and_product() -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    seen: dict[tuple[str, str], set[float]] = {}
    for seed in range(40):
        for step in decode(grammar, Whims(seed)).steps:
            for setting in step.settings:
                seen.setdefault((step.tool or step.machine, setting.name), set()).add(setting.value)
    assert max(seen["hss-drill-6", "spindle-speed"]) <= 1250  # the tool's
    assert seen["R-301", "force"] == {250.0, 310.0, 340.0}  # the machine's
    assert seen["V-401", "temperature"] == {170.0, 180.0, 190.0}  # the product's
    assert seen["V-401", "hold"] <= {30.0, 45.0, 60.0, 75.0, 90.0}  # the standard series


def test_a_repair_waits_for_its_part_and_may_prepare_it_at_any_time() -> None:
    grammar = PlanGrammar(PLANT, mend("bearing wear"))
    steps = decode(grammar, PlanRules(grammar)).steps
    place = {step.operation: at for at, step in enumerate(steps)}
    assert steps[place["check-part"]].after == []
    assert steps[place["check-part"]].machine == "W-601"
    assert set(steps[place["fit-bearing"]].after) == {place["check-part"], place["clean-seats"]}
    assert steps[place["fit-bearing"]].parts[0].part == "bearing-6204"
    assert {step.machine for step in steps} == {"P-101", "W-601"}


def test_the_bill_says_how_many_parts_a_failure_takes() -> None:
    from protocol.catalogue import BillLine

    billed = msgspec.structs.replace(
        PLANT,
        bill=[*PLANT.bill, BillLine(part="bearing-6204", quantity=2, machine_type="pump", failure="bearing wear")],
    )
    grammar = PlanGrammar(billed, mend("bearing wear"))
    (parts,) = [step.parts for step in decode(grammar, PlanRules(grammar)).steps if step.parts]
    assert parts[0].quantity == 2


def test_remedies_stand_in_the_order_of_the_recommendation() -> None:
    order = ("action:replace-impeller", "action:clean-suction-strainer")
    grammar = PlanGrammar(PLANT, mend(actions=order))
    assert [choice.name.partition("/")[2] for choice in grammar.choices(grammar.start())] == list(order)


@pytest.mark.parametrize(("aim", "words"), [(Aim.SHORT, 81.0), (Aim.USUAL, 113.0), (Aim.THOROUGH, 119.0)])
def test_an_aim_is_reached(aim: Aim, words: float) -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    assert sum(step.minutes for step in decode(grammar, PlanRules(grammar, aim)).steps) == words


# what cannot be planned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (PlanRequest(kind=PlanKind.PROCESS, product="nothing"), "known are cover-panel, blank-panel"),
        (mend("rust"), "known failures of it are bearing wear, cavitation"),
        (mend("bearing wear", "X", "mill"), "known failures of it are none"),
        (replace(PROCESS, unavailable=frozenset({"V-401"})), "V-401 is not available"),
        (mend("bearing wear", unavailable=frozenset({"W-601"})), "W-601 is not available"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_the_reason(request_: PlanRequest, words: str) -> None:
    with pytest.raises(Refused, match=words):
        PlanGrammar(PLANT, request_)


def test_a_missing_tool_is_named_and_another_one_takes_its_place() -> None:
    def without(*tools: str) -> Catalogue:
        kept = [msgspec.structs.replace(t, count=0) if t.tool in tools else t for t in PLANT.tool]
        return msgspec.structs.replace(PLANT, tool=kept)

    grammar = PlanGrammar(without("carbide-drill-6"), PROCESS)
    drilled = next(s for s in decode(grammar, PlanRules(grammar)).steps if s.operation == "drill-holes")
    assert drilled.tool == "hss-drill-6"
    assert drilled.settings[0].value == 1250  # as fast as this one may turn
    with pytest.raises(Refused, match=r"there is no carbide-drill-6 \(count = 0\)"):
        PlanGrammar(without("carbide-drill-6", "hss-drill-6"), PROCESS)


def test_a_product_that_no_machine_can_make_says_which_operation() -> None:
    rest = [one for one in PLANT.capability if "post-cure" not in one.operations]
    with pytest.raises(Refused, match=r"nothing can do 'post-cure': no \[\[capability\]\]"):
        PlanGrammar(msgspec.structs.replace(PLANT, capability=rest), PROCESS)


def broken(old: str, new: str) -> list[str]:
    text = catalogue_toml()
    assert old in text
    return capability_problems(read(text.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('unit = "mm/rev"', 'unit = "mm/rew"', "unknown unit 'mm/rew': did you mean mm/rev"),
        ("lowest = 120, typical = 140", "lowest = 145, typical = 140", "contradict one another"),
        ('must_follow = ["load-mat"]', 'must_follow = ["press-form"]', "nothing can begin"),
        ('must_follow = ["load-mat"]', 'must_follow = ["load-matt"]', r"'load-matt' is no \[\[operation\]\]"),
        ('tools = ["barcol-tester"]', 'tools = ["barcol"]', r"'barcol' is no \[\[tool\]\]"),
        ('minutes_by = "2 + hold"', 'minutes_by = "2 + old"', "asks for"),
        ('minutes_by = "2 + hold"', 'minutes_by = "hold - 9"', "no time above 0"),
        ('part = "glass-mat", quantity = 3', 'part = "glass", quantity = 3', r"'glass' is no \[\[part\]\]"),
        ("lowest = 250, highest = 340", "lowest = 360, highest = 340", "lowest 360 is above highest 340"),
        ("lowest = 250, highest = 340", "lowest = 400, highest = 440", "leaves nothing"),
        (
            'operation = "press-form", parameter = "force"',
            'operation = "press-form", parameter = "farce"',
            "no operation here",
        ),
        ('rule = "rod >= 0.4 * bore"', 'rule = "rot >= 0.4 * bore"', "asks for"),
        ('formula = "bore + 2 * wall"', 'formula = "bore + (2 * wall"', "is missing"),
        ('en = "cover panel"', 'en = "cover\\u202e panel"', "control characters"),
        ('en = "holding time"', f'en = "{"long " * 20}time"', "a plan shows 80: shorten it"),
        ('machine = "D-52LINE"'.replace("LINE", "1"), 'machine = "D-511"', "stands 2 times"),
        ('features = ["laminate", "fixing-holes"]', 'features = ["laminate", "fixing-hole"]', "feature 'fixing-hole'"),
    ],
)
def test_a_catalogue_that_cannot_be_planned_with_is_told_so(old: str, new: str, words: str) -> None:
    import re

    found = broken(old, new)
    assert any(re.search(words, one) for one in found), found


def test_the_simulated_plants_catalogue_is_fine() -> None:
    assert capability_problems(PLANT) == []


def many(count: int, chain: bool) -> Catalogue:
    operations = [
        OperationType(operation=f"op-{n}", minutes=1, must_follow=[f"op-{n - 1}"] if chain and n else [])
        for n in range(count)
    ]
    return Catalogue(
        machine=[PlantMachine(machine=f"M-{n}", machine_type="mill") for n in range(200)],
        operation=operations,
        capability=[Capability(machine_type="mill", operations=[one.operation for one in operations])],
        product=[Product(product="x", operations=["op-9"]), Product(product="all", operations=[f"op-{count - 1}"])],
    )


def test_ten_thousand_operations_take_no_time() -> None:
    plant = many(10_000, chain=True)
    began = time.process_time()
    assert capability_problems(plant) == []
    grammar = PlanGrammar(plant, PlanRequest(kind=PlanKind.PROCESS, product="x"))
    assert [s.operation for s in decode(grammar, PlanRules(grammar)).steps] == [f"op-{n}" for n in range(10)]
    with pytest.raises(Refused, match="more than 40 operations are needed: split"):
        PlanGrammar(plant, PlanRequest(kind=PlanKind.PROCESS, product="all"))
    ring = msgspec.structs.replace(
        plant, operation=[msgspec.structs.replace(plant.operation[0], must_follow=["op-9999"]), *plant.operation[1:]]
    )
    assert "nothing can begin" in capability_problems(ring)[0]
    assert time.process_time() - began < 5.0


def test_a_remedy_whose_order_contradicts_the_operations_is_refused() -> None:
    remedy = next(one for one in PLANT.remedy if one.failure == "bearing wear")
    swapped = [*remedy.operations]
    swapped[0], swapped[1] = swapped[1], swapped[0]
    plant = msgspec.structs.replace(PLANT, remedy=[msgspec.structs.replace(remedy, operations=swapped)])
    with pytest.raises(Refused, match="round in a circle"):
        PlanGrammar(plant, mend("bearing wear"))


# a model chooses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [PROCESS, mend("cavitation")], ids=["process", "maintenance"])
def test_a_model_chooses_among_what_is_offered_and_repeats_itself(request_: PlanRequest) -> None:
    grammar = PlanGrammar(PLANT, request_)
    said = [decode(grammar, ModelChooser(Parrot(3), encode, plan_prompt(request_))) for _ in range(2)]
    assert said[0].path == said[1].path
    other = decode(grammar, ModelChooser(Parrot(4), encode, plan_prompt(request_)))
    assert other.path != said[0].path
    assert grammar.path_of(as_plan(grammar, other)) == list(other.path)


def test_a_models_weights_are_the_probabilities_of_the_choices_among_themselves() -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    draft = grammar.start()
    for choice in [Choice(Pick.OPERATION, "load-mat"), Choice(Pick.MACHINE, "R-301", word="press 1")]:
        draft = grammar.take(draft, choice)
    choices = grammar.choices(draft)
    chooser = ModelChooser(Parrot(1), encode, "plan\n")
    assert np.exp(chooser.weigh(draft, choices)).sum() == pytest.approx(1.0)
    parts = ["a tail\n", "a tale\n", "b\n"]
    made = [Choice(Pick.TOOL, name.strip()) for name in parts]
    assert np.exp(chooser.weigh(draft, made)).sum() == pytest.approx(1.0)
    assert len(set(np.round(chooser.weigh(draft, made), 9))) == 3


def test_no_number_is_ever_said_to_or_by_a_model() -> None:
    heard: list[str] = []

    def listening(text: str) -> list[int]:
        heard.append(text)
        return encode(text)

    grammar = PlanGrammar(PLANT, PROCESS)
    draft = decode(grammar, ModelChooser(Parrot(5), listening, plan_prompt(PROCESS)))
    values = {f"{s.value:g}" for step in draft.steps for s in step.settings}
    levels = [text for text in heard if text.startswith("level ")]
    assert {text.split()[1].rstrip("0123456789") for text in levels} <= {"typical", "lowest", "highest", "level-"}
    assert not any(text.split()[1] in values for text in levels)
    assert spoken("plan process cover-panel\n", draft.path).count("\n") == len(draft.path) + 1


class Mute(Parrot):
    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.full((len(ids), 64), np.nan, dtype=np.float32)


SILENT = [
    (Mute(), encode, "no numbers"),
    (Parrot(room=8), encode, "do not fit the model's context"),
    (Parrot(size=4), encode, "another model"),
    (Parrot(), lambda _text: [], "makes nothing"),
]


@pytest.mark.parametrize(("decoder", "cut", "words"), SILENT, ids=["nan", "context", "vocabulary", "nothing"])
def test_a_model_that_cannot_choose_says_so(decoder: Parrot, cut: Any, words: str) -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    with pytest.raises(Silent, match=words):
        decode(grammar, ModelChooser(decoder, cut, "plan\n"))


def test_a_model_that_takes_too_long_is_stopped() -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    with pytest.raises(Silent, match="more tokens"):
        decode(grammar, ModelChooser(Parrot(), encode, "plan\n", most_tokens=50))


def test_what_a_model_holds_already_is_not_fed_again() -> None:
    grammar = PlanGrammar(PLANT, PROCESS)
    parrot = Parrot(2)
    draft = decode(grammar, ModelChooser(parrot, encode, plan_prompt(PROCESS)))
    text = spoken(plan_prompt(PROCESS), draft.path)
    assert parrot.fed < 4 * len(text)


# designs --------------------------------------------------------------------------------------------------------------


def design(needs: Sequence[str] = (), aim: Aim = Aim.USUAL, family: str = "hydraulic-cylinder") -> dict[str, float]:
    grammar = DesignGrammar(PLANT, DesignRequest(family=family, needs=tuple(needs)))
    sketch = decode(grammar, DesignRules(grammar, aim))
    return {one.name: one.value for one in grammar.values(sketch.chosen)}


@settings(deadline=None, max_examples=25)
@given(st.integers(5, 400), st.sampled_from([100, 200, 320, 500]), st.sampled_from([Aim.USUAL, Aim.SMALL, Aim.LARGE]))
def test_a_design_keeps_every_rule_and_need(force: int, stroke: int, aim: Aim) -> None:
    made = design([f"push >= {force}", f"stroke = {stroke}"], aim)
    assert made["push"] >= force
    assert made["stroke"] == stroke
    for one in PLANT.family[0].rule:
        assert holds(rule(one.rule), made)


def test_the_smallest_design_is_smaller_than_the_largest() -> None:
    assert design(["push >= 60"], Aim.SMALL)["bore"] < design(["push >= 60"], Aim.LARGE)["bore"]


@pytest.mark.parametrize(
    ("family", "needs", "words"),
    [
        ("hydraulic-cylinder", ["push >= 100000"], "nothing keeps all rules and needs"),
        ("hydraulic-cylinder", ["stroke = 123"], "nothing keeps all rules and needs"),
        ("hydraulic-cylinder", ["weight <= 3"], "known are area, bore"),
        ("hydraulic-cylinder", ["push"], "compares two formulas"),
        ("hydraulic-cylinder", ["push >= __import__('os')"], "cannot read"),
        ("hydraulic-cylinder", ["push > 1"] * 10, "at most 9"),
        ("gear", [], "known are hydraulic-cylinder"),
    ],
)
def test_a_design_that_cannot_be_is_refused_with_the_reason(family: str, needs: list[str], words: str) -> None:
    with pytest.raises(Refused, match=words):
        design(needs, family=family)


def test_a_family_of_endless_combinations_ends_in_bounded_time() -> None:
    from protocol.capabilities import DesignRule, Family, Parameter

    levels = [float(n) for n in range(1, 101)]
    parameters = [Parameter(name=f"p{n}", lowest=1, typical=50, highest=100, levels=levels) for n in range(9)]
    together = " * ".join(f"p{n}" for n in range(9))
    plant = Catalogue(family=[Family(family="x", parameter=parameters, rule=[DesignRule(rule=f"{together} = 1.5")])])
    began = time.process_time()
    grammar = DesignGrammar(plant, DesignRequest(family="x"))
    with pytest.raises(Refused, match="in the time allowed"):
        decode(grammar, DesignRules(grammar))
    assert time.process_time() - began < 20.0
