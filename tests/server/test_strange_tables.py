"""Tables of people's own that hold what no table holds are refused by their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import Refused
from server.lives import read_folder

HEAD = b"unit,time,failed,vibration\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"u1,99999999999999999999,0,1.5\n", "line 2: '99999999999999999999' is not between 1970 and 9999"),
        (b"u1,-1,0,1.5\n", "line 2: '-1' is not between"),
        (b"u1,\xff\xfe,0,1.5\n", "line 2: '.*' is neither milliseconds nor RFC 3339"),
        (b'u1,"' + b"x" * 200_000 + b'",0,1\n', "is no table"),
    ],
    ids=["far", "before", "no text", "endless"],
)
def test_lives_of_another_kind_are_refused_in_one_line(tmp_path: Path, body: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(HEAD + body)
    with pytest.raises(Refused, match=said):
        read_folder(tmp_path, 3_600_000)


def test_a_cell_that_is_no_text_is_a_reading_that_was_not_made(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEAD + b"u1,0,0,\xff\nu1,3600000,1,2.5\n")
    (life,) = read_folder(tmp_path, 3_600_000).lives
    assert life.failed
