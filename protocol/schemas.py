"""JSON Schema and AsyncAPI 3 of the wire, generated from the message types: `millwright schema --out docs/wire`.

The documents are the types; a test fails when the published copy differs from what this module generates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from protocol.bundles import Passport
from protocol.feedback import Feedback
from protocol.plans import WorkPlan
from protocol.purchases import PurchaseProposal
from protocol.reports import FaultEvent, Forecast, Recommendation, Report
from protocol.schedules import Schedule
from protocol.sync import MESSAGE_TYPES, Ack, Batch, Command, Reply, Resend
from protocol.topics import DEFAULT_ROOT, Channel
from protocol.twin import Desired, Reported, State

CHANNEL_PAYLOADS: dict[Channel, type[msgspec.Struct]] = {
    Channel.STATE: State,
    Channel.UP_ALARM: Batch,
    Channel.UP_EVENT: Batch,
    Channel.UP_FEEDBACK: Batch,
    Channel.UP_REPORT: Batch,
    Channel.UP_METRIC: Batch,
    Channel.UP_BULK: Batch,
    Channel.UP_REPLY: Reply,
    Channel.DOWN_ACK: Ack,
    Channel.DOWN_RESEND: Resend,
    Channel.DOWN_COMMAND: Command,
    Channel.TWIN_DESIRED: Desired,
    Channel.TWIN_REPORTED: Reported,
    Channel.SHOP_EVENT: FaultEvent,
    Channel.SHOP_FORECAST: Forecast,
    Channel.SHOP_RECOMMENDATION: Recommendation,
    Channel.SHOP_REPORT: Report,
    Channel.SHOP_PURCHASE: PurchaseProposal,
    Channel.SHOP_SCHEDULE: Schedule,
    Channel.SHOP_PLAN: WorkPlan,
    Channel.SHOP_FEEDBACK: Feedback,
}
AGENT_HEARS = {Channel.DOWN_ACK, Channel.DOWN_RESEND, Channel.DOWN_COMMAND, Channel.TWIN_DESIRED, Channel.SHOP_FEEDBACK}
RETAINED = {Channel.STATE, Channel.TWIN_DESIRED, Channel.TWIN_REPORTED}


def json_schema() -> dict[str, Any]:
    """Every type that crosses the wire, as one JSON Schema 2020-12 document of definitions."""
    types: list[Any] = [*dict.fromkeys([*CHANNEL_PAYLOADS.values(), *MESSAGE_TYPES.values(), Passport])]
    _, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Millwright wire, v1",
        "$defs": {name: definitions[name] for name in sorted(definitions)},
    }


def asyncapi() -> dict[str, Any]:
    """The channels as AsyncAPI 3.0, seen from the agent; payloads refer to wire.schema.json."""
    parameters = {
        "site": {"description": "name of the site"},
        "gateway": {"description": "name of the gateway, unique on its server"},
    }
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for channel, payload in CHANNEL_PAYLOADS.items():
        key = channel.value.replace("/", "_")
        channels[key] = {
            "address": f"{DEFAULT_ROOT}/{{site}}/{{gateway}}/{channel.value}",
            "parameters": parameters,
            "messages": {payload.__name__: {"payload": {"$ref": f"wire.schema.json#/$defs/{payload.__name__}"}}},
            "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
        }
        operations[("hear_" if channel in AGENT_HEARS else "say_") + key] = {
            "action": "receive" if channel in AGENT_HEARS else "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "bindings": {"mqtt": {"qos": 1, "retain": channel in RETAINED, "bindingVersion": "0.2.0"}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millwright gateway",
            "version": "1",
            "description": "What a gateway's agent says and hears. `data` of an envelope is the type that its `type` names.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def documents() -> dict[str, str]:
    """File name -> text of everything that is published."""
    made = {"wire.schema.json": json_schema(), "asyncapi.json": asyncapi()}
    return {
        name: msgspec.json.format(msgspec.json.encode(body), indent=2).decode() + "\n" for name, body in made.items()
    }


def main(argv: list[str]) -> int:
    """`millwright schema [--out FOLDER]`: writes the documents, or prints the JSON Schema."""
    parser = argparse.ArgumentParser(
        prog="millwright schema", description="Write JSON Schema and AsyncAPI 3 of the wire."
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write wire.schema.json and asyncapi.json into; without it, print the schema"
    )
    out: Path | None = parser.parse_args(argv).out
    for name, text in documents().items():
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
        elif name == "wire.schema.json":
            sys.stdout.write(text)
    return 0
