"""A machine's remaining life: told when enough was seen, young again after a renewal, the same after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edge_agent.runtimes import LoadedModel
from edge_agent.skills.remaining_life import Births, RemainingLifeSkill, explain
from protocol.bundles import Golden, Lineage, Parity, Passport, Runtime
from protocol.life_windows import LifeSpec
from protocol.observations import WorkOrder
from protocol.reports import RemainingLife
from protocol.twin import Role

STEP_MS = 900_000
T0 = 1_790_000_100_000
SPEC = LifeSpec(
    machine_type="pump",
    unit="h",
    per_row=0.25,
    step_ms=STEP_MS,
    signals=["vibration", "temperature"],
    looks=3,
    stride=2,
    least_rows=4,
    first_rows=4,
    cap=20.0,
    bins=10,
    mean=[[0.0, 0.0]],
    scale=[[1.0, 1.0]],
    horizons=[5.0],
    renewed_by=["replace-*"],
)


class Wearing:
    """An engine whose machine lasts shorter the higher its signals and its age are; not linear, so order matters."""

    name, inputs, outputs, lengths = "a test", ("x",), ("q",), ()

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        x = given["x"].astype(np.float64)
        hazard = 0.02 * np.exp(0.5 * x[:, -1, 0] * (1 + x[:, -1, 1]) + x[:, -1, -2])
        return {"q": np.exp(-hazard[:, None] * np.arange(1, 11)).astype(np.float32)}


def model(spec: LifeSpec = SPEC) -> LoadedModel:
    passport = Passport(
        slot="fault.life",
        family="fault",
        algorithm="hazard_net",
        version=2,
        runtime=Runtime.ONNX,
        life=spec,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="a test",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="none"),
        golden=Golden(atol=0, rtol=0),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="a test",
        limits="a test",
    )
    return LoadedModel(passport, "ab" * 32, session=Wearing())


class Plant:
    """One pump and one press whose readings a gateway has on disk."""

    def __init__(self, skill: RemainingLifeSkill) -> None:
        self.skill = skill
        self.stored: dict[tuple[str, str], dict[int, float]] = {}
        self.at_ms = T0 - T0 % STEP_MS

    def read(self, key: tuple[str, str], start_ms: int, buckets: int) -> np.ndarray:
        rows = self.stored.get(key, {})
        return np.array([rows.get(start_ms + i * STEP_MS, np.nan) for i in range(buckets)])

    def pass_buckets(self, count: int, vibration: float | None = 0.5) -> list[RemainingLife]:
        told: list[RemainingLife] = []
        for _ in range(count):
            values = {("R-301", "force"): 1.0}
            if vibration is not None:
                values |= {("P-101", "vibration"): vibration, ("P-101", "temperature"): 0.4}
            for key, value in values.items():
                self.stored.setdefault(key, {})[self.at_ms] = value
            types = {machine: "pump" if machine == "P-101" else "press" for machine, _ in values}
            self.skill.observe(self.at_ms, values, types)
            self.at_ms += STEP_MS
            told = self.skill.issue(self.at_ms)
        return told


def test_only_machines_of_the_models_type_are_told_and_only_after_enough_rows() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    assert plant.pass_buckets(10) == []  # no model
    plant.skill.install(Role.SERVING, model(), plant.read)
    (life,) = plant.pass_buckets(1)
    assert (life.machine, life.unit, life.age) == ("P-101", "h", 11 * 0.25)
    assert life.low <= life.median <= life.high <= life.cap
    assert life.risks[0].within == 5.0
    fresh = Plant(RemainingLifeSkill(STEP_MS))
    fresh.skill.install(Role.SERVING, model(), fresh.read)
    assert fresh.pass_buckets(3) == []
    assert len(fresh.pass_buckets(1)) == 1
    assert fresh.skill.health().results == 1


def test_contributions_add_up_to_the_expected_life() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.install(Role.SERVING, model(), plant.read)
    (life,) = plant.pass_buckets(12, vibration=2.0)
    assert life.usual + sum(c.amount for c in life.contributions) == pytest.approx(life.expected, abs=1e-9)
    assert life.contributions[0].because == "vibration"
    assert life.contributions[0].amount < 0


def test_many_signals_are_explained_by_the_largest_and_the_rest() -> None:
    many = LifeSpec(
        signals=[f"s{i}" for i in range(12)], looks=2, cap=20.0, bins=10, mean=[[0.0] * 12], scale=[[1.0] * 12]
    )
    x = np.random.default_rng(1).normal(size=(1, 2, many.channels)).astype(np.float32)
    usual, named = explain(model(many), many, x)
    assert len(named) == 9
    assert named[-1].because == "other signals"
    full = float(np.sum([c.amount for c in named])) + usual
    assert np.isfinite(full)


def test_a_renewal_makes_the_machine_young_again_and_another_order_does_not() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.install(Role.SERVING, model(), plant.read)
    (old,) = plant.pass_buckets(40)
    plant.skill.hear(WorkOrder(id="1", machine="P-101", time_ms=plant.at_ms, actions=["clean-suction-strainer"]))
    (still,) = plant.pass_buckets(1)
    assert still.age == old.age + 0.25
    plant.skill.hear(WorkOrder(id="2", machine="P-101", time_ms=plant.at_ms, actions=["replace-bearing"]))
    (young,) = plant.pass_buckets(5)
    assert young.age == 5 * 0.25
    assert young.expected > still.expected


def test_an_order_from_before_the_first_reading_renews_nothing() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.hear(WorkOrder(id="1", machine="P-101", time_ms=5, actions=["replace-bearing"]))
    plant.skill.install(Role.SERVING, model(), plant.read)
    (life,) = plant.pass_buckets(6)
    assert life.age == 6 * 0.25


def test_after_a_restart_the_life_goes_on_from_disk() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.install(Role.SERVING, model(), plant.read)
    plant.pass_buckets(20)
    assert plant.skill.changed
    again = Plant(RemainingLifeSkill(STEP_MS, Births(first_ms=dict(plant.skill.births.first_ms))))
    again.stored, again.at_ms = {k: dict(v) for k, v in plant.stored.items()}, plant.at_ms
    again.skill.install(Role.SERVING, model(), again.read)
    (before,), (after,) = plant.pass_buckets(1), again.pass_buckets(1)
    assert after == before


def test_old_readings_say_so_and_a_silent_machine_is_not_told() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.install(Role.SERVING, model(), plant.read)
    (fresh,) = plant.pass_buckets(12)
    assert not fresh.stale
    (stale,) = plant.pass_buckets(3, vibration=None)
    assert stale.stale
    assert stale.inputs_until_ms == fresh.inputs_until_ms
    assert plant.pass_buckets(12, vibration=None) == []


def test_a_shadow_is_counted_and_kept_back_and_another_grid_never_answers() -> None:
    plant = Plant(RemainingLifeSkill(STEP_MS))
    plant.skill.install(Role.SHADOW, model(), plant.read)
    assert plant.pass_buckets(8) == []
    assert plant.skill.results() > 0
    other = RemainingLifeSkill(STEP_MS * 2)
    other.install(Role.SERVING, model(), plant.read)
    other.observe(0, {("P-101", "vibration"): 1.0}, {"P-101": "pump"})
    assert other.issue(STEP_MS) == []
