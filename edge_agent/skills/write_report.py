"""A fault report in plain words, English and Simplified Chinese, from facts alone: every number stands in the evidence or
in the recommendation, and each sentence says which. Deterministic: the same facts give the same words. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.explain import Labels
from protocol.names import stable_id
from protocol.reports import Evidence, FaultEvent, Forecast, ModelRef, Recommendation, Report, Section, Severity

WRITER = ModelRef("report.template", "template", 1)
_SEVERITY = {
    Severity.NOTICE: ("Notice", "提示"),
    Severity.WARNING: ("Warning", "警告"),
    Severity.ALARM: ("Alarm", "报警"),
}
_ALGORITHM = {
    "naive": ("the simple reference (running level)", "简单基准（滑动水平）"),
    "arima": ("ARIMA", "ARIMA"),
    "lstm": ("LSTM", "LSTM"),
    "monitor": ("the machine's monitor", "机器监测模型"),
    "combined": ("a combination of forecasters", "组合预测"),
    "ridge": ("ridge regression", "岭回归"),
    "item_neighbours": ("item-based collaborative filtering", "基于物品的协同过滤"),
}
_SEEN = {
    "above_expected": ("above its expected range", "高于预期范围"),
    "below_expected": ("below its expected range", "低于预期范围"),
    "stuck": ("stands still", "数值停滞不变"),
    "silent": ("sends no values", "无数据上报"),
    "machine_unusual": ("unusual together with the machine's other signals", "与本机其他信号的组合异常"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report may say. `extreme` is the observed extreme since the event began, of the raw observations."""

    event: FaultEvent
    extreme: Evidence
    usual: Evidence | None
    forecast: Forecast | None
    recommendation: Recommendation | None


def write(facts: Facts, labels: Labels, now_ms: int) -> Report:
    """The report of one event."""
    event = facts.event
    evidence = [facts.extreme] + ([facts.usual] if facts.usual else [])
    machine, signal = labels.machine(event.machine), labels.signal(event.signal)
    seen = _SEEN.get(event.kind, (event.kind, event.kind))
    title = (f"{machine[0]}: {signal[0]} {seen[0]}", f"{machine[1]}：{signal[1]}{seen[1]}")
    sections = [_what_happened(facts, labels), _how_we_know(facts, evidence)]
    if facts.forecast is not None:
        sections.append(_what_comes_next(facts.forecast, labels))
    sections.append(_what_to_do(facts.recommendation, labels))
    return Report(
        id=stable_id("report", event.id),
        event=event.id,
        recommendation=facts.recommendation.id if facts.recommendation else "",
        machine=event.machine,
        issued_ms=now_ms,
        severity=event.severity,
        title_en=title[0],
        title_zh=title[1],
        sections=sections,
        evidence=evidence,
        written_by=WRITER,
    )


def _what_happened(facts: Facts, labels: Labels) -> Section:
    event, extreme = facts.event, facts.extreme
    machine, signal = labels.machine(event.machine), labels.signal(event.signal)
    unit = f" {extreme.unit}" if extreme.unit else ""
    severity = _SEVERITY[event.severity]
    if event.kind not in ("above_expected", "below_expected"):
        return _what_stands_out(event, extreme, machine, signal)
    above = event.kind == "above_expected"
    low, high = extreme.expected_low, extreme.expected_high
    en = f"{severity[0]}: since {moment(event.start_ms)}, {signal[0]} of {machine[0]} has been "
    en += f"{'higher' if above else 'lower'} than expected. "
    en += f"It {'rose to' if above else 'fell to'} {number(extreme.value)}{unit} [1]"
    zh = f"{severity[1]}：自 {moment(event.start_ms)} 起，{machine[1]}的{signal[1]}{'高于' if above else '低于'}预期，"
    zh += f"{'最高达到' if above else '最低降至'} {number(extreme.value)}{unit} [1]"
    if low is not None and high is not None:
        en += f"; {number(low)} to {number(high)}{unit} was expected"
        zh += f"；预期范围为 {number(low)} 至 {number(high)}{unit}"
    return Section(title_en="What happened", title_zh="发生了什么", text_en=en + ".", text_zh=zh + "。", cites=[0])


def _what_stands_out(
    event: FaultEvent, extreme: Evidence, machine: tuple[str, str], signal: tuple[str, str]
) -> Section:
    severity, unit = _SEVERITY[event.severity], f" {extreme.unit}" if extreme.unit else ""
    value, since = f"{number(extreme.value)}{unit}", moment(event.start_ms)
    if event.kind == "silent":
        en = f"since {since}, {signal[0]} of {machine[0]} has sent no values; the last was {value} [1]."
        zh = f"自 {since} 起，{machine[1]}的{signal[1]}无数据上报；最后的数值为 {value} [1]。"
    elif event.kind == "stuck":
        en = f"since {since}, {signal[0]} of {machine[0]} has stood still at {value} [1], although it used to vary."
        zh = f"自 {since} 起，{machine[1]}的{signal[1]}一直停在 {value} [1]，而此前一直有变化。"
    else:
        en = f"since {since}, the signals of {machine[0]} together have left their normal state;"
        en += f" {signal[0]} at {value} [1] adds most to it."
        zh = f"自 {since} 起，{machine[1]}的各信号组合偏离正常状态；其中{signal[1]}为 {value} [1]，影响最大。"
    return Section(
        title_en="What happened",
        title_zh="发生了什么",
        text_en=f"{severity[0]}: {en}",
        text_zh=f"{severity[1]}：{zh}",
        cites=[0],
    )


def _how_we_know(facts: Facts, evidence: list[Evidence]) -> Section:
    extreme, model = facts.extreme, facts.extreme.model
    unit = f" {extreme.unit}" if extreme.unit else ""
    span = f"{moment(extreme.start_ms)} – {moment(extreme.end_ms)}"
    en = f"{extreme.samples} observations, {span} [1]."
    zh = f"依据 {extreme.samples} 个观测值，{span} [1]。"
    if facts.usual is not None:
        en += f" Before that, over {facts.usual.samples} observations, the mean was {number(facts.usual.value)}{unit} [2]."
        zh += f"此前 {facts.usual.samples} 个观测值的平均值为 {number(facts.usual.value)}{unit} [2]。"
    if model is not None:
        name = _ALGORITHM.get(model.algorithm, (model.algorithm, model.algorithm))
        version = (f", version {model.version}", f"，版本 {model.version}") if model.version else ("", "")
        en += f" The expected range comes from {name[0]}{version[0]}"
        zh += f"预期范围来自{name[1]}{version[1]}"
        if not facts.event.score:
            en, zh = en + ".", zh + "。"
    if model is not None and facts.event.score:
        en += f"; the deviation is {number(facts.event.score)} times its usual size."
        zh += f"；偏差为平常的 {number(facts.event.score)} 倍。"
    return Section(title_en="How we know", title_zh="依据", text_en=en, text_zh=zh, cites=list(range(len(evidence))))


def _what_comes_next(forecast: Forecast, labels: Labels) -> Section:
    signal = labels.signal(forecast.signal)
    unit = f" {forecast.unit}" if forecast.unit else ""
    last = len(forecast.mean) - 1
    when = moment(forecast.start_ms + forecast.step_ms * last)
    share = round(forecast.level * 100)
    low, mean, high = (number(part[last]) for part in (forecast.low, forecast.mean, forecast.high))
    name = _ALGORITHM.get(forecast.model.algorithm, (forecast.model.algorithm, forecast.model.algorithm))
    en = (
        f"At {when} {signal[0]} is forecast at {mean}{unit}, between {low} and {high}{unit} with {share} % ({name[0]})."
    )
    zh = f"预计 {when} {signal[1]}为 {mean}{unit}，{share}% 区间为 {low} 至 {high}{unit}（{name[1]}）。"
    if forecast.stale:
        en += " Its newest inputs are old; take it with care."
        zh += "其最新输入已过时，请谨慎参考。"
    return Section(title_en="What comes next", title_zh="接下来", text_en=en, text_zh=zh)


def _what_to_do(recommendation: Recommendation | None, labels: Labels) -> Section:
    if recommendation is None:
        return Section(
            title_en="What to do",
            title_zh="建议",
            text_en="No recommendation: no past case with this symptom is known yet. Your answer to this report is one.",
            text_zh="暂无建议：尚无此症状的历史案例。您对本报告的答复将成为第一个案例。",
        )
    en, zh = [], []
    if not recommendation.items:
        return Section(
            title_en="What to do",
            title_zh="该做什么",
            text_en="No recommendation: every item known for this case was rejected for it or is left out.",
            text_zh="没有建议：此情况下已知的每一项都已被否决或被排除。",
        )
    for item in recommendation.items[:3]:
        words = labels.item(item.item)
        reasons = [labels.item(c.because) for c in item.contributions[:2]]
        en.append(
            f"{item.position}. {words[0][:1].upper()}{words[0][1:]} (because of {' and '.join(r[0] for r in reasons)})."
        )
        zh.append(f"{item.position}. {words[1]}（依据：{'、'.join(r[1] for r in reasons)}）。")
    return Section(title_en="What to do", title_zh="建议", text_en="\n".join(en), text_zh="\n".join(zh))


def moment(time_ms: int) -> str:
    """A time for people, to the minute, with its zone."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def number(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes."""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}"
