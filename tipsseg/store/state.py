"""The state of an output folder, or of a shard: a database, `.tipsseg/state.db`. The process writes it that has the folder's lock.

It holds the images with their entries, the failures, the rows of files for the whole run, the files that are about to be put in
place, and the formats whose files for the whole run have to be written again. manifest.jsonl and errors.jsonl are exports. They are
read in three cases: a folder of a version without a database; a database that is lost, damaged or of another version; and a
manifest.jsonl that was changed after the last run ended, as by a version without a database, and is whole. See `takeover`.

An image takes two transactions: `note_ahead` before its files get their names, and `add` afterwards. A process may end between any
two statements: what is noted ahead is known as this program's.

Nothing is written before the first change. Until then, what was taken over is in a temporary database.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from tipsseg.errors import OutputError
from tipsseg.formats.base import Rows
from tipsseg.store.failures import ERRORS_FILE, Failure, exported_failures, read_failure
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, read_entry
from tipsseg.store.takeover import exported_entries, exported_rows, former_files, former_journals, former_notes
from tipsseg.util.files import (
    atomic_path,
    atomic_write,
    json_bytes,
    open_appending,
    output_error,
    read_error,
    remove_file,
)
from tipsseg.util.fingerprint import Fingerprint, content_digest, file_record, parse_file
from tipsseg.util.json_values import parse

#: The hidden folder of the database, in the state folder.
STATE_FOLDER = ".tipsseg"
STATE_FILE = f"{STATE_FOLDER}/state.db"

#: What SQLite says in place of a number of an error, the reason, and what to do.
_TOLD = {
    "full": ("no space left on the device", "Free some space and run the same command again."),
    "disk I/O": (
        "the system allows no larger file, or the disk failed",
        "See `ulimit -f`, and run the same command again.",
    ),
}

# Keys are names with a zero byte in place of "/", so that their order is that of `name_order`.
#: The database says of itself that it is made of these. One of another version, or that somebody else made, is rebuilt.
_SCHEMA = [
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE image (key BLOB PRIMARY KEY, path TEXT, digest TEXT, formats TEXT, session INTEGER, entry BLOB) WITHOUT ROWID",
    "CREATE TABLE row (format TEXT, key BLOB, data BLOB, PRIMARY KEY (format, key)) WITHOUT ROWID",
    "CREATE TABLE ahead (place TEXT, digest TEXT, image TEXT, PRIMARY KEY (place, digest)) WITHOUT ROWID",
    "CREATE TABLE stale (format TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE failure (key BLOB PRIMARY KEY, session INTEGER, line BLOB) WITHOUT ROWID",
]

#: What SQLite waits for: the disk at each checkpoint, not at each commit. A power loss may cost the last images, never the folder.
SYNCHRONOUS = "NORMAL"

#: Images that are read at a time, so that others may be changed meanwhile.
_PAGE = 200

#: Bytes of an entry, and of the rows of an image in a format, at most.
_ENTRY_LIMIT = 64 << 20
_ROWS_LIMIT = 1 << 30

_FAIL = "INSERT OR REPLACE INTO failure VALUES (?, ?, ?)"
_IN_FORMAT = "instr(',' || formats || ',', ',' || ? || ',')"


class State:
    """What runs have done in a folder. Any thread may ask and change it.

    Attributes:
        changed: Whether this process has changed anything.
        broken_off: Whether a process ended before it had written all exports.
        rebuilt: Whether the database was damaged, and is made again of the exports.
        unreadable: What is wrong with the first line of manifest.jsonl that could not be taken over; "" if all could.
    """

    def __init__(self, folder: Path) -> None:
        """Open what is there; nothing is written. Raises OutputError if it cannot be read."""
        self.folder = folder
        self.path = folder / STATE_FILE
        self.broken_off = False
        self.changed = False
        self.rebuilt = False
        self.unreadable = ""
        self._alone = threading.RLock()
        self._is_file = False
        self._lacks_rows = False
        self._growing: dict[str, FileIO] = {}
        self._former: list[
            Path
        ] = []  # hidden files of an earlier version, which go once the database has what they say
        self._session = 0
        self._count = 0
        with self._told():
            if not (os.path.lexists(self.path) and self._open_file()):
                self._take_over()

    # ---- opening and closing ----

    def _open_file(self) -> bool:
        """Open the database, and return whether it can be used."""
        self._refuse_link()
        self._connection = _connect(str(self.path))
        try:
            if [sql for (sql,) in self._connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid")] == _SCHEMA:
                self._count = self._number("SELECT count(*) FROM image")
                self.broken_off = bool(self._meta("at_work"))
                self._session = int(str(self._meta("session") or 0))
                self._is_file = self.broken_off or not self._is_outdated()
            else:
                self.rebuilt = True
        except sqlite3.OperationalError as error:
            # Another process is at work, or was killed in a folder that nobody may write to. What is exported has to do.
            if not any(word in str(error) for word in ("lock", "unable to open", "readonly")):
                raise
        except (sqlite3.DatabaseError, ValueError):
            self.rebuilt = True
        if not self._is_file:
            self._connection.close()
        return self._is_file

    def _is_outdated(self) -> bool:
        """Return whether manifest.jsonl was changed after it was exported, and can be taken over whole."""
        path = self.folder / MANIFEST_FILE
        if self.exported or not os.path.lexists(path):
            return False
        images = set()
        with suppress(OSError):
            for entry, _ in exported_entries(self.folder):
                if entry is None:
                    return False
                images.add(entry.image)
        return len(images) >= self._count

    def _take_over(self) -> None:
        """Take over what exports and hidden files of an earlier version say; the rows only once they are asked for."""
        self._count = self._session = 0
        self._connection = _connect("")  # on the disk only if it gets large
        self._connection.execute("BEGIN")
        for each in _SCHEMA:
            self._connection.execute(each)
        try:
            for entry, fault in exported_entries(self.folder):
                if entry is None:
                    self.unreadable = self.unreadable or fault
                else:
                    self._connection.execute(
                        "INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)", _image_row(entry)
                    )
            for place, digest, image in former_notes(self.folder):
                entry = self.get(image) if image else None
                self.broken_off = True
                if entry is None or (place, digest) not in entry.replaceable:
                    self._connection.execute("INSERT OR REPLACE INTO ahead VALUES (?, ?, ?)", (place, digest, image))
            for failure in exported_failures(self.folder):
                self._connection.execute(_FAIL, (_key(failure.image), 0, failure.line()))
            stale = ((name,) for name in former_journals(self.folder))
            self._connection.executemany("INSERT OR REPLACE INTO stale VALUES (?)", stale)
            self._former = former_files(self.folder)
        except OSError as error:
            raise read_error(self.folder / MANIFEST_FILE, error) from error
        self._connection.execute("COMMIT")
        self._count = self._number("SELECT count(*) FROM image")
        self._lacks_rows = self._count > 0

    def _take_rows(self) -> None:
        """Take over the rows of files for the whole run."""
        if self._lacks_rows:
            self._lacks_rows = False
            rows = exported_rows(self.folder, self.holding)
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO row VALUES (?, ?, ?)",
                ((name, _key(image), _packed(each)) for name, image, each in rows),
            )
            self._connection.execute("COMMIT")

    def begin(self) -> None:
        """Get ready for changes, and note that they have begun. Raises OutputError."""
        with self._alone, self._told():
            if not self.changed:
                self._begin()

    def _begin(self) -> None:
        if not self._is_file:
            self._take_rows()
            self._write_file()
            for path in self._former:
                remove_file(path)
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._set_journal("WAL")
        self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        self._session += 1
        self.changed = True
        with self._changing():
            self._set_meta("at_work", 1)
            self._set_meta("session", self._session)
        if not self.exported:  # lines that are added follow what is there
            self._export()

    def _write_file(self) -> None:
        """Write what was taken over to its file, and go on there."""
        self._refuse_link()
        for each in ("-wal", "-shm", "-journal"):  # of a database that was damaged
            remove_file(self.path.with_name(self.path.name + each))
        with atomic_path(self.path) as temporary:
            target = _connect(str(temporary))
            try:
                target.execute("PRAGMA synchronous = OFF")  # until it is complete, the exports can replace it
                self._connection.backup(target)
            finally:
                target.close()
        self._connection.close()
        self._connection = _connect(str(self.path))
        self._is_file = True

    def _refuse_link(self) -> None:
        for path in (self.path.parent, self.path):
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Make one transaction of the block. Raises OutputError."""
        with self._alone, self._told():
            self.begin()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            reason, hint = next((told for sign, told in _TOLD.items() if sign in str(error)), (str(error), ""))
            raise OutputError(self.path, reason, hint) from error
        except (sqlite3.DatabaseError, zlib.error, ValueError) as error:
            hint = f"Remove {self.path.parent} and run the same command again: it is made again of the other records."
            raise OutputError(self.path, f"it is damaged: {error}", hint) from error

    def is_removed(self) -> bool:
        """Return whether the database that was changed is not there any more."""
        return self.changed and not self.path.exists()

    def end(self, run_files: Iterable[str]) -> None:
        """Write the exports, and note that all is done. Raises OutputError.

        Args:
            run_files: The places of files for the whole run that the record of the run has by now.
        """
        self._export()
        failed = b"".join(failure.line() for failure in self.failures())
        if failed:
            atomic_write(self.folder / ERRORS_FILE, failed)
        else:
            remove_file(self.folder / ERRORS_FILE)
        with self._changing() as connection:
            connection.executemany("DELETE FROM ahead WHERE image = '' AND place = ?", ((each,) for each in run_files))
            self._set_meta("at_work", 0)
        self.broken_off = False

    @property
    def taken_over(self) -> bool:
        """Whether the images are those of manifest.jsonl, as there is no database that can be used yet."""
        return not self._is_file

    @property
    def exported(self) -> bool:
        """Whether manifest.jsonl is as it was exported."""
        path = self.folder / MANIFEST_FILE
        with self._alone, self._told():
            exported = self._meta("exported")
        if not isinstance(exported, bytes):
            return not (self._count or os.path.lexists(path))
        return parse_file(parse(exported)).matches(path)

    def _export(self) -> None:
        """Write manifest.jsonl, with the images in the order of their names. Raises OutputError."""
        path = self.folder / MANIFEST_FILE
        exported: bytes | None = None
        self._close_exports()
        if self._count:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                for line in self._entries():
                    file.write(line + b"\n")
            try:
                status = path.stat()
                exported = json_bytes(
                    file_record(Fingerprint(status.st_size, status.st_mtime_ns, content_digest(path)))
                )
            except OSError as error:
                raise output_error(path, error) from error
        else:
            remove_file(path)
        with self._changing():
            self._set_meta("exported", exported)

    def _grow(self, name: str, line: bytes) -> None:
        """Let an export grow by a line, which `end` puts in its place. Raises OutputError."""
        path = self.folder / name
        try:
            if name not in self._growing:
                self._growing[name] = FileIO(open_appending(path), "a+")
            self._growing[name].write(line)
        except OSError as error:
            raise output_error(path, error) from error

    def _close_exports(self) -> None:
        for file in self._growing.values():
            file.close()
        self._growing.clear()

    def close(self) -> None:
        """Close the file, so that it can be read in a folder that nobody may write to. Safe to call twice."""
        with self._alone, suppress(sqlite3.Error):
            self._close_exports()
            if self.changed:
                self.changed = False
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._set_journal("DELETE")
            self._connection.close()

    def _set_journal(self, mode: str) -> None:
        # Without waiting for the disk: nothing changes but bytes of the header, within one sector.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"PRAGMA journal_mode = {mode}")

    # ---- images ----

    def __len__(self) -> int:
        return self._count

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and self._image(image, "1") is not None

    def get(self, image: str) -> ManifestEntry | None:
        """Return the entry of an image. Raises OutputError."""
        with self._told():
            line = self._image(image, "entry")
            return read_entry(_unzip(line, _ENTRY_LIMIT)) if isinstance(line, bytes) else None

    def is_elsewhere(self, image: str, path: str) -> bool:
        """Return whether an image of that name is there, and was labelled from another path."""
        return self._image(image, "path") not in (None, path)

    def formats_of(self, image: str) -> tuple[str, ...]:
        """Return the formats that an image is in; none if the image is not there."""
        return _split(self._image(image, "formats"))

    def names(self) -> list[str]:
        """Return the names of all images, in their order."""
        return self._names("1")

    def same_paths(self) -> list[tuple[str, str]]:
        """Return the images that were labelled from the path of another, each with the first image of that path."""
        first = "SELECT path, min(key) AS key FROM image GROUP BY path HAVING count(*) > 1"
        pairs = self._select(
            f"SELECT image.key, first.key FROM image JOIN ({first}) AS first USING (path) "
            "WHERE image.key != first.key ORDER BY image.key"
        )
        return [(_name(key), _name(other)) for key, other in pairs]

    def others(self, digest: str) -> list[str]:
        """Return the images whose labels were decided by something else."""
        return self._names("digest != ?", digest)

    def entries(self) -> Iterator[ManifestEntry]:
        """Yield the entries in the order of their names. Raises OutputError."""
        for line in self._entries():
            with self._told():
                entry = read_entry(line)
            yield entry

    def formats(self) -> set[tuple[str, ...]]:
        """Return the different groups of formats that images are in."""
        return {_split(formats) for (formats,) in self._select("SELECT DISTINCT formats FROM image")}

    def files(self) -> Iterator[str]:
        """Yield the files of all images, relative to the output folder."""
        for entry in self.entries():
            yield from entry.files.values()

    def holding(self, name: str) -> list[str]:
        """Return the images that are in a format, in the order of their names."""
        return self._names(_IN_FORMAT, name)

    def added_files(self) -> Iterator[str]:
        """Yield the files of the images that this process has added, relative to the output folder."""
        for line in self._entries(self._session) if self.changed else ():
            yield from parse(line)["files"].values()

    def summaries(self) -> Iterator[Mapping[str, object]]:
        """Yield the summary of each image as its entry has it, with other keys."""
        return map(parse, self._entries())

    def add(self, entry: ManifestEntry, rows: Mapping[str, Rows] | None = None, *, stale: Iterable[str] = ()) -> None:
        """Add an image, or say again what became of it. Raises OutputError.

        Args:
            entry: What became of it.
            rows: Its rows for files of the whole run, by format.
            stale: The formats whose files for the whole run have to be written again, beside those of `rows`.
        """
        with self._alone:
            with self._changing() as connection:
                before = self._image(entry.image, "formats")
                _insert(connection, entry, self._session, rows or {})
                gone = ((name, _key(entry.image)) for name in {*_split(before)} - {*entry.formats})
                connection.executemany("DELETE FROM row WHERE format = ? AND key = ?", gone)
                connection.execute("DELETE FROM ahead WHERE image = ?", (entry.image,))
                connection.execute("DELETE FROM failure WHERE key = ?", (_key(entry.image),))
                connection.executemany("INSERT OR IGNORE INTO stale VALUES (?)", ((name,) for name in stale))
            self._count += before is None
            self._grow(MANIFEST_FILE, json_bytes(entry.record()) + b"\n")

    def replace(self, kept: Iterable[tuple[ManifestEntry, Mapping[str, Rows]]]) -> None:
        """Forget all images, and what was noted ahead of them, and take these with their rows. Raises OutputError."""
        with self._alone:
            with self._changing() as connection:
                for table in ("image", "row", "stale", "failure"):
                    connection.execute(f"DELETE FROM {table}")
                connection.execute("DELETE FROM ahead WHERE image != ''")
                for entry, rows in kept:
                    _insert(connection, entry, 0, rows)
            self._count = self._number("SELECT count(*) FROM image")
            self.unreadable = ""
            self._export()

    # ---- failures ----

    def fail(self, failure: Failure) -> None:
        """Note that an image failed. Raises OutputError."""
        with self._alone:
            with self._changing() as connection:
                connection.execute(_FAIL, (_key(failure.image), self._session, failure.line()))
            self._grow(ERRORS_FILE, failure.line())

    def mend(self, image: str) -> None:
        """Note that an image is labelled, whatever an earlier run said of it. Raises OutputError."""
        if self._select("SELECT 1 FROM failure WHERE key = ?", _key(image)):
            with self._changing() as connection:
                connection.execute("DELETE FROM failure WHERE key = ?", (_key(image),))

    def forget_failures(self) -> None:
        """Forget what failed in an earlier run and cannot be as it was. Raises OutputError."""
        for (line,) in self._select(
            "SELECT line FROM failure WHERE session != ?", self._session if self.changed else -1
        ):
            failure = read_failure(line)
            if failure is not None and not failure.may_last:
                self.mend(failure.image)

    def failures(self) -> list[Failure]:
        """Return the images that failed, in the order of their names."""
        lines = self._select("SELECT line FROM failure ORDER BY key")
        return [failure for (line,) in lines if (failure := read_failure(line)) is not None]

    # ---- rows ----

    def rows(self, name: str, image: str) -> Rows | None:
        """Return the rows of an image in a format; None if there are none of it. Raises OutputError."""
        with self._alone, self._told():
            self._take_rows()
            found = self._value("SELECT data FROM row WHERE format = ? AND key = ?", name, _key(image))
            return tuple(_unzip(found, _ROWS_LIMIT).split(b"\t")[:-1]) if isinstance(found, bytes) else None

    def has_rows(self, name: str, image: str) -> bool:
        """Return whether there are rows of an image in a format, be they none."""
        with self._alone, self._told():
            self._take_rows()
            return self._value("SELECT 1 FROM row WHERE format = ? AND key = ?", name, _key(image)) is not None

    def with_rows(self, name: str) -> list[str]:
        """Return the images in a format that there are rows of, in the order of their names."""
        with self._alone:
            self._take_rows()
            there = "EXISTS (SELECT 1 FROM row WHERE format = ? AND row.key = image.key)"
            return self._names(f"{_IN_FORMAT} AND {there}", name, name)

    def without_entry(self) -> list[str]:
        """Return the images that there are rows of, and nothing else, in the order of their names."""
        with self._alone:
            self._take_rows()
            lost = "SELECT DISTINCT key FROM row WHERE key NOT IN (SELECT key FROM image) ORDER BY key"
            return [_name(key) for (key,) in self._select(lost)]

    @property
    def stale(self) -> set[str]:
        """The formats whose files for the whole run have to be written again."""
        return {name for (name,) in self._select("SELECT format FROM stale")}

    def mark_fresh(self, *names: str) -> None:
        """Note that the files of these formats for the whole run are written. Raises OutputError."""
        if written := set(names) & self.stale:
            with self._changing() as connection:
                connection.executemany("DELETE FROM stale WHERE format = ?", ((name,) for name in written))

    # ---- files that are about to be put in place ----

    def note_ahead(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Note files that are about to get their names: the place, the digest or LINK, and the image or "". Raises OutputError."""
        with self._changing() as connection:
            connection.executemany("INSERT OR REPLACE INTO ahead VALUES (?, ?, ?)", files)

    def ahead(self) -> list[tuple[str, str, str]]:
        """Return what was noted and never recorded, as `note_ahead` takes it."""
        return self._select("SELECT place, digest, image FROM ahead")

    # ---- in short ----

    def _image(self, image: str, column: str) -> object:
        with self._alone, self._told():
            return self._value(f"SELECT {column} FROM image WHERE key = ?", _key(image))

    def _names(self, where: str, *values: object) -> list[str]:
        return [_name(key) for (key,) in self._select(f"SELECT key FROM image WHERE {where} ORDER BY key", *values)]

    def _entries(self, session: int | None = None) -> Iterator[bytes]:
        """Yield the lines of the images, or of those of a session, in the order of their names. Raises OutputError."""
        own = "1" if session is None else f"session = {session}"
        last = b""
        page = f"SELECT key, entry FROM image WHERE key > ? AND {own} ORDER BY key LIMIT {_PAGE}"
        while found := self._select(page, last):
            for _, line in found:
                with self._told():
                    data = _unzip(line, _ENTRY_LIMIT)
                yield data
            last = found[-1][0]

    def _select(self, statement: str, *values: object) -> list[Any]:
        with self._alone, self._told():
            return self._connection.execute(statement, values).fetchall()

    def _number(self, statement: str) -> int:
        return int(self._connection.execute(statement).fetchone()[0])

    def _value(self, statement: str, *values: object) -> object:
        found = self._connection.execute(statement, values).fetchone()
        return None if found is None else found[0]

    def _meta(self, key: str) -> object:
        return self._value("SELECT value FROM meta WHERE key = ?", key)

    def _set_meta(self, key: str, value: object) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _connect(path: str) -> sqlite3.Connection:
    # Transactions are begun by hand. State takes care that one thread uses it at a time.
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def _insert(connection: sqlite3.Connection, entry: ManifestEntry, session: int, rows: Mapping[str, Rows]) -> None:
    """Put an image in place, and its rows, whose files have to be written again."""
    connection.execute("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)", _image_row(entry, session))
    for name, each in rows.items():
        connection.execute("INSERT OR REPLACE INTO row VALUES (?, ?, ?)", (name, _key(entry.image), _packed(each)))
        connection.execute("INSERT OR IGNORE INTO stale VALUES (?)", (name,))


def _image_row(entry: ManifestEntry, session: int = 0) -> tuple[bytes, str, str, str, int, bytes]:
    line = zlib.compress(json_bytes(entry.record()), 1)
    return _key(entry.image), entry.path, entry.digest, ",".join(entry.formats), session, line


def _key(image: str) -> bytes:
    return image.replace("/", "\0").encode()


def _name(key: bytes) -> str:
    return key.decode().replace("\0", "/")


def _packed(rows: Rows) -> bytes:
    return zlib.compress(b"".join(row + b"\t" for row in rows), 1)


def _unzip(data: bytes, limit: int) -> bytes:
    """Return what was packed. Raises zlib.error for what is not, and for more bytes than the limit."""
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(data, limit)
    if not unpacking.eof:
        raise zlib.error("cut off, or too large")
    return found


def _split(formats: object) -> tuple[str, ...]:
    return tuple(str(formats).split(",")) if formats else ()
