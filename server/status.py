"""How the server is: what comes in, what was refused and why, what every gateway still owes. One reading for the command, the
API and Prometheus."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.exposition import Family
from protocol.ledger import LaneLedger
from server import enrolment, ledger
from server.database import Gateway, Job, LeaseRow, QuarantineRow
from server.refusals import Refusals

MOST_QUARANTINED = 500


class MqttIntake(Protocol):
    """What is asked of the MQTT intake."""

    failures: int

    @property
    def connected(self) -> bool: ...


def status(session: Session, refusals: Refusals, intake: MqttIntake | None, now_ms: int) -> dict[str, Any]:
    """Everything, as JSON. `refusals` and `transactions_failed` are since this process started; `quarantine` is all that lies
    there; `identity` is who was not believed, ever, by reason; `duties` says which process does what only one may."""
    lanes = {g.gateway: g.lanes for g in ledger.state(session, now_ms, most_quarantined=MOST_QUARANTINED).gateways}
    why = select(QuarantineRow.reason, func.count()).group_by(QuarantineRow.reason).order_by(QuarantineRow.reason)
    jobs = select(Job.status, func.count()).where(Job.status.in_(["waiting", "running"])).group_by(Job.status)
    return {
        "now_ms": now_ms,
        "mqtt": {"on": intake is not None, "connected": bool(intake is not None and intake.connected)},
        "transactions_failed": intake.failures if intake is not None else 0,
        "refusals": [{"where": one.where, "why": one.why, "count": n} for one, n in refusals.counts()],
        "quarantine": {str(reason): int(n) for reason, n in session.execute(why)},
        "identity": enrolment.refusals(session),
        "duties": {
            row.name: {"holder": row.holder, "until_ms": row.until_ms}
            for row in session.scalars(select(LeaseRow).where(LeaseRow.until_ms > now_ms))
        },
        "jobs": {str(state): int(n) for state, n in session.execute(jobs)},
        "gateways": [
            _gateway(row, lanes.get(row.id, []), now_ms)
            for row in session.scalars(select(Gateway).order_by(Gateway.id))
        ],
    }


def _gateway(row: Gateway, lanes: list[LaneLedger], now_ms: int) -> dict[str, Any]:
    heartbeat = row.heartbeat or {}
    counters = heartbeat.get("counters", {})
    return {
        "gateway": row.id,
        "site": row.site,
        "online": row.online,
        "silent_s": round((now_ms - row.last_data_ms) / 1000, 1) if row.last_data_ms else None,
        "outbox": heartbeat.get("outbox", {}),
        "refusals": {k: n for k, n in counters.items() if k.startswith(("quarantine.", "refused."))},
        "complete": all(lane.complete for lane in lanes),
        "lanes": {lane.message_class.value: _counts(lane) for lane in lanes},
    }


def _counts(lane: LaneLedger) -> dict[str, int]:
    return {
        "complete_to": lane.complete_to,
        "through": lane.through,
        "stored": lane.stored,
        "duplicates": lane.duplicates,
        "quarantined": lane.through - lane.stored - sum(map(_numbers, (lane.missing, lane.shed, lane.dead))),
        "missing": _numbers(lane.missing),
        "shed": _numbers(lane.shed),
        "dead": _numbers(lane.dead),
    }


def _numbers(ranges: Any) -> int:
    return sum(r[1] - r[0] + 1 for r in ranges)


def families(told: dict[str, Any]) -> list[Family]:
    """The same for Prometheus."""
    connected = Family("millwright_mqtt_connected", "gauge", "1: the server's connection to its broker stands.")
    failed = Family("millwright_transactions_failed_total", "counter", "Transactions the database did not take.")
    refused = Family("millwright_refusals_total", "counter", "What was refused since this process started, by reason.")
    kept = Family("millwright_quarantine_messages", "gauge", "Messages in quarantine, by reason.")
    strangers = Family("millwright_identity_refusals_total", "counter", "Who was not believed, by reason.")
    jobs = Family("millwright_jobs", "gauge", "Trainings that wait or run.")
    online = Family("millwright_gateway_online", "gauge", "1: the gateway says that it is connected.")
    silent = Family("millwright_gateway_silent_seconds", "gauge", "Since the gateway last delivered anything.")
    waiting = Family("millwright_gateway_outbox_messages", "gauge", "Waiting on the gateway, by its last heartbeat.")
    there = Family("millwright_gateway_refusals_total", "counter", "What the gateway refused, by its last heartbeat.")
    messages = Family("millwright_ledger_messages", "gauge", "Numbers of a class by what became of them.")
    again = Family("millwright_ledger_duplicates_total", "counter", "Arrivals that changed nothing.")
    if told["mqtt"]["on"]:
        connected.add(told["mqtt"]["connected"])
        failed.add(told["transactions_failed"])
    for one in told["refusals"]:
        refused.add(one["count"], where=one["where"], reason=one["why"])
    for reason, n in told["quarantine"].items():
        kept.add(n, reason=reason)
    for reason, n in told["identity"].items():
        strangers.add(n, reason=reason)
    for state in ("waiting", "running"):
        jobs.add(told["jobs"].get(state, 0), status=state)
    for g in told["gateways"]:
        name = g["gateway"]
        online.add(g["online"], gateway=name)
        if g["silent_s"] is not None:
            silent.add(g["silent_s"], gateway=name)
        for lane, n in g["outbox"].items():
            waiting.add(n, gateway=name, **{"class": lane})
        for reason, n in g["refusals"].items():
            there.add(n, gateway=name, reason=reason)
        for lane, counts in g["lanes"].items():
            again.add(counts["duplicates"], gateway=name, **{"class": lane})
            for state in ("stored", "quarantined", "shed", "dead", "missing"):
                messages.add(counts[state], gateway=name, **{"class": lane}, state=state)
    return [connected, failed, refused, kept, strangers, jobs, online, silent, waiting, there, messages, again]


def in_words(told: dict[str, Any]) -> str:
    """The same for people."""
    mqtt = told["mqtt"]
    broker = ("connected" if mqtt["connected"] else "NOT connected") if mqtt["on"] else "no MQTT intake in this process"
    lines = [f"broker: {broker}; transactions that failed: {told['transactions_failed']}"]
    lines += [f"refused ({one['where']}): {one['why']} {one['count']}" for one in told["refusals"]]
    lines += [f"in quarantine: {reason} {n}" for reason, n in told["quarantine"].items()]
    lines += [f"not believed: {reason} {n}" for reason, n in told["identity"].items()]
    for g in told["gateways"]:
        heard = "silent so far" if g["silent_s"] is None else f"last heard {g['silent_s']:.0f} s ago"
        lines += ["", f"{g['gateway']} ({g['site']}): {'online' if g['online'] else 'offline'}, {heard}"]
        for lane, c in g["lanes"].items():
            rest = ", ".join(f"{c[state]} {state}" for state in ("missing", "shed", "dead", "quarantined") if c[state])
            lines.append(
                f"  {lane:9} complete to {c['complete_to']}, {g['outbox'].get(lane, 0)} waiting" + _after(rest)
            )
        lines += [f"  refused there: {reason} {n}" for reason, n in g["refusals"].items()]
    return "\n".join(lines) + "\n"


def _after(rest: str) -> str:
    return f"; {rest}" if rest else ""
