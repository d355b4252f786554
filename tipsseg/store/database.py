"""The SQLite database of a state folder.

Nothing is written before the first change: until then, a new database, or the replacement of a damaged one, is temporary. While a
process changes the file, it is in WAL mode and locked against other processes. Afterwards it is in DELETE mode, so that it can be
opened in a read-only folder.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tipsseg.errors import OtherSchemaError, OutputError
from tipsseg.store.shards import output_folder
from tipsseg.util.files import atomic_path, remove_file

#: SQLite syncs to disk at checkpoints, not at every commit: a power loss may lose the last images, never the folder.
SYNCHRONOUS = "NORMAL"

#: The schema. A database with another one is from another version.
_SCHEMA = [
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE image (key BLOB PRIMARY KEY, path TEXT, digest TEXT, formats TEXT, session INTEGER, entry BLOB) WITHOUT ROWID",
    "CREATE TABLE row (format TEXT, key BLOB, data BLOB, PRIMARY KEY (format, key)) WITHOUT ROWID",
    "CREATE TABLE ahead (place TEXT, digest TEXT, image TEXT, PRIMARY KEY (place, digest)) WITHOUT ROWID",
    "CREATE TABLE stale (format TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE failure (key BLOB PRIMARY KEY, session INTEGER, line BLOB) WITHOUT ROWID",
]

#: SQLite error messages without an error number: a word to match, the reason, and the hint.
_REASONS = {
    "full": ("no space left on the device", "Free some space and run the same command again."),
    "disk I/O": (
        "the file exceeds the size limit of the system, or the disk failed",
        "Check `ulimit -f`, and run the same command again.",
    ),
}

#: Words in SQLite error messages if another process has the file open, or was killed in a folder that is now read-only.
_OUT_OF_REACH = ("lock", "unable to open", "readonly")


class Database:
    """The database of a state. Thread-safe.

    Attributes:
        path: The database file.
        lock: A lock to hold during several calls that belong together.
        is_file: True if the file is open, False if a temporary database is.
        damaged: True if the file is unusable and must be replaced.
        changed: True once this process has begun to change the database.
        images: Number of images.
        session: Number of processes that have changed the database.
        broken_off: True if a process ended before it wrote all exports.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.is_file = self.damaged = self.changed = self.broken_off = False
        self.images = self.session = 0
        self._connection = _connect("")

    # ---- opening and closing ----

    def open_file(self) -> bool:
        """Open the file, and read its counts; return False if it is missing or unusable.

        Raise OutputError if the file is a link, or SQLite cannot read it; OtherSchemaError if its tables are others.
        """
        if not os.path.lexists(self.path):
            return False
        self._refuse_link()
        self._connection = _connect(str(self.path))
        try:
            # In KiB: pages are read once, in order, and a merge opens a database per shard.
            self._connection.execute("PRAGMA cache_size = -256")
            tables = self._connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
            self.is_file = [sql for (sql,) in tables] == _SCHEMA
            self.damaged = not self.is_file
            if tables and not self.is_file:
                raise OtherSchemaError(output_folder(self.path.parents[1]))
            if self.is_file:
                (self.images,) = self._connection.execute("SELECT count(*) FROM image").fetchone()
                meta = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
                self.session, self.broken_off = int(meta.get("session", 0)), bool(meta.get("at_work"))
        except sqlite3.OperationalError as error:
            self.is_file = False
            if not any(word in str(error) for word in _OUT_OF_REACH):
                raise self._error(error) from error
        except (sqlite3.DatabaseError, ValueError):
            self.is_file, self.damaged = False, True
        return self.is_file

    def open_temporary(self) -> None:
        self._connection.close()
        self.is_file, self.images, self.session, self.broken_off = False, 0, 0, False
        self._connection = _connect("")  # SQLite writes it to disk only if it gets large
        for statement in _SCHEMA:
            self._connection.execute(statement)

    def begin(self) -> None:
        """Prepare for changes: write a temporary database to the file, and lock the file against other processes."""
        with self.errors():
            if not self.is_file:
                self._write_file()
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._set_journal("WAL")
            self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        self.changed = True
        self.session += 1
        with self.transaction():
            self.set_meta("at_work", 1)
            self.set_meta("session", self.session)

    def _write_file(self) -> None:
        self._refuse_link()
        for suffix in ("-wal", "-shm", "-journal"):  # of a damaged database
            remove_file(self.path.with_name(self.path.name + suffix))
        with atomic_path(self.path) as temporary:
            target = _connect(str(temporary))
            try:
                target.execute("PRAGMA synchronous = OFF")  # no sync needed: the exports can replace an incomplete file
                self._connection.backup(target)
            finally:
                target.close()
        self._connection.close()
        self._connection = _connect(str(self.path))
        self.is_file = True

    def _set_journal(self, mode: str) -> None:
        # No sync needed: only header bytes within one sector change.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA journal_mode = {mode}")

    def _refuse_link(self) -> None:
        for path in (self.path.parent, self.path):
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self.lock, suppress(sqlite3.Error):
            if self.changed:
                self.changed = False
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._set_journal("DELETE")
            self._connection.close()

    # ---- statements ----

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Lock the database, and raise SQLite errors and decoding errors as OutputError."""
        try:
            with self.lock:
                yield
        except (sqlite3.DatabaseError, zlib.error, ValueError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> OutputError:
        if isinstance(error, sqlite3.OperationalError):
            reason, hint = next((text for word, text in _REASONS.items() if word in str(error)), (str(error), ""))
            return OutputError(self.path, reason, hint)
        hint = f"Remove {self.path.parent} and run the same command again: it is rebuilt from the other records."
        return OutputError(self.path, f"it is damaged: {error}", hint)

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Run the block as one transaction. Raises OutputError if SQLite fails."""
        with self.errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # Call `execute` and `execute_all` within `transaction`, which converts SQLite errors.

    def execute(self, statement: str, *values: object) -> None:
        self._connection.execute(statement, values)

    def execute_all(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._connection.executemany(statement, rows)

    def select(self, statement: str, *values: object) -> list[Any]:
        """Return all rows. Raises OutputError if SQLite fails."""
        with self.errors():
            return self._connection.execute(statement, values).fetchall()

    def value(self, statement: str, *values: object) -> object:
        """Return the first column of the first row, or None if there are no rows. Raises OutputError if SQLite fails."""
        with self.errors():
            row = self._connection.execute(statement, values).fetchone()
        return None if row is None else row[0]

    def meta(self, key: str) -> object:
        return self.value("SELECT value FROM meta WHERE key = ?", key)

    def set_meta(self, key: str, value: object) -> None:
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)


def _connect(path: str) -> sqlite3.Connection:
    # Transactions begin explicitly, and only one thread uses the connection at a time.
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


# ---- values of columns ----


def key_of(image: str) -> bytes:
    """Return the key of an image; keys sort as `name_order` does."""
    return image.replace("/", "\0").encode()


def name_of(key: bytes) -> str:
    return key.decode().replace("\0", "/")


def pack(rows: Iterable[bytes]) -> bytes:
    """Compress rows, which must not contain tabs."""
    return zlib.compress(b"".join(row + b"\t" for row in rows), 1)


def unpack(data: bytes, limit: int) -> bytes:
    """Decompress data. Raises zlib.error if it is damaged or larger than `limit` bytes."""
    decompressor = zlib.decompressobj()
    plain = decompressor.decompress(data, limit)
    if not decompressor.eof:
        raise zlib.error("truncated, or too large")
    return plain


def split_formats(formats: object) -> tuple[str, ...]:
    return tuple(str(formats).split(",")) if formats else ()
