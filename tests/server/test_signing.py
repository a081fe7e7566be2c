"""The signed list of models: what a gateway believes, and what it does not."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent import trust
from protocol.errors import BadBundle, BadSettings, Reason, TryLater
from protocol.twin import Assignment
from server import signing
from server.signing import SignedList, Trusted, make_keys, renew_keys

ONE, OTHER = Trusted("a" * 64, 1000), Trusted("b" * 64, 2000)


class Server:
    """Keys and list in a folder, served from files."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.folder = folder / "keys", folder / "trust"
        self.now = datetime.now(UTC)
        self.root = make_keys(self.keys, self.now).read_bytes()
        self.asked: list[str] = []
        self.models = [ONE]
        self.frozen = False

    def list(self) -> SignedList:
        return SignedList(self.keys, self.folder, lambda: self.now)

    def answer(self, url: str) -> bytes | None:
        name = url.rpartition("/")[2]
        self.asked.append(name)
        if name == "timestamp.json" and not self.frozen:
            self.list().bring_up_to_date(self.models)
        return self.list().document(name)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path)

    class Answer:
        def __init__(self, body: bytes) -> None:
            self.body = body

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, size: int) -> bytes:
            part, self.body = self.body[:size], self.body[size:]
            return part

    def opened(url: str, token: str, timeout_s: float, _context: object) -> Answer:
        import urllib.error
        from email.message import Message

        assert token == "secret"
        body = made.answer(url)
        if body is None:
            raise urllib.error.HTTPError(url, 404, "none", Message(), None)
        return Answer(body)

    monkeypatch.setattr(trust, "_opened", opened)
    return made


def gateway(server: Server, folder: Path, root: bytes | None = None) -> trust.Trust:
    return trust.signed_list(root or server.root, "http://server", "secret", folder)


def asked(model: Trusted, size: int = 0) -> Assignment:
    return Assignment(
        slot="forecast.lstm",
        version=3,
        digest=model.digest,
        size=size or model.size,
        path=f"/api/v1/bundles/{model.digest}",
    )


def test_a_bundle_on_the_list_may_run_and_any_other_may_not(server: Server, tmp_path: Path) -> None:
    ask = gateway(server, tmp_path / "gw")
    ask(asked(ONE))
    with pytest.raises(BadBundle, match="not on the server's signed list") as refused:
        ask(asked(OTHER))
    assert refused.value.reason is Reason.UNSIGNED
    with pytest.raises(BadBundle, match="another size"):
        ask(asked(ONE, size=999))
    server.models = [OTHER]
    ask(asked(OTHER))
    with pytest.raises(BadBundle):
        ask(asked(ONE))  # withdrawn


def test_nothing_is_signed_again_while_nothing_changes(server: Server, tmp_path: Path) -> None:
    ask = gateway(server, tmp_path / "gw")
    ask(asked(ONE))
    files = {path.name: path.read_bytes() for path in server.folder.glob("*.json")}
    ask(asked(ONE))
    assert {path.name: path.read_bytes() for path in server.folder.glob("*.json")} == files
    assert sorted(files) == ["1.snapshot.json", "1.targets.json", "timestamp.json"]
    server.now += timedelta(days=4)  # the timestamp alone has lived half its time
    server.list().bring_up_to_date(server.models)
    changed = [path.name for path in server.folder.glob("*.json") if files.get(path.name) != path.read_bytes()]
    assert changed == ["timestamp.json"]


def test_an_old_list_is_not_believed_again(server: Server, tmp_path: Path) -> None:
    ask = gateway(server, tmp_path / "gw")
    ask(asked(ONE))
    old = tmp_path / "old"
    shutil.copytree(server.folder, old)
    server.models = [OTHER]
    ask(asked(OTHER))
    shutil.rmtree(server.folder)
    shutil.copytree(old, server.folder)
    server.frozen = True
    with pytest.raises(BadBundle, match="not signed as it must be"):
        ask(asked(ONE))


def test_a_list_that_is_held_back_is_believed_no_longer_than_its_timestamp_lives(
    server: Server, tmp_path: Path
) -> None:
    server.now -= timedelta(days=8)
    server.list().bring_up_to_date(server.models)
    server.frozen = True
    with pytest.raises(TryLater, match="expired"):
        gateway(server, tmp_path / "gw")(asked(ONE))


def test_a_list_signed_with_other_keys_is_refused(server: Server, tmp_path: Path) -> None:
    strangers = Server(tmp_path / "strangers")
    with pytest.raises(BadBundle, match="not signed as it must be"):
        gateway(server, tmp_path / "gw", strangers.root)(asked(ONE))


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
def test_a_changed_file_of_the_list_is_refused(server: Server, tmp_path: Path, name: str) -> None:
    server.list().bring_up_to_date(server.models)
    server.frozen = True
    told = json.loads((server.folder / name).read_bytes())
    told["signed"]["expires"] = "2099-01-01T00:00:00Z"
    (server.folder / name).write_text(json.dumps(told))
    with pytest.raises(BadBundle, match="not signed as it must be"):
        gateway(server, tmp_path / "gw")(asked(ONE))


def test_gateways_follow_when_the_keys_are_renewed_and_the_old_ones_count_no_more(
    server: Server, tmp_path: Path
) -> None:
    ask = gateway(server, tmp_path / "gw")
    ask(asked(ONE))
    stolen = tmp_path / "stolen"
    shutil.copytree(server.keys, stolen)
    away = shutil.move(server.keys / "root.key", tmp_path / "root.key")
    renew_keys(server.keys, Path(away))
    ask(asked(ONE))  # the root that it was given is the first one still
    assert "2.root.json" in server.asked
    shutil.copy(stolen / "targets.key", server.keys / "targets.key")
    with pytest.raises(BadSettings, match=r"not the key that .*root\.json names"):
        server.list()
    with pytest.raises(BadSettings, match="not the key that signed"):
        renew_keys(server.keys, stolen / "targets.key")


def test_the_server_away_means_later(tmp_path: Path) -> None:
    root = make_keys(tmp_path / "keys").read_bytes()
    ask = trust.signed_list(root, "http://127.0.0.1:9", "secret", tmp_path / "gw", timeout_s=0.5)
    with pytest.raises(TryLater, match="cannot fetch the signed list"):
        ask(asked(ONE))


def test_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    for role in (*signing.OFFLINE, *signing.ONLINE):
        assert (tmp_path / "keys" / f"{role}.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadSettings, match="holds keys already"):
        make_keys(tmp_path / "keys")
    (tmp_path / "keys" / "targets.key").write_bytes(b"no key")
    with pytest.raises(BadSettings, match="is not a private key"):
        SignedList(tmp_path / "keys", tmp_path / "trust")


def test_a_root_that_did_not_sign_itself_is_no_root(tmp_path: Path) -> None:
    root = make_keys(tmp_path / "keys")
    assert trust.read_root(root) == root.read_bytes()
    told = json.loads(root.read_bytes())
    told["signed"]["version"] = 7
    (tmp_path / "changed.json").write_text(json.dumps(told))
    for name, message in (("changed.json", "not a root"), ("absent.json", "cannot read the trusted root")):
        with pytest.raises(BadSettings, match=message):
            trust.read_root(tmp_path / name)
    (tmp_path / "nonsense.json").write_bytes(b"\x00" * 100)
    with pytest.raises(BadSettings, match="not a root"):
        trust.read_root(tmp_path / "nonsense.json")
