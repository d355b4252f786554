"""The database of a folder: what it keeps, and when it is made again of the exports."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tipsseg.errors import OutputError
from tipsseg.store.manifest import ManifestEntry, read_entry
from tipsseg.store.state import STATE_FILE, STATE_FOLDER, State
from tipsseg.types import name_order

#: In the order of their names: folder by folder, so that "a/b" comes before "a b" and "a-b".
NAMES = ["a/b.png", "a/é.png", "a b.png", "a-b/c.png", "a.png", "b.png"]


def entry(image: str, *formats: str, digest: str = "d") -> ManifestEntry:
    record = {
        "image": image, "path": f"/photos/{image}", "size": 1, "mtime_ns": 2, "sha256": None, "digest": digest, "height": 3,
        "width": 4, "files": {}, "written": {}, "formats": formats or ("coco",), "classes": [], "ignored": 0, "objects": [],
        "background": {"pixels": 12, "share": 1.0, "confidence": 0.5}, "seconds": 0.1,
    }  # fmt: skip
    return read_entry(json.dumps(record).encode())


@contextmanager
def opened(folder: Path) -> Iterator[State]:
    with closing(State(folder)) as state:
        yield state


def filled(folder: Path, *names: str) -> None:
    """A folder that a run left which has ended."""
    with opened(folder) as state:
        for name in names or NAMES:
            state.add(entry(name), {"coco": (name.encode(), b"{}")})
        state.end(())


def test_it_keeps_what_was_added_in_the_order_of_the_names(tmp_path: Path) -> None:
    assert sorted(NAMES, key=name_order) == NAMES
    with opened(tmp_path) as state:
        for name in reversed(NAMES):
            state.add(entry(name, "png", "coco"), {"coco": (name.encode(), b"")})
        state.add(entry("b.png", "png"), {"panoptic": ()})
    with opened(tmp_path) as state:
        assert state.broken_off
        assert [each.image for each in state.entries()] == NAMES
        assert state.holding("coco") == state.with_rows("coco") == NAMES[:-1]
        assert state.rows("coco", "a/é.png") == ("a/é.png".encode(), b"")
        assert state.rows("panoptic", "b.png") == ()
        assert state.rows("panoptic", "a.png") is None
        assert state.stale == {"coco", "panoptic"}
        assert state.get("b.png") == entry("b.png", "png")
        assert state.others("x") == NAMES
        assert state.path_and_formats("b.png") == ("/photos/b.png", ("png",))
        assert state.path_and_formats("unknown.png") is None
        state.mark_fresh("coco")
        state.end(())
    with opened(tmp_path) as state:
        assert (len(state), state.stale, state.broken_off, state.exported) == (6, {"panoptic"}, False, True)
    lines = (tmp_path / "manifest.jsonl").read_bytes().splitlines()
    assert [read_entry(line).image for line in lines] == NAMES


def test_the_export_grows_line_by_line(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        for number, name in enumerate(reversed(NAMES), start=1):
            state.add(entry(name))
            assert len((tmp_path / "manifest.jsonl").read_bytes().splitlines()) == number


def test_a_folder_that_nobody_may_write_to_can_be_read(tmp_path: Path) -> None:
    filled(tmp_path)
    header = (tmp_path / STATE_FILE).read_bytes()[18:20]
    assert header == b"\x01\x01"  # no write-ahead log, which a reader would have to make
    assert [path.name for path in (tmp_path / STATE_FOLDER).iterdir()] == ["state.db"]


def _edit(folder: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(folder / STATE_FILE)) as connection, connection:
        change(connection)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "it is lost": lambda folder: (folder / STATE_FILE).unlink(),
    "it is cut off": lambda folder: os.truncate(folder / STATE_FILE, 5000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_made_again_of_the_exports(tmp_path: Path, damage: str) -> None:
    filled(tmp_path)
    DAMAGES[damage](tmp_path)
    with opened(tmp_path) as state:
        assert state.rebuilt == (damage != "it is lost")
        assert [each.image for each in state.entries()] == NAMES
        state.add(entry("c.png"))
        state.end(())
    with opened(tmp_path) as state:
        assert (len(state), state.rebuilt) == (7, False)


def test_a_bomb_is_damage(tmp_path: Path) -> None:
    filled(tmp_path, "a.png")
    bomb = zlib.compress(b" " * (65 << 20))
    _edit(tmp_path, lambda db: db.execute("UPDATE image SET entry = ?", (bomb,)))
    with opened(tmp_path) as state, pytest.raises(OutputError, match=r"state\.db: it is damaged"):
        state.get("a.png")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / STATE_FOLDER).symlink_to("../elsewhere")
    with opened(tmp_path / "out") as state, pytest.raises(OutputError, match="it is a symbolic link"):
        state.begin()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_another_process_has_is_read_by_its_exports(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.add(entry("a.png"))
        with opened(tmp_path) as reader:
            assert [each.image for each in reader.entries()] == ["a.png"]
