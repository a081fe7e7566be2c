"""What a gateway reads: its files, what a plant publishes, what a server answers, models as they are proven before use."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent import config, enrolment, identity, mapping
from edge_agent.intake import Intake, work_order
from edge_agent.redaction import Redactor
from edge_agent.runtimes import load
from edge_agent.runtimes.lite import check_file
from protocol.bundles import Lite, Parity, digest, pack
from protocol.catalogue import Catalogue
from protocol.enrolment import Granted
from protocol.errors import MillwrightError
from protocol.sync import encode
from server.identity import CA
from tests.bundles import small
from tests.fuzz.targets import Target, through, wire_examples
from tests.identities import p256, pem, request

MOST_TEXT = 4000
"""Characters of the longest text that the wire has: nothing longer comes to be redacted."""
NOW = 1_760_000_000_000
MAPPING = """
[[source]]
topic = "plant/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
quality = "$.quality"
unit = "$.unit"

[[source]]
topic = "list/{machine}"
each = "$.tags[*]"
signal = "$.name"
value = "$.v[0]"
time = "$['t']"
root_time = "$.t"
time_unit = "ms"
time_zone = "Europe/Berlin"

[[source]]
topic = "members"
each = "$.*"
machine = "@key"
signal = "$.s"
value = "$.v"

[[notes]]
topic = "notes/{machine}"

[machines.P-101]
type = "pump"
name_zh = "泵"

[signals.flow]
unit = "l/s"
"""
CATALOGUE = """
safety = ["action:x"]
budget = 100.0

[[part]]
part = "seal"
suppliers = [{supplier = "s", price = 2.5, lead_days = 7, minimum = 2}]

[[bill]]
part = "seal"
failure = "leak"
share = 0.5

[[card]]
id = "c"
item = "action:y"
attributes = {symptom = "hot"}

[[machine]]
machine = "P-101"
en = "pump"
zh = "泵"
"""
SAMPLES: dict[str, dict[str, Any]] = {
    "plant/P-101/flow": {"value": 71.5, "timestamp": "2025-10-01T08:15:00Z", "quality": 192, "unit": "°C"},
    "list/P-101": {"t": NOW, "tags": [{"name": "flow", "v": [1]}, {"name": "p", "v": [2.5], "t": "2025-10-01T08:15:00"}]},
    "members": {"P-101": {"s": "flow", "v": 1}, "P-102": {"s": "p", "v": -2.5}},
}  # fmt: skip


def targets(folder: Path) -> Iterator[Target]:
    """Those of `edge_agent`. folder: an empty one."""
    yield from _plant(folder)
    yield from _settings(folder)
    yield from _server(folder)
    yield from _models()


def _plant(folder: Path) -> Iterator[Target]:
    path = folder / "known.toml"
    path.write_text(MAPPING)
    for topic, body in SAMPLES.items():
        yield Target(f"intake-{topic.split('/')[0]}", _intake(path, topic), [json.dumps(body).encode()], json=True)
    yield Target("intake-topic", _topics(path), [topic.encode() for topic in SAMPLES])
    orders = [encode(wire_examples()["work_order"])]
    yield Target("intake-work_order", work_order, orders, json=True)
    redactor = Redactor(people=["Li Wei", "王师傅"])
    notes = ["王师傅 called 138 0013 8000; Mr John Crane, a.b@c.de", "pump 3: operator Li Wei, 2026-01-31"]
    yield Target(
        "redaction",
        lambda data: _redacted(redactor, data.decode(errors="replace")),
        [n.encode() for n in notes],
        slow=True,
    )


def _intake(path: Path, topic: str) -> Callable[[bytes], None]:
    """Whether an input is taken does not show here: `read` answers with what it refused."""
    known = mapping.load(path)

    def read(data: bytes) -> None:
        Intake(known, lambda: NOW, 300).read(topic, data, retained=False)

    return read


def _topics(path: Path) -> Callable[[bytes], None]:
    body = json.dumps(SAMPLES["plant/P-101/flow"]).encode()

    def read(data: bytes) -> None:
        known = mapping.load(path)
        Intake(known, lambda: NOW, 300).read(data.decode(errors="replace"), body, retained=False)

    return read


def _redacted(redactor: Redactor, text: str) -> None:
    text = text[:MOST_TEXT]
    assert len(redactor.redact(text)) == len(text), "places in the text have moved"


def _settings(folder: Path) -> Iterator[Target]:
    yield Target("mapping", through(folder / "mapping.toml", _whole_mapping), [MAPPING.encode()])
    agent = b'site = "plant"\ngateway = "gateway-1"\n'
    agent += b'mapping = "mapping.toml"\ndata_dir = "data"\nstep_ms = 60000\n[plant]\nhost = "m"\n'
    yield Target("agent_settings", through(folder / "agent.toml", config.load), [agent])
    read = functools.partial(config.read_toml, into=Catalogue)
    yield Target("catalogue", through(folder / "catalogue.toml", read), [CATALOGUE.encode()])


def _whole_mapping(path: Path) -> None:
    known = mapping.load(path)
    known.filters()
    for topic, body in SAMPLES.items():
        known.wire_kind(topic)
        Intake(known, lambda: NOW, 300).read(topic, json.dumps(body).encode(), retained=False)


def _server(folder: Path) -> Iterator[Target]:
    now = datetime.fromtimestamp(NOW / 1000, UTC)
    ca, key = CA.make(folder / "ca", now), p256()
    issued = ca.sign_request(request("gateway-1", key), "gateway-1", now)
    whole = {identity.CERTIFICATE: issued.pem, identity.AUTHORITY: ca.pem, identity.KEY: pem(key), identity.TOKEN: b"t"}
    place = folder / "identity"
    identity.replace(place, key=pem(key), certificate=issued.pem, authority=ca.pem, token="t")
    for name, body in whole.items():
        yield Target(f"identity-{name.partition('.')[0]}", _identity(place, whole, name), [body], slow=True)
    granted = Granted(
        gateway="gateway-1", certificate=issued.pem.decode(), authority=ca.pem.decode(), token="t" * 40, now_ms=NOW
    )
    yield Target("granted", _granted(pem(key)), [msgspec.json.encode(granted)], json=True)
    refused = json.dumps({"error": "no such token", "reason": "token_unknown"}).encode()
    yield Target("enrolment_refusal", _refusal, [refused, b"<html>502</html>"], json=True)
    signature = key.sign(b"payload", ec.ECDSA(hashes.SHA256()))
    yield Target("vouched", lambda data: identity.vouched(ca.pem, data, signature, b"payload"), [issued.pem], slow=True)


def _identity(place: Path, whole: dict[str, bytes], name: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        try:
            (place / name).write_bytes(data)
            found = identity.Identity.load(place)
            assert found is not None
            if name == identity.KEY:
                found.sign(b"payload")
            identity.context(place / identity.AUTHORITY, place / identity.CERTIFICATE, place / identity.KEY)
        finally:
            (place / name).write_bytes(whole[name])

    return read


def _granted(key: bytes) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        enrolment._check(enrolment.granted_by(data), "gateway-1", key)

    return read


def _refusal(data: bytes) -> None:
    assert isinstance(enrolment.refused_by(502, data), MillwrightError)


def _models() -> Iterator[Target]:
    archive = pack(small())
    yield Target("model", lambda data: load(data, digest(data)), [archive], slow=True)
    tables = {name: [str(t.dtype.str), t.tolist()] for name, t in small().tables.items()}
    yield Target("model_tables", _tables, [json.dumps(tables).encode()], json=True, slow=True)
    told = Lite(
        recipe="w8",
        inputs=["x"],
        outputs=["q"],
        size=64,
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
    )
    lite = b"\x1c\0\0\0TFL3" + bytes(56)
    yield Target("tflite", lambda data: check_file(data, msgspec.structs.replace(told, size=len(data))), [lite])


def _tables(data: bytes) -> None:
    """Tables of any kind and shape, in a bundle whose sums are right."""
    made: dict[str, Any] = {}
    try:
        for name, (kind, values) in json.loads(data).items():
            made[f"t{name}" if not name.isascii() else name] = np.array(values, dtype=kind)
        whole = pack(msgspec.structs.replace(small(), tables=made))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, SyntaxError):
        return  # no tables at all
    load(whole, digest(whole))
