"""Every route of the server's API and console, as the application itself lists them: a new route is fuzzed by existing.

An input is a request as JSON, {at, query, headers, body}: `at` fills in the parameters of the route's path. Whatever else an
input may be, it is the body. A server may answer whatever it likes, but never 500 or above."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from protocol.bundles import digest, pack, with_files
from protocol.clocks import ClockConfidence
from protocol.enrolment import ENROL, RENEW, to_sign
from protocol.errors import Reason, Refused
from protocol.names import MessageClass
from protocol.sync import MESSAGE_TYPES, Batch, encode, envelope
from protocol.twin import Role
from server import edits, enrolment, intake, registry, rollouts
from server.__main__ import migrate
from server.app import create_app
from server.catalogues import Catalogues
from server.config import Settings
from server.database import AuditRow, Database, Job, Model, ReportRow
from server.identity import CA
from server.signing import make_keys
from tests.bundles import small
from tests.fuzz.targets import Target, wire_examples
from tests.identities import p256, request
from tests.written import report

ADMIN, SHARED = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"
WAIT_S = 10.0
FIRST = {"number": "1", "gateway": "g", "signal": "flow", "machine": "P-101", "document": "fault_report"}
"""What there is of every kind that a path may name."""
PLACES = {
    "/api/v1/gateways/{name}": {"name": "g"},
    "/api/v1/gateways/{name}/enrol-token": {"name": "g"},
    "/api/v1/gateways/{name}/revoke": {"name": "g"},
    "/api/v1/trust/{name}": {"name": "timestamp.json"},
    "/console/assets/{name}": {"name": "console.js"},
    "/api/v1/sync/{message_class}": {"message_class": "event"},
}
QUERIES: dict[str, dict[str, Any]] = {
    "/": {"lang": "zh"},
    "/api/v1/models/{number}/card": {"lang": "zh"},
    "/api/v1/models/{number}/card.md": {"lang": "en"},
    "/api/v1/wordings": {"status": "open", "limit": 10},
    "/api/v1/gateways/{name}/enrol-token": {"valid_s": 3600},
    "/api/v1/gateways/{name}/revoke": {"because": "lost"},
    "/api/v1/sync/down": {"answers": 0, "notes": 0},
    "/console/samples/{gateway}/{machine}/{signal}": {"start_ms": 1_760_000_000_000, "end_ms": 1_760_000_600_000},
} | {f"/api/v1/sync/{last}": {"site": "s"} for last in ("state", "reported", "reply", "{message_class}")}
NOTE = {"gateway": "g", "machine": "P-101", "text": "leak at the seal", "time_ms": "1760000000000"}
BODIES: dict[str, Any] = {
    "/api/v1/notes": NOTE,
    "/console/note": NOTE,
    "/api/v1/jobs": {"kind": "forecast"},
    "/api/v1/rollouts": {"model": 1, "role": "shadow", "gateways": ["g"]},
    "/api/v1/wordings/{number}/answer": {"accept": True, "author": "A", "despite_doubts": True},
}
HEADERS = {"x-millwright": "console", "content-type": "application/json", "accept": "*/*", "range": "bytes=0-99"}
LISTED = {"limit": 100, "before": 5}
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")


def targets(folder: Path) -> Iterator[Target]:
    """One of every route and method. folder: an empty one."""
    site = Site(folder)
    for path, method in routes(site.app):
        name = f"http-{method.lower()}{re.sub(r'[^a-z0-9]+', '_', path)}".rstrip("_")
        read = functools.partial(site.ask, method, path)
        yield Target(name, read, site.examples(path), json=True, slow=True)


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """(path, method) of everything that an application answers to."""
    found = [(str(r.path), method) for r in iter_route_contexts(app.routes) for method in r.methods or ()]
    return sorted(set(found))


class Site:
    """An application with one of everything in its database, which every input meets alike: what one has written is undone
    after it."""

    def __init__(self, folder: Path) -> None:
        self._settings = Settings(
            database=f"sqlite:///{folder}/server.db",
            artifacts=str(folder / "artifacts"),
            admin_token=ADMIN,
            gateway_token=SHARED,
            metrics_token=SHARED[::-1],
        )
        migrate(self._settings)
        make_keys(self._settings.key_folder)
        self.database = Database(self._settings.database)
        self._bodies = BODIES | self._filled()
        self.app = create_app(self._settings, self.database)
        self._file = folder / "server.db"
        self._first = sqlite3.connect(":memory:")
        with sqlite3.connect(self._file) as now:
            now.backup(self._first)
        self._callers = itertools.count()

    def examples(self, path: str) -> list[bytes]:
        """A request as an admin, as a gateway and as nobody."""
        return [json.dumps(self._example(path, token)).encode() for token in (ADMIN, self.token, "")]

    def ask(self, method: str, path: str, data: bytes) -> int:
        """The status of the answer to an input; where it is no request, to one with that as its body."""
        told = self._request(path, data)
        at, query, headers, body = told["at"], told["query"], told["headers"], told["body"]
        at = at if isinstance(at, dict) else {}
        where = _PARAMETER.sub(lambda one: quote(_text(at.get(one[1], "1")), safe="/%", errors="surrogatepass"), path)
        asked = (
            urlencode(_items(query), doseq=True, errors="surrogatepass") if isinstance(query, dict) else _text(query)
        )
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        status = asyncio.run(self._answered(method, where, asked, headers if isinstance(headers, dict) else {}, sent))
        if method != "GET":
            with sqlite3.connect(self._file) as now:
                self._first.backup(now)
        assert status < 500, f"{method} {path} answers {status}"
        return status

    def _example(self, path: str, token: str) -> dict[str, Any]:
        known = path if path in (*PLACES, *QUERIES, *self._bodies) else path.replace("/console/", "/api/v1/", 1)
        here = FIRST | {"digest": self.waiting if "enrol-tokens" in path else self.digest} | PLACES.get(known, {})
        return {
            "at": {name: here[name] for name in _PARAMETER.findall(path) if name in here},
            "query": QUERIES.get(known, LISTED if path.startswith("/api/v1/") and "{" not in path else {}),
            "headers": HEADERS | ({"authorization": f"Bearer {token}"} if token else {}),
            "body": self._bodies.get(known, {}),
        }

    def _request(self, path: str, data: bytes) -> dict[str, Any]:
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            told = None
        example = self._example(path, self.token if path.startswith("/api/v1/sync/") else ADMIN)
        return told if isinstance(told, dict) and told.keys() == example.keys() else example | {"body": data}

    async def _answered(self, method: str, path: str, query: str, headers: dict[str, Any], body: bytes) -> int:
        """Straight into the application, without a socket, and with what a web server leaves of names and values."""
        told: list[int] = []
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        number = next(self._callers)  # nobody is turned away because of what another input was refused for
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(path), "raw_path": path.encode("ascii", "replace"), "root_path": "",
            "query_string": query.encode("ascii", "replace"), "client": (f"10.{number >> 16}.{number >> 8 & 255}.1", 1),
            "server": ("127.0.0.1", 80), "headers": [(b"host", b"localhost"), *_headers(headers)],
        }  # fmt: skip
        async with asyncio.timeout(WAIT_S):
            await self.app(scope, receive, send)
        return told[0]

    def _filled(self) -> dict[str, Any]:
        """Puts one of everything into the database; answers the bodies that need what is there."""
        now = datetime.now(UTC)
        now_ms = int(now.timestamp() * 1000)
        begun = now - timedelta(days=25)
        ca, key = CA.make(self._settings.authority_folder, now), p256()
        issued = ca.sign_request(request("g", key), "g", begun)
        asked = request("g", p256()).decode()
        archive = pack(small())
        self.digest = digest(archive)
        known = Catalogues(self._settings.artifact_folder)
        with self.database.begin() as session:
            for lane, batch in batches().items():
                intake.store_batch(session, "s", "g", lane, batch, now_ms, known)
            self.token = enrolment.book(session, issued, "enrolled", begun)
            intake.take_reply(session, "s", "g", encode(wire_examples()["reply"]), now_ms)
            first = enrolment.make_token(session, "h", timedelta(days=7), now)
            self.waiting = hashlib.sha256(first.encode()).hexdigest()
            registry.register(session, archive, with_files(small()), self._settings.artifact_folder, "x", "", now_ms)
            session.add(Job(kind="forecast", because="", created_ms=now_ms, started_ms=None, finished_ms=None))
            session.add(AuditRow(time_ms=now_ms, who="admin", what="", detail={}))
            intake.quarantine(session, "g", "event", 1, Refused(Reason.BAD_NAME, ""), b"\xff", now_ms)
            rollouts.start(session, session.get_one(Model, 1), Role.SHADOW, None, "", now_ms)
            row = session.get_one(ReportRow, 1)
            row.body = msgspec.to_builtins(report())
            session.flush()
            standing = _standing(edits.describe(session, known, row))
            given = msgspec.convert({"language": "en", "clauses": standing}, edits.Given)
            edits.save(session, known, row, given, now_ms)
        return {
            "/api/v1/reports/{number}/edits": {"language": "en", "author": "A", "clauses": standing},
            "/api/v1/feedback": {"target": row.report_id, "verdict": "accepted", "comment": "好"},
            "/console/feedback": {"target": row.report_id, "verdict": "accepted", "time_ms": str(now_ms)},
            "/api/v1/sync/{message_class}": json.loads(batches()[MessageClass.EVENT]),
            "/api/v1/sync/state": msgspec.to_builtins(wire_examples()["state"]),
            "/api/v1/sync/reply": json.loads(encode(wire_examples()["reply"])),
            "/api/v1/sync/reported": msgspec.to_builtins(wire_examples()["reported"]),
            ENROL: {"token": first, "request": request("h").decode()},
            RENEW: {
                "certificate": issued.pem.decode(),
                "request": asked,
                "signature": msgspec.to_builtins(key.sign(to_sign(asked), ec.ECDSA(hashes.SHA256()))),
            },
        }


def _standing(described: dict[str, Any]) -> list[dict[str, Any]]:
    """A report as it stands with own words in one place, in the form in which it is sent back."""
    clauses = [clause for section in described["sections"] for clause in section["clauses"]]
    said = {one["clause"]: one["en"] for one in clauses if one["en"]["said"] is not None}
    told: list[dict[str, Any]] = [{"clause": name, "wording": one["said"]} for name, one in said.items()]
    name, one = list(said.items())[1]
    told[1] = {"clause": name, "text": "Mind you. " + one["wordings"][one["said"]]}
    return told


def batches() -> dict[MessageClass, bytes]:
    """The examples of the wire as a gateway sends them, a batch a class."""
    made: dict[MessageClass, list[Any]] = {}
    for one in wire_examples().values():
        if isinstance(one, tuple(MESSAGE_TYPES.values())):
            made.setdefault(one.message_class, []).append(one)
    return {
        lane: encode(
            Batch(
                envelopes=[
                    envelope(one, site="s", gateway="g", seq=at, boot="b", clock=ClockConfidence.SYNCED, time_ms=1)
                    for at, one in enumerate(messages, start=1)
                ]
            )
        )
        for lane, messages in made.items()
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _items(query: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value if isinstance(value, list) else _text(value)) for name, value in query.items()]


def _headers(told: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in told.items():
        if _HEADER.fullmatch(name):
            yield name.lower().encode(), re.sub(rb"[\x00\r\n]", b" ", _text(value).encode(errors="surrogatepass"))
