"""Observations per CPU-second that the agent takes in: decode, validation, mapping, history on disk, grid, forecast
scheduling; against a bare paho-mqtt subscriber that does nothing, same broker, same messages, same run.

    python benchmarks/agent_intake.py [--json] [--quick]

Needs a `mosquitto` on the PATH. The CPU time is the consumer process's own (user + system), all threads."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
MACHINES, SIGNALS = 8, 5
START_S = 1_760_000_000
MAPPING = """
[[source]]
topic = "one/{line}/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
unit = "$.unit"
[[source]]
topic = "five/{line}/{machine}"
each = "$.tags.*"
signal = "@key"
value = "$.value"
root_time = "$.timestamp"
"""
BARE = """
import sys, time
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
want, seen = int(sys.argv[2]), 0
client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare")
def on_message(c, u, m):
    global seen
    seen += 1
    if seen == want: c.disconnect()
def on_connect(c, *rest):
    c.subscribe("#", 1)
def on_subscribe(c, *rest):
    print("ready", flush=True)
client.on_message, client.on_connect, client.on_subscribe = on_message, on_connect, on_subscribe
client.connect("127.0.0.1", int(sys.argv[1]))
a = None
begin = time.process_time()
client.loop_forever()
print(time.process_time() - begin)
"""


def free_port() -> int:
    """A port that was free a moment ago, on loopback."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A Mosquitto of its own; yields its port."""
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("agent_intake needs mosquitto on the PATH (Debian: apt-get install mosquitto)")
    port = free_port()
    conf = folder / "mosquitto.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 200\n"
    )
    process = subprocess.Popen([program, "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def messages(kind: str, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` messages: one observation each, or one machine's five."""
    for i in range(count):
        if kind == "one":
            second, tag = divmod(i, MACHINES * SIGNALS)
            machine, signal = divmod(tag, SIGNALS)
            body = {"value": 20 + tag + 0.001 * (i % 997), "timestamp": stamp(START_S + 10 * second), "unit": "bar"}
            yield f"one/l/m{machine}/s{signal}", json.dumps(body).encode()
        else:
            second, machine = divmod(i, MACHINES)
            tags = {f"t{k}": {"value": 20 + k + 0.001 * (i % 997)} for k in range(SIGNALS)}
            yield f"five/l/m{machine}", json.dumps({"timestamp": stamp(START_S + 10 * second), "tags": tags}).encode()


def stamp(seconds: int) -> str:
    """RFC 3339, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def publish(port: int, sent: Iterable[tuple[str, bytes]]) -> None:
    """Sends (topic, payload) at QoS 1, with at most 2,000 not yet acknowledged."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"publisher-{time.monotonic_ns()}")
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    last = None
    for i, (topic, payload) in enumerate(sent):
        last = client.publish(topic, payload, qos=1)
        if i % 2000 == 1999:
            last.wait_for_publish(60)
    if last is not None:
        last.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def cpu_seconds(pid: int) -> float:
    """User and system CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare_rate(port: int, kind: str, count: int) -> float:
    """Messages per CPU-second of a subscriber that only counts."""
    with subprocess.Popen(
        [sys.executable, "-c", BARE, str(port), str(count)], stdout=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout is not None
        consumer.stdout.readline()
        publish(port, messages(kind, count))
        return count / float(consumer.stdout.readline())


def agent_rate(port: int, kind: str, count: int, observations: int, folder: Path) -> float:
    """Observations per CPU-second of a real agent process, from ready to the last one stored."""
    folder.mkdir()
    (folder / "mapping.toml").write_text(MAPPING)
    (folder / "agent.toml").write_text(
        f'site = "bench"\ngateway = "g-{kind}"\ndata_dir = "{folder}/data"\nmapping = "mapping.toml"\nstep_ms = 60000\n'
        f'[clock]\nsimulated = true\n[plant]\nhost = "127.0.0.1"\nport = {port}\n[uplink]\nhost = "127.0.0.1"\n'
        f'port = {port}\n[server]\nurl = "http://127.0.0.1:9"\n[forecast]\nseason_steps = 0\nevery_steps = 4\n'
    )
    status = folder / "data" / "status.json"
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(folder / "agent.toml")]
    with ExitStack() as stack:
        agent = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL))
        stack.callback(agent.terminate)
        deadline = time.monotonic() + 30
        while not status.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)
        before = cpu_seconds(agent.pid)
        publish(port, messages(kind, count))
        stored = 0
        while stored < observations and time.monotonic() < deadline + 600:
            time.sleep(0.2)
            stored = json.loads(status.read_text())["counters"].get("intake.stored", 0)
        used = cpu_seconds(agent.pid) - before
    if stored != observations:
        raise SystemExit(f"agent stored {stored} of {observations} observations")
    return observations / used


def main() -> int:
    """Prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages")
    parser.add_argument("--data", help="not used: this benchmark makes its own messages")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, broker(Path(name)) as port:
        for kind, per_message, count in (("one", 1, 60_000), ("five", SIGNALS, 20_000)):
            count = count // 5 if options.quick else count
            started = time.monotonic()
            sys.stderr.write(f"agent_intake: {count} messages of {per_message} observation(s)\n")
            bare = bare_rate(port, kind, count) * per_message
            ours = agent_rate(port, kind, count, count * per_message, Path(name) / kind)
            rows.append(
                {
                    "what": f"{per_message} observation(s) a message, QoS 1",
                    "metric": "observations per CPU-second",
                    "ours": round(ours),
                    "reference": round(bare),
                    "ratio": round(ours / bare, 3),
                    "peers": {"bare paho-mqtt, nothing decoded": round(bare)},
                    "target": 5000,
                    "holds": ours >= 5000,
                    "n": count * per_message,
                    "seconds": round(time.monotonic() - started, 1),
                }
            )
    digest = hashlib.sha256(b"".join(p for k in ("one", "five") for _, p in messages(k, 1000))).hexdigest()
    result = {"benchmark": "agent_intake", "data_digest": digest, "load_average": os.getloadavg()[0], "rows": rows}
    if options.json:
        print(json.dumps(result))
    else:
        for r in rows:
            verdict = "holds" if r["holds"] else "MISSED"
            figures = f"{r['ours']:>7} /CPU-s, bare paho {r['reference']:>7} ({r['ratio']})"
            print(f"{r['what']:34} {figures}, target >= 5000 {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
