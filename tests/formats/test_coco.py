"""annotations.json is read back as it was written, and anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.formats.coco import FILE_NAME
from tipsseg.store.writing import RunContext, RunFile, rows_file
from tipsseg.util.files import json_bytes
from tipsseg.vocabulary.vocabulary import make_vocabulary


def file_in(folder: Path) -> RunFile:
    classes = make_vocabulary(["tree", "sky"], "none").classes
    file = rows_file("coco", RunContext(output=folder, state=folder, classes=classes, info={"version": "0"}))
    assert file is not None
    return file


def write(folder: Path, records: dict[str, Rows]) -> Path:
    file = file_in(folder)
    file.write(list(records), records.__getitem__)
    return folder / FILE_NAME


def read(path: Path) -> Iterator[tuple[str, Rows]]:
    return FORMATS["coco"].read_rows(path, ())


def record_of(name: str, *annotations: int) -> Rows:
    """As the format makes them, but for the contents of annotations."""
    image = {"file_name": name, "width": 3, "height": 2, "license": 1}
    return tuple(map(json_bytes, (image, *({"category_id": 1, "area": number} for number in annotations))))


A, B, C = record_of("a.png", 7, 8), record_of("sub/b.png"), record_of("sub/ü }],\n.png", 9)


def test_images_come_with_their_annotations(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.png": A, "sub/b.png": B, "sub/ü }],\n.png": C})
    assert list(read(path)) == [("a.png", A), ("sub/b.png", B), ("sub/ü }],\n.png", C)]


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.lists(st.integers(0, 99), max_size=3), max_size=5))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, given: dict[str, list[int]]) -> None:
    records = {name: record_of(name, *annotations) for name, annotations in given.items()}
    path = write(tmp_path_factory.mktemp("coco"), records)
    assert list(read(path)) == list(records.items())
    again = write(tmp_path_factory.mktemp("again"), dict(read(path)))
    assert again.read_bytes() == path.read_bytes()


Change = Callable[[bytes], bytes]
ANNOTATIONS, MISPLACED = "'annotations'", "which is not listed or out of order"
NO_FILES: dict[str, tuple[Change, str]] = {
    "nothing": (lambda data: b"", f"the list {ANNOTATIONS} is incomplete"),
    "in one line": (lambda data: json.dumps(json.loads(data)).encode(), f"the list {ANNOTATIONS} is incomplete"),
    "with indents": (lambda data: json.dumps(json.loads(data), indent=1).encode(), f"the list {ANNOTATIONS} is incomplete"),
    "cut off in the images": (lambda data: data[: data.index(b"sub/b")], f"the list {ANNOTATIONS} is incomplete"),
    "cut off after an image": (lambda data: data[: data.index(b'{"id": 2, "file')], f"the list {ANNOTATIONS} is incomplete"),
    "cut off after the images": (lambda data: data[: data.index(b'"annotations"')], f"the list {ANNOTATIONS} is incomplete"),
    "cut off after an annotation": (lambda data: data[: data.index(b'{"id": 2, "image')], f"the list {ANNOTATIONS} is incomplete"),
    "cut off in an annotation": (lambda data: data[: data.index(b'8}')], "unexpected record"),
    "a comma too few": (lambda data: data.replace(b'7},', b'7}'), f"missing or surplus comma in the list {ANNOTATIONS}"),
    "a comma too many": (lambda data: data.replace(b'9}\n', b'9},\n'), f"missing or surplus comma in the list {ANNOTATIONS}"),
    "no records": (lambda data: data.replace(b'{"id": 1, "f', b'["id", 1, "f'), "unexpected record"),
    "an id as text": (lambda data: data.replace(b'"id": 2, "f', b'"id": "2", "f'), "unexpected record"),
    "a name that is a number": (lambda data: data.replace(b'"a.png"', b"7"), "`file_name` is 7"),
    "an annotation of no image": (lambda data: data.replace(b'"image_id": 3', b'"image_id": 4'), f"image 4, {MISPLACED}"),
    "an image in two places": (
        lambda data: data.replace(b'"id": 1, "image_id": 1', b'"id": 1, "image_id": 3'), f"image 1, {MISPLACED}"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), NO_FILES.values(), ids=NO_FILES.keys())
def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path, change: Change, reason: str) -> None:
    path = write(tmp_path, {"a.png": A, "sub/b.png": B, "sub/ü }],\n.png": C})
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=reason):
        list(read(path))


@pytest.mark.parametrize("end", [b"", b'"images": [', b"\n]", b"sub/b"], ids=str)
def test_images_that_are_cut_off(tmp_path: Path, end: bytes) -> None:
    path = write(tmp_path, {"a.png": A, "sub/b.png": B})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(end, data.index(b'"images"') if end else 0)])
    with pytest.raises(ValueError, match=r"is incomplete|unexpected record"):
        list(read(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path / FILE_NAME))
