"""The disjunctive graph of a shop without calendars: who follows whom in a job and on a machine, when each operation can end
(heads) and how much must still follow (tails). A move changes one machine's order; heads and tails are recomputed from the
first node that it touches, along a topological order that is mended in place.

Sources: Balas and Vazacopoulos 1998 (moves of one operation inside a critical block, their feasibility and estimates);
Taillard 1994 (estimate from the old heads and tails); Mastrolilli and Gambardella 2000 (moving an operation to another
machine). Operations are 0..n-1; n is the nothing before and after, n+1+j stands for the release of job j."""

from __future__ import annotations

from edge_agent.skills.schedule.layout import Layout

Order = list[list[int]]
"""Per machine, its operations in their sequence: a whole solution, together with the machine of each operation."""


class Graph:
    """One solution. `end[x]`: earliest end of x; `tail[x]`: from its start to the end of the plan, at least; `span`: the
    makespan; `walk`: a topological order, `at[x]`: x's place in it."""

    __slots__ = (
        "at",
        "before",
        "end",
        "last",
        "layout",
        "length",
        "n",
        "next",
        "on",
        "prior",
        "span",
        "tail",
        "then",
        "walk",
    )

    def __init__(self, layout: Layout) -> None:
        n, jobs = layout.n, len(layout.first)
        self.layout, self.n = layout, n
        size = n + 1 + jobs
        self.prior, self.then = [n] * size, [n] * size  # in the job
        for j, x in enumerate(layout.first):
            self.prior[x] = n + 1 + j
            for step in range(x, layout.last_of(j)):
                self.then[step], self.prior[step + 1] = step + 1, step
        self.before, self.next = [n] * size, [n] * size  # on the machine
        self.end, self.tail, self.length = [0] * size, [0] * size, [0] * size
        self.end[n + 1 :] = layout.release
        self.on = [0] * size
        self.walk, self.at = list(range(n)), list(range(n))
        self.last = [layout.last_of(j) for j in range(jobs)]
        self.span = 0

    def load(self, order: Order) -> bool:
        """Takes a whole solution; False (and no solution) if it has a cycle."""
        n, before, following = self.n, self.before, self.next
        for machine, sequence in enumerate(order):
            previous = n
            for x in sequence:
                self.on[x] = machine
                before[x] = previous
                if previous != n:
                    following[previous] = x
                previous = x
            if previous != n:
                following[previous] = n
        for x in range(n):
            self.length[x] = next(d for k, d in self.layout.choices[x] if k == self.on[x])
        return self.sort()

    def sort(self) -> bool:
        """A topological order from nothing; False if there is a cycle. Recomputes heads and tails."""
        n, prior, then, before, following = self.n, self.prior, self.then, self.before, self.next
        waits = [(prior[x] < n) + (before[x] < n) for x in range(n)]
        walk = [x for x in range(n) if not waits[x]]
        for x in walk:
            for y in (then[x], following[x]):
                if y < n:
                    waits[y] -= 1
                    if not waits[y]:
                        walk.append(y)
        if len(walk) < n:
            return False
        self.walk = walk
        for place, x in enumerate(walk):
            self.at[x] = place
        self.ends_from(0)
        self.tails_from(n - 1)
        return True

    def ends_from(self, place: int) -> None:
        """Heads of everything from that place of the topological order on."""
        end, prior, before, length, walk = self.end, self.prior, self.before, self.length, self.walk
        for x in walk[place:] if place else walk:
            a, b = end[prior[x]], end[before[x]]
            end[x] = (a if a > b else b) + length[x]
        self.span = max([end[x] for x in self.last], default=0)

    def tails_from(self, place: int) -> None:
        """Tails of everything up to that place of the topological order."""
        tail, then, following, length = self.tail, self.then, self.next, self.length
        for x in self.walk[place::-1]:
            a, b = tail[then[x]], tail[following[x]]
            tail[x] = (a if a > b else b) + length[x]

    def order(self) -> Order:
        """The solution as sequences."""
        out: Order = [[] for _ in self.layout.machines]
        for x in self.walk:
            out[self.on[x]].append(x)
        return out

    def move_after(self, u: int, v: int) -> bool:
        """u goes right behind v, a later operation of its machine. False, and nothing changed, if that made a cycle."""
        walk, at, prior, before, following = self.walk, self.at, self.prior, self.before, self.next
        low, high = at[u], at[v]
        late, kept, moved = {u}, [], [u]
        for x in walk[low + 1 : high + 1]:
            b = before[x]
            if prior[x] in late or (b != u and b in late):
                if x == v:
                    return False
                late.add(x)
                moved.append(x)
            else:
                kept.append(x)
        self._close_gap(u)
        a = following[v]
        following[v], before[u], following[u], before[a] = u, v, a, u
        before[self.n] = following[self.n] = self.n
        self._put(low, kept + moved)
        return True

    def move_before(self, v: int, u: int) -> bool:
        """v goes right before u, an earlier operation of its machine. False, and nothing changed, if that made a cycle."""
        walk, at, then, before, following = self.walk, self.at, self.then, self.before, self.next
        low, high = at[u], at[v]
        early, kept, moved = {v}, [], [v]
        for x in walk[low:high][::-1]:
            a = following[x]
            if then[x] in early or (a != v and a in early):
                if x == u:
                    return False
                early.add(x)
                moved.append(x)
            else:
                kept.append(x)
        self._close_gap(v)
        b = before[u]
        before[u], following[v], before[v], following[b] = v, u, b, v
        before[self.n] = following[self.n] = self.n
        self._put(low, moved[::-1] + kept[::-1])
        return True

    def _close_gap(self, x: int) -> None:
        b, a = self.before[x], self.next[x]
        self.next[b], self.before[a] = a, b

    def _put(self, low: int, part: list[int]) -> None:
        walk, at = self.walk, self.at
        high = low + len(part)
        walk[low:high] = part
        for place in range(low, high):
            at[walk[place]] = place
        self.ends_from(low)
        self.tails_from(high - 1)

    def assign(self, x: int, machine: int, behind: int) -> bool:
        """x goes to a machine right behind an operation of it (n: to its front); False if there is a cycle, then restored."""
        old, was = (self.on[x], self.before[x]), self.length[x]
        self._insert(x, machine, behind)
        self.length[x] = next(d for k, d in self.layout.choices[x] if k == machine)
        if self.sort():
            return True
        self._insert(x, *old)
        self.length[x] = was
        self.sort()
        return False

    def _insert(self, x: int, machine: int, behind: int) -> None:
        n, before, following = self.n, self.before, self.next
        self._close_gap(x)
        if behind == n:
            after = next((y for y in range(n) if self.on[y] == machine and before[y] == n and y != x), n)
        else:
            after = following[behind]
        before[x], following[x], self.on[x] = behind, after, machine
        following[behind], before[after] = x, x
        before[n] = following[n] = n

    def critical(self, choose: float) -> list[list[int]]:
        """Blocks of one critical path: runs of operations on one machine. `choose` in [0, 1) settles ties."""
        n, end, length, prior, before = self.n, self.end, self.length, self.prior, self.before
        ties = [y for y in self.last if end[y] == self.span]
        x = ties[int(choose * len(ties))]
        by_machine = choose < 0.5
        path = []
        while x < n:
            path.append(x)
            b, a = before[x], prior[x]
            start = end[x] - length[x]
            if end[b] == start and b < n and (by_machine or end[a] != start or a >= n):
                x = b
            elif end[a] == start:
                x = a
            else:
                break
        blocks, on = [], self.on
        run: list[int] = []
        for y in reversed(path):
            if run and on[y] == on[run[-1]] and before[y] == run[-1]:
                run.append(y)
            else:
                run = [y]
                blocks.append(run)
        return blocks

    def after_estimate(self, u: int, v: int, cut: int) -> int:
        """Longest path through the touched operations if u went right behind v, from old heads and tails; whatever is at
        least `cut` may be given up early."""
        return _longest(u, v, cut, self.end, self.tail, self.length, self.prior, self.then, self.before, self.next)

    def before_estimate(self, v: int, u: int, cut: int) -> int:
        """The same if v went right before u: the graph read backwards."""
        return _longest(v, u, cut, self.tail, self.end, self.length, self.then, self.prior, self.next, self.before)


def _longest(
    u: int,
    v: int,
    cut: int,
    end: list[int],
    tail: list[int],
    length: list[int],
    prior: list[int],
    then: list[int],
    before: list[int],
    following: list[int],
) -> int:
    head = end[before[u]]
    heads = []
    w = u
    while w != v:
        w = following[w]
        a = end[prior[w]]
        head = (a if a > head else head) + length[w]
        heads.append(head)
    a = end[prior[u]]
    rest, b = tail[then[u]], tail[following[v]]
    if b > rest:
        rest = b
    rest += length[u]
    longest = (a if a > head else head) + rest
    if longest >= cut:
        return longest
    for head in reversed(heads):
        b = tail[then[w]]
        if b > rest:
            rest = b
        if head + rest > longest:
            longest = head + rest
            if longest >= cut:
                return longest
        rest += length[w]
        w = before[w]
    return longest
