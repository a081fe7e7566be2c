"""`millwright recommend`: a list from a bundle, with exact reasons, on the base install; wrong questions refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import millwright
from edge_agent.once import recommend as once
from edge_agent.once.recommend import Asked, load_shelf, recommend
from protocol.bundles import pack, unpack
from protocol.errors import BadBundle, BadSettings
from server import workbench
from tests import shop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained shop, and beside it one without an items' table."""
    made = shop.write_shop(tmp_path_factory.mktemp("shop"))
    workbench.train_recommend_file(made / "events.csv", made / "shop", items=made / "items.csv")
    workbench.train_recommend_file(made / "events.csv", made / "wordless", candidates=("tools", "bearings"))
    return made


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    assert millwright.main(["recommend", *map(str, arguments), "--json"]) == status
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    for item in told["items"]:
        assert sum(one["amount"] for one in item["contributions"]) == pytest.approx(item["score"], abs=1e-9)
        assert item["score"] > 0
        assert 0 < item["shown_share"] <= 1
    return told


def names(told: dict[str, Any]) -> list[str]:
    return [item["item"] for item in told["items"]]


def chosen_by(user: str) -> set[str]:
    return {row[1] for row in shop.events() if row[0] == user}


def test_a_user_gets_what_others_like_him_chose_and_never_what_he_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ask(capsys, folder / "shop", "--user", "customer-001", "--top", "5")
    assert told["model"]["eligible"]
    assert set(told["profile"]) == chosen_by("customer-001")
    assert len(told["items"]) == 5
    assert not set(names(told)) & chosen_by("customer-001")
    assert names(told)[0].startswith("electrics")
    assert told["fallback"] == told["unknown"] == []
    everything = ask(capsys, folder / "shop", "--user", "customer-001", "--top", "100")
    assert not set(names(everything)) & chosen_by("customer-001")


def test_without_what_flips_it_an_item_is_not_in_the_list(folder: Path) -> None:
    shelf = load_shelf(folder / "shop")
    answer = recommend(shelf, Asked(user="customer-001", top=3))
    flipped = [line for line in answer.lines if line.why.flips_without]
    assert flipped
    for line in flipped:
        profile = dict.fromkeys(answer.profile, 1.0)
        again = shelf.hybrid.rank(profile, 3, without=line.why.flips_without)
        assert line.item not in [one.item for one in again]


def test_excluded_items_are_never_shown_and_only_narrows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = names(ask(capsys, folder / "shop", "--user", "customer-001", "--top", "3"))
    told = ask(capsys, folder / "shop", "--user", "customer-001", "--top", "100", "--exclude", first[0], first[1])
    assert not set(names(told)) & set(first[:2])
    told = ask(capsys, folder / "shop", "--user", "customer-001", "--only", "tools", "bearings", "--top", "100")
    assert names(told)
    assert all(name.startswith(("tools", "bearings")) for name in names(told))


def test_a_profile_is_anybody_s_and_what_is_unknown_of_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ask(capsys, folder / "shop", "--profile", "tools-00, tools-01 ,left-hand hammer", "--exclude", "nothing")
    assert told["unknown"] == ["left-hand hammer", "nothing"]
    assert told["fallback"] == []
    assert names(told)[0].startswith("tools")
    assert not {"tools-00", "tools-01"} & set(names(told))


def test_unknown_users_and_profiles_get_popularity_with_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = ask(capsys, folder / "shop", "--user", "nobody")
    assert nobody["fallback"] == ["unknown_user"]
    strange = ask(capsys, folder / "shop", "--profile", "one,two")
    assert strange["fallback"] == ["unknown_profile"]
    assert names(nobody) == names(strange)
    assert all(one["because"] == "popularity" for item in nobody["items"] for one in item["contributions"])
    assert millwright.main(["recommend", str(folder / "shop"), "--user", "nobody"]) == 0
    assert "No choices of nobody are known: these are the items that most users chose." in capsys.readouterr().out


def test_items_that_nobody_has_chosen_are_ranked_by_content(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, folder / "shop", "--profile", "tools-00", "--top", "100", "--only", "tools", "special")
    new = {item["item"]: item for item in told["items"] if item["new"]}
    assert set(new) == {"tools-new"}  # of the training's items' table
    words = ["--new-item", "special-1", "kind=tools", "wrench hammer driver bit"]
    told = ask(capsys, folder / "shop", "--profile", "tools-00", "--top", "100", *words, "--new-item", "odd", "zzz")
    special = next(item for item in told["items"] if item["item"] == "special-1")
    assert special["new"]
    assert {one["because"] for one in special["contributions"]} == {"content:tools-00"}
    assert told["unknown"] == ["odd"]
    assert "odd" not in names(told)
    alone = ask(capsys, folder / "shop", *words, "--top", "4")
    assert alone["profile"] == ["special-1"]
    assert all(name.startswith("tools") for name in names(alone))


def test_a_table_of_new_items_is_read_in_the_columns_of_the_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("relay-9", "electrics", "relay fuse cable motor"), ("electrics-00", "tools", "hammer")]
    table = shop.write(folder / "new.csv", ("item", "kind", "description"), rows)
    told = ask(capsys, folder / "shop", "--user", "customer-001", "--items", table, "--top", "100")
    assert "relay-9" in names(told)
    other = shop.write(folder / "other.csv", ("id", "kind", "text"), rows)
    assert "relay-9" in names(ask(capsys, folder / "shop", "--user", "customer-001", "--items", other, "--top", "100"))


def test_a_list_may_be_short_or_empty_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, folder / "shop", "--user", "customer-001", "--only", "nothing", status=1)
    assert told["items"] == []
    arguments = ["recommend", str(folder / "shop"), "--user", "customer-001", "--only", "tools-0", "--top", "50"]
    assert millwright.main(arguments) == 0
    assert "items can be offered" in capsys.readouterr().out


def test_the_training_s_candidates_bound_every_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, folder / "wordless", "--user", "customer-001", "--top", "100")
    assert {name.split("-")[0] for name in names(told)} == {"tools", "bearings"}
    told = ask(capsys, folder / "wordless", "--user", "nobody", "--only", "tools-0", "--top", "100")
    assert {name.split("-")[0] for name in names(told)} == {"tools"}


def test_both_languages_say_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for language in ("en", "zh"):
        arguments = ["--user", "customer-001", "--top", "4", "--lang", language]
        assert millwright.main(["recommend", str(folder / "shop"), *arguments]) == 0
        said[language] = capsys.readouterr().out
    assert "  1. electrics" in said["en"]
    assert "weaker reasons together (those above are" in said["en"]
    assert "其余较弱的理由合计（以上占" in said["zh"]
    for because in ("popularity", "like:x", "content:x", "others", "x"):
        assert once._words(because, zh=True) != once._words(because, zh=False)


def test_a_model_that_may_not_serve_leaves_the_answer_to_popularity(folder: Path, tmp_path: Path) -> None:
    import msgspec

    bundle = unpack((folder / "shop" / "recommend.items.bundle").read_bytes())
    poor = msgspec.structs.replace(bundle, passport=msgspec.structs.replace(bundle.passport, eligible=False))
    (tmp_path / "recommend.items.bundle").write_bytes(pack(poor))
    answer = recommend(load_shelf(tmp_path), Asked(user="customer-001", top=100))
    assert answer.fallback == ["no_eligible_model"]
    assert not {line.item for line in answer.lines} & chosen_by("customer-001")
    assert all(one.because == "popularity" for line in answer.lines for one in line.why.contributions)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/shop"], "for whom?"),
        (["{folder}/shop", "--user", " "], "for whom?"),
        (["{folder}/shop", "--user", "x", "--top", "0"], "1 to 100"),
        (["{folder}/shop", "--user", "x", "--top", "101"], "1 to 100"),
        (["{folder}/nowhere", "--user", "x"], "cannot read"),
        (["{folder}", "--user", "x"], "no recommend*.bundle"),
        (["{folder}/events.csv", "--user", "x"], "bad_archive"),
        (["{folder}/wordless", "--user", "x", "--only", "hydraulics"], "recommends what starts with tools, bearings"),
        (["{folder}/wordless", "--new-item", "x", "words"], "trained without an items' table"),
        (["{folder}/shop", "--new-item", " ", "words"], "an id of 1 to 128 characters"),
        (["{folder}/shop", "--user", "x", "--items", "{folder}/nothing.csv"], "cannot read"),
    ],
)
def test_wrong_questions_are_refused_with_status_2_and_the_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert millwright.main(["recommend", *(one.format(folder=folder) for one in arguments)]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""


def test_an_altered_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    archive = bytearray((folder / "shop" / "recommend.items.bundle").read_bytes())
    archive[len(archive) // 2] ^= 255
    (tmp_path / "recommend.items.bundle").write_bytes(bytes(archive))
    with pytest.raises(BadBundle):
        load_shelf(tmp_path)
    with pytest.raises(BadSettings, match="for whom"):
        recommend(load_shelf(folder / "shop"), Asked())


def test_recommending_needs_only_the_base_install(folder: Path) -> None:
    heavy = [
        "torch",
        "pandas",
        "statsmodels",
        "scipy",
        "numba",
        "matplotlib",
        "tqdm",
        "onnxruntime",
        "server",
        "export",
    ]
    code = (
        "import sys, edge_agent.once.recommend as r\n"
        f"r.main([{str(folder / 'shop')!r}, '--user', 'customer-001', '--new-item', 'n', 'hammer'])\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
