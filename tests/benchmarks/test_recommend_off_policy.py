"""The judge of recommenders is measured where the truth is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("recommend_off_policy", FOLDER / "recommend_off_policy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recommend_off_policy", module)
    spec.loader.exec_module(module)
    return module


def test_more_events_judge_better_and_kept_chances_are_worth_keeping(script: ModuleType) -> None:
    few, many = script.judged(300, 12), script.judged(2000, 12)
    assert many.error("dr") < few.error("dr")
    assert many.error("dr") < 0.06
    assert many.error("dr") < many.error("ips")
    share, n = many.in_order("dr")
    assert n >= 3
    assert share > 0.7
    assert set(many.found) == set(script.ALL)


def test_a_plants_policies_are_chances_and_its_truth_is_exact(script: ModuleType) -> None:
    rng = script.np.random.default_rng(3)
    world = script.plant(rng)
    assert world.chance.sum() == pytest.approx(1.0)
    for policy in (world.logging, world.candidate):
        assert policy.min() > 0
        assert policy.sum(axis=1) == pytest.approx(1.0)
    log = script.logged(world, 40_000, rng)
    assert log.rewards.mean() == pytest.approx(world.worth(world.logging), abs=0.012)
