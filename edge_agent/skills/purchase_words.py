"""A purchase proposal in words, in English and Chinese: one sentence on what to do, one on why. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from protocol.catalogue import Part

_SHOWN_SOURCES = 4
_LIMITS_EN = {
    "minimum": "the supplier's minimum is {minimum}",
    "pack": "it comes in packs of {pack}",
    "budget": "the budget allows no more than {quantity} of {wanted}",
    "open_order_too_late": "an open order comes too late to count",
    "no_history": "no month of its own demand is known, so that other parts' demand stands in",
    "no_shortage_cost": "no shortage cost is set in the catalogue, so running out costs nothing",
}
_LIMITS_ZH = {
    "minimum": "供应商最小起订量为 {minimum}",
    "pack": "每包 {pack}",
    "budget": "预算只允许 {wanted} 中的 {quantity}",
    "open_order_too_late": "有一笔在途订单到得太晚，未计入",
    "no_history": "没有该备件自己的历史需求，以其他备件的需求代替",
    "no_shortage_cost": "目录中未设缺货成本，缺货不计损失",
}


@dataclass(frozen=True)
class Told:
    """What the words are made of. stock_days_old: None where the stock level is fresh."""

    part: Part
    supplier: str
    quantity: int
    wanted: int
    gap: int
    position: int
    order_up_to: int
    sources: tuple[tuple[str, float], ...]
    cover_days: float
    short_now: float
    short_then: float
    order_by_ms: int
    arrives_ms: int
    pack: int
    minimum: int
    limits: list[str]
    stock_days_old: float | None


def words(told: Told) -> tuple[str, str]:
    """(English, Chinese)."""
    return _english(told), _chinese(told)


def _english(told: Told) -> str:
    unit = f" {told.part.unit}" if told.part.unit else ""
    expected = sum(amount for _, amount in told.sources)
    if told.quantity:
        first = (
            f"Buy {told.quantity}{unit} of {told.part.part} from {told.supplier} by {_day(told.order_by_ms)}; "
            f"ordered today they arrive about {_day(told.arrives_ms)}."
        )
        after = f"running short has a chance of {_percent(told.short_now)} without and {_percent(told.short_then)} with them"
    else:
        first = f"Buy no {told.part.part} now{_why_not_en(told)}."
        after = f"running short has a chance of {_percent(told.short_now)}"
    need = (
        f"{expected:.1f}{unit} are expected to be asked for within {told.cover_days:.0f} days "
        f"({_listed(told.sources, 'history', ', ')}); {told.position} are there or on their way, "
        f"{told.order_up_to} would be right: {after}."
    )
    return " ".join([first, need, *_notes(told, _LIMITS_EN, "Note: {}.", "; ", "the stock was counted {} days ago")])


def _why_not_en(told: Told) -> str:
    if "no_shortage_cost" in told.limits:
        return ""
    if told.gap == 0:
        return f": {told.position} are enough"
    if told.wanted:
        return ": the budget is spent where it saves more"
    return f": {told.gap} would be right, but the least order costs more to keep than it saves"


def _chinese(told: Told) -> str:
    unit = told.part.unit or "件"
    expected = sum(amount for _, amount in told.sources)
    if told.quantity:
        first = (
            f"建议在 {_day(told.order_by_ms)} 前向 {told.supplier} 采购 {told.part.part} {told.quantity} {unit}，"
            f"今日下单约 {_day(told.arrives_ms)} 到货。"
        )
        after = f"不买缺货概率为 {_percent(told.short_now)}，买后为 {_percent(told.short_then)}"
    else:
        first = f"{told.part.part} 暂不采购{_why_not_zh(told)}。"
        after = f"缺货概率为 {_percent(told.short_now)}"
    need = (
        f"{told.cover_days:.0f} 天内预计需要 {expected:.1f} {unit}（{_listed(told.sources, '历史需求', '，')}）；"
        f"现有及在途 {told.position}，目标 {told.order_up_to}：{after}。"
    )
    return "".join([first, need, *_notes(told, _LIMITS_ZH, "注意：{}。", "；", "库存是 {} 天前盘点的")])


def _why_not_zh(told: Told) -> str:
    if "no_shortage_cost" in told.limits:
        return ""
    if told.gap == 0:
        return f"：现有 {told.position} 已足够"
    if told.wanted:
        return "：预算用在更划算的备件上"
    return f"：缺口 {told.gap}，但最小订货的持有成本高于其收益"


def _notes(told: Told, limits: dict[str, str], frame: str, between: str, old: str) -> list[str]:
    facts = {"minimum": told.minimum, "pack": told.pack, "quantity": told.quantity, "wanted": told.wanted}
    notes = [limits[name].format(**facts) for name in told.limits]
    if told.stock_days_old is not None:
        notes.append(old.format(round(told.stock_days_old)))
    return [frame.format(between.join(notes))] if notes else []


def _listed(sources: tuple[tuple[str, float], ...], history: str, between: str) -> str:
    ordered = [sources[0], *sorted(sources[1:], key=lambda one: -one[1])]
    shown = [f"{history if name == 'history' else name} {amount:.1f}" for name, amount in ordered[:_SHOWN_SOURCES]]
    return between.join([*shown, "…"] if len(ordered) > _SHOWN_SOURCES else shown)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f} %" if 0 < chance < 0.1 else f"{100 * chance:.0f} %"
