"""A model's card says what its passport says, in both languages, and nothing that it holds becomes markup."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.bundles import Form, Lite, Parity, Passport, Quality
from protocol.card import card, grouped, markdown
from protocol.card_words import METRICS, WORDS, Language
from protocol.processors import processor_class
from tests.bundles import small

COST = Parity(max_abs=0.02, rel_rms=0.004, task_change=0.003, n=12, bound="task error at most 0.5 % worse")
FIGURE = Quality(
    metric="f1", lower_is_better=False, model=0.8, reference=0.7, reference_name="logistic regression",
    low=0.74, high=0.85, split="stratified quarter", n=2500,
)  # fmt: skip


def passport(**changed: object) -> Passport:
    """One with everything in it."""
    told = {
        "quality": [FIGURE, msgspec.structs.replace(FIGURE, metric="pinball", low=None, high=None, champion=0.78)],
        "forms": [Form(name="int8", size=2048, latency_us=90.0, parity=COST), Form(name="int4", why="rms over 0.05")],
        "lite": Lite(recipe="w8", inputs=["x"], outputs=["q"], size=4096, parity=COST),
        "files": {"model.onnx": "a" * 64, "model.tflite": "b" * 64},
        "float_bytes": 8192,
        "packed_bytes": 2048,
        "latency_us": 90.0,
        "measured_on": "x86-64 VNNI, 1 thread",
        "rss_bytes": 60 << 20,
    }
    return msgspec.structs.replace(small().passport, **(told | changed))


def texts(language: Language, **changed: object) -> str:
    return markdown(card(passport(**changed), "d" * 64, language))


def test_both_languages_say_the_same_sections_and_figures() -> None:
    english, chinese = (card(passport(), "d" * 64, language) for language in ("en", "zh"))
    assert [s.name for s in english.sections] == [s.name for s in chinese.sections]
    assert not {s.title for s in english.sections} & {s.title for s in chinese.sections}


@pytest.mark.parametrize(
    "said",
    [
        "may serve", "0.74 – 0.85", "0.7 (logistic regression)", "not measured", "none yet", "+0.30%",
        "25% of the float size", "90 µs", "x86-64 VNNI, 1 thread", "60.0 MiB", "rms over 0.05", "taken", "w8", "a" * 64,
        "Mitchell et al.", "2,500",
    ],
)  # fmt: skip
def test_a_card_says_what_was_measured_and_what_was_not(said: str) -> None:
    assert said in texts("en")


def test_what_was_not_measured_is_called_that() -> None:
    said = texts("en", rss_bytes=0, measured_on="", lite=None, forms=[])
    assert "**Memory of a process with it**: not measured" in said
    assert "**Measured on**: not said" in said
    assert "TFLite" not in said


def test_settings_are_told_by_what_they_are_for() -> None:
    told = grouped(
        {
            "dropout": "0.1", "weight_decay": "1e-3", "pruned": "0.5", "pruned_of": "units", "teacher_hidden": "256",
            "epochs": "12", "learning_rate": "2e-3", "hidden": "64", "encoder_dropout": "0.1", "hidden_after_pruning": "32",
        }
    )  # fmt: skip
    assert list(told) == ["regularization", "pruning", "teacher", "optimization", "other"]
    assert set(told["regularization"]) == {"dropout", "weight_decay", "encoder_dropout"}
    assert set(told["pruning"]) == {"pruned", "pruned_of", "hidden_after_pruning"}
    assert set(told["other"]) == {"hidden"}


def test_a_curve_of_sizes_is_a_table_of_its_own() -> None:
    curve = '[{"share":0.0,"hidden":64,"error":0.51},{"share":0.5,"hidden":32,"error":0.52}]'
    lineage = msgspec.structs.replace(small().passport.lineage, parameters={"sizes": curve, "pruned": "0.5"})
    told = texts("en", lineage=lineage)
    assert "| sizes: share | hidden | error |" in told
    assert "| 0.5 | 32 | 0.52 |" in told
    for odd in ("[{}]", "[{]", "[{" * 5000, '[{"a": [1]}]'):
        assert "Pruning" in texts("en", lineage=msgspec.structs.replace(lineage, parameters={"pruned": odd}))


def test_every_word_is_there_in_both_languages() -> None:
    for english, chinese in (*WORDS.values(), *METRICS.values()):
        assert english
        assert chinese
        assert re.findall(r"{(\w+)", english) == re.findall(r"{(\w+)", chinese)


@given(st.text(max_size=60), st.sampled_from(["en", "zh"]))
def test_nothing_in_a_passport_becomes_markup(text: str, language: Language) -> None:
    told = texts(language, limits=text, verdict=f"<script>{text}|", because=f"# [x](y) {text}")
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", told)
    lines = told.splitlines()
    assert [line for line in lines if line.startswith("# ")] == ["# recommend.items v1"]


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "told"),
    [
        ("flags : fpu avx2 avx512f avx512_vnni", "x86_64", "x86-64 VNNI, 1 thread"),
        ("flags : fpu avx2", "AMD64", "x86-64 AVX2, 1 thread"),
        ("flags : fpu", "x86_64", "x86-64, 1 thread"),
        ("Features : fp asimd asimddp", "aarch64", "arm64 dot product, 1 thread"),
        ("", "armv7l", "armv7l, 1 thread"),
    ],
)
def test_a_processor_is_told_by_what_its_kernels_need(cpuinfo: str, machine: str, told: str) -> None:
    assert processor_class(cpuinfo, machine) == told
    assert processor_class(cpuinfo, machine, 2).endswith("2 threads")
