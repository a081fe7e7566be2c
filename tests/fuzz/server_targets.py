"""What a server reads beside its HTTP API: requests for certificates, batches all the way into the database, files that
people carry to it, checkpoints that somebody else has trained."""

from __future__ import annotations

import contextlib
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

from protocol.carried import Header, Up, Writer
from protocol.clocks import ClockConfidence
from protocol.errors import BadBundle
from protocol.names import MessageClass
from protocol.sync import MESSAGE_TYPES, Batch, Message, encode, envelope
from server import config, intake
from server.__main__ import migrate
from server.carried import take
from server.config import Settings
from server.database import Database
from server.identity import CA, requested
from tests.fuzz.targets import Target, wire_examples
from tests.identities import p256, request

NOW = 1_760_000_000_000
TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
GPT2 = {
    "model_type": "gpt2", "vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip
DISTIL = {
    "model_type": "distilbert", "vocab_size": 300, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip


def targets(folder: Path) -> Iterator[Target]:
    """Those of `server`. folder: an empty one."""
    now = datetime.fromtimestamp(NOW / 1000, UTC)
    settings = Settings(
        database=f"sqlite:///{folder}/server.db",
        artifacts=str(folder / "artifacts"),
        admin_token=TOKEN,
        gateway_token=TOKEN[::-1],
    )
    migrate(settings)
    database = Database(settings.database)
    ca, key = CA.make(settings.authority_folder, now), p256()
    asked = request("g", key)
    certificate = ca.sign_request(asked, "g", now).pem
    yield Target("csr", lambda data: requested(data, "g"), [asked], slow=True)
    yield Target("certificate", functools.partial(ca.read, now=now), [certificate], slow=True)
    yield from _batches(database)
    carried = functools.partial(_carried, database, ca, folder / "file.up", now)
    yield Target("carried_taken", carried, [_file(certificate, key)], slow=True)
    path = folder / "server.toml"
    written = (
        f'database = "sqlite://"\nadmin_token = "{TOKEN}"\ngateway_token = "{TOKEN[::-1]}"\n[broker]\nhost = "m"\n'
    )
    yield Target("server_settings", functools.partial(_settings, path), [written.encode()])
    yield from _checkpoints(folder / "checkpoint")


def _batches(database: Database) -> Iterator[Target]:
    examples = wire_examples()
    by_class: dict[MessageClass, list[Message]] = {}
    for one in examples.values():
        if isinstance(one, tuple(MESSAGE_TYPES.values())):
            by_class.setdefault(one.message_class, []).append(one)
    for lane, messages in by_class.items():
        seeds = [_batch([message]) for message in messages]
        yield Target(f"batch-{lane.value}", functools.partial(_stored, database, lane), seeds, json=True, slow=True)
    take_reply = functools.partial(intake.take_reply, now_ms=NOW)
    takes: tuple[tuple[str, Callable[..., object]], ...] = (
        ("state", intake.take_state), ("reported", intake.take_reported), ("reply", take_reply)
    )  # fmt: skip
    for name, take_it in takes:
        seed = encode(examples[name])
        yield Target(f"taken-{name}", functools.partial(_taken, database, take_it), [seed], json=True, slow=True)


def _batch(messages: list[Message]) -> bytes:
    wrapped = [
        envelope(one, site="s", gateway="g", seq=at, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
        for at, one in enumerate(messages, start=1)
    ]
    return encode(Batch(envelopes=wrapped))


def _stored(database: Database, lane: MessageClass, data: bytes) -> None:
    """As it is stored, and undone: every input meets an empty database."""
    with contextlib.suppress(_Undone), database.begin() as session:
        intake.store_batch(session, "s", "g", lane, data, NOW, intake.BUILT_IN_ONLY, one_by_one=True)
        session.flush()
        raise _Undone


def _taken(database: Database, take_it: Callable[..., object], data: bytes) -> None:
    with contextlib.suppress(_Undone), database.begin() as session:
        take_it(session, "s", "g", payload=data)
        session.flush()
        raise _Undone


class _Undone(Exception):  # noqa: N818
    """Ends a transaction that is not to be kept."""


def _file(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    lines: list[bytes] = []
    header = Header(way="up", site="s", gateway="g", made_ms=NOW, certificate=certificate.decode())
    made = Writer(lines.append, header)
    order: Any = wire_examples()["work_order"]
    made.add(Up(message_class=MessageClass.EVENT, batch=msgspec.Raw(_batch([order]))))
    made.end(lambda payload: key.sign(payload, ec.ECDSA(hashes.SHA256())))
    return b"".join(lines)


def _carried(database: Database, ca: CA, path: Path, now: datetime, data: bytes) -> None:
    path.write_bytes(data)
    take(database, ca, path, now, intake.BUILT_IN_ONLY)


def _settings(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    config.load(path, {})


def _checkpoints(folder: Path) -> Iterator[Target]:
    """The config.json of a checkpoint that holds one weight of the wrong name. Needs the extra [train]."""
    from safetensors.numpy import save

    from server.checkpoints import load_gpt
    from server.checkpoints_bert import load_bert

    folder.mkdir()
    (folder / "model.safetensors").write_bytes(save({"other.weight": np.zeros((2, 2), dtype=np.float32)}))
    (folder / "tokenizer.json").write_bytes(b"{}")
    gpt = functools.partial(_checkpoint, folder, load_gpt)
    bert = functools.partial(_checkpoint, folder, load_bert)
    yield Target("checkpoint-gpt", gpt, [json.dumps(one).encode() for one in (GPT2, LLAMA)], json=True, slow=True)
    lower = functools.partial(_lowered, folder)
    yield Target("checkpoint-lower", lower, [b'{"do_lower_case": false}'], json=True)
    yield Target("checkpoint-bert", bert, [json.dumps(one).encode() for one in (BERT, DISTIL)], json=True, slow=True)


def _lowered(folder: Path, data: bytes) -> None:
    from server import checkpoints_bert

    (folder / "tokenizer_config.json").write_bytes(data)
    checkpoints_bert._lower(folder)


def _checkpoint(folder: Path, load: Callable[[Path], object], data: bytes) -> None:
    (folder / "config.json").write_bytes(data)
    try:
        load(folder)
    except BadBundle as why:
        if "the checkpoint holds no" not in why.detail:  # as far as it can come
            raise
