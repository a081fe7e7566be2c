"""Shorthand becomes words, whatever is thrown at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.reading.normalise import MEMORY, Lexicon, Normaliser, abstract, edit, remember, shape
from server.algorithms.shorthand import ShorthandSettings, fit_shorthand

LINES = [
    "PH639>_id_ REPL>replace HYD>hydraulic HOSE>hose",
    "CR871>_id_ REP>repair HYD>hydraulic PUMP>pump LEAK>leak",
    "AN426>_id_ REPL>replace POS>position 7>_num_ TYRE>tyre",
    "BF079>_id_ REP>repair OIL>oil LEAK>leak ON>on PUMP>pump",
    "XH531>_id_ replace>replace AUTO>autogreaser GREASER> PUMP>pump",
    "VJ830>_id_ fit>fit AUTO>autogreaser GREASER> HOSE>hose",
    "CC708>_id_ C/O>change_out POS4>position__num_ tyre>tyre",
    "HF338>_id_ C/O>change_out POS12>position__num_ rim>rim",
]


def texts() -> list[list[tuple[str, str]]]:
    made = []
    for line in LINES * 3:
        pairs = (token.partition(">") for token in line.split())
        made.append(
            [
                (a, b.replace("__num_", " <num>").replace("_num_", "<num>").replace("_id_", "<id>").replace("_", " "))
                for a, _, b in pairs
            ]
        )
    return made


@pytest.fixture(scope="module")
def normaliser() -> Normaliser:
    fitted = fit_shorthand(texts(), ShorthandSettings(folds=3, steps=60))
    return Normaliser(fitted.tables(), fitted.texts())


def test_shorthand_is_written_in_full_and_identifiers_are_masked(normaliser: Normaliser) -> None:
    assert normaliser.normalise("PH639 REPL HYD PUMP") == "<id> replace hydraulic pump"
    assert normaliser.normalise("ZZ123 REPL HYD HOSE") == "<id> replace hydraulic hose"
    assert normaliser.normalise("CC708 C/O POS9 tyre") == "<id> change out position <num> tyre"


def test_two_tokens_that_are_one_word_become_one(normaliser: Normaliser) -> None:
    assert normaliser.tokens(["replace", "AUTO", "GREASER", "PUMP"]) == ["replace", "autogreaser", "", "pump"]


def test_slip_parts_and_abbreviation_are_among_the_candidates() -> None:
    lexicon = Lexicon(remember(texts()))
    assert "replace" in lexicon.candidates(["repalce"], 0, "").sources
    assert "hydraulic" in lexicon.candidates(["hydr"], 0, "").sources
    assert "oil / leak" in lexicon.candidates(["OIL/LEAK"], 0, "").sources
    assert "oil leak" in lexicon.candidates(["oilLeak"], 0, "").sources


def test_words_are_described_by_their_shape_and_change() -> None:
    assert shape("PH639-a") == "A0-a"
    assert abstract("PH639", "<id>") == "<id>"
    assert edit("feul", "fuel") == "swap"
    assert edit("pump", "pumps") == "end:>s"


def test_chinese_and_nothing_stay_as_they_are(normaliser: Normaliser) -> None:
    assert normaliser.normalise("3号泵漏油 更换密封") == "3号泵漏油 更换密封"
    assert normaliser.normalise("") == ""
    assert normaliser.tokens([]) == []


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000, "x/" * 2000, "\x00\x07 \U0001f527", "' OR 1=1 --", "<script>", "1-2-3-4" * 500, "\ud800 aB1cD2"],
)
def test_hostile_text_is_answered_in_bounds(normaliser: Normaliser, text: str) -> None:
    assert len(normaliser.normalise(text)) < 30 * len(text) + 100


@given(st.text(max_size=60))
def test_every_token_has_one_answer(normaliser: Normaliser, text: str) -> None:
    tokens = text.split()
    assert len(normaliser.tokens(tokens)) == len(tokens)


def test_packed_weights_answer_as_the_exact_ones() -> None:
    fitted = fit_shorthand(texts(), ShorthandSettings(folds=3, steps=60))
    tables = fitted.tables()
    assert abs(tables["norm_weights"] * float(tables["norm_scale"][0]) - fitted.weights).max() <= float(
        tables["norm_scale"][0]
    )
    packed = Normaliser(tables, fitted.texts())
    right = sum(packed.tokens([a for a, _ in text]) == [b for _, b in text] for text in texts())
    assert right >= 0.9 * len(texts())


def test_bundle_without_its_memory_is_refused() -> None:
    fitted = fit_shorthand(texts(), ShorthandSettings(folds=2, steps=5))
    with pytest.raises(BadBundle, match=MEMORY):
        Normaliser(fitted.tables(), {})
    with pytest.raises(BadBundle, match="cannot be read"):
        Normaliser(fitted.tables(), {MEMORY: b"[]"})
    with pytest.raises(BadBundle, match="norm_weights"):
        Normaliser({}, fitted.texts())
