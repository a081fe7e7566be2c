"""What both sides read: the wire, bundles and what is in them, tables of recordings, shops, files that people carry."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from protocol import arrays, bundles, carried, columns, enrolment, expressions, ledger, recordings, shop_files, sync
from protocol.card import card, markdown
from protocol.clocks import ClockConfidence
from protocol.errors import BadMessage
from protocol.graphs import check_graph
from protocol.handed_down import HandedDown
from protocol.names import MessageClass, plant_name, strict_name
from protocol.reading.cases import packed_past, read_past
from protocol.reading.normalise import Memory, read_memory
from protocol.reading.notes import PastNote
from protocol.reading.reader import golden_texts, read_golden_texts
from protocol.reading.tokens import tokenizer
from protocol.schedules import Choice, Operation, Shop, ShopJob
from protocol.sync import MESSAGE_TYPES, Batch, Envelope, decode, decode_message, encode, envelope
from protocol.topics import Channel, Topic
from protocol.twin import Desired, Reported, State
from protocol.writing.clauses import BUILT_IN
from protocol.writing.facts import LANGUAGES
from protocol.writing.frames import encode_frames, read_frames
from tests.bundles import rewritten, small
from tests.fuzz.targets import Target, wire_examples

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
DOCUMENTS = (Envelope, Batch, sync.Ack, sync.Resend, sync.Command, sync.Reply, Desired, Reported, State)
NOW = 1_760_000_000_000
CLEAR = "The pump stands still <end> at 12.5 mm/s; 泵停了。"
BPE = {
    "added_tokens": [
        {"id": 9, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": {"type": "RobertaProcessing", "sep": ["<end>", 9], "cls": ["<end>", 9], "trim_offsets": True,
                       "add_prefix_space": False},
    "model": {"type": "BPE", "vocab": {"t": 0, "h": 1, "e": 2, "th": 3, "the": 4, "Ġ": 5, "p": 6, "u": 7, "<end>": 9},
              "merges": [["t", "h"], "th e"]},
}  # fmt: skip
PIECES = {
    "added_tokens": [],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing",
                       "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                  {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                       "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                                          "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100,
              "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "pump": 4, "the": 5, "##s": 6, "泵": 7}},
}  # fmt: skip
MIXED = b"""time,machine,temperature,load
2026-01-31 08:00:00,P-101,71.5,1
2026-01-31 08:15:00,P-101,72.5,1
2026-01-31 08:15:00,"P-102",,0
2026-01-31 08:30:00+01:00,P-101,70,nan
"""
GERMAN = b"""\xef\xbb\xbftime;machine;temperature;load
1769846400;P-101;71,5;1
1769847300;P-101;72,5;1
1769848200;P-101;bad;0
"""
JOBS = b"# two jobs\n2 2\n0 3 1 2\n1 4 0 1\n"
FLEXIBLE = b"2 2 1\n2 1 1 3 2 1 2 2 4\n1 2 1 1 2 5\n"
RULES = (
    b"wall >= 0.1 * bore", b"min(a, b, 3) < sqrt(c) ^ 2 / pi", b"-(a + -b) = 1e3", b"max(a, 2) > 0.5 - b", b"((a)) <= b"
)  # fmt: skip

LEDGER = ledger.Ledger(
    issued_ms=NOW,
    gateways=[
        ledger.GatewayLedger(
            site="s",
            gateway="g",
            lanes=[
                ledger.LaneLedger(
                    message_class=MessageClass.EVENT,
                    complete_to=3,
                    through=9,
                    stored=4,
                    missing=[(4, 5)],
                    shed=[(6, 7)],
                    dead=[(8, 8, "server_fails")],
                )
            ],
        )
    ],
)


def targets(folder: Path) -> Iterator[Target]:
    """Those of `protocol`. folder: not used, nothing here reads files."""
    del folder
    yield from _wire()
    yield from _names()
    yield from _bundles()
    yield from _texts()
    yield from _plant_files()
    yield from _carried()


def _wire() -> Iterator[Target]:
    examples = wire_examples()
    for name, kind in MESSAGE_TYPES.items():
        seeds = [encode(one) for one in examples.values() if type(one) is kind]
        yield Target(f"message-{name.split('.')[1]}", functools.partial(_message, name), seeds, json=True)
    for into in DOCUMENTS:
        seeds = [encode(one) for one in examples.values() if type(one) is into]
        yield Target(f"wire-{into.__name__.lower()}", _same_again(into), seeds or [_envelope(examples)], json=True)
    desired = next(one for one in examples.values() if isinstance(one, Desired))
    command = next(one for one in examples.values() if isinstance(one, sync.Command))
    down = HandedDown(desired=desired, commands=[command], answers=3, notes=4)
    yield Target("wire-handed_down", _same_again(HandedDown), [encode(down)], json=True)
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.json"))]
    yield Target("golden", _any_message, golden, json=True)


def _envelope(examples: dict[str, msgspec.Struct]) -> bytes:
    order: Any = examples["work_order"]
    made = envelope(order, site="s", gateway="g", seq=1, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
    return encode(made)


def _message(name: str, data: bytes) -> None:
    told = decode_message(name, msgspec.Raw(data))
    assert decode_message(name, msgspec.Raw(encode(told))) == told, "what was read is not read again as the same"


def _same_again(into: type[msgspec.Struct]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        told = decode(data, into)
        again = decode(encode(told), into)
        assert encode(again) == encode(told), "what was read is not written again as the same"

    return read


def _any_message(data: bytes) -> None:
    """As whatever it may be: at most one sort of message takes most documents."""
    taken = False
    for kind in (*MESSAGE_TYPES.values(), *DOCUMENTS):
        with contextlib.suppress(BadMessage):
            decode(data, kind)
            taken = True
    if not taken:
        raise BadMessage(sync.Reason.UNKNOWN_TYPE, "no message of ours")


def _names() -> Iterator[Target]:
    topics = [Topic("plant", "gateway-1", channel).text.encode() for channel in Channel]

    def topic(data: bytes) -> None:
        read = Topic.parse(data.decode(errors="surrogateescape"))
        assert Topic.parse(read.text) == read

    def name(data: bytes) -> None:
        text = data.decode(errors="surrogateescape")
        strict_name(text, "site")
        assert plant_name(text, "machine").isascii()

    def plant(data: bytes) -> None:
        plant_name(data.decode(errors="surrogateescape"), "machine")

    yield Target("topic", topic, topics)
    yield Target("strict_name", name, [b"gateway-1", b"A", b"a" * 64])
    yield Target("plant_name", plant, [b"P-101", "温度".encode(), b"x" * 128])


def _bundles() -> Iterator[Target]:
    whole = bundles.pack(small())
    passport = msgspec.json.encode(bundles.with_files(small()))
    yield Target("bundle", bundles.unpack, [whole, bundles.pack(small(2, limits="泵"))])
    yield Target("passport", _passport, [passport], json=True)
    tables = [
        np.arange(6, dtype=np.int16).reshape(2, 3), np.zeros(0), np.array(True), np.linspace(0, 1, 5, dtype=np.float32)
    ]  # fmt: skip
    yield Target("npy", functools.partial(arrays.read, "x.npy"), [arrays.written(one) for one in tables])
    yield Target("onnx", check_graph, _graphs())


def _passport(data: bytes) -> None:
    """Alone, and as a person is shown it."""
    try:
        told = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = {}
    read = bundles.unpack(rewritten(_small_archive(), {}, **{str(key): value for key, value in told.items()}))
    for language in LANGUAGES:
        markdown(card(read.passport, "0" * 64, language))


@functools.cache
def _small_archive() -> bytes:
    return bundles.pack(small())


def _graphs() -> list[bytes]:
    """An ONNX file with a subgraph, a function and weights, put together by hand."""
    text = _field
    tensor = text(8, b"w") + text(9, b"\0" * 16) + b"\x08\x04\x10\x01"
    inner = text(1, text(4, b"Add") + text(1, b"x")) + text(5, tensor)
    branch = text(1, b"then_branch") + text(6, inner) + b"\xa0\x01\x05"
    node = text(1, b"x") + text(2, b"y") + text(4, b"If") + text(7, b"") + text(5, branch)
    sparse = text(1, tensor) + text(2, tensor)
    graph = text(1, node) + text(2, b"g") + text(5, tensor) + text(15, sparse)
    opset = text(1, b"") + b"\x10\x14"
    function = text(1, b"Mine") + text(10, b"ours") + text(7, text(4, b"Relu")) + text(9, opset)
    plain = b"\x08\x0a" + text(7, graph) + text(8, opset)
    own = (
        b"\x08\x0a"
        + text(7, graph + text(1, text(4, b"Mine") + text(7, b"ours")))
        + text(8, opset)
        + text(25, function)
    )
    return [plain, own]


def _field(number: int, body: bytes) -> bytes:
    """One field of protobuf that has a length."""
    return _number(number << 3 | 2) + _number(len(body)) + body


def _number(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _texts() -> Iterator[Target]:
    yield Target("tokenizer", _tokenizer, [json.dumps(one).encode() for one in (BPE, PIECES)], json=True)
    yield Target("frames", read_frames, [encode_frames(one) for one in BUILT_IN.values()], json=True, slow=True)
    past = [
        PastNote(case="a", text="泵停了"),
        PastNote(case="b", text="leak", said={"failure": "leak"}, fixed_by=["x"]),
    ]
    yield Target("past_notes", read_past, [packed_past(past)], json=True)
    yield Target("memory", read_memory, [msgspec.json.encode(_MEMORY)], json=True)
    yield Target("golden_texts", _golden_texts, [golden_texts(["泵停了", "leak at seal"]).tobytes()], json=True)
    yield Target("expression", _expression, RULES)


_MEMORY = Memory(
    seen={"brg": {"bearing": 2}},
    folded={},
    patterns={},
    shapes={},
    joined={},
    words={"bearing": 2},
    pairs={},
    longest=40,
)


def _golden_texts(data: bytes) -> None:
    read_golden_texts(np.frombuffer(data, dtype=np.uint8))


def _tokenizer(data: bytes) -> None:
    words = tokenizer(data)
    ids, places = words.encode(CLEAR)
    assert len(ids) == len(places)
    assert all(0 <= i < words.vocabulary for i in ids), "an id beyond the vocabulary"
    words.decode(ids)


def _expression(data: bytes) -> None:
    rule = expressions.rule(data.decode(errors="replace"))
    known = dict.fromkeys(expressions.names(rule), 2.0)
    expressions.size(rule)
    expressions.may_hold(rule, dict.fromkeys(known, (0.5, 3.0)))
    expressions.holds(rule, known)


def _plant_files() -> Iterator[Target]:
    shop = Shop(jobs=[ShopJob(job="J0", operations=[Operation(choices=[Choice("M0", 3), Choice("M1", 4)])])])
    yield Target("shop_json", shop_files.shop_from_json, [msgspec.json.encode(shop)], json=True)
    yield Target("shop_text", _shop, [JOBS, FLEXIBLE])
    yield Target("recordings", _recordings, [MIXED, GERMAN, gzip.compress(MIXED)], slow=True)
    yield Target("recordings_plain", _recordings_plain, [MIXED, GERMAN])
    token = enrolment.TokenFile(token="mw1.abc", authority="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")
    yield Target(
        "token_file", lambda data: enrolment.TokenFile.read(data.decode(errors="replace")), [token.text().encode()]
    )


def _shop(data: bytes) -> None:
    text = data.decode(errors="replace")
    match shop_files.guess_format(text):
        case "json":
            shop_files.shop_from_json(data)
        case "jobshop":
            shop_files.read_job_shop(text)
        case _:
            shop_files.read_flexible(text)


_LAYOUT = recordings.Layout(time="time", targets=("temperature",), series=("machine",), known=("load",))


def _recordings(data: bytes) -> None:
    """As a person gives it on the server: by Arrow where it is there."""
    columns.header(io.BytesIO(data))
    recordings.known_inputs(recordings.lay_out(columns.read(io.BytesIO(data), _LAYOUT.wanted), _LAYOUT))


def _recordings_plain(data: bytes) -> None:
    """As on a gateway, without Arrow, in a zone that changes."""
    layout = msgspec.structs.replace(_LAYOUT, time_zone="Europe/Berlin", counts=True)
    read = columns.read_csv(io.BytesIO(data), layout.wanted, arrow=False)
    recordings.known_inputs(recordings.lay_out(read, layout))


def _carried() -> Iterator[Target]:
    examples = wire_examples()
    lines: list[bytes] = []
    header = carried.Header(way="up", site="s", gateway="g", made_ms=NOW, certificate="-----BEGIN CERTIFICATE-----")
    made = carried.Writer(lines.append, header)
    made.add(carried.Up(message_class=MessageClass.EVENT, batch=msgspec.Raw(encode(examples["batch"]))))
    made.end(lambda digest: digest[-8:])
    asks: list[bytes] = []
    renewal = enrolment.CarriedRenewal(request="-----BEGIN", signature=b"x" * 70, token_digest="0" * 64)
    carried.Writer(asks.append, msgspec.structs.replace(header, renewal=renewal)).end(lambda digest: digest[-8:])
    yield Target("carried_up", functools.partial(_file, carried.Up), [b"".join(lines), b"".join(asks)])
    lines = []
    made = carried.Writer(lines.append, msgspec.structs.replace(header, way="down"))
    ack: Any = examples["ack"]
    made.add(carried.Down(ack=ack))
    given = enrolment.Granted(gateway="g", certificate="-----BEGIN", authority="-----BEGIN", token="", now_ms=NOW)
    made.add(carried.Down(granted=given))
    made.end(lambda digest: digest[-8:])
    yield Target("carried_down", functools.partial(_file, carried.Down), [b"".join(lines)])
    signed = ledger.SignedLedger(
        ledger=LEDGER,
        key="a" * 64,
        signature="b" * 128,
    )
    yield Target("ledger", ledger.read_signed, [msgspec.json.encode(signed)], json=True)


def _file(kind: type[Any], data: bytes) -> None:
    def each(record: carried.Up | carried.Down) -> None:
        if isinstance(record, carried.Up):
            decode(carried.read_batch(record), Batch)

    carried.read(io.BytesIO(data).readline, kind, each)
