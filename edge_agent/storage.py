"""How the agent opens its SQLite files (WAL, synchronous FULL, one writer, group commits by the caller), and what it has in
hand for the day the disk is full."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

_FULL_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def open_store(path: Path, schema: str) -> sqlite3.Connection:
    """A connection in explicit-transaction mode; folder and tables are made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def close_store(db: sqlite3.Connection) -> None:
    """Checkpoints, as far as there is room, and closes."""
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if not disk_full(error):
            raise
    finally:
        db.close()


def roll_back(db: sqlite3.Connection) -> None:
    """Ends a transaction that failed. On a full disk SQLite may have ended it by itself."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room (the disk's, a quota's or max_page_count's) and for nothing else."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", None) in _FULL_CODES or "disk is full" in str(error)
    return isinstance(error, OSError) and error.errno in _FULL_ERRNOS


def free_bytes(folder: Path) -> int:
    """Room on the file system of `folder` for a process without privileges."""
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


class Ballast:
    """A file that only takes room, `size` bytes. On a full disk SQLite can neither delete nor checkpoint; with this
    thrown out, it can."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    @property
    def present(self) -> bool:
        """Whether there is something to throw out."""
        try:
            return self.path.stat().st_size >= self.size
        except FileNotFoundError:
            return False

    def make(self) -> bool:
        """Takes the room, if as much again stays free; False if it does not. Blocks are reserved, not written: no wear."""
        if self.present:
            return True
        try:
            if free_bytes(self.path.parent) < 2 * self.size:
                return False
            with self.path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size)
                os.fsync(file.fileno())
        except OSError as error:
            if not disk_full(error):
                raise
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Gives the room back."""
        self.path.unlink(missing_ok=True)


class Room:
    """How large one file and its WAL may become. Without ballast on the disk the file does not grow into the ballast's
    place, so that the ballast is only ever spent on the WAL; with it, up to the cap."""

    def __init__(self, db: sqlite3.Connection, ballast: Ballast, max_bytes: int) -> None:
        self._db = db
        self._ballast = ballast
        self._page_bytes = self._number("page_size")
        self._most_pages = max(max_bytes // self._page_bytes, 20)
        self.tight = True
        self.hold()

    def hold(self) -> None:
        """The ballast again, and with it the full cap, once there is room for both; call now and then."""
        if not self.tight:
            return
        self.tight = not self._ballast.make()
        most = self._most_pages
        if self.tight:
            spare = max(free_bytes(self._ballast.path.parent) - self._ballast.size, 0)
            most = min(most, self._number("page_count") + spare // self._page_bytes)
        self._db.execute(f"PRAGMA max_page_count={most}")

    def tighten(self) -> bool:
        """After a write found no room: ballast out, then the checkpoint, then no more growth. False if that is done, or
        if it is the cap that was reached."""
        if self.tight or self._number("page_count") >= self._most_pages:
            return False
        self.tight = True
        self._ballast.drop()
        try:
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")
        except sqlite3.OperationalError as error:
            if not disk_full(error):
                raise
        self._db.execute(f"PRAGMA max_page_count={self._number('page_count')}")
        return True

    def spare_bytes(self) -> int:
        """Pages inside the file that nothing uses."""
        return self._number("freelist_count") * self._page_bytes

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])


def open_bounded(path: Path, schema: str, max_bytes: int, transaction_bytes: int) -> tuple[sqlite3.Connection, Room]:
    """A store that keeps below `max_bytes` and survives a full disk, if no transaction writes more than about
    `transaction_bytes`. Its ballast, PATH.ballast, is half as large again as its WAL can become."""
    wal_pages = min(max(max_bytes // 131_072, 25), 1000)
    largest_wal = wal_pages * 4096 + 2 * transaction_bytes
    ballast = Ballast(path.with_suffix(".ballast"), largest_wal * 3 // 2)
    try:
        db = open_store(path, schema)
    except sqlite3.OperationalError as error:
        if not disk_full(error) or not ballast.present:
            raise
        ballast.drop()
        db = open_store(path, schema)
    db.execute(f"PRAGMA wal_autocheckpoint={wal_pages}")
    db.execute(f"PRAGMA journal_size_limit={largest_wal}")
    return db, Room(db, ballast, max_bytes)
