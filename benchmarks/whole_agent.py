"""A real agent process with a forecaster, a note reader and a report writer, driven over MQTT until each has answered.

Readings come first, quiet ones, then a note, then readings far off, which open an event and so ask for a report. Plant time
runs on its own ([clock] simulated)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from agent_intake import ROOT, START_S, publish, stamp

from edge_agent.updates import Ledger, write_durably
from protocol.bundles import digest, unpack
from protocol.reading.notes import Note
from protocol.sync import encode
from protocol.twin import Assignment

MAPPING = """
[[source]]
topic = "plant/{line}/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
[[notes]]
topic = "plant/{line}/notes"
"""
MACHINES = 4
QUIET, LOUD = 300, 12
"""Buckets."""
LIMIT_S = 180.0
SAID = "seal of the feed pump leaks oil, tightened and watched, 泵密封漏油"
PROVEN = {"forecast.lstm": 0, "notes.reader": 1, "report.writer": 1}
"""Slot -> results that it counts for having been proven."""


@dataclass(frozen=True)
class Lived:
    """One process. cold_s: from its start until all models served; answered_s: from the first reading until all had
    answered; rss_mib, peak_mib: resident memory then, and the most until then; results: answers by slot."""

    cold_s: float
    answered_s: float
    rss_mib: float
    peak_mib: float
    results: dict[str, int]


def lived(port: int, folder: Path, bundles: Mapping[str, bytes], step_ms: int) -> Lived:
    """Of an agent on a broker at `port`. bundles: by slot. Ends the script if not every model answers in time."""
    config = configured(port, folder, bundles, step_ms)
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        started = time.monotonic()
        agent = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stderr=log))
        stack.callback(agent.terminate)
        _awaited(folder, lambda status: {m["slot"] for m in status["models"] if m["status"] == "serving"} == {*bundles})
        cold_s = time.monotonic() - started
        begun = time.monotonic()
        publish(port, told(step_ms))
        status = _awaited(folder, _all_answered)
        answered_s = time.monotonic() - begun
        memory = dict(line.split(":", 1) for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines())
    rss, peak = (int(memory[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Lived(cold_s, answered_s, rss, peak, _answers(status))


def configured(port: int, folder: Path, bundles: Mapping[str, bytes], step_ms: int) -> Path:
    """agent.toml of a gateway on which the bundles were installed before."""
    held = folder / "data" / "bundles"
    held.mkdir(parents=True)
    ledger = Ledger(applied=1)
    for slot, archive in bundles.items():
        name, passport = digest(archive), unpack(archive).passport
        write_durably(held / f"{name}.bundle", archive)
        ledger.active[slot] = Assignment(
            slot=slot, version=passport.version, digest=name, size=len(archive), path=f"/bundles/{name}"
        )
    write_durably(held / "active.json", encode(ledger))
    (folder / "mapping.toml").write_text(MAPPING)
    config = folder / "agent.toml"
    config.write_text(
        f'site = "bench"\ngateway = "g"\ndata_dir = "{folder}/data"\nmapping = "mapping.toml"\nstep_ms = {step_ms}\n'
        f'[clock]\nsimulated = true\n[plant]\nhost = "127.0.0.1"\nport = {port}\n[uplink]\nhost = "127.0.0.1"\n'
        f'port = {port}\n[server]\nurl = "http://127.0.0.1:9"\nunsigned_models = true\n[forecast]\nevery_steps = 4\n'
    )
    return config


def told(step_ms: int) -> Iterator[tuple[str, bytes]]:
    """What is published, in order."""
    drawn = np.random.default_rng(0)
    for bucket in range(QUIET + LOUD):
        if bucket == QUIET:
            note = Note(id="n-1", machine="M-0", time_ms=1000 * START_S, text=SAID)
            yield "plant/l/notes", encode(note)
        at = stamp(START_S + bucket * step_ms // 1000)
        for machine in range(MACHINES):
            off = 30.0 if bucket >= QUIET and machine == 0 else 0.0
            body: dict[str, Any] = {"value": 50 + off + float(drawn.normal()), "timestamp": at}
            yield f"plant/l/M-{machine}/current", json.dumps(body).encode()


def _awaited(folder: Path, ready: Any) -> dict[str, Any]:
    """The agent's status as soon as it is `ready`."""
    deadline = time.monotonic() + LIMIT_S
    path = folder / "data" / "status.json"
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        if path.exists():
            status = json.loads(path.read_text(encoding="utf-8"))
            if ready(status):
                return status
        time.sleep(0.02)
    raise SystemExit(
        f"latency: the agent did not get there in {LIMIT_S:g} s: {status.get('models')}, {status.get('counters')}\n"
        + (folder / "log").read_text(errors="replace")[-2000:]
    )


def _answers(status: Mapping[str, Any]) -> dict[str, int]:
    return {one["slot"]: one["results"] - PROVEN[one["slot"]] for one in status["models"]}


def _all_answered(status: Mapping[str, Any]) -> bool:
    return min(_answers(status).values()) > 0
