"""Files whose decoding never ends, or writes past Python, and decoding in a process of its own; and files that are no images."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tipsseg.errors import ImageError
from tipsseg.images import decoders
from tipsseg.images import decoding as images
from tipsseg.images.decoders import HEIC_HINT, VIDEO_HINT, Skipped
from tipsseg.images.decoding import ImageReader

H, W = 7, 11
RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)


def layered() -> bytes:
    """JPEG 2000 that says of each of 16,384 tiles that it has 65,535 layers: 0.5 MB, and no end within minutes."""
    file = io.BytesIO()
    Image.new("RGB", (512, 512), 128).save(file, "JPEG2000", tile_size=(4, 4), no_jp2=True)
    data = bytearray(file.getvalue())
    style = data.index(b"\xff\x52")
    data[style + 6 : style + 8] = b"\xff\xff"
    return bytes(data)


def tiled(number: int, height: int = 1 << 22) -> bytes:
    """TIFF of 16 x 1 pixels a tile, whose tiles are 16 pixels wide and `height` high, and all of the same data."""
    data = zlib.compress(bytes(16 * height), 9)
    start = 8 + len(data) + len(data) % 2
    lists = start + 2 + 12 * 12 + 4
    tags = [
        (256, 4, 1, 16 * number), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (284, 3, 1, 1),
        (322, 4, 1, 16), (323, 4, 1, height), (324, 4, number, lists), (325, 4, number, lists + 4 * number), (339, 3, 1, 1),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    places = struct.pack(f"<{number}I", *[8] * number) + struct.pack(f"<{number}I", *[len(data)] * number)
    return b"II*\0" + struct.pack("<I", start) + data + b"\0" * (len(data) % 2) + directory + places


def animated(side: int) -> bytes:
    """WebP of some hundred bytes, with frames of 9 x 9 pixels on a canvas of `side` x `side`."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (9, 9), (value, 0, 0)) for value in (0, 99)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(file.getvalue())
    data[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "apart"),
    {
        "JPEG 2000 of any size": (layered(), True),
        "TIFF of large tiles": (tiled(100_000), True),
        "TIFF of small tiles": (tiled(100, 16), False),
        "animation on a large canvas": (animated(20_000), True),
        "animation on a small canvas": (animated(100), False),
    }.values(),
)
def test_files_that_take_long_get_a_process(tmp_path: Path, content: bytes, apart: bool) -> None:
    (tmp_path / "a").write_bytes(content)
    with ImageReader().header(tmp_path / "a") as image:
        assert decoders.needs_own_process(image.picture) is apart


@pytest.mark.skipif(sys.platform == "win32", reason="there only the clock counts, ten times as long")
@pytest.mark.parametrize("content", [layered(), tiled(100_000)], ids=["JPEG 2000", "TIFF"])
def test_decoding_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(images, "DECODE_SECONDS", 1)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        ImageReader().pixels(tmp_path / "a")
    assert caught.value.reason == "decoding takes more than 1 seconds"
    assert caught.value.hint


def pictures() -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    colour = Image.fromarray(RGB)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "a.jp2": (colour, {}),
        "grey.jp2": (colour.convert("L"), {}),
        "alpha.jp2": (colour.convert("RGBA"), {}),
        "deep.jp2": (Image.fromarray(RNG.integers(0, 65536, (H, W), dtype=np.uint16)), {}),
        "a.webp": (colour, {"lossless": True}),
        "turned.webp": (colour, {"lossless": True, "exif": turned}),
        "turned.tif": (colour, {"compression": "tiff_lzw", "exif": turned}),
        "palette.tif": (colour.quantize(9), {"compression": "tiff_lzw"}),
        "bits.tif": (colour.convert("1"), {"compression": "group4"}),
        "deep.tif": (Image.fromarray(RNG.integers(0, 65536, (H, W), dtype=np.uint16)), {"compression": "tiff_lzw"}),
        "inks.tif": (colour.convert("CMYK"), {"compression": "tiff_lzw"}),
        "float.tif": (Image.fromarray(RNG.random((H, W), dtype=np.float32)), {"compression": "tiff_lzw"}),
    }


@pytest.mark.parametrize("name", pictures())
def test_another_process_decodes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    picture, options = pictures()[name]
    path = tmp_path / name
    picture.save(path, **options)
    seen: list[tuple[str | None, list[int], list[int]]] = []
    for apart in (False, True):
        monkeypatch.setattr(images, "needs_own_process", lambda image, apart=apart: apart)
        with ImageReader().header(path) as image:
            stored = image.decode()
        seen.append((stored.format, np.asarray(stored).tolist(), ImageReader().pixels(path).tolist()))
    assert seen[0] == seen[1]


def test_another_process_reports_the_same_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(file, "TIFF", compression="tiff_lzw")
    data = bytearray(file.getvalue())
    data[100:200] = bytes(100)
    path = tmp_path / "-a.tif"
    path.write_bytes(data)
    told = []
    for apart in (False, True):
        monkeypatch.setattr(images, "needs_own_process", lambda image, apart=apart: apart)
        with pytest.raises(ImageError) as caught:
            ImageReader().pixels(path)
        told.append((caught.value.path, caught.value.reason, caught.value.hint))
    assert told[0] == told[1]
    assert "broken image data" in told[0][1]


def test_a_decoder_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jp2")
    for code, reason in (
        ("import os; os.abort()", "failed (signal 6)"),
        ("raise SystemExit('no room')", "failed (no room)"),
    ):
        monkeypatch.setattr(decoders, "_COMMAND", (sys.executable, "-c", code))
        with pytest.raises(ImageError) as caught:
            ImageReader().pixels(tmp_path / "a.jp2")
        assert caught.value.reason == f"its decoder {reason}"


@pytest.mark.skipif(sys.platform == "win32", reason="Pillow has libtiff within itself there")
def test_libtiff_is_silent(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(file, "TIFF", compression="tiff_lzw")
    data = bytearray(file.getvalue())
    data[100:200] = bytes(100)
    (tmp_path / "a.tif").write_bytes(data)
    loud = "from PIL import Image\nimage = Image.open('a.tif')\ntry: image.load()\nexcept OSError: pass"
    quiet = (
        "from pathlib import Path\nfrom tipsseg.errors import ImageError\nfrom tipsseg.images.decoding import ImageReader\n"
        "from tipsseg.images.decoders import silence_decoders\n"
        "silence_decoders()\ntry: ImageReader().pixels(Path('a.tif'))\nexcept ImageError: print('told')"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        for code in (loud, quiet)
    ]
    assert said[0].stderr
    assert (said[1].stdout, said[1].stderr) == (b"told\n", b"")


@pytest.mark.parametrize(
    ("names", "text", "hints"),
    {
        "nothing": ([], "", ()),
        "the most frequent first": (["a.MP4", "x.heic", "b.HEIC", "c.txt"], "2 .heic, 1 .mp4, 1 .txt", (HEIC_HINT, VIDEO_HINT)),
        "HEIC": (["a.heif"], "1 .heif", (HEIC_HINT,)),
        "a video": (["clip.mov"], "1 .mov", (VIDEO_HINT,)),
        "no extension": (["README", "LICENSE"], "2 without an extension", ()),
        "the last extension": (["a.tar.gz"], "1 .gz", ()),
        "many kinds": (
            [f"a.{letter}" for letter in "hgfedcbaij"] + ["b.i"],
            "2 .i, 1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, 1 .g, 2 of 2 other kinds",
            (),
        ),
        "eight kinds": ([f"a.{letter}" for letter in "hgfedcba"], "1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 1 .f, 1 .g, 1 .h", ()),
    }.values(),
)  # fmt: skip
def test_skipped_files_are_counted_by_kind(names: Sequence[str], text: str, hints: Sequence[str]) -> None:
    skipped = Skipped()
    for name in names:
        skipped.add(name, file=True)
    assert (str(skipped), skipped.hints, len(skipped)) == (text, hints, len(names))


def test_skipped_pipes_are_special_files() -> None:
    skipped = Skipped()
    skipped.add("a.png", file=False)
    assert str(skipped) == "1 special file"
