"""manifest.jsonl: entries come back as they were added, however the run ended."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.errors import OutputError
from tipsseg.store.manifest import MANIFEST_FILE, UNREADABLE_ENTRIES, Manifest, ManifestEntry, parse_entry, read_entries
from tipsseg.types import ImageRef
from tipsseg.util.files import json_bytes
from tipsseg.util.fingerprint import Fingerprint

SUMMARY = {
    "height": 4,
    "width": 3,
    "classes": [{"id": 1, "name": "tree", "pixels": 12, "share": 1.0, "confidence": 0.5}],
    "background": {"pixels": 0, "share": 0.0, "confidence": None},
    "ignored": 0,
}


def entry(image: str, digest: str = "d", seconds: float = 0.5) -> ManifestEntry:
    files = {"png": f"masks/{image}.png"}
    written = {"png": Fingerprint(99, 10**18 + 2, "c" * 64)}
    return ManifestEntry(
        image,
        f"/data/{image}",
        Fingerprint(7, 10**18 + 1, "ab"),
        digest,
        SUMMARY,
        files,
        ("png", "coco"),
        seconds,
        written,
    )


def lines(folder: Path) -> list[str]:
    """The images of the lines of the file, in their order."""
    return [json.loads(line)["image"] for line in (folder / MANIFEST_FILE).read_bytes().splitlines()]


ENTRIES: dict[str, ManifestEntry] = {
    "plain": entry("a.png"),
    "a name of many kinds of letters": entry('sub/ü "b",\t\n\\ \u2028.jpg'),
    "a file too large for a hash": dataclasses.replace(entry("a"), fingerprint=Fingerprint(2**40, 0, None)),
    "no pictures": dataclasses.replace(entry("a"), files={}, written={}, formats=("coco",)),
    "no formats": dataclasses.replace(entry("a"), files={}, written={}, formats=()),
}


@pytest.mark.parametrize("given", ENTRIES.values(), ids=ENTRIES.keys())
def test_an_entry_is_a_line_and_back(given: ManifestEntry) -> None:
    line = json_bytes(given.record())
    assert b"\n" not in line
    assert parse_entry(line) == given


def test_a_name_that_is_no_text_is_spelled_out(tmp_path: Path) -> None:
    name = ImageRef(tmp_path, PurePosixPath(os.fsdecode(b"sub/\xff\xe4.png"))).name
    manifest = Manifest(tmp_path)
    manifest.add(entry(name))
    assert manifest.get(name) == entry(name)
    manifest.close()
    assert list(read_entries(tmp_path)) == [name] == ["sub/\\udcff\\udce4.png"]


SOUND = json_bytes(entry("a").record())
NO_ENTRIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"image",
    "half a line": SOUND[:40],
    "no UTF-8": b"\xff",
    "zeros, as after a loss of power": b"\0" * 40,
    "a list": b"[]",
    "a number": b"7",
    "without digest": SOUND.replace(b'"digest"', b'"other"'),
    "without height": SOUND.replace(b'"height"', b'"other"'),
    "a size that is no number": SOUND.replace(b'"size": 7', b'"size": "x"'),
    "a size without end": SOUND.replace(b'"size": 7', b'"size": Infinity'),
    "files as a list": SOUND.replace(b'{"png": "masks/a.png"}', b"[]"),
    "formats as a number": SOUND.replace(b'["png", "coco"]', b"7"),
    "lists in lists": b"[" * 100_000,
}


@pytest.mark.parametrize("line", NO_ENTRIES.values(), ids=NO_ENTRIES.keys())
def test_what_is_no_entry_is_passed_over(tmp_path: Path, line: bytes) -> None:
    assert line != SOUND
    assert parse_entry(line) is None
    (tmp_path / MANIFEST_FILE).write_bytes(SOUND + b"\n" + line + b"\n")
    assert read_entries(tmp_path) == {"a": entry("a")}
    manifest = Manifest(tmp_path)
    assert list(manifest.entries()) == [entry("a")]
    manifest.tidy()
    manifest.close()
    assert lines(tmp_path) == ["a"]


def test_of_several_lines_the_last_one_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for seconds in (1.0, 2.0):
        manifest.add(entry("a", seconds=seconds))
    manifest.add(entry("b"))
    assert len(manifest) == 2
    assert manifest.get("a") == entry("a", seconds=2.0)
    manifest.close()
    assert read_entries(tmp_path)["a"].seconds == 2.0
    manifest = Manifest(tmp_path)
    assert manifest.get("a") == entry("a", seconds=2.0)
    manifest.tidy()
    manifest.close()
    assert lines(tmp_path) == ["a", "b"]
    assert read_entries(tmp_path)["a"].seconds == 2.0


def test_tidying_sorts_folder_by_folder_and_leaves_what_is_tidy_alone(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for image in ("b", "a/z", "a.png", "a/b/c", "a-b"):
        manifest.add(entry(image))
    assert [each.image for each in manifest.entries()] == ["a/b/c", "a/z", "a-b", "a.png", "b"]
    manifest.tidy()
    assert lines(tmp_path) == ["a/b/c", "a/z", "a-b", "a.png", "b"]
    tidy = (tmp_path / MANIFEST_FILE).stat().st_ino
    manifest.tidy()
    assert (tmp_path / MANIFEST_FILE).stat().st_ino == tidy
    manifest.add(entry("c"))  # goes on as before
    assert manifest.get("a/z") == entry("a/z")
    manifest.tidy()
    assert (tmp_path / MANIFEST_FILE).stat().st_ino == tidy
    manifest.close()
    assert lines(tmp_path)[-1] == "c"


def test_tidying_cuts_off_what_a_killed_run_left_of_a_line(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(SOUND + b"\n" + SOUND[:40])
    manifest = Manifest(tmp_path)
    manifest.tidy()
    manifest.close()
    assert (tmp_path / MANIFEST_FILE).read_bytes() == SOUND + b"\n"


def test_a_line_in_place_of_half_a_line_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(SOUND + b"\n" + json_bytes(entry("b").record())[:-5])
    manifest = Manifest(tmp_path)
    assert manifest.get("a") == entry("a")  # whoever reads this may have read ahead
    manifest.add(entry("c", "other", 12.0))
    assert manifest.get("c") == entry("c", "other", 12.0)
    manifest.close()


def test_whose_labels_were_decided_by_something_else(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for image, digest in (("a", "old"), ("b", "new"), ("c", "old"), ("c", "new")):
        manifest.add(entry(image, digest))
    assert manifest.others("new") == ["a"]
    manifest.close()


def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "new")
    assert manifest.set_aside() is None
    manifest.tidy()
    manifest.close()
    assert (manifest.get("a"), "a" in manifest, len(manifest)) == (None, False, 0)
    assert not (tmp_path / "new").exists()
    assert read_entries(tmp_path / "new") == {}


@pytest.mark.parametrize("opened", [Manifest, read_entries], ids=["Manifest", "read_entries"])
def test_a_manifest_that_cannot_be_read(tmp_path: Path, opened: Callable[[Path], object]) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()
    with pytest.raises(OutputError, match=r"manifest.jsonl: it cannot be read: Is a directory"):
        opened(tmp_path)


images = st.sampled_from(["a", "b", "sub/a", "sub/ü"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), images),
        *(st.tuples(st.just(step), st.just("")) for step in ("reopen", "torn", "strange", "tidy", "set aside")),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(steps)
def test_a_manifest_is_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    manifest = Manifest(folder)
    here: dict[str, ManifestEntry] = {}
    for number, (step, image) in enumerate(steps):
        if step == "add":
            here[image] = entry(image, seconds=float(number))
            manifest.add(here[image])
        elif step == "tidy":
            manifest.set_aside()
            manifest.tidy()
            if here:
                assert lines(folder) == [each.image for each in manifest.entries()]
        elif step == "set aside":
            manifest.set_aside()
            assert manifest.unreadable == 0
        else:
            manifest.close()
            if step != "reopen":
                with (folder / MANIFEST_FILE).open("ab") as file:
                    file.write(SOUND[: 10 + 7 * number] + b"\n" * (step == "strange"))
            manifest = Manifest(folder)
        assert {each.image: each for each in manifest.entries()} == here
        assert (len(manifest), {image for image in ("a", "b", "sub/a", "sub/ü") if image in manifest}) == (
            len(here),
            set(here),
        )
        assert set(manifest.others("another")) == set(here)
        assert read_entries(folder) == here
    manifest.close()


def test_entries_that_are_only_read_come_folder_by_folder(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for image in ("b", "a-b", "a/z"):
        manifest.add(entry(image))
    manifest.close()
    assert list(read_entries(tmp_path)) == ["a/z", "a-b", "b"]


def test_whose_image_a_name_is_elsewhere(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(entry("a"))
    assert [manifest.is_elsewhere(image, path) for image, path in (("a", "/data/a"), ("a", "/b/a"), ("b", "/b"))] == [
        False, True, False,
    ]  # fmt: skip
    assert [manifest.formats_of(image) for image in ("a", "b")] == [("png", "coco"), ()]
    manifest.close()


def test_what_was_added_since_it_was_opened(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    assert list(manifest.added_files()) == []
    for image in ("a", "b"):
        manifest.add(entry(image))
    manifest.close()
    manifest = Manifest(tmp_path)
    manifest.add(entry("b", seconds=2.0))
    manifest.add(entry("c"))
    assert list(manifest.added_files()) == ["masks/b.png", "masks/c.png"]
    manifest.close()


def test_summaries_are_of_the_last_line_of_each_image(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(dataclasses.replace(entry("a"), summary={**SUMMARY, "height": 99}))
    for image in ("b", "a"):
        manifest.add(entry(image))
    size = {key: SUMMARY[key] for key in ("height", "width")}
    assert [{key: each[key] for key in size} for each in manifest.summaries()] == [size, size]
    manifest.close()


def test_that_it_was_removed_meanwhile_is_known(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(entry("a"))
    assert not manifest.is_removed()
    (tmp_path / MANIFEST_FILE).rename(tmp_path / "away")
    assert manifest.is_removed()
    (tmp_path / MANIFEST_FILE).touch()  # another of the same name
    assert manifest.is_removed()
    manifest.close()


def test_lines_that_are_no_entries_are_kept_in_another_file(tmp_path: Path) -> None:
    strange = [b"", b"image", b"\xff", b'{"image": "a"}', json_bytes({**entry("a").record(), "image": "../a"})]
    for number in (1, 2):  # more of them join those that are there
        with (tmp_path / MANIFEST_FILE).open("ab") as file:
            file.write(b"".join(line + b"\n" for line in (SOUND, *strange)))
        manifest = Manifest(tmp_path)
        assert manifest.unreadable == len(strange)
        assert manifest.set_aside() == tmp_path / UNREADABLE_ENTRIES
        assert manifest.unreadable == 0
        assert manifest.set_aside() is None
        assert list(manifest.entries()) == [entry("a")]
        manifest.close()
        assert (tmp_path / MANIFEST_FILE).read_bytes() == SOUND + b"\n"
        assert (tmp_path / UNREADABLE_ENTRIES).read_bytes() == number * b"".join(line + b"\n" for line in strange)


NOT_INSIDE = ["../a", "/a", "a/../../b", ".", "", "./a", "a//b", "a\0b", "a/"]


@pytest.mark.parametrize("name", NOT_INSIDE, ids=ascii)
@pytest.mark.parametrize("change", ["image", "file"])
def test_names_that_leave_the_folder_are_in_no_entry(name: str, change: str) -> None:
    record = entry("a").record()
    record.update({"image": name} if change == "image" else {"files": {"png": name}})
    assert parse_entry(json_bytes(record)) is None


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"png": None},
        {"png": {"bytes": 1, "mtime_ns": 1, "sha256": None}},
        {"png": {"bytes": 1, "mtime_ns": 1, "sha256": "c" * 63}},
        {"png": {"bytes": "1", "mtime_ns": 1, "sha256": "c" * 64}},
        {"png": {"bytes": True, "mtime_ns": 1, "sha256": "c" * 64}},
        {"hf": {"bytes": 1, "mtime_ns": 1, "sha256": "c" * 64}},
    ],
    ids=str,
)
def test_files_without_their_digests_are_in_no_entry(written: object) -> None:
    assert parse_entry(json_bytes({**entry("a").record(), "written": written})) is None


def test_what_its_files_may_be_replaced_by() -> None:
    assert entry("a").replaceable == {("masks/a.png", "c" * 64)}


CALLS = 20_000


def test_an_entry_is_found_while_others_are_added(tmp_path: Path) -> None:
    """The reading of one thread does not move the position that another reads or writes at."""
    manifest, count = Manifest(tmp_path), 50
    for number in range(count):
        manifest.add(entry(f"image {number}"))
    lost: list[str] = []
    done = threading.Event()

    def ask() -> None:
        for number in range(CALLS):
            name = f"image {number % count}"
            found = manifest.get(name)
            if found is None or found.image != name:
                lost.append(name)
        done.set()

    asking = threading.Thread(target=ask)
    asking.start()
    added = 0
    while not done.is_set():
        name = f"image {added % count}"
        manifest.add(entry(name, seconds=float(added)))
        found = manifest.get(name)  # as with_other_formats does
        if found is None or found.image != name:
            lost.append(name)
        added += 1
        done.wait(0.001)
    asking.join()
    manifest.close()
    assert lost == []
