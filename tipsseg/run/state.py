"""The record of an output folder, `.tipsseg/state.db`. Only the process that holds the folder's lock writes it.

    meta       the run, as in run.json
    image      one row per image: its input, its labels, and who made them
    file       one row per file that tipsseg wrote: its digest, size and time, and the labels that it shows
    row        the rows of an image in a file for the whole run
    failure    the images that failed

An image takes two transactions: `expect` before its files get their names, and `add` afterwards. A process may be killed between
any two statements: a file with the digest that was expected is its own. manifest.jsonl and errors.jsonl are exports, which grow
during a run; only `tipsseg check --restore` reads them.

While a process changes the database, it is in WAL mode and locked. Afterwards it is in DELETE mode, so that it can be opened in a
folder that cannot be written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import astuple, fields
from functools import lru_cache
from io import FileIO
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

from tipsseg.errors import OtherSchemaError, OutputError, RecordError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.images.access import matches
from tipsseg.run.entry import ERRORS_FILE, MANIFEST_FILE, ROWS, Entry, Failure, FileRow, read_failure
from tipsseg.run.shards import output_folder
from tipsseg.util.files import (
    Fingerprint,
    atomic_path,
    open_appending,
    open_regular,
    output_error,
    read_regular,
    remove_file,
    set_aside,
    stamp,
)
from tipsseg.util.json import json_bytes, parse
from tipsseg.util.text import one_line, shell_word, shorten

#: The hidden folder of the database.
STATE_FOLDER = ".tipsseg"
STATE_FILE = f"{STATE_FOLDER}/state.db"

_SCHEMA = [
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE image (key BLOB PRIMARY KEY, path TEXT, size INTEGER, mtime_ns INTEGER, sha256 TEXT, given TEXT, version TEXT, "
    "formats TEXT, correction TEXT, coming TEXT, seconds REAL, facts BLOB, sealed BLOB) WITHOUT ROWID",
    "CREATE TABLE file (image BLOB, place TEXT, name TEXT, digest TEXT, size INTEGER, mtime_ns INTEGER, shows TEXT, taken TEXT, "
    "pending TEXT, PRIMARY KEY (image, place)) WITHOUT ROWID",
    "CREATE TABLE row (name TEXT, image BLOB, data BLOB, PRIMARY KEY (name, image)) WITHOUT ROWID",
    "CREATE TABLE failure (key BLOB PRIMARY KEY, session INTEGER, line BLOB) WITHOUT ROWID",
]

#: The version of all records in an output folder. Others are not read.
SCHEMA = 3

#: The types of the columns of an image, in the order of the table; the columns of a file follow from FileRow.
_MAYBE = (str, NoneType)
_IMAGE_TYPES = (bytes, str, int, int, _MAYBE, _MAYBE, str, str, _MAYBE, _MAYBE, float, bytes, bytes)
_FILE_TYPES = (str, str, _MAYBE, int, int, str, _MAYBE, _MAYBE)

#: Images per query, so that they can be changed between two queries.
_PAGE = 500

#: SQLite syncs to disk at checkpoints, not at every commit: a power loss may lose the last images, never the folder.
SYNCHRONOUS = "NORMAL"

#: Errors of SQLite that say nothing about the content of the database.
_OUT_OF_REACH = re.compile("SQLITE_(BUSY|LOCKED|PROTOCOL|CANTOPEN|READONLY|PERM|FULL|IOERR(?!_SHORT_READ))")

#: The files that the record is exported to, by the process that ends a change.
EXPORTS = ("run.json", MANIFEST_FILE, ERRORS_FILE)


class State:
    """The record of a folder. Thread-safe.

    Attributes:
        path: The database.
        broken_off: True if a process ended before it wrote all exports.
        changed: True once this process has begun to change the record.
        aside: The new paths of exports that another program changed: they are written again.
    """

    def __init__(self, folder: Path, name: str = STATE_FILE) -> None:
        """Open the record; nothing is written. `name` is its file in the folder.

        Raises:
            RecordError: It is damaged.
            OtherSchemaError: Another version of tipsseg wrote it.
            OutputError: It is a link.
        """
        self.folder, self.path, self._home = folder, folder / name, str(output_folder(folder))
        self.broken_off = self.changed = False
        self.aside: list[Path] = []
        self._session = 0
        self._former: Mapping[str, Sequence[str]] | None = None
        self._lock = threading.RLock()
        self._growing: dict[str, FileIO] = {}
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        for path in (self.path.parent, self.path):
            if path.is_symlink():
                raise OutputError(path, "it is a symbolic link", "Remove the link, or choose another output folder.")
        self._is_file = self.path.exists()
        self._db = self._open()

    @staticmethod
    def file(folder: Path) -> Path:
        """Return the database of a folder, whether it exists or not."""
        return folder / STATE_FILE

    def _open(self) -> sqlite3.Connection:
        if not self._is_file:
            found = _connect("")
            found.executescript(";".join(_SCHEMA))
            return found
        statement = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        with ExitStack() as stack:  # which closes the database, unless it is sound
            try:
                found = stack.enter_context(closing(_connect(str(self.path))))
                try:
                    tables = [sql for (sql,) in found.execute(statement)]
                except sqlite3.OperationalError as error:
                    if not _OUT_OF_REACH.match(getattr(error, "sqlite_errorname", "")):
                        raise
                    found.close()
                    found, tables = stack.enter_context(closing(self._open_copy())), _SCHEMA
                if not tables:
                    raise sqlite3.DatabaseError("it is empty")
                if tables != _SCHEMA:
                    if _exported_schema(self.folder) == SCHEMA:
                        raise sqlite3.DatabaseError("its tables are not as tipsseg makes them")
                    raise OtherSchemaError(output_folder(self.folder))
                meta = dict(found.execute("SELECT key, value FROM meta WHERE key IN ('session', 'at_work')"))
                self._session, self.broken_off = int(meta.get("session", 0)), bool(int(meta.get("at_work", 0)))
            except (sqlite3.DatabaseError, OSError, ValueError) as error:
                raise self._error(error) from error
            stack.pop_all()
            return found

    def _open_copy(self) -> sqlite3.Connection:
        """Open a copy of a database that another process is writing, or that was left by a killed one in a read-only folder."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        while True:
            self._copy = tempfile.TemporaryDirectory(prefix="tipsseg-")
            place, begun = Path(self._copy.name, "state.db"), _head(wal)
            shutil.copyfile(self.path, place)
            with suppress(FileNotFoundError):
                shutil.copyfile(wal, f"{place}-wal")
            if _head(wal) == begun:  # else the log began again meanwhile
                return _connect(str(place))

    def _error(self, error: Exception) -> RecordError | OutputError:
        """Return the error for a database that is damaged, or that the system or another program keeps from us."""
        code, again = getattr(error, "sqlite_errorname", ""), "run the same command again."
        if code == "SQLITE_FULL":
            return OutputError(self.path, "no space left on the device", f"Free some space and {again}")
        if code.startswith("SQLITE_IOERR") and self.changed:
            limit = "the file exceeds the size limit of the system, or the disk failed"
            return OutputError(self.path, limit, f"Check `ulimit -f`, and {again}")
        if isinstance(error, OSError) or _OUT_OF_REACH.match(code):
            return OutputError(
                self.path, str(error), "Check its permissions, the disk, and programs that have it open."
            )
        hint = f"tipsseg check {shell_word(str(output_folder(self.folder)))} --restore"
        what = shorten(one_line(str(error)))
        return RecordError(self.path, f"damaged ({what})", f"Rebuild it from the masks and manifest.jsonl: {hint}")

    def verify(self) -> None:
        """Read all of the record, which takes long. Raise RecordError if any part of it is damaged."""
        with self._errors():
            if (fault := self._value("PRAGMA quick_check")) != "ok":
                raise sqlite3.DatabaseError(str(fault))
            for (key,) in self._select("SELECT key FROM meta"):
                self.meta(key)
            self._select("SELECT * FROM file", make=_image_file)
            exported = MANIFEST_FILE not in (path.name for path in self.altered_exports()) and not self.broken_off
            known = iter(_lines(self.folder / MANIFEST_FILE) if exported else ())
            for entry, files in self.images():
                _ = entry.numbers
                record, line = entry.record(files), next(known, None)
                if exported and not (line and _agree(parse(line), parse(json_bytes(record)))):
                    raise sqlite3.DatabaseError(f"{entry.image} is not as {MANIFEST_FILE} has it")
            if next(known, None):
                raise sqlite3.DatabaseError(f"it lacks images that {MANIFEST_FILE} has")
            for name, image in self._select("SELECT name, image FROM row"):
                self.rows(name, name_of(image))
            lines = self._select("SELECT line FROM failure")
            if any(read_failure(line) is None for (line,) in lines):
                raise sqlite3.DatabaseError("a line on a failed image is invalid")

    # ---- changing ----

    def begin(self) -> None:
        """Prepare the database for changes, and mark it as in use. Raise OutputError if that fails."""
        with self._lock:
            if self.changed:
                return
            if self._copy is not None:
                raise OutputError(self.path, "another program has it open", "Close it, and run the same command again.")
            self.changed, is_new = True, not self._is_file
            with self._errors():
                if is_new:
                    self._write_file()
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._set_journal("WAL")
                self._db.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            if not (is_new or self.broken_off):  # else they grew since they were recorded
                self.aside += [set_aside(path) for path in self.altered_exports() if os.path.lexists(path)]
            self._session += 1
            with self.changing() as db:
                db.executemany(_INSERT_META, [("at_work", 1), ("session", self._session)])

    def _write_file(self) -> None:
        for suffix in ("-wal", "-shm", "-journal"):
            remove_file(self.path.with_name(self.path.name + suffix))
        with atomic_path(self.path) as temporary, closing(_connect(str(temporary))) as target:
            target.execute("PRAGMA synchronous = OFF")
            self._db.backup(target)
        self._db.close()
        self._db, self._is_file = _connect(str(self.path)), True

    def _set_journal(self, mode: str) -> None:
        self._db.execute("PRAGMA synchronous = OFF")  # only header bytes within one sector change
        self._db.execute(f"PRAGMA journal_mode = {mode}")

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction. Raise OutputError if the database cannot be written."""
        with self._lock:
            self.begin()
            with self._errors():
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.DatabaseError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._error(error) from error

    def end(self) -> None:
        """Write the exports, and mark the changes as complete. Raise OutputError if that fails."""
        self.close_exports()
        former = self.former
        lines = (json_bytes(self._line(entry, files, former)) for entry, files in self.images())
        _write_lines(self.folder / MANIFEST_FILE, lines)
        _write_lines(self.folder / ERRORS_FILE, (failure.line() for failure in self.failures()))
        paths = [path for name in EXPORTS if os.path.lexists(path := self.folder / name)]
        stamps = {path.name: astuple(stamp(path)) for path in paths}
        with self.changing() as db:
            db.executemany(_INSERT_META, [("at_work", 0), ("exports", json_bytes(stamps).decode())])
        self.broken_off = False

    def altered_exports(self) -> list[Path]:
        """Return the exports that were changed or removed since they were written."""
        before = self.meta("exports") or {}
        altered = []
        for path in (self.folder / name for name in EXPORTS):
            known = before.get(path.name)
            if os.path.lexists(path) if known is None else not matches(Fingerprint(*known), path):
                altered.append(path)
        return altered

    @staticmethod
    def _line(entry: Entry, files: Mapping[str, FileRow], former: Mapping[str, Sequence[str]]) -> dict[str, object]:
        """Return the line of an image in manifest.jsonl, with its names before."""
        names = former.get(entry.image)
        return {**entry.record(files), **({"former": list(names)} if names else {})}

    def close_exports(self) -> None:
        for file in self._growing.values():
            file.close()
        self._growing.clear()

    def close(self) -> None:
        """Close the files; safe to call twice."""
        with self._lock, suppress(sqlite3.Error):
            self.close_exports()
            if self.changed:
                self.changed = False
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._set_journal("DELETE")
            self._db.close()
            if self._copy is not None:
                self._copy.cleanup()

    def _append(self, name: str, line: bytes) -> None:
        path = self.folder / name
        try:
            if name not in self._growing:
                self._growing[name] = FileIO(open_appending(path), "a+")
            self._growing[name].write(line + b"\n")
        except OSError as error:
            raise output_error(path, error) from error

    # ---- meta ----

    def meta(self, key: str) -> Any:
        """Return a JSON value; None if there is none."""
        value = self._value("SELECT value FROM meta WHERE key = ?", key)
        with self._errors():
            return json.loads(value) if isinstance(value, str | bytes) else value

    def set_meta(self, key: str, value: object) -> None:
        self._former = None
        with self.changing() as db:
            db.execute(_INSERT_META, (key, json_bytes(value).decode()))

    # ---- images ----

    def __len__(self) -> int:
        return int(str(self._value("SELECT count(*) FROM image")))

    def __contains__(self, image: object) -> bool:
        return self._value("SELECT 1 FROM image WHERE key = ?", key_of(str(image))) is not None

    def get(self, image: str) -> Entry | None:
        found = self._select("SELECT * FROM image WHERE key = ?", key_of(image), make=self._entry)
        return found[0] if found else None

    def names(self, name: str | None = None) -> list[str]:
        """Return the names of all images, or of those in a format, sorted."""
        where = "" if name is None else " WHERE instr(',' || formats || ',', ?)"
        values = [f",{name},"] if name else ()
        return self._select(f"SELECT key FROM image{where} ORDER BY key", *values, make=lambda row: name_of(*row))

    def names_of_sizes(self, sizes: Container[int]) -> list[str]:
        """Return the names of the images whose files had one of these sizes in bytes."""
        found = self._select("SELECT key, size FROM image ORDER BY key")
        return [name_of(key) for key, size in found if size in sizes]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the names of each two images whose pictures have the same bytes, if no third one has them."""
        same = "SELECT min(key), max(key) FROM image WHERE sha256 IS NOT NULL GROUP BY sha256 HAVING count(*) = 2"
        return self._select(f"{same} ORDER BY 1", make=lambda row: (name_of(row[0]), name_of(row[1])))

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, sorted by name. The caller may change images in between."""
        for _, entries in self._pages():
            yield from entries

    def images(self) -> Iterator[tuple[Entry, dict[str, FileRow]]]:
        """Yield the entries with their files (see `files`), sorted by name."""
        for last, entries in self._pages():
            files: dict[str, dict[str, FileRow]] = defaultdict(dict)
            end = key_of(entries[-1].image)
            for image, file in self._select(
                "SELECT * FROM file WHERE image > ? AND image <= ?", last, end, make=_image_file
            ):
                files[image][file.place] = file
            yield from ((entry, files[entry.image]) for entry in entries)

    def _pages(self) -> Iterator[tuple[bytes, list[Entry]]]:
        """Yield pages of entries, sorted by name, each with the last key of the page before."""
        last = b""
        page = f"SELECT * FROM image WHERE key > ? ORDER BY key LIMIT {_PAGE}"
        while entries := self._select(page, last, make=self._entry):
            yield last, entries
            last = key_of(entries[-1].image)

    def formats(self) -> set[str]:
        """Return the formats that any image is in."""
        found = self._select("SELECT DISTINCT formats FROM image", make=lambda row: row[0].split(","))
        return {name for names in found for name in names if name}

    def expect(self, image: str, files: Iterable[FileRow], coming: str | None = None) -> None:
        """Record files before they are put in place, and the correction that comes with them."""
        with self.changing() as db:
            _change_files(db, image, files)
            if coming is not None:
                db.execute("UPDATE image SET coming = ? WHERE key = ?", (coming, key_of(image)))

    def add(self, entry: Entry, files: Iterable[FileRow], rows: Mapping[str, Rows], gone: Iterable[str] = ()) -> None:
        """Record an image whose files are in place: files and rows that are new, and the places of files that are gone."""
        key = key_of(entry.image)
        with self.changing() as db:
            values = (key, entry.path, *astuple(entry.input), entry.given, entry.version)
            more = (",".join(entry.formats), entry.correction_text, None, entry.seconds, entry.packed, entry.sealed)
            db.execute(f"INSERT OR REPLACE INTO image VALUES ({','.join('?' * 13)})", (*values, *more))
            _change_files(db, entry.image, files, gone)
            packed = ((name, key, zlib.compress(b"".join(row + b"\t" for row in own), 1)) for name, own in rows.items())
            db.executemany("INSERT OR REPLACE INTO row VALUES (?, ?, ?)", packed)
            db.execute("DELETE FROM failure WHERE key = ?", (key,))
        self._append(MANIFEST_FILE, json_bytes(self._line(entry, self.files(entry.image), self.former)))

    def cover(self, formats: Iterable[str], images: Iterable[str] | None = None) -> None:
        """Add formats to these images, or to all."""
        add = "UPDATE image SET formats = ltrim(formats || ',' || ?, ',') WHERE NOT instr(',' || formats || ',', ?)"
        only = self.names() if images is None else [*images]
        with self.changing() as db:
            for name in formats:
                db.executemany(f"{add} AND key = ?", ((name, f",{name},", key_of(image)) for image in only))

    def drop(self, name: str) -> None:
        """Remove a format from all images, with its rows."""
        with self.changing() as db:
            db.execute("UPDATE image SET formats = trim(replace(',' || formats || ',', ?, ','), ',')", (f",{name},",))
            db.execute("DELETE FROM row WHERE name = ?", (name,))

    def forget_images(self) -> None:
        """Remove the images that nobody corrected, and all failures. Their files stay recorded (see `orphans`)."""
        with self.changing() as db:
            db.execute("DELETE FROM row WHERE image IN (SELECT key FROM image WHERE correction IS NULL)")
            db.execute("DELETE FROM image WHERE correction IS NULL")
            db.execute("DELETE FROM failure")

    def forget(self, images: Iterable[str]) -> None:
        """Remove images, corrected or not. Their files stay recorded (see `orphans`)."""
        with self.changing() as db:
            for image in images:
                _forget(db, key_of(image))

    def hand_over(self, image: str, name: str, files: Iterable[FileRow]) -> None:
        """Forget an image whose labels have another name by now, and record the files that stay where they are."""
        with self.changing() as db:
            for file in files:
                _change_files(db, image, (), [file.place])
                _change_files(db, name, [file])
            _forget(db, key_of(image))

    @property
    def former(self) -> Mapping[str, Sequence[str]]:
        """The names that images had before, by their name of now."""
        if self._former is None:  # read once: each image that is recorded asks for it
            self._former = self.meta("former") or {}
        return self._former

    def add_former(self, renamed: Iterable[tuple[str, str]]) -> None:
        """Add names that images had before; each with the name of now, whose image also had the names before that one."""
        former = dict(self.former)
        for old, name in renamed:
            former[name] = [*dict.fromkeys((*former.get(name, ()), *former.pop(old, ()), old))]
        if former != self.former:
            self.set_meta("former", former)

    # ---- files ----

    # ---- files ----

    def files(self, image: str = "") -> dict[str, FileRow]:
        """Return the files of an image by place, or of the whole run."""
        found = self._select("SELECT * FROM file WHERE image = ?", key_of(image), make=_image_file)
        return {file.place: file for _, file in found}

    def is_arriving(self, image: str) -> bool:
        """Return True if a killed process was about to put files of an image in place."""
        return any(row.pending for row in self.files(image).values())

    def set_files(self, image: str, files: Iterable[FileRow], gone: Iterable[str] = ()) -> None:
        """Record files, and remove the records of those at the places `gone`."""
        with self.changing() as db:
            _change_files(db, image, files, gone)

    def orphans(self) -> list[tuple[str, FileRow, bool]]:
        """Return the files whose image is not recorded: the image, the file, and True if another image has it by now."""
        orphans = (
            "WITH held AS (SELECT DISTINCT place FROM file WHERE image IN (SELECT key FROM image)) "
            "SELECT held.place IS NOT NULL, file.* FROM file LEFT JOIN held ON held.place = file.place "
            "WHERE file.image != ? AND file.image NOT IN (SELECT key FROM image)"
        )
        return self._select(orphans, b"", make=lambda row: (*_image_file(row[1:]), bool(row[0])))

    def owner(self, place: str) -> str | None:
        """Return the image that a file belongs to; None if it is not recorded."""
        found = self._value("SELECT image FROM file WHERE place = ? AND image IN (SELECT key FROM image)", place)
        return name_of(found) if isinstance(found, bytes) else None

    def unknown(self, places: Iterable[str]) -> Iterator[str]:
        """Yield the places, of these, that have no recorded file. The record is indexed once, outside the folder."""
        self._select("CREATE TEMP TABLE IF NOT EXISTS known (place TEXT PRIMARY KEY) WITHOUT ROWID")
        self._select("INSERT OR IGNORE INTO temp.known SELECT place FROM file")
        return (place for place in places if self._value("SELECT 1 FROM temp.known WHERE place = ?", place) is None)

    def shown(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the images whose rows in a format are recorded, sorted, each with what they show."""
        shown = "SELECT image, shows FROM file WHERE name = ? AND digest = ? ORDER BY image"
        yield from self._select(shown, name, ROWS, make=lambda row: (name_of(row[0]), row[1]))

    def rows(self, name: str, image: str) -> Rows:
        """Return an image's rows in a format."""
        packed = self._value("SELECT data FROM row WHERE name = ? AND image = ?", name, key_of(image))
        with self._errors():
            return tuple(zlib.decompress(packed).split(b"\t")[:-1]) if isinstance(packed, bytes) else ()

    # ---- failures ----

    def fail(self, failure: Failure) -> None:
        """Record that an image failed."""
        with self.changing() as db:
            values = (key_of(failure.image), self._session, failure.line())
            db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", values)
        self._append(ERRORS_FILE, failure.line())

    def mend(self, image: str) -> None:
        """Remove the failure of an image, if it has one."""
        if self._select("SELECT 1 FROM failure WHERE key = ?", key_of(image)):
            with self.changing() as db:
                db.execute("DELETE FROM failure WHERE key = ?", (key_of(image),))

    def forget_failures(self) -> None:
        """Remove failures of earlier runs that no longer apply (see `Failure.may_last`)."""
        session = self._session if self.changed else -1
        for (line,) in self._select("SELECT line FROM failure WHERE session != ?", session):
            failure = read_failure(line)
            if failure is not None and not failure.may_last:
                self.mend(failure.image)

    def failures(self) -> list[Failure]:
        """Return the failures, sorted by image name."""
        found = self._select("SELECT line FROM failure ORDER BY key")
        return [failure for (line,) in found if (failure := read_failure(line)) is not None]

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        return _entry(row, self._home)

    def _select(self, statement: str, *values: object, make: Callable[[tuple[Any, ...]], Any] = tuple) -> list[Any]:
        """Return the rows of a statement, each turned into what `make` makes of it."""
        with self._errors():
            return [make(row) for row in self._db.execute(statement, values)]

    def _value(self, statement: str, *values: object) -> object:
        found = self._select(statement, *values)
        return found[0][0] if found else None


_INSERT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"

#: The columns of a file after its image, in the order of the table.
_FILE_COLUMNS = tuple(each.name for each in fields(FileRow))


def _connect(path: str) -> sqlite3.Connection:
    # Transactions begin explicitly, and only one thread uses the connection at a time.
    return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def _head(wal: Path) -> bytes:
    with suppress(FileNotFoundError), wal.open("rb") as file:
        return file.read(32)
    return b""


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of an export; none if it is missing."""
    with suppress(FileNotFoundError), open_regular(path) as file:
        yield from file


def _agree(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Return True if two records of an image have the same values; another version may write further ones."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Replace an export, or remove it if there are no lines."""
    lines = iter(lines)
    if (first := next(lines, None)) is None:
        remove_file(path)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(line + b"\n" for line in chain([first], lines))


def key_of(image: str) -> bytes:
    """Return the key of an image; keys sort as `name_order` does."""
    return image.replace("/", "\0").encode()


def name_of(key: bytes) -> str:
    return key.decode().replace("\0", "/")


def _exported_schema(folder: Path) -> object:
    """Return the version of the records that run.json was written with; None if that is unknown."""
    with suppress(OSError, ValueError, AttributeError):
        return parse(read_regular(folder / "run.json")).get("schema")
    return None


def _check_types(row: Sequence[Any], types: Sequence[Any]) -> None:
    """Raise ValueError if a cell has another type than tipsseg writes: SQLite does not check them."""
    if not all(map(isinstance, row, types)):
        raise ValueError("a cell has a value of another type")


@lru_cache(64)
def _split_formats(text: str) -> tuple[str, ...]:
    """Return the formats in a cell. Raise KeyError if one is unknown."""
    return tuple(FORMATS[name].name for name in text.split(",")) if text else ()


def _entry(row: tuple[Any, ...], home: str) -> Entry:
    _check_types(row, _IMAGE_TYPES)
    key, path, size, mtime_ns, sha256, given, version, formats, correction, coming, seconds, facts, sealed = row
    return Entry(
        image=name_of(key),
        path=path,
        input=Fingerprint(size, mtime_ns, sha256),
        given=given,
        version=version,
        formats=_split_formats(formats),
        correction_text=correction,
        coming=coming,
        seconds=seconds,
        packed=facts,
        sealed=sealed,
        home=home,
    )


def _image_file(row: Sequence[Any]) -> tuple[str, FileRow]:
    """Return the image of a file, and its record."""
    image, *cells = row
    _check_types(cells, _FILE_TYPES)
    if "\0" in cells[0]:
        raise ValueError("the place of a file is invalid")
    return name_of(image), FileRow(**dict(zip(_FILE_COLUMNS, cells, strict=True)))


def _forget(db: sqlite3.Connection, key: bytes) -> None:
    """Remove an image, with its rows and its failure."""
    rows = [name for name, form in FORMATS.items() if form.has_rows]
    db.executemany("DELETE FROM row WHERE name = ? AND image = ?", ((name, key) for name in rows))
    db.execute("DELETE FROM image WHERE key = ?", (key,))
    db.execute("DELETE FROM failure WHERE key = ?", (key,))


def _change_files(db: sqlite3.Connection, image: str, files: Iterable[FileRow], gone: Iterable[str] = ()) -> None:
    """Record files of an image, and remove the records of those at the places `gone`."""
    key, insert = key_of(image), f"INSERT OR REPLACE INTO file VALUES ({','.join('?' * 9)})"
    db.executemany(insert, ((key, *(getattr(file, name) for name in _FILE_COLUMNS)) for file in files))
    db.executemany("DELETE FROM file WHERE image = ? AND place = ?", ((key, place) for place in gone))
