"""What operators and maintainers of the simulated plant scribble: short, in either language, with shorthand and slips.
Written for this plant; seeded."""

from __future__ import annotations

import random
import re

SEEN: dict[str, tuple[list[str], list[str]]] = {
    "bearing wear": (
        [
            "bearing noisy, drive end running hot",
            "growling from the bearing, vibration up since this morning",
            "brg housing hot to touch, rumbling",
            "grinding noise DE bearing, getting worse",
            "vibrates badly, you hear the bearing from the aisle",
            "bearing dry? temp climbing and a rough sound",
        ],
        [
            "轴承异响，驱动端发烫",
            "轴承声音大，振动从早上开始上升",
            "轴承座烫手，有隆隆声",
            "传动端轴承嗡嗡响，越来越厉害",
            "振动大，走道里都能听见轴承响",
            "轴承缺油？温度一直往上走",
        ],
    ),
    "cavitation": (
        [
            "pump sounds like gravel, pressure dropping",
            "suction strainer clogged again? flow is low",
            "crackling in the pump, discharge press. jumps and falls",
            "low flow, cavitating, inlet side probably blocked",
            "no proper flow since shift change, pump rattles like stones",
        ],
        [
            "泵里像有石子响，压力往下掉",
            "吸入口滤网又堵了？流量偏低",
            "泵内噼啪响，出口压力忽高忽低",
            "流量上不去，有汽蚀声，进口可能堵了",
            "交班后流量一直不够，泵里哗啦响",
        ],
    ),
    "belt slip": (
        [
            "belt slipping under load, squeals at start",
            "conv. slow, motor current up, belt slack",
            "belt not gripping, rubber smell at the drive pulley",
            "speed drops when the pallets come, belt loose",
        ],
        ["皮带打滑，带载时尖叫", "输送机变慢，电流升高，皮带松了", "皮带咬不住，驱动轮有焦味", "上料时速度掉，皮带松"],
    ),
    "misalignment": (
        [
            "coupling out of line, motor hot and shaking",
            "vib high at the coupling after last week's motor swap",
            "motor runs warm, coupling insert crumbs on the floor",
            "alignment off, axial vibration on the drive",
        ],
        [
            "联轴器不对中，电机发热抖动",
            "上周换电机后联轴器处振动大",
            "电机偏热，地上有联轴器碎屑",
            "对中不好，驱动端轴向振动",
        ],
    ),
    "oil leak": (
        [
            "oil under the press, pressure falling",
            "seal weeping at the cylinder, force not reached",
            "puddle of hydr. oil, ram drops slowly",
            "press loses oil press., seal gone again",
        ],
        [
            "压力机下面有油，油压往下掉",
            "油缸密封渗油，压力打不上去",
            "地上一滩液压油，滑块慢慢下沉",
            "油压保不住，密封又坏了",
        ],
    ),
    "cooler fouled": (
        [
            "oil too hot, cooler full of dust",
            "cycle slower, oil temp at the limit, cooler dirty",
            "cooler fins clogged, fan blows hot",
            "hyd. oil temp high, no air through the cooler",
        ],
        [
            "油温太高，冷却器全是灰",
            "节拍变慢，油温到上限，冷却器脏",
            "冷却器翅片堵了，风扇吹热风",
            "液压油温高，冷却器不过风",
        ],
    ),
    "heater element": (
        [
            "zone does not get warm, one heater dead",
            "heating at full power and still too cold, element broken?",
            "heater elem. zone 2 no current",
            "oven cold on the left, element burnt",
        ],
        [
            "炉区升不上温，一根加热管坏了",
            "满功率加热还是不够热，加热管断了？",
            "二区加热管没电流",
            "烘箱左边不热，加热管烧了",
        ],
    ),
    "exhaust blocked": (
        [
            "exhaust filter full, oven overheats",
            "no draught in the exhaust, filter black",
            "smoke at the oven door, exhaust flow low",
            "exh. flow alarm, filter not changed for weeks",
        ],
        ["排风滤网满了，烘箱过热", "排风没风，滤网全黑", "炉门冒烟，排风量低", "排风报警，滤网好几周没换"],
    ),
}
"""Fault -> (English, Chinese)."""
NOTHING = (
    [
        "cleaned around the machine",
        "shift handed over, all fine",
        "refilled labels, nothing to report",
        "tour done, ok",
    ],
    ["机台周围已打扫", "交班正常", "换了标签，无异常", "巡检完毕，正常"],
)
_BEFORE = (["", "", "", "{machine}: ", "again: ", "since 6:00 "], ["", "", "", "{machine} ", "又是 ", "早班 "])
_AFTER = (
    ["", "", "", ", pls check", " - told maint.", " !!", ", ran on"],
    ["", "", "", "，请检查", "，已报修", "！！", "，先开着"],
)
_SHORT = {
    "bearing": "brg",
    "pressure": "press.",
    "temperature": "temp",
    "vibration": "vib",
    "motor": "mtr",
    "conveyor": "conv",
}


def scribble(fault: str, machine: str, chance: random.Random) -> str:
    """One note on a fault of `SEEN`, or on nothing in particular where there is no such fault."""
    language = chance.randrange(2)
    if fault not in SEEN:
        return chance.choice(NOTHING[language])
    text = chance.choice(SEEN[fault][language])
    if language == 0:
        text = re.sub(r"[a-z]+", lambda word: _slip(word[0], chance), text)
    before, after = chance.choice(_BEFORE[language]), chance.choice(_AFTER[language])
    return f"{before.format(machine=machine)}{text}{after}"


def _slip(word: str, chance: random.Random) -> str:
    """A word as it is typed with gloves on: shortened, or with two letters swapped."""
    if word in _SHORT and chance.random() < 0.3:
        return _SHORT[word]
    if len(word) > 4 and chance.random() < 0.04:
        at = chance.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word
