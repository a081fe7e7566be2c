"""What goes wrong, one function each. It breaks something while machines are at work, mends it as a service manager would
(what ended is started again), waits until the gateway has caught up, and reads the books."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.errors import MillwrightError
from protocol.names import MessageClass
from protocol.topics import Channel
from server.drill import books, models
from server.drill.proxy import Faults
from server.drill.site import AGENT, SERVER, UPLINK, Site


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
    before = sum(books.quarantined(site.database).values())
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="drill-poison")
    client.connect("127.0.0.1", site.link.port)
    client.loop_start()
    with site.at_work():
        for payload in POISON.values():
            for channel in (Channel.UP_EVENT, Channel.UP_FEEDBACK):
                client.publish(site.topic.sibling(channel).text, payload, qos=1).wait_for_publish(30)
        for payload in POISONED_READINGS:
            site.machines.publish_raw("drill/press/pressure", payload)
            site.machines.publish_raw(site.topic.sibling(Channel.SHOP_FEEDBACK).text, payload)
        time.sleep(2)
    client.disconnect()
    client.loop_stop()
    outcome = _outcome(site, poisoned_batches=2 * len(POISON), poisoned_messages=2 * len(POISONED_READINGS))
    refused = books.quarantined(site.database)
    on_the_gateway = {
        name.removeprefix("quarantine."): n
        for name, n in site.status()["counters"].items()
        if name.startswith("quarantine.") and not name.endswith(".other")
    }
    outcome.evidence |= {"server_quarantine": refused, "gateway_quarantine": on_the_gateway}
    if sum(refused.values()) - before != 2 * len(POISON):
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "the server did not count every poisoned batch"]
    if sum(on_the_gateway.values()) < len(POISONED_READINGS):
        outcome.holds, outcome.wrong = False, [*outcome.wrong, "the gateway did not count every poisoned reading"]
    return outcome


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
    """Digest of what the gateway says it serves."""
    serving = [m["digest"] for m in site.status().get("models", []) if m["status"] == "serving"]
    return serving[0] if serving else ""


def _refusals(site: Site) -> list[str]:
    return [m["error"] for m in site.status().get("models", []) if m["status"] == "refused"]


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
    )
}
"""In the order in which they are played."""


def played(site: Site, case: Callable[[Site], Outcome]) -> Outcome:
    """The outcome; a case that ends early is a failure with its reason, and the site is whole again afterwards."""
    try:
        return case(site)
    except (MillwrightError, OSError, RuntimeError) as error:
        return Outcome(False, reason=f"{type(error).__name__}: {error}")
    finally:
        for part in (UPLINK, SERVER, AGENT):
            if part not in site.processes.running:
                with suppress(MillwrightError, OSError):
                    site.start(part)
