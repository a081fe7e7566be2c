"""A simulated production line: four machines, seventeen signals, injected faults whose truth is known. Seeded and pure:
the same seed and times give the same values.

Each signal is a level with a daily wave (ambient temperature), a share of the line's load (three shifts, a weekend, an
operating mode that changes every few hours), slow wear and AR(1) noise. A fault pushes some signals by a multiple of
their own noise, rising over its first hour. A pump's bearing wears out over a few days, is replaced when it fails (or, now
and then, before), and what it shows grows towards its end. Work orders of the past half year follow the plant's habit,
which for some faults is not what helps: operators' answers know better."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_agent.devices.scribbles import scribble
from protocol.covariates import EVERY_MACHINE, KnownInput, Source
from protocol.observations import WorkOrder
from protocol.reading.notes import Note

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_788_134_400_000
"""2026-08-31T00:00:00Z, a Monday."""


@dataclass(frozen=True, slots=True)
class SignalModel:
    """level + daily*wave + load*share + noise, in the signal's unit."""

    unit: str
    level: float
    daily: float
    load: float
    noise: float
    zh: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What breaks, how it shows (signal -> push in noise deviations), what helps, and what people used to do."""

    name: str
    shows: dict[str, float]
    action: str
    part: str
    habit: str


PUMP = {
    "vibration": SignalModel("mm/s", 2.6, 0.15, 0.9, 0.12, "振动"),
    "bearing temperature": SignalModel("°C", 48.0, 4.0, 9.0, 0.7, "轴承温度"),
    "discharge pressure": SignalModel("bar", 6.2, 0.05, 0.8, 0.08, "出口压力"),
    "flow": SignalModel("m³/h", 42.0, 0.4, 12.0, 0.8, "流量"),
    "current": SignalModel("A", 18.5, 0.2, 5.5, 0.35, "电流"),
}
CONVEYOR = {
    "speed": SignalModel("m/s", 1.2, 0.0, 0.3, 0.015, "速度"),
    "current": SignalModel("A", 7.4, 0.1, 2.6, 0.2, "电流"),
    "motor temperature": SignalModel("°C", 52.0, 3.5, 8.0, 0.8, "电机温度"),
    "vibration": SignalModel("mm/s", 1.7, 0.1, 0.6, 0.1, "振动"),
}
PRESS = {
    "force": SignalModel("kN", 310.0, 1.0, 45.0, 4.0, "压力"),
    "oil temperature": SignalModel("°C", 44.0, 3.0, 10.0, 0.7, "油温"),
    "oil pressure": SignalModel("bar", 145.0, 0.5, 12.0, 1.6, "油压"),
    "cycle time": SignalModel("s", 6.4, 0.02, -0.5, 0.05, "节拍"),
}
OVEN = {
    "zone temperature": SignalModel("°C", 182.0, 1.0, 3.0, 0.6, "炉区温度"),
    "heating power": SignalModel("kW", 36.0, -1.5, 8.0, 0.7, "加热功率"),
    "exhaust flow": SignalModel("m³/h", 920.0, 8.0, 60.0, 12.0, "排风量"),
    "door current": SignalModel("A", 2.1, 0.02, 0.4, 0.06, "炉门电流"),
}
SIGNALS = {"pump": PUMP, "conveyor": CONVEYOR, "press": PRESS, "oven": OVEN}
FAULTS = {
    "pump": [
        Fault(
            "bearing wear",
            {"vibration": 14, "bearing temperature": 10},
            "replace-bearing",
            "bearing-6204",
            "replace-bearing",
        ),
        Fault(
            "cavitation",
            {"discharge pressure": -12, "flow": -13},
            "clean-suction-strainer",
            "strainer-mesh",
            "replace-impeller",
        ),
    ],
    "conveyor": [
        Fault("belt slip", {"speed": -12, "current": 11}, "tension-belt", "drive-belt-b52", "replace-motor"),
        Fault(
            "misalignment",
            {"vibration": 13, "motor temperature": 9},
            "realign-coupling",
            "coupling-insert",
            "replace-bearing",
        ),
    ],
    "press": [
        Fault("oil leak", {"oil pressure": -13, "force": -9}, "replace-seal", "seal-kit-p40", "refill-oil"),
        Fault(
            "cooler fouled", {"oil temperature": 14, "cycle time": 8}, "clean-cooler", "cooler-gasket", "clean-cooler"
        ),
    ],
    "oven": [
        Fault(
            "heater element",
            {"zone temperature": -13, "heating power": 10},
            "replace-heater-element",
            "heater-2kw",
            "recalibrate-controller",
        ),
        Fault(
            "exhaust blocked",
            {"exhaust flow": -13, "zone temperature": 9},
            "clean-exhaust-filter",
            "filter-g4",
            "clean-exhaust-filter",
        ),
    ],
}
FAULT_ZH = {
    "bearing wear": "轴承磨损",
    "cavitation": "汽蚀",
    "belt slip": "皮带打滑",
    "misalignment": "不对中",
    "oil leak": "漏油",
    "cooler fouled": "冷却器堵塞",
    "heater element": "加热管故障",
    "exhaust blocked": "排风堵塞",
}
MACHINES = [("P-101", "pump"), ("C-201", "conveyor"), ("R-301", "press"), ("V-401", "oven")]
TYPE_NAMES = {
    "pump": ("Feed pump", "进料泵"),
    "conveyor": ("Conveyor", "输送机"),
    "press": ("Press", "压力机"),
    "oven": ("Oven", "烘箱"),
}
ITEM_ZH = {
    "replace-bearing": "更换轴承",
    "clean-suction-strainer": "清洗吸入口滤网",
    "replace-impeller": "更换叶轮",
    "tension-belt": "张紧皮带",
    "replace-motor": "更换电机",
    "realign-coupling": "重新对中联轴器",
    "replace-seal": "更换密封件",
    "refill-oil": "补充液压油",
    "clean-cooler": "清洗冷却器",
    "replace-heater-element": "更换加热元件",
    "recalibrate-controller": "重新校准控制器",
    "clean-exhaust-filter": "清洗排风滤网",
    "bearing-6204": "6204 轴承",
    "strainer-mesh": "滤网",
    "drive-belt-b52": "B52 传动带",
    "coupling-insert": "联轴器弹性体",
    "seal-kit-p40": "P40 密封套件",
    "cooler-gasket": "冷却器垫片",
    "heater-2kw": "2 kW 加热管",
    "filter-g4": "G4 滤芯",
}


@dataclass(frozen=True, slots=True)
class Episode:
    """One injected fault: the truth that the demo and the simulated operators know."""

    machine: str
    start_ms: int
    end_ms: int
    fault: Fault


WEAR = {"vibration": 6.0, "bearing temperature": 5.0, "current": 2.5, "discharge pressure": -2.5}
"""What a worn-out bearing adds to a pump's signals, in noise deviations."""
LIFE_H = (60.0, 110.0)
EARLY = 0.2
"""Chance that a bearing is replaced before it fails."""


@dataclass(frozen=True, slots=True)
class BearingLife:
    """From one replacement to the next. `fails_ms`: when it fails, or would have."""

    machine: str
    born_ms: int
    end_ms: int
    fails_ms: int
    steep: float

    @property
    def failed(self) -> bool:
        """Whether it was used to its end."""
        return self.end_ms >= self.fails_ms

    def wear(self, time_ms: int) -> float:
        """0 when new, 1 when it fails; slow at first."""
        spent = min(max((time_ms - self.born_ms) / (self.fails_ms - self.born_ms), 0.0), 1.0)
        return math.expm1(self.steep * spent) / math.expm1(self.steep)


@dataclass
class Machine:
    """One machine and the state of its noise."""

    name: str
    kind: str
    noise: dict[str, float] = field(default_factory=dict)


class Line:
    """One line of one gateway. `number` keeps machine names apart between lines: line 2's pump is P-102."""

    def __init__(self, number: int, seed: int, days: float = 60.0) -> None:
        self.name = f"line-{number}"
        self.machines = [Machine(name[:-1] + str(number), kind) for name, kind in MACHINES]
        self._seed = seed
        self._random = random.Random(f"{seed}/{number}")
        self.episodes = list(self._plan(days, number))
        wearing = random.Random(f"wear/{seed}/{number}")
        self.lives = {m.name: list(_bearing_lives(m.name, days, wearing)) for m in self.machines if m.kind == "pump"}

    def _plan(self, days: float, number: int) -> Iterator[Episode]:
        """A fault about every twelve hours, on one machine after the other."""
        at_ms = START_MS + int((25.5 + 3.5 * ((number + 1) % 2)) * HOUR_MS)
        count = number
        while at_ms < START_MS + days * DAY_MS:
            machine = self.machines[count % len(self.machines)]
            fault = FAULTS[machine.kind][(count // len(self.machines) + count) % 2]
            length_ms = int(self._random.uniform(4.5, 7.0) * HOUR_MS)
            yield Episode(machine.name, at_ms, at_ms + length_ms, fault)
            at_ms += int(self._random.uniform(10.0, 14.0) * HOUR_MS)
            count += 1

    def truth(self, machine: str, time_ms: int, grace_ms: int = 3 * HOUR_MS) -> Episode | None:
        """The fault that a machine has at a time (or had a moment ago); a bearing in the last quarter of its life is one."""
        for e in self.episodes:
            if e.machine == machine and e.start_ms <= time_ms <= e.end_ms + grace_ms:
                return e
        for life in self.lives.get(machine, ()):
            worn_ms = life.born_ms + int(0.75 * (life.fails_ms - life.born_ms))
            if worn_ms <= time_ms <= life.end_ms + grace_ms:
                return Episode(machine, worn_ms, life.end_ms, FAULTS["pump"][0])
        return None

    def replaced(self, after_ms: int, until_ms: int) -> Iterator[WorkOrder]:
        """A work order for every bearing replaced in (after, until]."""
        for machine, lives in self.lives.items():
            for life in lives:
                if after_ms < life.end_ms <= until_ms:
                    yield WorkOrder(
                        id=f"WO-{self.name}-{machine}-{life.end_ms}",
                        machine=machine,
                        machine_type="pump",
                        time_ms=life.end_ms,
                        symptoms=["vibration:high", "bearing temperature:high"] if life.failed else [],
                        failure_mode="bearing wear" if life.failed else "",
                        actions=["replace-bearing"],
                        parts=["bearing-6204"],
                        note=scribble("bearing wear", machine, random.Random(f"{self._seed}/{life.end_ms}"))
                        if life.failed
                        else "",
                    )

    def notes(self, after_ms: int, until_ms: int) -> Iterator[Note]:
        """What operators write in (after, until]: on three faults in four, half an hour to two hours after it began, and now
        and then on nothing in particular."""
        for episode in self.episodes:
            if not after_ms < episode.start_ms + 2 * HOUR_MS <= until_ms + 2 * HOUR_MS:
                continue
            chance = random.Random(f"note/{self._seed}/{episode.machine}/{episode.start_ms}")
            at_ms = episode.start_ms + int(chance.uniform(0.5, 2.0) * HOUR_MS)
            if chance.random() < 0.75 and after_ms < at_ms <= until_ms:
                yield self._note(episode.machine, at_ms, episode.fault.name, chance)
        for machine in self.machines:
            for day in range(max(after_ms - START_MS, 0) // DAY_MS, (until_ms - START_MS) // DAY_MS + 1):
                chance = random.Random(f"round/{self._seed}/{machine.name}/{day}")
                at_ms = START_MS + day * DAY_MS + int(chance.uniform(6.0, 22.0) * HOUR_MS)
                if chance.random() < 0.3 and after_ms < at_ms <= until_ms:
                    yield self._note(machine.name, at_ms, "", chance)

    def _note(self, machine: str, at_ms: int, fault: str, chance: random.Random) -> Note:
        return Note(
            id=f"note-{self.name}-{machine}-{at_ms}",
            machine=machine,
            time_ms=at_ms,
            text=scribble(fault, machine, chance),
            author=f"crew-{self.name}",
        )

    def sample(self, time_ms: int) -> Iterator[tuple[str, dict[str, tuple[float, str]]]]:
        """(machine, signal -> (value, unit)) of every machine; call with times that grow."""
        load = line_load(time_ms)
        wave = math.sin(2 * math.pi * (time_ms % DAY_MS - 9 * HOUR_MS) / DAY_MS)
        for machine in self.machines:
            episode = next(
                (e for e in self.episodes if e.machine == machine.name and e.start_ms <= time_ms < e.end_ms), None
            )
            worn = next((life.wear(time_ms) for life in self.lives.get(machine.name, ()) if time_ms < life.end_ms), 0.0)
            values: dict[str, tuple[float, str]] = {}
            for signal, model in SIGNALS[machine.kind].items():
                before = machine.noise.get(signal, 0.0)
                machine.noise[signal] = noise = 0.7 * before + 0.714 * self._random.gauss(0, 1)
                wear = 0.004 * model.level * math.log1p(max(time_ms - START_MS, 0) / DAY_MS) / 3
                value = model.level + model.daily * wave + model.load * load + wear + model.noise * noise
                if machine.kind == "pump":
                    value += worn * WEAR.get(signal, 0.0) * model.noise
                if episode is not None and signal in episode.fault.shows:
                    rise = min((time_ms - episode.start_ms) / HOUR_MS, 1.0)
                    value += episode.fault.shows[signal] * model.noise * max(rise, 0.1)
                values[signal] = (round(value, 4), model.unit)
            yield machine.name, values

    def plans(self, from_ms: int, until_ms: int) -> Iterator[KnownInput]:
        """The schedule of every full hour that starts in the span, as the planner told it a day before."""
        for start in range(-(-from_ms // HOUR_MS) * HOUR_MS, until_ms, HOUR_MS):
            mean = sum(line_load(start + minute * 60_000) for minute in (10, 30, 50)) / 3
            yield KnownInput(
                id=f"plan-{self.name}-{start // HOUR_MS}",
                machine=EVERY_MACHINE,
                covariate="load",
                start_ms=start,
                end_ms=start + HOUR_MS,
                known_ms=max(start - DAY_MS, 0),
                value=round(mean, 3),
                source=Source.SCHEDULE,
                origin=f"schedule-{self.name}-{start // DAY_MS}",
            )

    def past_work_orders(self, count: int = 150) -> Iterator[WorkOrder]:
        """The half year before the start, by habit nine times in ten."""
        for i in range(count):
            machine = self._random.choice(self.machines)
            fault = self._random.choice(FAULTS[machine.kind])
            usual = self._random.random() < 0.9
            at_ms = START_MS - int((count - i) * 182 / count * DAY_MS)
            chance = random.Random(f"order/{self._seed}/{i}")
            yield WorkOrder(
                id=f"WO-{self.name}-{i:04d}",
                machine=machine.name,
                machine_type=machine.kind,
                time_ms=at_ms,
                symptoms=[f"{s}:{'high' if push > 0 else 'low'}" for s, push in fault.shows.items()],
                failure_mode=fault.name,
                actions=[fault.habit if usual else fault.action],
                parts=[fault.part],
                note=scribble(fault.name, machine.name, chance),
            )


def _bearing_lives(machine: str, days: float, wearing: random.Random) -> Iterator[BearingLife]:
    """One bearing after the other, from the start of the line until after its last day."""
    born_ms = START_MS
    while born_ms < START_MS + days * DAY_MS:
        fails_ms = born_ms + int(wearing.uniform(*LIFE_H) * HOUR_MS)
        early = wearing.random() < EARLY
        end_ms = born_ms + int((fails_ms - born_ms) * wearing.uniform(0.4, 0.95)) if early else fails_ms
        yield BearingLife(machine, born_ms, end_ms, fails_ms, wearing.uniform(2.0, 4.0))
        born_ms = end_ms


def recorded_lives(seed: int, lines: int = 12, days: float = 20.0, step_ms: int = 300_000) -> Iterator[list[str]]:
    """Rows of what pumps like the line's did half a year before: a header, then unit, machine_type, time, signals, failed.
    The last bearing of each pump still works when its record ends, and some were replaced before they failed."""
    yield ["unit", "machine_type", "time", *PUMP, "failed"]
    for number in range(1, lines + 1):
        made = Line(number, seed + 100_000, days)
        ((machine, lives),) = made.lives.items()
        made.machines = [pump for pump in made.machines if pump.name == machine]
        for at_ms in range(START_MS, START_MS + int(days * DAY_MS), step_ms):
            count, life = next((i, life) for i, life in enumerate(lives) if at_ms < life.end_ms)
            ((_, values),) = made.sample(at_ms)
            over = life.failed and at_ms + step_ms >= life.end_ms
            row = [f"bearing-{number}-{count + 1}", "pump", str(at_ms - 182 * DAY_MS)]
            yield [*row, *(str(values[signal][0]) for signal in PUMP), "1" if over else "0"]


def line_load(time_ms: int) -> float:
    """0..1: two full shifts, a thin night, a quiet Sunday, and a mode that changes every five hours."""
    hour = (time_ms % DAY_MS) / HOUR_MS
    shift = 0.85 if 6 <= hour < 14 else 0.7 if 14 <= hour < 22 else 0.25
    if (time_ms // DAY_MS + 4) % 7 == 0:
        shift *= 0.5
    return shift + 0.05 * math.sin(2 * math.pi * (time_ms % (5 * HOUR_MS)) / (5 * HOUR_MS))


def mapping_toml(line: Line) -> str:
    """The mapping file of a line's gateway."""
    rows = [
        "[[source]]",
        f'topic = "plant/{line.name}/{{machine}}/telemetry"',
        'each = "$.tags.*"',
        'signal = "@key"',
        'value = "$.value"',
        'unit = "$.unit"',
        'root_time = "$.timestamp"',
        "[[work_orders]]",
        f'topic = "plant/{line.name}/{{machine}}/workorder"',
        "[[known_inputs]]",
        f'topic = "plant/{line.name}/schedule"',
        "[[stock_levels]]",
        f'topic = "plant/{line.name}/store/stock"',
        "[[production]]",
        f'topic = "plant/{line.name}/orders"',
        "[[item_cards]]",
        f'topic = "plant/{line.name}/items"',
        "[[notes]]",
        f'topic = "plant/{line.name}/notes"',
    ]
    for machine in line.machines:
        en, zh = TYPE_NAMES[machine.kind]
        rows += [
            f'[machines."{machine.name}"]',
            f'type = "{machine.kind}"',
            f'name_en = "{en} {machine.name}"',
            f'name_zh = "{zh} {machine.name}"',
        ]
    for signal, model in {s: m for kind in SIGNALS.values() for s, m in kind.items()}.items():
        rows += [f'[signals."{signal}"]', f'unit = "{model.unit}"', f'name_en = "{signal}"', f'name_zh = "{model.zh}"']
    for faults in FAULTS.values():
        for fault in faults:
            for kind, item in (("action", fault.action), ("action", fault.habit), ("part", fault.part)):
                row = f'[items."{kind}:{item}"]'
                if row not in rows:
                    en = item.replace("-", " ")
                    rows += [row, f'en = "{en}"', f'zh = "{ITEM_ZH[item]}"']
        for fault in faults:
            rows += [f'[items."failure:{fault.name}"]', f'en = "{fault.name}"', f'zh = "{FAULT_ZH[fault.name]}"']
    return "\n".join(rows) + "\n"
