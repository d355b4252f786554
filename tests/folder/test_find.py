"""Which files a run takes, by which names, and in which order."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import InputError
from tipsseg.folder import find as finding
from tipsseg.folder.find import Ignored, check_not_outputs, found_images, is_output
from tipsseg.folder.names import NameKey, OutputNames, exact, without_case
from tipsseg.formats import FORMATS
from tipsseg.images.decoders import image_extensions
from tipsseg.images.finding import Found, choose_images, find_in_list
from tipsseg.types import Failed, ImageRef

OUT = Path("nowhere")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found: Found) -> list[str]:
    return [str(ref.relative) for ref in found.refs]


def told(images: Iterator[ImageRef | Failed]) -> list[str]:
    """The names in a stream; of those that are refused with what the command line says."""
    return [image.name + " ! " + image.error.message if isinstance(image, Failed) else image.name for image in images]


def test_a_folder_is_searched_by_extension_and_sorted_folder_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "a/z.webp", "a-b/c.tiff", "a.b/c.jpeg", "notes.txt", "a/movie.mpg", "a/page.eps")
    found = find([tmp_path], output=OUT)
    assert names(found) == ["a/z.webp", "a-b/c.tiff", "a.b/c.jpeg", "a.png", "b.JPG"]
    assert str(found.skipped) == "1 .eps, 1 .mpg, 1 .txt"
    assert found.root == tmp_path
    assert [ref.path for ref in found.refs] == [tmp_path / name for name in names(found)]


def test_hidden_entries_are_left_out_and_not_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/a.png", "sub/.hidden.jpg", ".DS_Store")
    found = find([tmp_path], output=OUT)
    assert names(found) == ["a.png"]
    assert not found.skipped


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

    def test_a_file_named_also_by_a_link_is_taken_once(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
        assert names(find([tmp_path / "a.png", tmp_path / "b.png"], output=OUT)) == ["a.png"]


class TestOutput:
    def test_inside_the_input_it_is_not_searched(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "labels/masks/a.png", "labels/b.png", "other/labels/c.png")
        assert names(find([tmp_path], output=tmp_path / "labels")) == ["a.png", "other/labels/c.png"]
        assert names(find([tmp_path], output=tmp_path / "other/../labels")) == ["a.png", "other/labels/c.png"]

    def test_an_output_folder_that_is_the_input_keeps_its_pictures_out(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "masks/a.png", "overlays/a.jpg", "sub/masks/b.png")
        assert names(find([tmp_path], output=tmp_path)) == ["a.png", "sub/masks/b.png"]

    def test_pictures_of_another_run_are_left_out(self, tmp_path: Path) -> None:
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
        assert "; skipped there: 1 .csv, 1 .txt" in caught.value.message
        assert ".jpg" in caught.value.hint
        with pytest.raises(InputError, match="no images"):
            find([], output=OUT)


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
        found = find_in_list(entries, Path.cwd(), Ignored(OUT))
        assert names(found) == ["2.png", "d/3.png", "there/4.png", "x/1.png"]
        assert str(found.skipped) == "1 .txt"
        assert found.root == Path.cwd()
        outside = find_in_list([str(there)], Path.cwd(), Ignored(OUT)).refs[0].relative
        assert outside == PurePosixPath(*there.parts[1:])
        assert not outside.is_absolute()

    def test_an_empty_list(self) -> None:
        with pytest.raises(InputError, match="no images in the list"):
            find_in_list(["\n", b""], Path.cwd(), Ignored(OUT))


class TestStream:
    def test_images_come_in_the_order_of_the_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "x/2.png", "x/1.png", "x/s/3.png", "x/no.txt", "b.png", "a", "there/4.png", "x/.hidden/5.png")
        monkeypatch.chdir(tmp_path)
        entries: list[str | bytes] = [
            b"\xef\xbb\xbfb.png\r\n",
            "",
            "  \n",
            "x/s",
            "./x\n",
            "x/../b.png",
            "gone.png",
            "a",
            str(tmp_path / "a"),
            "x",
        ]
        images = list(stream(entries, output=OUT))
        assert told(iter(images)) == ["b.png", "x/s/3.png", "x/1.png", "x/2.png", "gone.png", "a"]
        assert images[3] == ImageRef(Path("x/2.png"), PurePosixPath("x/2.png"))

    def test_no_image_waits_for_the_next_entry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "a.png", "s/b.png", "s/c.png")
        monkeypatch.chdir(tmp_path)
        given: list[str] = []

        def entries() -> Iterator[str]:
            for entry in ("a.png", "n\0.png", "s", "gone.png"):
                given.append(entry)
                yield entry
            raise AssertionError("more was asked for than was taken")

        images = stream(entries(), output=OUT)
        assert given == []
        for count in (1, 2, 3, 3, 4):
            next(images)
            assert len(given) == count

    def test_a_list_without_images_is_refused_at_its_end(self, tmp_path: Path) -> None:
        touch(tmp_path, "notes.txt")
        with pytest.raises(InputError, match=r"no images in the list(?m:$)"):
            list(stream([b"\n", ""], output=OUT))
        with pytest.raises(InputError, match=r"no images in the list; skipped there: 1 \.txt"):
            list(stream([str(tmp_path)], output=OUT))
        assert [each.name for each in stream([str(tmp_path), "gone.png"], output=OUT)] == ["gone.png"]

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
    def test_pictures_of_this_run_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "out/masks/a.png", "out/b.png", "out/masks-2/c.png", "in/masks/d.png")
        (tmp_path / "in/link.png").symlink_to(tmp_path / "out/masks/a.png")
        monkeypatch.chdir(tmp_path)
        entries = ["out/masks/a.png", "in", "out/masks", "out/overlays/gone.jpg", "out", "out/Confidence/e.png"]
        written = "which this run writes to"
        expected = [
            f"out/masks/a.png ! out/masks/a.png: an input in out/masks, {written}",
            f"in/link.png ! in/link.png: an input in out/masks, {written}",
            "in/masks/d.png",
            f"out/overlays/gone.jpg ! out/overlays/gone.jpg: an input in out/overlays, {written}",
            "out/b.png",
            "out/masks-2/c.png",
        ]
        assert told(stream(entries, output=Path("out"))) == [*expected, "out/Confidence/e.png"]
        assert told(stream(entries, output=Path("out"), key=without_case)) == [
            *expected,
            f"out/Confidence/e.png ! out/Confidence/e.png: an input in out/confidence, {written}",
        ]
        assert len(told(stream(["out/masks/a.png"], output=None))) == 1

    def test_an_output_folder_that_is_made_meanwhile_is_not_searched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "a.png", "b.png")
        monkeypatch.chdir(tmp_path)
        images = stream(["a.png", "."], output=Path("out"))
        assert told(iter([next(images)])) == ["a.png"]
        touch(tmp_path, "out/masks/a.png", "out/c.png")
        assert told(images) == ["b.png"]


Arrange = Callable[[Path], None]


def with_links(links: dict[str, str], *files: str) -> Arrange:
    def arrange(top: Path) -> None:
        touch(top, *files)
        for name, to in links.items():
            (top / name).symlink_to(top / to)

    return arrange


def nothing(top: Path) -> None:
    pass


# name -> what is there; the paths that are given; what `stream` makes of them; and what `find`: the names, or the error
ODD: dict[str, tuple[Arrange, list[str | bytes], list[str], list[str] | str]] = {
    "link to itself": (
        with_links({"loop.png": "loop.png"}), ["loop.png"], ["loop.png ! loop.png: Too many levels of symbolic links"],
        "loop.png: Too many levels of symbolic links",
    ),
    "NUL": (nothing, ["a\0b.png"], ["a\0b.png ! a\0b.png: a name with a NUL byte"], "a\0b.png: a name with a NUL byte"),
    "two normal forms": (
        lambda top: touch(top, "in/\u00e9.png", "in/e\u0301.png"), ["in", "in/\u00e9.png"],
        ["in/e\u0301.png", "in/\u00e9.png"], ["e\u0301.png", "\u00e9.png"],
    ),
}  # fmt: skip


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are other there")
class TestOdd:
    @pytest.mark.parametrize("name", ODD)
    def test_missing_names_in_a_stream(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        arrange, entries, expected, _ = ODD[name]
        arrange(tmp_path)
        monkeypatch.chdir(tmp_path)
        assert told(stream(entries, output=OUT)) == expected

    @pytest.mark.parametrize("name", ODD)
    def test_missing_names_as_arguments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        arrange, entries, _, expected = ODD[name]
        arrange(tmp_path)
        monkeypatch.chdir(tmp_path)
        paths = [Path(os.fsdecode(entry)) for entry in entries]
        if isinstance(expected, list):
            assert names(find(paths, output=OUT)) == expected
        else:
            with pytest.raises(InputError) as caught:
                find(paths, output=OUT)
            assert caught.value.message == expected


def stream(entries: Iterable[str | bytes], *, output: Path | None, key: NameKey = exact) -> Iterator[ImageRef | Failed]:
    return finding.stream_images(entries, output, OutputNames(key, "stem", FORMATS))


def find(paths: Sequence[Path], *, output: Path | None) -> Found:
    return found_images(paths, None, Ignored(output))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_inputs_are_not_overwritten_through_links(tmp_path: Path) -> None:
    touch(tmp_path, "out/a.png", "in/b.png", "disk/c.png")
    (tmp_path / "out/masks").symlink_to(tmp_path / "disk")
    (tmp_path / "in/c.png").symlink_to(tmp_path / "out/masks/c.png")
    for given in ("disk", "in/c.png"):
        found = find([tmp_path / given], output=tmp_path / "out")
        with pytest.raises(InputError, match=r"c\.png: an input in .*masks, which"):
            check_not_outputs(found.refs, tmp_path / "out")
    check_not_outputs(find([tmp_path / "in/b.png"], output=tmp_path / "out").refs, tmp_path / "out")


@pytest.mark.parametrize(
    ("record", "tool", "expected"),
    [
        ("run.json", "tipsseg", True),
        ("sub/run.json", "tipsseg", False),
        ("run.json", "another", False),
        ("notes.json", "tipsseg", False),
    ],
)
def test_output_folders_are_recognised(tmp_path: Path, record: str, tool: str, expected: bool) -> None:
    touch(tmp_path, "masks/a.png", record)
    (tmp_path / record).write_text(json.dumps({"tool": tool}))
    assert is_output(tmp_path) is expected
    if expected:
        touch(tmp_path, "b.png")
        assert names(find([tmp_path], output=OUT)) == ["b.png"]


def test_extensions() -> None:
    assert {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2"} <= image_extensions()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".grib", ".txt", ""} & image_extensions()


def test_a_part_of_the_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:02}.png" for number in range(40)))
    found = find([tmp_path], output=None)
    assert choose_images(found, None) == choose_images(found, 100) == found
    drawn = names(choose_images(found, 5))
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn)
    assert drawn == names(choose_images(found, 5))
    assert drawn != names(found)[:5]
    assert choose_images(found, 5).root == found.root
