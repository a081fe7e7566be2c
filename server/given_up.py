"""Numbers that a gateway will never send: shed by rule, dead after many attempts, or gone with an earlier outbox. What is
here was not given up, however the words crossed on their way: a message that comes after all is stored and its number taken
off the list."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.errors import Reason
from protocol.sync import Refusal
from server.database import LedgerRow
from server.ranges import Range, minus, touches, union, within


@dataclass
class GivenUp:
    """shed: ranges; dead: reason -> ranges. No number is in two of them."""

    shed: list[Range] = field(default_factory=list)
    dead: dict[str, list[Range]] = field(default_factory=dict)

    @classmethod
    def of(cls, row: LedgerRow) -> GivenUp:
        """What one class's row of the ledger says."""
        made = cls([(int(a), int(b)) for a, b in row.shed])
        for first, last, reason in row.dead:
            made.dead.setdefault(str(reason), []).append((int(first), int(last)))
        return made

    def holds(self, seq: int) -> bool:
        """Whether a number was given up."""
        return within(seq, self.shed) or any(within(seq, mine) for mine in self.dead.values())

    def settle(self, told: list[Range], arrived: list[Range], shed: list[Range], dead: list[Refusal]) -> None:
        """Takes one batch. told: the numbers that were told of before it; arrived: the messages that came with it."""
        late = any(touches(span, mine) for span in arrived for mine in (self.shed, *self.dead.values()))
        if not (late or shed or dead):
            return
        here = [*minus(told, [*self.shed, *self._dead()]), *arrived]
        for one in dead:
            if not within(one.seq, self._dead()):
                self.dead.setdefault(one.reason, []).append((one.seq, one.seq))
                self.dead[one.reason] = union(self.dead[one.reason])
        self.dead = {reason: left for reason, mine in self.dead.items() if (left := minus(mine, here))}
        self.shed = minus([*self.shed, *shed], [*here, *self._dead()])

    def replaced(self, told: list[Range], since: int) -> list[Range]:
        """Another outbox gives the numbers from `since` on: what of the earlier ones was never told of will not come. Returns
        those numbers."""
        gone = minus([(1, since - 1)], told) if since > 1 else []
        if gone:
            mine = self.dead.setdefault(Reason.OUTBOX_REPLACED.value, [])
            self.dead[Reason.OUTBOX_REPLACED.value] = union([*mine, *gone])
        return gone

    def keep(self, row: LedgerRow) -> None:
        """Writes it into the row."""
        row.shed = [list(r) for r in self.shed]
        row.dead = [list(r) for r in sorted((*r, reason) for reason, mine in self.dead.items() for r in mine)]

    def _dead(self) -> list[Range]:
        return union(r for mine in self.dead.values() for r in mine)
