"""The recommending benchmarks run on any small folder of their format."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import sparse

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"script_{name}", module)
        spec.loader.exec_module(module)
        return module

    return load


def test_lists_of_another_shop_can_be_measured(tmp_path: Path, script, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    offline = script("recommend_offline")
    rng = np.random.default_rng(0)
    lines = [f"{u},{(u % 3) * 10 + i},4.0,{i}" for u in range(30) for i in rng.permutation(10)[:6]]
    (tmp_path / "ratings.csv").write_text("userId,itemId,rating,timestamp\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(offline, "TRIES", 2)
    sheet = offline.contract.Sheet("recommend_offline", offline.contract.Options(tmp_path, tmp_path, False, "", 2))
    offline.measure(sheet)
    rows = {(row["what"], row["metric"]): row for row in sheet.rows}
    assert len(rows) == 6
    assert rows["best of ours (blend)", "nDCG@10"]["ours"] > rows["best of ours (blend)", "nDCG@10"]["reference"]
    assert all(0 <= row["ours"] <= 1 for row in rows.values())


def test_no_event_is_in_both_parts_of_a_split(script) -> None:  # type: ignore[no-untyped-def]
    offline = script("recommend_offline")
    matrix = sparse.random(20, 30, 0.3, format="csr", random_state=0, dtype=np.float32)
    events = offline.Interactions([str(k) for k in range(20)], [str(k) for k in range(30)], matrix)
    train, test = offline.split(events, 0)
    assert train.matrix.multiply(test).nnz == 0
    assert train.matrix.nnz + test.nnz == matrix.nnz


def test_figures_of_a_perfect_and_of_a_useless_list(script) -> None:  # type: ignore[no-untyped-def]
    offline = script("recommend_offline")
    test = sparse.csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=np.float32))
    gain, recall = offline.figures(np.array([[0, 1, 2], [0, 1, -1], [0, 1, 2]]), test)
    np.testing.assert_allclose(gain, [1.0, 0.0])
    np.testing.assert_allclose(recall, [1.0, 0.0])


def test_scale_is_measured_in_processes_of_its_own(script, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scale = script("recommend_scale")
    matrix = scale.made_up(300, 100)
    sparse.save_npz(tmp_path / "events.npz", matrix)
    found = scale.fitted("ours", tmp_path / "events.npz")
    assert found["seconds"] > 0
    assert found["peak_mib"] > 0
    assert len(scale.answers(matrix, 5)) == 5


def test_cold_start_is_measured_on_a_small_shop(tmp_path: Path, script) -> None:  # type: ignore[no-untyped-def]
    cold = script("recommend_cold_start")
    rng = np.random.default_rng(0)
    ratings = [
        f"{u},{(u % 3) * 20 + i},4.0,{1000 + place}"
        for u in range(40)
        for place, i in enumerate(rng.permutation(20)[:14])
    ]
    kinds = ("Comedy|Drama", "War", "Musical|(no genres listed)")
    films = [f'{i},"Film {i} ({1950 + i})",{kinds[i // 20]}' for i in range(60)]
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(ratings) + "\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(films) + "\n")
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,3,funny,1\n2,999,lost,1\n")
    sheet = cold.contract.Sheet("recommend_cold_start", cold.contract.Options(tmp_path, tmp_path, True, "", 1))
    cold.measure(sheet)
    rows = {row["what"]: row for row in sheet.rows}
    assert set(rows) == {
        "new user, 1 event",
        *(f"new user, {n} events" for n in (3, 5, 10)),  # nobody has more than 14
        "new items by genres and title",
        "new items by genres, title and tags",
    }
    assert rows["new user, 10 events"]["ours"] > rows["new user, 10 events"]["reference"]
    assert rows["new items by genres and title"]["ours"] > rows["new items by genres and title"]["reference"]


def test_a_profile_is_the_first_events_in_time(script) -> None:  # type: ignore[no-untyped-def]
    cold = script("recommend_cold_start")
    events = cold.interactions([("u", "c", 1.0, 1000), ("u", "a", 1.0, 3000), ("u", "b", 1.0, 2000)])
    asked = cold.first_events(events, [0], 2)
    assert [events.items[i] for i in asked.profiles.indices] == ["b", "c"]
    assert asked.wanted.tolist() == [[True, False, False]]
    assert not cold.first_events(events, [0], 3).who
