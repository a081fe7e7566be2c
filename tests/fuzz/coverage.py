"""Which lines of ours an input reaches: told by `sys.settrace` for a sample of inputs, or by atheris for all of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / name}/" for name in ("protocol", "edge_agent", "server", "export"))


class Lines:
    """The lines (code, number) that calls have reached together."""

    def __init__(self) -> None:
        self.reached: set[tuple[CodeType, int]] = set()

    def new(self, call: Callable[[], object]) -> int:
        """How many lines `call` reaches that none did before. What it raises goes on, with its lines counted."""
        before = len(self.reached)
        threading.settrace(self._called)  # a web application answers on threads of its own
        sys.settrace(self._called)
        try:
            call()
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]  # "no function" is what ends it
            self.fresh = len(self.reached) - before
        return self.fresh

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        code, reached = frame.f_code, self.reached

        def line(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
            if event == "line":
                reached.add((code, frame.f_lineno))
            return line

        return line
