"""The judge of schedules finds each broken rule, and says nothing about a plan that keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from protocol.errors import Refused
from protocol.reports import ModelRef
from protocol.schedules import (
    Choice,
    Closed,
    Maintenance,
    Operation,
    Placed,
    PlacedMaintenance,
    Schedule,
    Setup,
    Shop,
    ShopJob,
)
from protocol.shop_check import critical_path, figures, lower_bound, problems, risk_at, violations
from protocol.shop_files import guess_format, read_flexible, read_job_shop, shop_from_json
from protocol.shop_replay import earliest

replace = msgspec.structs.replace


def op(*choices: tuple[str, int], family: str = "") -> Operation:
    return Operation(choices=[Choice(m, d) for m, d in choices], family=family)


SHOP = Shop(
    jobs=[
        ShopJob(job="a", operations=[op(("A", 4), ("B", 5), family="x"), op(("B", 3))], due_ms=120, weight=2.0),
        ShopJob(job="b", operations=[op(("A", 6), family="y")], release_ms=105),
        ShopJob(job="c", operations=[op(("B", 2))], after=["a"]),
        ShopJob(job="d", operations=[op(("C", 5))]),
    ],
    closed=[Closed(machine="A", start_ms=108, end_ms=112)],
    setups=[Setup(after="x", duration_ms=1), Setup(machine="A", before="x", after="y", duration_ms=3)],
    maintenance=[Maintenance(id="u", machine="B", duration_ms=6, earliest_ms=100, latest_ms=110)],
    fixed=[Placed(job="d", operation=0, machine="C", start_ms=95, end_ms=101)],
    start_ms=100,
)
PLACED = [
    Placed(job="d", operation=0, machine="C", start_ms=95, end_ms=101),
    Placed(job="a", operation=0, machine="A", start_ms=101, end_ms=105, setup_ms=1),
    Placed(job="a", operation=1, machine="B", start_ms=106, end_ms=109),
    Placed(job="c", operation=0, machine="B", start_ms=109, end_ms=111),
    Placed(job="b", operation=0, machine="A", start_ms=115, end_ms=121, setup_ms=3),
]
UPKEEP = [PlacedMaintenance(id="u", machine="B", start_ms=100, end_ms=106)]


def plan(placed: list[Placed] = PLACED, upkeep: list[PlacedMaintenance] = UPKEEP, shop: Shop = SHOP) -> Schedule:
    placed = sorted(placed, key=lambda p: (p.start_ms, p.machine, p.job, p.operation))
    end, tardiness, late, _ = figures(shop, placed)
    return Schedule(
        id="s",
        issued_ms=0,
        start_ms=shop.start_ms,
        end_ms=end,
        tardiness_ms=tardiness,
        late_jobs=late,
        placed=placed,
        maintenance=upkeep,
        solver=ModelRef("schedule", "test"),
    )


def moved(at: int, **changes: Any) -> list[Placed]:
    return [replace(p, **changes) if i == at else p for i, p in enumerate(PLACED)]


def test_a_plan_that_keeps_all_rules_passes() -> None:
    assert problems(SHOP) == []
    assert violations(SHOP, plan()) == []
    assert figures(SHOP, PLACED) == (121, 0.0, [], 21.0)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda: plan(PLACED[1:]), "is not placed"),
        (lambda: plan([*PLACED, PLACED[3]]), "placed twice"),
        (lambda: plan([*PLACED, replace(PLACED[3], operation=7)]), "not part of the shop"),
        (lambda: plan(moved(0, start_ms=96, end_ms=102)), "is fixed at 95"),
        (lambda: plan(moved(1, start_ms=100, end_ms=104)), "before the shop's start"),
        (lambda: plan(moved(1, machine="C", start_ms=102, end_ms=106)), "which cannot do it"),
        (lambda: plan(moved(1, end_ms=106)), "takes 5 ms, not 4 ms"),
        (lambda: plan(moved(2, start_ms=104, end_ms=107)), "before the step before it ends"),
        (lambda: plan(moved(3, start_ms=107, end_ms=109)), "before job 'a' is finished"),
        (lambda: plan(moved(3, start_ms=108, end_ms=110)), "two things at a time"),
        (lambda: plan(moved(4, start_ms=104, end_ms=110)), "before its release"),
        (lambda: plan(moved(4, start_ms=113, end_ms=119)), "closed time"),
        (lambda: plan(moved(4, setup_ms=0)), "has 0 ms of set-up from 'x', not 3 ms"),
        (lambda: plan(moved(1, setup_ms=0)), "from '', not 1 ms"),
        (lambda: plan(upkeep=[]), "maintenance 'u' is not placed"),
        (lambda: plan(upkeep=[*UPKEEP, replace(UPKEEP[0], start_ms=120, end_ms=126)]), "placed twice"),
        (lambda: plan(upkeep=[replace(UPKEEP[0], id="v")]), "is not part of the shop"),
        (lambda: plan(upkeep=[replace(UPKEEP[0], start_ms=111, end_ms=117)]), "outside its window"),
        (lambda: plan(upkeep=[replace(UPKEEP[0], start_ms=104, end_ms=110)]), "two things at a time"),
        (lambda: plan(upkeep=[replace(UPKEEP[0], end_ms=105)]), "takes 5 ms, not 6 ms"),
        (lambda: plan(upkeep=[replace(UPKEEP[0], machine="C")]), "not 'B'"),
        (lambda: replace(plan(), end_ms=120), "end_ms 120"),
        (lambda: replace(plan(), start_ms=99), "start_ms 99"),
        (lambda: replace(plan(), tardiness_ms=5.0), "tardiness_ms 5.0"),
        (lambda: replace(plan(), late_jobs=["a"]), "late_jobs ['a']"),
        (lambda: replace(plan(), bound_ms=122), "bound_ms 122"),
        (lambda: replace(plan(), placed=PLACED[::-1]), "not sorted"),
    ],
)
def test_each_broken_rule_is_found(broken: Callable[[], Schedule], says: str) -> None:
    found = violations(SHOP, broken())
    assert any(says in fact for fact in found), found


def test_a_job_late_costs_its_weight() -> None:
    late = moved(2, start_ms=125, end_ms=128)
    assert figures(SHOP, late) == (128, 16.0, ["a"], 44.0)


ONE = ShopJob(job="a", operations=[op(("A", 4))])


@pytest.mark.parametrize(
    ("shop", "says"),
    [
        (Shop(jobs=[ONE, ONE]), "job 'a' is given twice"),
        (Shop(jobs=[replace(ONE, after=["z"])]), "which is not in the shop"),
        (Shop(jobs=[replace(ONE, after=["a"])]), "cyclic routing"),
        (Shop(jobs=[replace(ONE, after=["b"]), replace(ONE, job="b", after=["a"])]), "cyclic routing"),
        (Shop(jobs=[replace(ONE, weight=float("nan"))]), "no number"),
        (Shop(jobs=[replace(ONE, operations=[op(("A", 4), ("A", 5))])]), "names machine 'A' twice"),
        (Shop(jobs=[ONE], closed=[Closed(machine="A", start_ms=5, end_ms=2)]), "the end is before the start"),
        (Shop(jobs=[ONE], closed=[Closed(machine="A", start_ms=0, end_ms=253_402_300_799_999)]), "closed throughout"),
        (Shop(jobs=[ONE], setups=[Setup(after="x", duration_ms=1), Setup(after="x", duration_ms=2)]), "given twice"),
        (Shop(jobs=[ONE], fixed=[Placed(job="z", operation=0, machine="A", start_ms=0, end_ms=1)]), "not part of"),
        (Shop(jobs=[ONE], fixed=[Placed(job="a", operation=0, machine="A", start_ms=5, end_ms=1)]), "ends before"),
        (Shop(jobs=[ONE], fixed=[Placed(job="a", operation=0, machine="A", start_ms=0, end_ms=4)] * 2), "fixed twice"),
    ],
)
def test_nonsense_is_named(shop: Shop, says: str) -> None:
    found = problems(shop)
    assert any(says in fact for fact in found), found


def upkeep(**changes: Any) -> Maintenance:
    return replace(Maintenance(id="u", machine="A", duration_ms=5, earliest_ms=0, latest_ms=2), **changes)


def test_windows_that_cannot_be_kept_are_named() -> None:
    def said(*windows: Maintenance, **more: Any) -> str:
        return "; ".join(problems(Shop(jobs=[ONE], maintenance=list(windows), **more)))

    assert "latest_ms 2 is before earliest_ms 3" in said(upkeep(earliest_ms=3))
    assert "before the shop starts" in said(upkeep(), start_ms=9)
    assert "given twice" in said(upkeep(), upkeep())
    assert "shorter than needed" in said(upkeep(), upkeep(id="v"))
    assert said(upkeep(), upkeep(id="v", latest_ms=5)) == ""
    assert "needs a chance" in said(upkeep(risk=[0.1]))
    running = [Placed(job="a", operation=0, machine="A", start_ms=0, end_ms=4)]
    assert "conflicts with fixed work" in said(upkeep(), fixed=running)


def test_fixed_work_that_comes_too_early_or_overlaps_is_named() -> None:
    two = ShopJob(job="a", operations=[op(("A", 4)), op(("B", 4))])
    early = Shop(jobs=[two], fixed=[Placed(job="a", operation=1, machine="B", start_ms=2, end_ms=6)])
    assert "cannot end before 4" in problems(early)[0]
    both = [Placed(job="a", operation=k, machine="A", start_ms=3 * k, end_ms=3 * k + 4) for k in range(2)]
    assert "overlaps" in problems(Shop(jobs=[two], fixed=both))[0]


def test_the_critical_path_says_what_each_step_waited_for() -> None:
    path = critical_path(SHOP, plan())
    assert [(w.job, w.because) for w in path] == [("b", "closed"), ("a", "setup")]
    shop = replace(SHOP, jobs=SHOP.jobs[:1] + SHOP.jobs[2:], closed=[])
    shorter = plan(PLACED[:4], shop=shop)
    path = critical_path(shop, shorter)
    said = [(w.job or w.maintenance, w.because) for w in path]
    assert said == [("c", "machine"), ("a", "maintenance"), ("u", "start")]


def test_a_plan_with_pauses_is_laid_without_them() -> None:
    lazy = moved(4, start_ms=130, end_ms=136)
    placed, kept = earliest(SHOP, lazy, [replace(UPKEEP[0])])
    assert violations(SHOP, plan(placed, kept)) == []
    assert figures(SHOP, placed)[0] == 121


def test_no_plan_ends_before_the_bound() -> None:
    assert lower_bound(SHOP) <= 121
    line = Shop(jobs=[ShopJob(job=str(i), operations=[op(("A", 5)), op(("B", 2))]) for i in range(3)])
    assert lower_bound(line) == 17
    assert lower_bound(Shop(jobs=[], start_ms=7)) == 7


def test_risk_is_read_between_the_given_times() -> None:
    window = upkeep(risk_at_ms=[0, 10], risk=[0.0, 0.4])
    assert [risk_at(window, t) for t in (0, 5, 10, 99)] == pytest.approx([0.0, 0.2, 0.4, 0.4])
    assert risk_at(upkeep(), 5) == 0.0


def test_the_public_forms_are_read() -> None:
    shop = read_job_shop("# c\n2 2\n0 3 1 2\n1 2 0 4\n")
    assert shop.jobs[1].operations[0].choices == [Choice("M1", 2)]
    text = "1 2\n2 2 0 5 1 4 1 1 3\n"
    assert read_flexible(text).jobs[0].operations[0].choices == [Choice("M0", 5), Choice("M1", 4)]
    from_one = read_flexible("1 2 1.5\n2 2 1 5 2 4 1 2 3\n")
    assert from_one.jobs[0].operations[1].choices == [Choice("M1", 3)]
    assert (guess_format(text), guess_format("1 1\n0 5\n"), guess_format(' {"jobs": []}')) == (
        "flexible",
        "jobshop",
        "json",
    )
    assert shop_from_json(msgspec.json.encode(SHOP)) == SHOP


@pytest.mark.parametrize(
    "text", ["", "1\n", "0 0\n", "1 1\n0 -5\n", "1 1\n0\n", "1 1\nx y\n", "1 1\n0 99999999999999\n"]
)
def test_torn_text_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        read_job_shop(text)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"jobs": [{"job": 5}]}', b'{"jobs": 1}', b"\xff"])
def test_json_that_is_no_shop_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        shop_from_json(data)
