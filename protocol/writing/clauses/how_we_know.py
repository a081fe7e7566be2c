"""How we know: how many readings of what time, the mean before, which model said what was expected, what a note said."""

from __future__ import annotations

from protocol.writing.clauses.stating import clause

SECTION = "how_we_know"
_RANGED = ("above", "below", "inside")

HOW_WE_KNOW = [
    clause(
        "how.many",
        SECTION,
        [
            "<samples> observations, <measured_from> – <measured_until> [1].",
            "This rests on <samples> observations from <measured_from> to <measured_until> [1].",
            "Between <measured_from> and <measured_until>, <samples> observations were made [1].",
            "Source: <samples> observations of the time from <measured_from> until <measured_until> [1].",
        ],
        [
            "依据 <samples> 个观测值，<measured_from> – <measured_until> [1]。",
            "以上基于 <measured_from> 至 <measured_until> 的 <samples> 个观测值 [1]。",
            "<measured_from> 到 <measured_until> 期间共有 <samples> 个观测值 [1]。",
            "数据来源：<samples> 个观测值，时间为 <measured_from> 至 <measured_until> [1]。",
        ],
        when={"readings": "many"},
    ),
    clause(
        "how.one",
        SECTION,
        [
            "A single observation, <measured_from> – <measured_until> [1].",
            "This rests on a single observation between <measured_from> and <measured_until> [1].",
            "Only a single observation stands behind it, from the time <measured_from> to <measured_until> [1].",
        ],
        [
            "依据单个观测值，<measured_from> – <measured_until> [1]。",
            "以上仅基于 <measured_from> 至 <measured_until> 的单个观测值 [1]。",
            "<measured_from> 到 <measured_until> 期间只有单个观测值 [1]。",
        ],
        when={"readings": "one"},
    ),
    clause(
        "how.none",
        SECTION,
        [
            "There was no observation, <measured_from> – <measured_until> [1].",
            "Nothing was observed from <measured_from> to <measured_until> [1].",
            "Between <measured_from> and <measured_until> nothing was observed [1].",
        ],
        [
            "没有观测值，<measured_from> – <measured_until> [1]。",
            "<measured_from> 至 <measured_until> 期间没有观测值 [1]。",
            "从 <measured_from> 到 <measured_until> 未观测到数据 [1]。",
        ],
        when={"readings": "none"},
    ),
    clause(
        "how.usual",
        SECTION,
        [
            "Before that, over <usual_samples> observations, the mean was <usual> [2].",
            "The mean of the <usual_samples> observations before was <usual> [2].",
            "Earlier, the mean stood at <usual> [2] (<usual_samples> observations).",
        ],
        [
            "此前 <usual_samples> 个观测值的平均值为 <usual> [2]。",
            "之前的平均值为 <usual> [2]（<usual_samples> 个观测值）。",
            "在此之前，<usual_samples> 个观测值平均为 <usual> [2]。",
        ],
        when={"usual_is": "mean"},
    ),
    clause(
        "change.up",
        SECTION,
        [
            "The value cited is higher than that mean.",
            "Against that mean, it has risen.",
            "So it has gone up since.",
        ],
        ["所引数值高于此平均值。", "与该平均值相比有所上升。", "此后数值上升。"],
        when={"change": "up", "usual_is": "mean"},
        optional=True,
    ),
    clause(
        "change.down",
        SECTION,
        [
            "The value cited is lower than that mean.",
            "Against that mean, it has fallen.",
            "So it has gone down since.",
        ],
        ["所引数值低于此平均值。", "与该平均值相比有所下降。", "此后数值下降。"],
        when={"change": "down", "usual_is": "mean"},
        optional=True,
    ),
    clause(
        "change.same",
        SECTION,
        [
            "The value cited equals that mean, as far as the digits shown tell.",
            "Against that mean, it is unchanged in the digits shown.",
            "In the digits shown, both are alike.",
        ],
        ["按所示位数，所引数值与此平均值相同。", "与该平均值相比，按所示位数没有变化。", "两者在所示位数内一致。"],
        when={"change": "same", "usual_is": "mean"},
        optional=True,
    ),
    clause(
        "source.version",
        SECTION,
        [
            "The expected range comes from <model>, version <model_version>.",
            "What was expected was computed by <model>, version <model_version>.",
            "For the expected range, <model> was used (version <model_version>).",
        ],
        [
            "预期范围来自<model>，版本 <model_version>。",
            "预期值由<model>（版本 <model_version>）计算。",
            "预期范围使用的模型是<model>，版本 <model_version>。",
        ],
        when={"relation": _RANGED},
    ),
    clause(
        "source.model",
        SECTION,
        [
            "The expected range comes from <model>.",
            "What was expected was computed by <model>.",
            "For the expected range, <model> was used.",
        ],
        ["预期范围来自<model>。", "预期值由<model>计算。", "预期范围使用的模型是<model>。"],
        when={"relation": _RANGED},
        unless=["model_version"],
    ),
    clause(
        "judged.version",
        SECTION,
        [
            "It was noticed by <model>, version <model_version>.",
            "The judgement is that of <model>, version <model_version>.",
            "The signal was watched by <model> (version <model_version>).",
        ],
        [
            "由<model>（版本 <model_version>）发现。",
            "判断来自<model>，版本 <model_version>。",
            "负责监测的是<model>，版本 <model_version>。",
        ],
        when={"relation": "unknown"},
    ),
    clause(
        "judged.model",
        SECTION,
        ["It was noticed by <model>.", "The judgement is that of <model>.", "The signal was watched by <model>."],
        ["由<model>发现。", "判断来自<model>。", "负责监测的是<model>。"],
        when={"relation": "unknown"},
        unless=["model_version"],
    ),
    clause(
        "how.deviation",
        SECTION,
        [
            "The deviation is <deviation> times its usual size.",
            "The value deviates <deviation> times as much as usual.",
            "Measured by what is usual, the deviation is <deviation> times as large.",
        ],
        ["偏差为平常的 <deviation> 倍。", "偏离程度是平常的 <deviation> 倍。", "与平常相比，偏差达到 <deviation> 倍。"],
        needs=["model"],
    ),
    clause(
        "note.sure",
        SECTION,
        [
            "A note on this machine speaks of <note_failure> (read with a chance of <note_chance>).",
            "Somebody's note was read as <note_failure>, with a chance of <note_chance>.",
            "From a note we read <note_failure>; the chance that this is right is <note_chance>.",
        ],
        [
            "关于本机的一条备注提到<note_failure>（判读置信度 <note_chance>）。",
            "有人留下的备注被判读为<note_failure>，置信度为 <note_chance>。",
            "从备注中读出<note_failure>，正确的可能性为 <note_chance>。",
        ],
        when={"note": "sure"},
        optional=True,
    ),
    clause(
        "note.unsure",
        SECTION,
        [
            "A note on this machine may speak of <note_failure>, but with a chance of <note_chance> that is not sure.",
            "It is not sure what a note means; <note_failure> is likeliest, with a chance of <note_chance>.",
            "Please check a note: it may mean <note_failure> (chance <note_chance>), which is not sure.",
        ],
        [
            "关于本机的一条备注可能提到<note_failure>，但置信度仅为 <note_chance>，尚不确定。",
            "一条备注的含义尚不确定，最可能是<note_failure>，可能性 <note_chance>。",
            "请核对一条备注：可能指<note_failure>（可能性 <note_chance>），尚不确定。",
        ],
        when={"note": "unsure"},
        optional=True,
    ),
]
