"""A model is proven on this machine before it serves; what is wrong with it is remembered; the one before keeps serving."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from edge_agent.updates import Updates
from protocol.bundles import digest, pack
from protocol.errors import Reason, Refused, TryLater
from protocol.twin import Assignment, Desired, ModelStatus
from tests.bundles import SLOT, small


def archive(version: int, golden: float = 0.5) -> bytes:
    """One symptom with one action; `golden` is the score that the gateway must find."""
    return pack(small(version, golden))


def assigned(bundle: bytes, number: int, slot: str = SLOT) -> Assignment:
    name = digest(bundle)
    return Assignment(slot=slot, version=number, digest=name, size=len(bundle), path=f"/api/v1/bundles/{name}")


def wish(version: int, bundle: bytes, number: int) -> Desired:
    return Desired(version=version, models=[assigned(bundle, number)])


class Server:
    """Hands out bundles; counts how often it was asked."""

    def __init__(self) -> None:
        self.bundles: dict[str, bytes] = {}
        self.asked = 0

    def offer(self, bundle: bytes, served: bytes | None = None) -> bytes:
        self.bundles[digest(bundle)] = bundle if served is None else served
        return bundle

    def fetch(self, assignment: Assignment) -> bytes:
        self.asked += 1
        if assignment.digest not in self.bundles:
            raise TryLater("the server is down")
        return self.bundles[assignment.digest]


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_model_is_swapped_in_and_comes_back_after_a_restart(tmp_path: Path, server: Server) -> None:
    first = server.offer(archive(1))
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    (change,) = updates.apply(wish(1, first, 1))
    assert change.model is not None
    assert change.model.digest == digest(first)
    again = Updates(tmp_path, server.fetch, lambda: 6)
    (restored,) = again.restore()
    assert restored.model is not None
    assert again.applied_version == 1
    assert server.asked == 1


@pytest.mark.parametrize("damage", ["truncated", "altered", "wrong on this machine"])
def test_a_bad_bundle_is_refused_once_and_the_one_before_keeps_serving(
    tmp_path: Path, server: Server, damage: str
) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(1, server.offer(archive(1)), 1))
    second = archive(2, golden=0.9 if damage == "wrong on this machine" else 0.5)
    served = {"truncated": second[:-40], "altered": second[:200] + b"?" + second[201:], "wrong on this machine": second}
    server.offer(second, served[damage])
    assert updates.apply(wish(2, second, 2)) == []
    states = {m.version: m.status for m in updates.status()}
    assert states == {1: ModelStatus.SERVING, 2: ModelStatus.REFUSED}
    assert next(m.error for m in updates.status() if m.version == 2)
    asked = server.asked
    assert updates.apply(wish(3, second, 2)) == []
    assert server.asked == asked


def test_a_server_that_is_down_is_asked_again_and_nothing_changes_meanwhile(tmp_path: Path, server: Server) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(1, server.offer(archive(1)), 1))
    second = archive(2)
    with pytest.raises(TryLater):
        updates.apply(wish(2, second, 2))
    assert updates.applied_version == 1
    server.offer(second)
    assert len(updates.apply(wish(2, second, 2))) == 1


def test_a_document_of_the_past_is_refused(tmp_path: Path, server: Server) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(4, server.offer(archive(1)), 1))
    with pytest.raises(Refused) as refused:
        updates.apply(wish(4, archive(1), 1))
    assert refused.value.reason is Reason.STALE_VERSION


def test_when_the_newest_is_damaged_on_disk_the_one_before_comes_back(tmp_path: Path, server: Server) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(1, server.offer(archive(1)), 1))
    second = server.offer(archive(2))
    updates.apply(wish(2, second, 2))
    (tmp_path / f"{digest(second)}.bundle").write_bytes(second[:50])
    (change,) = Updates(tmp_path, server.fetch, lambda: 6).restore()
    assert change.model is not None
    assert change.model.passport.version == 1
    assert msgspec.json.decode((tmp_path / "active.json").read_bytes())["applied"] == 2


def test_what_was_damaged_on_disk_is_fetched_again_when_the_server_is_back(tmp_path: Path, server: Server) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(1, server.offer(archive(1)), 1))
    second = server.offer(archive(2))
    updates.apply(wish(2, second, 2))
    (tmp_path / f"{digest(second)}.bundle").write_bytes(second[:50])
    again = Updates(tmp_path, server.fetch, lambda: 6)
    again.restore()
    (change,) = again.apply(wish(2, second, 2))
    assert change.model is not None
    assert change.model.passport.version == 2
    assert again.applied_version == 2


def test_a_change_made_before_the_server_went_away_is_told_when_it_is_back(tmp_path: Path, server: Server) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    first, second = server.offer(archive(1)), pack(small(3, slot="zz.items"))
    both = Desired(version=1, models=[*wish(1, first, 1).models, assigned(second, 3, "zz.items")])
    with pytest.raises(TryLater):
        updates.apply(both)
    server.offer(second)
    assert sorted(change.slot for change in updates.apply(both)) == [SLOT, "zz.items"]


def test_a_disk_that_takes_nothing_leaves_the_model_before_and_is_tried_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = Updates(tmp_path, server.fetch, lambda: 5)
    updates.apply(wish(1, server.offer(archive(1)), 1))
    second = server.offer(archive(2))
    fsync = os.fsync

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TryLater, match="No space left"):
        updates.apply(wish(2, second, 2))
    (model,) = updates.status()
    assert (model.version, updates.applied_version) == (1, 1)
    monkeypatch.setattr(os, "fsync", fsync)
    (change,) = updates.apply(wish(2, second, 2))
    assert change.model is not None
    assert change.model.passport.version == 2
