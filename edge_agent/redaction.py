"""Names of people, and how to reach them, are found in what people write and blacked out, in English and Chinese.

A maintenance note is full of things that look alike: part numbers, tags, measured values, makers named after their
founders (John Crane), 高压 and 张力. A name counts where something says so: a title (张师傅, 王工, Mr), 老 or 小 before a
surname, a word that people follow (operator, 联系人, 由), a first name, the site's own list of people, the authors of
notes. What is blacked out keeps its length, so that places in the text that a reading points to stay right. Patterns find
most, not all: docs/privacy.md has what was measured."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.people_words import (
    AMBIGUOUS,
    COMPANIES,
    COMPOUND_SURNAMES,
    FAMILIAR_SURNAMES,
    FIRST_NAMES,
    NO_NAMES,
    PINYIN_SURNAMES,
    PLANT_WORDS,
    SURNAMES,
)

BLACK = "█"
MOST_PEOPLE = 5000


class Private(StrEnum):
    """What can be blacked out. `LICENCES`: number plates and identity card numbers."""

    NAMES = "names"
    PHONES = "phones"
    EMAILS = "emails"
    LICENCES = "licences"


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Characters start to end (exclusive) of a text, and what they are."""

    start: int
    end: int
    kind: Private


_HAN = "\u4e00-\u9fff"
_SURNAME = f"(?:{'|'.join(COMPOUND_SURNAMES)}|[{''.join(sorted(SURNAMES))}])"
_FAMILIAR = f"[{''.join(sorted(FAMILIAR_SURNAMES))}]"
_AFTER_NAME = rf"(?=$|[^{_HAN}]|[更换处理检查确负巡报签说在已于正去来到发提反通把将修拆装和与及的跟帮过看做打告给值一])"
_TITLES = "师傅|工程师|工长|主任|经理|班长|组长|队长|厂长|科长|部长|主管|总监|先生|女士|小姐|同志|老师|大姐|大哥"
_ROLES = (
    "联系人|操作员|操作工|维修工|维修员|检修员|检修工|检修人|维修人|负责人|值班员|值班人|班长|组长|主管|主任|师傅|电工|钳工|焊工|技术员|点检员|"
    "巡检员|报告人|记录人|填写人|填表人|验收人|同事|徒弟|工程师|经理|学徒"
)
_COLON_ROLES = "审核|审批|签名|签字|姓名|记录|报告|确认|处理|维修|检修|操作|验收|班组"
_CHINESE = [
    re.compile(rf"(?<![由关对位处])({_SURNAME}[{_HAN}]{{0,2}}?)(?={_TITLES})"),
    re.compile(
        rf"({_SURNAME})(?:工(?![作具序艺况件程位时业厂人段装单地种资期伤友会频装器])|总(?![是成线量计和数共阀管闸泵重长功能流压体得会算图])|姐|哥|叔(?!{_HAN}管))"
    ),
    re.compile(rf"(?<![最缩减较更变太很过偏略稍细短微渐大古衰])([老小阿]{_FAMILIAR})(?!米|标题)"),
    re.compile(rf"(?:{_ROLES})[：:是为\s]*({_SURNAME}[{_HAN}]{{1,2}}?){_AFTER_NAME}"),
    re.compile(rf"(?:{_COLON_ROLES})(?:人|员|者)?[：:]\s*({_SURNAME}[{_HAN}]{{1,2}}?)(?=$|[^{_HAN}])"),
    re.compile(
        rf"(?:由|让|请|找|叫|派|通知|联系|致电|和|跟|与|经|问)({_SURNAME}[{_HAN}]{{1,2}}?)"
        rf"(?=更换|处理|检查|检修|维修|确认|负责|巡检|跟进|安装|拆|修|换|来|去|看|说|过来|帮|一起|协助|完成|操作|复核|$|[，。；,.;])"
    ),
]
_CAPITAL = r"[A-ZÀ-ÖØ-Þ][a-zà-öø-ÿ'’]+(?:-[A-Z][a-z]+)?"
_BY = "reported|signed|approved|checked|done|performed|completed|repaired|replaced|inspected|noted|found|fitted|seen"
_ROLE_CUE = (
    "operators?|technicians?|electricians?|fitters?|welders?|mechanics?|supervisors?|foreman|engineer|colleague|trainee|"
    "contact person|contact|apprentice|signed|spoke to|spoke with|talk to|talked to|talked with|ask|asked|tell|told|phoned|"
    "thanks to"
)
_SURE_CUE = rf"(?i:{_ROLE_CUE}|(?:{_BY}) by)"
_CUE = rf"(?i:{_ROLE_CUE}|(?:{_BY}) by|called|rang|lead|manager|handed to|handed over to|per|attn|call|get|by|with)"
_WORD = re.compile(r"[^\W\d_][^\W\d_'’-]*")
_ENGLISH = [
    re.compile(rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau)\.?\s+({_CAPITAL}(?:\s+{_CAPITAL})?)"),
    re.compile(rf"\b{_CUE}[:,]?\s+((?:[A-Z]\.\s?){{1,2}}{_CAPITAL})"),
    re.compile(rf"(?:^|[\n.!;])\s*(?:—|–|--?)\s*((?:[A-Z]\.\s?)?{_CAPITAL}(?:\s+{_CAPITAL})?)\s*$", re.MULTILINE),
    re.compile(rf"\b{_SURE_CUE}\s*[:,]?\s+({_CAPITAL}(?:\s+{_CAPITAL})?)"),
]
_FIRST = re.compile(rf"\b({_CAPITAL})(?=((?:\s+[A-Z]\.)?\s+{_CAPITAL})?)")
_LOW_FIRST = re.compile(rf"\b{_CUE}[:,]?\s+([a-zà-öø-ÿ]{{3,}})\b")
_SYLLABLE = (
    r"(?:[bpmfdtnlgkhjqxrzcsyw]|zh|ch|sh)?(?:iang|iong|uang|ang|eng|ing|ong|iao|ian|uai|uan|ai|ei|ao|ou|an|en|in|un|ia|ie|iu|"
    r"ua|uo|ui|ue|a|e|i|o|u|v)"
)
_PINYIN_GIVEN = re.compile(rf"(?:{_SYLLABLE}){{1,2}}")
_SERIAL = re.compile(
    r"(?:S/?N|P/?N|No\.?|serial(?: number)?|part(?: number)?|order|ticket|batch|lot|"
    r"序列号|编号|料号|件号|订单号?|工单号?|批号|型号|条码)"
    r"[：:\s#.]*$",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\s*(?:[kMG]?Hz|[kM]?Pa|rpm|mm|cm|µm|um|cycles|hours|h\b|bar|℃|°C|V\b|A\b|kW|L\b|mL|"
    r"转(?![接到]|[^/每，。]*[库室部处办])|次|小时|毫米|台|件|个|吨|公里)"
)
_EDGE, _END = r"(?<![A-Za-z0-9._/#\-])", r"(?![A-Za-z0-9]|[-./]\d)"
_PHONES = [
    re.compile(rf"{_EDGE}(?:(?:\+|00)86[-\s]?)?1[3-9]\d(?:[-\s]?\d{{4}}){{2}}{_END}"),
    re.compile(
        rf"{_EDGE}(?:(?:\+|00)86[-\s]?)?[(（]?0(?:10|2\d|[3-9]\d{{2}})[)）]?[-\s]?\d{{7,8}}(?:\s?[-转]\s?\d{{1,5}})?{_END}"
    ),
    re.compile(rf"{_EDGE}(?:\+|00)[1-9]\d{{0,2}}(?:[\s-]?\(?\d{{2,5}}\)?){{2,5}}{_END}"),
    re.compile(rf"{_EDGE}(?:\(\d{{3}}\)\s?|\d{{3}}[-.\s])\d{{3}}[-.]\d{{4}}{_END}"),
    re.compile(rf"{_EDGE}0\d{{2,4}}[\s-]\d{{3}}[\s-]?\d{{3,5}}{_END}"),
]
_PHONES_AFTER = [
    re.compile(
        r"\b(?:tel|telephone|phone|mobile|mob|whatsapp)\b\.?(?:\s+(?:number|no\.?|is))?[\s.:#]*(\+?\d[\d\s-]{2,16}\d)(?!\d)",
        re.I,
    ),
    re.compile(r"\b(?:ext|extension)\b\.?[\s:#]*(\d{3,6})(?!\d)", re.I),
    re.compile(r"\b(?:call|ring|dial)\s+(\d{5,12}|\d{4}(?=\s*(?:[.,;!]|$)))(?!\d)", re.I),
    re.compile(r"(?:电话|手机号?|分机号?|座机|短号|联系方式|致电|拨打|内线)[：:是为\s]*(\+?\d[\d\s-]{1,16}\d)(?!\d)"),
    re.compile(r"(?:微信|QQ|WeChat)号?[：:\s]*([A-Za-z0-9][A-Za-z0-9_-]{4,19})", re.I),
]
_EMAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_LICENCES = [
    re.compile(
        r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·\s-]?[A-HJ-NP-Z0-9]{5,6}(?![A-Za-z0-9])"
    ),
    re.compile(
        r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
    ),
]


class Redactor:
    """Finds what `kinds` declare. people: names as the site writes them; `know` adds more, such as authors."""

    def __init__(self, kinds: Iterable[Private] = tuple(Private), people: Iterable[str] = ()) -> None:
        self._kinds = frozenset(kinds)
        self._people: set[str] = set()
        self._known: re.Pattern[str] | None = None
        for name in people:
            self.know(name)

    def know(self, name: str) -> None:
        """A person's name, in any script; what is too short or a mere number to be one is left."""
        name = " ".join(unicodedata.normalize("NFKC", name).split())
        han = re.fullmatch(rf"[{_HAN}·]{{2,8}}", name) is not None
        latin = re.fullmatch(r"[^\W\d_]{3,}(?:[ .'’-]+[^\W\d_]+)*\.?", name) is not None
        if (
            not (han or latin)
            or name in self._people
            or len(self._people) >= MOST_PEOPLE
            or name.casefold() in PLANT_WORDS
        ):
            return
        self._people.add(name)
        if han and len(name) == 3:
            self._people.add(name[1:])
        self._known = None

    def find(self, text: str) -> list[Found]:
        """What is private, in order, without overlaps."""
        found: list[Found] = []
        if Private.EMAILS in self._kinds:
            found += [Found(m.start(), m.end(), Private.EMAILS) for m in _EMAIL.finditer(text)]
        if Private.LICENCES in self._kinds:
            found += [Found(m.start(), m.end(), Private.LICENCES) for p in _LICENCES for m in p.finditer(text)]
        if Private.PHONES in self._kinds:
            found += _phones(text)
        if Private.NAMES in self._kinds:
            found += [*_chinese(text), *_english(text), *self._listed(text)]
        return _merged(found)

    def redact(self, text: str) -> str:
        """The text with what is private blacked out, as long as it was."""
        for one in self.find(text):
            text = text[: one.start] + BLACK * (one.end - one.start) + text[one.end :]
        return text

    def _listed(self, text: str) -> list[Found]:
        if not self._people:
            return []
        if self._known is None:
            words = sorted(self._people, key=len, reverse=True)
            alternatives = [
                re.escape(w) if re.match(f"[{_HAN}]", w) else rf"(?<![^\W\d_]){re.escape(w)}(?![^\W\d_])" for w in words
            ]
            self._known = re.compile("|".join(alternatives), re.IGNORECASE)
        return [Found(m.start(), m.end(), Private.NAMES) for m in self._known.finditer(text)]


def _phones(text: str) -> list[Found]:
    found = []
    for pattern in _PHONES:
        for m in pattern.finditer(text):
            digits = sum(c.isdigit() for c in m[0])
            before = text[max(m.start() - 16, 0) : m.start()]
            if 7 <= digits <= 16 and not _SERIAL.search(before) and not _UNIT.match(text, m.end()):
                found.append(Found(m.start(), m.end(), Private.PHONES))
    for pattern in _PHONES_AFTER:
        found += [
            Found(m.start(1), m.end(1), Private.PHONES)
            for m in pattern.finditer(text)
            if not _UNIT.match(text, m.end(1))
        ]
    return found


def _chinese(text: str) -> list[Found]:
    found = []
    for pattern in _CHINESE:
        for m in pattern.finditer(text):
            start, end = m.span(1)
            bare = m[1].lstrip("老小阿") or m[1]
            # with 老 or 小 the word that must not be read as a name goes on behind the surname
            ahead = text[end - 1 : end + 1] if m[1][0] in "老小阿" and len(m[1]) == 2 else text[start : start + 2]
            if ahead not in NO_NAMES and bare[:2] not in NO_NAMES and "级" not in m[1]:
                found.append(Found(start, end, Private.NAMES))
    return found


def _english(text: str) -> list[Found]:
    makers = [(m.start(), m.end()) for company in COMPANIES for m in re.finditer(re.escape(company), text)]
    found = [
        Found(start, end, Private.NAMES)
        for pattern in _ENGLISH
        for m in pattern.finditer(text)
        for start, end in [_person(text, *m.span(1))]
        if start < end
    ]
    cued = {m.start(1) for m in re.finditer(rf"\b{_CUE}[:,]?\s+({_CAPITAL})", text)}
    for m in _FIRST.finditer(text):
        first = m[1].casefold()
        start, end = _person(text, m.start(), max(m.end(), m.end(2)))
        surname = start < end and end > m.end(1)
        if first in FIRST_NAMES and (first not in AMBIGUOUS or surname or m.start() in cued):
            found.append(Found(m.start(), max(end, m.end(1)), Private.NAMES))
        elif first in PINYIN_SURNAMES and m[2] and _PINYIN_GIVEN.fullmatch(m[2].strip().casefold()):
            found.append(Found(m.start(), m.end(2), Private.NAMES))
    low = [m for m in _LOW_FIRST.finditer(text) if m[1] in FIRST_NAMES and m[1] not in AMBIGUOUS]
    found += [Found(m.start(1), m.end(1), Private.NAMES) for m in low]
    return [f for f in found if not any(f.start < end and start < f.end for start, end in makers)]


def _person(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a stretch of capitalised words that may be a person: up to the first word of the plant."""
    for word in _WORD.finditer(text, start, end):
        if word[0].casefold().rstrip("'’s") in PLANT_WORDS or word[0].casefold() in PLANT_WORDS:
            end = word.start()
            break
    return start, start + len(text[start:end].rstrip())


def _merged(found: list[Found]) -> list[Found]:
    made: list[Found] = []
    for one in sorted(found):
        if made and one.start < made[-1].end:
            last = made.pop()
            one = Found(last.start, max(last.end, one.end), last.kind)
        made.append(one)
    return made
