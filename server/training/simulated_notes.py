"""Operators' notes that nobody wrote: drawn from our own grammar (`note_grammar`), in English and Chinese, with tags,
shorthand and slips, each with the truth of what it says and of what fixed it. The same seed gives the same notes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from protocol.reading.notes import About
from server.training.note_grammar import (
    BEFORE,
    FLUIDS,
    ISO_MODES,
    NOTHING,
    PLANT_MODES,
    READINGS,
    REQUESTS,
    SHORTHAND,
    SLIPS_ZH,
    THINGS,
    TIMES,
    URGENCY,
    Both,
    Fix,
    Mode,
)

LANGUAGES = ("en", "zh")
FAULT, REQUEST, DONE, ROUTINE = "fault", "request", "done", "routine"
EVENTS = (FAULT, REQUEST, DONE, ROUTINE)
"""What a note is: something was seen, work is asked for, work was done, or nothing in particular."""
_ONE_OF = re.compile(r"\(([^()]*)\)")
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class SimulatedNote:
    """text: as written. plain: the same before shorthand and slips. mode: what it is about. told: whether its words say so; a
    note that only reports or asks for work does not. seen: the words that do, in full. fix: what was done about it, in the
    note's language; action: its id. urgency: a key of URGENCY; event: of EVENTS."""

    text: str
    plain: str
    language: str
    mode: str
    told: bool
    seen: str
    fix: str
    action: str
    urgency: str
    event: str

    def said(self) -> dict[About, str]:
        """What a reader should answer, as far as it can be known."""
        known = {About.EVENT: self.event, About.URGENCY: self.urgency}
        return known | {About.FAILURE: self.mode} if self.told else known


@dataclass(frozen=True)
class NotePlan:
    """modes: what the notes are about, each as often. short: share of notes that are a few words and nothing else. done,
    requested: shares of those that report work, and that ask for it. quiet: share about nothing in particular. slips: chance
    of a slip, and shorthand of a short form, for each word that allows it."""

    modes: tuple[Mode, ...] = ISO_MODES
    short: float = 0.35
    done: float = 0.12
    requested: float = 0.12
    quiet: float = 0.04
    slips: float = 0.05
    shorthand: float = 0.3
    languages: tuple[str, ...] = LANGUAGES


ISO = NotePlan()
PLANT = NotePlan(PLANT_MODES)
EVERYTHING = NotePlan((*ISO_MODES, *PLANT_MODES))


def notes(plan: NotePlan, count: int, seed: int) -> Iterator[SimulatedNote]:
    """So many notes, the modes and languages in turn."""
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 - seeded on purpose, nothing secret
        mode = NOTHING if chance.random() < plan.quiet else plan.modes[number % len(plan.modes)]
        yield note(mode, plan.languages[number // len(plan.modes) % len(plan.languages)], plan, chance)


def note(mode: Mode, language: str, plan: NotePlan, chance: random.Random) -> SimulatedNote:
    """One note about a mode."""
    side = LANGUAGES.index(language)
    filled = _filled(mode, side, chance)
    seen = spoken(chance.choice((mode.en, mode.zh)[side]), filled, chance)
    fix = chance.choice(mode.fixes)
    work = spoken((fix.en, fix.zh)[side], filled, chance)
    event, words, told = _event(mode, side, plan, seen, work, chance)
    open_work = event in (FAULT, REQUEST)
    urgency = "soon" if open_work else "later"
    plain = words
    if event != FAULT or chance.random() >= plan.short:
        before = spoken(chance.choice(BEFORE[side]), filled, chance)
        if open_work:
            urgency = chance.choice(list(URGENCY))
            words = _joined(words, spoken(chance.choice(URGENCY[urgency][side]), filled, chance), side)
        plain = before + (" " if before and not side else "") + words
    text = _scribbled_zh(plain, plan, chance) if side else _scribbled_en(plain, plan, chance)
    return SimulatedNote(text, plain, language, mode.name, told, seen, work, fix.action, urgency, event)


def spoken(pattern: str, filled: dict[str, str], chance: random.Random) -> str:
    """A pattern with its choices made and its slots filled."""
    while found := _ONE_OF.search(pattern):
        pattern = pattern[: found.start()] + chance.choice(found[1].split("|")) + pattern[found.end() :]
    return re.sub(r" {2,}", " ", re.sub(r"\{(\w+)\}", lambda slot: filled[slot[1]], pattern)).strip(" ")


def actions_of(modes: Sequence[Mode]) -> dict[str, Both]:
    """Id of each action -> one way to write it, English and Chinese."""
    chance = random.Random(0)  # noqa: S311 - the first choice of each
    known: dict[str, Both] = {}
    for mode in modes:
        for fix in mode.fixes:
            filled = [_filled(mode, side, random.Random(0)) for side in (0, 1)]  # noqa: S311
            known.setdefault(fix.action, (spoken(fix.en, filled[0], chance), spoken(fix.zh, filled[1], chance)))
    return known


def _event(mode: Mode, side: int, plan: NotePlan, seen: str, work: str, chance: random.Random) -> tuple[str, str, bool]:
    """(what kind of note it is, its words, whether they tell the mode)."""
    if mode is NOTHING:
        return ROUTINE, seen, True
    lot, told = chance.random(), chance.random() < 0.7
    if lot < plan.done:
        return DONE, _joined(seen, work, side) if told else work, told
    if lot < plan.done + plan.requested:
        asked = spoken(REQUESTS[side], {"work": _wish(mode, side, chance)}, chance)
        return REQUEST, _joined(seen, asked, side) if told else asked, told
    return FAULT, seen, True


def _wish(mode: Mode, side: int, chance: random.Random) -> str:
    """Work that is asked for: the action's own words, "replace-seal" as "replace seal"."""
    fix: Fix = chance.choice(mode.fixes)
    if side:
        return spoken(fix.zh, _filled(mode, side, chance), chance)
    return fix.action.replace("-", " ")


def _joined(first: str, second: str, side: int) -> str:
    if not second:
        return first
    return first + ("，" if side else ", ") + second


def _filled(mode: Mode, side: int, chance: random.Random) -> dict[str, str]:
    tag = f"{chance.choice('PCMRVKFEBT')}{chance.choice(('-', '', '-'))}{chance.randrange(100, 999)}"
    return {
        "thing": chance.choice(THINGS[mode.things])[side],
        "part": chance.choice(mode.parts)[side],
        "fluid": chance.choice(FLUIDS)[side],
        "reading": chance.choice(READINGS)[side],
        "time": chance.choice(TIMES)[side],
        "tag": tag + chance.choice(("", "", "A", "B")),
        "number": str(chance.randrange(1, 9)),
    }


def _scribbled_en(text: str, plan: NotePlan, chance: random.Random) -> str:
    for phrase, short in SHORTHAND.items():
        if phrase in text and chance.random() < plan.shorthand:
            text = re.sub(rf"\b{phrase}\b", chance.choice(short), text, count=1)
    text = _WORD.sub(lambda word: slip(word[0], plan.slips, chance), text)
    style = chance.random()
    if style < 0.2:
        return text.upper()
    return text[:1].upper() + text[1:] if style < 0.5 else text


def _scribbled_zh(text: str, plan: NotePlan, chance: random.Random) -> str:
    for right, wrong in SLIPS_ZH:
        if right in text and chance.random() < plan.slips:
            text = text.replace(right, wrong, 1)
    if chance.random() < 0.15:
        text = text.replace("，", " ")
    return text


def slip(word: str, share: float, chance: random.Random) -> str:
    """A word as it is typed in gloves: two letters swapped, one lost, one twice, or a neighbour on the keyboard."""
    if len(word) < 4 or chance.random() >= share:
        return word
    at = chance.randrange(1, len(word) - 1)
    kind = chance.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + _beside(word[at], chance) + word[at + 1 :]


def _beside(letter: str, chance: random.Random) -> str:
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm"):
        at = row.find(letter.lower())
        if at >= 0:
            return row[max(at - 1, 0)] if chance.random() < 0.5 else row[min(at + 1, len(row) - 1)]
    return letter
