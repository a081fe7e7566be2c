"""Tabu search over the disjunctive graph, restarted between elite solutions by path relinking.

Sources: Zhang et al. 2007 (N6 widened to both ends of a block), Nowicki and Smutnicki 2005 and Peng, Lü and Cheng 2015 (elite
solutions and path relinking), Mastrolilli and Gambardella 2000 (machine changes for the flexible shop)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from edge_agent.skills.schedule.graph import Graph, Order

UNIMPROVED = 2500
"""A run of the tabu search ends after so many moves without a new best of its own."""
FAR = 1 << 60

Move = tuple[int, int, int, int]
"""Kind (AFTER, BEFORE, ASSIGN), the operation moved, where to, and the machine (ASSIGN)."""
AFTER, BEFORE, ASSIGN = 0, 1, 2


class Search:
    """Improves a graph in place until `over()`; `best` and `best_order` are the best seen."""

    def __init__(self, graph: Graph, rng: Random, bound: int, over: Callable[[], bool]) -> None:
        self.graph, self.rng, self.bound, self.over = graph, rng, bound, over
        self.best, self.best_order = graph.span, graph.order()
        self.moves_done = 0
        self.flexible = any(len(c) > 1 for c in graph.layout.choices)
        jobs, machines = len(graph.last), max(len(graph.layout.machines), 1)
        self.tenure = 10 + jobs // machines
        self.spread = max(self.tenure * (0.4 if jobs <= 2 * machines else 0.5), 2.0)

    def done(self) -> bool:
        """Out of time, told to stop, or as good as the bound."""
        return self.best <= self.bound or self.over()

    def run(self, unimproved: int = UNIMPROVED) -> tuple[int, Order]:
        """One tabu search from where the graph is; its own best."""
        graph, n = self.graph, self.graph.n
        forbidden: dict[int, int] = {}
        best, best_order, since, now = graph.span, graph.order(), 0, 0
        while since < unimproved and best > self.bound:
            if not now & 31 and self.over():
                break
            now += 1
            move = self.choose(forbidden, now, best)
            if move is None:
                break
            until = now + self.tenure + int(self.rng.random() * self.spread)
            if not self.make(move, forbidden, until, n):
                since += 1
                continue
            if graph.span < best:
                best, best_order, since = graph.span, graph.order(), 0
            else:
                since += 1
        self.moves_done += now
        if best < self.best:
            self.best, self.best_order = best, best_order
        return best, best_order

    def choose(self, forbidden: dict[int, int], now: int, best: int) -> Move | None:
        """The admissible move with the lowest estimate; a random one if all are forbidden; None if there is none."""
        graph, n, random = self.graph, self.graph.n, self.rng.random
        after, before, following, previous = graph.after_estimate, graph.before_estimate, graph.next, graph.before
        chosen: Move | None = None
        lowest, ties = FAR, 1
        blocks = graph.critical(random())
        candidates = order_moves(graph, blocks)
        for move in candidates:
            kind, u, v, _ = move
            cut = lowest + 1
            tabu = False
            if kind == AFTER:
                w = following[u]
                while True:
                    if forbidden.get(w * n + u, 0) >= now:
                        tabu = True
                        break
                    if w == v:
                        break
                    w = following[w]
                if tabu and best < cut:
                    cut = best
                estimate = after(u, v, cut)
            else:
                w = previous[u]
                while True:
                    if forbidden.get(u * n + w, 0) >= now:
                        tabu = True
                        break
                    if w == v:
                        break
                    w = previous[w]
                if tabu and best < cut:
                    cut = best
                estimate = before(u, v, cut)
            if estimate >= cut:
                continue
            if estimate < lowest:
                chosen, lowest, ties = move, estimate, 1
            else:
                ties += 1
                if random() * ties < 1.0:
                    chosen = move
        if self.flexible:
            elsewhere = self.best_assignment(blocks, forbidden, now, best, lowest)
            if elsewhere is not None:
                candidates.append(elsewhere)
                chosen = elsewhere
        if chosen is None and candidates:
            chosen = candidates[int(random() * len(candidates))]
        return chosen

    def best_assignment(
        self, blocks: list[list[int]], forbidden: dict[int, int], now: int, best: int, lowest: int
    ) -> Move | None:
        """The machine change of a critical operation whose estimate is below `lowest`, if there is one."""
        graph = self.graph
        n, end, tail, length = graph.n, graph.end, graph.tail, graph.length
        chosen: Move | None = None
        sequences: Order | None = None
        for block in blocks:
            for x in block:
                options = graph.layout.choices[x]
                if len(options) < 2:
                    continue
                if sequences is None:
                    sequences = graph.order()
                ready, rest = end[graph.prior[x]], tail[graph.then[x]]
                starts = ready - length[graph.prior[x]]
                latest = end[graph.then[x]] if graph.then[x] < n else FAR
                for machine, duration in options:
                    if machine == graph.on[x] or ready + duration + rest > lowest:
                        continue
                    free = forbidden.get(-(x * 1000 + machine) - 1, 0) < now
                    y = n
                    for z in [*sequences[machine], n]:
                        # x between y and z: no path from x's successor to y, none from z to x's predecessor
                        if y < n and end[y] - length[y] >= latest:
                            break
                        if z == n or end[z] > starts:
                            head = max(ready, end[y])
                            estimate = head + duration + max(rest, tail[z])
                            if estimate < lowest and (free or estimate < best):
                                lowest, chosen = estimate, (ASSIGN, x, y, machine)
                            if head > ready and end[y] + duration + rest > lowest:
                                break
                        y = z
        return chosen

    def make(self, move: Move, forbidden: dict[int, int], until: int, n: int) -> bool:
        """Does it, and forbids its way back until then."""
        kind, u, v, machine = move
        graph = self.graph
        if kind == ASSIGN:
            was = graph.on[u]
            if not graph.assign(u, machine, v):
                forbidden[-(u * 1000 + machine) - 1] = until
                return False
            forbidden[-(u * 1000 + was) - 1] = until
            return True
        passed = []
        w = u
        step = graph.next if kind == AFTER else graph.before
        while w != v:
            w = step[w]
            passed.append(w)
        if kind == AFTER:
            if not graph.move_after(u, v):
                return False
            for w in passed:
                forbidden[u * n + w] = until
        else:
            if not graph.move_before(u, v):
                return False
            for w in passed:
                forbidden[w * n + u] = until
        return True


def order_moves(graph: Graph, blocks: list[list[int]]) -> list[Move]:
    """Moves of an operation inside a critical block to one of its ends, and of its ends to the inside, that make no cycle."""
    moves: list[Move] = []
    end, tail, length, prior, then = graph.end, graph.tail, graph.length, graph.prior, graph.then
    for block in blocks:
        size = len(block)
        if size < 2:
            continue
        head, foot = block[0], block[-1]
        if size == 2:
            moves.append((AFTER, head, foot, 0))
            continue
        later, earlier = tail[foot], end[head]
        for u in block[:-1]:
            s = then[u]
            if tail[s] < later + length[s]:
                moves.append((AFTER, u, foot, 0))
        for u in block[1:]:
            s = prior[u]
            if end[s] - length[s] < earlier:
                moves.append((BEFORE, u, head, 0))
        s, t = then[head], prior[foot]
        after, ready = tail[s] - length[s], end[t] - length[t]
        for w in block[1:-1]:
            if after < tail[w]:
                moves.append((AFTER, head, w, 0))
            if ready < end[w]:
                moves.append((BEFORE, foot, w, 0))
    return moves


def relink(graph: Graph, target: Order, rng: Random, share: float) -> None:
    """Walks from the graph's solution towards another by swaps of machine neighbours, about `share` of the way."""
    rank = [0] * graph.n
    for sequence in target:
        for place, x in enumerate(sequence):
            rank[x] = place
    following = graph.next
    wrong = [x for x in range(graph.n) if following[x] < graph.n and rank[x] > rank[following[x]]]
    steps = int(share * distance(graph, rank))
    while steps > 0 and wrong:
        x = wrong[int(rng.random() * len(wrong))]
        graph.move_after(x, following[x])
        steps -= 1
        wrong = [x for x in range(graph.n) if following[x] < graph.n and rank[x] > rank[following[x]]]


def distance(graph: Graph, rank: list[int]) -> int:
    """How many pairs of a machine stand in the other order."""
    count = 0
    for sequence in graph.order():
        for i, x in enumerate(sequence):
            for y in sequence[i + 1 :]:
                count += rank[x] > rank[y]
    return count


def kick(graph: Graph, rng: Random, swaps: int) -> None:
    """Swaps machine neighbours by chance."""
    for _ in range(swaps):
        x = int(rng.random() * graph.n)
        if graph.next[x] < graph.n:
            graph.move_after(x, graph.next[x])


def keep(pool: list[tuple[int, Order]], found: tuple[int, Order]) -> None:
    """Takes the place of the worst solution that it is not worse than, unless it is there already."""
    if any(found[1] == order for _, order in pool):
        return
    worst = max(range(len(pool)), key=lambda i: pool[i][0])
    if found[0] <= pool[worst][0]:
        pool[worst] = found
