"""What exists is replaced or removed only if the records say that the program wrote it, and its content is still that."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from tipsseg.errors import OutputError
from tipsseg.types import ImageRef
from tipsseg.util.append_log import AppendLog
from tipsseg.util.fingerprint import Fingerprint, fingerprint
from tipsseg.util.ownership import LINK, LOG_PREFIX, Ownership, digest_of, write_ahead_logs

PLACE = "masks/a.png"
NEW, OLD, OTHER = b"what is to be written", b"what an earlier run wrote", b"a person's work"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder, beside a file and a folder that are not the program's."""
    (tmp_path / "out/masks").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/a.png").write_bytes(OTHER)
    (tmp_path / "image.png").write_bytes(b"image")
    return tmp_path / "out"


def tree(folder: Path) -> dict[str, object]:
    """All that is below a folder: contents, where links lead to, or what else it is."""

    def what(path: Path) -> object:
        if path.is_symlink():
            return path.readlink()
        return path.read_bytes() if path.is_file() else "folder" if path.is_dir() else "other"

    return {str(path.relative_to(folder)): what(path) for path in sorted(folder.rglob("*"))}


def without_logs(folder: Path) -> dict[str, object]:
    return {name: what for name, what in tree(folder).items() if LOG_PREFIX not in name}


def nobody(image: str, place: str, digest: str) -> bool:
    """Records that have nothing."""
    return False


def loaded(out: Path, written: Mapping[str, Fingerprint] | None = None, *, everything: bool = False) -> Ownership:
    """As a run takes it up."""
    ownership = Ownership(out, out)
    ownership.load(written or {}, lambda *_: everything)
    return ownership


def image_ref(out: Path, *known: bytes) -> ImageRef:
    replaceable = frozenset((PLACE, digest(each)) for each in known)
    return ImageRef(out.parent / "image.png", PurePosixPath("a.png"), replaceable=replaceable)


def pending(out: Path, *lines: object) -> None:
    """A write-ahead log of a run that was killed."""
    (out / f"{LOG_PREFIX}killed").write_text("".join(json.dumps(line) + "\n" for line in lines))


# ---- the rule ----


def then(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    """One step after the other, each with the same path."""

    def take(path: Path) -> None:
        for step in steps:
            step(path)

    return take


@dataclass(frozen=True)
class Case:
    """What is there, what the records say of it, and whether it may be replaced.

    there    makes what is in the place of the file
    known    contents that the manifest has of the image
    logged   contents that a write-ahead log has of the place
    run      content that run.json has of the place
    reason   why it may not be; None where it may be
    """

    there: Callable[[Path], object]
    known: tuple[bytes, ...] = ()
    logged: tuple[bytes, ...] = ()
    run: bytes | None = None
    reason: str | None = None


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def folder_link(path: Path) -> None:
    """The folder of the file is a link out of the output folder."""
    path.parent.rmdir()
    path.parent.symlink_to("../victim")


def link_inside(path: Path) -> None:
    """The folder of the file is a link to another place in the output folder."""
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")
    path.write_bytes(OLD)


NOT_OURS = "tipsseg did not write the file that is there, or the file was changed since"
LEADS_OUT = "a link leads out of the output folder, to "

CASES: dict[str, Case] = {
    "nothing is there": Case(lambda path: None),
    "no folder is there": Case(lambda path: path.parent.rmdir()),
    "the same content": Case(holding(NEW)),
    "as the manifest has it": Case(holding(OLD), known=(b"x", OLD)),
    "as run.json has it": Case(holding(OLD), run=OLD),
    "as a run that was killed wrote it": Case(holding(OLD), logged=(b"x", OLD)),
    "a folder that is a link to another inside": Case(link_inside, known=(OLD,)),
    "nobody knows it": Case(holding(OTHER), reason=NOT_OURS),
    "an empty file": Case(holding(b""), known=(OLD,), reason=NOT_OURS),
    "changed since the manifest": Case(holding(OTHER), known=(OLD,), reason=NOT_OURS),
    "changed since run.json": Case(holding(OTHER), run=OLD, reason=NOT_OURS),
    "changed since a run was killed": Case(holding(OTHER), logged=(OLD,), reason=NOT_OURS),
    "a link to a file inside": Case(
        then(lambda path: path.with_name("b.png").write_bytes(OLD), lambda path: path.symlink_to("b.png")),
        known=(OLD,),
        reason=NOT_OURS,
    ),
    "a link to a file outside": Case(link_to("../../victim/a.png"), known=(OTHER,), reason=NOT_OURS),
    "a link to nothing": Case(link_to("nothing"), known=(OLD,), reason=NOT_OURS),
    "a link to a file of the content that is to be written": Case(
        then(lambda path: path.with_name("b.png").write_bytes(NEW), lambda path: path.symlink_to("b.png")),
        reason=NOT_OURS,
    ),
    "a folder": Case(lambda path: path.mkdir(), known=(OLD,), reason="a folder has this name"),
    "a pipe": Case(os.mkfifo, known=(OLD,), reason=NOT_OURS),
    "a folder that is a link out": Case(folder_link, known=(OTHER,), reason=LEADS_OUT),
    "a file in the place of the folder": Case(
        then(lambda path: path.parent.rmdir(), lambda path: path.parent.write_bytes(OTHER)),
        known=(OLD,),
        reason="one of its parent folders is a file",
    ),
}


@pytest.mark.parametrize("way", ["an image's file", "a run's file", "a copy"])
@pytest.mark.parametrize("case", CASES)
def test_what_may_be_replaced(out: Path, case: str, way: str) -> None:
    given, path = CASES[case], out / "masks/a.png"
    given.there(path)
    pending(out, *(["b.png", "masks/a.png", digest(data)] for data in given.logged))
    written = {} if given.run is None else {"masks/a.png": Fingerprint(len(given.run), 1, digest(given.run))}
    ownership = loaded(out, written)
    ref = image_ref(out, *given.known)
    before = without_logs(out.parent)

    def write() -> None:
        if way == "an image's file":
            assert ownership.write(ref, path, NEW) == fingerprint(path)
        elif way == "a copy":
            (out.parent / "source").write_bytes(NEW)
            with (out.parent / "source").open("rb") as source:
                ownership.copy(ref, source, path, (7, 8))
        else:
            ownership.write_run_file(path, NEW)

    allowed = given.reason is None and (way != "a run's file" or not given.known)
    if allowed:
        write()
        if way == "a copy":
            assert path.stat().st_mtime_ns == 8
        assert path.read_bytes() == NEW
        write()  # what it wrote is its own
    else:
        with pytest.raises(OutputError) as caught:
            write()
        assert given.reason is None or given.reason in caught.value.reason
        assert (caught.value.path, caught.value.only_this) == (path, True)
        assert caught.value.hint
        (out.parent / "source").unlink(missing_ok=True)
        assert without_logs(out.parent) == before
    assert (out.parent / "victim/a.png").read_bytes() == OTHER


@pytest.mark.parametrize("case", [case for case in CASES if case != "a file in the place of the folder"])
def test_what_may_be_removed(out: Path, case: str) -> None:
    given, path = CASES[case], out / "masks/a.png"
    given.there(path)
    pending(out, *(["b.png", "masks/a.png", digest(data)] for data in given.logged))
    written = {} if given.run is None else {"masks/a.png": Fingerprint(len(given.run), 1, digest(given.run))}
    ownership = loaded(out, written)
    before = tree(out.parent)
    digests = {*map(digest, given.known), *([digest(NEW)] if case == "the same content" else [])}
    if given.reason == LEADS_OUT:
        with pytest.raises(OutputError, match=LEADS_OUT):
            ownership.remove(path, digests)
    elif case == "a folder":
        with pytest.raises(OutputError, match="a folder has this name"):
            ownership.remove(path, digests)
    else:
        assert ownership.remove(path, digests) is (given.reason is None)
    if given.reason is None:
        assert not os.path.lexists(path)
    else:
        assert tree(out.parent) == before


def test_an_image_that_was_copied_into_the_folder_is_no_file_of_the_program(out: Path) -> None:
    """The digest of what the input was counts for copies of it in the place of links alone."""
    (out / "masks/a.png").write_bytes(b"image")
    ref = replace(image_ref(out), former=digest(b"image"))
    with pytest.raises(OutputError, match=NOT_OURS):
        loaded(out).write(ref, out / "masks/a.png", NEW)


@pytest.mark.parametrize("there", [os.mkfifo, link_to("nothing"), link_to("../../victim/a.png")])
def test_what_is_no_regular_file_has_no_digest(out: Path, there: Callable[[Path], object]) -> None:
    """So that no digest lets it be replaced, as where a caller asks for what is there and may take the answer for one."""
    path = out / "masks/a.png"
    there(path)
    assert digest_of(path) == ""
    ownership, before = loaded(out), tree(out.parent)
    ref = ImageRef(out.parent / "image.png", PurePosixPath("a.png"), replaceable=frozenset({(PLACE, "")}))
    with pytest.raises(OutputError, match=NOT_OURS):
        ownership.write(ref, path, NEW)
    assert not ownership.remove(path, {""})
    assert tree(out.parent) == before


# ---- files of the whole run ----


def test_what_the_record_of_a_run_has(out: Path) -> None:
    ownership = loaded(out)
    for name in ("b.json", "a.json"):
        ownership.write_run_file(out / name, name.encode())
    ownership.write(image_ref(out), out / "masks/a.png", NEW)
    assert list(ownership.record()) == ["a.json", "b.json"]
    found = fingerprint(out / "a.json")
    assert ownership.record()["a.json"] == {"bytes": 6, "mtime_ns": found.mtime_ns, "sha256": digest(b"a.json")}


def test_whether_a_file_of_the_run_is_as_it_was(out: Path) -> None:
    path = out / "a.json"
    ownership = loaded(out)
    assert ownership.is_unchanged(path)  # there is none
    ownership.write_run_file(path, OLD)
    before = path.stat()
    for data, same in ((OLD, True), (OTHER, False), (OLD[:-1] + b"!", False), (OLD, True)):
        path.write_bytes(data)
        assert ownership.is_unchanged(path) is same
        if same:
            ownership.refuse_changed(path)
        else:
            with pytest.raises(OutputError, match=NOT_OURS):
                ownership.refuse_changed(path)
    path.unlink()
    path.symlink_to("../victim/a.png")
    assert not ownership.is_unchanged(path)
    path.unlink()
    (out / "copy").write_bytes(OLD)
    os.utime(out / "copy", ns=(before.st_atime_ns, before.st_mtime_ns))
    path.symlink_to("copy")  # of that size and time
    assert not ownership.is_unchanged(path)


def test_files_of_the_run_are_removed_but_those_that_were_changed(out: Path) -> None:
    ownership = loaded(out)
    for name in ("a.json", "b.json", "c.json"):
        ownership.write_run_file(out / name, OLD)
    (out / "b.json").write_bytes(OTHER)
    (out / "c.json").unlink()
    ownership.remove_run_files()
    assert without_logs(out) == {"b.json": OTHER, "masks": "folder"}
    assert ownership.record() == {}


def test_a_file_of_the_run_that_could_not_be_written_is_not_its_own(out: Path) -> None:
    ownership = loaded(out)
    with suppress(RuntimeError), ownership.replacing(out / "a.json") as temporary:
        temporary.write_bytes(NEW)
        raise RuntimeError
    assert ownership.record() == {}
    assert without_logs(out) == {"masks": "folder"}


# ---- write-ahead logs ----


def test_what_is_written_is_noted_before_it_is_in_place(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[list[object]] = []
    plain = Path.replace

    def replace(self: Path, target: Path) -> Path:
        (log,) = write_ahead_logs(out)
        noted.append(json.loads(log.read_bytes().splitlines()[-1]))
        assert not os.path.lexists(target)
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    ownership, ref = loaded(out), image_ref(out)
    ownership.write(ref, out / "masks/a.png", NEW)
    ownership.write_run_file(out / "a.json", OLD)
    ownership.link(ref, out / "links/a.png", ours=False)
    assert noted == [
        ["a.png", "masks/a.png", digest(NEW)],
        ["", "a.json", digest(OLD)],
        ["a.png", "links/a.png", LINK],
    ]


def test_without_a_run_nothing_is_noted(out: Path) -> None:
    Ownership(out, out).write(image_ref(out), out / "masks/a.png", NEW)
    assert write_ahead_logs(out) == []


def test_what_a_killed_run_wrote_is_known_until_a_record_has_it(out: Path) -> None:
    killed, ref = loaded(out), image_ref(out)
    assert not killed.broken_off
    killed.write(ref, out / "masks/a.png", OLD)
    killed.write_run_file(out / "a.json", OLD)
    killed.claim(out / "errors.jsonl")

    nobody_has_it = loaded(out)
    assert nobody_has_it.is_pending(out / "masks/a.png")
    assert not nobody_has_it.is_pending(out / "masks/b.png")
    nobody_has_it.end(nobody)
    (log,) = write_ahead_logs(out)  # what no record has stays
    assert ["a.png", "masks/a.png", digest(OLD)] in [json.loads(line) for line in log.read_bytes().splitlines()]

    recorded = loaded(out, everything=True)
    assert recorded.broken_off
    assert not recorded.is_pending(out / "masks/a.png")
    recorded.write_run_file(out / "a.json", OLD)
    recorded.end(lambda *_: True)
    assert write_ahead_logs(out) == []
    assert not loaded(out).broken_off


def test_a_file_of_the_run_that_a_killed_run_put_in_place_is_its_own_in_the_next(out: Path) -> None:
    """Though the next has nothing to write into it."""
    loaded(out).write_run_file(out / "a.json", OLD)
    ownership = loaded(out)
    assert ownership.is_unchanged(out / "a.json")
    ownership.end(nobody)
    assert list(ownership.record()) == ["a.json"]
    assert write_ahead_logs(out) == []


def test_a_pending_file_that_was_changed_is_nobodys(out: Path) -> None:
    loaded(out).write(image_ref(out), out / "masks/a.png", OLD)
    (out / "masks/a.png").write_bytes(OTHER)
    ownership = loaded(out)
    assert not ownership.is_pending(out / "masks/a.png")
    with pytest.raises(OutputError, match=NOT_OURS):
        ownership.write(image_ref(out), out / "masks/a.png", NEW)


def test_lines_of_a_damaged_log_are_passed_over(out: Path) -> None:
    sound = json.dumps(["a.png", "masks/a.png", digest(OLD)]).encode()
    strange = [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b"7",
        b'["a"]',
        b'["a", 7, "x"]',
        b"[" * 100_000,
        b"\0" * 40,
        b'["a","b","c","d"]',
    ]
    (out / f"{LOG_PREFIX}killed").write_bytes(b"\n".join((*strange, sound, *strange)) + b"\n" + sound[:-5])
    (out / "masks/a.png").write_bytes(OLD)
    ownership = loaded(out)
    assert ownership.is_pending(out / "masks/a.png")
    ownership.write(image_ref(out), out / "masks/a.png", NEW)


@pytest.mark.parametrize("place", ["../victim/a.png", "/etc/passwd", "masks/../../victim/a.png"])
def test_a_forged_log_leads_nowhere(out: Path, place: str) -> None:
    pending(out, ["a.png", place, digest(OTHER)], ["", place, digest(OTHER)])
    before = tree(out.parent / "victim")
    ownership = loaded(out)
    with pytest.raises(OutputError, match=LEADS_OUT):
        ownership.write(image_ref(out, OTHER), out / "../victim/a.png", NEW)
    ownership.remove_run_files()
    ownership.end(lambda *_: True)
    assert tree(out.parent / "victim") == before


def test_a_log_that_is_a_link_or_a_folder(out: Path) -> None:
    log = out / f"{LOG_PREFIX}x"
    log.mkdir()
    with pytest.raises(OutputError, match=f"{LOG_PREFIX}x"):
        loaded(out)


# ---- threads and processes ----


def test_two_threads_write(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(AppendLog):
        """Whoever opens the log cuts off what follows its last line end: the half of a line of another thread."""

        def __enter__(self) -> Watched:
            at_work.append(self)
            together.append(len(at_work))
            time.sleep(1e-4)
            return self

        def __exit__(self, *arguments: object) -> None:
            super().__exit__(*arguments)  # type: ignore[arg-type]
            at_work.remove(self)

    at_work: list[AppendLog] = []
    together: list[int] = []
    monkeypatch.setattr("tipsseg.util.ownership.AppendLog", Watched)
    ownership, failures = loaded(out), []

    def write(thread: int) -> None:
        try:
            for number in range(100):
                ownership.write(image_ref(out), out / f"masks/{thread}-{number}", b"%d %d" % (thread, number))
        except Exception as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(together) == {1}
    (log,) = write_ahead_logs(out)
    noted = {tuple(json.loads(line)) for line in log.read_bytes().splitlines()}
    assert noted == {
        ("a.png", f"masks/{thread}-{number}", digest(b"%d %d" % (thread, number)))
        for thread in range(2)
        for number in range(100)
    }


def test_a_copy_in_another_process_notes_into_a_log_of_its_own(out: Path) -> None:
    ownership = Ownership(out, out, "1-of-2-")
    ownership.load({}, nobody)
    ownership.write(image_ref(out), out / "masks/a.png", NEW)
    copy = pickle.loads(pickle.dumps(ownership))
    copy.write(image_ref(out), out / "masks/b.png", NEW)
    assert len(write_ahead_logs(out)) == 2
    with pytest.raises(OutputError, match=NOT_OURS):  # it knows what the caller tells it
        copy.write(image_ref(out), out / "masks/a.png", OLD)
    copy.write(image_ref(out, NEW), out / "masks/a.png", OLD)
    ownership.end(lambda *_: True)
    assert write_ahead_logs(out) == []


@pytest.mark.parametrize("pickled", [False, True])
def test_what_is_left_of_a_write_has_an_owner(out: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool) -> None:
    """So that a process that is killed leaves nothing that is not swept."""
    monkeypatch.setattr(Path, "replace", lambda path, place: None)
    ownership = Ownership(out, out, "mine-")
    if pickled:
        ownership = pickle.loads(pickle.dumps(ownership))
    for place in ("a", "b", "c"):
        (out / place).mkdir()
    ownership.link(image_ref(out), out / "a/a.png", ours=False)
    ownership.write(image_ref(out), out / "b/a.png", NEW)
    ownership.write_run_file(out / "c/a.png", NEW)
    for place in ("a", "b", "c"):
        (left,) = (out / place).iterdir()
        assert left.name.startswith(".tipsseg-mine-")


# ---- links ----


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "imgs/a.png"
    path.parent.mkdir()
    path.write_bytes(b"image")
    return path


def ref_to(image: Path) -> ImageRef:
    return ImageRef(image, PurePosixPath("a.png"))


def link(image: Path, place: Path, output: Path, *, ours: bool = False) -> None:
    Ownership(output, output).link(ref_to(image), place, ours=ours)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def symlink_to(path: Path, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "symlink_to", symlink_to)


def test_both_can_be_moved_together(tmp_path: Path, image: Path) -> None:
    place = tmp_path / "out/yolo/images/a.png"
    link(image, place, tmp_path / "out")
    assert place.readlink() == Path("../../../imgs/a.png")
    link(image, place, tmp_path / "out")  # again, in its place
    assert [path.name for path in place.parent.iterdir()] == ["a.png"]
    shutil.copytree(tmp_path, tmp_path / "copy", symlinks=True)
    assert (tmp_path / "copy/out/yolo/images/a.png").resolve() == tmp_path / "copy/imgs/a.png"


def test_it_leads_to_the_file_itself(tmp_path: Path, image: Path) -> None:
    (tmp_path / "link.png").symlink_to("imgs/a.png")
    place = tmp_path / "out/b.png"
    link(tmp_path / "link.png", place, tmp_path / "out")
    assert place.readlink() == Path("../imgs/a.png")


def test_the_folder_may_be_a_link(tmp_path: Path, image: Path) -> None:
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "out").symlink_to("far/away")
    link(image, tmp_path / "out/a.png", tmp_path / "out")
    assert (tmp_path / "out/a.png").read_bytes() == b"image"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_copy_where_there_are_no_links(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, number)
    ownership = Ownership(tmp_path / "out", tmp_path / "out")
    for data in (b"image", b"image that was changed"):
        image.write_bytes(data)
        ref = ImageRef(image, PurePosixPath("a.png"), former=digest(b"image"))
        ownership.link(ref, tmp_path / "out/a.png", ours=True)
        assert not (tmp_path / "out/a.png").is_symlink()
        assert (tmp_path / "out/a.png").read_bytes() == data
    (tmp_path / "out/a.png").write_bytes(OTHER)
    with pytest.raises(OutputError, match=NOT_OURS):
        ownership.link(ref, tmp_path / "out/a.png", ours=True)
    assert (tmp_path / "out/a.png").read_bytes() == OTHER


def test_other_refusals_are_told(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(OutputError, match="no space left on the device"):
        link(image, tmp_path / "out/a.png", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@dataclass(frozen=True)
class Linked:
    """What is in the place of a link, whether a link there is the program's, and whether it is replaced."""

    there: Callable[[Path], object]
    ours: bool
    replaced: bool
    logged: bool = False


LINKS: dict[str, Linked] = {
    "a link of an earlier run": Linked(link_to("../moved"), ours=True, replaced=True),
    "a link of a run that was killed": Linked(link_to("../moved"), ours=False, replaced=True, logged=True),
    "a link of somebody else": Linked(link_to("../victim/a.png"), ours=False, replaced=False),
    "a file of somebody else": Linked(holding(OTHER), ours=True, replaced=False),
    "a pipe": Linked(os.mkfifo, ours=True, replaced=False),
    "a copy of the image": Linked(holding(b"image"), ours=False, replaced=False),
}


@pytest.mark.parametrize("case", LINKS)
def test_what_a_link_may_replace(out: Path, case: str) -> None:
    given, place = LINKS[case], out / "a.png"
    given.there(place)
    if given.logged:
        pending(out, ["a.png", "a.png", LINK])
    ownership, before = loaded(out), tree(out.parent)
    if given.replaced:
        ownership.link(image_ref(out), place, ours=given.ours)
        assert place.resolve() == out.parent / "image.png"
    else:
        with pytest.raises(OutputError, match=NOT_OURS):
            ownership.link(image_ref(out), place, ours=given.ours)
        assert tree(out.parent) == before


def test_no_link_is_made_in_a_folder_that_leads_out(out: Path) -> None:
    (out / "yolo").symlink_to("../victim")
    before = tree(out.parent)
    ownership = loaded(out)
    for attempt in (
        lambda: ownership.link(image_ref(out), out / "yolo/b.png", ours=True),
        lambda: ownership.remove_link(out / "yolo/a.png"),
    ):
        with pytest.raises(OutputError, match=LEADS_OUT):
            attempt()
    assert tree(out.parent) == before


def test_links_lead_to_the_image_again_and_what_is_none_stays(out: Path) -> None:
    ownership, place = loaded(out), out / "a.png"
    for lost in (lambda path: None, Path.unlink, then(Path.unlink, lambda path: path.symlink_to("../gone.png"))):
        lost(place)
        ownership.restore_link(image_ref(out), place)
        assert place.resolve() == out.parent / "image.png"
    place.unlink()
    place.write_bytes(OTHER)
    ownership.restore_link(image_ref(out), place)
    ownership.remove_link(place)
    assert place.read_bytes() == OTHER


def test_a_link_is_removed_and_what_it_leads_to_is_not(out: Path) -> None:
    ownership, place = loaded(out), out / "a.png"
    ownership.link(image_ref(out), place, ours=False)
    ownership.remove_link(place)
    ownership.remove_link(place)
    assert not os.path.lexists(place)
    assert (out.parent / "image.png").read_bytes() == b"image"
