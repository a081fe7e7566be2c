"""`millwright agent run | check | status | sent | trust | enrol | dead-letters | copy`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import signal
import ssl
import sys
import uuid
from datetime import date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from edge_agent import config, enrolment, mapping
from edge_agent.agent import build_agent
from edge_agent.broker import PahoLink
from edge_agent.clock import Clock, SystemClock, Timekeeper
from edge_agent.config import AgentSettings, LinkSettings
from edge_agent.https_link import HttpsLink
from edge_agent.once import dead_letters
from edge_agent.once.status import show
from edge_agent.shown import Shown, link_context
from edge_agent.trust import fetch_root, only_signed, read_root, signed_list
from edge_agent.updates import Fetch, http_fetch, write_durably
from protocol.enrolment import TokenFile
from protocol.errors import BadSettings, MillwrightError
from protocol.sync import encode
from protocol.topics import Channel, Topic
from protocol.twin import Assignment, State

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the agent is not running (status), 2 wrong settings."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["dead-letters"]:
        return dead_letters.main(given[1:])
    if given[:1] == ["copy"]:
        from edge_agent.once import copy

        return copy.main(given[1:])
    parser = argparse.ArgumentParser(
        prog="millwright agent",
        description="The agent of this gateway.",
        epilog="Also: dead-letters list | retry (what could not be delivered), copy (a copy of it to try something out on); "
        "each has its own --help.",
    )
    parser.add_argument("command", choices=["run", "check", "status", "sent", "trust", "enrol"])
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    parser.add_argument("--json", action="store_true", help="status or sent as JSON")
    parser.add_argument("--since", type=date.fromisoformat, help="sent: from this day on (UTC), 2026-01-31")
    parser.add_argument("--server", help="enrol: the server's https:// address (default: [server] url)")
    parser.add_argument("--token-file", type=Path, help="enrol: the file that `millwright server enrol-token` wrote")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(given)
    try:
        settings = config.load(options.config)
        if options.command == "status":
            return show(settings, "json" if options.json else "words")
        if options.command == "sent":
            return sent(settings, options.since.isoformat() if options.since else "", options.json)
        if options.command == "trust":
            return trust(settings)
        if options.command == "enrol":
            return enrol(settings, options.server or settings.server.url, options.token_file)
        file = mapping.load(Path(settings.mapping))
        if options.command == "check":
            sys.stdout.write(f"{options.config}: fine; {len(file.file.source)} source(s), filters {file.filters()}\n")
            return 0
        logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        return run(settings)
    except MillwrightError as error:
        sys.stderr.write(f"millwright agent: {error}\n")
        return 2


def run(settings: AgentSettings, machine: Clock | None = None) -> int:
    """Connects, serves until SIGTERM or SIGINT, and leaves cleanly. machine: another clock than the machine's own."""
    clock = Timekeeper(machine or SystemClock(), Path(settings.data_dir) / "clock.json")
    birth_ms = clock.now_ms()  # in order, also where the machine says 1970
    boot_id = uuid.uuid4().hex[:12]
    try:
        version = installed_version("millwright")
    except PackageNotFoundError:
        version = "0"
    shown = Shown(settings, clock)
    state = Topic(settings.site, settings.gateway, Channel.STATE, settings.root)
    will = State(online=False, timestamp=birth_ms, boot_id=boot_id, agent_version=version)
    uplink: PahoLink | HttpsLink
    if settings.uplink.transport == "https":
        if not shown.token:
            raise BadSettings(
                '[uplink] transport = "https" needs an enrolled gateway; `millwright agent enrol` does it'
            )
        uplink = HttpsLink(settings.server.url, state, lambda: shown.token, lambda: shown.web)
    else:
        uplink = connect(settings.uplink, f"{settings.gateway}-uplink", (state.text, encode(will)), shown.tls)
    agent = build_agent(
        settings,
        clock=clock,
        plant=connect(settings.plant, f"{settings.gateway}-plant", None, link_context(settings.plant, clock)),
        uplink=uplink,
        fetch=fetcher(settings, shown),
        keeper=shown.keeper(clock, uplink.reconnect),
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


def fetcher(settings: AgentSettings, shown: Shown) -> Fetch:
    """How bundles come: those that the server's signed list names, unless the settings say otherwise. The token is asked for
    each time, because a renewal brings a new one."""
    url, bundles = settings.server.url, Path(settings.data_dir) / "bundles"
    root = None if settings.server.unsigned_models else read_root(Path(settings.server.root))
    if root is None:
        log.warning("models that nobody signed may run here ([server] unsigned_models)")
    shared = config.secret(settings.server.token_file, "MILLWRIGHT_GATEWAY_TOKEN")
    http_fetch(url, shared, bundles)  # a wrong address is said at the start

    def fetch(assignment: Assignment) -> bytes:
        token, context = shown.token or shared, shown.web
        get = http_fetch(url, token, bundles, context=context)
        if root is None:
            return get(assignment)
        return only_signed(signed_list(root, url, token, bundles / "trust", context=context), get)(assignment)

    return fetch


def enrol(settings: AgentSettings, url: str, token_file: Path | None) -> int:
    """Trades a one-time token for this gateway's certificate."""
    if token_file is None:
        raise BadSettings("--token-file is missing; `millwright server enrol-token GATEWAY --out FILE` writes one")
    try:
        token = TokenFile.read(token_file.read_text(encoding="utf-8"))
        root = Path(settings.server.root)
        made = enrolment.enrol(url.rstrip("/"), token, settings.gateway, settings.identity_folder, root)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"not enrolled: {error}") from error
    sys.stdout.write(f"{made.gateway} enrolled, certificate until {made.not_after:%Y-%m-%d %H:%M} UTC\n{made.folder}\n")
    if root.exists():
        sys.stdout.write(f"root {root}\nsha256 {hashlib.sha256(read_root(root)).hexdigest()}\n")
    return 0


def connect(link: LinkSettings, client_id: str, will: tuple[str, bytes] | None, tls: ssl.SSLContext | None) -> PahoLink:
    """A connection that comes up by itself when the broker does."""
    return PahoLink(
        host=link.host,
        port=link.port,
        client_id=client_id,
        username=link.username,
        password=config.secret(link.password_file, "MILLWRIGHT_BROKER_PASSWORD") if link.username else "",
        tls=tls,
        will=will,
    )


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
