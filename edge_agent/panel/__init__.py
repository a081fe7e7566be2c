"""The gateway's own page: what left it, what stayed and why; and `/metrics`, how the agent is, for Prometheus. Reads files
only; changes nothing.

It listens on loopback unless `[panel] host` says otherwise, answers GET, and takes no name of a host that it was not
given, so that no page of somewhere else can read it through a person's browser."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from edge_agent.config import AgentSettings
from edge_agent.once.status import families, read
from edge_agent.sent import summary
from protocol.errors import BadSettings
from protocol.exposition import CONTENT_TYPE, exposition
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/panel.css": ("panel.css", "text/css; charset=utf-8"),
    "/panel.js": ("panel.js", "text/javascript; charset=utf-8"),
}
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def what_we_sent(settings: AgentSettings, since_day: str = "") -> dict[str, Any]:
    """For the page and for `millwright agent sent --json`: counts, what was kept back, examples, the declared policy,
    and what the outbox says of each lane."""
    folder = Path(settings.data_dir)
    try:
        status = msgspec.json.decode((folder / "status.json").read_bytes(), type=dict[str, Any])
    except (OSError, *UNREADABLE):
        status = {}
    return {
        "site": settings.site,
        "gateway": settings.gateway,
        **summary(folder / "sent", since_day),
        "lanes": status.get("lanes", {}),
        "clock": status.get("clock", {}),
        "policy": msgspec.to_builtins(msgspec.structs.replace(settings.share, key_file="", people_file="")),
    }


def metrics(settings: AgentSettings) -> str | None:
    """What `millwright status --metrics` prints, as it is now; None where the agent has not said yet how it is."""
    try:
        _, told = read(Path(settings.data_dir) / "status.json")
    except (OSError, BadSettings):
        return None
    return exposition(families(told, told.age_s(time.time())))


class Panel:
    """Serves the page on a thread of its own until `close`. Raises OSError if the port is taken."""

    def __init__(self, settings: AgentSettings, host: str, port: int) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(settings, host))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="panel", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(settings: AgentSettings, host: str) -> type[BaseHTTPRequestHandler]:
    names = {host, "localhost", "127.0.0.1", "[::1]"}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """The page, its parts, and what it shows."""
            url = urlsplit(self.path)
            if re.sub(r":\d+$", "", self.headers.get("Host", "")) not in names:
                return self._answer(421, b"not the name of this host; set [panel] host", "text/plain")
            if url.path == "/api/sent":
                since = parse_qs(url.query).get("since", [""])[0]
                told = what_we_sent(settings, since if _DAY.fullmatch(since) else "")
                return self._answer(200, json.dumps(told).encode(), "application/json")
            if url.path == "/metrics":
                text = metrics(settings)
                if text is None:
                    return self._answer(503, b"the agent has not said yet how it is", "text/plain")
                return self._answer(200, text.encode(), CONTENT_TYPE)
            if url.path in FILES:
                name, kind = FILES[url.path]
                return self._answer(200, files(__package__).joinpath(name).read_bytes(), kind)
            return self._answer(404, b"not here", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            for header, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", POLICY),
                ("X-Content-Type-Options", "nosniff"),
                ("Cache-Control", "no-store"),
            ):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # its name there
            log.debug(format, *args)

    return Handler
