"""What happened: how grave, since when, which value against which expectation.

A value is called high or low as the numbers say, not as the event's kind says: where both disagree, the report says so."""

from __future__ import annotations

from protocol.writing.clauses.stating import clause

SECTION = "what_happened"
_BESIDE_RANGES = ("stuck", "silent", "machine_unusual", "other")

WHAT_HAPPENED = [
    clause(
        "severity.notice",
        SECTION,
        ["Notice.", "For information.", "Severity: notice."],
        ["提示。", "供参考。", "级别：提示。"],
        when={"severity": "notice"},
    ),
    clause(
        "severity.warning",
        SECTION,
        ["Warning.", "This is a warning.", "Severity: warning."],
        ["警告。", "这是一条警告。", "级别：警告。"],
        when={"severity": "warning"},
    ),
    clause(
        "severity.alarm",
        SECTION,
        ["Alarm.", "This is an alarm.", "Severity: alarm."],
        ["报警。", "这是一条报警。", "级别：报警。"],
        when={"severity": "alarm"},
    ),
    clause(
        "what.above",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been higher than expected."
            " It reached <peak> [1]; <expected_low> to <expected_high> was expected.",
            "On <machine>, <signal> has been above its expected range of <expected_low> to <expected_high> since <since>,"
            " with a highest value of <peak> [1].",
            "Too high since <since>: <signal> of <machine> reached <peak> [1],"
            " against an expected <expected_low> to <expected_high>.",
            "With up to <peak> [1], <signal> of <machine> has exceeded the expected <expected_low> to <expected_high>"
            " since <since>.",
        ],
        [
            "自 <since> 起，<machine>的<signal>高于预期，最高达到 <peak> [1]；预期范围为 <expected_low> 至 <expected_high>。",
            "<machine>的<signal>自 <since> 起超出预期上限，最高值 <peak> [1]，预期应在 <expected_low> 至 <expected_high> 之间。",
            "<since> 以来，<machine>的<signal>偏高：最高 <peak> [1]，预期为 <expected_low> 至 <expected_high>。",
            "<signal>（<machine>）自 <since> 起高于 <expected_low> 至 <expected_high> 的预期范围，最高为 <peak> [1]。",
        ],
        when={"kind": "above_expected", "relation": "above", "peak_is": "highest"},
    ),
    clause(
        "what.above.value",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been higher than expected, with a value of <peak> [1];"
            " <expected_low> to <expected_high> was expected.",
            "Above the expected <expected_low> to <expected_high> since <since>: <signal> of <machine>, at <peak> [1].",
            "On <machine>, <signal> has been too high since <since>: <peak> [1] instead of <expected_low> to"
            " <expected_high>.",
        ],
        [
            "自 <since> 起，<machine>的<signal>高于预期，数值为 <peak> [1]；预期范围为 <expected_low> 至 <expected_high>。",
            "<machine>的<signal>自 <since> 起超出预期上限：数值 <peak> [1]，预期为 <expected_low> 至 <expected_high>。",
            "<since> 以来，<machine>的<signal>偏高，为 <peak> [1]，而预期为 <expected_low> 至 <expected_high>。",
        ],
        when={"kind": "above_expected", "relation": "above", "peak_is": ["lowest", "mean", "value"]},
    ),
    clause(
        "what.high",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been reported as higher than expected; the value is <peak> [1],"
            " and how much was expected is not on record.",
            "On <machine>, <signal> has been reported as too high since <since>, at <peak> [1]; its expected range is not"
            " on record.",
            "Too high since <since>, so the monitor reports: <signal> of <machine> at <peak> [1], with no expected range"
            " on record.",
        ],
        [
            "自 <since> 起，<machine>的<signal>被报为高于预期，数值为 <peak> [1]；预期范围未记录。",
            "<machine>的<signal>自 <since> 起被报为偏高，为 <peak> [1]，没有记录预期范围。",
            "监测报告：<since> 以来<machine>的<signal>偏高，数值 <peak> [1]，预期范围无记录。",
        ],
        when={"kind": "above_expected", "relation": "unknown"},
    ),
    clause(
        "what.above.inside",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been reported as higher than expected, yet the value cited here,"
            " <peak> [1], lies within the expected <expected_low> to <expected_high>.",
            "On <machine>, <signal> has been reported as too high since <since>; the cited value of <peak> [1] is inside"
            " its expected range of <expected_low> to <expected_high>.",
            "The monitor has reported too high a <signal> on <machine> since <since>. The cited <peak> [1] itself is"
            " within <expected_low> to <expected_high>, as expected.",
        ],
        [
            "自 <since> 起，<machine>的<signal>被报为高于预期，但所引数值 <peak> [1] 处于预期范围 <expected_low> 至 <expected_high> 之内。",
            "<machine>的<signal>自 <since> 起被报为偏高；所引数值 <peak> [1] 仍在 <expected_low> 至 <expected_high> 的预期范围内。",
            "监测报告：<since> 以来<machine>的<signal>偏高，而所引数值 <peak> [1] 在预期的 <expected_low> 至 <expected_high> 之内。",
        ],
        when={"kind": "above_expected", "relation": "inside"},
    ),
    clause(
        "what.above.contradicted",
        SECTION,
        [
            "The reports contradict one another: since <since>, <signal> of <machine> has been reported as higher than"
            " expected, but the value cited here, <peak> [1], is below the expected <expected_low> to <expected_high>.",
            "Check this on site: <signal> of <machine> has been reported as too high since <since>, while the cited"
            " <peak> [1] is below its expected range of <expected_low> to <expected_high>.",
            "Reported as too high since <since>, but cited with <peak> [1], which is below the expected <expected_low> to"
            " <expected_high>: <signal> of <machine> needs a check on site.",
        ],
        [
            "信息相互矛盾：自 <since> 起，<machine>的<signal>被报为高于预期，但所引数值 <peak> [1] 低于预期范围 <expected_low> 至 <expected_high>。",
            "请现场核对：<machine>的<signal>自 <since> 起被报为偏高，而所引数值 <peak> [1] 低于 <expected_low> 至 <expected_high> 的预期范围。",
            "<since> 以来<machine>的<signal>被报为偏高，但所引数值 <peak> [1] 低于预期的 <expected_low> 至 <expected_high>，请现场核对。",
        ],
        when={"kind": "above_expected", "relation": "below"},
    ),
    clause(
        "what.below",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been lower than expected."
            " It went as low as <peak> [1]; <expected_low> to <expected_high> was expected.",
            "On <machine>, <signal> has been below its expected range of <expected_low> to <expected_high> since <since>,"
            " with a lowest value of <peak> [1].",
            "Too low since <since>: <signal> of <machine> was down to <peak> [1],"
            " against an expected <expected_low> to <expected_high>.",
            "With as little as <peak> [1], <signal> of <machine> has stayed under the expected <expected_low> to"
            " <expected_high> since <since>.",
        ],
        [
            "自 <since> 起，<machine>的<signal>低于预期，最低降至 <peak> [1]；预期范围为 <expected_low> 至 <expected_high>。",
            "<machine>的<signal>自 <since> 起低于预期下限，最低值 <peak> [1]，预期应在 <expected_low> 至 <expected_high> 之间。",
            "<since> 以来，<machine>的<signal>偏低：最低 <peak> [1]，预期为 <expected_low> 至 <expected_high>。",
            "<signal>（<machine>）自 <since> 起低于 <expected_low> 至 <expected_high> 的预期范围，最低为 <peak> [1]。",
        ],
        when={"kind": "below_expected", "relation": "below", "peak_is": "lowest"},
    ),
    clause(
        "what.below.value",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been lower than expected, with a value of <peak> [1];"
            " <expected_low> to <expected_high> was expected.",
            "Below the expected <expected_low> to <expected_high> since <since>: <signal> of <machine>, at <peak> [1].",
            "On <machine>, <signal> has been too low since <since>: <peak> [1] instead of <expected_low> to"
            " <expected_high>.",
        ],
        [
            "自 <since> 起，<machine>的<signal>低于预期，数值为 <peak> [1]；预期范围为 <expected_low> 至 <expected_high>。",
            "<machine>的<signal>自 <since> 起低于预期下限：数值 <peak> [1]，预期为 <expected_low> 至 <expected_high>。",
            "<since> 以来，<machine>的<signal>偏低，为 <peak> [1]，而预期为 <expected_low> 至 <expected_high>。",
        ],
        when={"kind": "below_expected", "relation": "below", "peak_is": ["highest", "mean", "value"]},
    ),
    clause(
        "what.low",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been reported as lower than expected; the value is <peak> [1],"
            " and how much was expected is not on record.",
            "On <machine>, <signal> has been reported as too low since <since>, at <peak> [1]; its expected range is not"
            " on record.",
            "Too low since <since>, so the monitor reports: <signal> of <machine> at <peak> [1], with no expected range"
            " on record.",
        ],
        [
            "自 <since> 起，<machine>的<signal>被报为低于预期，数值为 <peak> [1]；预期范围未记录。",
            "<machine>的<signal>自 <since> 起被报为偏低，为 <peak> [1]，没有记录预期范围。",
            "监测报告：<since> 以来<machine>的<signal>偏低，数值 <peak> [1]，预期范围无记录。",
        ],
        when={"kind": "below_expected", "relation": "unknown"},
    ),
    clause(
        "what.below.inside",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been reported as lower than expected, yet the value cited here,"
            " <peak> [1], lies within the expected <expected_low> to <expected_high>.",
            "On <machine>, <signal> has been reported as too low since <since>; the cited value of <peak> [1] is inside"
            " its expected range of <expected_low> to <expected_high>.",
            "The monitor has reported too low a <signal> on <machine> since <since>. The cited <peak> [1] itself is"
            " within <expected_low> to <expected_high>, as expected.",
        ],
        [
            "自 <since> 起，<machine>的<signal>被报为低于预期，但所引数值 <peak> [1] 处于预期范围 <expected_low> 至 <expected_high> 之内。",
            "<machine>的<signal>自 <since> 起被报为偏低；所引数值 <peak> [1] 仍在 <expected_low> 至 <expected_high> 的预期范围内。",
            "监测报告：<since> 以来<machine>的<signal>偏低，而所引数值 <peak> [1] 在预期的 <expected_low> 至 <expected_high> 之内。",
        ],
        when={"kind": "below_expected", "relation": "inside"},
    ),
    clause(
        "what.below.contradicted",
        SECTION,
        [
            "The reports contradict one another: since <since>, <signal> of <machine> has been reported as lower than"
            " expected, but the value cited here, <peak> [1], is above the expected <expected_low> to <expected_high>.",
            "Check this on site: <signal> of <machine> has been reported as too low since <since>, while the cited"
            " <peak> [1] is above its expected range of <expected_low> to <expected_high>.",
            "Reported as too low since <since>, but cited with <peak> [1], which is above the expected <expected_low> to"
            " <expected_high>: <signal> of <machine> needs a check on site.",
        ],
        [
            "信息相互矛盾：自 <since> 起，<machine>的<signal>被报为低于预期，但所引数值 <peak> [1] 高于预期范围 <expected_low> 至 <expected_high>。",
            "请现场核对：<machine>的<signal>自 <since> 起被报为偏低，而所引数值 <peak> [1] 高于 <expected_low> 至 <expected_high> 的预期范围。",
            "<since> 以来<machine>的<signal>被报为偏低，但所引数值 <peak> [1] 高于预期的 <expected_low> 至 <expected_high>，请现场核对。",
        ],
        when={"kind": "below_expected", "relation": "above"},
    ),
    clause(
        "what.stuck",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has stood still at <peak> [1], although it used to vary.",
            "On <machine>, <signal> has not moved from <peak> [1] since <since>; until then it varied.",
            "The reading of <signal> on <machine> froze at <peak> [1] on <since>; it had varied before.",
        ],
        [
            "自 <since> 起，<machine>的<signal>一直停在 <peak> [1]，而此前一直有变化。",
            "<machine>的<signal>自 <since> 起停滞在 <peak> [1] 不变，此前则有正常波动。",
            "<since> 以来，<machine>的<signal>读数固定为 <peak> [1]，以往并非如此。",
        ],
        when={"kind": "stuck"},
    ),
    clause(
        "what.silent",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has sent no values; the last was <peak> [1].",
            "No values of <signal> have come from <machine> since <since>. The last one was <peak> [1].",
            "<machine> has been silent on <signal> since <since>, after a last value of <peak> [1].",
        ],
        [
            "自 <since> 起，<machine>的<signal>无数据上报；最后的数值为 <peak> [1]。",
            "<machine>自 <since> 起不再上报<signal>，最后一个数值是 <peak> [1]。",
            "<since> 以来未收到<machine>的<signal>数据，最后数值为 <peak> [1]。",
        ],
        when={"kind": "silent"},
    ),
    clause(
        "what.unusual",
        SECTION,
        [
            "Since <since>, the signals of <machine> together have left their normal state; <signal> at <peak> [1] adds"
            " most to it.",
            "Taken together, the signals of <machine> have been unusual since <since>. Most of it comes from <signal>, at"
            " <peak> [1].",
            "<machine> has left its normal state since <since>: it is the combination of its signals, above all <signal>"
            " at <peak> [1].",
        ],
        [
            "自 <since> 起，<machine>的各信号组合偏离正常状态；其中<signal>为 <peak> [1]，影响最大。",
            "<machine>的信号组合自 <since> 起异常，<signal>（<peak> [1]）的影响最大。",
            "<since> 以来，<machine>的整体状态偏离正常，主要来自<signal>，其值为 <peak> [1]。",
        ],
        when={"kind": "machine_unusual"},
    ),
    clause(
        "what.other",
        SECTION,
        [
            "Since <since>, <signal> of <machine> has been reported as <seen_as>, with a value of <peak> [1].",
            "On <machine>, <signal> has been reported as <seen_as> since <since>; its value is <peak> [1].",
            "Reported as <seen_as> since <since>: <signal> of <machine>, at <peak> [1].",
        ],
        [
            "自 <since> 起，<machine>的<signal>被报告为“<seen_as>”，数值为 <peak> [1]。",
            "<machine>的<signal>自 <since> 起出现“<seen_as>”，其值为 <peak> [1]。",
            "<since> 以来，监测将<machine>的<signal>判为“<seen_as>”，数值 <peak> [1]。",
        ],
        when={"kind": "other"},
    ),
    clause(
        "what.range",
        SECTION,
        [
            "Its expected range is <expected_low> to <expected_high>.",
            "Expected: between <expected_low> and <expected_high>.",
            "For comparison: <expected_low> to <expected_high> was expected.",
        ],
        [
            "其预期范围为 <expected_low> 至 <expected_high>。",
            "预期应在 <expected_low> 与 <expected_high> 之间。",
            "作为对照，预期为 <expected_low> 至 <expected_high>。",
        ],
        when={"kind": _BESIDE_RANGES},
        optional=True,
    ),
    clause(
        "margin.slight",
        SECTION,
        [
            "It is beyond the limit by less than the digits shown here tell.",
            "The limit is passed only just: with the digits shown, both look alike.",
            "So little is it beyond the limit that both are written alike here.",
        ],
        [
            "超出限值的幅度小于此处显示的位数。",
            "仅略微越过限值：按所示位数，两者看起来相同。",
            "越限极小，此处两个数值写法相同。",
        ],
        when={"margin": "slight", "kind": ["above_expected", "below_expected"]},
    ),
    clause(
        "beyond.above",
        SECTION,
        [
            "That is <beyond> over the upper limit.",
            "The upper limit is exceeded by <beyond>.",
            "It lies <beyond> above what was expected at most.",
        ],
        [
            "超出上限 <beyond>。",
            "比预期上限高 <beyond>。",
            "高于预期上限的幅度为 <beyond>。",
        ],
        when={"relation": "above", "margin": "clear", "kind": ["above_expected", "below_expected"]},
        optional=True,
    ),
    clause(
        "beyond.below",
        SECTION,
        [
            "That is <beyond> under the lower limit.",
            "The lower limit is missed by <beyond>.",
            "It lies <beyond> below what was expected at least.",
        ],
        [
            "低于下限 <beyond>。",
            "比预期下限低 <beyond>。",
            "低于预期下限的幅度为 <beyond>。",
        ],
        when={"relation": "below", "margin": "clear", "kind": ["above_expected", "below_expected"]},
        optional=True,
    ),
]
