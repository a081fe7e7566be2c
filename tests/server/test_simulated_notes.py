"""Notes of our own grammar: every mode in both languages, the same for the same seed, and true to what they claim."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edge_agent.devices.line import FAULTS, ITEM_ZH
from protocol.reading.notes import About
from server.training.note_grammar import ISO_MODES, NOTHING, PLANT_MODES, URGENCY, Mode
from server.training.simulated_notes import (
    EVENTS,
    EVERYTHING,
    ISO,
    NotePlan,
    actions_of,
    note,
    notes,
    slip,
)

FOUND = list(notes(EVERYTHING, 3000, 7))
every = pytest.mark.parametrize("mode", [*ISO_MODES, *PLANT_MODES, NOTHING], ids=lambda mode: mode.name)


def test_the_same_seed_writes_the_same_notes_and_another_seed_others() -> None:
    assert list(notes(ISO, 50, 7)) == list(notes(ISO, 50, 7))
    assert list(notes(ISO, 50, 7)) != list(notes(ISO, 50, 8))


def test_twenty_two_modes_and_every_fault_of_the_simulated_plant() -> None:
    assert len({mode.name for mode in ISO_MODES}) == 22
    assert {mode.name for mode in PLANT_MODES} == {fault.name for of in FAULTS.values() for fault in of}


def test_what_fixes_a_fault_of_the_plant_is_what_helps_there() -> None:
    helps = {fault.name: fault.action for of in FAULTS.values() for fault in of}
    assert {mode.name: mode.fixes[0].action for mode in PLANT_MODES} == helps
    assert set(helps.values()) <= set(ITEM_ZH)


def test_modes_languages_events_and_urgencies_are_all_there() -> None:
    per_mode = Counter((one.mode, one.language) for one in FOUND)
    assert len(per_mode) == 2 * 31
    assert min(per_mode.values()) > 30
    assert {one.event for one in FOUND} == set(EVENTS)
    assert {one.urgency for one in FOUND} == set(URGENCY)


def test_notes_rarely_repeat() -> None:
    assert len({one.plain for one in FOUND}) > 0.9 * len(FOUND)


@every
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_wording_of_a_mode_is_filled_and_in_its_language(mode: Mode, language: str) -> None:
    for seed in range(60):
        one = note(mode, language, NotePlan((mode,), slips=0.0, shorthand=0.0), random.Random(seed))
        for text in (one.text, one.seen, one.fix):
            assert text == text.strip()
            assert text
            assert not set("{}()|") & set(text), text
            if language == "en":
                assert text.isascii(), text
        if language == "zh" and one.event != "routine":
            assert any("一" <= c <= "鿿" for c in one.text), one.text


def test_two_modes_never_share_a_wording_of_their_symptom() -> None:
    told: dict[str, str] = {}
    for mode in ISO_MODES:
        for wording in (*mode.en, *mode.zh):
            assert told.setdefault(wording, mode.name) == mode.name, wording


def test_a_note_that_only_reports_work_does_not_claim_to_tell_the_mode() -> None:
    silent = [one for one in FOUND if not one.told]
    assert silent
    assert all(one.event in ("done", "request") and About.FAILURE not in one.said() for one in silent)
    assert all(one.said()[About.FAILURE] == one.mode for one in FOUND if one.told)


def test_shorthand_and_slips_are_there_and_can_be_left_out() -> None:
    plain = list(notes(NotePlan(slips=0.0, shorthand=0.0, languages=("en",)), 500, 7))
    assert all(one.text.lower() == one.plain.lower() for one in plain)
    scribbled = list(notes(NotePlan(languages=("en",)), 500, 7))
    assert sum(one.text.lower() != one.plain.lower() for one in scribbled) > 100


def test_a_slip_changes_a_word_by_one_stroke() -> None:
    chance = random.Random(3)
    found = [slip("bearing", 1.0, chance) for _ in range(200)]
    assert {len(word) for word in found} == {6, 7, 8}
    assert slip("oil", 1.0, chance) == "oil"
    assert slip("bearing", 0.0, chance) == "bearing"


def test_every_action_has_a_name_in_both_languages() -> None:
    for action, (en, zh) in actions_of(EVERYTHING.modes).items():
        assert action
        assert en.isascii()
        assert any("一" <= c <= "鿿" for c in zh)
