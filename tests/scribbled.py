"""Made-up notes of a small shop in two languages: six modes, shorthand and slips of the pen, and what fixed them."""

from __future__ import annotations

import random

from server.algorithms.note_reader import ReaderSettings
from server.labelled import LabelledNote
from server.training import Candidate, Circumstances
from server.training.reader import train_reader

SAID = {
    "leak": (
        ["seal weeping oil", "oil leaking at the flange", "coolant drips", "gasket leaks"],
        ["密封漏油", "法兰处渗油", "冷却液滴漏"],
    ),
    "noise": (
        ["loud grinding", "squealing at start", "rattles badly", "noisy gearbox"],
        ["异响很大", "启动时尖叫", "齿轮箱有噪音"],
    ),
    "overheating": (
        ["runs hot", "overheated again", "too hot to touch", "smoking hot"],
        ["发热烫手", "温度过高", "又过热了"],
    ),
    "electrical": (
        ["breaker tripped", "fuse blown", "trips on earth fault", "no power"],
        ["跳闸了", "保险丝烧断", "没有电"],
    ),
    "blocked": (
        ["filter clogged", "chute plugged", "line blocked with swarf", "strainer choked"],
        ["滤网堵了", "管路堵塞", "料口卡死"],
    ),
    "vibration": (
        ["shaking badly", "vibrates at speed", "vibration high at bearing", "wobbles"],
        ["振动很大", "抖动厉害", "高速时振动"],
    ),
}
FIX = {
    "leak": ["action:replace-seal", "part:seal-kit"],
    "noise": ["action:replace-bearing"],
    "overheating": ["action:clean-cooler"],
    "electrical": ["action:reset-breaker"],
    "blocked": ["action:clean-filter"],
    "vibration": ["action:align-coupling"],
}
_AROUND = (["pump 3 ", "press 1: ", "", "again ", "since monday "], ["3号泵", "压力机", "", "又", "早班"])
_BEHIND = (["", ", pls check", " - urgent", ", running on"], ["", "，请检查", "，很急", "，先开着"])


def notes(many: int = 180, seed: int = 5) -> list[LabelledNote]:
    """Notes with their mode, in the order of time; urgency where the note says so."""
    chance = random.Random(seed)
    made = []
    for i in range(many):
        mode = chance.choice(list(SAID))
        language = chance.randrange(2)
        text = chance.choice(SAID[mode][language])
        if language == 0 and chance.random() < 0.3:
            at = chance.randrange(1, len(text) - 1)
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        behind = chance.choice(_BEHIND[language])
        urgent = "urgent" in behind or "急" in behind
        made.append(
            LabelledNote(
                case=f"WO-{i:04d}",
                time_ms=1_790_000_000_000 + i * 3_600_000,
                machine="P-101",
                text=f"{chance.choice(_AROUND[language])}{text}{behind}",
                said={"failure": mode, "urgency": "high" if urgent else "usual"},
                fixed_by=FIX[mode],
            )
        )
    return made


def trained(many: int = 180, champions: dict[str, bytes] | None = None) -> Candidate:
    """A sealed reader of such notes."""
    world = Circumstances("0" * 64, many, 1_790_900_000_000, champions=champions or {})
    settings = ReaderSettings(folds=3, repeats=1)
    [candidate] = train_reader(notes(many), 0, world, lambda _share, _step: None, settings=settings)
    return candidate
