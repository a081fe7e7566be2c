"""A gateway's copy: whole, harmless, and the original untouched."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import config, mapping
from edge_agent.backwards import spoken
from edge_agent.copying import Addresses, as_toml, copied
from edge_agent.history import History
from edge_agent.intake import Intake
from edge_agent.mapping import MappingFile, Source
from edge_agent.outbox import Outbox
from protocol.copied import Copied
from protocol.errors import BadSettings
from protocol.names import MessageClass

T0 = 1_772_000_000_000
ADDRESSES = Addresses(1884, 1885, "http://127.0.0.1:8421", "/none/root.json", "/none/gateway.token")
NESTED = """[[source]]
topic = "site/{line}/{machine}"
each = "$.metrics[*]"
signal = "$.name"
value = "$.v.now"
root_time = "$.at"
time_unit = "ms"

[[source]]
topic = "stamped/{machine}/{signal}"
value = "$"
"""


def gateway(folder: Path, mapping_file: str = NESTED, more: str = "") -> Path:
    """A gateway that has run: readings of two signals, three messages that wait, a key and a certificate."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "mapping.toml").write_text(mapping_file)
    (folder / "secret.txt").write_text("plant-password")
    (folder / "agent.toml").write_text(
        'site = "s"\ngateway = "g"\ndata_dir = "data"\n'
        '[plant]\nhost = "broker.plant.example"\nusername = "u"\npassword_file = "secret.txt"\n'
        '[uplink]\nhost = "broker.example"\n[server]\nurl = "https://server.example"\n' + more
    )
    history = History(data / "history.db")
    rows = [("press", name, T0 + i * 1000, 5.0 + i % 3, "good", "", False) for i in range(50) for name in ("p", "t")]
    history.store(rows, [], lambda _: {"intake.stored": 100})
    history.close()
    outbox = Outbox(data / "outbox.db", 10_000_000)
    for _ in range(3):
        outbox.add(MessageClass.REPORT, b'{"some":"envelope"}')
    outbox.commit()
    outbox.close()
    (data / "identity").mkdir()
    (data / "identity" / "key.pem").write_text("the key")
    (data / "privacy.key").write_text("ab" * 32)
    (data / "privacy.key").chmod(0o600)
    return folder / "agent.toml"


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_copy_has_what_the_original_had_and_the_original_is_untouched(tmp_path: Path) -> None:
    settings = config.load(gateway(tmp_path / "real"))
    before = digests(tmp_path / "real")
    told = copied(settings, tmp_path / "copy", ADDRESSES, 0)
    assert digests(tmp_path / "real") == before
    assert (told.site, told.gateway, told.stored, told.newest_ms) == ("s", "g", 100, T0 + 49_000)
    assert [(one.machine, one.signal) for one in told.signals] == [("press", "p"), ("press", "t")]
    with closing(sqlite3.connect(tmp_path / "copy" / "data" / "outbox.db")) as db:
        assert db.execute("SELECT count(*) FROM waiting").fetchone() == (3,)
    assert msgspec.json.decode((tmp_path / "copy" / "copied.json").read_bytes(), type=Copied) == told


def test_the_copy_knows_no_real_address_no_password_and_no_key(tmp_path: Path) -> None:
    copied(config.load(gateway(tmp_path / "real")), tmp_path / "copy", ADDRESSES, 0)
    own = config.load(tmp_path / "copy" / "agent.toml")
    assert (own.plant.host, own.plant.port, own.plant.password_file) == ("127.0.0.1", 1884, "")
    assert (own.uplink.host, own.uplink.port, own.uplink.identity) == ("127.0.0.1", 1885, False)
    assert own.server.url == ADDRESSES.server_url
    everything = b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    for secret in (b"example", b"plant-password", b"the key"):
        assert secret not in everything
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "copy").rglob("*") if path.is_file()} == {0}


def test_a_gateway_at_work_is_copied_as_it_was_at_one_moment(tmp_path: Path) -> None:
    settings = config.load(gateway(tmp_path / "real"))
    outbox = Outbox(tmp_path / "real" / "data" / "outbox.db", 10_000_000)
    outbox.add(MessageClass.REPORT, b'{"a":"fourth"}')
    outbox.commit()
    told = copied(settings, tmp_path / "copy", ADDRESSES, 0)
    outbox.add(MessageClass.REPORT, b'{"a":"fifth"}')
    outbox.commit()
    assert told.running
    with closing(sqlite3.connect(tmp_path / "copy" / "data" / "outbox.db")) as db:
        assert db.execute("SELECT count(*) FROM waiting").fetchone() == (4,)
    outbox.close()


def test_what_is_no_gateway_is_not_copied(tmp_path: Path) -> None:
    file = gateway(tmp_path / "real")
    settings = config.load(file)
    with pytest.raises(BadSettings, match=r"there is no folder .*nowhere"):
        copied(msgspec.structs.replace(settings, data_dir=str(tmp_path / "nowhere")), tmp_path / "c", ADDRESSES, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSettings, match=r"no gateway's data_dir.*no outbox.db, no history.db"):
        copied(msgspec.structs.replace(settings, data_dir=str(tmp_path / "empty")), tmp_path / "c", ADDRESSES, 0)
    with pytest.raises(BadSettings, match=r"the copy needs \d+ MiB on .* choose a folder on a larger disk"):
        copied(settings, tmp_path / "c", ADDRESSES, 1 << 60)
    with pytest.raises(BadSettings, match="lies in the folder that is copied"):
        copied(settings, tmp_path / "real" / "data" / "copy", ADDRESSES, 0)
    assert not (tmp_path / "c").exists()


def test_a_newer_versions_gateway_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    settings = config.load(gateway(tmp_path / "real"))
    with closing(sqlite3.connect(tmp_path / "real" / "data" / "outbox.db")) as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(BadSettings, match=r"newer version of this product .schema 7, known here 2"):
        copied(settings, tmp_path / "a", ADDRESSES, 0)
    (tmp_path / "real" / "data" / "outbox.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(BadSettings, match="a database is damaged"):
        copied(settings, tmp_path / "b", ADDRESSES, 0)


def test_without_a_source_that_can_be_spoken_to_the_copy_gets_one(tmp_path: Path) -> None:
    stamped = '[machines.press]\n[[source]]\ntopic = "stamped/{machine}/{signal}"\nvalue = "$"\n'
    settings = config.load(gateway(tmp_path / "real", stamped))
    told = copied(settings, tmp_path / "copy", ADDRESSES, 0)
    assert {one.topic for one in told.signals} >= {"drill/press/pressure", "drill/pump/flow"}
    assert told.not_played == {"no source of the mapping can be spoken to": 2}
    mapping.load(tmp_path / "copy" / "mapping.toml")


STEP = st.sampled_from([".a", ".b", "['c d']", "[0]", "[2]", ".e"])
PATH = st.lists(STEP, max_size=3).map(lambda steps: "$" + "".join(steps))


@given(
    value=PATH,
    time=PATH,
    each=st.sampled_from(["", "$[*]", "$.m[*]", "$.x.m.*"]),
    signal=st.sampled_from(["", "$.name", "@key", "$.a"]),
    at_root=st.booleans(),
    unit=st.sampled_from(["s", "ms"]),
)
def test_what_is_said_backwards_is_read_forwards(
    tmp_path_factory: pytest.TempPathFactory, value: str, time: str, each: str, signal: str, at_root: bool, unit: str
) -> None:
    topic = "t/{line}/{machine}" + ("" if signal else "/{signal}")
    where = {"root_time": time} if at_root else {"time": time}
    source = Source(topic=topic, value=value, each=each, signal=signal, time_unit=unit, **where)
    file = tmp_path_factory.mktemp("m") / "mapping.toml"
    file.write_text(as_toml(msgspec.to_builtins(MappingFile(source=[source]))))
    loaded = mapping.load(file)
    said = spoken(loaded, "press 1", "flow")
    if said is None:
        return
    body = said[1].replace('"@value"', "4.5").replace('"@time"', str(T0 / 1000 if said[2] else T0))
    rows, refused = Intake(loaded, lambda: T0, None).read(said[0], body.encode(), False)
    assert not refused
    assert [row[:4] for row in rows] == [("press 1", "flow", T0, 4.5)]


def test_settings_survive_being_written(tmp_path: Path) -> None:
    more = '[share.noise]\nepsilon = 0.5\nepsilon_per_day = 10\nbounds = {"press/*" = [0, 10.5], "泵 🏭/*" = [1, 2]}\n'
    settings = config.load(gateway(tmp_path / "real", more=more))
    file = tmp_path / "again.toml"
    file.write_text(as_toml(msgspec.to_builtins(settings)))
    assert config.load(file) == settings
