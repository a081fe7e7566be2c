"""The agent's settings: one frozen object, read strictly from a TOML file. A wrong key is an error, not a surprise."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from protocol.errors import BadName, BadSettings
from protocol.names import strict_name
from protocol.topics import DEFAULT_ROOT
from protocol.writing.facts import Mode

T = TypeVar("T")
ONNXRUNTIME: Literal["onnxruntime"] = "onnxruntime"
TFLITE: Literal["tflite"] = "tflite"
FASTEST: Literal["fastest"] = "fastest"
EngineName = Literal["onnxruntime", "tflite"]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One MQTT connection. tls_ca: who vouches for the broker, and with it TLS; tls_cert, tls_key: what the gateway shows."""

    host: str = "127.0.0.1"
    port: Port = 1883
    username: str = ""
    password_file: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class UplinkSettings(LinkSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's broker. identity: once the gateway is enrolled, its own certificate is shown there. transport: "https"
    sends the same batches to [server] url instead, where no MQTT gets out."""

    transport: Literal["mqtt", "https"] = "mqtt"
    identity: bool = True


class ClockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accept_future_s: Annotated[int, msgspec.Meta(ge=0)] = 300
    simulated: bool = False


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """root: the file that says whose signatures on models count, copied from the server when the gateway is set up.
    unsigned_models: run models that nobody signed."""

    root: str = "root.json"
    unsigned_models: bool = False
    url: str = "http://127.0.0.1:8420"
    token_file: str = ""


class ForecastSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    season_steps: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    every_steps: Annotated[int, msgspec.Meta(ge=1)] = 4
    horizon_steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 12


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an alarm costs and when it helps: the limits follow from these two."""

    false_alarms_per_machine_month: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 0.5
    lead_time_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] = 14_400
    untaught_buckets: Annotated[int, msgspec.Meta(ge=0, le=96)] = 0


class EventWindows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Finer bucket means around events, of these signals of the event's machine: what training learns from most."""

    signals: tuple[str, ...] = ("*",)
    before_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 600
    after_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 600
    step_ms: Annotated[int, msgspec.Meta(ge=1, le=86_400_000)] = 1000


class NoiseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Laplace noise on shared means. epsilon: what one value costs; epsilon_per_day: what all values of a signal and
    day may cost together. bounds: "machine/signal" patterns -> the lowest and highest reading; what has none has no
    noise."""

    epsilon: Annotated[float, msgspec.Meta(ge=0.001, le=100)]
    epsilon_per_day: Annotated[float, msgspec.Meta(gt=0, le=100_000)]
    bounds: dict[str, tuple[float, float]]


FULL: Literal["full"] = "full"
NONE: Literal["none"] = "none"


class ShareSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What leaves the gateway: means of these signals per bucket of bucket_ms (0: of step_ms), in blocks of so many
    buckets; around events, as declared.

    notes: what people write leaves "full", "redacted" or not at all ("none"); reports: "full" or "none". remove: what
    redaction takes out. people_file: names of the site, one a line. pseudonyms: whose names are replaced; key_file: the
    site key (empty: privacy.key in data_dir, made at the first start)."""

    signals: tuple[str, ...] = ("*",)
    block_steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 24
    bucket_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0
    events: EventWindows | None = None
    notes: Literal["full", "redacted", "none"] = "redacted"
    reports: Literal["full", "none"] = "full"
    remove: tuple[Literal["names", "phones", "emails", "licences"], ...] = ("names", "phones", "emails")
    people_file: str = ""
    pseudonyms: tuple[Literal["people", "machines"], ...] = ("people",)
    key_file: str = ""
    noise: NoiseSettings | None = None


class RecommendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """explore: the chance that a list's last place shows an experiment, one of the `pool` best items beyond the list."""

    explore: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.05
    pool: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5


class ScheduleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the gateway may think about a plan, and how likely a machine may fail before its maintenance begins."""

    budget_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 2.0
    allowed_risk: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    upkeep_s: Annotated[int, msgspec.Meta(ge=60, le=7 * 86_400)] = 3600


class WriteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How reports come to their words: `strict`, a language model chooses among wordings of the catalogue; `free`, it
    writes prose that is read back; `template`, no model is asked."""

    mode: Mode = Mode.STRICT


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast the gateway sends what waited while the link was down, beside what is new (0: as fast as the server
    acknowledges it). burst: messages that may go at once."""

    messages_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 2000.0
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs graphs. engines: those that may, the preferred one first, or "fastest": whichever answers a bundle's
    golden vectors soonest. providers: onnxruntime's execution providers, the preferred one first; the processor is
    always the last resort. arena_mb: most memory that onnxruntime's graphs may take for their answers, together (0: no
    limit). text_lengths: numbers of tokens that texts are filled up to before onnxruntime reads them, beside the
    longest that the model takes (empty: none), so that it meets few shapes."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    engines: Literal["fastest"] | Annotated[tuple[EngineName, ...], msgspec.Meta(min_length=1)] = FASTEST
    providers: tuple[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,40}ExecutionProvider$")], ...] = (
        "CPUExecutionProvider",
    )
    arena_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    text_lengths: tuple[Annotated[int, msgspec.Meta(ge=2, le=8192)], ...] = ()

    def allows(self, engine: EngineName) -> bool:
        """Whether graphs may run on it."""
        return self.engines == FASTEST or engine in self.engines


class PanelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway's own page; port 0: none. It knows no passwords: whoever reaches the address reads what was sent."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    site: str
    gateway: str
    data_dir: str
    mapping: str = "mapping.toml"
    catalogue: str = ""
    root: str = DEFAULT_ROOT
    step_ms: Annotated[int, msgspec.Meta(ge=100, le=86_400_000)] = 60_000
    commit_after_messages: Annotated[int, msgspec.Meta(ge=1)] = 20
    commit_after_ms: Annotated[int, msgspec.Meta(ge=1)] = 250
    history_days: Annotated[float, msgspec.Meta(gt=0)] = 30
    max_outbox_bytes: Annotated[int, msgspec.Meta(ge=1_000_000)] = 256_000_000
    clock: ClockSettings = ClockSettings()
    plant: LinkSettings = LinkSettings()
    uplink: UplinkSettings = UplinkSettings()
    server: ServerSettings = ServerSettings()
    forecast: ForecastSettings = ForecastSettings()
    watch: WatchSettings = WatchSettings()
    share: ShareSettings = ShareSettings()
    recommend: RecommendSettings = RecommendSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    write: WriteSettings = WriteSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    replay: ReplaySettings = ReplaySettings()
    panel: PanelSettings = PanelSettings()

    @property
    def identity_folder(self) -> Path:
        """Where the gateway's key and certificate lie."""
        return Path(self.data_dir) / "identity"


def read_toml(path: Path, into: type[T]) -> T:
    """Reads a TOML file strictly as `into`; raises BadSettings naming the file, the key and the remedy."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), into)
    except FileNotFoundError as error:
        raise BadSettings(f"{path} does not exist; docs/gateway.md shows an example") from error
    except (
        ValueError,
        RecursionError,
        msgspec.ValidationError,
    ) as error:  # no TOML, no UTF-8, a number of 5,000 digits
        raise BadSettings(f"{path}: {error}") from error


def load(path: Path) -> AgentSettings:
    """The settings in `path`; relative paths in it are relative to it. Raises BadSettings."""
    settings = read_toml(path, AgentSettings)
    try:
        strict_name(settings.site, "site")
        strict_name(settings.gateway, "gateway")
    except BadName as error:
        raise BadSettings(f"{path}: {error.detail}") from error
    if settings.share.bucket_ms % settings.step_ms:
        raise BadSettings(f"{path}: [share] bucket_ms must be a multiple of step_ms ({settings.step_ms})")
    folder = path.resolve().parent
    return msgspec.structs.replace(
        settings,
        mapping=str(folder / settings.mapping),
        data_dir=str(folder / settings.data_dir),
        catalogue=str(folder / settings.catalogue) if settings.catalogue else "",
        server=msgspec.structs.replace(settings.server, root=str(folder / settings.server.root)),
        share=msgspec.structs.replace(
            settings.share,
            people_file=str(folder / settings.share.people_file) if settings.share.people_file else "",
            key_file=str(folder / settings.share.key_file) if settings.share.key_file else "",
        ),
    )


def secret(file: str, variable: str) -> str:
    """A secret from a file, else from an environment variable, else empty. Raises BadSettings if the file is
    unreadable."""
    if not file:
        return os.environ.get(variable, "")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadSettings(f"cannot read the secret in {file}: {error.strerror}") from error
