"""The composition root and the one thread that does everything but waiting for the network.

A reading is acknowledged to the plant's broker after it is on disk. A closed bucket moves the forecasters, may open an
event; an event gets a recommendation and a report; all of it is in the outbox before anybody hears of it."""

from __future__ import annotations

import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from edge_agent import mapping as mapping_file
from edge_agent.accounting import NotASample, books
from edge_agent.broker import Arrival, Link
from edge_agent.carried import Inbox
from edge_agent.clock import Clock, Shift, Timekeeper, correction
from edge_agent.config import AgentSettings
from edge_agent.decisions import Decisions
from edge_agent.enrolment import Keeper
from edge_agent.explain import explain_shown
from edge_agent.flow import TokenBucket
from edge_agent.health import Tally, rss_bytes, write_status
from edge_agent.history import Grid, History, Key
from edge_agent.intake import Intake, Row, work_order
from edge_agent.known_inputs import KnownInputs
from edge_agent.lists import Lists
from edge_agent.notebook import SLOT as READER
from edge_agent.notebook import Notebook, note_of
from edge_agent.outbox import Outbox
from edge_agent.outgoing import Outgoing
from edge_agent.plans import Made, Plans
from edge_agent.privacy import Gate
from edge_agent.reporting import SLOT as WRITER
from edge_agent.reporting import Beside, Reporting
from edge_agent.runtimes import LoadedModel
from edge_agent.sent import NO_LANE, SentLog
from edge_agent.skills.forecast import ForecastSkill
from edge_agent.skills.remaining_life import SLOT as LIFE
from edge_agent.skills.remaining_life import Births, RemainingLifeSkill
from edge_agent.skills.watch import Watch, WatchSettings, WatchState
from edge_agent.storage import disk_full
from edge_agent.updates import Change, Fetch, Updates, write_durably
from edge_agent.uplink import Uplink
from protocol.catalogue import ItemCard
from protocol.clocks import ClockConfidence
from protocol.correction import Correction
from protocol.covariates import KnownInput, from_answer, from_event, from_reading, from_work_order
from protocol.demand_windows import SPARE_PARTS
from protocol.enrolment import Granted
from protocol.errors import MillwrightError, Reason, Redirected, Refused, TryLater
from protocol.feedback import Feedback
from protocol.plans import Asked
from protocol.prepared import prepare
from protocol.purchases import PurchaseProposal, StockLevel
from protocol.reading.notes import Note, NoteReading
from protocol.reports import FaultEvent, Forecast, Recommendation, RemainingLife
from protocol.schedules import Shop
from protocol.sync import (
    ANSWER,
    HEARTBEAT,
    NOTE,
    Ack,
    Command,
    Message,
    Reply,
    Resend,
    decode,
    encode,
    envelope,
)
from protocol.topics import Channel, Topic
from protocol.twin import Desired, Heartbeat, Reported, Role, RunningModel, SkillHealth, State
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
HEARTBEAT_S = 5.0
REPORTED_S = 30.0
LEARNED_S = 300.0
"""What a power cut can cost of what the forecaster has learned."""
MAX_ARRIVALS_A_STEP = 2000
WATCH_SAVED_EVERY = 60
MONITOR_SLOT = "fault.monitor"
MOST_EXPLAINED = 8
"""Signals with an open event whose forecasts are explained each time; an explanation costs some tens of milliseconds."""
BIRTHS = "births.json"
NOTE_COUNTS_MS = 12 * 3_600_000
"""A note written so long before an event still speaks of it."""


class Agent:
    """One gateway. `step` does what there is to do and returns; `run` repeats it until `stop`."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        clock: Timekeeper,
        plant: Link,
        uplink: Link,
        fetch: Fetch,
        version: str,
        boot_id: str,
        birth_ms: int,
        keeper: Keeper | None = None,
    ) -> None:
        prepare()
        self._settings = settings
        self._plant = plant
        self._link = uplink
        self._keeper = keeper
        self._version = version
        self.boot_id = boot_id
        self._folder = Path(settings.data_dir)
        self._mapping = mapping_file.load(Path(settings.mapping))
        self._topic = Topic(settings.site, settings.gateway, Channel.STATE, settings.root)
        self._history = History(self._folder / "history.db")
        self._clock = clock
        clock.not_before(self._history.newest_stamped_ms())
        self._outbox = Outbox(self._folder / "outbox.db", settings.max_outbox_bytes)
        simulated = settings.clock.simulated
        self._intake = Intake(self._mapping, clock.now_ms, None if simulated else settings.clock.accept_future_s)
        self._simulated_ms = self._history.newest_ms() if simulated else None
        f = settings.forecast
        self._life = RemainingLifeSkill(settings.step_ms, _births(self._folder / BIRTHS))
        self._known = KnownInputs(self._history)
        self._forecast = ForecastSkill(
            step_ms=settings.step_ms,
            horizon=f.horizon_steps,
            season=f.season_steps,
            correction=lambda horizon: Correction(horizon, every=f.every_steps),
            known=self._known.columns,
        )
        self._watch = Watch(
            settings.site,
            settings.gateway,
            WatchSettings(
                step_ms=settings.step_ms,
                false_alarms_per_machine_month=settings.watch.false_alarms_per_machine_month,
                lead_time_s=settings.watch.lead_time_s,
                untaught_buckets=settings.watch.untaught_buckets,
                warm_up=max(60, min(f.season_steps, 288) + 6),
            ),
        )
        self._grid = Grid(settings.step_ms, max(2 * f.season_steps, 512))
        self._sent = SentLog(self._folder / "sent", clock.now_ms, clock.monotonic_s)
        self._gate = Gate(settings.share, self._folder, self._now_ms, self._history.readings, self._stays)
        self._gate.knows(machines=[*self._mapping.file.machines, *{key[0] for key in self._history.units}])
        self._outgoing = Outgoing(self._folder, settings.step_ms, settings.share, self._history, self._gate, self._send)
        self._say_whether_clock_is_known()
        replay = TokenBucket(settings.replay.messages_per_s or None, settings.replay.burst)
        self._uplink = Uplink(uplink, self._outbox, self._topic, clock.monotonic_s, replay=replay)
        self._carried = Inbox(
            self._folder, self._topic, self._settle, self._take_word, lambda *n: self.tally.note(*n), self._take_granted
        )
        self._updates = Updates(self._folder / "bundles", fetch, clock.now_ms, settings.runtime)
        self.tally = Tally()
        self._decisions = Decisions(self._folder, settings, self.tally.note, self._mapping.machine_type)
        self._lists = Lists(self._folder, self._decisions.catalogue, settings.recommend, self.tally.note)
        self._notebook = Notebook(self._folder, self.tally.note)
        self._gate.knows(people=self._notebook.authors())
        self._reporting = Reporting(
            self._history,
            self._mapping.labels,
            settings.step_ms,
            settings.write.mode,
            clock.monotonic_s,
            self.tally.note,
        )
        types, machines = self._mapping.machine_type, self._mapping.labels.machines
        self._plans = Plans(self._folder, self._decisions.catalogue, self.tally.note, types=types, machines=machines)
        self._demand_model: LoadedModel | None = None
        self._batch: list[Arrival] = []
        self._unkept: list[Arrival] = []
        self._to_move: list[Shift] = []
        self._moved: list[Shift] = []
        self._batch_since_s = 0.0
        self._buckets = 0
        self._forecasts: dict[Key, Forecast] = {}
        self._open_events: dict[Key, str] = {}
        self._wanted: Desired | None = None
        self._changes: list[tuple[list[Change], int]] = []
        self._update_thread: threading.Thread | None = None
        self._update_retry_s = 0.0
        self._heartbeat_s = self._reported_s = self._forget_s = self._status_s = -1e9
        self._learned_s = clock.monotonic_s()
        self._birth_ms = birth_ms
        self._announced = False
        self._started_s = clock.monotonic_s()
        self._stop = threading.Event()
        self._subscribe()
        self._refill_grid()
        restore_watch(self._watch, self._folder / "watch.json", self.tally.note)
        for change in self._updates.restore():
            self._install(change)
        self._remember()
        self._outgoing.resume(self._grid.closed_until_ms)
        for card in self._decisions.catalogue.card:
            self._send(card, known_as=f"{card.id}@{card.issued_ms}")

    def _refill_grid(self) -> None:
        """The newest buckets from disk, so that neither a restart nor a corrected clock costs history."""
        newest = min(self._history.newest_ms(), self._now_ms())
        until = newest - newest % self._settings.step_ms
        if until:
            start = until - self._grid.keep * self._settings.step_ms
            for key in sorted(self._history.keys()):
                self._grid.series[key] = self._history.buckets(key, start, self._settings.step_ms, self._grid.keep)
            self._grid.closed_until_ms = until
            self._grid.add(self._history.rows_since(until))

    def _remember(self) -> None:
        """What the forecaster had learned before the restart; a memory that does not fit is left, and told."""
        try:
            self._forecast.restore((self._folder / "forecast.state").read_bytes())
        except FileNotFoundError:
            return
        except Refused as why:
            self.tally.note(f"refused.{why.reason}")
            log.warning("the forecaster starts anew: %s", why)

    def _save_learned(self) -> None:
        self._save("forecast.state", self._forecast.state())

    def _keep_accounts(self, *, at_once: bool = False) -> None:
        """How far signals were shared, what was sent. Without it the next start looks further back, and counts are
        missing."""
        for file, keep in (("sharing.json", self._outgoing.keep), ("sent", lambda: self._sent.keep(at_once=at_once))):
            try:
                keep()
            except OSError as error:
                self._not_saved(file, error)

    def _save(self, file: str, payload: bytes) -> bool:
        """Durably, or not at all: a full disk costs what was learned since the last time, not the gateway."""
        try:
            write_durably(self._folder / file, payload)
        except OSError as error:
            self._not_saved(file, error)
            return False
        return True

    def _not_saved(self, file: str, error: OSError) -> None:
        self.tally.note(f"not_saved.{file}")
        log.warning("%s was not saved: %s", file, error)

    # life -----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends `run` after the step in progress; safe from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Steps until `stop`, then leaves everything committed and says goodbye."""
        while not self._stop.is_set():
            self.step(0.05)
        self.close()

    def close(self) -> None:
        """Commits, lets the outbox out for a moment, tells the server that this is no accident, and closes."""
        self._commit_batch()
        self._notebook.keep()
        self._save_watch()
        for _ in range(40):  # two seconds at most: the outbox is on disk, the rest goes out at the next start
            if not self._link.connected or not self._waiting():
                break
            self._uplink.pump()
            self._hear_uplink(0.05)
        self._keep_accounts(at_once=True)
        self._clock.keep(at_once=True)
        self._write_status()
        self._save_learned()
        if self._link.connected:
            self._say(Channel.STATE, encode(self._state(online=False)), retain=True)
        self._link.close()
        self._plant.close()
        self._outbox.close()
        self._history.close()
        self._lists.close()

    def step(self, wait_s: float) -> None:
        """Takes in what waits, commits when it is time, closes buckets, answers, sends. A full disk costs what the step
        could not write, which is counted, and not the gateway."""
        try:
            self._step(wait_s)
        except (sqlite3.Error, OSError) as error:
            if not disk_full(error):
                raise
            self.tally.note("disk_full")
            log.warning("the disk is full: %s", error)

    def _step(self, wait_s: float) -> None:
        self._hear_plant(wait_s)
        self._hear_uplink(0.0)
        self._look_at_clock()
        if self._batch and self._due():
            self._commit_batch()
        self._close_buckets()
        self._outgoing.pump(self._now_ms())
        self._install_changes()
        self._look_after_updates()
        if self._keeper is not None:
            self._keeper.look(self._link.connected, self.tally.note)
        self._keep_time()
        if self._keep():
            self._keep_accounts()
        self._uplink.pump()

    # the plant --------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        for topic_filter in self._mapping.filters():
            self._plant.subscribe(topic_filter)
        self._plant.subscribe(self._topic.sibling(Channel.SHOP_FEEDBACK).text)
        for channel in (Channel.DOWN_ACK, Channel.DOWN_RESEND, Channel.DOWN_COMMAND, Channel.TWIN_DESIRED):
            self._link.subscribe(self._topic.sibling(channel).text)

    def _hear_plant(self, wait_s: float) -> None:
        arrival = self._plant.receive(wait_s)
        for _ in range(MAX_ARRIVALS_A_STEP):
            if arrival is None:
                return
            if not self._batch:
                self._batch_since_s = self._clock.monotonic_s()
            self._batch.append(arrival)
            if len(self._batch) >= max(self._settings.commit_after_messages, 500):
                return
            arrival = self._plant.receive(0.0)

    def _due(self) -> bool:
        waited_ms = (self._clock.monotonic_s() - self._batch_since_s) * 1000
        return len(self._batch) >= self._settings.commit_after_messages or waited_ms >= self._settings.commit_after_ms

    def _commit_batch(self) -> None:
        """The group commit: everything that waits, in one transaction; then, and only then, the acknowledgements."""
        batch = self._batch
        if not batch:
            return
        rows: list[Row] = []
        refused: list[tuple[str, bytes, Refused, int]] = []
        feedback_topic = self._topic.sibling(Channel.SHOP_FEEDBACK).text
        messages = 0
        for arrival in batch:
            try:
                if arrival.topic == feedback_topic:
                    self._take_feedback(arrival.payload)
                    self._unkept.append(arrival)
                elif arrival.topic.startswith(self._settings.root + "/"):
                    self.tally.note("plant.not_asked_for")  # some brokers hand a newcomer every retained message
                elif kind := self._mapping.wire_kind(arrival.topic):
                    self._take_word_of_the_plant(kind, arrival.payload)
                    self._unkept.append(arrival)
                else:
                    messages += 1
                    good, bad = self._intake.read(arrival.topic, arrival.payload, arrival.retained)
                    rows += good
                    refused += [(arrival.topic, arrival.payload, why, self._clock.now_ms()) for why in bad]
            except Refused as why:
                self.tally.note(f"quarantine.{why.reason}.other")
                refused.append(
                    (arrival.topic, arrival.payload, NotASample(why.reason, why.detail), self._clock.now_ms())
                )
            except TryLater as why:
                self.tally.note(f"quarantine.{Reason.QUEUE_FULL}.other")
                no_room = NotASample(Reason.QUEUE_FULL, str(why))
                refused.append((arrival.topic, arrival.payload, no_room, self._clock.now_ms()))
        words = [id(word) for word in self._unkept]
        here = self._intake.stamped_here
        try:
            stored = self._history.store(rows, refused, lambda s: books(messages, len(rows), s, refused), here)
        except TryLater as error:
            self.tally.note("history.no_room")
            log.warning("readings are not taken in: %s", error)
            self._batch = [arrival for arrival in batch if id(arrival) not in words]
            return
        self._batch = []
        self._keep()
        self._keep_births()
        for arrival in batch:
            if id(arrival) not in words:
                self._plant.acknowledge(arrival)
        self._gate.knows(machines={row[0] for row in stored.fresh})
        self._grid.add(stored.fresh)
        for row in stored.fresh:
            if not self._intake.clock_known and not row[6] and row[:2] not in here:
                self._clock.plant_says(row[2])
        if self._simulated_ms is not None:
            self._simulated_ms = max([self._simulated_ms, *(r[2] for r in stored.fresh if not r[6])])

    def _keep(self) -> bool:
        """Makes durable what was sent since the last time; only then is a word of the plant acknowledged that is part of
        it. Where there is no room, it waits in memory for some, and people hear of it all the same."""
        try:
            self._outbox.commit()
        except TryLater as error:
            self.tally.note("outbox.no_room")
            log.warning("nothing is durable for now: %s", error)
            return False
        for arrival in self._unkept:
            self._plant.acknowledge(arrival)
        self._unkept.clear()
        return True

    def _take_word_of_the_plant(self, kind: str, payload: bytes) -> None:
        """A message that already is ours, by the section of the mapping file that names its topic."""
        if kind == "work_orders":
            self._take_work_order(payload)
        elif kind == "known_inputs":
            self._know(decode(payload, KnownInput, limit_bytes=20_000))
        elif kind == "production":
            self._decisions.hear_orders(decode(payload, Shop))
            self.tally.note("production.heard")
        elif kind == "stock_levels":
            level = decode(payload, StockLevel, limit_bytes=50_000)
            if self._decisions.hear_stock(level):
                self.tally.note("stock_levels.heard")
                self._send(level, known_as=level.id)
        elif kind == "item_cards":
            card = decode(payload, ItemCard, limit_bytes=20_000)
            self._lists.hear(card)
            self._send(card, known_as=f"{card.id}@{card.issued_ms}")
        elif kind == "notes":
            self._take_note(decode(payload, Note, limit_bytes=50_000))

    def _take_note(self, note: Note) -> None:
        """Somebody wrote something: it is read, and a failure that it surely tells of is asked about."""
        self._put(note, note.id)
        reading = self._notebook.hear(note, self._now_ms())
        if reading is not None:
            self._tell_reading(reading)

    def _tell_reading(self, reading: NoteReading) -> None:
        self._send(reading, known_as=reading.id)
        self._keep()
        self._show(Channel.SHOP_READING, reading)
        for known in from_reading(reading):
            self._know(known)
        open_symptoms, kind = self._watch.open_symptoms(reading.machine), self._mapping.machine_type(reading.machine)
        made = self._lists.for_note(reading, open_symptoms, kind, self._now_ms())
        self._tell_list(made, Asked.NOTE, reading.issued_ms)

    def _tell_list(self, made: Recommendation | None, asked: Asked, asked_ms: int) -> None:
        """A list that no report carries, and plans of how to do what it says."""
        if made is not None and self._send(made, known_as=made.id):
            self._lists.shown(made)
            self._keep()
            self._show(Channel.SHOP_RECOMMENDATION, made)
            self._tell_plans(self._plans.for_list(self._lists, made, asked, asked_ms, self._now_ms()))

    def _take_feedback(self, payload: bytes) -> None:
        feedback = decode(payload, Feedback, limit_bytes=50_000)
        self.tally.note("feedback.received")
        if not self._put(feedback, feedback.id):
            self.tally.note("feedback.duplicate")
        self._learn_from(feedback)

    def _learn_from(self, feedback: Feedback) -> None:
        """An answer shows in the next list at once; an accepted item is something known of the future."""
        shown = self._lists.answered(feedback)
        if shown is not None:
            told = from_answer(feedback, shown)
            comment = note_of(feedback, shown.machine)
            if comment is not None:
                self._heed(comment)
        else:
            told = [*self._decisions.answered(feedback), *self._notebook.answered(feedback)]
        for known in told:
            self._know(known)
        self._tell_plans(self._plans.answered(self._lists, feedback, shown, self._now_ms()))

    def _tell_plans(self, made: Made | None) -> None:
        """Ranked plans and their list; what an accepted one gives. Call after everything that they rest on was told."""
        if made is None:
            return
        for known in made.known:
            self._know(known)
        for card in made.cards:
            self._send(card, known_as=f"{card.id}@{card.issued_ms}")
        for plan in made.plans:
            if self._send(plan, known_as=plan.id):
                self.tally.note("plans.told")
        if made.ranking is not None and self._send(made.ranking, known_as=made.ranking.id):
            self._lists.shown(made.ranking)
        self._keep()
        for plan in made.plans:
            self._show(Channel.SHOP_PLAN, plan)

    def _heed(self, comment: Note) -> None:
        """What somebody wrote beside an answer; the answer itself counts without it."""
        try:
            self._take_note(comment)
        except TryLater:
            self.tally.note("outbox.not_accepted.note")

    def _take_work_order(self, payload: bytes) -> None:
        order = work_order(payload)
        self._life.hear(order)
        self._notebook.finished(order)
        self.tally.note("work_orders.received")
        self.tally.note("work_orders.stored" if self._put(order, order.id) else "work_orders.duplicate")
        known = from_work_order(order)
        if known is not None:
            self._know(known)

    def _know(self, known: KnownInput) -> None:
        """Something of the future became known: the next forecast sees it, and the server learns from it."""
        if self._known.tell(known):
            self.tally.note(f"known_inputs.{known.source}")
        self._send(known, known_as=f"{known.machine}/{known.id}@{known.known_ms}")

    # buckets, events, answers -----------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return self._clock.now_ms() if self._simulated_ms is None else self._simulated_ms

    def _say_whether_clock_is_known(self) -> None:
        known = self._simulated_ms is not None or self._clock.known
        self._intake.clock_known = self._outgoing.clock_known = known

    def _look_at_clock(self) -> None:
        """When the time turns out to be another one, or is known at last, what was stamped here is moved, windows begin
        anew from the disk, and what waited goes up. On a full disk that waits for room."""
        if self._simulated_ms is not None:
            return
        was_known = self._clock.known
        shifts = self._clock.check()
        self._say_whether_clock_is_known()
        if shifts is not None:
            self.tally.note("clock.corrected")
            self._to_move += shifts
        if self._to_move and not self._move_stamps():
            return
        self._clock.keep()
        if shifts is not None or self._clock.known != was_known or self._moved:
            self._link.time_is_known()
            self._grid = Grid(self._settings.step_ms, self._grid.keep)
            self._refill_grid()
            moved, self._moved = self._moved, []
            self._outgoing.corrected(moved, self._grid.closed_until_ms)

    def _move_stamps(self) -> bool:
        """Whether there was room to put right what was stamped by a wrong clock; the server is told how."""
        try:
            self.tally.note("clock.observations_moved", self._history.retime(self._to_move, self.boot_id))
        except TryLater as error:
            self.tally.note("clock.no_room")
            log.warning("stamps of the wrong clock stay for now: %s", error)
            return False
        for shift in self._to_move:
            self._send(correction(shift, self.boot_id, self._clock.now_ms()))
        self._moved, self._to_move = self._to_move, []
        return True

    def _close_buckets(self) -> None:
        lateness_ms = (
            self._settings.step_ms // 3 if self._simulated_ms is not None else min(self._settings.step_ms, 5000)
        )
        for start_ms, means in self._grid.ready(self._now_ms(), lateness_ms):
            self._close_bucket(start_ms, means)

    def _close_bucket(self, start_ms: int, means: dict[Key, float]) -> None:
        end_ms = start_ms + self._settings.step_ms
        self._buckets += 1
        residuals = self._forecast.observe(start_ms, means)
        types = {machine: self._mapping.machine_type(machine) for machine, _ in residuals}
        for event in self._watch.update(start_ms, end_ms, residuals, types, self._history.units):
            self._tell_event(event, end_ms)
        if self._buckets % WATCH_SAVED_EVERY == 0:
            self._save_watch()
        self._decide(end_ms)
        self._life.observe(start_ms, means, {m: self._mapping.machine_type(m) for m, _ in means})
        self._outgoing.closed(start_ms, means)
        if self._buckets % self._settings.forecast.every_steps == 0:
            lives = list(self._life.issue(end_ms))
            self._decisions.hear_lives(lives)
            for life in lives:
                self._send(life)
                self.tally.note("lives.told")
                self._foretell(life, end_ms)
            for forecast in self._forecast.issue(end_ms, self._grid.series):
                named = msgspec.structs.replace(
                    forecast, unit=self._history.units.get((forecast.machine, forecast.signal), "")
                )
                self._forecasts[named.machine, named.signal] = named
                self._send(named)
                self._show(Channel.SHOP_FORECAST, named)
                self.tally.note("forecasts.issued")
            self._explain_some()

    def _decide(self, end_ms: int) -> None:
        """What to buy and what to run when, as soon as there is something new to say."""
        for made in self._decisions.look(end_ms, self._demand_model):
            bought = isinstance(made, PurchaseProposal)
            if self._send(made, known_as=made.id):
                self.tally.note("purchases.told" if bought else "schedules.told")
            self._keep()
            self._show(Channel.SHOP_PURCHASE if bought else Channel.SHOP_SCHEDULE, made)

    def _explain_some(self) -> None:
        """Why: for every signal with an open event, and for one other in turn."""
        alarmed = {key: event for key, event in self._open_events.items() if key in self._forecasts}
        others = [key for key in self._forecasts if key not in alarmed]
        turn = [others[self._buckets // self._settings.forecast.every_steps % len(others)]] if others else []
        for key in [*list(alarmed)[:MOST_EXPLAINED], *turn]:
            forecast = self._forecasts[key]
            why = explain_shown(
                forecast,
                self._forecast.members(forecast),
                self._grid.series[key],
                season=self._settings.forecast.season_steps,
                event=alarmed.get(key, ""),
                known=self._known.columns,
            )
            if why is not None:
                self._send(why)
                self.tally.note("forecasts.explained")

    def _save_watch(self) -> None:
        self._save("watch.json", msgspec.json.encode(self._watch.state()))

    def _tell_event(self, event: FaultEvent, end_ms: int) -> None:
        for known in from_event(event):
            self._know(known)
        if event.end_ms is not None:
            self._open_events.pop((event.machine, event.signal), None)
            self._outgoing.around(event)
            self._send(event)
            self.tally.note("events.closed")
            self._show(Channel.SHOP_EVENT, event)
            return
        self._open_events[event.machine, event.signal] = event.id
        recommendation = self._lists.for_event(event, self._watch.open_symptoms(event.machine), end_ms)
        reading = self._notebook.about(event.machine, event.start_ms - NOTE_COUNTS_MS)
        beside = Beside(
            forecast=self._forecasts.get((event.machine, event.signal)),
            recommendation=recommendation,
            life=self._decisions.life(event.machine),
            reading=None if reading is None else self._gate.worded(reading),
        )
        report = self._reporting.report(event, beside, end_ms)
        self._send(event)
        self.tally.note("events.opened")
        if recommendation is not None and self._send(recommendation, known_as=recommendation.id):
            self._lists.shown(recommendation, report.id)
        if self._send(report, known_as=report.id):
            self.tally.note("reports.written")
        self._keep()
        for channel, shown in (
            (Channel.SHOP_EVENT, event),
            (Channel.SHOP_RECOMMENDATION, recommendation),
            (Channel.SHOP_REPORT, report),
        ):
            if shown is not None:
                self._show(channel, shown)
        if recommendation is not None:
            made = self._plans.for_list(self._lists, recommendation, Asked.EVENT, event.detected_ms, end_ms)
            self._tell_plans(made)

    def _foretell(self, life: RemainingLife, now_ms: int) -> None:
        open_symptoms, kind = self._watch.open_symptoms(life.machine), self._mapping.machine_type(life.machine)
        made = self._lists.for_life(life, open_symptoms, kind, now_ms)
        self._tell_list(made, Asked.RISK, life.issued_ms)

    # out --------------------------------------------------------------------------------------------------------------

    def _send(self, message: Message, known_as: str = "") -> bool:
        """Puts a message into the outbox; durable after its next commit. False if it was told before, or if there is no
        room for it, which is counted."""
        try:
            return self._put(message, known_as)
        except TryLater:
            self.tally.note(f"outbox.not_accepted.{message.message_class}")
            return False

    def _put(self, message: Message, known_as: str) -> bool:
        """The same for what somebody else has to be told of: raises TryLater if there is no room."""
        released = self._gate.out(message)
        if released is None:
            return False
        message_class = message.message_class
        wrapped = envelope(
            released,
            site=self._settings.site,
            gateway=self._settings.gateway,
            seq=self._outbox.next_seq(message_class),
            boot=self.boot_id,
            clock=self._clock.confidence if self._simulated_ms is None else ClockConfidence.HOLDOVER,
            time_ms=self._clock.now_ms(),
            monotonic_ms=round(self._clock.monotonic_s() * 1000),
        )
        payload = encode(wrapped)
        added = self._outbox.add(message_class, payload, known_as)
        if added:
            self._sent.sent(message_class, message.type_name, payload)
        return added

    def _stays(self, type_name: str, reason: str) -> None:
        self._sent.kept(type_name, reason)
        self.tally.note(f"kept_here.{reason}")

    def _show(self, channel: Channel, message: msgspec.Struct) -> None:
        """For HMIs on the plant's broker; what nobody hears there is still in the outbox."""
        try:
            self._plant.publish(self._topic.sibling(channel).text, encode(message))
        except TryLater:
            self.tally.note("shop.not_shown")

    def _say(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        try:
            self._link.publish(self._topic.sibling(channel).text, payload, retain=retain)
            self._sent.sent(NO_LANE, channel.value, payload)
        except TryLater:
            self.tally.note("uplink.not_said")

    # the server -------------------------------------------------------------------------------------------------------

    def _hear_uplink(self, wait_s: float) -> None:
        for _ in range(200):
            arrival = self._link.receive(wait_s)
            if arrival is None:
                return
            wait_s = 0.0
            try:
                self._take_word(arrival)
            except Refused as why:
                self.tally.note(f"refused.{why.reason}")
                log.warning("refused %s: %s", arrival.topic, why)
            except TryLater as error:  # an acknowledgement comes again after the resend
                self.tally.note("uplink.not_taken")
                log.warning("%s comes too early: %s", arrival.topic, error)
            self._link.acknowledge(arrival)

    def _settle(self, ack: Ack) -> int:
        """The server's word on what it has, whichever way it came."""
        return sum(self._outbox.settle(lane, told) for lane, told in ack.classes.items())

    def _take_word(self, arrival: Arrival) -> None:
        topic = Topic.parse(arrival.topic, self._settings.root)
        if (topic.site, topic.gateway) != (self._settings.site, self._settings.gateway):
            return  # some brokers hand a newcomer every retained message
        if topic.channel is Channel.DOWN_ACK:
            ack = decode(arrival.payload, Ack)
            self.tally.note("outbox.acked", self._uplink.acknowledged(ack))
            if ack.time is not None:
                self._clock.heard_server(ack.time)
        elif topic.channel is Channel.DOWN_RESEND:
            self._uplink.send_again(decode(arrival.payload, Resend))
        elif topic.channel is Channel.TWIN_DESIRED:
            desired = decode(arrival.payload, Desired)
            if desired.version > self._updates.applied_version:
                self._wanted = desired
                self._update_retry_s = 0.0
        elif topic.channel is Channel.DOWN_COMMAND:
            self._obey(decode(arrival.payload, Command))

    def _obey(self, command: Command) -> None:
        late = command.expires_ms < self._clock.now_ms()
        reason = Reason.EXPIRED if late else f"{Reason.UNKNOWN_TYPE}: no command {command.name!r}"
        done = command.name in (HEARTBEAT, ANSWER, NOTE) and not late
        if done and command.name == HEARTBEAT:
            self._heartbeat_s = -1e9
        elif done and command.name == NOTE:
            note = decode(bytes(command.arguments), Note)
            try:
                self._take_note(msgspec.structs.replace(note, machine=self._gate.own_name(note.machine)))
            except TryLater as error:
                done, reason = False, f"{Reason.QUEUE_FULL}: {error}"
        elif done:
            self._learn_from(decode(bytes(command.arguments), Feedback))
            self.tally.note("feedback.from_server")
        reply = Reply(id=command.id, done=done, reason="" if done else str(reason), result=msgspec.Raw(b"null"))
        self._say(Channel.UP_REPLY, encode(reply))

    def _look_after_updates(self) -> None:
        """Fetching and proving happen on a thread of their own; the swap here, between two buckets."""
        if self._update_thread is not None and self._update_thread.is_alive():
            return
        self._update_thread = None
        if self._wanted is None or self._clock.monotonic_s() < self._update_retry_s:
            return
        wanted = self._wanted
        self._update_thread = threading.Thread(target=self._update, args=(wanted,), name="updates", daemon=True)
        self._update_thread.start()

    def _update(self, desired: Desired) -> None:
        try:
            self._changes.append((self._updates.apply(desired), desired.version))
            if self._wanted is desired:
                self._wanted = None
        except Refused:
            self._wanted = None if self._wanted is desired else self._wanted
        except MillwrightError as error:
            self.tally.note("updates.postponed")
            if isinstance(error, Redirected):
                self.tally.note("updates.redirected")
            self._update_retry_s = self._clock.monotonic_s() + 3.0
            log.info("update waits: %s", error)

    def _install_changes(self) -> None:
        while self._changes:
            changes, _ = self._changes.pop(0)
            for change in changes:
                self._install(change)
            self._say_reported()
            self._say(Channel.STATE, encode(self._state(online=True)), retain=True)

    def _install(self, change: Change) -> None:
        step = self._settings.step_ms

        def read(key: Key, start_ms: int, buckets: int) -> np.ndarray:
            return self._history.buckets(key, start_ms, step, buckets)

        if change.slot == LIFE:
            if change.model is None:
                self._life.remove()
            else:
                self._life.install(change.role, change.model, read)
        elif change.slot.startswith("recommend."):
            self._lists.install(change.model)
        elif change.slot == READER:
            self._notebook.install(change.model if change.role is Role.SERVING else None)
            for reading in self._notebook.unread(self._now_ms()):
                self._tell_reading(reading)
        elif change.slot == WRITER:
            self._reporting.install(change.model if change.role is Role.SERVING else None)
        elif change.slot == SPARE_PARTS:
            self._demand_model = change.model if change.role is Role.SERVING else None
        elif change.slot.startswith(MONITOR_SLOT):
            self._install_monitor(change)
        elif change.model is None:
            self._forecast.remove(change.slot)
        else:
            self._forecast.install(change.slot, change.role, change.model, read, self._grid.closed_until_ms)
        self.tally.note("models.swapped")

    def _install_monitor(self, change: Change) -> None:
        model = change.model
        if model is None or model.monitor is None or change.role is not Role.SERVING:
            self._watch.remove_monitor(change.slot)
        else:
            self._watch.install_monitor(change.slot, model.passport.series, model.monitor, model.ref)

    # telling how it goes ----------------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        now_s = self._clock.monotonic_s()
        if not self._link.connected:
            self._announced = False
        elif not self._announced:
            self._announced = True
            self._say(Channel.STATE, encode(self._state(online=True)), retain=True)
            self._reported_s = -1e9
        if now_s - self._heartbeat_s >= HEARTBEAT_S:
            self._heartbeat_s = now_s
            self._notebook.keep()
            self._send(self._heartbeat())
            self.tally.note("dead_letters.put_back", self._outbox.take_back())
        if int(now_s * 2) != int(self._status_s * 2):
            self._status_s = now_s
            self._write_status()
            self._carried.look()
        if now_s - self._reported_s >= REPORTED_S:
            self._reported_s = now_s
            self._say_reported()
        if now_s - self._learned_s >= LEARNED_S:
            self._learned_s = now_s
            self._save_learned()
        if now_s - self._forget_s >= 3600:
            self._forget_s = now_s
            oldest_ms = self._now_ms() - int(self._settings.history_days * 86_400_000)
            self._history.forget_before(oldest_ms)
            self._known.forget_before(oldest_ms)

    def _take_granted(self, granted: Granted) -> None:
        if self._keeper is not None:
            self._keeper.hand(granted, self.tally.note)

    def _say_reported(self) -> None:
        document = Reported(
            applied_version=self._updates.applied_version,
            boot_id=self.boot_id,
            time_ms=self._clock.now_ms(),
            models=self.models(),
        )
        self._say(Channel.TWIN_REPORTED, encode(document), retain=True)

    def models(self) -> list[RunningModel]:
        """What really runs, with its results counted."""
        return [msgspec.structs.replace(m, results=self._results(m.slot)) for m in self._updates.status()]

    def _results(self, slot: str) -> int:
        if slot.startswith("recommend."):
            return self._lists.results
        if slot == READER:
            return self._notebook.results
        if slot == WRITER:
            return self._reporting.results
        if slot.startswith(MONITOR_SLOT):
            return self._watch.results(slot)
        return self._life.results() if slot == LIFE else self._forecast.results(slot)

    def _state(self, *, online: bool) -> State:
        models = {m.slot: m.version for m in self._updates.status()}
        return State(
            online=online, timestamp=self._birth_ms, boot_id=self.boot_id, agent_version=self._version, models=models
        )

    def counters(self) -> dict[str, int]:
        """Everything counted: intake's books since installation, the rest since boot."""
        gave_way = {"history.gave_way": self._history.gave_way} if self._history.gave_way else {}
        return {
            **self._history.counters(),
            **self.tally,
            "intake.late": self._grid.late,
            "buckets.closed": self._buckets,
            **gave_way,
            **self._uplink.counters(),
            **self._link.counters(),
        }

    def _waiting(self) -> int:
        return sum(lane.waiting for lane in self._outbox.lanes.values())

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            boot_id=self.boot_id,
            time_ms=self._clock.now_ms(),
            uptime_s=round(self._clock.monotonic_s() - self._started_s, 1),
            rss_bytes=rss_bytes(),
            counters=self.counters(),
            skills={
                "forecast": self._forecast.health(),
                "remaining_life": self._life.health(),
                "recommend": SkillHealth(
                    expected=self.tally["recommendations.asked"], results=self.tally["recommendations.made"]
                ),
                "read_notes": SkillHealth(expected=self.tally["notes.heard"], results=self.tally["notes.read"]),
                "write_report": SkillHealth(
                    expected=self.tally["events.opened"], results=self.tally["reports.written"]
                ),
            },
            live_errors=self._forecast.live_errors(),
            outbox={c.value: lane.waiting for c, lane in self._outbox.lanes.items()},
        )

    def _keep_births(self) -> None:
        if self._life.changed and self._save(BIRTHS, msgspec.json.encode(self._life.births)):
            self._life.changed = False

    def _write_status(self) -> None:
        self._keep_births()
        status = msgspec.to_builtins(self._heartbeat())
        lanes = {c.value: msgspec.to_builtins(lane) for c, lane in self._outbox.lanes.items()}
        told = {
            **status,
            "gateway": self._settings.gateway,
            "models": msgspec.to_builtins(self.models()),
            "lanes": lanes,
            "plant_connected": self._plant.connected,
            "uplink_connected": self._link.connected,
            "server_answers": self._uplink.server_answers,
            "disk_full": self._outbox.tight or self._history.tight,
            "bytes_up": self._uplink.bytes_sent,
            "dead_letters": self._outbox.dead_letters(),
            "identity": None if self._keeper is None else self._keeper.told(),
            "clock": self._clock.status(),
        }
        try:
            write_status(self._folder / "status.json", told)
        except OSError as error:
            self._not_saved("status.json", error)


def _births(path: Path) -> Births:
    """When each machine was new; an unreadable file means that every life begins with the next reading."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Births)
    except FileNotFoundError:
        return Births()
    except (*UNREADABLE, OSError) as error:
        log.warning("%s is not readable, ages begin anew: %s", path, error)
        return Births()


def restore_watch(watch: Watch, path: Path, note: Callable[[str], None]) -> None:
    """What the watch had learned; without it, or from another version, it learns again."""
    try:
        watch.restore(msgspec.json.decode(path.read_bytes(), type=WatchState))
    except FileNotFoundError:
        return
    except UNREADABLE as error:
        note(f"refused.{Reason.MALFORMED_JSON}")
        log.warning("%s is left aside, alarms warm up anew: %s", path, error)


def build_agent(
    settings: AgentSettings,
    *,
    clock: Clock,
    plant: Link,
    uplink: Link,
    fetch: Fetch,
    version: str = "0",
    boot_id: str = "",
    birth_ms: int = 0,
    keeper: Keeper | None = None,
) -> Agent:
    """An agent from its parts; nothing runs before `step` or `run`. clock: the machine's, or what keeps the time.
    Raises BadSettings for a bad mapping file."""
    return Agent(
        settings,
        clock=clock if isinstance(clock, Timekeeper) else Timekeeper(clock, Path(settings.data_dir) / "clock.json"),
        plant=plant,
        uplink=uplink,
        fetch=fetch,
        version=version,
        boot_id=boot_id or uuid.uuid4().hex[:12],
        birth_ms=birth_ms or clock.now_ms(),
        keeper=keeper,
    )
