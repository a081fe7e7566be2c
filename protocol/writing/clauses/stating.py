"""How the built-in catalogue's clauses are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.writing.frames import Clause, slots


def clause(
    name: str,
    section: str,
    en: Sequence[str],
    zh: Sequence[str],
    *,
    when: Mapping[str, Sequence[str] | str] | None = None,
    needs: Sequence[str] = (),
    unless: Sequence[str] = (),
    optional: bool = False,
) -> Clause:
    """A clause that needs its slots, `needs` and the categories of `when`."""
    conditions = {key: [value] if isinstance(value, str) else list(value) for key, value in (when or {}).items()}
    needed = dict.fromkeys([*slots(en[0]), *needs])
    return Clause(
        id=name,
        section=section,
        needs=list(needed),
        when=conditions,
        unless=list(unless),
        mandatory=not optional,
        en=list(en),
        zh=list(zh),
    )
