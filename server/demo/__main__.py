"""`millwright demo`: starts broker, server, worker, plant and agents, shows how the loop closes, and accounts for it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocol.errors import MillwrightError, TryLater
from protocol.purchases import PurchaseProposal
from protocol.schedules import Schedule
from server.demo import accounting
from server.demo.configuration import configure
from server.demo.processes import Processes, start_broker
from server.demo.run import EDITED_REPORTS, Demo

WRITER = "report.writer"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 all accounted for, 1 a hop lost something or did not happen, 2 it could not start."""
    options = arguments(argv)
    kept = options.keep is not None
    folder = Path(options.keep) if kept else Path(tempfile.mkdtemp(prefix="millwright-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Processes(folder) as processes:
            demo = Demo(options, folder, processes)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: demo.stopped.append(True))
            start(demo)
            watch(demo)
            result = finish(demo)
        show(options, result)
        return 0 if result["holds"] or not options.headless else 1
    except (MillwrightError, OSError) as error:
        sys.stderr.write(f"millwright demo: {error}\n")
        return 2
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="millwright demo", description="The whole loop on this machine.")
    parser.add_argument("--minutes", type=float, default=0, help="end after so long (default: until Ctrl-C)")
    parser.add_argument("--headless", action="store_true", help="no page to look at; exit status says what was lost")
    parser.add_argument("--json", action="store_true", help="print what happened as one JSON object")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="recorded CSV files instead of the simulated plant")
    parser.add_argument("--time-column", default="")
    parser.add_argument("--speed", type=float, default=0, help="simulated seconds per second (1200; replay: 40000)")
    parser.add_argument("--port", type=int, default=0, help="port of the page (default: a free one)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", metavar="DIR", help="keep everything in this folder")
    options = parser.parse_args(argv)
    if options.headless and not options.minutes:
        options.minutes = 6
    options.speed = options.speed or (40_000 if options.replay else 1200)
    return options


def say(demo: Demo, text: str) -> None:
    """Progress, on stderr, so that --json stays clean."""
    sys.stderr.write(f"[{time.monotonic() - demo.began_s:5.0f} s] {text}\n")
    sys.stderr.flush()


def start(demo: Demo) -> None:
    """Everything, in the order in which one needs the other."""
    processes, folder = demo.processes, demo.folder
    demo.broker = start_broker(processes, folder, demo.mqtt_port)
    say(demo, f"broker: {demo.broker} on 127.0.0.1:{demo.mqtt_port}")
    configure(demo)
    processes.python("server", "server", "run", "--config", str(folder / "server.toml"), "--log-level", "WARNING")
    wait_for(demo, "the server", lambda: bool(demo.api("health")["broker_connected"]), 60)
    processes.python("worker", "server", "worker", "--config", str(folder / "server.toml"))
    for line in demo.lines:
        processes.python(
            line, "edge_agent", "run", "--config", str(folder / line / "agent.toml"), "--log-level", "WARNING"
        )
    wait_for(demo, "the agents", lambda: all(demo.status(line).get("plant_connected") for line in demo.lines), 60)
    time.sleep(0.5)  # their subscriptions are on the way
    plant = [
        "--broker",
        f"127.0.0.1:{demo.mqtt_port}",
        "--status",
        str(folder / "plant.json"),
        "--speed",
        str(demo.options.speed),
    ]
    if demo.options.replay:
        column = ["--time-column", demo.options.time_column] if demo.options.time_column else []
        processes.python("plant", "edge_agent.devices", "replay", *demo.options.replay, *plant, *column)
    else:
        seed = ["--seed", str(demo.options.seed), "--truth", str(folder / "truth.json")]
        processes.python("plant", "edge_agent.devices", "run", *plant, *seed)
    say(demo, "everything runs")
    if not demo.options.headless:
        sys.stdout.write(f"\n  Open  {demo.url}/?token={demo.admin_token}\n\n")
        sys.stdout.flush()


def wait_for(demo: Demo, what: str, ready: Any, timeout_s: float) -> None:
    """Polls until `ready()`; raises TryLater with what the program said."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and not demo.stopped:
        demo.processes.check()
        try:
            if ready():
                say(demo, f"{what} answer{'s' if what == 'the server' else ''}")
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TryLater(
        f"{what} did not come up in {timeout_s:.0f} s; see the logs in {demo.folder} (--keep DIR keeps them)"
    )


def watch(demo: Demo) -> None:
    """Until the time is up, Ctrl-C, or the recording has been played: one line of progress now and then."""
    said_s = -1e9
    while not demo.stopped:
        elapsed_s = time.monotonic() - demo.began_s
        if demo.options.minutes and elapsed_s > demo.options.minutes * 60:
            return
        if demo.plant().get("done"):
            say(demo, "the recording has been played")
            demo.processes.running.pop("plant").wait(10)
            return
        demo.processes.check()
        counters = demo.api("counters")
        gateways = demo.api("gateways")
        note_firsts(demo, counters, gateways)
        if not demo.options.replay:
            demo.editors.look(counters["report"])
        demo.rss = {k: max(v, demo.rss.get(k, 0)) for k, v in demo.processes.rss_mib().items()}
        if time.monotonic() - said_s > 15:
            said_s = time.monotonic()
            say(demo, progress(demo, counters, gateways))
        time.sleep(0.5)


def note_firsts(demo: Demo, counters: dict[str, Any], gateways: list[dict[str, Any]]) -> None:
    """Seconds from the start to the first of each thing."""
    elapsed_s = round(time.monotonic() - demo.began_s, 1)
    serving = {
        (m["slot"], m["version"]) for g in gateways for m in g["reported"].get("models", []) if m["status"] == "serving"
    }
    seen = {
        "first_forecast_s": counters["forecast"] > 0,
        "first_event_s": counters["fault_event"] > 0,
        "first_report_s": counters["report"] > 0,
        "first_recommendation_s": counters["recommendation"] > 0,
        "first_purchase_s": counters["statements"].get(PurchaseProposal.type_name, 0) > 0,
        "first_schedule_s": counters["statements"].get(Schedule.type_name, 0) > 0,
        "first_answer_s": counters["feedback"] > 0,
        "first_model_serving_s": bool(serving),
        "reports_edited_s": len(demo.editors.edited) >= EDITED_REPORTS,
        "writer_serving_s": any(slot == WRITER for slot, _ in serving),
        "feedback_trained_model_serving_s": any(s == "recommend.items" and v >= 2 for s, v in serving),
    }
    for name, happened in seen.items():
        if happened and name not in demo.firsts:
            demo.firsts[name] = elapsed_s
            say(demo, name.removesuffix("_s").replace("_", " "))


def progress(demo: Demo, counters: dict[str, Any], gateways: list[dict[str, Any]]) -> str:
    """One line for the terminal."""
    stored = sum(demo.status(line).get("counters", {}).get("intake.stored", 0) for line in demo.lines)
    models = sorted(
        {
            f"{m['slot']} v{m['version']}"
            for g in gateways
            for m in g["reported"].get("models", [])
            if m["status"] == "serving"
        }
    )
    said = counters["statements"]
    return (
        f"{stored} readings, {counters['forecast']} forecasts, {counters['fault_event']} events, {counters['report']} "
        f"reports, {counters['feedback']} answers, "
        f"{said.get(PurchaseProposal.type_name, 0)} proposals to buy, {said.get(Schedule.type_name, 0)} schedules; "
        f"serving {', '.join(models) or 'the simple reference'}"
    )


def finish(demo: Demo) -> dict[str, Any]:
    """Stops the plant, lets every outbox empty, stops the rest, and adds up."""
    demo.processes.stop("plant", 30)
    say(demo, "the plant has stopped; waiting until everything has arrived")
    until = time.monotonic() + 40
    settled = 0
    while time.monotonic() < until and settled < 3:
        time.sleep(1.0)
        settled = settled + 1 if is_settled(demo) else 0
    for line in demo.lines:
        demo.processes.stop(line, 15)  # a clean end writes the last of its books
    time.sleep(1.0)
    return add_up(demo)


def is_settled(demo: Demo) -> bool:
    """Whether every published sample is accounted for and no message but a heartbeat waits."""
    published = demo.plant()["lines"]
    for line in demo.lines:
        told = demo.status(line)
        if not told or not accounting.readings(published.get(line, {}), told["counters"])["holds"]:
            return False
        if any(lane["waiting"] for name, lane in told["lanes"].items() if name != "metric"):
            return False
    return True


def add_up(demo: Demo) -> dict[str, Any]:
    """The result: a verdict per hop and the figures."""
    published, counters, gateways = demo.plant(), demo.api("counters"), demo.api("gateways")
    statuses = {line: demo.status(line) for line in demo.lines}
    ledger = demo.api("ledger")
    rows = demo.everything("reports")
    events = [e["body"] for e in demo.everything("events")]
    models = demo.everything("models")
    written = sum(s["counters"].get("reports.written", 0) for s in statuses.values())
    dead = sum(s["dead_letters"] for s in statuses.values())
    hops: dict[str, Any] = {
        "readings": {n: accounting.readings(published["lines"].get(n, {}), s["counters"]) for n, s in statuses.items()},
        "outbox": {n: accounting.outbox(s["lanes"], ledger, n) for n, s in statuses.items()},
        "reports": accounting.reports(written, [row["report_id"] for row in rows], dead),
        "feedback_model": accounting.feedback_model(gateways) if not demo.options.replay else None,
        "labelled_windows": accounting.windows_hit(events, windows) if (windows := labelled(demo)) else None,
    }
    lost = [name for name, hop in hops.items() if hop is not None and not holds(hop)]
    if demo.processes.ended.get("plant", 0) not in (0, -signal.SIGKILL):
        lost.append("plant")
    return {
        "holds": not lost,
        "lost": lost,
        "broker": demo.broker,
        "minutes": round((time.monotonic() - demo.began_s) / 60, 2),
        "hops": hops,
        "counters": counters,
        "plant": published,
        "forecast_errors": accounting.forecast_errors(models, gateways),
        "models": [
            {k: m[k] for k in ("slot", "version", "status", "verdict", "because", "size")}
            for m in sorted(models, key=lambda m: m["id"])
        ],
        "edits": {"reports": len(demo.editors.edited), "wordings_accepted": demo.editors.accepted},
        "reports_by_the_model": accounting.reports_by_the_model([row["body"] for row in rows]),
        "latencies": demo.firsts,
        "bytes_up": {n: s["bytes_up"] for n, s in statuses.items()},
        "rss_mib": demo.rss,
        "load_average": os.getloadavg()[0],
    }


def holds(hop: dict[str, Any]) -> bool:
    """A hop's own verdict, or that of all gateways."""
    return bool(hop["holds"]) if "holds" in hop else all(part["holds"] for part in hop.values())


def labelled(demo: Demo) -> list[tuple[int, int]]:
    """The labelled windows of a replayed NAB file, if combined_windows.json stands above it."""
    found: list[tuple[int, int]] = []
    for name in demo.options.replay or []:
        path = Path(name).resolve()
        for folder in path.parents[:3]:
            labels = next(
                (
                    f
                    for f in (folder / "combined_windows.json", folder / "labels" / "combined_windows.json")
                    if f.exists()
                ),
                None,
            )
            if labels is not None:
                table = json.loads(labels.read_text())
                spans: list[list[str]] = next(
                    (v for k, v in table.items() if Path(k).stem == path.name.split(".")[0]), []
                )
                found += [(stamp(a), stamp(b)) for a, b in spans]
                break
    return found


def stamp(text: str) -> int:
    """A label's time as milliseconds UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def show(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result for machines, or for people."""
    if options.json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
        return
    verdict = "nothing was lost" if result["holds"] else f"look at: {', '.join(result['lost'])}"
    sys.stdout.write(f"\n{result['minutes']} minutes, {verdict}\n")
    for line, hop in result["hops"]["readings"].items():
        refused = ", ".join(f"{n} {why}" for why, n in hop["quarantined"].items()) or "none"
        sys.stdout.write(f"  {line}: {hop['published']} readings, {hop['stored']} stored, quarantined: {refused}\n")
    reports = result["hops"]["reports"]
    sys.stdout.write(f"  reports: {reports['written']} written, {reports['in_database']} in the database\n")
    by_model = result["reports_by_the_model"]
    sys.stdout.write(
        f"  {result['edits']['reports']} reports edited by people; reports written by the model: {by_model['reports']}, "
        f"{by_model['with_own_words']} of them in words that people added\n"
    )
    for model in result["models"]:
        sys.stdout.write(f"  {model['slot']} v{model['version']}: {model['status']} – {model['verdict']}\n")


if __name__ == "__main__":
    sys.exit(main())
