"""Every kind of picture becomes upright RGB, and every kind of damage one ImageError."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from tipsseg.errors import ImageError, InputError
from tipsseg.images import decoders, upright
from tipsseg.images import decoding as images
from tipsseg.images.decoding import ImageReader

Pixels = NDArray[np.uint8]

# Pillow warns of odd files, which are read all the same.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

RNG = np.random.default_rng(7)
AVIF = ["avif"] if features.check("avif") else []
H, W = 13, 17
RGB: Pixels = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY: Pixels = RNG.integers(0, 256, (H, W), dtype=np.uint8)
DEEP: NDArray[np.uint16] = RNG.integers(0, 65536, (H, W), dtype=np.uint16)


def grey3(values: NDArray[np.uint8]) -> Pixels:
    return np.stack([values] * 3, axis=-1)


def check(pixels: Pixels) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def saved(tmp_path: Path, image: Image.Image, name: str, **options: Any) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


# ---- modes and formats ----

PILLOW_MODES = {
    "1": ("png", "tif", "bmp", "pbm"),
    "L": ("png", "tif", "bmp", "gif", "jpg", "pgm", "tga", "jp2"),
    "P": ("png", "tif", "bmp", "gif", "tga"),
    "LA": ("png", "tif", "tga", "jp2"),
    "RGB": ("png", "tif", "bmp", "jpg", "webp", "ppm", "jp2", "tga", "qoi", "sgi", "pcx", "ico", "dds"),
    "RGBA": ("png", "tif", "webp", "jp2", "tga", "qoi", "ico"),
    "CMYK": ("tif", "jpg"),
    "YCbCr": ("tif",),
    "LAB": ("tif",),
}


@pytest.mark.parametrize(("mode", "suffix"), [(mode, suffix) for mode, all_ in PILLOW_MODES.items() for suffix in all_])
def test_modes_are_what_pillow_converts_to_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    rgba = np.dstack([RGB, GREY])
    if mode == "LAB":
        picture = Image.frombytes("LAB", (W, H), RGB.tobytes())
    else:
        picture = Image.fromarray(rgba).convert(mode) if mode in ("LA", "RGBA") else Image.fromarray(RGB).convert(mode)
    path = saved(tmp_path, picture, f"a.{suffix}")
    try:
        with Image.open(path) as again:
            expected = np.asarray(again.convert("RGB"))
    except OSError:  # some Pillow versions cannot read what they wrote themselves, such as YCbCr TIFF
        with pytest.raises(ImageError):
            ImageReader().pixels(path)
        return
    pixels = ImageReader().pixels(path)
    check(pixels)
    assert np.array_equal(pixels, expected)
    if mode in ("RGB", "RGBA") and suffix in ("png", "tif", "bmp", "ppm", "tga", "qoi"):
        assert np.array_equal(pixels, RGB)  # alpha dropped, colours as stored


def test_palette_with_alpha(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY).convert("P")
    picture.info["transparency"] = bytes(range(256))  # Pillow warns when this is converted
    path = saved(tmp_path, picture, "a.png")
    assert np.array_equal(ImageReader().pixels(path), grey3(GREY))
    pixels = np.array(
        upright.upright_image(Image.fromarray(np.dstack([RGB, GREY])).convert("RGBA").quantize(8).convert("PA"))
    )
    check(pixels)


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2", "pgm"])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = DEEP.copy()
    values[0, :6] = [0, 128, 129, 255, 256, 65535]
    pixels = ImageReader().pixels(saved(tmp_path, Image.fromarray(values), f"a.{suffix}"))
    check(pixels)
    assert np.array_equal(pixels, grey3(np.rint(values / 257).astype(np.uint8)))
    assert pixels[0, :6, 0].tolist() == [0, 0, 1, 1, 1, 255]


def test_16_bit_big_endian(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (W, H), DEEP.astype(">u2").tobytes())
    path = saved(tmp_path, picture, "a.tif")
    with Image.open(path) as again:
        assert again.mode == "I;16B"
    assert np.array_equal(ImageReader().pixels(path), grey3(np.rint(DEEP / 257).astype(np.uint8)))


def png(colour_type: int, depth: int, rows: bytes, width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_png(tmp_path: Path, colour_type: int, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (H, W, channels), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(colour_type, 16, rows, W, H))
    pixels = ImageReader().pixels(tmp_path / "a.png")
    check(pixels)
    colours = values[..., :3] if channels > 2 else values[..., :1].repeat(3, axis=2)
    assert np.abs(pixels.astype(int) - colours / 257).max() <= 1  # Pillow takes the high byte


def test_32_bit_integers(tmp_path: Path) -> None:
    values = DEEP.astype(np.int32)
    path = saved(tmp_path, Image.fromarray(values), "a.tif")
    assert np.array_equal(ImageReader().pixels(path), grey3(np.rint(values / 257).astype(np.uint8)))
    values %= 256  # as large as 8 bits, and so taken for that
    path = saved(tmp_path, Image.fromarray(values), "a.tif")
    assert np.array_equal(ImageReader().pixels(path), grey3(values.astype(np.uint8)))
    for bad in (65536, -1):
        values[3, 4] = bad
        with pytest.raises(ImageError, match=str(bad)):
            ImageReader().pixels(saved(tmp_path, Image.fromarray(values), "a.tif"))


@pytest.mark.parametrize("suffix", ["tif", "pfm"])
def test_images_of_floats(tmp_path: Path, suffix: str) -> None:
    unit = (GREY / 255).astype(np.float32)
    unit[0, 0] = 1  # the upper end belongs to the range
    byte = GREY.astype(np.float32)
    black = np.zeros((H, W), np.float32)
    for values, expected in ((unit, np.rint(unit * 255).astype(np.uint8)), (byte, GREY), (black, np.zeros_like(GREY))):
        assert np.array_equal(
            ImageReader().pixels(saved(tmp_path, Image.fromarray(values), f"a.{suffix}")), grey3(expected)
        )
    for bad in (-0.5, 256.0, np.nan, np.inf, -np.inf):
        broken = unit.copy()
        broken[5, 5] = bad
        with pytest.raises(ImageError, match="float pixels"):
            ImageReader().pixels(saved(tmp_path, Image.fromarray(broken), f"a.{suffix}"))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", *AVIF])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (W, H), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, object] = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, frames[0], f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    pixels = ImageReader().pixels(path)
    assert pixels.shape == (H, W, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_colour_profiles_are_ignored(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(
        ImageReader().pixels(saved(tmp_path, Image.fromarray(RGB), "a.png", icc_profile=profile)), RGB
    )


# ---- orientation ----

# What must be done to the stored pixels, by EXIF orientation.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
    0: lambda a: a,
    9: lambda a: a,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_orientations(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(RGB), f"a.{suffix}", exif=exif, **options)
    plain = ImageReader().pixels(saved(tmp_path, Image.fromarray(RGB), f"b.{suffix}", **options))
    pixels = ImageReader().pixels(path)
    check(pixels)
    assert np.array_equal(pixels, UPRIGHT[orientation](plain))


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03", b"Exif\0\0II*\0"])
def test_damaged_exif_does_not_matter(tmp_path: Path, exif: bytes) -> None:
    assert ImageReader().pixels(saved(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif)).shape == (H, W, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "late.png"])
def test_xmp_data_turn_no_image(tmp_path: Path, suffix: str) -> None:
    """As in browsers."""
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    options: dict[str, Any] = {"xmp": xmp}
    if suffix == "tif":
        options = {"tiffinfo": {700: xmp}}
    elif "png" in suffix:
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    path = saved(tmp_path, Image.fromarray(RGB), f"a.{suffix}", **options)
    if suffix == "late.png":
        data = path.read_bytes()
        start, pixels, end = (data.index(kind) - 4 for kind in (b"iTXt", b"IDAT", b"IEND"))
        path.write_bytes(data[:start] + data[pixels:end] + data[start:pixels] + data[end:])
    with Image.open(path) as image:
        image.load()
        assert ImageOps.exif_transpose(image).size == (H, W)  # (width, height): turned
    assert ImageReader().pixels(path).shape[:2] == ImageReader().size(path) == (H, W)


def test_an_orientation_beside_damaged_metadata_counts(tmp_path: Path) -> None:
    """Its resolution is a byte, which Pillow reads and cannot write again."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x1a\0\x01\0\0\0\x01\x02\0\0\0\0\0\0\0"
    path = saved(tmp_path, Image.fromarray(RGB), "a.png", exif=exif)
    with Image.open(path) as image, pytest.raises(TypeError, match="bytes"):
        ImageOps.exif_transpose(image)
    assert np.array_equal(ImageReader().pixels(path), UPRIGHT[6](RGB))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("behind", [False, True], ids=["in front", "behind"])
def test_upright_sizes(tmp_path: Path, orientation: int, behind: bool) -> None:
    """PNG may have its metadata in front of the pixels or behind them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(RGB), "a.png", exif=exif)
    data = path.read_bytes()
    start, pixels, end = (data.index(kind) - 4 for kind in (b"eXIf", b"IDAT", b"IEND"))
    assert start < pixels
    if behind:
        path.write_bytes(data[:start] + data[pixels:end] + data[start:pixels] + data[end:])
    upright = UPRIGHT[orientation](RGB)
    assert np.array_equal(ImageReader().pixels(path), upright)
    assert ImageReader().size(path) == upright.shape[:2]


# ---- failures ----


def failure(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        ImageReader().pixels(path)
    assert caught.value.path == path
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is text\n", "not an image"),
        (b"\0" * 1000, "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "header is damaged"),
        (b"\x1aE\xdf\xa3", "a video"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
        (b"\xff\xd8\xff\xe0\0", "header is damaged"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason in failure(path).reason


@pytest.mark.parametrize("read", [True, False])
def test_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: bool) -> None:
    """It is read where the package for it is installed, and named where it is not."""
    heif = pytest.importorskip("pillow_heif")
    colour = Image.new("RGB", (64, 48), (200, 30, 90))
    decoders.image_formats()  # registers it
    path = saved(tmp_path, colour, "a.heic")
    assert ".heic" in decoders.image_extensions()
    assert heif.is_supported(path)
    if read:
        assert np.abs(ImageReader().pixels(path).astype(int) - np.asarray(colour)).max() < 9
        path.write_bytes(path.read_bytes()[:30])
        assert "header is damaged" in failure(path).reason
        return
    formats = tuple(name for name in decoders.image_formats() if name != "HEIF")
    monkeypatch.setattr(images, "image_formats", lambda: formats)
    monkeypatch.setattr(decoders, "image_formats", lambda: formats)
    assert failure(path).reason == "a HEIC image, which Pillow cannot read"
    assert "pip install 'tipsseg[heic]'" in failure(path).hint
    assert not decoders.image_extensions() & {".heic", ".heif"}


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "folder" in failure(tmp_path).reason
    assert "no such file" in failure(tmp_path / "gone.png").reason
    assert failure(Path("a\0b.png")).reason
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "not a regular file" in failure(tmp_path / "pipe.png").reason

    path = saved(tmp_path, Image.fromarray(RGB), "a.png")

    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "open_source", refuse)
    assert "no read permission" in failure(path).reason


def test_truncated_images(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)), "a.jpg")
    path.write_bytes(path.read_bytes()[:-5000])
    assert failure(path).reason == "truncated file"


@pytest.mark.parametrize(
    "error",
    [
        OSError("decoder error -2"),
        OSError(5, "Input/output error"),
        SyntaxError("broken"),
        ValueError(),
        struct.error("x"),
        EOFError(),
        IndexError(),
        zlib.error("x"),
        MemoryError(),
        NotImplementedError(),
        KeyError(3),
        TypeError(),
        OverflowError(),
        RecursionError(),
        Image.DecompressionBombError("Image size (999 pixels) exceeds"),
    ],
)
def test_any_error_of_a_decoder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    path = saved(tmp_path, Image.fromarray(RGB), "a.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    caught = failure(path)
    assert caught.reason
    assert caught.__cause__ is error


@pytest.mark.parametrize(("mode", "error"), [("La", "ValueError"), ("L", "TypeError")])
def test_colours_that_pillow_does_not_convert_are_told(mode: str, error: str) -> None:
    picture = Image.new(mode, (2, 2))
    picture.info["transparency"] = (1, 2, 3)  # not of a grey picture
    with pytest.raises(InputError, match=rf"cannot convert mode {mode} to RGB \({error}: "):
        upright.upright_image(picture)


# ---- large images ----


@pytest.mark.parametrize(("width", "height"), [(500_000_001, 1), (50_000, 12_000), (60_000, 60_000)])
def test_too_large_names_size_and_limit(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(0, 1, b"", width, height))
    caught = failure(path)
    assert f"{width * height:,} pixels" in caught.reason
    assert "500,000,000" in caught.reason


@pytest.mark.parametrize("apart", [False, True], ids=["here", "apart"])
@pytest.mark.parametrize("pillows", [None, 1, (H * W - 1) // 2, H * W - 1, 10 * H * W])
def test_pillows_limit_gives_way_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillows: int | None, apart: bool
) -> None:
    monkeypatch.setattr(images, "needs_own_process", lambda image: apart)
    path = saved(tmp_path, Image.fromarray(RGB), "a.png")
    (tmp_path / "broken.png").write_bytes(path.read_bytes()[:60])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.array_equal(ImageReader(H * W).pixels(path), RGB)
        assert ImageReader(H * W).size(path) == (H, W)
        with pytest.raises(ImageError):
            ImageReader().pixels(tmp_path / "broken.png")
    assert caught == []
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_decoders_are_silent_where_that_was_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoders.silence_decoders()
        warnings.warn_explicit("odd metadata", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


# ---- damage ----


def originals() -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(RGB.repeat(3, 0).repeat(3, 1))
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("png", colour, {"exif": exif}),
        ("jpeg", colour, {"exif": exif}),
        ("jpeg", colour, {"progressive": True}),
        ("gif", colour.convert("P"), {}),
        ("bmp", colour, {}),
        ("tiff", colour, {"exif": exif}),
        ("tiff", colour, {"compression": "tiff_lzw"}),
        ("tiff", Image.fromarray(DEEP), {"compression": "tiff_deflate"}),
        ("webp", colour, {"exif": exif}),
        ("jpeg2000", colour, {}),
        ("ppm", colour, {}),
        ("tga", colour, {"compression": "tga_rle"}),
        ("ico", colour, {}),
        ("qoi", colour, {}),
        ("sgi", colour, {}),
        ("pcx", colour, {}),
        ("dds", colour, {}),
        *((name, colour, {}) for name in AVIF),
    ]
    for name, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, format=name, **options)
        made[f"{name}-{len(made)}"] = buffer.getvalue()
    return made


ORIGINALS = originals()


@pytest.mark.parametrize("name", ORIGINALS)
def test_damaged_files_give_an_array_or_an_image_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(images, "needs_own_process", lambda image: False)  # which takes its time, see test_decode_apart
    whole = ORIGINALS[name]
    rng = np.random.default_rng(11)
    damaged = [whole[:length] for length in sorted({*range(0, 64, 3), *np.linspace(0, len(whole) - 1, 25).astype(int)})]
    for round_ in range(60):
        data = bytearray(whole)
        # Half of the rounds hit the first bytes, where sizes, modes and offsets are.
        reach = min(len(data), 128) if round_ % 2 else len(data)
        for place in rng.integers(0, reach, 1 + round_ % 5):
            data[place] = int(rng.integers(0, 256))
        damaged.append(bytes(data))
    path = tmp_path / "a.img"
    reasons: list[str] = []
    for content in damaged:
        path.write_bytes(content)
        try:
            check(ImageReader(1_000_000).pixels(path))  # damaged headers ask for much
        except ImageError as error:
            reasons.append(error.reason)
    assert len(reasons) > 10
    assert all(reasons)


def test_each_reader_has_a_limit_of_its_own(tmp_path: Path) -> None:
    small, wide = (saved(tmp_path, Image.new("L", (width, 1), 9), f"{width}.png") for width in (1, 2))
    one, two = ImageReader(1), ImageReader(2)
    for name in ("pixels", "upright", "thumbnail", "size"):
        getattr(one, name)(small)
        getattr(two, name)(wide)
        with pytest.raises(ImageError, match=r"the limit is 1(?m:$)"):
            getattr(one, name)(wide)


def test_an_image_without_pixels() -> None:
    with pytest.raises(InputError, match="has no pixels"):
        upright.upright_image(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((10, 20), (10, 20)),
        ((4096, 4), (4096, 4)),
        ((4097, 2), (4096, 2)),
        ((10, 40960), (1, 4096)),
        ((50, 10000), (20, 4096)),
        ((1, 50000), (1, 4096)),
    ],
)
def test_the_size_at_which_images_are_shown(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert upright.thumbnail_rgb(Image.new("RGB", size[::-1])).shape[:2] == shown


def test_large_images_are_shown_as_means_of_areas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture: Pixels = RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(picture), "a.png")
    assert np.array_equal(ImageReader().thumbnail(path), picture)
    monkeypatch.setattr(upright, "THUMBNAIL_SIDE", 6)
    means = picture.reshape(4, 2, 6, 2, 3).astype(float).mean((1, 3))
    assert np.abs(ImageReader().thumbnail(path) - means).max() <= 1
