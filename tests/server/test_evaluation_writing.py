"""The gate tells a model that learned how people choose from one that did not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from protocol.reports import ModelRef
from protocol.writing.author import LanguageModel
from protocol.writing.decoder import WriterSpec
from protocol.writing.facts import Mode
from protocol.writing.frames import Clause, Frames, Heading
from protocol.writing.strict import Path, turn
from server.evaluation_writing import (
    EditedReport,
    EditedSection,
    Prose,
    choices,
    log_probability,
    prefer,
    unverified_prose,
    worth,
)

END, VOCABULARY = 256, 257


def encode(text: str) -> list[int]:
    return list(text.encode())


CLAUSES = [
    Clause(id="peak", section="s", en=["It rose.", "Up.", "It went up."], zh=["升"]),
    Clause(id="usual", section="s", mandatory=False, en=["It was low."], zh=["低"]),
    Clause(id="end", section="s", en=["Stop."], zh=["停"]),
]
TURNS = tuple(turn(clause, "en", encode, optional=not clause.mandatory) for clause in CLAUSES)
SHORT: Path = ((0, 1), (2, 0))
LONG: Path = ((0, 2), (1, 0), (2, 0))


def report(severity: str, said: Path) -> EditedReport:
    return EditedReport("en", tuple(encode(f"{severity}\n")), (EditedSection(tuple(encode("s:")), TURNS, said),))


class Listener:
    """A model that remembers which text follows which prefix, and is so sure of it."""

    def __init__(self, texts: Sequence[str], sure: float) -> None:
        self.texts, self.sure, self.vocabulary, self.context = [*texts], sure, VOCABULARY, 500
        self.fed: list[int] = []

    @property
    def length(self) -> int:
        return len(self.fed)

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        rows = np.zeros((len(ids), VOCABULARY), dtype=np.float32)
        for row, token in zip(rows, ids, strict=True):
            self.fed.append(token)
            for text in self.texts:
                whole = [*encode(text), END]
                if whole[: len(self.fed)] == self.fed and len(whole) > len(self.fed):
                    row[whole[len(self.fed)]] += self.sure
        return rows

    def rewind(self, length: int) -> None:
        del self.fed[length:]


ALARM, NOTICE = "alarm\ns: Up. Stop.", "notice\ns: It went up. It was low. Stop."
PEOPLE = [report("alarm", SHORT), report("notice", LONG)] * 5


def test_a_model_that_heard_when_people_are_brief_is_worth_it() -> None:
    found = worth(Listener([ALARM, NOTICE], 6.0), PEOPLE, PEOPLE, END)
    assert found.holds
    assert (found.reports, found.choices) == (10, 20)
    assert found.model.agreement == 1
    assert found.rivals["frequency"].agreement == 0.5
    assert found.model.likelihood > found.rivals["frequency"].likelihood > found.rivals["first"].likelihood


def test_a_model_without_an_opinion_is_not_worth_it() -> None:
    found = worth(Listener([], 6.0), PEOPLE, PEOPLE, END)
    assert not found.holds
    assert not prefer({"en": found})
    assert found.rivals["uniform"].likelihood == pytest.approx(math.log(1 / 3) + math.log(1 / 2))


def test_a_model_that_insists_on_the_wrong_words_is_worth_less_than_chance() -> None:
    wrong = [ALARM.replace("alarm", "notice"), NOTICE.replace("notice", "alarm")]
    found = worth(Listener(wrong, 6.0), PEOPLE, PEOPLE, END)
    assert found.gain["uniform"] < 0
    assert found.model.agreement < found.rivals["frequency"].agreement


def test_every_language_must_be_worth_it() -> None:
    good = worth(Listener([ALARM, NOTICE], 6.0), PEOPLE, PEOPLE, END)
    bad = worth(Listener([], 6.0), PEOPLE, PEOPLE, END)
    assert prefer({"en": good, "zh": good})
    assert not prefer({"en": good, "zh": bad})
    assert not prefer({})


def test_a_choice_has_as_many_ways_as_wordings_and_one_more_if_it_may_be_left_out() -> None:
    assert [(c.clause, c.ways, c.taken) for c in choices(report("alarm", SHORT))] == [("peak", 3, 1), ("usual", 2, 1)]


def test_unmasked_log_probability_counts_only_what_people_left() -> None:
    flat, tokens = log_probability(Listener([], 6.0), PEOPLE[:2], END)
    assert tokens == len(" Up. Stop.") + 1 + len(" It went up. It was low. Stop.") + 1
    assert flat == pytest.approx(-math.log(VOCABULARY))
    assert log_probability(Listener([ALARM, NOTICE], 20.0), PEOPLE[:2], END)[0] > -0.01


def test_prose_of_a_model_that_babbles_could_not_stay() -> None:
    spec = WriterSpec(layers=1, kv_heads=1, head_width=8, vocabulary=VOCABULARY, context=500, end=END)
    pieces = [*(bytes([b]) for b in range(256)), b"<|end|>"]
    writer = LanguageModel(Listener([], 1.0), encode, spec, ModelRef("writer", "gpt", 1), Mode.FREE, pieces)
    frames = Frames(document="d", version=1, headings=[Heading(section="s", en="S", zh="S")], clauses=CLAUSES)
    found = unverified_prose(writer, frames, [[], []], lambda: 0.0)
    assert (found.sections, found.error_share) == (4, 1.0)
    assert Prose(0, 0, 0).error_share == 1
    assert Prose(8, 1, 1).error_share == 0.25


def test_too_few_reports_are_refused() -> None:
    with pytest.raises(ValueError, match="held-out"):
        worth(Listener([], 1.0), PEOPLE, PEOPLE[:1], END)
