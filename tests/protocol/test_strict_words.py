"""Whatever the logits are, a strictly written section is a row of licensed wordings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocol.writing.frames import Clause
from protocol.writing.strict import (
    LEFT_OUT,
    Budget,
    Limits,
    Path,
    Pen,
    Stopped,
    Turn,
    Why,
    choose,
    log_softmax,
    sampled,
    turn,
    ways_on,
)

END = 256
VOCABULARY = 320


class TableDecoder:
    """Answers from a table: row (tokens fed so far) modulo its height, rolled by the newest token. Remembers its calls."""

    def __init__(self, table: NDArray[np.float32], context: int = 4000) -> None:
        self.table, self.vocabulary, self.context = table, table.shape[1], context
        self.fed: list[int] = []
        self.calls: list[list[int]] = []

    @property
    def length(self) -> int:
        return len(self.fed)

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        if len(self.fed) + len(ids) > self.context:
            raise ValueError("beyond the context")
        rows = []
        for token in ids:
            self.fed.append(token)
            rows.append(np.roll(self.table[len(self.fed) % len(self.table)], 7 * token))
        self.calls.append(list(ids))
        return np.array(rows, dtype=np.float32)

    def rewind(self, length: int) -> None:
        del self.fed[length:]


def encode(text: str) -> list[int]:
    """A foreign tokenizer: bytes."""
    return list(text.encode())


def encode_with_slots(text: str) -> list[int]:
    """A tokenizer whose slots are tokens of their own."""
    found: list[int] = []
    for part in re.split(r"(<[a-z]>)", text):
        found += [257 + ord(part[1]) - ord("a")] if re.fullmatch(r"<[a-z]>", part) else list(part.encode())
    return found


def pen_on(decoder: TableDecoder, limits: Limits | None = None) -> Pen:
    pen = Pen(decoder, Budget(limits or Limits(seconds=1, tokens=10_000), lambda: 0.0))
    pen.append(encode("fault_report en\n"))
    return pen


def flat() -> TableDecoder:
    return TableDecoder(np.zeros((1, VOCABULARY), dtype=np.float32))


def random(seed: int) -> TableDecoder:
    return TableDecoder(np.random.default_rng(seed).normal(0, 5, (13, VOCABULARY)).astype(np.float32))


def clause(name: str, *en: str, mandatory: bool = True) -> Clause:
    return Clause(id=name, section="s", en=list(en), zh=["好" + text for text in en], mandatory=mandatory)


CLAUSES = [
    clause("peak", "It rose to <p>.", "It rose to <p> quickly.", "Peak <p>."),
    clause("usual", "Before it was <u>.", "It rose from <u>.", mandatory=False),
    clause("advice", "See <a>.", mandatory=False),
    clause("last", "Done."),
]


def turns(encoder: object = encode, clauses: Sequence[Clause] = CLAUSES) -> list[Turn]:
    return [turn(each, "en", encoder, optional=not each.mandatory) for each in clauses]  # type: ignore[arg-type]


def every_path(made: Sequence[Turn]) -> list[Path]:
    ways = [
        [*((k, w) for w in range(len(each.wordings))), *([None] if each.optional else [])]
        for k, each in enumerate(made)
    ]
    return [tuple(step for step in path if step is not None) for path in itertools.product(*ways) if any(path)]


def tokens_of(made: Sequence[Turn], path: Path) -> list[int]:
    return [token for k, wording in path for token in made[k].wordings[wording]]


WORDS = st.text(st.sampled_from("ab<>p .。高"), min_size=1, max_size=6)
SECTIONS = st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=4), st.booleans()), min_size=1, max_size=5).map(
    lambda rows: [clause(f"c{i}", *texts, mandatory=not left) for i, (texts, left) in enumerate(rows)]
)
LOGITS = st.one_of(
    st.floats(width=32, allow_nan=False), st.sampled_from([float("inf"), float("-inf"), 0.0, 1e38, -1e38])
)


@settings(deadline=None)
@given(SECTIONS, st.lists(LOGITS, min_size=1, max_size=30), st.integers(0, 9), st.booleans())
def test_any_logits_give_a_row_of_licensed_wordings(
    clauses: list[Clause], values: list[float], seed: int, slots: bool
) -> None:
    draw = np.random.default_rng(seed)
    decoder = TableDecoder(draw.choice(np.array(values, dtype=np.float32), (5, VOCABULARY)))
    made = turns(encode_with_slots if slots else encode, clauses)
    pen = pen_on(decoder)
    asked = pen.length
    path = choose(pen, made, END)
    assert path in every_path(made)
    written = (decoder.fed + pen.waiting)[asked:]
    assert written == [*tokens_of(made, path), END]


def test_every_licensed_row_can_be_reached_and_nothing_else() -> None:
    made = turns()
    reached = set()
    for seed in range(400):
        reached.add(choose(pen_on(random(seed)), made, END, sampled(np.random.default_rng(seed), 50.0)))
    assert reached == set(every_path(made))


def test_equal_logits_say_the_first_wording_of_every_clause() -> None:
    assert choose(pen_on(flat()), turns(), END) == ((0, 0), (1, 0), (2, 0), (3, 0))


def test_the_model_is_asked_only_where_it_has_a_choice_and_fed_the_rest_together() -> None:
    decoder = flat()
    pen = pen_on(decoder)
    made = turns(clauses=[clause("a", "One way only."), clause("b", "This one.", "That one."), clause("c", "The end.")])
    choose(pen, made, END)
    assert decoder.calls == [encode("fault_report en\n One way only. Th")]
    assert pen.waiting == [*encode("is one. The end."), END]
    assert pen.calls == 1


def test_a_section_without_a_choice_costs_no_call() -> None:
    pen = pen_on(flat())
    assert choose(pen, turns(clauses=[clause("a", "Only this."), clause("b", "And this.")]), END) == ((0, 0), (1, 0))
    assert pen.calls == 0


def test_a_wording_that_begins_another_can_still_be_left_there() -> None:
    made = turns(clauses=[clause("a", "Hot", "Hot and loud"), clause("b", " it is.", " and how.")])
    reached = {choose(pen_on(random(seed)), made, END) for seed in range(60)}
    assert reached == {((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (1, 0)), ((0, 1), (1, 1))}


def test_a_section_of_optional_clauses_says_one_of_them() -> None:
    made = turns(clauses=[clause("a", "This.", mandatory=False), clause("b", "That.", mandatory=False)])
    reached = {choose(pen_on(random(seed)), made, END) for seed in range(60)}
    assert reached == {((0, 0),), ((1, 0),), ((0, 0), (1, 0))}


def test_equal_wordings_of_many_optional_clauses_do_not_multiply() -> None:
    made = turns(clauses=[clause(f"c{i}", "The same.", mandatory=False) for i in range(40)])
    assert len(choose(pen_on(flat()), made, END)) == 40


@pytest.mark.parametrize("seed", range(5))
def test_the_probabilities_of_all_licensed_sections_add_up_to_one(seed: int) -> None:
    made, total = turns(), 0.0
    decoder = random(seed)
    pen = pen_on(decoder)
    for path in every_path(made):
        chance = 1.0
        for k in range(len(made)):
            before = tuple(step for step in path if step[0] < k)
            found = ways_on(pen, made, END, before, k)
            assert found.chances.sum() == pytest.approx(1)
            chance *= found.chances[dict(path).get(k, LEFT_OUT)]
        total += chance
    assert total == pytest.approx(1)


@pytest.mark.parametrize("seed", range(20))
def test_alternatives_tell_what_greedy_decoding_says(seed: int) -> None:
    made = turns()
    path = choose(pen_on(random(seed)), made, END)
    pen = pen_on(random(seed))
    for k in range(len(made)):
        before = tuple(step for step in path if step[0] < k)
        told = ways_on(pen, made, END, before, k).chosen
        assert told == dict(path).get(k, len(made[k].wordings))
    assert pen.length == len(encode("fault_report en\n"))


def stopped(decoder: TableDecoder, limits: Limits | None = None, made: Sequence[Turn] | None = None) -> Why:
    with pytest.raises(Stopped) as caught:
        choose(pen_on(decoder, limits), turns() if made is None else made, END)
    return caught.value.why


def test_limits_and_broken_models_end_a_section_with_the_reason() -> None:
    assert stopped(flat(), Limits(seconds=1, tokens=5)) is Why.TOKENS
    assert stopped(flat(), Limits(seconds=0, tokens=500)) is Why.TIME
    assert stopped(TableDecoder(flat().table, context=17)) is Why.CONTEXT
    assert stopped(TableDecoder(np.full((1, VOCABULARY), np.nan, dtype=np.float32))) is Why.LOGITS
    assert stopped(TableDecoder(np.zeros((1, 90), dtype=np.float32))) is Why.TOKENIZER
    assert stopped(flat(), made=[]) is Why.NOTHING
    assert stopped(flat(), made=turns(lambda text: [END, 5])) is Why.TOKENIZER
    with pytest.raises(Stopped, match="no tokens"):
        turns(lambda text: [])


@given(st.lists(LOGITS, min_size=1, max_size=8))
def test_log_softmax_is_a_distribution_whatever_the_logits(values: list[float]) -> None:
    chances = np.exp(log_softmax(np.array(values, dtype=np.float32)))
    assert chances.sum() == pytest.approx(1)
