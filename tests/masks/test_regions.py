"""Sources of regions: the same regions from each, and one clear error for an image whose file cannot be used."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import ImageError, InputError
from tipsseg.masks.regions import RegionSource
from tipsseg.regions.components import components, encode_regions
from tipsseg.types import ImageRef

SIZE = (30, 40)
IDS = np.zeros(SIZE, np.int32)
IDS[3:20, 5:25], IDS[10:28, 20:38], IDS[25:30, 0:4] = 1, 2, 3
REF = ImageRef(Path("imgs/sub/a.jpg"), PurePosixPath("sub/a.jpg"))


def _masks() -> list[dict[str, Any]]:
    """The regions as SAM's automatic mask generator lists them, the largest first."""
    regions = components(IDS.astype(np.uint8), 3)
    return [
        {"segmentation": code, "area": region.area, "predicted_iou": 0.9, "crop_box": [0, 0, 40, 30]}
        for region, code in zip(regions, encode_regions(regions, SIZE), strict=True)
    ]


def _save(path: str, values: NDArray[Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def _dump(path: str, value: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))


def _coco(**image: object) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "sub/a.jpg", "height": 30, "width": 40, **image}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 1, **mask} for number, mask in enumerate(_masks())
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def _colours() -> NDArray[np.uint8]:
    ids = IDS * 70_000
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)


def _archive(**arrays: NDArray[Any]) -> None:
    Path("regions/sub").mkdir(parents=True)
    np.savez_compressed("regions/sub/a.npz", **arrays)  # type: ignore[arg-type]


def _tipsseg() -> None:
    _dump("regions/run.json", {})
    _save("regions/masks/sub/a.png", (IDS > 0).astype(np.uint8))
    _save("regions/instances/sub/a.png", IDS.astype(np.uint16))


def _sam_pictures() -> None:
    """The default output of segment-anything's amg.py."""
    for number in (3, 2, 1):
        _save(f"regions/a/{3 - number}.png", np.equal(IDS, number).astype(np.uint8) * 255)
    Path("regions/a/metadata.csv").write_text("id,area,bbox_x0,bbox_y0,bbox_w,bbox_h\n0,1,2,3,4,5\n")
    _save("regions/b/0.png", np.ones(SIZE, np.uint8) * 255)
    Path("regions/b/metadata.csv").write_text("id,area\n0,1\n")


#: Writes the regions of sub/a.jpg into the folder `regions`.
SOURCES: dict[str, Callable[[], object]] = {
    "8 bits": lambda: _save("regions/sub/a.png", IDS.astype(np.uint8)),
    "16 bits": lambda: _save("regions/a.png", (IDS * 1000).astype(np.uint16)),
    "colours": lambda: _save("regions/a.png", _colours()),
    "masks of SAM": lambda: _dump("regions/a.json", _masks()),
    "masks of SAM in pictures": _sam_pictures,
    "masks of SAM as lists": lambda: _dump(
        "regions/a.json", [{"segmentation": np.equal(IDS, number).tolist()} for number in (3, 2, 1)]
    ),
    "SA-1B": lambda: _dump("regions/a.json", {"image": {"height": 30, "width": 40}, "annotations": _masks()}),
    "COCO": lambda: _dump("regions/annotations.json", _coco()),
    "results": lambda: _dump(
        "regions/results.json", [{"image_id": "a", "category_id": 3, "score": 0.5, **mask} for mask in _masks()]
    ),
    "archive of ids": lambda: _archive(segmentation=IDS.astype(np.int64)),
    "archive of masks": lambda: _archive(masks=np.array([3, 2, 1])[:, None, None] == IDS),
    "archive of single masks": lambda: _archive(masks=np.array([3, 2, 1])[:, None, None, None] == IDS),
    "output folder": _tipsseg,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("source", SOURCES)
def test_regions_are_the_same_from_each_source(source: str) -> None:
    SOURCES[source]()
    regions = RegionSource(Path("regions")).find(REF)
    ids = regions.read(SIZE)
    assert ids.dtype == np.int32
    pairs = {*zip(ids.ravel().tolist(), IDS.ravel().tolist(), strict=True)}
    assert len(pairs) == 4
    assert (0, 0) in pairs
    with pytest.raises(ImageError, match=r"40 x 30|30 x 40|30, 40"):
        regions.read((40, 30))


def test_a_digest_changes_with_the_regions_of_its_image_alone() -> None:
    value = _coco()
    value["images"].append({"id": 8, "file_name": "b.jpg"})
    value["annotations"].append({"image_id": 8, "category_id": 1, **_masks()[0]})
    _dump("one.json", value)
    value["annotations"].pop()
    _dump("two.json", value)
    first, second = (RegionSource(Path(name)) for name in ("one.json", "two.json"))
    other = ImageRef(Path("b.jpg"), PurePosixPath("b.jpg"))
    assert first.find(REF).digest() == second.find(REF).digest()
    assert first.find(other).digest() != second.find(other).digest()


def test_ids_of_results_are_names_in_coco() -> None:
    _dump("results.json", [{"image_id": 139, **mask} for mask in _masks()])
    for name in ("139.png", "000000000139.jpg"):
        assert RegionSource(Path("results.json")).find(ImageRef(Path(name), PurePosixPath(name))).read(SIZE).any()


def test_polygons_and_boxes_are_filled() -> None:
    annotations = [
        {"segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]},
        {"bbox": [20, 5, 10, 5]},
        {"segmentation": [[0, 0, 5, 5]]},  # a line
    ]
    _dump("a.json", annotations)
    ids = RegionSource(Path("a.json")).find(REF).read(SIZE)
    assert [(ids == number).sum() for number in (1, 2)] == [100, 50]


#: The content of regions/sub/a.*, and the reason for refusing it.
HOSTILE: dict[str, tuple[Callable[[], object], str]] = {
    "empty PNG": (lambda: _write("a.png", b""), "cannot read this image: no known image format|empty"),
    "empty JSON": (lambda: _write("b.png a.json", b""), "not JSON"),
    "lists in lists": (lambda: _write("b.png a.json", b"[" * 100_000), "not JSON"),
    "a pipe as archive": (lambda: _pipe("a.npz"), "not a regular file|not a NumPy archive"),
    "a pipe as PNG": (lambda: _pipe("a.png"), "not a regular file|cannot read"),
    "a pipe as JSON": (lambda: _pipe("b.png a.json"), "not a regular file|not JSON|regular"),
    "no array in the archive": (lambda: _zip("masks.npy", b"hello"), "masks is not an array"),
    "an array without a suffix": (lambda: _zip("masks", b"hello"), "masks is not an array"),
    "16 bits per channel": (lambda: _write("a.png", _rgb48()), "RGB with 16 bits per channel"),
    "boxes upon boxes": (
        lambda: _dump("regions/a.json", [{"bbox": [0, 0, 40, 30]}] * 501),
        "cover the image more than 500 times",
    ),
    "empty archive": (lambda: _write("a.npz", b""), "not a NumPy archive"),
    "text": (lambda: _write("a.npz", b"masks"), "not a NumPy archive"),
    "no list": (lambda: _dump("regions/a.json", {"masks": []}), "no `annotations`"),
    "one damaged code": (
        lambda: _dump("regions/a.json", [*_masks(), {"segmentation": {"size": [30, 40], "counts": "o"}}]),
        "annotation 4: its RLE cannot be read: invalid or missing characters",
    ),
    "no mask": (lambda: _dump("regions/a.json", [{"segmentation": "x", "bbox": [0, 0, 1, 1]}]), "annotation 1: "),
    "a code too long": (
        lambda: _dump("regions/a.json", [{"segmentation": {"size": [30, 40], "counts": [0, 1_000_000_000]}}]),
        "annotation 1: its RLE is neither a string nor a list of numbers of pixels",
    ),
    "another size": (
        lambda: _dump("regions/a.json", [{"segmentation": {"size": [3, 4], "counts": [12]}}]),
        "annotation 1: its RLE has size",
    ),
    "floats": (lambda: _archive(ids=IDS / 2), "`ids` is float64"),
    "below 0": (lambda: _archive(ids=-IDS), "values below 0"),
    "pickles": (lambda: _archive(ids=np.array([{}])), "Object arrays cannot be loaded"),
    "no known array": (lambda: _archive(other=IDS), "no array masks"),
    "size in COCO": (lambda: _dump("regions/a.json", _coco(height=31)), "31 x 40"),
}


def _write(names: str, data: bytes) -> None:
    Path("regions").mkdir()
    for name in names.split():
        Path("regions", name).write_bytes(data)


def _pipe(names: str) -> None:
    _write(names, b"")
    Path("regions", names.rsplit(maxsplit=1)[-1]).unlink()
    os.mkfifo(Path("regions", names.rsplit(maxsplit=1)[-1]))


def _zip(member: str, data: bytes) -> None:
    Path("regions").mkdir()
    with zipfile.ZipFile("regions/a.npz", "w") as archive:
        archive.writestr(member, data)


def _rgb48() -> bytes:
    """A PNG of 40 x 30 pixels with 16 bits per channel, all 3, which Pillow reads as 0."""
    chunks = {
        b"IHDR": (40).to_bytes(4, "big") + (30).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0]),
        b"IDAT": zlib.compress((b"\0" + b"\0\3" * 120) * 30),
        b"IEND": b"",
    }
    parts = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_cannot_be_used(case: str) -> None:
    write, reason = HOSTILE[case]
    write()
    with pytest.raises(ImageError, match=reason):
        RegionSource(Path("regions")).find(REF).read(SIZE)


def test_a_huge_array_is_not_unpacked() -> None:
    Path("regions").mkdir()
    with zipfile.ZipFile("regions/a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("masks.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|b1", "fortran_order": False, "shape": (1_000_000, 30, 40)}
        )
        for _ in range(1100):
            file.write(bytes(1 << 20))
    with pytest.raises(ImageError, match="the limit is 1,073,741,824"):
        RegionSource(Path("regions")).find(REF).read(SIZE)


def test_regions_that_could_belong_to_several_images() -> None:
    """Both fail, whichever comes first; without a list of the images, the second does."""
    _save("regions/a.png", IDS.astype(np.uint8))
    other = ImageRef(Path("x/a.jpg"), PurePosixPath("x/a.jpg"))
    source = RegionSource(Path("regions"))
    source.find(REF)
    source.find(REF)
    with pytest.raises(ImageError, match=r"'?a'? could belong to sub/a.jpg, x/a.jpg"):
        source.find(other)
    source = RegionSource(Path("regions"))
    source.names.expect([REF, other])
    for ref in (REF, other):
        with pytest.raises(ImageError, match=r"could belong to sub/a.jpg, x/a.jpg"):
            source.find(ref)


def test_panoptic_files_are_read_from_their_pictures() -> None:
    _save("regions/panoptic/sub/a.png", _colours())
    _dump("regions/panoptic.json", {"images": [], "annotations": [{"segments_info": [], "file_name": "a.png"}]})
    assert len(np.unique(RegionSource(Path("regions")).find(REF).read(SIZE))) == 4


#: Changes of a COCO file, and the reason for refusing it.
LISTINGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no id": (lambda value: value["images"][0].pop("id"), "no `id`"),
    "an id of text": (lambda value: value["images"][0].update(id="7"), "`id` is"),
    "an id that is a list": (lambda value: value["images"][0].update(id=[7]), "`id` is"),
    "one id twice": (lambda value: value["images"].append(value["images"][0]), "two images have the id 7"),
    "one name twice": (
        lambda value: value["images"].append({**value["images"][0], "id": 8}),
        "two images have the file name",
    ),
    "an unknown image": (lambda value: value["annotations"][0].update(image_id=9), "annotations refer to image 9"),
}


@pytest.mark.parametrize("case", LISTINGS)
def test_lists_with_wrong_records(case: str) -> None:
    change, reason = LISTINGS[case]
    value = _coco()
    change(value)
    _dump("a.json", value)
    with pytest.raises(ImageError, match=reason):
        RegionSource(Path("a.json"))


def test_an_output_folder_without_regions() -> None:
    _dump("regions/run.json", {})
    with pytest.raises(InputError, match="lacks the format instances"):
        RegionSource(Path("regions"))
