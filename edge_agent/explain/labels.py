"""What things are called, in both languages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HASHED = re.compile(r"(.+)-[0-9a-f]{8}")
"""A generated plan: the action that it carries out, and a digest of its steps."""
Words = tuple[str, str]
"""English, Simplified Chinese."""


@dataclass(frozen=True)
class Labels:
    """Names from the mapping file; what has none is called by its id."""

    machines: dict[str, Words] = field(default_factory=dict)
    signals: dict[str, Words] = field(default_factory=dict)
    items: dict[str, Words] = field(default_factory=dict)

    def machine(self, name: str) -> Words:
        """What a machine is called."""
        return self.machines.get(name, (name, name))

    def signal(self, name: str) -> Words:
        """What a signal is called."""
        return self.signals.get(name, (name, name))

    def item(self, name: str) -> Words:
        """What an action, a part or a profile token is called."""
        if name in self.items:
            return self.items[name]
        if name == "popularity":
            return "what is often right here", "此处常用的做法"
        kind, _, rest = name.partition(":")
        if kind == "answer":
            return "an answer given here", "此处的答复"
        if kind == "like":
            return "a like case", "类似案例"
        if kind == "content":
            en, zh = self.item(rest)
            return f"what is known of {en}", f"{zh}的相关描述"
        if kind == "plan":
            made = _HASHED.fullmatch(rest)
            en, zh = self.item(f"action:{made[1] if made else rest}")
            return f"plan: {en}", f"计划：{zh}"
        if kind == "symptom":
            signal, _, state = rest.partition(":")
            en, zh = self.signal(signal)
            return f"{en} {state}", f"{zh}{'偏高' if state == 'high' else '偏低' if state == 'low' else state}"
        if kind == "type":
            return f"a machine of type {rest}", f"设备类型 {rest}"
        if kind == "machine":
            en, zh = self.machine(rest)
            return f"earlier jobs on {en}", f"{zh} 的历史工单"
        return rest.replace("-", " ") or name, rest or name
