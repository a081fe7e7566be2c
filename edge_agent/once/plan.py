"""`millwright plan`: how to make a product, how to mend a machine, or a part of a family, from a plant's catalogue, with the
gateway's own code and no server. Several alternatives are made, checked, ranked by their words, and the best is written out.

    millwright plan process     --catalogue plant.toml --for cover-panel
    millwright plan maintenance --catalogue plant.toml --for P-101 --failure "bearing wear"
    millwright plan design      --catalogue plant.toml --for hydraulic-cylinder --need "push >= 60" --need "stroke = 250"

Exit status: 0 plans were made, 1 fewer than asked for, 2 wrong input or nothing that can be done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_agent.lists import rank_alone
from edge_agent.once.moments import moment_ms
from edge_agent.plans import voice_of
from edge_agent.runtimes import LoadedModel, load
from edge_agent.skills.recommend import Request
from edge_agent.skills.write_plan import USUAL_WISH, Behind, Voice, card_of, placed, write_designs, write_plans
from edge_agent.stores import load_catalogue
from edge_agent.updates import write_durably
from protocol.bundles import MAX_BUNDLE_BYTES, digest
from protocol.capabilities import PlanKind, called
from protocol.catalogue import Catalogue
from protocol.covariates import token
from protocol.design_grammar import DesignRequest
from protocol.errors import BadSettings
from protocol.planning_grammar import PlanRequest
from protocol.plans import MOST_CANDIDATES, Design, WorkPlan
from protocol.recommending import strengths
from protocol.reports import Recommendation
from protocol.writing.clauses.plans import STEP
from protocol.writing.facts import Language
from protocol.writing.plan_text import PlantNames, text_complaints, write_design, write_plan

Documents = Sequence[WorkPlan] | Sequence[Design]
_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_|[]#"})
_SAID = {
    "en": {
        "alternatives": "Alternatives",
        "columns": "| | alternative | steps | minutes | score |",
        "design_columns": "| | alternative | values | score |",
        "aims": {
            "usual": "usual", "thorough": "thorough", "short": "short", "small": "small", "large": "large",
            "other": "another way", "model": "chosen by a model",
        },
    },
    "zh": {
        "alternatives": "备选方案",
        "columns": "| | 方案 | 步骤 | 分钟 | 得分 |",
        "design_columns": "| | 方案 | 取值 | 得分 |",
        "aims": {
            "usual": "常规", "thorough": "全面", "short": "最省时", "small": "最小", "large": "最大", "other": "其他做法",
            "model": "模型选定",
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Bundles:
    """What --bundle gave: a recommender that ranks, a language model that chooses."""

    ranker: LoadedModel | None = None
    writer: LoadedModel | None = None

    def voice(self, document: str) -> Voice | None:
        """Raises BadSettings for a language model that was not taught such documents."""
        if self.writer is None:
            return None
        found = voice_of(self.writer, document)
        if found is None:
            taught = self.writer.passport.writer.documents if self.writer.passport.writer is not None else []
            raise BadSettings(
                f"this language model was taught {', '.join(taught) or 'nothing'}, not {document}: leave its --bundle away,"
                " or train one on accepted plans"
            )
        return found


@dataclass(frozen=True)
class Answer:
    """Ranked alternatives, the best first, and what ranked them."""

    documents: list[WorkPlan] | list[Design]
    ranking: Recommendation | None
    asked: int
    names: PlantNames = field(repr=False)


def main(argv: list[str]) -> int:
    """`millwright plan …`."""
    given = _parser().parse_args(argv)
    if not 1 <= given.candidates <= MOST_CANDIDATES:
        raise BadSettings(f"--candidates {given.candidates}: ask for 1 to {MOST_CANDIDATES}")
    catalogue = load_catalogue(given.catalogue)
    bundles = _bundles(given.bundle)
    now_ms = moment_ms("--at", given.at)
    if given.kind == "design":
        answer = _designs(catalogue, given, bundles, now_ms)
    else:
        answer = _plans(catalogue, given, bundles, now_ms)
    wrong = [fault for one in answer.documents for fault in text_complaints(one, answer.names)]
    if wrong:
        raise BadSettings(f"the text does not agree with the plan: {'; '.join(wrong[:3])}")
    if given.out is not None:
        _write(given.out, as_markdown(answer))
    sys.stdout.write(_as_json(answer) if given.json else as_text(answer, given.lang))
    return 0 if len(answer.documents) == given.candidates else 1


def _plans(catalogue: Catalogue, given: argparse.Namespace, bundles: Bundles, now_ms: int) -> Answer:
    kinds = {one.machine: one.machine_type for one in catalogue.machine}
    mends = given.kind == "maintenance"
    if mends and given.subject not in kinds and not given.machine_type:
        known = ", ".join(kinds) or "none"
        raise BadSettings(f"--for {given.subject[:80]!r} is no [[machine]]: known are {known}; or say --type TYPE")
    request = PlanRequest(
        kind=PlanKind(given.kind),
        product="" if mends else given.subject,
        machine=given.subject if mends else "",
        machine_type=(given.machine_type or kinds.get(given.subject, "")) if mends else "",
        failure=given.failure if mends else "",
        actions=tuple(one if ":" in one else f"action:{one}" for one in given.action),
        unavailable=frozenset(given.unavailable),
    )
    names = PlantNames(catalogue)
    made = write_plans(
        catalogue,
        request,
        Behind(asked_ms=now_ms),
        now_ms,
        candidates=given.candidates,
        seed=given.seed,
        voice=bundles.voice("work_plan"),
    )
    profile = [f"failure:{token(given.failure)}"] if mends and given.failure else []
    profile += [f"type:{request.machine_type}"] if request.machine_type else []
    profile += [f"product:{given.subject}"] if not mends else []
    asked = _case(request.machine or "*", request.machine_type, profile, given.prefer, now_ms)
    ranking = rank_alone([card_of(one, names, now_ms) for one in made], asked, bundles.ranker, now_ms)
    return Answer([write_plan(one, names) for one in placed(made, ranking)], ranking, given.candidates, names)


def _designs(catalogue: Catalogue, given: argparse.Namespace, bundles: Bundles, now_ms: int) -> Answer:
    names = PlantNames(catalogue)
    request = DesignRequest(family=given.subject, needs=tuple(given.need))
    voice = bundles.voice("design")
    made = write_designs(
        catalogue, request, Behind(asked_ms=now_ms), now_ms, candidates=given.candidates, seed=given.seed, voice=voice
    )
    asked = _case("*", "", [f"family:{given.subject}"], given.prefer, now_ms)
    ranking = rank_alone([card_of(one, names, now_ms) for one in made], asked, bundles.ranker, now_ms)
    return Answer([write_design(one, names) for one in placed(made, ranking)], ranking, given.candidates, names)


def _case(machine: str, kind: str, profile: list[str], prefer: str, now_ms: int) -> Request:
    wishes = [f"wish:{prefer[:100]}" if prefer else USUAL_WISH]
    return Request(
        asked_by=f"request-{now_ms}", machine=machine, profile=strengths([*profile, *wishes]), machine_type=kind
    )


def _bundles(paths: Sequence[Path]) -> Bundles:
    ranker: LoadedModel | None = None
    writer: LoadedModel | None = None
    for path in paths:
        try:
            if path.stat().st_size > MAX_BUNDLE_BYTES:
                raise BadSettings(f"{path} is larger than {MAX_BUNDLE_BYTES} bytes")
            archive = path.read_bytes()
        except OSError as error:
            raise BadSettings(f"cannot read {path}: {error.strerror}") from error
        model = load(archive, digest(archive))
        if model.ranker is not None:
            ranker = model
        elif model.decoder is not None:
            writer = model
        else:
            raise BadSettings(
                f"{path} is a {model.passport.family} model: a recommender ranks, a language model chooses"
            )
    return Bundles(ranker, writer)


# words ----------------------------------------------------------------------------------------------------------------


def as_text(answer: Answer, language: Language) -> str:
    """The best alternative in one language, and the others in a line each."""
    best, lines = answer.documents[0], list[str]()
    for at, passage in enumerate(best.passages):
        title = passage.title_en if language == "en" else passage.title_zh
        texts = [one.text_en if language == "en" else one.text_zh for one in passage.sections]
        if at == 0:
            lines += [title, "", *texts, ""]
        else:
            lines.append(f"  {f'{at}.' if passage.document == STEP else f'{title}:'} {' '.join(texts)}")
    words = _SAID[language]
    if len(answer.documents) > 1:
        lines += ["", f"{words['alternatives']}:"]
        lines += [f"  {' | '.join(row)}" for row in _rows(answer, language)]
    return "\n".join(lines) + "\n"


def as_markdown(answer: Answer) -> str:
    """The best alternative in both languages, with the table of all alternatives after each."""
    languages: tuple[Language, Language] = ("en", "zh")
    return "\n".join(line for language in languages for line in _markdown(answer, language))


def _markdown(answer: Answer, language: Language) -> list[str]:
    best, lines = answer.documents[0], list[str]()
    for at, passage in enumerate(best.passages):
        sections = [
            (one.title_en, one.text_en) if language == "en" else (one.title_zh, one.text_zh) for one in passage.sections
        ]
        title = passage.title_en if language == "en" else passage.title_zh
        stop = ". " if language == "en" else "："
        if at == 0:
            lines += [f"## {_plain(title)}", ""]
            lines += [
                row for name, text in sections for row in (f"**{_plain(name)}{stop.strip()}** {_plain(text)}", "")
            ]
        elif passage.document == STEP:
            lines.append(f"{at}. {_plain(' '.join(text for _, text in sections))}")
        else:
            lines.append(f"- **{_plain(title)}**{': ' if language == 'en' else '：'}{_plain(sections[0][1])}")
    words, plan = _SAID[language], isinstance(best, WorkPlan)
    if len(answer.documents) > 1:
        lines += ["", f"**{words['alternatives']}**", "", str(words["columns" if plan else "design_columns"])]
        lines.append("|---|---|---|---|---|" if plan else "|---|---|---|---|")
        lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in _rows(answer, language)]
    return [*lines, ""]


def _rows(answer: Answer, language: Language) -> list[list[str]]:
    aims = _SAID[language]["aims"]
    rows = []
    for one in answer.documents:
        aim = aims[one.aim.value] if isinstance(aims, dict) else one.aim.value
        score = f"{one.score:.3f}" if one.score is not None else "–"
        if isinstance(one, WorkPlan):
            title = one.passages[0].title_en if language == "en" else one.passages[0].title_zh
            rows.append([str(one.candidate), f"{title} ({aim})", str(len(one.steps)), f"{one.minutes:g}", score])
        else:
            rows.append([str(one.candidate), aim, _measures(one, answer.names, language), score])
    return rows


def _measures(design: Design, names: PlantNames, language: Language) -> str:
    family = next(one for one in names.catalogue.family if one.family == design.family)
    words = {one.name: called(one.name, one.en, one.zh)[language == "zh"] for one in family.parameter}
    chosen = [one for one in design.values if one.name in words]
    return ", ".join(f"{words[one.name]} {one.value:.12g} {one.unit}".strip() for one in chosen)


def _plain(text: str) -> str:
    """Text that Markdown takes as it is."""
    return text.translate(_MARKS)


def _as_json(answer: Answer) -> str:
    body = {
        "asked": answer.asked,
        "documents": msgspec.to_builtins(answer.documents),
        "ranking": msgspec.to_builtins(answer.ranking),
    }
    return msgspec.json.encode(body).decode() + "\n"


def _write(path: Path, text: str) -> None:
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise BadSettings(f"cannot write {path}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright plan",
        description="Makes, checks, ranks and writes plans and designs from what a plant's catalogue says it can do.",
    )
    add = parser.add_argument
    add("kind", choices=("process", "maintenance", "design"))
    add("--catalogue", type=Path, required=True, metavar="FILE", help="the plant's catalogue (docs/plans.md)")
    add("--for", dest="subject", required=True, metavar="NAME", help="a product, a machine, or a family of parts")
    add(
        "--failure",
        default="",
        metavar="NAME",
        help="maintenance: what is wrong; without it every remedy of the machine's type",
    )
    add(
        "--action",
        action="append",
        default=[],
        metavar="ITEM",
        help="maintenance: only this remedy (again: these, best first)",
    )
    add(
        "--type",
        dest="machine_type",
        default="",
        help="maintenance: the machine's type, if the catalogue does not tell it",
    )
    add(
        "--need",
        action="append",
        default=[],
        metavar="RULE",
        help='design: what it must be, "push >= 60"; may be repeated',
    )
    add(
        "--unavailable", action="append", default=[], metavar="MACHINE", help="do not use this machine; may be repeated"
    )
    add("--prefer", default="", metavar="WORDS", help='words by which alternatives are ranked, "quick" or "全面 检查"')
    add(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a recommender ranks, a language model chooses",
    )
    add("--candidates", type=int, default=4, metavar="N", help=f"alternatives, at most {MOST_CANDIDATES}; default: 4")
    add("--seed", type=int, default=0, help="of drawn alternatives")
    add("--at", default="", metavar="TIME", help="when it was asked for; default: now")
    add("--lang", choices=("en", "zh"), default="en", help="language of the text")
    add("--out", type=Path, metavar="FILE.md", help="write the best alternative in both languages there, as Markdown")
    add("--json", action="store_true", help="print one JSON object")
    return parser
