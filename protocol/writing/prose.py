"""Reads free prose back: a sentence may only hold the words of one clause that the facts license, from word to word as that
clause's wordings have them (4 words in English, 5 characters in Chinese at a time), after a connective that claims nothing.

So a number, a unit, a day, a relation, a negation or a fact in another one's place stands out wherever it comes from, and
the closed lists below say which of them it is. Linear in the text; no expression here can backtrack."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from protocol.writing.facts import Language, Said
from protocol.writing.frames import Clause, parts, wordings
from protocol.writing.realise import Alternatives

AT_A_TIME = {"en": 4, "zh": 5}
"""Tokens of a run that must stand so in a licensed wording."""
MOST_DOUBTS = 10
_Run = tuple[str, ...]
_BEGIN, _END = "^", "$"
_TOKEN = re.compile(r"\[[0-9]{1,2}\]|[A-Za-z]+(?:['’-][A-Za-z]+)*|\S")
_STOPS = frozenset(".;。；!?！？")
_CONNECTIVES: dict[Language, tuple[tuple[str, ...], ...]] = {
    "en": (
        ("also",),
        ("and",),
        ("moreover",),
        ("furthermore",),
        ("besides",),
        ("in", "addition"),
        ("please", "note"),
        ("note", "that"),
        ("to", "sum", "up"),
        ("in", "short"),
        ("in", "detail"),
        ("overall",),
        ("further",),
    ),
    "zh": tuple(
        tuple(words) for words in ("另外", "此外", "同时", "并且", "请注意", "总之", "还有", "具体来说", "补充一点")
    ),
}
"""May begin a sentence; they claim nothing."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LEXICA: dict[str, frozenset[str]] = {
    "a negation": _words(
        "no not never none nothing without neither nor cannot isn't wasn't hasn't doesn't don't didn't won't"
        " 不 没 无 未 非 别 勿 莫 否"
    ),
    "a relation": _words(
        "above over exceeds exceeded exceeding higher high more greater upper rose rise rises rising risen up increased"
        " increases increasing climbs climbed below under lower low less fewer fell fall falls falling fallen down dropped"
        " drops decreased decreases decreasing sank inside within outside between steady stable constant unchanged normal"
        " abnormal equal equals same highest lowest maximum minimum least most"
        " 高 低 升 降 超 过 涨 跌 增 减 大 小 多 少 内 外 平 稳 正 异 常 等 同 上 下"
    ),
    "a number": _words(
        "zero one two three four five six seven eight nine ten eleven twelve dozen twenty thirty forty fifty sixty seventy"
        " eighty ninety hundred thousand million once twice thrice double triple half quarter third first second single"
        " several few many couple pair 零 一 二 两 三 四 五 六 七 八 九 十 百 千 万 亿 半 倍 几 双 单"
    ),
    "a time": _words(
        "today tomorrow yesterday tonight now soon later ago already immediately morning evening night noon midnight monday"
        " tuesday wednesday thursday friday saturday sunday january february march april may june july august september"
        " october november december 今 明 昨 晨 晚 早 午 夜"
    ),
    "a unit": _words(
        "percent per cent degree degrees celsius fahrenheit kelvin bar mbar pascal pa kpa mpa psi volt volts v kv ma amp"
        " amps ampere watt watts kw mw kwh rpm hz khz mm cm km metre metres meter meters inch inches second seconds minute"
        " minutes hour hours h day days week weeks month months year years cycle cycles piece pieces pcs litre litres"
        " gram kg ton tons g m s % ° ℃ ‰ µ μ Ω 度 米 秒 分 时 天 日 周 月 年 伏 安 瓦 帕 升 克 吨 件 个 次 转"
    ),
    "a severity": _words(
        "notice warning alarm critical severe serious minor major urgent emergency harmless dangerous danger safe safety"
        " 警 报 急 危 险 严 重 轻"
    ),
    "a fault or a deed": _words(
        "bearing seal leak leakage leaking crack cracked wear worn corrosion overheating imbalance misalignment cavitation"
        " blockage blocked clogged broken failure failed fault cause caused causes because due replace replaced repair"
        " repaired stop stopped shut shutdown restart lubricate clean tighten adjust inspect pump motor valve gearbox fan"
        " sensor cable belt filter 轴 承 封 漏 裂 磨 损 蚀 热 堵 塞 断 坏 故 障 因 换 修 停 启 润 清 紧 调 检 泵 机 阀"
    ),
}
"""What a report may only say where a licensed clause says it so. It names what was found; what is allowed is decided by the
clauses."""


def doubts(asked: Alternatives, said: Said) -> Iterator[str]:
    """What in a section of prose the facts do not bear out. Its spans were found to render their facts."""
    if said.clauses:
        yield "prose names no clauses"
    sentences = _sentences(_tokens_of(asked, said))
    if not sentences:
        yield "says nothing"
        return
    n = AT_A_TIME[asked.language]
    known = [_runs_of((clause,), asked.language) for clause in asked.clauses]
    heard: list[frozenset[_Run]] = []
    told = 0
    for sentence in sentences:
        runs = _runs(_without_connective(sentence, asked.language), n)
        heard.append(frozenset(runs))
        doubt = _doubt(sentence, runs, known)
        if doubt:
            yield doubt
            told += 1
        if told == MOST_DOUBTS:
            return
    yield from _unsaid(asked, said, heard)


def strange_claims(wording: str, clause: Clause, language: Language) -> list[str]:
    """What a new wording claims that no wording of its clause does, as far as the closed lists know: a relation, a negation,
    a deed, a sign such as ≥. A person has to look whether it still says the same."""
    known = {token for each in wordings(clause, language) for part in parts(each)[::2] for token in _tokens(part)}
    new = [token for part in parts(wording)[::2] for token in _tokens(part) if token not in known]
    found = []
    for what, lexicon in LEXICA.items():
        said = list(dict.fromkeys(token for token in new if token in lexicon))
        if said:
            found.append(f"says {what} that the clause does not say so far: {', '.join(said)[:120]}")
    signs = list(dict.fromkeys(token for token in new if unicodedata.category(token[0])[0] == "S"))
    if signs:
        found.append(f"says a sign that the clause does not say so far: {', '.join(signs)[:120]}")
    return found


def misplaced_facts(wording: str, clause: Clause, language: Language) -> list[str]:
    """Facts of a new wording that stand beside a word beside which its clause only has another one: "from <peak>" where
    every wording so far says "from <usual>"."""
    known = {place for each in wordings(clause, language) for place in _places(each)}
    found = []
    for place in sorted(_places(wording) - known):
        others = sorted(slot for slot, *beside in known if beside == list(place[1:]))
        if others:
            where = {_BEGIN: "at the beginning", _END: "at the end"}.get(place[2], f"{place[1]} {place[2]!r}")
            found.append(f"has {place[0]} {where}, where the clause has {others[0]} so far")
    return found


def _places(wording: str) -> frozenset[tuple[str, str, str]]:
    """(slot, "after" or "before", the token that it stands after or before) of every slot."""
    tokens = [_BEGIN]
    for number, part in enumerate(parts(wording)):
        tokens += [f"<{part}>"] if number % 2 else _tokens(part)
    tokens.append(_END)
    at = [i for i, token in enumerate(tokens) if token[0] == "<"]
    return frozenset((tokens[i], side, tokens[j]) for i in at for side, j in (("after", i - 1), ("before", i + 1)))


def _doubt(sentence: Sequence[str], runs: Sequence[_Run], known: Sequence[frozenset[_Run]]) -> str:
    """Why a sentence is not one clause's: all its words must stand as one clause has them, each fact once. "" if it is."""
    shown = [token for token in sentence if token[0] == "<"]
    if len(set(shown)) != len(shown) or sum(_opens(token) for token in sentence) != 0:
        return f"repeats a fact or leaves a bracket open: {' '.join(sentence)[:120]!r}"
    if any(own.issuperset(runs) for own in known):
        return ""
    licensed = frozenset().union(*known)
    strange = next((run for run in runs if run not in licensed), None)
    if strange is None:
        return f"mixes what different clauses say: {' '.join(sentence)[:120]!r}"
    words = {token for run in licensed for token in run}
    return _told([t for t in sentence if t not in words] or strange)


def _opens(token: str) -> int:
    return {"(": 1, "（": 1, ")": -1, "）": -1}.get(token, 0)


def _unsaid(asked: Alternatives, said: Said, heard: Sequence[frozenset[_Run]]) -> Iterator[str]:
    """Every mandatory clause must be heard in a run that only it has, with all its facts."""
    shown = {asked.facts.all[span.fact].key for span in said.spans}
    for at, clause in enumerate(asked.clauses):
        if asked.may_omit(at):
            continue
        missing = [key for key in _shown_by(clause) if key not in shown]
        others = _runs_of(tuple(c for c in asked.clauses if c.id != clause.id), asked.language)
        own = _runs_of((clause,), asked.language)
        if missing:
            yield f"leaves out {', '.join(missing)}, which the clause {clause.id!r} says"
        elif not any(own.issuperset(runs) and not others.issuperset(runs) for runs in heard):
            yield f"leaves out what the clause {clause.id!r} says"


@lru_cache(maxsize=10_000)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(text.lower()))


def _tokens_of(asked: Alternatives, said: Said) -> list[str]:
    """Words, characters and punctuation of the prose; a fact in its place is one token, "<peak>"."""
    found: list[str] = []
    at = 0
    for span in said.spans:
        found += [*_TOKEN.findall(said.text[at : span.start].lower()), f"<{asked.facts.all[span.fact].key}>"]
        at = span.end
    return [*found, *_TOKEN.findall(said.text[at:].lower())]


def _sentences(tokens: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for token in tokens:
        if token in _STOPS:
            found.append([])
        else:
            found[-1].append(token)
    return [sentence for sentence in found if sentence]


def _runs(sentence: Sequence[str], n: int) -> list[_Run]:
    """Every run of n tokens with the sentence's ends; a short sentence is one run."""
    whole = (_BEGIN, *sentence, _END)
    return [tuple(whole[i : i + n]) for i in range(max(1, len(whole) - n + 1))]


@lru_cache(maxsize=500)
def _runs_of_wording(wording: str, n: int) -> frozenset[_Run]:
    tokens: list[str] = []
    for number, part in enumerate(parts(wording)):
        tokens += [f"<{part}>"] if number % 2 else _tokens(part)
    return frozenset(run for sentence in _sentences(tokens) for run in _runs(sentence, n))


def _runs_of(clauses: Sequence[Clause], language: Language) -> frozenset[_Run]:
    n = AT_A_TIME[language]
    return frozenset(run for c in clauses for wording in wordings(c, language) for run in _runs_of_wording(wording, n))


def _shown_by(clause: Clause) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parts(clause.en[0])[1::2]))


def _without_connective(sentence: Sequence[str], language: Language) -> Sequence[str]:
    for words in _CONNECTIVES[language]:
        if tuple(sentence[: len(words)]) == words and len(sentence) > len(words):
            rest = sentence[len(words) :]
            return rest[1:] if rest[0] in (",", "，", ":", "：") and len(rest) > 1 else rest
    return sentence


def _told(run: Sequence[str]) -> str:
    """What kind of claim stands in words that no licensed clause has, or in a run of words that none has so."""
    words = " ".join(token for token in run if token not in (_BEGIN, _END))[:120]
    for token in run:
        if any(unicodedata.category(c)[0] == "N" for c in token) and token[0] not in "<[":
            return f"says a number of its own: {words!r}"
    for what, lexicon in LEXICA.items():
        if any(token in lexicon for token in run):
            return f"says {what} that no licensed clause says so: {words!r}"
    if any(token[0] == "<" for token in run):
        return f"puts a fact where no licensed clause has it: {words!r}"
    return f"says what no licensed clause says: {words!r}"
