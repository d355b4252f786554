"""How an image is read, and what goes wrong on the way: files that change meanwhile, and large ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import pytest
from PIL import Image

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import ImageError
from tipsseg.features.file import FeatureRecord
from tipsseg.features.folder import FeatureFiles
from tipsseg.images.decoding import ImageReader, OpenImage
from tipsseg.labelling import source
from tipsseg.labelling.source import FeatureSource
from tipsseg.labelling.view import Prepared, View
from tipsseg.types import ImageRef
from tipsseg.util.files import stamp


@pytest.fixture
def ref(tmp_path: Path) -> ImageRef:
    save(tmp_path / "in/a.png", 10)
    return ImageRef(tmp_path / "in/a.png", PurePosixPath("sub/a.png"))


def save(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def after_reading(monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None]) -> None:
    """Let something happen to a file each time that it was read, or could not be read."""

    header = ImageReader.header

    @contextmanager
    def busy(self: ImageReader, path: Path) -> Iterator[OpenImage]:
        try:
            with header(self, path) as image:
                yield image
        finally:
            happens(path)

    monkeypatch.setattr(ImageReader, "header", busy)


def reader(*, thumbnails: bool = True, short_side: int = 4) -> FeatureSource[FeatureRecord]:
    view = View(native_size=14, patch_size=1, mode="slide", base=short_side, short_sides=(short_side,))
    return FeatureSource(
        cast(Backbone, None), view, None, FeatureFiles.find, ImageReader(1_000_000), thumbnails=thumbnails
    )


def test_an_elongated_image_is_refused_with_a_hint(ref: ImageRef) -> None:
    save(ref.path, 10, (4, 12_000))
    with pytest.raises(ImageError, match="too elongated") as caught:
        reader(short_side=8192).load(ref)
    assert caught.value.path == ref.path
    assert caught.value.hint.startswith("Cut the image into pieces")


def replaced(path: Path, value: int) -> None:
    """Another picture of that name, as programs that save files do it."""
    save(path.with_name("new.png"), value)
    path.with_name("new.png").replace(path)


def rewritten(path: Path, value: int) -> None:
    """Other content in the same file."""
    save(path, value)
    os.utime(path, ns=(value, value))


@pytest.mark.parametrize("change", [replaced, rewritten])
def test_an_image_that_is_changed_while_it_is_read_is_read_again(
    ref: ImageRef, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, int], None]
) -> None:
    reads: list[Path] = []

    def busy(path: Path) -> None:
        reads.append(path)
        if len(reads) < 3:
            change(path, 100 + len(reads))

    after_reading(monkeypatch, busy)
    loaded = reader().load(ref)
    assert len(reads) == 3
    assert (loaded.picture.thumbnail == 102).all()  # of the file as it is now, to which the fingerprint belongs too
    assert loaded.fingerprint == stamp(ref.path)


def test_an_image_that_keeps_changing_is_refused(ref: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: Path) -> None:
        os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)

    after_reading(monkeypatch, busy)
    with pytest.raises(ImageError, match="keeps changing while it is read") as caught:
        reader().load(ref)
    assert caught.value.hint


def test_large_images_are_decoded_one_at_a_time(ref: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    images, plain, alone = reader(), View.prepare, list[bool]()

    def prepare(self: View, image: Image.Image) -> Prepared:
        alone.append(images._large.locked())
        return plain(self, image)

    monkeypatch.setattr(View, "prepare", prepare)
    images.load(ref)
    monkeypatch.setattr(source, "_HEAVY", 15)
    images.load(ref)
    assert alone == [False, True]
