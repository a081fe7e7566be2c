"""A gateway's copy, to be tried out: its data, settings, mapping and models, as they were at one moment, and nothing by which
it could speak to the real broker or the real server.

Rules kept here:
- The original is only read. A database at rest is copied as a file; one that is written to, by SQLite's backup, which holds
  up no writer. What is small is copied first and the outbox before the history, so that a running gateway's copy is one that
  lost its power: nothing in it says more was told than its outbox has.
- The key and certificate of the gateway, and every password, stay where they are. The copy is of its owner alone (600).
- The copy gets the addresses it is told, its own folder, and a clock that goes with its newest reading; all else stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import mapping as mapping_file
from edge_agent.backwards import spoken
from edge_agent.config import AgentSettings, LinkSettings, ServerSettings, UplinkSettings
from edge_agent.history import History, Key
from edge_agent.mapping import MachineNames, Mapping, Source
from edge_agent.outbox import VERSION, Outbox
from edge_agent.privacy import Gate
from edge_agent.storage import free_bytes
from edge_agent.updates import read_ledger
from protocol.copied import FILE, Copied, PlayedSignal
from protocol.errors import BadSettings
from protocol.observations import SignalBlock
from protocol.twin import Desired

OUTBOX, HISTORY = "outbox.db", "history.db"
LEFT = ("identity", "status.json", "bundles/trust", "history.ballast", "outbox.ballast")
"""What stays: who the gateway is, how it was, what another server signed, and room."""
PASSING = (".tmp", ".part", ".db", ".db-wal", ".db-shm")
"""What is no use to a copy, or is copied as a database."""
QUIET_S = 2.0
MOST_PLAYED = 4
LATELY_MS, LATELY_BUCKETS = 3_600_000, 60
"""A signal is played if it spoke in so long before the newest reading, or in so many buckets, if that is more."""
_LEAST_SPREAD = 1e-3
OWN_SOURCE = Source(
    topic="drill/{machine}/{signal}", value="$.value", time="$.timestamp", time_unit="ms", unit="$.unit"
)
OWN_KEYS: tuple[Key, ...] = (("press", "pressure"), ("press", "temperature"), ("pump", "flow"), ("pump", "vibration"))


@dataclass(frozen=True)
class Addresses:
    """Where the copy finds a plant's broker, an uplink's broker and a server of its own, on this machine."""

    plant_port: int
    uplink_port: int
    server_url: str
    server_root: str
    token_file: str


def copied(settings: AgentSettings, to: Path, addresses: Addresses, spare_bytes: int) -> Copied:
    """Copies a gateway into an empty folder; agent.toml there is its settings. spare_bytes: room that must be left beside
    it. Raises BadSettings: no gateway's data, a newer version's, not enough room, or what cannot be read."""
    data = Path(settings.data_dir)
    try:
        _looks_like_a_gateway(data)
        if to.is_relative_to(data.resolve()):
            raise BadSettings(f"{to} lies in the folder that is copied; choose another")
        _has_room(data, to, spare_bytes)
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        to.chmod(0o700)
        ours = to / "data"
        _copy_files(data, ours)
        running = [_copy_database(path, ours / path.relative_to(data)) for path in _databases(data)]
        told = _described(_own_settings(settings, to, addresses), any(running))
    except OSError as error:
        raise BadSettings(f"cannot copy {data}: {error.filename or ''} {error.strerror}") from error
    except sqlite3.Error as error:
        raise BadSettings(f"cannot copy {data}: a database is damaged ({error})") from error
    (to / FILE).write_bytes(msgspec.json.encode(told))
    for path in _files(to):
        path.chmod(0o600)
    return told


# files ----------------------------------------------------------------------------------------------------------------


def _looks_like_a_gateway(data: Path) -> None:
    if not data.is_dir():
        raise BadSettings(f"there is no folder {data}; data_dir in agent.toml says where the gateway keeps its files")
    missing = [name for name in (OUTBOX, HISTORY) if not (data / name).is_file()]
    if missing:
        raise BadSettings(f"{data} is no gateway's data_dir, or the gateway has never run: no {', no '.join(missing)}")


def _has_room(data: Path, to: Path, spare_bytes: int) -> None:
    # a WAL may add to the database that it is copied into
    needed = sum(path.stat().st_size for path in _files(data) if not _left(path, data)) + spare_bytes
    place = next(folder for folder in (to, *to.parents) if folder.exists())
    free = free_bytes(place)
    if free < needed:
        raise BadSettings(
            f"the copy needs {needed / 2**20:.0f} MiB on {place}, and {free / 2**20:.0f} are free; "
            "choose a folder on a larger disk"
        )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _databases(data: Path) -> list[Path]:
    """In the order in which they are copied."""
    found = [path for path in _files(data) if path.suffix == ".db" and not _left(path, data)]
    return sorted(found, key=lambda path: (path.name == HISTORY, path.name == OUTBOX))


def _left(path: Path, data: Path) -> bool:
    inside = path.relative_to(data).as_posix()
    return any(inside == name or inside.startswith(f"{name}/") for name in LEFT)


def _copy_files(data: Path, to: Path) -> None:
    """Everything but the databases. What goes meanwhile was passing."""
    to.mkdir(mode=0o700)
    for path in _files(data):
        if _left(path, data) or path.name.endswith(PASSING):
            continue
        target = to / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _copy_file(path, target)
        except FileNotFoundError:
            continue


def _copy_file(path: Path, target: Path) -> None:
    """Readable by its owner alone from the first byte on."""
    with (
        path.open("rb") as source,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(source, copy)


def _copy_database(path: Path, target: Path) -> bool:
    """Whether the original was at work: its files changed lately, or while they were copied."""
    wal, own_wal = Path(f"{path}-wal"), Path(f"{target}-wal")
    target.parent.mkdir(parents=True, exist_ok=True)
    before = _stand(path, wal)
    # whoever has it open has a WAL, and whoever closes it last takes that away
    at_rest = not wal.exists() or time.time_ns() - max(changed for _, changed in before) > QUIET_S * 1e9
    if at_rest:
        _copy_file(path, target)
        if wal.exists():
            _copy_file(wal, own_wal)
        at_rest = _stand(path, wal) == before
    if not at_rest:
        own_wal.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        target.touch(0o600)
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    with closing(sqlite3.connect(target)) as copy:
        version = copy.execute("PRAGMA user_version").fetchone()[0]
        copy.execute("SELECT count(*) FROM sqlite_master").fetchone()
    known = VERSION if path.name == OUTBOX else 0
    if version > known:
        raise BadSettings(
            f"{path} is of a newer version of this product (schema {version}, known here {known}); "
            "take a copy with that version"
        )
    return not at_rest


def _stand(*files: Path) -> list[tuple[int, int]]:
    return [(there.st_size, there.st_mtime_ns) for there in (file.stat() for file in files if file.exists())]


# settings -------------------------------------------------------------------------------------------------------------


def _own_settings(settings: AgentSettings, to: Path, addresses: Addresses) -> AgentSettings:
    """The settings of the copy, which are written beside it, too."""
    share = settings.share
    for file, name in ((settings.mapping, "mapping.toml"), (settings.catalogue, "catalogue.toml")):
        if file:
            _copy_file(Path(file), to / name)
    if share.people_file:
        _copy_file(Path(share.people_file), to / "people.txt")
    if share.key_file:
        _copy_file(Path(share.key_file), to / "data" / "privacy.key")
    own = msgspec.structs.replace(
        settings,
        data_dir=str(to / "data"),
        mapping=str(to / "mapping.toml"),
        catalogue=str(to / "catalogue.toml") if settings.catalogue else "",
        clock=msgspec.structs.replace(settings.clock, simulated=True),
        plant=LinkSettings(port=addresses.plant_port),
        uplink=UplinkSettings(port=addresses.uplink_port, identity=False),
        server=ServerSettings(
            root=addresses.server_root,
            unsigned_models=settings.server.unsigned_models,
            url=addresses.server_url,
            token_file=addresses.token_file,
        ),
        share=msgspec.structs.replace(
            share, people_file=str(to / "people.txt") if share.people_file else "", key_file=""
        ),
        panel=msgspec.structs.replace(settings.panel, port=0),
    )
    (to / "agent.toml").write_text(as_toml(msgspec.to_builtins(own)), encoding="utf-8")
    return own


def as_toml(document: dict[str, Any]) -> str:
    """A document of text, numbers, lists and tables as TOML, a key a line; what is None is left out."""

    def plain(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def said(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{plain(k)} = {said(v)}" for k, v in value.items() if v is not None) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(said, value)) + "]"
        return plain(value)

    return "".join(f"{plain(key)} = {said(value)}\n" for key, value in document.items() if value is not None)


# what there is --------------------------------------------------------------------------------------------------------


def _described(settings: AgentSettings, running: bool) -> Copied:
    """What the copy is. Opens its own databases, which brings them up to this version."""
    folder = Path(settings.data_dir)
    Outbox(folder / OUTBOX, settings.max_outbox_bytes).close()
    history = History(folder / HISTORY)
    try:
        signals, not_played = _played(settings, history)
        share = settings.share
        bucket_ms = share.bucket_ms or settings.step_ms
        return Copied(
            site=settings.site,
            gateway=settings.gateway,
            root=settings.root,
            step_ms=settings.step_ms,
            bucket_ms=bucket_ms,
            block_steps=share.block_steps,
            windows=share.events is not None and share.events.step_ms == bucket_ms,
            history_days=settings.history_days,
            newest_ms=history.newest_ms(),
            stored=history.counters().get("intake.stored", 0),
            desired=_desired(folder / "bundles"),
            signals=signals,
            not_played=not_played,
            running=running,
            bytes=sum(path.stat().st_size for path in _files(folder.parent) if path.suffix != ".ballast"),
        )
    finally:
        history.close()


def _desired(bundles: Path) -> Desired:
    """What the server last wanted, as far as the gateway does it."""
    ledger = read_ledger(bundles)
    return Desired(version=max(ledger.applied, 1), models=list(ledger.active.values()))


def _played(settings: AgentSettings, history: History) -> tuple[list[PlayedSignal], dict[str, int]]:
    """The signals that spoke lately, by the copy's own mapping; where there is none, the drill's own by a source of its
    own."""
    mapping = mapping_file.load(Path(settings.mapping))
    gate = Gate(settings.share, Path(settings.data_dir), lambda: 0, history.readings, lambda *_: None)
    lately_ms = max(LATELY_MS, LATELY_BUCKETS * settings.step_ms)
    newest_ms = history.newest_ms()
    signals: list[PlayedSignal] = []
    not_played: Counter[str] = Counter()
    for key in sorted(history.keys()):
        if len(signals) == MOST_PLAYED:
            not_played[f"{MOST_PLAYED} are played already"] += 1
            continue
        values = history.values(key, newest_ms - lately_ms, newest_ms + 1)[1]
        if len(values) < 2:
            not_played["silent lately"] += 1
        elif not (made := _signal(mapping, gate, settings, key, values)):
            not_played["no source of the mapping can be spoken to"] += 1
        else:
            signals.append(made)
    if not signals:
        mapping = _with_own_source(mapping, Path(settings.mapping))
        own = (_signal(mapping, gate, settings, key, np.array([20.0, 22.0])) for key in OWN_KEYS)
        signals = [one for one in own if one is not None]
    return signals, dict(not_played)


def _signal(mapping: Mapping, gate: Gate, settings: AgentSettings, key: Key, values: np.ndarray) -> PlayedSignal | None:
    said = spoken(mapping, *key)
    if said is None:
        return None
    low, level, high = np.percentile(values, (5, 50, 95))
    return PlayedSignal(
        machine=key[0],
        signal=key[1],
        topic=said[0],
        payload=said[1],
        seconds=said[2],
        level=float(level),
        spread=max(float(high - low) / 4, abs(float(level)) * _LEAST_SPREAD, _LEAST_SPREAD),
        told_as=_told_as(gate, settings, key),
    )


def _told_as(gate: Gate, settings: AgentSettings, key: Key) -> str:
    """What the server will know the machine as: an empty block goes through the copy's own gate."""
    if settings.share.noise is not None or not gate.shares(key[1]):
        return ""
    gate.knows(machines=[key[0]])
    block = SignalBlock(machine=key[0], signal=key[1], unit="", start_ms=0, step_ms=1000, values=[None])
    out = gate.out(block)
    return out.machine if isinstance(out, SignalBlock) else ""


def _with_own_source(mapping: Mapping, path: Path) -> Mapping:
    """A mapping that can be spoken to, written in place of the copy's."""
    file = mapping.file
    machines = file.machines and {**file.machines, **{key[0]: MachineNames() for key in OWN_KEYS}}
    wider = msgspec.structs.replace(file, source=[OWN_SOURCE, *file.source], machines=machines)
    path.write_text(as_toml(msgspec.to_builtins(wider)), encoding="utf-8")
    return mapping_file.load(path)
