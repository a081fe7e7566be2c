"""Words and attributes become the same bounded vector everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.text_vectors import LONGEST_ATTRIBUTE, MOST_ATTRIBUTES, MOST_FEATURES, TextVectors, features, place

H, D = 512, 64


def made(scale: float = 0.01) -> TextVectors:
    rng = np.random.default_rng(0)
    return TextVectors(
        {
            "text_idf": np.ones(H, dtype=np.float32),
            "text_projection": rng.integers(-127, 128, (H, D)).astype(np.int8),
            "text_row_scale": np.full(H, scale, dtype=np.float32),
        }
    )


VECTORS = made()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5))
def test_any_text_gives_a_finite_vector_of_unit_length_or_zeros(text: str, attributes: dict[str, str]) -> None:
    vector = VECTORS.vector(text, attributes)
    size = float(np.sqrt(vector @ vector))
    assert vector.shape == (D,)
    assert np.isfinite(vector).all()
    assert size == 0 or size == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5))
def test_the_order_of_attributes_does_not_matter(attributes: dict[str, str]) -> None:
    turned = dict(reversed(list(attributes.items())))
    assert np.array_equal(VECTORS.vector("seal", attributes), VECTORS.vector("seal", turned))


def test_chinese_is_compared_by_what_it_says() -> None:
    bearing, turned, strainer = (VECTORS.vector(text) for text in ("更换轴承", "轴承更换", "清洗滤网"))
    assert bearing @ turned > bearing @ strainer


def test_a_long_text_stays_bounded_and_places_are_stable() -> None:
    assert len(features(" ".join(f"word{n}" for n in range(100_000)))) <= MOST_FEATURES
    assert place("type=pump", 4096) == 4092


def test_attributes_are_bounded_in_number_and_length() -> None:
    long = features("", {"k" * 5000: "v" * 5000})
    assert max(map(len, long)) <= 2 * LONGEST_ATTRIBUTE + 1
    many = features("", {f"key{n:04d}": "" for n in range(5000)})
    assert len(many) == MOST_ATTRIBUTES


def test_no_words_give_zeros() -> None:
    assert not VECTORS.vector("").any()


def test_scales_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadBundle):
        made(float("nan"))
