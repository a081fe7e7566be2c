"""What breaks a site breaks nothing of what was said: real processes, a real broker, real kills."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.demo.processes import SBIN
from server.drill import cases
from server.drill.cases import CASES, played
from server.drill.kills import kill_at_random
from server.drill.site import Site

pytestmark = pytest.mark.slow
KILL_MINUTES = float(os.environ.get("MILLWRIGHT_KILL_MINUTES", "10"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("mosquitto", path=SBIN) is None:
        pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
    return tmp_path


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as made:
        made.machines.publish(200)
        made.settle()
        yield made


def holds(site: Site, name: str) -> None:
    outcome = played(site, CASES[name])
    if outcome.holds is None:
        pytest.skip(outcome.reason)
    assert outcome.holds, (outcome.wrong, outcome.reason, outcome.evidence)


def test_power_cut_between_write_and_ack(site: Site) -> None:
    holds(site, "server-killed")


def test_gateway_loses_power_amid_the_traffic(site: Site) -> None:
    holds(site, "agent-killed")


def test_broker_forgets_what_it_had_taken(site: Site) -> None:
    holds(site, "broker-killed")


def test_link_stalls_crawls_and_is_cut(site: Site) -> None:
    holds(site, "stalled-link")


def test_everything_is_said_three_times_out_of_order(site: Site) -> None:
    holds(site, "duplicated-and-reordered")


def test_bytes_that_mean_harm_are_counted_and_hold_nothing_up(site: Site) -> None:
    holds(site, "poison-message")


def test_model_bytes_come_in_drops(site: Site) -> None:
    holds(site, "half-a-bundle")


def test_disk_of_the_gateway_is_full_to_the_last_byte(site: Site) -> None:
    holds(site, "disk-full")


def test_clock_says_1970_and_the_cable_is_pulled(site: Site) -> None:
    holds(site, "clock-of-1970")


def test_certificate_ended_forty_days_ago(site: Site) -> None:
    holds(site, "expired-certificate")


def test_gateway_has_another_outbox_than_before(site: Site) -> None:
    holds(site, "another-outbox")


def test_offline_for_sixty_days(site: Site) -> None:
    holds(site, "offline-for-sixty-days")


def test_a_lost_reading_would_be_seen(site: Site) -> None:
    """The drill is worth something: books with a hole do not hold."""
    site.machines.ticks += 4  # four ticks that were never sent
    found = cases.books.Books()
    cases.books.history_holds(found, site.data / "history.db", site.machines)
    assert not found.holds
    assert found.counts["wrong"] == 16


def test_ten_minutes_of_kill_nine(folder: Path, postgres_url: str) -> None:
    with Site(folder, postgres_url) as site:
        killed = kill_at_random(site, 10_000, KILL_MINUTES * 60)
    assert killed.books.holds, killed.books.wrong
    assert sum(killed.kills.values()) > 10 * KILL_MINUTES
