"""The database of an output folder or a shard, `.tipsseg/state.db`. Only the process that holds the folder's lock writes it.

It stores the image entries, the failures, the rows of files for the whole run, the files that are about to be moved into place, and
the formats whose files for the whole run are stale. manifest.jsonl and errors.jsonl are exports. They are read back if the database
is missing or damaged. See `exports`.

An image takes two transactions: `note_ahead` before its files are renamed into place, and `add` afterwards. A process may be killed
between any two statements: tipsseg recognises files in `ahead` as its own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tipsseg.formats.base import Rows
from tipsseg.store.database import Database, key_of, name_of, pack, split_formats, unpack
from tipsseg.store.exports import Exports, exported_entries, exported_rows
from tipsseg.store.failures import ERRORS_FILE, Failure, exported_failures, read_failure
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, read_entry
from tipsseg.util.files import json_bytes, read_error
from tipsseg.util.fingerprint import parse_file
from tipsseg.util.json_values import parse

#: The hidden folder of the database, in the state folder.
STATE_FOLDER = ".tipsseg"
STATE_FILE = f"{STATE_FOLDER}/state.db"

#: Images per query, so that entries can be changed between two queries.
_PAGE = 200

#: Maximum size in bytes of an entry, and of an image's rows in a format.
_ENTRY_LIMIT = 64 << 20
_ROWS_LIMIT = 1 << 30

_INSERT_IMAGE = "INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_ROWS = "INSERT OR REPLACE INTO row VALUES (?, ?, ?)"
_INSERT_AHEAD = "INSERT OR REPLACE INTO ahead VALUES (?, ?, ?)"
_INSERT_STALE = "INSERT OR IGNORE INTO stale VALUES (?)"
_INSERT_FAILURE = "INSERT OR REPLACE INTO failure VALUES (?, ?, ?)"
_IN_FORMAT = "instr(',' || formats || ',', ',' || ? || ',')"


class State:
    """The database of the runs in a folder. Thread-safe.

    Attributes:
        folder: The state folder.
        path: The database file.
        broken_off: True if a process ended before it wrote all exports.
        unreadable: The fault of the first line of manifest.jsonl that could not be imported; "" if all lines could.
    """

    def __init__(self, folder: Path) -> None:
        """Open the state; nothing is written. Raises OutputError if it cannot be read."""
        self.folder = folder
        self.path = folder / STATE_FILE
        self.unreadable = ""
        self._db = Database(self.path)
        self._exports = Exports(folder)
        self._lacks_rows = False
        is_open = self._db.open_file()
        self.broken_off = self._db.broken_off
        if not is_open:
            self._take_over()

    # ---- opening and closing ----

    def _take_over(self) -> None:
        """Import the exports; rows are imported at first use."""
        db = self._db
        db.open_temporary()
        try:
            with db.transaction():
                for entry, fault in exported_entries(self.folder):
                    if entry is None:
                        self.unreadable = self.unreadable or fault
                    else:
                        self._insert(entry, 0, {})
                for failure in exported_failures(self.folder):
                    db.execute(_INSERT_FAILURE, key_of(failure.image), 0, failure.line())
        except OSError as error:
            raise read_error(self.folder / MANIFEST_FILE, error) from error
        db.images = int(str(db.value("SELECT count(*) FROM image")))
        self._lacks_rows = db.images > 0

    def _take_rows(self) -> None:
        with self._db.lock:
            if self._lacks_rows:
                self._lacks_rows = False
                rows = exported_rows(self.folder, self.holding)
                with self._db.transaction() as db:
                    db.execute_all(_INSERT_ROWS, ((name, key_of(image), pack(lines)) for name, image, lines in rows))

    def begin(self) -> None:
        """Prepare the database for changes, and mark it as in use."""
        with self._db.lock:
            if self._db.changed:
                return
            if not self._db.is_file:
                self._take_rows()
            self._db.begin()
            if not self.exported:  # complete the file before lines are appended
                self._export()

    @contextmanager
    def _changing(self) -> Iterator[Database]:
        """Run the block as one transaction."""
        with self._db.lock:
            self.begin()
            with self._db.transaction() as db:
                yield db

    @property
    def changed(self) -> bool:
        """Return True if this process has changed anything."""
        return self._db.changed

    @property
    def rebuilt(self) -> bool:
        """Return True if the database was damaged and is rebuilt from the exports."""
        return self._db.damaged

    @property
    def taken_over(self) -> bool:
        """Return True if the images come from manifest.jsonl because the database is missing or unusable."""
        return not self._db.is_file

    def is_removed(self) -> bool:
        """Return True if the database was removed after this process changed it."""
        return self._db.changed and not self.path.exists()

    def end(self, run_files: Iterable[str]) -> None:
        """Write the exports, and mark the changes as complete.

        Args:
            run_files: Paths of the files for the whole run that run.json now lists.
        """
        self._export()
        self._exports.write(ERRORS_FILE, (failure.line() for failure in self.failures()))
        with self._changing() as db:
            db.execute_all("DELETE FROM ahead WHERE image = '' AND place = ?", ((place,) for place in run_files))
            db.set_meta("at_work", 0)
        self.broken_off = False

    @property
    def exported(self) -> bool:
        """Return True if manifest.jsonl has not changed since its export."""
        path = self.folder / MANIFEST_FILE
        with self._db.errors():
            record = self._db.meta("exported")
            if not isinstance(record, bytes):
                return not (self._db.images or os.path.lexists(path))
            return parse_file(parse(record)).matches(path)

    def _export(self) -> None:
        """Write manifest.jsonl, sorted by image name."""
        record = self._exports.write(MANIFEST_FILE, (line + b"\n" for line in self._entries()))
        with self._changing() as db:
            db.set_meta("exported", record)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        with self._db.lock:
            self._exports.close()
            self._db.close()

    # ---- images ----

    def __len__(self) -> int:
        return self._db.images

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and self._image(image, "1") is not None

    def get(self, image: str) -> ManifestEntry | None:
        """Return the entry of an image. Raises OutputError if the database is damaged."""
        line = self._image(image, "entry")
        with self._db.errors():
            return read_entry(unpack(line, _ENTRY_LIMIT)) if isinstance(line, bytes) else None

    def path_and_formats(self, image: str) -> tuple[str, tuple[str, ...]] | None:
        """Return the path and the formats of an image; None if no image has this name."""
        found = self._db.select("SELECT path, formats FROM image WHERE key = ?", key_of(image))
        return next(((path, split_formats(formats)) for path, formats in found), None)

    def names(self) -> list[str]:
        return self._names("1")

    def same_paths(self) -> list[tuple[str, str]]:
        """Return the images that were labelled from the same path as another, each with the first image of that path."""
        first = "SELECT path, min(key) AS key FROM image GROUP BY path HAVING count(*) > 1"
        pairs = self._db.select(
            f"SELECT image.key, first.key FROM image JOIN ({first}) AS first USING (path) "
            "WHERE image.key != first.key ORDER BY image.key"
        )
        return [(name_of(key), name_of(other)) for key, other in pairs]

    def others(self, digest: str) -> list[str]:
        """Return the images whose labels have a different digest."""
        return self._names("digest != ?", digest)

    def entries(self) -> Iterator[ManifestEntry]:
        """Yield the entries, sorted by image name. Raises OutputError if the database is damaged."""
        for line in self._entries():
            with self._db.errors():
                entry = read_entry(line)
            yield entry

    def formats(self) -> set[tuple[str, ...]]:
        return {split_formats(formats) for (formats,) in self._db.select("SELECT DISTINCT formats FROM image")}

    def holding(self, name: str) -> list[str]:
        """Return the images in a format, sorted by name."""
        return self._names(_IN_FORMAT, name)

    def added_files(self) -> Iterator[str]:
        """Yield the files of the images that this process added, relative to the output folder."""
        for line in self._entries(self._db.session) if self.changed else ():
            yield from parse(line)["files"].values()

    def summaries(self) -> Iterator[Mapping[str, object]]:
        """Yield the images' records, which include the keys of their summaries."""
        return map(parse, self._entries())

    def add(self, entry: ManifestEntry, rows: Mapping[str, Rows] | None = None, *, stale: Iterable[str] = ()) -> None:
        """Add an image, or replace it.

        Args:
            entry: The image.
            rows: Its rows for files of the whole run, by format.
            stale: Further formats whose files for the whole run must be written again, in addition to those of `rows`.
        """
        with self._db.lock:
            key = key_of(entry.image)
            with self._changing() as db:
                before = self._image(entry.image, "formats")
                line = self._insert(entry, db.session, rows or {})
                gone = ((name, key) for name in {*split_formats(before)} - {*entry.formats})
                db.execute_all("DELETE FROM row WHERE format = ? AND key = ?", gone)
                db.execute("DELETE FROM ahead WHERE image = ?", entry.image)
                db.execute("DELETE FROM failure WHERE key = ?", key)
                db.execute_all(_INSERT_STALE, ((name,) for name in stale))
            self._db.images += before is None
            self._exports.append(MANIFEST_FILE, line + b"\n")

    def replace(self, images: Iterable[tuple[ManifestEntry, Mapping[str, Rows]]]) -> None:
        """Replace all images, failures and pending files with these images and their rows."""
        with self._db.lock:
            with self._changing() as db:
                for table in ("image", "row", "stale", "failure"):
                    db.execute(f"DELETE FROM {table}")
                db.execute("DELETE FROM ahead WHERE image != ''")
                for entry, rows in images:
                    self._insert(entry, 0, rows)
                number = int(str(db.value("SELECT count(*) FROM image")))
            self._db.images = number
            self.unreadable = ""
            self._export()

    def _insert(self, entry: ManifestEntry, session: int, rows: Mapping[str, Rows]) -> bytes:
        """Insert an image and its rows, and return its line of the manifest."""
        line = json_bytes(entry.record())
        key = key_of(entry.image)
        values = (key, entry.path, entry.digest, ",".join(entry.formats), session, zlib.compress(line, 1))
        self._db.execute(_INSERT_IMAGE, *values)
        for name, lines in rows.items():
            self._db.execute(_INSERT_ROWS, name, key, pack(lines))
            self._db.execute(_INSERT_STALE, name)
        return line

    # ---- failures ----

    def fail(self, failure: Failure) -> None:
        """Record that an image failed."""
        with self._db.lock:
            with self._changing() as db:
                db.execute(_INSERT_FAILURE, key_of(failure.image), db.session, failure.line())
            self._exports.append(ERRORS_FILE, failure.line())

    def mend(self, image: str) -> None:
        """Remove the failure of an image, if it has one."""
        if self._db.select("SELECT 1 FROM failure WHERE key = ?", key_of(image)):
            with self._changing() as db:
                db.execute("DELETE FROM failure WHERE key = ?", key_of(image))

    def forget_failures(self) -> None:
        """Remove failures of earlier runs that no longer apply, see `Failure.may_last`."""
        session = self._db.session if self.changed else -1
        for (line,) in self._db.select("SELECT line FROM failure WHERE session != ?", session):
            failure = read_failure(line)
            if failure is not None and not failure.may_last:
                self.mend(failure.image)

    def failures(self) -> list[Failure]:
        """Return the failures, sorted by image name."""
        lines = self._db.select("SELECT line FROM failure ORDER BY key")
        return [failure for (line,) in lines if (failure := read_failure(line)) is not None]

    # ---- rows ----

    def rows(self, name: str, image: str) -> Rows | None:
        """Return an image's rows in a format; None if no rows are recorded. Raises OutputError if the database is damaged."""
        self._take_rows()
        with self._db.errors():
            packed = self._db.value("SELECT data FROM row WHERE format = ? AND key = ?", name, key_of(image))
            return tuple(unpack(packed, _ROWS_LIMIT).split(b"\t")[:-1]) if isinstance(packed, bytes) else None

    def has_rows(self, name: str, image: str) -> bool:
        """Return True if an image's rows in a format are recorded, even an empty list."""
        self._take_rows()
        return self._db.value("SELECT 1 FROM row WHERE format = ? AND key = ?", name, key_of(image)) is not None

    def with_rows(self, name: str) -> list[str]:
        """Return the images in a format whose rows are recorded, sorted by name."""
        self._take_rows()
        recorded = "EXISTS (SELECT 1 FROM row WHERE format = ? AND row.key = image.key)"
        return self._names(f"{_IN_FORMAT} AND {recorded}", name, name)

    def without_entry(self) -> list[str]:
        """Return the images that have rows but no entry, sorted by name."""
        self._take_rows()
        lost = "SELECT DISTINCT key FROM row WHERE key NOT IN (SELECT key FROM image) ORDER BY key"
        return [name_of(key) for (key,) in self._db.select(lost)]

    @property
    def stale(self) -> set[str]:
        """Return the formats whose files for the whole run must be written again."""
        return {name for (name,) in self._db.select("SELECT format FROM stale")}

    def mark_fresh(self, *names: str) -> None:
        """Record that the files for the whole run in these formats are up to date."""
        if written := set(names) & self.stale:
            with self._changing() as db:
                db.execute_all("DELETE FROM stale WHERE format = ?", ((name,) for name in written))

    # ---- pending files: those about to be renamed into place ----

    def note_ahead(self, files: Iterable[tuple[str, str, str]]) -> None:
        """Record pending files: path, digest or LINK, and image or ""."""
        with self._changing() as db:
            db.execute_all(_INSERT_AHEAD, files)

    def ahead(self) -> list[tuple[str, str, str]]:
        """Return the files from `note_ahead` whose images are not recorded yet."""
        return self._db.select("SELECT place, digest, image FROM ahead")

    # ---- statements ----

    def _image(self, image: str, column: str) -> object:
        return self._db.value(f"SELECT {column} FROM image WHERE key = ?", key_of(image))

    def _pages(self, columns: str, where: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the key and other columns of images, sorted by name; the caller may change images in between."""
        last = b""
        page = f"SELECT key{columns} FROM image WHERE key > ? AND {where} ORDER BY key LIMIT {_PAGE}"
        while found := self._db.select(page, last, *values):
            yield from found
            last = found[-1][0]

    def _names(self, where: str, *values: object) -> list[str]:
        return [name_of(key) for (key,) in self._pages("", where, *values)]

    def _entries(self, session: int | None = None) -> Iterator[bytes]:
        """Yield the lines of all images, or of one session's images, sorted by image name."""
        for _, line in self._pages(", entry", "1" if session is None else f"session = {session}"):
            with self._db.errors():
                data = unpack(line, _ENTRY_LIMIT)
            yield data
