"""A time that a command is given: now, a day, or a moment with or without a zone; nothing else."""

from __future__ import annotations

import time

import pytest

from edge_agent.once.moments import moment_ms
from protocol.errors import BadSettings


def test_a_day_and_a_moment_are_milliseconds_of_utc_and_nothing_is_now() -> None:
    assert moment_ms("--at", "1970-01-02") == 86_400_000
    assert moment_ms("--at", "1970-01-01T01:00+01:00") == 0
    assert moment_ms("--at", "1970-01-01T00:00:01.5") == 1500
    assert abs(moment_ms("--at", "") - time.time() * 1000) < 60_000


@pytest.mark.parametrize("text", ["noon", "1969-12-31", "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59"])
def test_what_is_no_time_between_1970_and_9999_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(BadSettings, match=r"--at '"):
        moment_ms("--at", text)
