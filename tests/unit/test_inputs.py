"""Which files a run takes, by which names, and in which order."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import InputError, UsageError
from tipsseg.images import image_extensions
from tipsseg.inputs import Found, check_collisions, check_not_outputs, choose, find, from_list
from tipsseg.records import ImageRef

OUT = Path("nowhere")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found: Found) -> list[str]:
    return [str(ref.relative) for ref in found.refs]


def test_a_folder_is_searched_by_extension_and_sorted_by_parts(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "a/z.webp", "a-b/c.tiff", "a.b/c.jpeg", "notes.txt", "a/movie.mpg", "a/page.eps")
    found = find([tmp_path], output=OUT)
    assert names(found) == ["a/z.webp", "a-b/c.tiff", "a.b/c.jpeg", "a.png", "b.JPG"]
    assert found.skipped == 3
    assert found.root == tmp_path
    assert [ref.path for ref in found.refs] == [tmp_path / name for name in names(found)]


def test_hidden_entries_are_left_out_and_not_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/a.png", "sub/.hidden.jpg", ".DS_Store")
    found = find([tmp_path], output=OUT)
    assert names(found) == ["a.png"]
    assert found.skipped == 0


def test_a_hidden_folder_that_is_given_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".data/a.png")
    assert names(find([tmp_path / ".data"], output=OUT)) == ["a.png"]


def test_a_named_file_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    touch(tmp_path, "photo", ".hidden.xyz")
    assert names(find([tmp_path / "photo"], output=OUT)) == ["photo"]
    assert names(find([tmp_path / "photo", tmp_path / ".hidden.xyz"], output=OUT)) == [".hidden.xyz", "photo"]


@pytest.mark.parametrize(
    ("given", "root", "expected"),
    [
        (["x"], "x", ["1.png", "sub/2.png"]),
        (["x/sub"], "x/sub", ["2.png"]),
        (["x/1.png"], "x", ["1.png"]),
        (["x/1.png", "x/sub/2.png"], "x", ["1.png", "sub/2.png"]),
        (["x", "y"], "", ["x/1.png", "x/sub/2.png", "y/3.png"]),
        (["y/3.png", "x"], "", ["x/1.png", "x/sub/2.png", "y/3.png"]),
        (["x", "x/sub"], "x", ["1.png", "sub/2.png"]),
        (["x/sub", "x"], "x", ["1.png", "sub/2.png"]),
        (["x", "x"], "x", ["1.png", "sub/2.png"]),
        (["x/1.png", "x/../x/1.png"], "x", ["1.png"]),
        (["x/1.png", "x"], "x", ["1.png", "sub/2.png"]),
        (["x/../y"], "y", ["3.png"]),
    ],
)
def test_relative_paths(tmp_path: Path, given: list[str], root: str, expected: list[str]) -> None:
    touch(tmp_path, "x/1.png", "x/sub/2.png", "y/3.png")
    found = find([tmp_path / name for name in given], output=OUT)
    assert names(found) == expected
    assert found.root == tmp_path / root


def test_paths_stay_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/1.png")
    monkeypatch.chdir(tmp_path)
    found = find([Path("x")], output=OUT)
    assert [ref.path for ref in found.refs] == [Path("x/1.png")]
    assert names(find([Path()], output=OUT)) == ["x/1.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
class TestLinks:
    def test_linked_folders_are_searched_and_loops_end(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/a/1.png", "elsewhere/2.png")
        (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
        for name in ("0", "z"):  # whichever sorts first, the tree's own name wins
            (tmp_path / "in" / name).symlink_to(tmp_path / "in/a")
        (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in/itself").symlink_to(tmp_path / "in/itself")
        found = find([tmp_path / "in"], output=OUT)
        assert names(found) == ["a/1.png", "link/2.png"]

    def test_two_links_to_one_file_are_two_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "blob", "in/c.png")
        (tmp_path / "in/a.png").symlink_to(tmp_path / "blob")
        (tmp_path / "in/b.png").symlink_to(tmp_path / "blob")
        assert names(find([tmp_path / "in"], output=OUT)) == ["a.png", "b.png", "c.png"]

    def test_a_file_named_also_by_a_link_is_taken_once(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        assert names(find([tmp_path / "a.png", tmp_path / "b.png"], output=OUT)) == ["a.png"]

    def test_a_broken_link_is_taken_so_that_its_failure_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "gone")
        assert names(find([tmp_path], output=OUT)) == ["a.png"]

    def test_pipes_are_no_images(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        os.mkfifo(tmp_path / "b.png")
        found = find([tmp_path], output=OUT)
        assert names(found) == ["a.png"]
        assert found.skipped == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_undecodable_names(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (tmp_path / "\N{SNOWMAN}.png").write_bytes(b"x")
    assert names(find([tmp_path], output=OUT)) == ["caf\udce9.png", "\N{SNOWMAN}.png"]
    found = from_list([os.fsencode(tmp_path) + b"/caf\xe9.png"], output=OUT)
    assert found.refs[0].relative.name == "caf\udce9.png"


class TestOutput:
    def test_inside_the_input_it_is_not_searched(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "labels/masks/a.png", "labels/b.png", "other/labels/c.png")
        assert names(find([tmp_path], output=tmp_path / "labels")) == ["a.png", "other/labels/c.png"]
        assert names(find([tmp_path], output=tmp_path / "other/../labels")) == ["a.png", "other/labels/c.png"]

    def test_that_is_the_input_keeps_its_pictures_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "masks/a.png", "overlays/a.jpg", "sub/masks/b.png")
        assert names(find([tmp_path], output=tmp_path)) == ["a.png", "sub/masks/b.png"]

    def test_of_another_run_keeps_its_pictures_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "old/masks/a.png", "old/overlays/a.jpg", "old/b.png", "theirs/masks/c.png")
        (tmp_path / "old/run.json").write_text(json.dumps({"tool": "tipsseg", "version": "1"}, indent=2))
        (tmp_path / "theirs/run.json").write_text(json.dumps({"tool": "another"}))
        assert names(find([tmp_path], output=OUT)) == ["old/b.png", "theirs/masks/c.png"]

    def test_masks_that_are_given_are_searched(self, tmp_path: Path) -> None:
        touch(tmp_path, "masks/a.png")
        assert names(find([tmp_path / "masks"], output=tmp_path)) == ["a.png"]


class TestRefusals:
    def test_missing_paths_are_named_and_counted(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        with pytest.raises(InputError) as caught:
            find([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "a.png/c"], output=OUT)
        assert str(tmp_path / "b.png") in caught.value.message
        assert "and 1 more" in caught.value.message

    def test_nothing_found_tells_where_and_what_was_skipped(self, tmp_path: Path) -> None:
        touch(tmp_path, "x/a.txt", "x/b.csv")
        with pytest.raises(InputError) as caught:
            find([tmp_path / "x"], output=OUT)
        assert str(tmp_path / "x") in caught.value.message
        assert "skipped 2 other file" in caught.value.message
        assert ".jpg" in caught.value.hint
        with pytest.raises(InputError, match="no images"):
            find([], output=OUT)

    def test_a_name_with_a_nul_byte(self) -> None:
        with pytest.raises(InputError):
            find([Path("a\0b.png")], output=OUT)

    def test_a_folder_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "a.png", "closed/b.png")
        scandir = os.scandir

        def refuse(folder: Path) -> object:
            if folder.name == "closed":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr("tipsseg.inputs.os.scandir", refuse)
        with pytest.raises(InputError, match=r"closed.*no permission"):
            find([tmp_path], output=OUT)


class TestList:
    def test_names_begin_at_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "here/x/1.png", "here/2.png", "here/d/3.png", "here/d/no.txt", "there/4.png")
        monkeypatch.chdir(tmp_path / "here")
        there = tmp_path / "there/4.png"
        entries: list[str | bytes] = [
            b"\xef\xbb\xbfx/1.png\r\n",
            "",
            "  \n",
            "./2.png\n",
            str(tmp_path / "here/2.png"),
            "d",
            "../there/4.png",
        ]
        found = from_list(entries, output=OUT)
        assert names(found) == ["2.png", "d/3.png", "there/4.png", "x/1.png"]
        assert found.skipped == 1
        assert found.root == Path.cwd()
        outside = from_list([str(there)], output=OUT).refs[0].relative
        assert outside == PurePosixPath(*there.parts[1:])
        assert not outside.is_absolute()

    def test_an_empty_list(self) -> None:
        with pytest.raises(InputError, match="no images in the list"):
            from_list(["\n", b""], output=OUT)

    def test_spaces_and_quotes_belong_to_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, " a \"b' .png")
        monkeypatch.chdir(tmp_path)
        assert names(from_list([" a \"b' .png\n"], output=OUT)) == [" a \"b' .png"]


def refs(*relatives: str) -> list[ImageRef]:
    return [ImageRef(Path("/in") / name, PurePosixPath(name)) for name in relatives]


@pytest.mark.parametrize(
    "relatives",
    [
        ["a.jpg", "b.jpg", "c/a.jpg"],
        ["a.jpg", "A.png"],
        ["a.b.jpg", "a.jpg"],
        ["a/b.jpg", "a.jpg"],
        [],
    ],
)
def test_no_collision(relatives: list[str]) -> None:
    check_collisions(refs(*relatives))


@pytest.mark.parametrize(
    ("relatives", "named", "more"),
    [
        (["a.jpg", "a.png"], ["a.jpg", "a.png"], ""),
        (["x/a.jpg", "b.png", "x/a"], ["x/a.jpg", "x/a"], ""),
        (["a.jpg", "a.png", "b.jpg", "b.png"], ["a.jpg", "a.png"], "1 more such pair)"),
        (["a.jpg", "a.png", "a.webp", "b.jpg", "b.png"], ["a.jpg", "a.png"], "2 more such pairs)"),
        (["a.jpg", "a.png/b.jpg"], ["a.jpg", "a.png"], ""),
    ],
)
def test_collisions_name_both(relatives: list[str], named: list[str], more: str) -> None:
    with pytest.raises(InputError) as caught:
        check_collisions(refs(*relatives))
    assert str(Path("/in") / named[0]) in caught.value.message
    assert named[1] in caught.value.message
    assert more in caught.value.message
    assert ("more such" in caught.value.message) == bool(more)


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    touch(tmp_path, "out/masks/a.png", "out/overlays/b.jpg", "in/a.png")
    out = tmp_path / "in/../out"
    check_not_outputs(find([tmp_path / "in"], output=out).refs, out)
    check_not_outputs(find([tmp_path / "out"], output=tmp_path).refs, tmp_path)
    for folder in ("masks", "overlays"):
        with pytest.raises(InputError, match=rf"{folder}.*overwritten"):
            check_not_outputs(find([tmp_path / "out" / folder], output=out).refs, out)


def test_extensions() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2"} <= image_extensions()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".grib", ".txt", ""} & image_extensions()


def test_a_folder_apart_is_left_out_without_being_an_output(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "gt/a.png", "sub/gt/b.png", "scores/confusion.png", "scores/c.png", "confusion.png")
    (tmp_path / "scores/eval.json").write_text('{"tool": "tipsseg"}')
    found = find([tmp_path], output=None, apart=tmp_path / "gt")
    assert names(found) == ["a.png", "confusion.png", "scores/c.png", "sub/gt/b.png"]
    assert found.outputs == ()
    assert found.skipped == 1  # eval.json


def test_a_folder_apart_is_left_out_of_listed_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "imgs/a.png", "imgs/gt/a.png")
    monkeypatch.chdir(tmp_path)
    found = from_list([b"imgs"], output=None, apart=Path("imgs/gt"))
    assert names(found) == ["imgs/a.png"]
    assert found.outputs == ()


def test_a_record_that_is_no_text_is_no_sign_of_a_run(tmp_path: Path) -> None:
    touch(tmp_path, "theirs/masks/a.png")
    (tmp_path / "theirs/run.json").write_bytes(b"\xff\xfe\x00")
    assert names(find([tmp_path], output=OUT)) == ["theirs/masks/a.png"]


def test_a_part_of_the_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:02}.png" for number in range(40)))
    found = find([tmp_path], output=None)
    assert choose(found, None, None) == found
    assert names(choose(found, 3, None)) == ["00.png", "01.png", "02.png"]
    assert choose(found, 100, None) == choose(found, None, 100) == found
    drawn = names(choose(found, None, 5))
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn)
    assert drawn == names(choose(found, None, 5))
    assert drawn != names(found)[:5]
    assert choose(found, None, 5).root == found.root


@pytest.mark.parametrize(
    ("limit", "sample", "message"),
    [
        (0, None, "--limit 0 is too small; the least is 1"),
        (None, -1, "--sample -1 is too small; the least is 1"),
        (2, 2, "--limit and --sample exclude each other"),
    ],
)
def test_parts_that_are_none(tmp_path: Path, limit: int | None, sample: int | None, message: str) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError) as caught:
        choose(find([tmp_path], output=None), limit, sample)
    assert caught.value.message == message
