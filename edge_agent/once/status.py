"""`millwright status --config agent.toml` (and `millwright agent status`): what the agent of this machine last wrote about
itself. Exit status: 0 it runs, 1 it does not, 2 wrong settings."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edge_agent import config
from edge_agent.config import AgentSettings
from protocol.errors import BadSettings
from protocol.exposition import Family, exposition
from protocol.observations import TimeMs
from protocol.unreadable import UNREADABLE

STALE_S = 30.0
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """As `enrolment.Keeper` tells it."""

    not_after_ms: TimeMs
    failures: Count = 0
    last_error: str = ""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """What of an outbox's lane is shown."""

    waiting: Count
    shed: Count


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What of a running model is shown."""

    slot: str
    version: Count
    status: str
    error: str = ""
    engine: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What of status.json is shown; `Agent` writes it."""

    time_ms: TimeMs
    gateway: str
    uptime_s: float
    rss_bytes: Count
    plant_connected: bool
    uplink_connected: bool
    server_answers: bool | None
    dead_letters: Count
    outbox: dict[str, Count]
    lanes: dict[str, Lane]
    counters: dict[str, Count]
    models: list[Model]
    identity: Certificate | None = None

    def age_s(self, now_s: float) -> float:
        """Since it was written."""
        return now_s - self.time_ms / 1000


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright status",
        description="How the gateway of this machine is; without --config, how a server is.",
    )
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument(
        "--metrics", action="store_true", help="as Prometheus reads it, such as node_exporter's textfiles"
    )
    options = parser.parse_args(argv)
    settings = config.load(options.config)
    return show(settings, "json" if options.json else "metrics" if options.metrics else "words")


def show(settings: AgentSettings, form: str) -> int:
    """Prints it; form: words, json, metrics. Raises BadSettings for a file that is not what an agent writes."""
    path = Path(settings.data_dir) / "status.json"
    try:
        whole, told = read(path)
    except FileNotFoundError:
        sys.stderr.write(f"no {path}: the agent has not run here yet\n")
        return 1
    age_s = told.age_s(time.time())
    if form == "json":
        sys.stdout.write(json.dumps({**whole, "age_s": round(age_s, 1)}) + "\n")
    elif form == "metrics":
        sys.stdout.write(exposition(families(told, age_s)))
    else:
        sys.stdout.write(in_words(told, age_s))
    return 0 if age_s < STALE_S else 1


def read(path: Path) -> tuple[dict[str, Any], Told]:
    """What the agent last wrote, always whole (`health.write_status`), as it stands and as it is shown. Raises
    FileNotFoundError where none has run yet, BadSettings for a file that is not what an agent writes."""
    try:
        whole = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        return whole, msgspec.convert(whole, Told)
    except UNREADABLE as error:
        raise BadSettings(f"{path} cannot be read ({error}): an agent that runs writes it anew") from error


def in_words(told: Told, age_s: float) -> str:
    """For people: links, what waits for the server, what was counted, which models run."""
    lines = [f"{told.gateway}: last heard {age_s:.0f} s ago, up {told.uptime_s:.0f} s"]
    links = {"plant": told.plant_connected, "uplink": told.uplink_connected}
    lines += [f"  {what:9} {'connected' if stands else 'NOT connected'}" for what, stands in links.items()]
    if told.uplink_connected and told.server_answers is False:
        lines.append("  connected to the broker, but the server does not answer")
    lines += certificate(told.identity)
    lines += [f"  waiting   {lane} {n}" for lane, n in told.outbox.items() if n]
    lines += [f"  {name:40} {n}" for name, n in sorted(told.counters.items())]
    lines += [f"  model {m.slot} v{m.version} {m.status} {m.error or m.engine}" for m in told.models]
    return "\n".join(lines) + "\n"


def certificate(identity: Certificate | None) -> list[str]:
    """How long the gateway's certificate holds, and why there is no new one yet; nothing where it has none."""
    if identity is None:
        return []
    until = datetime.fromtimestamp(identity.not_after_ms / 1000, UTC)
    lines = [f"  certificate until {until:%Y-%m-%d %H:%M} UTC"]
    if identity.last_error:
        lines.append(f"  certificate NOT renewed, {identity.failures} time(s): {identity.last_error}")
    return lines


def families(told: Told, age_s: float) -> list[Family]:
    """For Prometheus."""
    age = Family("millwright_agent_status_age_seconds", "gauge", "Since the agent last wrote how it is.")
    age.add(age_s)
    up = Family("millwright_agent_uptime_seconds", "gauge", "Since the agent started.")
    up.add(told.uptime_s)
    memory = Family("millwright_agent_resident_bytes", "gauge", "Resident memory of the agent.")
    memory.add(told.rss_bytes)
    links = Family("millwright_agent_connected", "gauge", "1: the connection stands.")
    links.add(told.plant_connected, link="plant")
    links.add(told.uplink_connected, link="uplink")
    waiting = Family(
        "millwright_agent_outbox_messages", "gauge", "Messages that the server's database does not have yet."
    )
    shed = Family("millwright_agent_outbox_shed_total", "counter", "Messages given up because the disk was full.")
    for lane, counts in told.lanes.items():
        waiting.add(counts.waiting, **{"class": lane})
        shed.add(counts.shed, **{"class": lane})
    dead = Family("millwright_agent_dead_letters", "gauge", "Messages given up after many attempts, or refused above.")
    dead.add(told.dead_letters)
    refused = Family("millwright_agent_refusals_total", "counter", "What was refused, by reason.")
    counted = Family("millwright_agent_events_total", "counter", "Everything else that the agent counts.")
    for name, n in sorted(told.counters.items()):
        where, _, reason = name.partition(".")
        if where in ("quarantine", "refused"):
            refused.add(n, where=where, reason=reason)
        else:
            counted.add(n, name=name)
    ends = Family("millwright_agent_certificate_ends_seconds", "gauge", "When the certificate ends, since 1970.")
    if told.identity is not None:
        ends.add(told.identity.not_after_ms / 1000)
    return [age, up, memory, links, ends, waiting, shed, dead, refused, counted]
