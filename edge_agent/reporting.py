"""Fault reports, as the agent sees them: an event goes in, a report comes out whose every number stands in the raw
observations. A language model that was rolled out chooses the words; without one, or where it may not, the template does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.explain import Labels, evidence
from edge_agent.history import History
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.write_report import FaultCase, write_with
from protocol.bundles import TEXT_OF_FRAMES
from protocol.errors import BadBundle, Reason, Refused
from protocol.reading.notes import NoteReading
from protocol.reports import Evidence, FaultEvent, Forecast, Recommendation, RemainingLife, Report
from protocol.writing.author import LanguageModel, language_model
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Mode
from protocol.writing.frames import Frames, read_frames

log = logging.getLogger(__name__)
SLOT = "report.writer"
BEFORE_STEPS = 24
"""Buckets before an event that count as its usual level."""


@dataclass(frozen=True)
class Beside:
    """What else was said of the machine when the event opened."""

    forecast: Forecast | None = None
    recommendation: Recommendation | None = None
    life: RemainingLife | None = None
    reading: NoteReading | None = None


class Reporting:
    """`note` counts, with how many. Not thread-safe: the agent's thread only."""

    def __init__(
        self,
        history: History,
        labels: Labels,
        step_ms: int,
        mode: Mode,
        clock: Callable[[], float],
        note: Callable[[str, int], None],
    ) -> None:
        self._history, self._labels, self._step_ms = history, labels, step_ms
        self._mode, self._clock, self._note = mode, clock, note
        self._writer: LanguageModel | None = None
        self._frames: Frames = FAULT_REPORT
        self._made = 0

    @property
    def results(self) -> int:
        """Reports since the writer was installed; that it was proven counts as the first."""
        return self._made + (self._writer is not None)

    def install(self, model: LoadedModel | None) -> None:
        """Writes in this model's words from now on; None, or one that cannot write: in the template's."""
        self._made, self._writer, self._frames = 0, None, FAULT_REPORT
        if model is None or self._mode is Mode.TEMPLATE:
            return
        spec = model.passport.writer
        try:
            if model.decoder is None or model.tokenizer is None or spec is None:
                raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "it is no language model")
            writer = language_model(model.decoder, model.tokenizer, spec, model.ref, self._mode)
            carried = model.texts.get(f"{TEXT_OF_FRAMES}{FAULT_REPORT.document}.json")
            self._frames = FAULT_REPORT if carried is None else read_frames(carried)
        except (Refused, ValueError) as why:
            self._note("refused.report.writer", 1)
            log.warning("%s v%d writes no reports: %s", model.passport.slot, model.passport.version, why)
            return
        self._writer = writer

    def report(self, event: FaultEvent, beside: Beside, now_ms: int) -> Report:
        """The report of an event that has just opened."""
        case = FaultCase(
            event=event,
            extreme=self._extreme(event),
            usual=self._usual(event),
            forecast=beside.forecast,
            recommendation=beside.recommendation,
            life=beside.life,
            reading=beside.reading,
        )
        outcome = write_with(self._writer, case, self._labels, now_ms, self._clock, self._frames)
        for what, count in outcome.tally.items():
            self._note(what, count)
        self._made += self._writer is not None
        return outcome.report

    def _extreme(self, event: FaultEvent) -> Evidence:
        first = event.evidence[0]
        _, values = self._history.values((event.machine, event.signal), event.start_ms, event.detected_ms)
        if not len(values):  # silent: what the watch saw last, and that nothing came since
            return first
        low, high = first.expected_low, first.expected_high
        return evidence(
            event.machine,
            event.signal,
            first.unit,
            (event.start_ms, event.detected_ms),
            values,
            "max" if event.kind == "above_expected" else "min",
            (low, high) if low is not None and high is not None else None,
            first.model,
        )

    def _usual(self, event: FaultEvent) -> Evidence | None:
        before = event.start_ms - BEFORE_STEPS * self._step_ms
        _, values = self._history.values((event.machine, event.signal), before, event.start_ms)
        if len(values) < 3:
            return None
        unit = event.evidence[0].unit
        return evidence(event.machine, event.signal, unit, (before, event.start_ms), values, "mean", None, None)
