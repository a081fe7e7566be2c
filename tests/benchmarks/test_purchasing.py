"""The simulated store: its truth is the truth, and its rules are ranked as theory says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("purchasing", FOLDER / "purchasing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "purchasing", module)
    spec.loader.exec_module(module)
    return module


def test_true_distribution_is_that_of_the_simulated_demand(script: ModuleType) -> None:
    rng = np.random.default_rng(1)
    drawn = script._asked(rng, np.array([1.3]), np.array([0.4]), 30_000)[0]
    chances = script.compound(1.3, 0.4, 1)
    assert drawn.mean() == pytest.approx(float(chances @ np.arange(len(chances))), rel=0.03)
    assert (drawn == 0).mean() == pytest.approx(float(chances[0]), abs=0.01)


def test_ours_costs_little_more_than_the_truth_and_less_than_poisson(script: ModuleType) -> None:
    made = script.world(2, 40)
    rules = {"truth": script.true_levels(made), "ours": script.our_levels(made, made.history)}
    rules |= script.textbook_levels(made, made.history, 2)
    cost = {
        rule: float(script.lived(made, np.tile(levels, (script.TEST, 1)))[0].sum()) for rule, levels in rules.items()
    }
    assert cost["ours"] < 1.25 * cost["truth"]
    assert cost["ours"] < cost["poisson"]


def test_no_order_is_lost_and_shelves_full_enough_meet_everything(script: ModuleType) -> None:
    made = script.world(3, 10)
    cost, met = script.lived(made, np.full((script.TEST, 10), 100_000))
    assert met == 1.0
    assert np.all(cost > 0)
