"""The only way out: one gate before the outbox, and what it lets through is declared.

Bucket means of the shared signals and the product's own results leave; raw observations never do, but for the declared
windows around events. What people write leaves with names and numbers of people blacked out (or whole, or not at all),
and authors under pseudonyms. Means may carry noise of a stated epsilon. Facts are never touched, so that every report
that leaves can still be read back. What stays here is counted with its reason."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge_agent.config import FULL, NONE, ShareSettings
from edge_agent.noise import Budget, noisy_mean
from edge_agent.pseudonyms import Pseudonyms
from edge_agent.redaction import Private, Redactor
from protocol.errors import BadSettings
from protocol.feedback import Feedback
from protocol.observations import SignalBlock, WorkOrder
from protocol.reading.notes import Note, NoteReading
from protocol.reports import Forecast, ForecastExplanation, Report
from protocol.sync import Message

log = logging.getLogger(__name__)
Written = TypeVar("Written", bound=Note | Feedback | WorkOrder | NoteReading)
Raw = Callable[[tuple[str, str], int, int], list[float]]
"""Readings of (machine, signal) in [start_ms, end_ms)."""


class Gate:
    """Lets a message pass, changed where the policy says so, or keeps it here. folder: where the key and the budget
    lie. kept(type, reason) is called for what stays. Raises BadSettings for a policy, a key or a budget that cannot be
    kept."""

    def __init__(
        self,
        share: ShareSettings,
        folder: Path,
        now_ms: Callable[[], int],
        raw: Raw,
        kept: Callable[[str, str], None],
    ) -> None:
        checked(share)
        self._share, self._now_ms, self._raw, self._kept = share, now_ms, raw, kept
        self._redactor = Redactor([Private(kind) for kind in share.remove], _people(share.people_file))
        self._pseudonyms = Pseudonyms(Path(share.key_file) if share.key_file else folder / "privacy.key")
        self._noise = share.noise
        self._budget = Budget(folder / "budget.json", share.noise.epsilon_per_day) if share.noise else None
        self._machines: dict[str, str] = {}
        self._machine_names: re.Pattern[str] | None = None

    def shares(self, signal: str) -> bool:
        """Whether a signal may leave at all, as bucket means or as a forecast."""
        return any(fnmatchcase(signal, pattern) for pattern in self._share.signals)

    def shares_window(self, signal: str) -> bool:
        """Whether a signal's finer means around events may leave."""
        events = self._share.events
        return events is not None and any(fnmatchcase(signal, pattern) for pattern in events.signals)

    def knows(self, people: Iterable[str] = (), machines: Iterable[str] = ()) -> None:
        """Names to look out for: authors, and machines where these have pseudonyms."""
        for person in people:
            self._redactor.know(person)
        new = [m for m in machines if m not in self._machines] if "machines" in self._share.pseudonyms else []
        if new:
            self._machines |= {m: self._pseudonyms.machine(m) for m in new}
            names = "|".join(re.escape(name) for name in sorted(self._machines, key=len, reverse=True))
            self._machine_names = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])")

    def own_name(self, machine: str) -> str:
        """The machine behind a pseudonym that came back from the server."""
        return next((name for name, shown in self._machines.items() if shown == machine), machine)

    def out(self, message: Message) -> Message | None:
        """What may leave of a message; None if it stays, which is counted."""
        reason = self._stays(message)
        if not reason and isinstance(message, SignalBlock):
            noisy = self._with_noise(message)
            message, reason = (message, "privacy_budget_spent") if noisy is None else (noisy, "")
        if reason:
            self._kept(message.type_name, reason)
            return None
        match message:
            case Note() | Feedback() | WorkOrder() | NoteReading():
                return self._renamed(self.worded(message))
            case _:
                return self._renamed(message)

    def worded(self, written: Written) -> Written:
        """What people wrote, as it may leave: blacked out or emptied, with pseudonyms for authors. A reading is put
        through here before a report is made of it, so that a report holds nothing that would have to be taken out of
        it."""
        changed: dict[str, Any] = {}
        if isinstance(written, Note | Feedback):
            self._redactor.know(written.author)
            if "people" in self._share.pseudonyms:
                changed["author"] = self._pseudonyms.person(written.author)
        match written:
            case Note():
                changed["text"] = self._text(written.text)
            case Feedback():
                changed["comment"] = self._text(written.comment)
            case WorkOrder():
                changed |= {"note": self._text(written.note), "actions": [self._word(a) for a in written.actions]}
            case NoteReading():
                like = [
                    msgspec.structs.replace(
                        one, text=self._text(one.text), fixed_by=[self._word(item) for item in one.fixed_by]
                    )
                    for one in written.like
                ]
                changed |= {"normalised": self._text(written.normalised), "like": like}
        return msgspec.structs.replace(written, **changed)

    def _stays(self, message: Message) -> str:
        if isinstance(message, SignalBlock | Forecast | ForecastExplanation):
            declared = self.shares(message.signal) or (
                isinstance(message, SignalBlock) and self.shares_window(message.signal)
            )
            if not declared:
                return "signal_not_shared"
            if not isinstance(message, SignalBlock) and self._bounds(message) is not None:
                return "noise_would_tell"
        if isinstance(message, Report) and self._share.reports == NONE:
            return "reports_not_shared"
        if isinstance(message, Note) and self._share.notes == NONE:
            return "notes_not_shared"
        return ""

    def _text(self, text: str) -> str:
        if self._share.notes == NONE:
            return ""
        return self._word(text)

    def _word(self, text: str) -> str:
        return text if self._share.notes == FULL else self._redactor.redact(text)

    def _bounds(self, told: SignalBlock | Forecast | ForecastExplanation) -> tuple[float, float] | None:
        bounds = self._noise.bounds if self._noise else {}
        name = f"{told.machine}/{told.signal}"
        return next((b for pattern, b in bounds.items() if fnmatchcase(name, pattern)), None)

    def _with_noise(self, block: SignalBlock) -> SignalBlock | None:
        """The block with noise where its signal is declared to have some; None if that may not be said any more."""
        bounds, budget, noise = self._bounds(block), self._budget, self._noise
        if bounds is None or budget is None or noise is None:
            return block
        said = sum(v is not None for v in block.values)
        try:
            if not budget.spend(f"{block.machine}/{block.signal}", noise.epsilon * said, self._now_ms()):
                return None
        except OSError as error:
            log.warning("the privacy budget cannot be saved, nothing is said: %s", error)
            return None
        epsilon, key = Fraction(noise.epsilon).limit_denominator(1_000_000), (block.machine, block.signal)
        values = [
            None if value is None else noisy_mean(self._raw(key, at, at + block.step_ms), bounds[0], bounds[1], epsilon)
            for at, value in zip(
                range(block.start_ms, block.start_ms + block.step_ms * len(block.values), block.step_ms),
                block.values,
                strict=True,
            )
        ]
        return msgspec.structs.replace(block, values=values)

    def _renamed(self, message: Message) -> Message:
        """Machines under their pseudonyms, wherever they are named."""
        pattern = self._machine_names
        if pattern is None:
            return message

        def rename(value: Any) -> Any:
            if isinstance(value, str):
                return pattern.sub(lambda m: self._machines[m[0]], value)
            if isinstance(value, list):
                return [rename(one) for one in value]
            if isinstance(value, dict):
                return {rename(key): rename(one) for key, one in value.items()}
            return value

        return msgspec.convert(rename(msgspec.to_builtins(message)), type(message))


def checked(share: ShareSettings) -> None:
    """Raises BadSettings for a policy that contradicts itself."""
    if "machines" in share.pseudonyms and (share.notes != NONE or share.reports != NONE):
        raise BadSettings(
            '[share] pseudonyms of machines need notes = "none" and reports = "none": their words would name the machines'
        )
    for pattern, (low, high) in (share.noise.bounds if share.noise else {}).items():
        if not low < high:
            raise BadSettings(f"[share.noise] bounds of {pattern!r}: the lower one must be below the upper one")


def _people(file: str) -> list[str]:
    if not file:
        return []
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"cannot read [share] people_file {file}: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
