"""A fitted hybrid becomes the tables of its bundle, and cases become the events that a hybrid is fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from scipy import sparse

from export.to_tables import Mixed, SparseRows, hybrid_tables
from protocol.tables import Hybrid, Tables
from server.algorithms.content_based import FittedContent
from server.algorithms.hybrid import FittedHybrid
from server.algorithms.interactions import Event, Interactions, interactions
from server.cases import Case


@dataclass(frozen=True)
class PackedHybrid:
    """What goes into a bundle: names of items and past rows, and tables."""

    items: list[str]
    users: list[str]
    tables: Tables
    float_bytes: int

    def hybrid(self) -> Hybrid:
        """The tables as a gateway reads them."""
        return Hybrid(self.items, self.users, self.tables)


def packed(fitted: FittedHybrid, content: FittedContent | None = None, *, keep_past: bool = False) -> PackedHybrid:
    """int8 tables of what the mixture uses: a part that never counts is left out. content: what a gateway needs to understand
    cards that come later. keep_past: past rows stay, whatever they count, because someone will ask for them by name."""
    parts, counts = fitted.parts, (fitted.weights != 0).any(axis=0)
    near = _rows(parts.neighbours.similarity) if parts.neighbours is not None and counts[1] else None
    past = parts.past if parts.past is not None and (counts[2] or keep_past) else None
    rows = _rows(past.rows) if past is not None else None
    vectors = parts.vectors if counts[3] else None
    tables = hybrid_tables(
        parts.popularity,
        Mixed(list(fitted.lengths), fitted.weights, fitted.scale),
        near,
        rows,
        past.most if past is not None else 1,
        vectors,
    )
    if content is not None and vectors is not None:
        tables |= content.tables()
    wide = 4 * vectors.size if vectors is not None else 0
    size = wide + 4 * len(parts.items) + sum(part.float_bytes for part in (near, rows) if part is not None)
    return PackedHybrid(parts.items, past.users if past is not None else [], tables, size)


def _rows(matrix: sparse.csr_matrix) -> SparseRows:
    return SparseRows(matrix.indptr, matrix.indices, matrix.data)


def case_events(cases: Sequence[Case], half_life_days: float, answer_weight: float) -> Interactions:
    """One row for each case, in the order of the cases, over tokens; what was wrong is below 0. A pair's similarity is a
    product of two entries, so that each has the root of how sure its case is: an answer counts answer_weight work orders, and
    half of it after each half-life."""
    return interactions(_case_events(cases, answer_weight), half_life_days=2 * half_life_days, rejections=True)


def _case_events(cases: Sequence[Case], answer_weight: float) -> Iterator[Event]:
    for number, case in enumerate(cases):
        sure = 1.0 if case.source == "work_order" else sqrt(answer_weight)
        name = case_name(number, case)
        for token in set(case.profile):
            yield name, token, sure, case.time_ms
        for token, value in case.items.items():
            yield name, token, sure * value, case.time_ms


def case_name(number: int, case: Case) -> str:
    """What a past case is called in reasons: its number, and its machine where that is known."""
    machine = next((token.partition(":")[2] for token in sorted(case.profile) if token.startswith("machine:")), "")
    return f"case:{number:06d}:{machine[:100]}" if machine else f"case:{number:06d}"
