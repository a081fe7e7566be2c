"""What this gateway showed, and what people answered: on disk before it counts, bounded, and there again after a restart.

The next list knows an answer at once, without the server. An answer may judge a list by its own id or by the id of the
report that carried it. A disk that cannot be written costs the memory across a restart, never the gateway."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from edge_agent.skills.recommend import Answered, Request
from edge_agent.storage import open_store
from protocol.errors import Refused
from protocol.feedback import Feedback, Verdict
from protocol.names import stable_id
from protocol.recommending import RecommendSpec, same_case, strengths, verdicts
from protocol.reports import Recommendation, RecommendedItem
from protocol.sync import decode, encode
from protocol.tables import LocalAnswer, LocalAnswers, local_answers

log = logging.getLogger(__name__)
MOST_SHOWN = 2000
"""Lists whose answers are still understood, each without its reasons: about a kilobyte."""
MOST_ANSWERS = 2000
REJECTED_FOR_MS = 30 * 86_400_000
"""How long an item stays out of the very case that it was rejected for."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shown (id TEXT PRIMARY KEY, report TEXT, issued_ms INTEGER, body BLOB);
CREATE TABLE IF NOT EXISTS answer (id TEXT PRIMARY KEY, time_ms INTEGER, body BLOB);
"""


class AnswerBook:
    """Owner of answers.db. Not thread-safe: the agent's thread only. `note` counts what goes wrong."""

    def __init__(self, path: Path, note: Callable[[str], None] = lambda _what: None) -> None:
        self._note = note
        self._shown: dict[str, Recommendation] = {}
        self._reports: dict[str, str] = {}
        self._answers: dict[str, Feedback] = {}
        self._local: dict[tuple[float, int], LocalAnswers] = {}
        self._db = self._opened(path)

    def show(self, shown: Recommendation, report: str = "") -> None:
        """Remembers a list and the report that carries it; the same list again takes the old one's place."""
        kept = _without_reasons(shown)
        full = len(self._shown) >= MOST_SHOWN
        changed = {kept.id, report, *self._hold_shown(kept, report)}
        row = (kept.id, report, kept.issued_ms, encode(kept))
        oldest = _all_but_newest("shown", "issued_ms", MOST_SHOWN) if full else ""
        self._write("INSERT OR REPLACE INTO shown VALUES (?,?,?,?)", row, oldest)
        targets = [answer.target for answer in self._answers.values()]
        if any(name in changed or self._reports.get(name) == kept.id for name in targets):
            self._local.clear()

    def take(self, answer: Feedback) -> Recommendation | None:
        """Remembers an answer, once; the list that it judges, None if that is not (or no longer) known here."""
        if answer.id not in self._answers:
            full = len(self._answers) >= MOST_ANSWERS
            self._hold_answer(answer)
            row = (answer.id, answer.time_ms, encode(answer))
            oldest = _all_but_newest("answer", "time_ms", MOST_ANSWERS) if full else ""
            self._write("INSERT OR REPLACE INTO answer VALUES (?,?,?)", row, oldest)
            self._learn(answer, anew=full)
        return self.judged(answer)

    def judged(self, answer: Feedback) -> Recommendation | None:
        """The list that an answer is about."""
        return self._shown.get(self._reports.get(answer.target, answer.target))

    def answered(self, request: Request, spec: RecommendSpec, now_ms: int) -> Answered:
        """All that the next list of the model with this `spec` must know."""
        return Answered(
            local=self.local(spec), rejected=self.rejected(request.profile, now_ms), too_late=self.too_late()
        )

    def local(self, spec: RecommendSpec) -> LocalAnswers:
        """What moves scores in like cases; put together once after every change."""
        key = (spec.answer_weight, spec.data_until_ms)
        if key not in self._local:
            told = self.answers_since(spec.data_until_ms, spec.answer_weight)
            self._local = {key: local_answers(told, spec.data_until_ms)}
        return self._local[key]

    def answers_since(self, time_ms: int, weight: float = RecommendSpec().answer_weight) -> list[LocalAnswer]:
        """Verdicts on items given after then, oldest first. A later verdict on the same item of the same list has the same
        id, so that it takes the earlier one's place."""
        return [
            local
            for answer, shown, said in self._said()
            if answer.time_ms > time_ms
            for local in _local(answer, shown, said, weight)
        ]

    def rejected(self, tokens: Iterable[str], now_ms: int, lasts_ms: int = REJECTED_FOR_MS) -> dict[str, int]:
        """Items that were wrong for this very case (same machine, same symptoms) -> since when; a later answer that accepts
        one, or time, brings it back."""
        case = same_case(tokens)
        since: dict[str, int] = {}
        for answer, shown, said in self._said():
            if same_case(shown.profile) == case:
                for item, value in said.items():
                    since.pop(item, None)
                    if value < 0:
                        since[item] = answer.time_ms
        return {item: at for item, at in since.items() if now_ms - at < lasts_ms}

    def too_late(self) -> dict[str, int]:
        """How often each item came too late to be of use: the timing was wrong, not the item."""
        late: Counter[str] = Counter()
        for answer in self._answers.values():
            shown = self.judged(answer)
            if answer.verdict is Verdict.TOO_LATE and shown is not None:
                late.update([answer.item] if answer.item else [one.item for one in shown.items])
        return dict(late)

    def close(self) -> None:
        """Closes the file."""
        if self._db is not None:
            self._db.close()

    def _said(self) -> Iterator[tuple[Feedback, Recommendation, dict[str, float]]]:
        """Answers whose lists are known, oldest first, with their verdicts on items."""
        for answer in sorted(self._answers.values(), key=lambda a: (a.time_ms, a.id)):
            shown = self.judged(answer)
            if shown is not None:
                yield answer, shown, _verdicts(answer, shown)

    def _learn(self, answer: Feedback, *, anew: bool) -> None:
        """Adds an answer to what was put together; where an old one had to go, it is put together anew when asked for."""
        if anew:
            self._local.clear()
        shown = self.judged(answer)
        if shown is None:
            return
        for key, known in self._local.items():
            for local in _local(answer, shown, _verdicts(answer, shown), key[0]):
                known = known.plus(local)
            self._local[key] = known

    def _opened(self, path: Path) -> sqlite3.Connection | None:
        """The file with what it holds; a damaged one is put aside, and the memory begins anew."""
        try:
            return self._read(path)
        except (sqlite3.DatabaseError, Refused) as error:
            self._note("refused.answers")
            log.warning("%s is put aside, answers are remembered anew: %s", path, error)
            self._shown, self._reports, self._answers = {}, {}, {}
        try:
            path.replace(path.with_name(path.name + ".damaged"))
            for ending in ("-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            return open_store(path, _SCHEMA)
        except (sqlite3.Error, OSError) as error:
            self._note("not_saved.answers")
            log.warning("answers are remembered until the next restart only: %s", error)
            return None

    def _read(self, path: Path) -> sqlite3.Connection:
        db = open_store(path, _SCHEMA)
        try:
            for body, report in db.execute("SELECT body, report FROM shown ORDER BY issued_ms, rowid"):
                self._hold_shown(decode(body, Recommendation), report)
            for (body,) in db.execute("SELECT body FROM answer ORDER BY time_ms, rowid"):
                self._hold_answer(decode(body, Feedback))
        except (sqlite3.Error, Refused):
            db.close()
            raise
        return db

    def _hold_shown(self, shown: Recommendation, report: str) -> set[str]:
        """Keeps a list; names of the lists and reports that had to go."""
        gone_names: set[str] = set()
        self._shown.pop(shown.id, None)
        self._shown[shown.id] = shown
        if report:
            self._reports[report] = shown.id
        while len(self._shown) > MOST_SHOWN:
            gone = self._shown.pop(next(iter(self._shown))).id
            gone_names |= {gone, *(name for name, of in self._reports.items() if of == gone)}
            self._reports = {name: of for name, of in self._reports.items() if of != gone}
        return gone_names

    def _hold_answer(self, answer: Feedback) -> None:
        self._answers[answer.id] = answer
        while len(self._answers) > MOST_ANSWERS:
            self._answers.pop(next(iter(self._answers)))

    def _write(self, statement: str, row: tuple[object, ...], forget: str = "") -> None:
        """One transaction, so that the disk is waited for once."""
        if self._db is None:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(statement, row)
            if forget:
                self._db.execute(forget)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            self._note("not_saved.answers")
            log.warning("an answer or a list is remembered until the next restart only: %s", error)


def _all_but_newest(table: str, age: str, most: int) -> str:
    newest = f"SELECT rowid FROM {table} ORDER BY {age} DESC, rowid DESC LIMIT {most}"  # noqa: S608 # names from here
    return f"DELETE FROM {table} WHERE rowid NOT IN ({newest})"  # noqa: S608


def _verdicts(answer: Feedback, shown: Recommendation) -> dict[str, float]:
    return verdicts([one.item for one in shown.items], answer.verdict, answer.item, answer.correction)


def _local(answer: Feedback, shown: Recommendation, said: dict[str, float], weight: float) -> list[LocalAnswer]:
    return [
        LocalAnswer(
            id=stable_id("answer", shown.id, item),
            profile=strengths(shown.profile),
            item=item,
            value=value,
            weight=weight,
            time_ms=answer.time_ms,
        )
        for item, value in said.items()
    ]


def _without_reasons(shown: Recommendation) -> Recommendation:
    items = [
        RecommendedItem(
            item=one.item, position=one.position, score=one.score, propensity=one.propensity, explored=one.explored
        )
        for one in shown.items
    ]
    return msgspec.structs.replace(shown, items=items, left_out=[])
