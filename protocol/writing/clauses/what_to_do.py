"""What to do: up to three recommended items with their reasons, or why there is none; a spare part; what helped before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from protocol.writing.clauses.stating import clause
from protocol.writing.frames import Clause

SECTION = "what_to_do"
_FIRST = (
    ("First choice: {a}", "Do this first: {a}", "Most advisable: {a}"),
    ("首选：{a}", "建议先做：{a}", "最建议：{a}"),
)
_SECOND = (
    ("Second: {a}", "Next in line: {a}", "Otherwise: {a}"),
    ("其次：{a}", "第二选择：{a}", "或者：{a}"),
)
_THIRD = (
    ("Third: {a}", "In third place: {a}", "After that: {a}"),
    ("第三：{a}", "再次：{a}", "然后可考虑：{a}"),
)
_TWO_REASONS = (
    (" (because of {w} and {b}).", "; {w} and {b} speak for it.", ", because of {w} and {b}."),
    ("（依据：{w}、{b}）。", "，依据是{w}和{b}。", "，因为{w}以及{b}。"),
)
_ONE_REASON = (
    (" (because of {w}).", "; {w} speaks for it.", ", because of {w}."),
    ("（依据：{w}）。", "，依据是{w}。", "，因为{w}。"),
)
_NO_REASON = ((".", "; no reason is on record.", " (without a reason)."), ("。", "，未记录依据。", "（未给出依据）。"))


def _action(at: int, begins: Sequence[Sequence[str]]) -> Iterator[Clause]:
    """One place of the list: with two reasons, one, or none."""
    action, why, also = f"action_{at}", f"action_{at}_why", f"action_{at}_also"
    for name, ends, unless in (
        ("two", _TWO_REASONS, []),
        ("one", _ONE_REASON, [also]),
        ("bare", _NO_REASON, [why]),
    ):
        en, zh = (
            [
                (begin + end).format(a=f"<{action}>", w=f"<{why}>", b=f"<{also}>")
                for begin, end in zip(*both, strict=True)
            ]
            for both in zip(begins, ends, strict=True)
        )
        yield clause(f"{action}.{name}", SECTION, en, zh, when={"advice": "given"}, unless=unless)


WHAT_TO_DO = [
    clause(
        "advice.no_case",
        SECTION,
        [
            "No recommendation: no past case with this symptom is known yet. Your answer to this report will be the first.",
            "There is no recommendation yet, because no past case with this symptom is known. What you answer becomes one.",
            "Nothing can be recommended so far: this symptom has no known past case. Your answer will make one.",
        ],
        [
            "暂无建议：尚无此症状的历史案例。您对本报告的答复将成为第一个案例。",
            "目前没有建议，因为还没有此症状的已知案例；您的答复会成为案例。",
            "尚不能给出建议：此症状没有历史案例，请答复本报告以建立案例。",
        ],
        when={"advice": "no_case"},
    ),
    clause(
        "advice.left_out",
        SECTION,
        [
            "No recommendation: every item known for this case was rejected for it or is left out.",
            "There is no recommendation, since all known items were rejected for this case or left out.",
            "Nothing is left to recommend: what is known for this case was rejected or left out.",
        ],
        [
            "没有建议：此情况下已知的每一项都已被否决或被排除。",
            "目前没有建议，因为已知各项均被否决或排除。",
            "无可建议：适用于此情况的已知项目已被否决或排除。",
        ],
        when={"advice": "left_out"},
    ),
    *_action(1, _FIRST),
    *_action(2, _SECOND),
    *_action(3, _THIRD),
    clause(
        "part.ready",
        SECTION,
        [
            "Spare part on the list: <spare_part>.",
            "Have the spare part ready: <spare_part>.",
            "Among the recommended items is a spare part, <spare_part>.",
        ],
        ["列表中的备件：<spare_part>。", "请备好备件：<spare_part>。", "推荐项目中包含备件<spare_part>。"],
        when={"advice": "given"},
        optional=True,
    ),
    clause(
        "note.fix",
        SECTION,
        [
            "A past case with a note like this one was settled so: <note_fix>.",
            "What settled a past case with a similar note: <note_fix>.",
            "Past case with a note that reads alike, and what settled it: <note_fix>.",
        ],
        [
            "备注相似的历史案例，其处理办法：<note_fix>。",
            "曾解决备注相似案例的措施：<note_fix>。",
            "可参考备注相近的历史案例：<note_fix>。",
        ],
        optional=True,
    ),
]
