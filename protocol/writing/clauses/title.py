"""Titles: which machine, which signal, what was seen. They are not numbered and carry no figure."""

from __future__ import annotations

from protocol.writing.clauses.stating import clause
from protocol.writing.frames import TITLE

TITLES = [
    clause(
        "title.above",
        TITLE,
        ["<machine>: <signal> above its expected range", "<signal> above its expected range on <machine>"],
        ["<machine>：<signal>高于预期范围", "<signal>高于预期范围（<machine>）"],
        when={"kind": "above_expected", "relation": "above"},
    ),
    clause(
        "title.high",
        TITLE,
        ["<machine>: <signal> reported as too high", "Report of too high a value of <signal> on <machine>"],
        ["<machine>：<signal>被报告偏高", "监测报告<signal>偏高（<machine>）"],
        when={"kind": "above_expected", "relation": ["below", "inside", "unknown"]},
    ),
    clause(
        "title.below",
        TITLE,
        ["<machine>: <signal> below its expected range", "<signal> below its expected range on <machine>"],
        ["<machine>：<signal>低于预期范围", "<signal>低于预期范围（<machine>）"],
        when={"kind": "below_expected", "relation": "below"},
    ),
    clause(
        "title.low",
        TITLE,
        ["<machine>: <signal> reported as too low", "Report of too low a value of <signal> on <machine>"],
        ["<machine>：<signal>被报告偏低", "监测报告<signal>偏低（<machine>）"],
        when={"kind": "below_expected", "relation": ["above", "inside", "unknown"]},
    ),
    clause(
        "title.stuck",
        TITLE,
        ["<machine>: <signal> stands still", "<signal> stands still on <machine>"],
        ["<machine>：<signal>数值停滞不变", "<signal>数值停滞不变（<machine>）"],
        when={"kind": "stuck"},
    ),
    clause(
        "title.silent",
        TITLE,
        ["<machine>: <signal> sends no values", "<signal> sends no values on <machine>"],
        ["<machine>：<signal>无数据上报", "<signal>无数据上报（<machine>）"],
        when={"kind": "silent"},
    ),
    clause(
        "title.unusual",
        TITLE,
        [
            "<machine>: <signal> unusual together with the machine's other signals",
            "Unusual combination of signals on <machine>, most of all <signal>",
        ],
        ["<machine>：<signal>与本机其他信号的组合异常", "信号组合异常，<signal>影响最大（<machine>）"],
        when={"kind": "machine_unusual"},
    ),
    clause(
        "title.other",
        TITLE,
        ["<machine>: <signal> reported as <seen_as>", "Report on <signal> of <machine>: <seen_as>"],
        ["<machine>：<signal>报告为 <seen_as>", "监测报告（<machine>，<signal>）：<seen_as>"],
        when={"kind": "other"},
    ),
]
