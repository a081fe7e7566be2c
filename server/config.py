"""The server's settings: one frozen object from a TOML file and the environment. An unsafe secret refuses to start."""

from __future__ import annotations

import os
import tomllib
import zlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from protocol.errors import BadSettings
from protocol.topics import DEFAULT_ROOT

MIN_TOKEN_CHARACTERS = 24
_KNOWN_WEAK = ("changeme", "change-me", "password", "secret", "example", "default", "millwright")


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """tls_cert, tls_key: what the server shows; identity: a certificate of its own authority instead, in the name of
    client_id. lines: threads that store, each with its gateways (SQLite has one writer: always one)."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 1883
    username: str = ""
    password_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    identity: bool = False
    client_id: str = "millwright-server"
    part: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    parts: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    lines: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3

    def takes(self, gateway: str) -> bool:
        """Whether this process takes what a gateway sends. A gateway's batches all go to one process, in order."""
        return self.parts == 1 or zlib.crc32(gateway.encode()) % self.parts == self.part - 1


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gateways' certificates. valid_days: how long one lives; grace_days: how long after its end its owner may still renew
    it alone. required: the gateway token that all share opens nothing. broker: folder of `server broker-config`, where
    revocations are written; reload: the command that makes the broker read them again."""

    valid_days: Annotated[float, msgspec.Meta(ge=1, le=825)] = 30
    grace_days: Annotated[float, msgspec.Meta(ge=0, le=3650)] = 365
    required: bool = False
    broker: str = ""
    reload: tuple[str, ...] = ()


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Grid, window and what makes the worker train.

    quantize: the form of a network's weights; auto: the smallest that is within its family's bound. targets: with "tflite" or
    "tflite-dyn8" among them bundles of the LSTM forecaster and of the remaining life also hold a TFLite file, which
    litert-torch makes (`export.to_tflite`).

    lstm_hidden, lstm_dropout, lstm_weight_decay: of the forecaster's network; lstm_teacher: hidden units of a larger one that
    teaches it and is thrown away (0: none); lstm_prune: shares of its hidden units to take out: one, or several, of which the
    largest is kept that costs at most 1 % of the error; lstm_prune_of: "units", or "weights" to set single ones to zero.

    lives: folder of recorded run-to-failure histories (CSV); life_settings: their columns that tell the operating
    condition, in so many clusters life_conditions; life_cap_h: longest life that is told apart (0: three fifths of the
    median); life_renewed_by: patterns of work-order actions after which a machine is new; life_teacher: networks that
    teach one small one together (0: none); writer_steps: of the lesson
    from made-up reports; writer_layers, writer_width: of a writer's network; writer_teacher: width
    of a larger one that teaches it and is thrown away (0: none); writer_prune: share of its heads and inner units to take
    out."""

    step_ms: Annotated[int, msgspec.Meta(ge=100)] = 60_000
    season_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    window_length: Annotated[int, msgspec.Meta(ge=8, le=1000)] = 48
    horizon_steps: Annotated[int, msgspec.Meta(ge=1, le=500)] = 12
    first_after_buckets: int = 200
    retrain_after_buckets: int = 1000
    retrain_after_feedback: int = 12
    first_recommend_after_orders: int = 40
    first_read_after_notes: int = 60
    first_write_after_edits: Annotated[int, msgspec.Meta(ge=1)] = 40
    retrain_after_edits: Annotated[int, msgspec.Meta(ge=1)] = 20
    writer_steps: Annotated[int, msgspec.Meta(ge=10)] = 600
    writer_layers: Annotated[int, msgspec.Meta(ge=1, le=48)] = 4
    writer_width: Annotated[int, msgspec.Meta(ge=16, le=2048, multiple_of=16)] = 128
    writer_teacher: Annotated[int, msgspec.Meta(ge=0, le=4096, multiple_of=16)] = 0
    writer_prune: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    lstm_epochs: int = 20
    lstm_hidden: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 64
    lstm_dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    lstm_weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 1e-3
    lstm_teacher: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    lstm_prune: tuple[Annotated[float, msgspec.Meta(ge=0, lt=1)], ...] = ()
    lstm_prune_of: Literal["units", "weights"] = "units"
    max_windows: int = 6000
    quantize: Literal["auto", "float32", "float16", "int8"] = "auto"
    targets: tuple[Literal["onnx", "tflite", "tflite-dyn8"], ...] = ("onnx",)
    lives: str = ""
    life_settings: tuple[str, ...] = ()
    life_conditions: Annotated[int, msgspec.Meta(ge=1, le=50)] = 1
    life_teacher: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0
    life_cap_h: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    life_renewed_by: tuple[str, ...] = ("replace-*",)
    seed: int = 7


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """keys: folder of the keys that sign models and gateways, readable by the server alone (empty: `keys` beside the
    artifacts). tls_cert, tls_key: the API speaks HTTPS with these. metrics_token: what Prometheus reads /metrics with (empty:
    the admin token alone opens it)."""

    database: str = "sqlite:///millwright.db"
    artifacts: str = "artifacts"
    keys: str = ""
    admin_token_file: str = ""
    gateway_token_file: str = ""
    admin_token: str = ""
    gateway_token: str = ""
    metrics_token_file: str = ""
    metrics_token: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8420
    root: str = DEFAULT_ROOT
    intake: bool = True
    keep_forecasts: int = 200_000
    tls_cert: str = ""
    tls_key: str = ""
    broker: BrokerSettings = BrokerSettings()
    identity: IdentitySettings = IdentitySettings()
    training: TrainingSettings = TrainingSettings()

    @property
    def artifact_folder(self) -> Path:
        """Where bundles and frozen data sets lie."""
        return Path(self.artifacts)

    @property
    def key_folder(self) -> Path:
        """Where the signing keys lie."""
        return Path(self.keys) if self.keys else self.artifact_folder.parent / "keys"

    @property
    def authority_folder(self) -> Path:
        """Where the key of gateways' certificates lies."""
        return self.key_folder / "identity"


def load(path: Path | None, environment: dict[str, str] | None = None) -> Settings:
    """Settings from a file (optional) and MILLWRIGHT_* variables, which win. Raises BadSettings."""
    env = dict(os.environ) if environment is None else environment
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        for key in ("database", "artifacts", "keys", "admin_token", "gateway_token", "metrics_token"):
            if f"MILLWRIGHT_{key.upper()}" in env:
                told[key] = env[f"MILLWRIGHT_{key.upper()}"]
        for key in ("admin_token", "gateway_token", "metrics_token"):
            if not told.get(key) and told.get(f"{key}_file"):
                told[key] = Path(told[f"{key}_file"]).read_text(encoding="utf-8").strip()
        settings = msgspec.convert(told, Settings)
    except OSError as error:
        raise BadSettings(f"{error.filename}: {error.strerror}") from error
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BadSettings(f"{path}: {error}") from error
    if settings.broker.part > settings.broker.parts:
        raise BadSettings(
            f"[broker] part {settings.broker.part} of {settings.broker.parts}: count parts from 1 to parts"
        )
    check_token(settings.admin_token, "admin_token")
    check_token(settings.gateway_token, "gateway_token")
    if settings.metrics_token:
        check_token(settings.metrics_token, "metrics_token")
    return settings


def check_token(token: str, what: str) -> None:
    """Refuses a token that could be guessed."""
    remedy = f"give at least {MIN_TOKEN_CHARACTERS} random characters in {what}_file or MILLWRIGHT_{what.upper()}"
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise BadSettings(f"{what} is {'empty' if not token else 'too short'}; {remedy}")
    if len(set(token)) < 8 or any(weak in token.lower() for weak in _KNOWN_WEAK):
        raise BadSettings(f"{what} is easy to guess; {remedy}")
