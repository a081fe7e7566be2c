"""A real gateway is drilled on its copy, and stays as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from protocol.copied import PlayedSignal
from protocol.topics import Channel, Topic
from server.database import FeedbackRow
from server.demo.processes import SBIN
from server.drill import models
from server.drill.__main__ import main
from server.drill.books import Books
from server.drill.copy import CopySite, what_waited
from server.drill.held import all_arrived
from server.drill.proxy import Faults
from server.drill.secure import SecureSite
from server.drill.site import AGENT, GATEWAY, Site

pytestmark = pytest.mark.slow
MAPPING = """[[source]]
topic = "hall/{hall}/{machine}"
each = "$.metrics[*]"
signal = "$.name"
value = "$.reading.now"
root_time = "$.at"

[machines.lathe]
name_en = "Lathe 4"
"""
SIGNALS = [
    PlayedSignal(
        machine="lathe",
        signal=name,
        topic="hall/3/lathe",
        payload=f'{{"at": "@time", "metrics": [{{"name": "{name}", "reading": {{"now": "@value"}}}}]}}',
        seconds=True,
        level=level,
        spread=level / 50,
        told_as="lathe",
    )
    for name, level in (("spindle load", 61.0), ("coolant", 21.5))
]


class RealSite(SecureSite):
    """A plant with a mapping, a topic root and sharing of its own, and a gateway that is enrolled."""

    signals = SIGNALS
    block_steps = 5

    def _configure_gateway(self) -> None:
        super()._configure_gateway()
        self.topic = Topic("works-2", GATEWAY, Channel.STATE, "works/mw")
        (self.folder / "mapping.toml").write_text(MAPPING)
        plain = self.agent_config.read_text().replace('site = "drill"', 'site = "works-2"\nroot = "works/mw"')
        self.agent_config.write_text(plain + "[watch]\nlead_time_s = 3600\n[panel]\nport = 8499\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("mosquitto", path=SBIN) is None:
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    return tmp_path


@pytest.fixture
def stopped(folder: Path) -> Path:
    """The folder of a gateway that served a model, went on while its line was down, and was switched off."""
    with RealSite(folder / "real") as real:
        real.machines.publish(1200)
        real.settle()
        model = models.roll_out(real, models.made(1, 10))
        real.wait("the model", lambda: any(m["digest"] == model.digest for m in real.status().get("models", [])))
        with real.link.with_faults(Faults(refused=True)):
            real.link.reset()
            real.machines.publish(1200)
            real.wait("the intake", real.all_taken_in)
            real.processes.stop(AGENT, 30)
    return folder / "real"


@pytest.fixture
def at_work(folder: Path) -> Iterator[Site]:
    with Site(folder / "real") as real, real.link.with_faults(Faults(refused=True)):
        real.link.reset()
        real.machines.publish(800)
        real.wait("the intake", real.all_taken_in)
        yield real


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_real_gateway_is_drilled_on_its_copy_and_stays_as_it_was(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(stopped)
    kept = tmp_path / "kept"
    cases = ["server-killed", "poison-message", "half-a-bundle", "expired-certificate"]
    given = ["--copy-of", str(stopped / "agent.toml"), "--only", *cases, "--keep", str(kept), "--json"]
    status = main(given)
    assert digests(stopped) == before
    told = json.loads(capsys.readouterr().out)
    assert status == 0, told["cases"]
    what = told["cases"]["what-waited"]["evidence"]
    assert what["gateway"] == f"works-2/{GATEWAY}"
    assert what["played"] == ["hall/drill/lathe", "hall/drill/lathe"]
    assert what["models"] == {models.SLOT: 1}
    assert what["waited"]["bulk"] > 40
    assert what["waited"]["feedback"] == 60
    for name in ("what-waited", *cases[:3]):
        evidence = told["cases"][name]["evidence"]
        assert evidence["held"] == sum(what["waited"].values()), name
        assert evidence["held_arrived"] + evidence["held_without_a_row"] == evidence["held"], name
        assert evidence["buckets"] > 0, name
    assert told["cases"]["expired-certificate"]["holds"] is None
    assert told["cases"]["expired-certificate"]["reason"].startswith("not on a copy: ")
    copied = kept / "gateway" / "data"
    assert not (copied / "identity").exists()
    assert not (copied / "privacy.key").exists()


def test_a_gateway_at_work_is_drilled_on_its_copy_and_works_on(at_work: Site, tmp_path: Path) -> None:
    with at_work.at_work(ticks_a_second=24.0), CopySite(tmp_path / "drill", at_work.agent_config) as site:
        site.machines.publish(400)
        outcome = what_waited(site)
    assert outcome.holds, outcome.wrong
    assert outcome.evidence["original_at_work"]
    assert outcome.evidence["held"] > 0
    at_work.link.faults = Faults()
    at_work.settle()
    found = at_work.books()
    assert found.holds, found.wrong


def test_a_message_of_the_copied_outbox_that_is_lost_would_be_seen(at_work: Site, tmp_path: Path) -> None:
    with CopySite(tmp_path / "drill", at_work.agent_config) as site:
        site.settle()
        held = Books()
        all_arrived(held, site.held, site.database, site.gateway)
        assert held.holds, held.wrong
        assert "outbox.begun_anew" not in site.status()["counters"], (
            "the drill's server does not know whose numbers they are"
        )
        answers = [name[1] for name in site.held.messages.values() if name is not None and name[0] == "answer"]
        with site.database.begin() as session:
            session.execute(delete(FeedbackRow).where(FeedbackRow.feedback_id == answers[0]))
        all_arrived(held, site.held, site.database, site.gateway)
    assert held.counts["wrong"] == 1
    assert "is not in the database" in held.wrong[0]


def test_what_cannot_be_copied_is_said_and_nothing_is_played(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = folder / "agent.toml"
    settings.write_text('site = "s"\ngateway = "g"\ndata_dir = "nowhere"\n')
    (folder / "mapping.toml").write_text(MAPPING)
    assert main(["--copy-of", str(settings)]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["--copy-of", str(folder / "other.toml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["--copy-of", str(folder)]) == 2
    assert "is a folder; give the gateway's agent.toml" in capsys.readouterr().err
