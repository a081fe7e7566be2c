"""The wire: golden bytes of v1, round trips, and refusals that can be counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage, BadName, BadTopic, Reason
from protocol.names import MessageClass, plant_name, stable_id, strict_name
from protocol.schemas import documents, json_schema
from protocol.sync import Batch, decode, decode_message, encode
from protocol.topics import Channel, Topic

TESTS = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("wire_examples", Path(__file__).with_name("wire_examples.py"))
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
EXAMPLES: dict[str, msgspec.Struct] = _module.EXAMPLES

strict = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


GROWN = {
    *("ack", "ack_rate", "ack_with_time", "batch", "batch_dead"),
    *("forecast", "heartbeat", "recommendation", "report", "reported"),
}
"""Documents that have got optional fields since their bytes were kept."""


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_golden_bytes_of_v1_are_still_written_and_read(name: str) -> None:
    golden = (TESTS / "golden" / "v1" / f"{name}.json").read_bytes()
    again = decode(golden, type(EXAMPLES[name]))
    assert again == EXAMPLES[name]
    if name in GROWN:
        assert _says_at_least(msgspec.json.decode(encode(again)), msgspec.json.decode(golden))
    else:
        assert encode(again) == golden


def _says_at_least(now: object, before: object) -> bool:
    """Every key of `before` is still there with the same value."""
    if isinstance(before, dict) and isinstance(now, dict):
        return all(key in now and _says_at_least(now[key], value) for key, value in before.items())
    if isinstance(before, list) and isinstance(now, list):
        return len(now) == len(before) and all(map(_says_at_least, now, before))
    return now == before


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_document_fits_the_published_schema(name: str) -> None:
    schema = json_schema()
    document = msgspec.json.decode(encode(EXAMPLES[name]))
    reference = {"$ref": f"#/$defs/{type(EXAMPLES[name]).__name__}", "$defs": schema["$defs"]}
    jsonschema.validate(document, reference)
    jsonschema.Draft202012Validator.check_schema(schema)


def test_published_documents_are_what_the_types_say() -> None:
    for name, text in documents().items():
        assert (TESTS.parent / "docs" / "wire" / name).read_text(encoding="utf-8") == text, (
            "run: millwright schema --out docs/wire"
        )


@given(strict, strict, st.sampled_from(Channel), st.sampled_from(["mw/v1", "plant/a/b", "x"]))
def test_a_topic_is_read_back_as_it_was_written(site: str, gateway: str, channel: Channel, root: str) -> None:
    topic = Topic(site, gateway, channel, root)
    assert Topic.parse(topic.text, root) == topic


@given(st.text(max_size=80).filter(lambda text: "/" not in text))
def test_a_topic_that_is_not_ours_is_refused_and_never_crashes(text: str) -> None:
    with pytest.raises(BadTopic) as refused:
        Topic.parse("mw/v1/" + text)
    assert refused.value.reason is Reason.UNKNOWN_TOPIC


@given(st.binary(max_size=200))
def test_bytes_from_outside_are_refused_with_a_reason(payload: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        decode(payload, Batch)
    assert refused.value.reason in {Reason.MALFORMED_JSON, Reason.WRONG_TYPE}


def test_a_payload_over_its_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadMessage) as refused:
        decode(b"[" * 5_000_000, Batch)
    assert refused.value.reason is Reason.TOO_LARGE


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadMessage):
        decode(b'{"envelopes":' + b"[" * 200_000, Batch)


def test_an_unknown_message_type_says_so() -> None:
    with pytest.raises(BadMessage) as refused:
        decode_message("millwright.surprise.v9", msgspec.Raw(b"{}"))
    assert refused.value.reason is Reason.UNKNOWN_TYPE


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "-a", "a" * 65, "a b", "ä"])
def test_a_site_or_gateway_name_is_strict(bad: str) -> None:
    with pytest.raises(BadName):
        strict_name(bad, "gateway")


def test_plant_names_keep_the_plants_own_script_and_stay_safe_in_topics() -> None:
    assert plant_name("温度 1号", "signal") == "温度 1号"
    for bad in ("", " x", "a/b", "a+b", "#", "a\x00", "é" * 65):
        with pytest.raises(BadName):
            plant_name(bad, "signal")


def test_the_same_facts_give_the_same_id() -> None:
    assert stable_id("event", "g", "m", 1) == stable_id("event", "g", "m", 1)
    assert stable_id("event", "g", "m", 1) != stable_id("event", "gm", "", 1)


def test_only_up_channels_have_a_message_class() -> None:
    assert Channel.up(MessageClass.BULK) is Channel.UP_BULK
    assert {c.message_class for c in Channel} == {None, *MessageClass}
    assert Channel.UP_REPLY.message_class is None
