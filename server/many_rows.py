"""Rows that only ever come once, many at a time: PostgreSQL's COPY, and one prepared statement elsewhere.

For tables in which nothing is looked up before it is written. The ledger, whose row is locked, has said that their numbers
are new; the unique key of (gateway, seq) stands behind it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import JSON, insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from server.database import ForecastRow, SignalBlockRow, as_json

Appended = type[SignalBlockRow | ForecastRow]
_CAME = ("gateway", "seq", "sent_ms", "stored_ms")
_OWN: dict[Appended, tuple[str, ...]] = {
    SignalBlockRow: ("machine", "signal", "unit", "start_ms", "step_ms", "values"),
    ForecastRow: ("machine", "signal", "issued_ms", "body"),
}
"""A table's columns behind those of `Came`, in the order of `Rows.add`."""


class Came(NamedTuple):
    """How a message came: its gateway and number, when it was sent and when it is stored (ms)."""

    gateway: str
    seq: int
    sent_ms: int
    stored_ms: int


class Rows:
    """What one batch appends. `write` puts it into the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._waiting: defaultdict[Appended, list[tuple[Any, ...]]] = defaultdict(list)

    def add(self, table: Appended, came: Came, rest: tuple[Any, ...]) -> None:
        """One row; `rest` are the table's own columns in the order of _OWN."""
        self._waiting[table].append((*came, *rest))

    def clear(self) -> None:
        """Forgets what waits."""
        self._waiting.clear()

    def write(self) -> None:
        """Everything that waits."""
        for table, rows in self._waiting.items():
            if self.session.get_bind().dialect.name == "postgresql":
                _copy(self.session, table, rows)
            else:
                names = (*_CAME, *_OWN[table])
                self.session.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
        self._waiting.clear()


def refuses(error: DBAPIError) -> bool:
    """Whether the database will never take it, however often it is asked."""
    return isinstance(error, DataError | IntegrityError)


def _copy(session: Session, table: Appended, rows: list[tuple[Any, ...]]) -> None:
    names = (*_CAME, *_OWN[table])
    jsons = [at for at, name in enumerate(names) if isinstance(table.__table__.columns[name].type, JSON)]
    quoted = ", ".join(f'"{name}"' for name in names)
    session.flush()
    connection: Any = session.connection().connection.driver_connection
    dialect = session.get_bind().dialect
    command = f'COPY "{table.__tablename__}" ({quoted}) FROM STDIN'
    try:
        with connection.cursor() as cursor, cursor.copy(command) as copy:
            for row in rows:
                values = list(row)
                for at in jsons:
                    values[at] = as_json(values[at])
                copy.write_row(values)
    except dialect.loaded_dbapi.Error as error:  # past SQLAlchemy, which would have made it one of its own
        raise DBAPIError.instance(command, None, error, dialect.loaded_dbapi.Error, dialect=dialect) from error
