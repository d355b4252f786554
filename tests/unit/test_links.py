"""Links lead to the image itself, from wherever they are; where there are none, it is copied."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tipsseg.errors import OutputError
from tipsseg.links import link_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "imgs/a.png"
    path.parent.mkdir()
    path.write_bytes(b"image")
    return path


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def symlink_to(path: Path, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "symlink_to", symlink_to)


def test_both_can_be_moved_together(tmp_path: Path, image: Path) -> None:
    place = tmp_path / "out/yolo/images/a.png"
    link_image(image, place)
    assert place.readlink() == Path("../../../imgs/a.png")
    link_image(image, place)  # again, in its place
    assert [path.name for path in place.parent.iterdir()] == ["a.png"]
    shutil.copytree(tmp_path, tmp_path / "copy", symlinks=True)
    assert (tmp_path / "copy/out/yolo/images/a.png").resolve() == tmp_path / "copy/imgs/a.png"


def test_it_leads_to_the_file_itself(tmp_path: Path, image: Path) -> None:
    (tmp_path / "link.png").symlink_to("imgs/a.png")
    place = tmp_path / "out/b.png"
    link_image(tmp_path / "link.png", place)
    assert place.readlink() == Path("../imgs/a.png")


def test_the_folder_may_be_a_link(tmp_path: Path, image: Path) -> None:
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "out").symlink_to("far/away")
    link_image(image, tmp_path / "out/a.png")
    assert (tmp_path / "out/a.png").read_bytes() == b"image"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_copy_where_there_are_no_links(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse(monkeypatch, number)
    link_image(image, tmp_path / "out/a.png")
    assert not (tmp_path / "out/a.png").is_symlink()
    assert (tmp_path / "out/a.png").read_bytes() == b"image"


def test_other_refusals_are_told(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(OutputError, match="no space left on the device"):
        link_image(image, tmp_path / "out/a.png")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_left_of_it_has_an_owner(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a process that is killed leaves nothing that is not swept."""
    monkeypatch.setattr(Path, "replace", lambda path, place: None)
    link_image(image, tmp_path / "out/a.png", "mine-")
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".tipsseg-mine-")
