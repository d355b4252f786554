"""What ids in truth files mean, the benchmarks' tables, and the reading of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tipsseg.errors import ImageError, LabelIdError
from tipsseg.images.decoding import ImageReader
from tipsseg.learning.truth import IGNORED, LAYOUTS, TruthIds, get_layout, plain_ids, read_predicted, read_truth

PLAIN = plain_ids(3)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def grey(values: object, dtype: type[Any] = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


def palette_picture(values: object) -> Image.Image:
    """Indices with a palette whose brightness says something else."""
    indices = np.array(values, np.uint8)
    picture = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    picture.putpalette([channel for index in range(256) for channel in (255 - index, index * 7 % 256, 40)])
    return picture


# ---- meaning of ids ----


@pytest.mark.parametrize(
    ("ids", "background", "meaning"),
    [
        (plain_ids(2), True, {0: 0, 1: 1, 2: 2, 255: IGNORED, 3: -1, 254: -1, 65535: -1}),
        (plain_ids(2, ignore_index=254), True, {0: 0, 1: 1, 2: 2, 254: IGNORED, 255: -1}),
        (plain_ids(2, ignore_index=65535), True, {2: 2, 255: -1, 65535: IGNORED}),
        (plain_ids(2, ignore_index=2), True, {0: 0, 1: 1, 2: IGNORED, 255: -1}),
        (plain_ids(2, ignore_index=0), False, {0: IGNORED, 1: 1, 2: 2, 255: -1}),
        (plain_ids(2, reduce_zero_label=True), False, {0: IGNORED, 1: 1, 2: 2, 3: -1, 255: IGNORED}),
        (plain_ids(2, ignore_index=1, reduce_zero_label=True), False, {0: IGNORED, 1: IGNORED, 2: 2, 255: -1}),
        (plain_ids(2, zero_based=True), False, {0: 1, 1: 2, 2: -1, 255: IGNORED}),
        (plain_ids(2, ignore_index=1, zero_based=True), False, {0: 1, 1: IGNORED, 2: -1, 255: -1}),
        (plain_ids(254), True, {254: 254, 255: IGNORED, 65535: -1}),
        (plain_ids(255), True, {254: 254, 255: 255, 256: -1, 65535: IGNORED}),
        (plain_ids(300, ignore_index=255), True, {254: 254, 255: IGNORED, 300: 300, 65535: -1}),
        (plain_ids(65534), True, {65534: 65534, 65535: IGNORED}),
    ],
)
def test_ids_of_plain_truth_masks(ids: TruthIds, background: bool, meaning: dict[int, int]) -> None:
    table = ids.table()
    assert {number: int(table[number]) for number in meaning} == meaning
    assert ids.background == background


# ---- benchmarks ----

# name, kind by its suffix -> classes, background, how many ids are classes, how many do not count, spot checks
LAYOUT_FACTS: dict[tuple[str, str], tuple[int, bool, int, int, dict[int, int]]] = {
    ("ade20k", ""): (150, False, 150, 2, {0: IGNORED, 1: 1, 150: 150, 151: -1, 255: IGNORED}),
    ("voc20", ""): (20, False, 20, 2, {0: IGNORED, 1: 1, 15: 15, 20: 20, 21: -1, 255: IGNORED}),
    ("voc21", ""): (20, True, 20, 1, {0: 0, 1: 1, 20: 20, 21: -1, 255: IGNORED}),
    ("pascal-context-59", ""): (59, False, 59, 2, {0: IGNORED, 1: 1, 59: 59, 60: -1, 255: IGNORED}),
    ("pascal-context-60", ""): (59, True, 59, 1, {0: 0, 1: 1, 59: 59, 60: -1, 255: IGNORED}),
    ("cityscapes", "_gtFine_labelTrainIds"): (19, False, 19, 1, {0: 1, 11: 12, 18: 19, 19: -1, 255: IGNORED}),
    # road 7, building 11, pole 17, sky 23, person 24, car 26, bus 28, train 31, bicycle 33; parking 9 and caravan 29 do not count
    ("cityscapes", "_gtFine_labelIds"): (
        19,
        False,
        19,
        15,
        {
            0: IGNORED,
            7: 1,
            8: 2,
            9: IGNORED,
            11: 3,
            17: 6,
            18: IGNORED,
            23: 11,
            24: 12,
            26: 14,
            28: 16,
            29: IGNORED,
            30: IGNORED,
            31: 17,
            33: 19,
            34: -1,
            255: -1,
        },
    ),
    ("coco-stuff", "_labelTrainIds"): (171, False, 171, 1, {0: 1, 79: 80, 80: 81, 170: 171, 171: -1, 255: IGNORED}),
    # person 0, stop sign 12, backpack 26, dining table 66, toothbrush 89, banner 91, wood 181
    ("coco-stuff", ""): (
        171, False, 171, 1,
        {0: 1, 10: 11, 11: -1, 12: 12, 26: 25, 66: 61, 89: 80, 90: -1, 91: 81, 181: 171, 182: -1, 255: IGNORED},
    ),
}  # fmt: skip


def test_every_layout_is_checked() -> None:
    assert list(LAYOUT_FACTS) == [(name, kind.suffix) for name, layout in LAYOUTS.items() for kind in layout.kinds]


@pytest.mark.parametrize(("name", "suffix"), LAYOUT_FACTS)
def test_layouts_of_truth_files(name: str, suffix: str) -> None:
    classes, background, mapped, ignored, meaning = LAYOUT_FACTS[name, suffix]
    layout = get_layout(name)
    ids = next(kind.ids for kind in layout.kinds if kind.suffix == suffix)
    table = ids.table()
    assert layout.name == name
    assert layout.classes == ids.classes == classes
    assert layout.background == ids.background == background
    assert sorted(table[(table > 0) & (table != IGNORED)].tolist()) == list(range(1, mapped + 1))
    assert (table == IGNORED).sum() == ignored
    assert (table == 0).sum() == background
    assert {number: int(table[number]) for number in meaning} == meaning


# ---- reading ----

IDS = [[0, 1, 2], [3, 255, 1]]
READ = [[0, 1, 2], [3, IGNORED, 1]]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (grey(IDS), "a.png"),
        (grey(IDS), "a.tif"),
        (grey(IDS), "a.bmp"),
        (palette_picture(IDS), "a.png"),
        (palette_picture(IDS), "a.tif"),
        (palette_picture(IDS), "a.bmp"),
        (grey(IDS, np.uint16), "a.png"),
        (grey(IDS, np.uint16), "a.tif"),
        (grey(IDS, np.int32), "a.tif"),
        (Image.frombytes("I;16B", (3, 2), np.array(IDS, ">u2").tobytes()), "a.tif"),
    ],
)
def test_grey_and_palette_masks(tmp_path: Path, image: Image.Image, name: str) -> None:
    truth = read_truth(saved(tmp_path, image, name), PLAIN, ImageReader())
    assert truth.dtype == np.uint16
    assert truth.tolist() == READ


def test_small_palettes_and_single_bits(tmp_path: Path) -> None:
    few = palette_picture([[0, 1, 2, 3, 0]])
    assert read_truth(saved(tmp_path, few, bits=2), PLAIN, ImageReader()).tolist() == [[0, 1, 2, 3, 0]]
    bits = Image.fromarray(np.array([[False, True, True]]))
    assert read_truth(saved(tmp_path, bits, "b.png"), PLAIN, ImageReader()).tolist() == [[0, 1, 1]]
    assert read_truth(saved(tmp_path, bits, "b.png"), plain_ids(2, zero_based=True), ImageReader()).tolist() == [
        [1, 2, 2]
    ]


def test_an_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_truth(saved(tmp_path, grey(IDS), exif=exif), PLAIN, ImageReader()).tolist() == READ


def test_16_bit_ids(tmp_path: Path) -> None:
    path = saved(tmp_path, grey([[0, 255, 256, 300, 65535]], np.uint16))
    assert read_truth(path, plain_ids(300), ImageReader()).tolist() == [[0, 255, 256, 300, IGNORED]]
    assert (labels := read_predicted(path, 300, ImageReader())).dtype == np.uint16
    assert labels.tolist() == [[0, 255, 256, 300, 65535]]


@given(st.data())
def test_reading_is_the_table_pixel_by_pixel(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
    ids = data.draw(st.sampled_from(LAYOUTS[layout].kinds)).ids
    row = data.draw(st.lists(st.sampled_from(sorted(ids.meaning)), min_size=1, max_size=9))
    path = saved(tmp_path_factory.mktemp("truth"), grey([row]))
    assert read_truth(path, ids, ImageReader()).tolist() == [[ids.meaning[value] for value in row]]


def test_predicted_masks(tmp_path: Path) -> None:
    labels = read_predicted(saved(tmp_path, grey(IDS)), 3, ImageReader())
    assert labels.dtype == np.uint8
    assert labels.tolist() == IDS
    assert read_predicted(saved(tmp_path, palette_picture(IDS)), 3, ImageReader()).tolist() == IDS
    assert read_predicted(saved(tmp_path, grey(IDS, np.uint16)), 3, ImageReader()).dtype == np.uint8


SAVE_AS_PNG = "Save it as a single-channel PNG, 8 or 16 bits, whose values are the class ids."
SAVE_OR_SWAP = f"{SAVE_AS_PNG} If it is a photograph, images and masks are swapped."

# what is in the file, what is wrong with it, the hint; "": ids that are no class, and what to do depends on the file
COLOUR = np.zeros((2, 2, 3), np.uint8)
REFUSED: dict[str, tuple[Image.Image, str, str]] = {
    "colour": (
        Image.fromarray(COLOUR), "a colour image (RGB); masks must store class ids as greyscale or palette values", SAVE_OR_SWAP,
    ),
    "colour with alpha": (
        Image.fromarray(COLOUR).convert("RGBA"), "a colour image (RGBA); masks must store class ids as greyscale or palette values",
        SAVE_OR_SWAP,
    ),
    "grey with alpha": (
        Image.fromarray(COLOUR).convert("LA"),
        "an image with transparency (LA); masks must store class ids as greyscale or palette values", SAVE_OR_SWAP,
    ),
    "float.tif": (
        Image.fromarray(np.zeros((2, 2), np.float32)),
        "an image of floats (F); masks must store class ids as greyscale or palette values",
        SAVE_AS_PNG,
    ),
    "integers.tif": (
        grey([[-1, 70000]], np.int32), "ids range from -1 to 70000, but must be between 0 and 65535", SAVE_AS_PNG,
    ),
    "lossy.jpg": (grey([[0, 1]]), "a JPEG, which does not preserve pixel values; masks must have exact class ids", SAVE_AS_PNG),
    "renumbered.gif": (
        grey([[0, 3]]), "a GIF, whose palette programs reorder when they save it; masks must have exact class ids",
        SAVE_AS_PNG,
    ),
    "one unknown id": (grey([[0, 4]]), "unknown ids: 4 (1 pixel)", ""),
    "many unknown ids": (
        grey([[0, *range(100, 150), *[100] * 1233]]),
        "unknown ids: 100 (1,234 pixels), 101 (1 pixel), 102 (1 pixel), 103 (1 pixel) and 46 more", "",
    ),
}  # fmt: skip

TRUTH_HINT = (
    "The labels have 3 classes. If the masks have more, label with all of these. If their ids begin elsewhere, set "
    "`ignore_index`, `reduce_zero_label` or `zero_based`, or select the benchmark with "
    "`layout`."
)
LABELS_HINT = (
    "Predicted masks have 0 for background, 1..3 for the classes in the vocabulary's order, and 255 for pixels without a "
    "label. Use the vocabulary of the run that wrote them."
)


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_are_refused(tmp_path: Path, name: str) -> None:
    image, reason, hint = REFUSED[name]
    path = saved(tmp_path, image, name if "." in name else "a.png")
    for read, ids_hint in (
        (lambda: read_truth(path, PLAIN, ImageReader()), TRUTH_HINT),
        (lambda: read_predicted(path, 3, ImageReader()), LABELS_HINT),
    ):
        with pytest.raises(ImageError) as caught:
            read()
        assert caught.value.message == f"{path}: {reason}"
        assert caught.value.hint == (hint or ids_hint)
        assert type(caught.value) is (ImageError if hint else LabelIdError)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(1).integers(0, 4, (40, 40), np.uint8)))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:200])
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "empty.png").touch()
    expected = {
        "missing.png": "no such file",
        "cut.png": "truncated file",
        "text.png": "not an image in a format that Pillow reads",
        "empty.png": "empty file (0 bytes)",
        ".": "a folder, not an image file",
    }
    for name, reason in expected.items():
        with pytest.raises(ImageError) as caught:
            read_truth(tmp_path / name, PLAIN, ImageReader())
        assert caught.value.reason.startswith(reason)
    with pytest.raises(ImageError, match="too large: 40 x 40"):
        read_truth(whole, PLAIN, ImageReader(1599))
