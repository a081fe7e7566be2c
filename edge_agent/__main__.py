"""`millwright agent run | check | status | sent | trust`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import signal
import sys
import uuid
from datetime import date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from edge_agent import config, mapping
from edge_agent.agent import build_agent
from edge_agent.broker import PahoLink
from edge_agent.clock import SystemClock, Timekeeper
from edge_agent.config import AgentSettings, LinkSettings
from edge_agent.trust import fetch_root, only_signed, read_root, signed_list
from edge_agent.updates import http_fetch, write_durably
from protocol.errors import MillwrightError
from protocol.sync import encode
from protocol.topics import Channel, Topic
from protocol.twin import State

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the agent is not running (status), 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="millwright agent", description="The agent of this gateway.")
    parser.add_argument("command", choices=["run", "check", "status", "sent", "trust"])
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    parser.add_argument("--json", action="store_true", help="status or sent as JSON")
    parser.add_argument("--since", type=date.fromisoformat, help="sent: from this day on (UTC), 2026-01-31")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(argv)
    try:
        settings = config.load(options.config)
        if options.command == "status":
            return status(settings, options.json)
        if options.command == "sent":
            return sent(settings, options.since.isoformat() if options.since else "", options.json)
        if options.command == "trust":
            return trust(settings)
        file = mapping.load(Path(settings.mapping))
        if options.command == "check":
            sys.stdout.write(f"{options.config}: fine; {len(file.file.source)} source(s), filters {file.filters()}\n")
            return 0
        logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        return run(settings)
    except MillwrightError as error:
        sys.stderr.write(f"millwright agent: {error}\n")
        return 2


def run(settings: AgentSettings) -> int:
    """Connects, serves until SIGTERM or SIGINT, and leaves cleanly."""
    clock = Timekeeper(SystemClock(), Path(settings.data_dir) / "clock.json")
    birth_ms = clock.now_ms()  # in order, also where the machine says 1970
    boot_id = uuid.uuid4().hex[:12]
    try:
        version = installed_version("millwright")
    except PackageNotFoundError:
        version = "0"
    token = config.secret(settings.server.token_file, "MILLWRIGHT_GATEWAY_TOKEN")
    bundles = Path(settings.data_dir) / "bundles"
    fetch = http_fetch(settings.server.url, token, bundles)
    if settings.server.unsigned_models:
        log.warning("models that nobody signed may run here ([server] unsigned_models)")
    else:
        root = read_root(Path(settings.server.root))
        fetch = only_signed(signed_list(root, settings.server.url, token, bundles / "trust"), fetch)
    state = Topic(settings.site, settings.gateway, Channel.STATE, settings.root)
    will = State(online=False, timestamp=birth_ms, boot_id=boot_id, agent_version=version)
    agent = build_agent(
        settings,
        clock=clock,
        plant=connect(settings.plant, f"{settings.gateway}-plant", None, clock),
        uplink=connect(settings.uplink, f"{settings.gateway}-uplink", (state.text, encode(will)), clock),
        fetch=fetch,
        version=version,
        boot_id=boot_id,
        birth_ms=birth_ms,
    )
    if settings.panel.port:
        _show_panel(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()
    return 0


def trust(settings: AgentSettings) -> int:
    """Fetches the server's root once, and says its sum so that a person can compare it with what the server says."""
    path = Path(settings.server.root)
    if path.exists():
        sys.stdout.write(f"{path} is there already\n")
    else:
        token = config.secret(settings.server.token_file, "MILLWRIGHT_GATEWAY_TOKEN")
        write_durably(path, fetch_root(settings.server.url, token))
    sys.stdout.write(f"root {path}\nsha256 {hashlib.sha256(read_root(path)).hexdigest()}\n")
    return 0


def connect(link: LinkSettings, client_id: str, will: tuple[str, bytes] | None, clock: Timekeeper) -> PahoLink:
    """A connection that comes up by itself when the broker does."""
    return PahoLink(
        host=link.host,
        port=link.port,
        client_id=client_id,
        username=link.username,
        password=config.secret(link.password_file, "MILLWRIGHT_BROKER_PASSWORD") if link.username else "",
        tls_ca=link.tls_ca,
        time=clock,
        will=will,
    )


def status(settings: AgentSettings, as_json: bool) -> int:
    """What the running agent last wrote about itself."""
    path = Path(settings.data_dir) / "status.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.stderr.write(f"no {path}: the agent has not run here yet\n")
        return 1
    age_s = SystemClock().now_ms() / 1000 - told["time_ms"] / 1000
    if as_json:
        sys.stdout.write(json.dumps({**told, "age_s": round(age_s, 1)}) + "\n")
    else:
        sys.stdout.write(f"{told['gateway']}: last heard {age_s:.0f} s ago, up {told['uptime_s']:.0f} s\n")
        sys.stdout.writelines(f"  {name:40} {n}\n" for name, n in sorted(told["counters"].items()))
        sys.stdout.writelines(
            f"  model {m['slot']} v{m['version']} {m['status']} {m['error'] or m.get('engine', '')}\n"
            for m in told["models"]
        )
    return 0 if age_s < 30 else 1


def sent(settings: AgentSettings, since_day: str, as_json: bool) -> int:
    """What left this gateway, and what stayed."""
    from edge_agent.panel import what_we_sent

    told = what_we_sent(settings, since_day)
    if as_json:
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        return 0
    span = f"{told['days'][0]} to {told['days'][-1]} (UTC)" if told["days"] else "nothing yet"
    sys.stdout.write(f"{told['gateway']}: {span}\n")
    sys.stdout.writelines(
        f"  {row['lane']:9} {row['type']:40} {row['count']:>9} messages {row['bytes']:>12} bytes\n"
        for row in told["sent"]
    )
    sys.stdout.writelines(
        f"  kept here {row['type']:40} {row['count']:>9} messages: {row['reason']}\n" for row in told["kept"]
    )
    return 0


def _show_panel(settings: AgentSettings) -> None:
    """The gateway's page; one that cannot be shown stops nothing."""
    from edge_agent.panel import Panel

    try:
        panel = Panel(settings, settings.panel.host, settings.panel.port)
    except OSError as error:
        log.warning("no page on %s:%d: %s", settings.panel.host, settings.panel.port, error.strerror)
    else:
        log.info("what this gateway sent: http://%s:%d/", settings.panel.host, panel.port)


if __name__ == "__main__":
    sys.exit(main())
