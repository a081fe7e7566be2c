"""What every part of the demo shares."""

from __future__ import annotations

import argparse
import json
import secrets
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.demo.editors import Editors
from server.demo.processes import Processes, free_port

EDITED_REPORTS = 12


class Demo:
    """One run: its folder, its ports, its tokens, the server's API, and what it has seen so far."""

    def __init__(self, options: argparse.Namespace, folder: Path, processes: Processes) -> None:
        self.options = options
        self.folder = folder
        self.processes = processes
        self.mqtt_port = free_port()
        self.http_port: int = options.port or free_port()
        self.admin_token = secrets.token_urlsafe(32)
        self.gateway_token = secrets.token_urlsafe(32)
        self.lines = ["line-1"] if options.replay else ["line-1", "line-2"]
        self.began_s = time.monotonic()
        self.firsts: dict[str, float] = {}
        self.rss: dict[str, float] = {}
        self.stopped: list[bool] = []
        self.broker = ""
        self.editors = Editors(self.api, EDITED_REPORTS)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.http_port}"

    def api(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One GET of the admin API, or a POST of `body`."""
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.admin_token}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def everything(self, name: str) -> list[dict[str, Any]]:
        """Every row of a list of the API, page by page."""
        rows: list[dict[str, Any]] = []
        before = ""
        while True:
            page = self.api(f"{name}?limit=1000{before}")
            rows += page
            if len(page) < 1000:
                return rows
            before = f"&before={page[-1]['id']}"

    def status(self, line: str) -> dict[str, Any]:
        """What an agent last wrote about itself; empty before it did."""
        try:
            told: dict[str, Any] = json.loads((self.folder / line / "data" / "status.json").read_text())
        except (OSError, json.JSONDecodeError):
            return {}
        return told

    def plant(self) -> dict[str, Any]:
        """What the plant says it published."""
        try:
            told: dict[str, Any] = json.loads((self.folder / "plant.json").read_text())
        except (OSError, json.JSONDecodeError):
            return {"lines": {}}
        return told
