"""What waits on the server for a gateway that is not on its broker: fetched over HTTPS, or carried on a stick."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.sync import Command
from protocol.twin import Desired

MAX_COMMANDS = 1000
MAX_HANDED_DOWN_BYTES = 32 * 2**20
Row = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class HandedDown(msgspec.Struct, frozen=True, kw_only=True):
    """desired: what shall run (null: nobody has decided yet). commands: answers and notes from the console. answers, notes:
    send these back at the next call, and what was handed down before is left out; a gateway knows it by its id anyway."""

    desired: Desired | None = None
    commands: Annotated[list[Command], msgspec.Meta(max_length=MAX_COMMANDS)] = []
    answers: Row = 0
    notes: Row = 0
