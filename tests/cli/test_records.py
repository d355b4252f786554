"""The records of an output folder at the command: what failed, which files are the program's own, links and copies."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from resuming import ALL, Run, contents, tree

NOT_OURS = "tipsseg did not write this file, or it was changed since"


def failed(output: str = "out") -> list[str]:
    """The images in errors.jsonl, in its order."""
    path = Path(output, "errors.jsonl")
    return [json.loads(line)["image"] for line in path.read_bytes().splitlines()] if path.exists() else []


# ---- errors.jsonl ----


def test_failures_stay_in_the_order_of_names_until_they_are_mended_or_gone(run: Run) -> None:
    broken = ["a/x.png", "a-b.png", "sub-\udcff.png", "z.png"]
    for name in broken:
        Path("imgs", name).parent.mkdir(exist_ok=True)
        Path("imgs", name).write_bytes(b"")
    for _ in range(2):
        run()
        assert failed() == ["a/x.png", "a-b.png", "sub-\\udcff.png", "z.png"]
    assert json.loads(Path("out/errors.jsonl").read_bytes().splitlines()[-1]) == {
        "image": "z.png",
        "path": "imgs/z.png",
        "reason": "empty file (0 bytes)",
        "hint": "Download the image again, or remove it.",
    }
    Path("imgs/a/x.png").chmod(0o755)  # a file that may be run is no folder that can be listed
    run("--limit", "1")  # of a/x.png
    assert failed() == ["a/x.png", "a-b.png", "sub-\\udcff.png", "z.png"]
    shutil.copy("imgs/a.png", "imgs/a/x.png")
    Path("imgs/a-b.png").unlink()
    run()
    assert (run.labelled, failed()) == (["a/x.png"], ["sub-\\udcff.png", "z.png"])
    shutil.copy("imgs/a.png", Path("imgs", broken[2]))
    shutil.copy("imgs/a.png", "imgs/z.png")
    run("--retry-failed")
    assert run.labelled == ["sub-\\udcff.png", "z.png"]
    assert not Path("out/errors.jsonl").exists()


#: Lines of errors.jsonl that say of no image that it failed.
NO_FAILURES = [
    b"",
    b"\xff",
    b"[]",
    b"7",
    b'{"image": "x"}',
    b'{"image": 7, "path": "x"}',
    b'{"image": "x", "path": "\\u0000"}',
]


@pytest.mark.parametrize("line", NO_FAILURES, ids=repr)
def test_lines_that_are_no_failures_are_passed_over(run: Run, line: bytes) -> None:
    Path("imgs/z.png").write_bytes(b"")
    run()
    path = Path("out/errors.jsonl")
    shutil.rmtree("out/.tipsseg")
    path.write_bytes(line + b"\n" + path.read_bytes() + path.read_bytes()[:20])  # a run was killed in a line
    run("--retry-failed")
    assert (run.code, failed()) == (1, ["z.png"])


# ---- what is the program's ----


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def linked_folder(target: str) -> Callable[[Path], object]:
    """The folder of the file is a link."""

    def put(path: Path) -> None:
        path.parent.rmdir()
        path.parent.symlink_to(target)

    return put


def a_file_for_the_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"mine")


STRANGER = "out/masks/more/new.png exists, and tipsseg did not write it for this image"
#: What is in the place of a mask that no record has, and why it is not replaced; "" where it is.
IN_THE_PLACE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, ""),
    "no folder": (lambda path: path.parent.rmdir(), ""),
    "a folder that is a link to another inside": (linked_folder("sub"), ""),
    "a mask of the same labels": (lambda path: shutil.copy("out/masks/a.png", path), STRANGER),
    "an empty file": (lambda path: path.touch(), STRANGER),
    "a link to a file inside": (link_to("../a.png"), STRANGER),
    "a link to a file outside": (link_to("../../../victim/new.png"), STRANGER),
    "a link to nothing": (link_to("nothing"), STRANGER),
    "a pipe": (os.mkfifo, STRANGER),
    "a folder": (lambda path: path.mkdir(), "a folder with this name exists"),
    "a folder that is a link out": (linked_folder("../../victim"), STRANGER),
    "a file for the folder": (a_file_for_the_folder, "one of its parent folders is a file"),
}


@pytest.mark.parametrize("case", IN_THE_PLACE)
def test_what_no_record_has_is_replaced_by_nobody(run: Run, case: str) -> None:
    put, reason = IN_THE_PLACE[case]
    Path("victim").mkdir()
    Path("victim/new.png").write_bytes(b"mine")
    run("-f", "png")
    Path("out/masks/more").mkdir()
    put(Path("out/masks/more/new.png"))
    Path("imgs/more").mkdir()
    shutil.copy("imgs/a.png", "imgs/more/new.png")
    before = files_of_labels()
    for options in ([], ["--no-resume"]):
        err = run("-f", "png", *options)
        assert run.code == (1 if reason else 0)
        assert reason in err
    if reason:
        assert files_of_labels() == before
    else:
        assert Path("out/masks/more/new.png").read_bytes() == Path("out/masks/a.png").read_bytes()
    assert Path("victim/new.png").read_bytes() == b"mine"


def files_of_labels() -> dict[str, object]:
    return {name: what for name, what in tree(".").items() if name.startswith(("imgs", "out/masks", "victim"))}


def forged(**values: object) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps({**json.loads(line), **values}).encode()


NOT_INSIDE = ["../a.png", "/a.png", "sub/../../a.png", ".", "", "./a", "a//b", "a\0b", "a/"]
#: The first line of a manifest, made into one that is no entry.
NO_ENTRIES: dict[str, Callable[[bytes], bytes]] = {
    "half a line": lambda line: line[:40],
    "no UTF-8": lambda line: b"\xff",
    "lists in lists": lambda line: b"[" * 100_000,
    "an infinite size": lambda line: line.replace(b'"size": ', b'"size": Infinity, "x": ', 1),
    **{f"the name {name!r}": forged(image=name) for name in NOT_INSIDE},
    **{f"a file {name!r}": forged(files={"png": name}) for name in ("../../victim/a.png", "/etc/hostname", "", "a/")},
    "a file without its digest": forged(written={}),
    "a digest of another length": forged(written={"png": {"bytes": 1, "mtime_ns": 1, "sha256": "c" * 63}}),
    "a size that is true": forged(written={"png": {"bytes": True, "mtime_ns": 1, "sha256": "c" * 64}}),
    "formats as a number": forged(formats=7),
}


@pytest.mark.parametrize("case", NO_ENTRIES)
def test_a_line_that_is_no_entry_is_believed_in_nothing(run: Run, case: str) -> None:
    run("-f", "png")
    Path("victim").mkdir()
    shutil.copy("out/masks/a.png", "victim/a.png")
    before, path = contents(Path("out")), Path("out/manifest.jsonl")
    shutil.rmtree("out/.tipsseg")
    first, *rest = path.read_bytes().splitlines(keepends=True)
    line = NO_ENTRIES[case](first.removesuffix(b"\n"))
    path.write_bytes(line + b"\n" + b"".join(rest))
    assert "line 1 is not a valid entry" in run.command("check", "out").out
    run("-f", "png")
    assert (run.code, run.labelled) == (0, ["a.png"])
    assert contents(Path("out")) == before
    assert Path("victim/a.png").read_bytes() == Path("out/masks/a.png").read_bytes()


# ---- links ----


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_images_are_copied_where_there_are_no_links(run: Run, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "symlink", refuse)
    run("-f", "png,yolo")
    copy, image = Path("out/yolo/images/train/a.png"), Path("imgs/a.png")
    assert (copy.is_symlink(), copy.read_bytes()) == (False, image.read_bytes())
    shutil.copy("imgs/sub/ü.bmp", image)
    run("-f", "png,yolo")
    assert (run.labelled, copy.read_bytes()) == (["a.png"], image.read_bytes())
    assert run.command("check", "out").code == 0
    copy.write_bytes(b"mine")
    shutil.copy("imgs/sub/b c.jpg", image)
    assert f"out/yolo/images/train/a.png: {NOT_OURS}" in run("-f", "png,yolo")
    assert (run.code, copy.read_bytes()) == (1, b"mine")


def test_a_link_that_cannot_be_made_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", refuse)
        assert "no space left on the device" in run("-f", "yolo")
        assert run.code == 1
    run("-f", "yolo")
    assert run.code == 0
    run("-f", "yolo", output="fresh")
    assert contents(Path("out")) == contents(Path("fresh"))


def test_links_lead_to_the_image_itself_and_move_with_it(run: Run) -> None:
    Path("real").mkdir()
    Path("imgs/a.png").rename("real/a.png")
    Path("imgs/a.png").symlink_to("../real/a.png")
    run("-f", "yolo")
    link = Path("out/yolo/images/train/a.png")
    assert link.readlink() == Path("../../../../real/a.png")
    shutil.copytree(".", "copy", symlinks=True, ignore=shutil.ignore_patterns("copy"))
    assert (Path("copy") / link).resolve() == Path("copy/real/a.png").resolve()
    for lost in (Path.unlink, lambda path: (path.unlink(), path.symlink_to("../gone.png"))):
        lost(link)
        run("-f", "yolo")
        assert (run.labelled, link.resolve()) == ([], Path("real/a.png").resolve())
    link.unlink()
    link.write_bytes(b"mine")
    run("-f", "yolo")
    assert link.read_bytes() == b"mine"


# ---- threads ----


def test_an_image_is_known_while_others_are_added(run: Run) -> None:
    """Half of the images are done, and looked up while the others are labelled and recorded by many threads."""
    for number in range(40):
        Path(f"imgs/{number:02}").mkdir()
        shutil.copy("imgs/a.png", f"imgs/{number:02}/a.png")
    run("-f", "coco,png", "--limit", "20", "--jobs", "8")
    for number in range(0, 40, 2):
        Path(f"imgs/{number:02}").rename(f"imgs/{number:02}-new")
    run("-f", "coco,png", "--jobs", "8")
    assert (run.code, len(run.labelled)) == (0, 33)
    run("-f", "coco,png", "--no-resume", "--jobs", "8")
    assert run.labelled[-len(ALL) :] == ALL
    ids = [each["id"] for each in json.loads(Path("out/annotations.json").read_bytes())["images"]]
    assert ids == list(range(1, len(ids) + 1))
