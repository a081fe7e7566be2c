"""What comes next: the forecast at its last step, where it goes, how long the machine lasts, how likely it fails."""

from __future__ import annotations

from protocol.writing.clauses.stating import clause

SECTION = "what_next"

WHAT_NEXT = [
    clause(
        "forecast.at",
        SECTION,
        [
            "At <forecast_at>, <forecast_signal> is forecast at <forecast_mean>, between <forecast_low> and"
            " <forecast_high> with a chance of <forecast_level> (<forecast_model>).",
            "For <forecast_at>, <forecast_model> expects <forecast_mean> of <forecast_signal>; with a chance of"
            " <forecast_level> it will be <forecast_low> to <forecast_high>.",
            "Forecast of <forecast_signal> for <forecast_at>: <forecast_mean>, with <forecast_level> of outcomes between"
            " <forecast_low> and <forecast_high> (<forecast_model>).",
        ],
        [
            "预计 <forecast_at> <forecast_signal>为 <forecast_mean>，<forecast_level> 区间为 <forecast_low> 至 <forecast_high>（<forecast_model>）。",
            "<forecast_model>预测 <forecast_at> 的<forecast_signal>为 <forecast_mean>，有 <forecast_level> 的可能在 <forecast_low> 至 <forecast_high> 之间。",
            "<forecast_signal>在 <forecast_at> 的预测值为 <forecast_mean>（<forecast_model>），<forecast_level> 的情况介于 <forecast_low> 和 <forecast_high>。",
        ],
    ),
    clause(
        "trend.rising",
        SECTION,
        [
            "The forecast rises from <forecast_start>.",
            "It is forecast to go up, from <forecast_start>.",
            "Starting at <forecast_start>, the forecast points upwards.",
        ],
        [
            "预测值从 <forecast_start> 开始上升。",
            "预计呈上升趋势，起点为 <forecast_start>。",
            "预测走势向上，起始值 <forecast_start>。",
        ],
        when={"trend": "rising"},
        optional=True,
    ),
    clause(
        "trend.falling",
        SECTION,
        [
            "The forecast falls from <forecast_start>.",
            "It is forecast to go down, from <forecast_start>.",
            "Starting at <forecast_start>, the forecast points downwards.",
        ],
        [
            "预测值从 <forecast_start> 开始下降。",
            "预计呈下降趋势，起点为 <forecast_start>。",
            "预测走势向下，起始值 <forecast_start>。",
        ],
        when={"trend": "falling"},
        optional=True,
    ),
    clause(
        "trend.steady",
        SECTION,
        [
            "The forecast stays about steady, from <forecast_start>.",
            "Hardly any change is forecast, from <forecast_start>.",
            "Starting at <forecast_start>, the forecast keeps its level.",
        ],
        [
            "预测值大致平稳，起点为 <forecast_start>。",
            "预计变化不大，起始值 <forecast_start>。",
            "预测从 <forecast_start> 开始，基本持平。",
        ],
        when={"trend": "steady"},
        optional=True,
    ),
    clause(
        "forecast.old",
        SECTION,
        [
            "Its newest inputs are old; take it with care.",
            "Take this forecast with care: its newest inputs are old.",
            "Old inputs stand behind this forecast, so use it with care.",
        ],
        ["其最新输入已过时，请谨慎参考。", "请谨慎参考此预测：最新输入已过时。", "该预测所用输入已过时，仅供参考。"],
        when={"forecast_inputs": "old"},
    ),
    clause(
        "life.known",
        SECTION,
        [
            "The machine is expected to last another <life_median>, with a chance of <life_level> between <life_low> and"
            " <life_high>.",
            "Remaining life: <life_median>, and <life_low> to <life_high> with a chance of <life_level>.",
            "Another <life_median> of life is expected; <life_low> to <life_high> has a chance of <life_level>.",
        ],
        [
            "预计设备还能运行 <life_median>，<life_level> 的可能介于 <life_low> 和 <life_high>。",
            "剩余寿命：<life_median>，<life_level> 区间为 <life_low> 至 <life_high>。",
            "预计剩余寿命为 <life_median>，有 <life_level> 的可能在 <life_low> 至 <life_high> 之间。",
        ],
        when={"life": "known"},
    ),
    clause(
        "life.capped",
        SECTION,
        [
            "The machine is expected to last at least another <life_cap>; longer lives are not told apart.",
            "Remaining life: <life_cap> or more, which is as far as the model looks.",
            "A life of at least <life_cap> is still expected; the model looks no further.",
        ],
        [
            "预计设备至少还能运行 <life_cap>，更长的寿命不再区分。",
            "剩余寿命：不少于 <life_cap>，模型只看到此处。",
            "预计剩余寿命至少为 <life_cap>，模型不再向后预测。",
        ],
        when={"life": "capped"},
    ),
    clause(
        "life.old",
        SECTION,
        [
            "The readings behind the remaining life are old.",
            "Take the remaining life with care, for its readings are old.",
            "For the remaining life, only old readings were at hand.",
        ],
        ["剩余寿命所依据的读数已过时。", "请谨慎参考剩余寿命，其读数已过时。", "估计剩余寿命时只有过时的读数。"],
        when={"life_inputs": "old"},
    ),
    clause(
        "risk.until",
        SECTION,
        [
            "The chance of a failure (<risk_of>) until <risk_until> is <risk>.",
            "Until <risk_until>, a failure (<risk_of>) has a chance of <risk>.",
            "Risk of <risk_of> until <risk_until>: <risk>.",
        ],
        [
            "到 <risk_until> 为止，发生故障（<risk_of>）的可能性为 <risk>。",
            "故障（<risk_of>）在 <risk_until> 之前发生的可能性为 <risk>。",
            "故障风险（<risk_of>，至 <risk_until>）：<risk>。",
        ],
    ),
    clause(
        "risk.ever",
        SECTION,
        [
            "The chance of a failure (<risk_of>) is <risk>.",
            "A failure (<risk_of>) has a chance of <risk>.",
            "Risk of <risk_of>: <risk>.",
        ],
        [
            "发生故障（<risk_of>）的可能性为 <risk>。",
            "故障（<risk_of>）的可能性为 <risk>。",
            "故障风险（<risk_of>）：<risk>。",
        ],
        unless=["risk_until"],
    ),
]
