"""What goes wrong, one function each. It breaks something while machines are at work, mends it as a service manager would
(what ended is started again), waits until the gateway has caught up, and reads the books."""

from __future__ import annotations

import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.errors import MillwrightError, NeedsPerson
from protocol.names import MessageClass
from protocol.topics import Channel
from server.drill import books, models
from server.drill.full_disk import SmallDisk
from server.drill.machines import A_STEP, DAY_MS, Beat
from server.drill.namespaces import ApartSite
from server.drill.proxy import Faults
from server.drill.secure import SecureSite
from server.drill.site import AGENT, GATEWAY, SERVER, UPLINK, Site

DISK_MIB = 24
FULL_TOLD = re.compile(r"full|no_room|gave_way|not_accepted|not_saved|shed")


@dataclass
class Outcome:
    """What a case found. holds: None where it could not be tried here, with the reason."""

    holds: bool | None
    evidence: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    reason: str = ""


def _outcome(site: Site, **evidence: Any) -> Outcome:
    read = site.books()
    return Outcome(read.holds, {**evidence, **read.counts}, read.wrong)


def _killed(site: Site, part: str, times: int = 3) -> Outcome:
    took = []
    for _ in range(times):
        with site.at_work():
            time.sleep(1.0)
            site.kill(part)
            time.sleep(1.0)
            site.start(part)
            time.sleep(0.5)
        took.append(round(site.settle(), 1))
    return _outcome(site, kills=times, seconds_to_catch_up=took)


def broker_killed(site: Site) -> Outcome:
    """kill -9 of the uplink's broker amid the traffic, three times: what it had taken and not passed on is gone."""
    return _killed(site, UPLINK)


def server_killed(site: Site) -> Outcome:
    """kill -9 of the server, three times: between commit and acknowledgement too."""
    return _killed(site, SERVER)


def agent_killed(site: Site) -> Outcome:
    """kill -9 of the agent, three times: what it had not acknowledged to the plant's broker comes again."""
    return _killed(site, AGENT)


def stalled_link(site: Site) -> Outcome:
    """The uplink stands and passes nothing, then crawls, then is cut again and again."""
    with site.at_work():
        with site.link.with_faults(Faults(stalled=True)):
            time.sleep(6)
        with site.link.with_faults(Faults(delay_s=0.1, jitter_s=0.3, rate=20_000)):
            time.sleep(4)
        cut = 0
        for _ in range(5):
            time.sleep(0.7)
            cut += site.link.reset()
        with site.link.with_faults(Faults(refused=True)):
            site.link.reset()
            time.sleep(2)
    took = site.settle()
    return _outcome(site, connections_cut=cut, seconds_to_catch_up=round(took, 1))


def duplicated_and_reordered(site: Site) -> Outcome:
    """Every batch that passes is said again, twice, out of order, minutes of traffic late: as a broker in trouble does it."""
    heard: list[tuple[str, bytes]] = []
    listening = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="drill-echo")
    client.on_message = lambda _c, _u, message: heard.append((message.topic, bytes(message.payload)))
    client.on_subscribe = lambda *_: listening.set()
    client.connect("127.0.0.1", site.link.port)
    client.loop_start()
    client.subscribe([(site.topic.sibling(Channel.up(c)).text, 1) for c in MessageClass])
    listening.wait(10)
    with site.at_work():
        time.sleep(5)
    site.settle()
    client.unsubscribe("#")
    again = list(heard) * 2
    random.Random(7).shuffle(again)  # noqa: S311 - no secret
    with site.at_work():
        for topic, payload in again:
            client.publish(topic, payload, qos=1).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
    outcome = _outcome(site, batches_said_again=len(again))
    if not outcome.evidence["told_again"]:
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "no duplicate was counted by the ledger"]
    return outcome


POISON = {
    "not JSON": b'{"envelopes":[{"specversion"',
    "not UTF-8": b'{"envelopes":["\xff\xfe"]}',
    "wrong type": b'{"envelopes":{"a":1}}',
    "deeply nested": b'{"envelopes":' + b"[" * 200_000,
    "too large": b'{"envelopes":[' + b" " * 2_000_000 + b"]}",
    "a number beyond numbers": b'{"envelopes":[],"shed":[[1,99999999999999999999999999]]}',
}
"""Batches that no gateway of ours sends."""
POISONED_READINGS = (b"{", b"\xff", b'{"value":1e999,"timestamp":1}', b'{"value":"NaN"}', b"[" * 100_000, b"")


def poison_message(site: Site) -> Outcome:
    """Bytes that no decoder may fall over, on the plant's side and on the server's: refused with a reason, counted, and what
    is behind them goes on."""
    before, before_here = sum(books.quarantined(site.database).values()), _put_aside(site)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="drill-poison")
    client.connect("127.0.0.1", site.link.port)
    client.loop_start()
    with site.at_work():
        for payload in POISON.values():
            for channel in (Channel.UP_EVENT, Channel.UP_FEEDBACK):
                client.publish(site.topic.sibling(channel).text, payload, qos=1).wait_for_publish(30)
        for payload in POISONED_READINGS:
            site.machines.publish_raw(site.signals[0].topic, payload)
            site.machines.publish_raw(site.topic.sibling(Channel.SHOP_FEEDBACK).text, payload)
        time.sleep(2)
    client.disconnect()
    client.loop_stop()
    outcome = _outcome(site, poisoned_batches=2 * len(POISON), poisoned_messages=2 * len(POISONED_READINGS))
    refused = books.quarantined(site.database)
    on_the_gateway = _put_aside(site)
    outcome.evidence |= {"server_quarantine": refused, "gateway_quarantine": on_the_gateway}
    if sum(refused.values()) - before != 2 * len(POISON):
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "the server did not count every poisoned batch"]
    if sum(on_the_gateway.values()) - sum(before_here.values()) < len(POISONED_READINGS):
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "the gateway did not count every poisoned reading"]
    return outcome


def _put_aside(site: Site) -> dict[str, int]:
    """Readings that the gateway refused since it was installed, by reason."""
    return {
        name.removeprefix("quarantine."): n
        for name, n in site.status()["counters"].items()
        if name.startswith("quarantine.") and not name.endswith(".other")
    }


def half_a_bundle(site: Site) -> Outcome:
    """A model's bytes come in drops, are cut again and again, and the agent is killed halfway: it goes on where it was, and
    the model before serves meanwhile. Then one comes with altered bytes: refused, and the model before goes on."""
    first = models.roll_out(site, models.made(1, 10))
    site.wait("the first model", lambda: _serves(site) == first.digest)
    before = site.download.counts.down
    second = models.roll_out(site, models.made(2, 6000))
    served_meanwhile = set()
    with site.at_work(), site.download.with_faults(Faults(rate=60_000)):
        for cut in range(6):
            time.sleep(1.0)
            served_meanwhile.add(_serves(site))
            site.download.reset()
            if cut == 3:
                site.kill(AGENT)
                site.start(AGENT)
    site.wait("the second model", lambda: _serves(site) == second.digest)
    passed = site.download.counts.down - before
    third = models.made(3, 6000)
    with site.download.with_faults(Faults(refused=True)):
        models.roll_out(site, third)
        models.spoil(site, third)
    site.wait("the word on the altered model", lambda: bool(_refusals(site)))
    wrong = []
    if served_meanwhile - {first.digest, second.digest, ""}:
        wrong.append(f"served meanwhile: {served_meanwhile}")
    if passed > 1.5 * second.size:
        wrong.append(f"{passed} bytes passed for a model of {second.size}: it began anew instead of going on")
    if _serves(site) != second.digest:
        wrong.append("after the altered model the one before does not serve")
    outcome = _outcome(site, size=second.size, bytes_passed=passed, refused=_refusals(site))
    if wrong:
        outcome.holds, outcome.wrong = False, [*outcome.wrong, *wrong]
    return outcome


def _serves(site: Site) -> str:
    """Digest of what the gateway says it serves in the slot that is played with."""
    models_there = [m for m in site.status().get("models", []) if m["slot"] == models.SLOT]
    serving = [m["digest"] for m in models_there if m["status"] == "serving"]
    return serving[0] if serving else ""


def _refusals(site: Site) -> list[str]:
    there = [m for m in site.status().get("models", []) if m["slot"] == models.SLOT]
    return [m["error"] for m in there if m["status"] == "refused"]


def disk_full(site: Site) -> Outcome:
    """The gateway's disk fills to the last byte while the uplink is cut, stays full, and is freed. Only what may be shed is
    shed, and exactly told; the oldest readings of the history give way to new ones; nobody lays a hand on it."""
    with SmallDisk(site.folder / "disk", DISK_MIB + site.mib) as disk, site.on_a_small_disk(disk.folder) as small:
        small.machines.publish(400)
        small.settle()
        with small.link.with_faults(Faults(refused=True)):
            small.link.reset()
            with small.at_work():
                time.sleep(2)
                for _ in range(10):
                    filled = disk.fill()
                    time.sleep(1)
                lives = small.processes.running[AGENT].poll() is None
                disk.free()
                time.sleep(1)
        took = small.settle()
        told = {n: c for n, c in small.status()["counters"].items() if FULL_TOLD.search(n)}
        read = small.books(full=True)
    wrong = list(read.wrong)
    if not lives:
        wrong.append("the agent ended when the disk was full")
    if not told:
        wrong.append("the gateway counted nothing that tells of a full disk")
    evidence = {
        "bytes_filled": filled,
        "seconds_to_catch_up": round(took, 1),
        "told_by_the_gateway": told,
        **read.counts,
    }
    return Outcome(not wrong, evidence, wrong)


def network_parted(site: Site) -> Outcome:
    """Gateway and broker are in networks of their own, and the cable between them is pulled, loses everything without a word
    (also in one direction only), and comes back; twice it is away for longer than either side waits for a sign of life."""
    with ApartSite(site.folder / "apart") as apart:
        net = apart.net
        apart.machines.publish(200)
        apart.settle()
        with apart.at_work():
            for parted, seconds in (
                (net.pulled(), 5),
                (net.losing(), 5),
                (net.losing(to_hub=False), 5),
                (net.losing(to_gateway=False), 5),
                (net.losing(to_hub=False), 35),
                (net.pulled(), 35),
            ):
                time.sleep(2)
                with parted:
                    time.sleep(seconds)
            waited = sum(lane["waiting"] for lane in apart.status()["lanes"].values())
        took = apart.settle()
        read = apart.books()
    wrong = list(read.wrong)
    if not waited:
        wrong.append("nothing waited on the gateway: the cable was not cut")
    return Outcome(not wrong, {"waited": waited, "seconds_to_catch_up": round(took, 1), **read.counts}, wrong)


def expired_certificate(site: Site) -> Outcome:
    """A gateway that was away for so long that its certificate ended. It works on; when the line is back the broker refuses
    it, it has its certificate renewed over HTTPS by itself, and everything arrives."""
    with SecureSite(site.folder / "secure") as secure:
        secure.machines.publish(200)
        secure.settle()
        with secure.link.with_faults(Faults(refused=True)):
            secure.link.reset()
            secure.kill(AGENT)
            secure.let_certificate_expire(timedelta(days=40))
            ended = secure.certificate().not_valid_after_utc
            secure.start(AGENT)
            with secure.at_work():
                time.sleep(3)
            forecasts = secure.status()["counters"].get("forecasts.issued", 0)
        took = secure.settle()
        renewed = secure.certificate().not_valid_after_utc
        read = secure.books()
    wrong = list(read.wrong)
    if not forecasts:
        wrong.append("no forecast was issued while the certificate was expired")
    if renewed <= ended:
        wrong.append("the certificate was not renewed")
    evidence = {"ended": ended.isoformat(), "renewed_until": renewed.isoformat(), "forecasts_meanwhile": forecasts}
    return Outcome(not wrong, {**evidence, "seconds_to_catch_up": round(took, 1), **read.counts}, wrong)


def another_outbox(site: Site) -> Outcome:
    """The gateway's outbox is gone, later an older copy is put back: each counts for a while before it meets the server."""
    outbox, older = site.data / "outbox.db", site.folder / "older-outbox.db"
    evidence: dict[str, Any] = {}

    site.exchanged = True

    def exchange(what: str, exchanged: Callable[[], object]) -> None:
        with site.link.with_faults(Faults(refused=True)):
            site.link.reset()
            for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
                (site.data / name).unlink(missing_ok=True)
            exchanged()
            site.start(AGENT)
            with site.at_work():
                time.sleep(3)
            numbered = {name: lane["next"] - 1 for name, lane in site.status()["lanes"].items()}
        evidence[f"seconds_to_catch_up_{what}"] = round(site.settle(), 1)
        evidence[f"numbered_before_it_met_the_server_{what}"] = sum(numbered.values())
        evidence[f"lanes_begun_anew_{what}"] = site.status()["counters"].get("outbox.begun_anew", 0)

    site.stop_empty()
    shutil.copy(outbox, older)
    site.start(AGENT)
    with site.at_work():
        time.sleep(3)
    site.stop_empty()
    exchange("with_none", lambda: None)
    site.stop_empty()
    exchange("with_an_older_one", lambda: shutil.copy(older, outbox))
    outcome = _outcome(site, **evidence)
    if not (evidence["lanes_begun_anew_with_none"] and evidence["lanes_begun_anew_with_an_older_one"]):
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "no lane was begun anew"]
    return outcome


def offline_for_sixty_days(site: Site) -> Outcome:
    """The cable is pulled for sixty days of the machines' time, in which the certificate ends. Forecasts go on without a gap;
    then everything arrives, unaided."""
    beat = Beat(step_ms=3_600_000)
    buckets = 60 * DAY_MS // beat.step_ms
    with SecureSite(site.folder / "away", beat=beat) as away:
        away.machines.publish(400)
        away.settle()
        before = away.machines.ticks
        with away.link.with_faults(Faults(refused=True)), away.download.with_faults(Faults(refused=True)):
            away.link.reset()
            away.kill(AGENT)
            away.let_certificate_expire(timedelta(days=20))
            away.start(AGENT)
            # much faster, and readings overtake one another on their way: a late one is in no mean
            with away.at_work():
                away.wait("sixty days", lambda: away.machines.ticks - before >= buckets * A_STEP, 600)
            away.wait("the intake of sixty days", away.all_taken_in)
            waiting = sum(lane["waiting"] for lane in away.status()["lanes"].values())
        took = away.settle()
        read = away.books()
        books.forecasts_hold(read, away.database, GATEWAY, away.machines, 8 * beat.step_ms)
    evidence = {
        "days_offline": (away.machines.ticks - before) // A_STEP * beat.step_ms / DAY_MS,
        "messages_waiting_at_the_end": waiting,
        "seconds_to_catch_up": round(took, 1),
    }
    return Outcome(read.holds, {**evidence, **read.counts}, read.wrong)


def clock_of_1970(site: Site) -> Outcome:
    """The gateway's machine says 1970 for ever, the cable is pulled, and the agent is killed once: readings keep the plant's
    times and forecasts go on. When the cable is back, the server's word brings the time."""
    beat = Beat(t0_ms=(time.time_ns() // 1_000_000 + 3000) // 2000 * 2000, step_ms=2000)
    with WrongClockSite(site.folder / "clock", beat=beat) as wrong:
        with wrong.link.with_faults(Faults(refused=True)):
            wrong.kill(AGENT)
            shutil.rmtree(wrong.data)  # a new gateway: it has never known the time
            wrong.start(AGENT)
            with wrong.at_work(ticks_a_second=2):
                time.sleep(18)
                wrong.kill(AGENT)
                wrong.start(AGENT)
                time.sleep(18)
                meanwhile = wrong.status()
        with wrong.at_work(ticks_a_second=2):
            known = wrong.wait("the time", lambda: wrong.status()["clock"]["confidence"] != "unknown", 60)
            time.sleep(8)
        took = wrong.settle()
        read = wrong.books()
        afterwards = wrong.status()["clock"]
    faults = list(read.wrong)
    if meanwhile["clock"]["confidence"] != "unknown":
        faults.append(f"at 1970 the clock is called {meanwhile['clock']['confidence']}")
    if not meanwhile["counters"].get("forecasts.issued", 0):
        faults.append("no forecast was issued at 1970")
    evidence = {
        "clock_at_1970": meanwhile["clock"],
        "clock_afterwards": afterwards,
        "seconds_until_the_time_was_known": round(known, 1),
        "forecasts_at_1970": meanwhile["counters"].get("forecasts.issued", 0),
        "seconds_to_catch_up": round(took, 1),
    }
    return Outcome(not faults, {**evidence, **read.counts}, faults)


class WrongClockSite(Site):
    """A site whose gateway's machine says 1970."""

    simulated = False

    def _launch_agent(self, config: str) -> None:
        self.processes.python(AGENT, "edge_agent.devices.wrong_clock", config)


CASES: dict[str, Callable[[Site], Outcome]] = {
    case.__name__.replace("_", "-"): case
    for case in (
        broker_killed,
        server_killed,
        agent_killed,
        stalled_link,
        duplicated_and_reordered,
        poison_message,
        half_a_bundle,
        network_parted,
        disk_full,
        clock_of_1970,
        expired_certificate,
        another_outbox,
        offline_for_sixty_days,
    )
}
"""In the order in which they are played."""


def played(site: Site, case: Callable[[Site], Outcome]) -> Outcome:
    """The outcome; a case that ends early is a failure with its reason, and the site is whole again afterwards."""
    try:
        return case(site)
    except NeedsPerson as why:
        return Outcome(None, reason=str(why))
    except (MillwrightError, OSError, RuntimeError) as error:
        return Outcome(False, reason=f"{type(error).__name__}: {error}")
    finally:
        for part in (UPLINK, SERVER, AGENT):
            if part not in site.processes.running:
                with suppress(MillwrightError, OSError):
                    site.start(part)
