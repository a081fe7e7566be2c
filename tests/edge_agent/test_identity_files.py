"""The files of a gateway's identity: whole sets only, for their owner alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent import identity
from edge_agent.identity import Identity
from protocol.errors import BadSettings
from server.identity import CA
from tests.identities import p256, pem, request

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return CA.make(tmp_path_factory.mktemp("ca"), NOW)


def put(ca: CA, folder: Path, now: datetime = NOW) -> bytes:
    key = p256()
    issued = ca.sign_request(request("gw-1", key), "gw-1", now)
    identity.replace(folder, key=pem(key), certificate=issued.pem, authority=ca.pem, token="secret")
    return issued.pem


def test_a_gateway_that_was_never_enrolled_has_none(tmp_path: Path) -> None:
    assert Identity.load(tmp_path / "identity") is None


def test_keys_and_tokens_are_for_their_owner_alone(ca: CA, tmp_path: Path) -> None:
    put(ca, tmp_path / "identity")
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o700
    assert {(tmp_path / "identity" / n).stat().st_mode & 0o777 for n in ("key.pem", "token")} == {0o600}


@pytest.mark.parametrize("moved", [(), ("key.pem",), ("key.pem", "cert.pem"), identity.FILES])
def test_a_power_cut_while_a_new_set_moves_in_leaves_a_set_that_belongs_together(
    ca: CA, tmp_path: Path, moved: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "identity"
    put(ca, folder)
    with monkeypatch.context() as cut:
        cut.setattr(identity, "_finish", lambda _folder: None)
        new = put(ca, folder, NOW + timedelta(days=20))
    for name in moved:
        (folder / "next" / name).replace(folder / name)
    found = Identity.load(folder)
    assert found is not None
    assert found.certificate_pem == new
    assert ca.verify(new, found.sign(b"x"), b"x", NOW + timedelta(days=20)) == "gw-1"
    assert sorted(path.name for path in folder.iterdir()) == sorted(identity.FILES)


def test_a_power_cut_before_the_new_set_is_whole_leaves_the_old_one(ca: CA, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    old = put(ca, folder)
    (folder / "next.part").mkdir()
    (folder / "next.part" / "key.pem").write_bytes(b"half")
    found = Identity.load(folder)
    assert found is not None
    assert found.certificate_pem == old
    assert found.sign(b"x")
    put(ca, folder)
    assert not (folder / "next.part").exists()


def test_a_certificate_is_renewed_at_two_thirds_and_when_the_clock_cannot_tell(ca: CA, tmp_path: Path) -> None:
    put(ca, tmp_path / "identity")
    found = Identity.load(tmp_path / "identity")
    assert found is not None
    assert not found.due(NOW)
    assert not found.due(NOW + timedelta(days=19))
    assert found.due(NOW + timedelta(days=20))
    assert found.due(NOW + timedelta(days=90))
    assert found.due(datetime(1970, 1, 1, tzinfo=UTC))


def test_files_that_cannot_be_used_say_so(ca: CA, tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    put(ca, folder)
    (folder / "key.pem").write_bytes(b"nonsense")
    found = Identity.load(folder)
    assert found is not None
    with pytest.raises(BadSettings, match="enrol this gateway again"):
        found.sign(b"x")
    (folder / "cert.pem").write_bytes(b"nonsense")
    with pytest.raises(BadSettings, match="enrol this gateway again"):
        Identity.load(folder)
    with pytest.raises(BadSettings, match="for TLS"):
        identity.context(None, folder / "cert.pem", folder / "key.pem")
