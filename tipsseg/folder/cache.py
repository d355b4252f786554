"""The cache of an output folder, `.tipsseg/cache.db`: what is known of its files.

It may be deleted at any time, as the masks are the record.

    image    one row per mask: its stamp, what it says of itself, and where its picture is
    file     one row per derived file: its digest, size and time, and the labels that it shows
    row      the rows of an image in a file for the whole run

Only the process that holds the folder's lock writes it. Others read a copy, which they may change.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from tipsseg.errors import OutputError
from tipsseg.folder.entry import ROWS, Entry, FileRow
from tipsseg.folder.lock import FolderLock, is_locked
from tipsseg.formats.base import Rows
from tipsseg.options.values import Shard
from tipsseg.util.files import Fingerprint, remove_file

#: The hidden folder of the cache.
CACHE_FOLDER = ".tipsseg"
CACHE_FILE = f"{CACHE_FOLDER}/cache.db"

_SCHEMA = [
    "CREATE TABLE meta (folder TEXT)",
    "CREATE TABLE image (key BLOB PRIMARY KEY, place TEXT, size INTEGER, mtime_ns INTEGER, sha256 TEXT, sealed BLOB, "
    "state INTEGER, objects BLOB, path TEXT, input_mtime_ns INTEGER, input_size INTEGER, input_sha256 TEXT) WITHOUT ROWID",
    "CREATE INDEX image_place ON image (place)",
    "CREATE TABLE file (image BLOB, place TEXT, name TEXT, digest TEXT, size INTEGER, mtime_ns INTEGER, shows TEXT, "
    "PRIMARY KEY (image, place)) WITHOUT ROWID",
    "CREATE TABLE row (name TEXT, image BLOB, data BLOB, PRIMARY KEY (name, image)) WITHOUT ROWID",
]

#: Errors of the disk, not of the database.
_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")

#: Images per query, so that they can be changed between two queries.
_PAGE = 500

_FILE_COLUMNS = tuple(each.name for each in fields(FileRow))


class Cache:
    """The cache of a folder. Thread-safe.

    Attributes:
        path: The database.
        lock: The lock of the folder; None to read.
    """

    def __init__(self, folder: Path, *, writes: bool, name: str = CACHE_FILE, lock: FolderLock | None = None) -> None:
        """Open the cache of a folder; an unsound one, or one of another folder, is left out. `writes` if it may be changed.

        Raises:
            OutputError: It is a link, or cannot be written.
        """
        self.folder, self.path, self.lock, self._writes = folder, folder / name, lock, writes
        self._lock = threading.RLock()
        for path in (self.path.parent, self.path):
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        with ExitStack() as stack, suppress(sqlite3.DatabaseError, OSError, ValueError):
            if not self.path.exists():
                return self._new()
            # A process that may write rolls back what a killed one left.
            uri = f"{self.path.absolute().as_uri()}?mode={'rw' if self._writes else 'ro'}"
            stored = stack.enter_context(closing(_connect(uri)))
            statement = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
            tables = [sql for (sql,) in stored.execute(statement)]
            known = stored.execute("SELECT folder FROM meta").fetchall() if tables == _SCHEMA else []
            if known == [(_identity(self.folder),)]:
                if self._writes:
                    stored.execute("PRAGMA synchronous = OFF")
                    stack.pop_all()
                    return stored
                stored.backup(copy := _connect(""))
                return copy
        return self._new()

    def _new(self) -> sqlite3.Connection:
        """Return an empty database: of the folder once it is first written, and until then of this process alone."""
        found = _connect("")
        found.executescript(";".join(_SCHEMA))
        return found

    def _write_file(self) -> None:
        """Put the database into the folder."""
        self._writes, home = False, self._db
        try:
            for suffix in ("", "-wal", "-shm", "-journal"):
                remove_file(self.path.with_name(self.path.name + suffix))
            self.path.parent.mkdir(exist_ok=True)
            target = _connect(self.path.absolute().as_uri() + "?mode=rwc")
            target.execute("PRAGMA synchronous = OFF")
            home.backup(target)
            target.execute("INSERT INTO meta VALUES (?)", (_identity(self.folder),))
        except (OSError, sqlite3.DatabaseError, OutputError):
            return  # it stays of this process alone
        home.close()
        self._db, self._writes = target, True

    # ---- reading and writing ----

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Raise OutputError if the cache is damaged."""
        try:
            yield
        except (sqlite3.Error, zlib.error, ValueError) as error:
            if getattr(error, "sqlite_errorname", "").startswith(_DISK):
                raise OutputError(self.path, str(error)) from error
            hint = "Delete it, and run the same command again: it is only a cache."
            raise OutputError(self.path, f"the cache is damaged ({error})", hint) from error

    def _select(self, statement: str, *values: object) -> list[Any]:
        with self._lock, self._guarded():
            return self._db.execute(statement, values).fetchall()

    def _change(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        with self._lock, self._guarded():
            if self._writes and not self._db.execute("PRAGMA database_list").fetchone()[2]:
                self._write_file()
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
                self._db.execute("PRAGMA user_version = 0")
            self._db.executemany(statement, rows)

    @property
    def settled(self) -> bool:
        """True if nothing changed since the last records were written."""
        return bool(self._select("PRAGMA user_version") == [(1,)])

    @settled.setter
    def settled(self, value: bool) -> None:
        with self._lock:
            self._db.execute(f"PRAGMA user_version = {int(value)}")

    def commit(self) -> None:
        """Write the changes to disk, as far as that is possible."""
        with self._lock, suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def close(self) -> None:
        """Commit, and close the database; safe to call twice."""
        with self._lock, suppress(sqlite3.Error):
            self.commit()
            self._db.close()

    def absorb(self) -> None:
        """Take over what the shards that have ended know, and remove their caches."""
        if self.lock is not None and self.lock.missing:
            return  # which shards have ended is unknown
        for path in sorted(self.path.parent.glob("cache-*-of-*.db")):
            if is_locked(self.folder, path.stem.removeprefix("cache-")):
                continue
            other = Cache(self.folder, writes=False, name=f"{CACHE_FOLDER}/{path.name}")
            for table in ("image", "file", "row"):
                rows = other._select(f"SELECT * FROM {table}")
                if rows:
                    self._change(f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
            other.close()
            self.commit()
            remove_file(path)

    # ---- images ----

    def __len__(self) -> int:
        return int(self._select("SELECT count(*) FROM image")[0][0])

    def __contains__(self, image: object) -> bool:
        return bool(self._select("SELECT 1 FROM image WHERE key = ?", key_of(str(image))))

    def get(self, image: str) -> Entry | None:
        found = self._select("SELECT * FROM image WHERE key = ?", key_of(image))
        with self._guarded():
            return _entry(found[0]) if found else None

    def at(self, place: str) -> Entry | None:
        """Return the entry of the mask at a place."""
        found = self._select("SELECT * FROM image WHERE place = ?", place)
        return _entry(found[0]) if found else None

    def knows(self, entry: Entry) -> bool:
        """Return True if this very mask is known."""
        found = self._select("SELECT place, mtime_ns, state FROM image WHERE key = ?", key_of(entry.image))
        return found == [(entry.place, entry.stamp.mtime_ns, entry.state)]

    def names(self) -> list[str]:
        """Return the names of all images, sorted."""
        with self._guarded():
            return [name_of(key) for (key,) in self._select("SELECT key FROM image ORDER BY key")]

    def masks(self) -> dict[str, tuple[str, int, int]]:
        """Return the image of each mask, by place, with the size and the time of its file."""
        found = self._select("SELECT place, key, size, mtime_ns FROM image")
        with self._guarded():
            return {place: (name_of(key), size, mtime_ns) for place, key, size, mtime_ns in found}

    def pictures(self) -> Iterator[tuple[str, str, Fingerprint]]:
        """Yield the name, the address and the fingerprint of each picture, as it was when it was last compared."""
        found = "SELECT key, path, input_size, input_mtime_ns, input_sha256 FROM image ORDER BY key"
        for key, path, *stamp in self._select(found):
            yield name_of(key), path, Fingerprint(*stamp)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, sorted by name. The caller may change images in between."""
        for _, entries in self._pages():
            yield from entries

    def images(self) -> Iterator[tuple[Entry, dict[str, FileRow]]]:
        """Yield the entries with their files (see `files`), sorted by name."""
        for last, entries in self._pages():
            files: dict[str, dict[str, FileRow]] = defaultdict(dict)
            page = "SELECT * FROM file WHERE image > ? AND image <= ?"
            with self._guarded():
                for row in self._select(page, last, key_of(entries[-1].image)):
                    files[name_of(row[0])][row[1]] = _file(row[1:])
            yield from ((entry, files[entry.image]) for entry in entries)

    def _pages(self) -> Iterator[tuple[bytes, list[Entry]]]:
        """Yield pages of entries, sorted by name, each with the last key of the page before."""
        last = b""
        page = f"SELECT * FROM image WHERE key > ? ORDER BY key LIMIT {_PAGE}"
        while rows := self._select(page, last):
            with self._guarded():
                entries = list(map(_entry, rows))
            yield last, entries
            last = key_of(entries[-1].image)

    def note(self, entry: Entry, files: Iterable[FileRow] = (), rows: Mapping[str, Rows] | None = None) -> None:
        """Note an image, with its files and rows that are new."""
        key, stamp = key_of(entry.image), entry.stamp
        values = (key, entry.place, stamp.size, stamp.mtime_ns, stamp.sha256, entry.sealed, entry.state)
        self._change("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*values, entry.packed, entry.path, entry.input_mtime_ns, entry.input.size, entry.input.sha256)])  # fmt: skip
        self.note_files(entry.image, files)
        packed = (
            (name, key, zlib.compress(b"".join(row + b"\t" for row in own), 1)) for name, own in (rows or {}).items()
        )
        self._change("INSERT OR REPLACE INTO row VALUES (?, ?, ?)", packed)

    def forget(self, image: str) -> None:
        """Forget an image and its rows. Its files stay known (see `orphans`)."""
        key = key_of(image)
        self._change("DELETE FROM image WHERE key = ?", [(key,)])
        self._change("DELETE FROM row WHERE image = ?", [(key,)])

    # ---- files ----

    def files(self, image: str = "") -> dict[str, FileRow]:
        """Return the files of an image by place, or of the whole run."""
        found = self._select("SELECT * FROM file WHERE image = ?", key_of(image))
        with self._guarded():
            return {row[1]: _file(row[1:]) for row in found}

    def note_files(self, image: str, files: Iterable[FileRow], gone: Iterable[str] = ()) -> None:
        """Note files, and forget those at the places `gone`."""
        key = key_of(image)
        rows = ((key, *(getattr(file, name) for name in _FILE_COLUMNS)) for file in files)
        self._change(f"INSERT OR REPLACE INTO file VALUES ({','.join('?' * (1 + len(_FILE_COLUMNS)))})", rows)
        self._change("DELETE FROM file WHERE image = ? AND place = ?", ((key, place) for place in gone))

    def orphans(self) -> list[tuple[str, FileRow, bool]]:
        """Return the files whose image is not known: the image, the file, and True if another image has it by now."""
        orphans = (
            "WITH held AS (SELECT DISTINCT place FROM file WHERE image IN (SELECT key FROM image)) "
            "SELECT held.place IS NOT NULL, file.* FROM file LEFT JOIN held ON held.place = file.place "
            "WHERE file.image != x'' AND file.image NOT IN (SELECT key FROM image)"
        )
        with self._guarded():
            return [(name_of(row[1]), _file(row[2:]), bool(row[0])) for row in self._select(orphans)]

    def places(self) -> set[str]:
        """Return the places of all known files and masks."""
        return {place for (place,) in self._select("SELECT place FROM file UNION SELECT place FROM image")}

    # ---- rows of files for the whole run ----

    def shown(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the images whose rows in a format are known, sorted, each with what they show."""
        shown = "SELECT image, shows FROM file WHERE name = ? AND digest = ? AND image IN (SELECT key FROM image) ORDER BY image"
        return ((name_of(key), shows) for key, shows in self._select(shown, name, ROWS))

    def rows(self, name: str, image: str) -> Rows:
        """Return an image's rows in a format."""
        found = self._select("SELECT data FROM row WHERE name = ? AND image = ?", name, key_of(image))
        with self._guarded():
            return tuple(zlib.decompress(found[0][0]).split(b"\t")[:-1]) if found else ()

    def drop(self, name: str) -> None:
        """Forget the rows of a format."""
        self._change("DELETE FROM row WHERE name = ?", [(name,)])


def cache_name(shard: Shard | None) -> str:
    """Return the place of the cache of a process: each shard has its own."""
    return CACHE_FILE if shard is None else f"{CACHE_FOLDER}/cache-{shard.folder}.db"


def _connect(path: str) -> sqlite3.Connection:
    # Transactions begin explicitly, and only one thread uses the connection at a time.
    return sqlite3.connect(path, uri=True, timeout=1, isolation_level=None, check_same_thread=False)


def _identity(folder: Path) -> str:
    """Return the device and the inode of a folder: the cache of a copy knows other times than its files have."""
    status = folder.stat()
    return f"{status.st_dev} {status.st_ino}"


def key_of(image: str) -> bytes:
    """Return the key of an image; keys sort as `name_order` does."""
    return image.replace("/", "\0").encode()


def name_of(key: bytes) -> str:
    return key.decode().replace("\0", "/")


def _file(row: Sequence[Any]) -> FileRow:
    """Return the record of a file from a row. Raise ValueError if a value has another type."""
    if list(map(type, row)) != [str, str, str, int, int, str]:
        raise ValueError("a value of a file has another type")
    return FileRow(**dict(zip(_FILE_COLUMNS, row, strict=True)))


def _entry(row: Sequence[Any]) -> Entry:
    _, place, size, mtime_ns, sha256, sealed, state, objects, path, input_mtime_ns, _, _ = row
    return Entry.of(
        sealed,
        place=place,
        stamp=Fingerprint(size, mtime_ns, sha256),
        state=state,
        packed=objects,
        path=path,
        input_mtime_ns=input_mtime_ns,
    )
