"""`millwright recommend`: one list from a bundle of `millwright train recommend`, with the gateway's own code and no server.

Rules kept here: never more than asked for, never an item that was excluded, that the profile holds or that the user has
chosen already, never one that the training's candidates rule out. Contributions always add up to the score.

Where the usual answer cannot be given, popularity ranks, and `fallback` names why:

- `unknown_user`: the bundle holds no choices of this name;
- `unknown_profile`: nothing of the profile is known;
- `no_eligible_model`: the model did not beat popularity on held-out choices.

Exit status: 0 a list, 1 nothing can be offered, 2 wrong input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.explain import Listing, Reasons, WhatIf, reasons
from edge_agent.once.bundles import bundle_at
from edge_agent.runtimes import LoadedModel
from protocol import columns
from protocol.catalogue import ItemCard
from protocol.choices import CHOICES, ChoiceColumns, card, card_columns, card_layout, lay_out_cards
from protocol.errors import BadBundle, BadSettings, Reason
from protocol.recommending import MOST_SHOWN
from protocol.tables import Hybrid
from protocol.tables.hybrid import CONTENT, LIKE, POPULARITY
from protocol.text_vectors import TextVectors
from protocol.unreadable import UNREADABLE

TOP = 10
SHOWN_REASONS = 3
MOST_FLIPPED = 500
"""Items of a profile beyond which taking a few away is not tried: it would change nothing."""
NO_WORDS = "this bundle was trained without an items' table and knows no words: train it with --items to rank new items"
FALLBACKS = {
    "unknown_user": (
        "No choices of {name} are known: these are the items that most users chose.",
        "没有 {name} 的选择记录：以下是大多数用户选择的项目。",
    ),
    "unknown_profile": (
        "Nothing of this profile is known: these are the items that most users chose.",
        "该画像中的内容均未知：以下是大多数用户选择的项目。",
    ),
    "no_eligible_model": (
        "The model did not beat popularity on held-out choices, so popularity answers.",
        "模型在留出数据上未优于热门排序，因此按热门程度排序。",
    ),
}


@dataclass(frozen=True)
class Asked:
    """Whom a list is for: a user of the bundle, or a profile, which may hold new items. new: cards of items that nobody has
    chosen yet, ranked beside the rest."""

    user: str = ""
    profile: tuple[str, ...] = ()
    new: tuple[ItemCard, ...] = ()
    top: int = TOP
    exclude: frozenset[str] = frozenset()
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One item of a list. new: nobody has chosen it; its content alone ranks it."""

    item: str
    score: float
    why: Reasons
    new: bool


@dataclass(frozen=True)
class Answer:
    """profile: what the list was computed from. unknown: names that the bundle does not know, and the new items that say
    nothing it knows."""

    asked: Asked
    model: LoadedModel
    profile: list[str]
    lines: list[Line]
    fallback: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shelf:
    """A proven bundle: its model, the words it knows (None: none) and the columns that it was trained on."""

    model: LoadedModel
    hybrid: Hybrid
    words: TextVectors | None
    layout: ChoiceColumns | None


def main(argv: list[str]) -> int:
    """`millwright recommend …`."""
    arguments = _parser().parse_args(argv)
    shelf = load_shelf(arguments.bundle)
    new = [_said(words) for words in arguments.new_item]
    if arguments.items is not None:
        new += read_cards(arguments.items, shelf)
    asked = Asked(
        user=(arguments.user or "").strip(),
        profile=_profile(arguments, new),
        new=tuple(new),
        top=arguments.top,
        exclude=frozenset(_names(arguments.exclude)),
        only=_names(arguments.only),
    )
    answer = recommend(shelf, asked)
    sys.stdout.write(_as_json(answer) if arguments.json else _as_text(answer, zh=arguments.lang == "zh"))
    return 0 if answer.lines else 1


def _profile(arguments: argparse.Namespace, said: Sequence[ItemCard]) -> tuple[str, ...]:
    """As asked; where a new item is all that was said, what goes with it."""
    if arguments.user is None and arguments.profile is None and arguments.new_item:
        return (said[0].item,)
    return _names([arguments.profile or ""])


def load_shelf(place: Path) -> Shelf:
    """The bundle of a folder, or one file's, proven on this machine. Raises BadSettings if there is none, BadBundle if it is
    altered or wrong here."""
    file, model = bundle_at(place, "recommend")
    if model.hybrid is None:
        raise BadSettings(f"{file} holds no hybrid recommender but {model.passport.algorithm}")
    words = model.text if model.hybrid.content is not None else None
    kept = model.passport.lineage.parameters.get(CHOICES)
    try:
        layout = msgspec.json.decode(kept, type=ChoiceColumns) if kept else None
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the bundle's columns cannot be read: {error}") from error
    return Shelf(model, model.hybrid, words, layout)


def recommend(shelf: Shelf, asked: Asked) -> Answer:
    """One list with its reasons. Raises BadSettings for a question that cannot be answered; the message names the remedy."""
    if not 1 <= asked.top <= MOST_SHOWN:
        raise BadSettings(f"--top {asked.top}: 1 to {MOST_SHOWN} items can be shown")
    if not (asked.user or asked.profile):
        raise BadSettings("for whom? Say --user NAME, --profile ITEM,ITEM or --new-item ID WORDS")
    ranker, unknown = _with_new(shelf, asked.new)
    chosen = list(shelf.hybrid.row_of(asked.user)) if asked.user else []
    own = [*chosen, *asked.profile]
    profile = dict.fromkeys((name for name in own if name in ranker.index), 1.0)
    fallback = _fallback(asked, profile, shelf.model)
    if "no_eligible_model" in fallback:
        profile = {}
    named = dict.fromkeys([*asked.profile, *sorted(asked.exclude)])
    unknown += [name for name in named if name not in ranker.index]
    prefixes = _prefixes(asked.only, shelf.model)
    listing = Listing(profile, asked.top, prefixes, asked.exclude.union(own))
    what_if = WhatIf(ranker, listing) if len(profile) <= MOST_FLIPPED else None
    lines = [
        Line(
            one.item,
            one.score,
            reasons(one, what_if),
            not ranker.popularity[ranker.index[one.item]],
        )
        for one in ranker.rank(profile, asked.top, prefixes, listing.exclude)
    ]
    return Answer(asked, shelf.model, sorted(own), lines, fallback, unknown)


def _fallback(asked: Asked, profile: Mapping[str, float], model: LoadedModel) -> list[str]:
    found = [] if profile else ["unknown_user" if asked.user else "unknown_profile"]
    return found if model.passport.eligible else [*found, "no_eligible_model"]


def _with_new(shelf: Shelf, cards: Sequence[ItemCard]) -> tuple[Hybrid, list[str]]:
    """The tables with the cards among them, and those that say nothing that the bundle knows."""
    fresh = [one for one in cards if one.item not in shelf.hybrid.index]
    if not fresh:
        return shelf.hybrid, []
    if shelf.words is None:
        raise BadSettings(NO_WORDS)
    vectors = [(one.item, shelf.words.vector(one.text, one.attributes)) for one in fresh]
    return shelf.hybrid.with_cards(vectors), [name for name, vector in vectors if not vector.any()]


def _prefixes(only: tuple[str, ...], model: LoadedModel) -> tuple[str, ...]:
    """What an item's name may start with: as asked, within what the training allows."""
    allowed = tuple(model.passport.recommend.candidates) if model.passport.recommend else ()
    if not only or not allowed:
        return only or allowed
    both = [one for one in only if one.startswith(allowed)] + [one for one in allowed if one.startswith(only)]
    if not both:
        raise BadSettings(f"--only {' '.join(only)}: this bundle recommends what starts with {', '.join(allowed)}")
    return tuple(dict.fromkeys(both))


def read_cards(path: Path, shelf: Shelf) -> list[ItemCard]:
    """Cards of an items' table in the columns of the training."""
    layout = shelf.layout or ChoiceColumns(user="user", item="item")
    try:
        with path.open("rb") as stream:
            header = columns.header(stream)
            trained = (layout.item_id in header, all(name in header for name in layout.text))
            known = (layout.item_id, layout.text) if all(trained) else card_columns(header, layout.item)
            cards, _ = lay_out_cards(columns.read(stream, card_layout(header)), *known)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    return list(cards.values())


def _said(words: list[str]) -> ItemCard:
    """ID, then words and key=value in any order."""
    name, *rest = words
    if not name.strip() or len(name) > 128:
        raise BadSettings(
            f"--new-item {name[:40]!r}: an id of 1 to 128 characters comes first, then words and KEY=VALUE"
        )
    attributes = dict(one.split("=", 1) for one in rest if "=" in one)
    return card(name.strip(), " ".join(one for one in rest if "=" not in one), attributes)


def _as_json(answer: Answer) -> str:
    passport = answer.model.passport
    told: dict[str, Any] = {
        "model": {
            "slot": passport.slot,
            "algorithm": passport.algorithm,
            "version": passport.version,
            "eligible": passport.eligible,
            "digest": answer.model.digest,
        },
        "user": answer.asked.user or None,
        "profile": answer.profile,
        "fallback": answer.fallback,
        "unknown": answer.unknown,
        "items": [
            {
                "item": line.item,
                "position": place,
                "score": line.score,
                "new": line.new,
                "contributions": [msgspec.to_builtins(one) for one in line.why.contributions],
                "similar": [msgspec.to_builtins(one) for one in line.why.similar],
                "flips_without": line.why.flips_without,
                "shown_share": line.why.shown_share,
            }
            for place, line in enumerate(answer.lines, 1)
        ],
    }
    return msgspec.json.encode(told).decode() + "\n"


def _as_text(answer: Answer, *, zh: bool) -> str:
    name = answer.asked.user
    lines = [FALLBACKS[why][zh].format(name=name) for why in answer.fallback]
    if answer.unknown:
        said = ", ".join(answer.unknown)
        lines.append(f"本模型未知：{said}" if zh else f"Not known here: {said}")
    if not answer.lines:
        lines.append(
            "没有可推荐的项目。" if zh else "Nothing can be offered: everything on offer was chosen or excluded."
        )
    elif len(answer.lines) < answer.asked.top:
        few = len(answer.lines)
        lines.append(f"只有 {few} 项可推荐。" if zh else f"Only {few} items can be offered.")
    for place, line in enumerate(answer.lines, 1):
        new = (" （新项目）" if zh else "  (new: nobody has chosen it yet)") if line.new else ""
        lines += ["", f"{place:3}. {line.item}  {line.score:.4f}{new}", *_why(line, zh=zh)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _why(line: Line, *, zh: bool) -> list[str]:
    shown = line.why.contributions[:SHOWN_REASONS]
    rest = line.score - sum(one.amount for one in shown)
    made = [f"       {one.amount:+.4f}  {_words(one.because, zh=zh)}" for one in shown]
    if len(line.why.contributions) > SHOWN_REASONS:
        share = f"{line.why.shown_share:.0%}"
        words = (
            f"其余较弱的理由合计（以上占 {share}）"
            if zh
            else f"weaker reasons together (those above are {share} of all)"
        )
        made.append(f"       {rest:+.4f}  {words}")
    if line.why.flips_without:
        names = ", ".join(_who(one, zh=zh) for one in line.why.flips_without)
        made.append(
            f"       若没有 {names}，它不会在此列表中" if zh else f"       it would not stand here without {names}"
        )
    return made


def _who(name: str, *, zh: bool) -> str:
    if not name.startswith(LIKE):
        return name
    return ("用户 " if zh else "the user ") + name.removeprefix(LIKE)


def _words(because: str, *, zh: bool) -> str:
    """A contribution in words."""
    if because == POPULARITY:
        return "常被选择" if zh else "often chosen"
    if because.startswith(LIKE):
        who = because.removeprefix(LIKE)
        return f"选择相似的 {who} 也选了它" if zh else f"{who}, who chose alike, chose it"
    if because.startswith(CONTENT):
        what = because.removeprefix(CONTENT)
        return f"与 {what} 相像" if zh else f"is like {what}"
    if because == "others":
        return "其余理由" if zh else "weaker reasons together"
    return f"常与 {because} 一起被选" if zh else f"is chosen with {because}"


def _names(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright recommend",
        description="Ranks items for a user, or for a profile, with a bundle of `millwright train recommend`, and says why.",
    )
    add = parser.add_argument
    add(
        "bundle",
        type=Path,
        metavar="DIR|FILE",
        help="the folder that `millwright train recommend` wrote, or its bundle",
    )
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--user", metavar="NAME", help="a user of the training's table; what he chose is the profile")
    whom.add_argument("--profile", metavar="ITEM[,ITEM]", help="items that were chosen, of anybody")
    add(
        "--new-item",
        nargs="+",
        action="append",
        default=[],
        metavar=("ID", "WORDS|KEY=VALUE"),
        help="an item that nobody has chosen yet, to be ranked beside the rest; alone: what goes with it",
    )
    add("--items", type=Path, metavar="FILE", help="a table of new items, in the columns of the training's --items")
    add("--top", type=int, default=TOP, metavar="N", help=f"at most so many items; default: {TOP}")
    add("--exclude", nargs="+", default=[], metavar="ITEM", help="never show these")
    add("--only", nargs="+", default=[], metavar="PREFIX", help="only items whose ids start so")
    add("--lang", choices=("en", "zh"), default="en", help="language of the reasons")
    add("--json", action="store_true", help="print one JSON object")
    return parser
