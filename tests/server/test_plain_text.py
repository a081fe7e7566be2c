"""What a reader sees of a document in Markdown or AsciiDoc."""

from __future__ import annotations

import pytest

from server.training.plain_text import plain

MARKDOWN = """---
title: Home
---
# Set the *home* position

Open **Settings**, then [Axes](axes.md "all axes")
and press `Home`.  ![icon](a.png)

> [!NOTE]
> It needs a switch.

```gcode
G28 X0
```

| Axis | Limit |
|------|-------|
| X    | 200 mm |

- first
- second
<!-- hidden -->
"""
ASCIIDOC = """:lang: en
[[cha:homing]]
= Homing
(((Homing)))

The *axis* moves until <<sub:switch,its switch>> closes;
see link:other.html[the other page].

[source,ini]
----
HOME = 1
----

* one
* two
// a comment
image::a.png[]
"""


def test_markdown() -> None:
    assert plain(MARKDOWN).split("\n") == [
        "Set the home position",
        "Open Settings, then Axes and press Home.",
        "It needs a switch.",
        "Axis Limit",
        "X 200 mm",
        "first",
        "second",
    ]


def test_asciidoc() -> None:
    assert plain(ASCIIDOC).split("\n") == [
        "Homing",
        "The axis moves until its switch closes; see the other page.",
        "one",
        "two",
    ]


@pytest.mark.parametrize("text", ["", "---\n", "```\n", "|||", "* * *", "泵停了。"])
def test_strange_and_empty_ones(text: str) -> None:
    assert plain(text) == ("泵停了。" if text.startswith("泵") else "")


def test_unclosed_marks_of_a_long_text_do_not_take_for_ever() -> None:
    assert len(plain("[a](b " * 2000 + "*" * 2000 + "<<" * 2000)) > 0
