"""`tipsseg label --format geotiff,geojson,gpkg`: rasters in blocks, with the labels and the coordinates of the whole."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.control
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags
from rasters import PixelPicture, drawn, write_raster
from running import Command

import tipsseg
from tipsseg.folder.labels import RunContext
from tipsseg.formats import blocks
from tipsseg.formats.blocks import LabelBlock
from tipsseg.images import decoders
from tipsseg.labelling.blocks import BlockFiles, BlockLabeller
from tipsseg.labelling.view import window_starts
from tipsseg.plugins.geo.formats import GeoTiff
from tipsseg.plugins.geo.pictures import Raster, has_coordinates
from tipsseg.types import BlockPlace

CLASSES = ("car", "tree", "road")
OPTIONS = ["-c", ",".join(CLASSES), "-m", "tiny", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 512)


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as raster:
        return raster.read(1)


def whole(pixels: NDArray[np.uint8], **options: Any) -> tipsseg.LabelMap:
    """The labels of the whole raster, at its own resolution."""
    height, width = pixels.shape[:2]
    labeller = tipsseg.Labeller(tipsseg.load("tiny", device="cpu"), CLASSES, **options)
    return BlockLabeller(labeller, PixelPicture(pixels)).label(BlockPlace(0, 0, 0, height, width))


@pytest.mark.parametrize("size", [(1100, 1300), (150, 900)], ids=str)
@pytest.mark.parametrize("minimum", [0, 0.6])
def test_the_labels_are_those_of_the_whole_image(
    command: Command, tmp_path: Path, size: tuple[int, int], minimum: float
) -> None:
    pixels = drawn(*size)
    write_raster(tmp_path / "scene.tif", pixels)
    ran = command(
        "label", tmp_path / "scene.tif", "-o", tmp_path / "out", *OPTIONS, "-f", "geotiff", "--min-confidence", minimum
    )
    assert ran.code == 0, ran.err
    expected = whole(pixels, min_confidence=minimum)
    assert (read(tmp_path / "out/masks/scene.tif") == expected.labels).all()
    (entry,) = map(json.loads, (tmp_path / "out/manifest.jsonl").read_text().splitlines())
    assert entry["ignored"] == (expected.labels == 255).sum()
    assert {each["name"]: each["pixels"] for each in entry["classes"]} == {
        name: number for id_, name in enumerate(CLASSES, 1) if (number := int((expected.labels == id_).sum()))
    }


def test_labels_differ_from_those_of_an_image_at_borders_of_windows_alone(command: Command, tmp_path: Path) -> None:
    """There, the weight of a window fades, so that labels change as seldom as elsewhere."""
    pixels = drawn(700, 900)
    write_raster(tmp_path / "scene.tif", pixels)
    assert command("label", tmp_path / "scene.tif", "-o", tmp_path / "out", *OPTIONS, "-f", "geotiff").code == 0
    model = tipsseg.load("tiny", device="cpu")
    side, labels = model.backbone.native_size, read(tmp_path / "out/masks/scene.tif")
    image = model.label(pixels, CLASSES, short_side=700).labels
    near, seams = [], []
    for length in pixels.shape[:2]:
        starts = window_starts(length, side)
        borders = np.array([each for start in starts for each in (start, start + side) if 0 < each < length])
        near.append((np.abs(np.arange(length)[:, None] + 0.5 - borders) < model.backbone.patch_size / 2).any(1))
        seams.append(borders)
    far = ~(near[0][:, None] | near[1])
    assert (labels == image)[far].all()

    def changes(ids: NDArray[Any]) -> float:
        return float((ids[seams[0] - 1] != ids[seams[0]]).mean() + (ids[:, seams[1] - 1] != ids[:, seams[1]]).mean())

    assert changes(labels) < 0.5 * changes(image)


def test_files_have_the_coordinates_of_the_input(command: Command, tmp_path: Path) -> None:
    pixels, out = drawn(700, 1200), tmp_path / "out"
    path = write_raster(tmp_path / "scene.tif", pixels, metres=0.5)
    assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff,geojson,gpkg").code == 0
    with rasterio.open(path) as source, rasterio.open(out / "masks/scene.tif") as mask:
        assert (mask.crs, mask.transform, mask.shape) == (source.crs, source.transform, source.shape)
        assert (mask.nodata, mask.profile["tiled"], mask.overviews(1)) == (255, True, [2, 4])
        assert json.loads(mask.tags()["TIPSSEG"])["image"] == "scene.tif"
        assert {key: value for key, value in mask.tags().items() if key.startswith("class")} == {
            f"class_{number}": name for number, name in enumerate(CLASSES, 1)
        }
        assert mask.colormap(1)[1][3] == 255
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        labels = mask.read(1)
    for name, layer in (("geojson", "scene"), ("gpkg", "labels")):
        file = out / f"polygons/scene.{name}"
        info = pyogrio.read_info(file)
        assert (info["layer_name"], info["crs"]) == (layer, "EPSG:32632")
        _, _, _, (names, ids, scores, areas, counts) = pyogrio.raw.read(file)
        for number, class_name in enumerate(CLASSES, 1):
            own = names == class_name
            assert set(ids[own]) <= {number}
            assert counts[own].sum() == (labels == number).sum()
            assert areas[own].sum() == pytest.approx((labels == number).sum() * 0.25)  # square metres
        assert ((scores > 0) & (scores <= 1)).all()
    # Painting the polygons gives the labels back.
    from rasterio.features import rasterize

    features = json.loads((out / "polygons/scene.geojson").read_text())["features"]
    shapes = [(feature["geometry"], feature["properties"]["class_id"]) for feature in features]
    with rasterio.open(path) as source:
        painted = rasterize(shapes, source.shape, transform=source.transform)
    assert (painted == np.where(labels == 255, 0, labels)).all()
    assert "nothing wrong" in command("check", out).err


@pytest.mark.parametrize("instances", ["component", "class"])
def test_polygons_are_those_of_the_whole(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instances: Literal["component", "class"]
) -> None:
    pixels, out = drawn(700, 1200), tmp_path / "out"
    path, words = write_raster(tmp_path / "scene.tif", pixels), (*OPTIONS, "-f", "geojson", "--min-area", 40)
    assert command("label", path, "-o", out, *words, "--instances", instances).code == 0
    monkeypatch.setattr(blocks, "BLOCK", 2048)
    assert command("label", path, "-o", tmp_path / "whole", *words, "--instances", instances).code == 0
    assert places(out) == places(tmp_path / "whole")
    found = properties(out / "polygons/scene.geojson")
    expected = whole(pixels).find_objects(min_area=40, instances=instances)
    assert sorted((each["class"], each["pixels"]) for each in found) == sorted(
        (each.name, each.area) for each in expected
    )
    scores = sorted((each.name, each.area, each.score) for each in expected)
    ordered = sorted((each["class"], each["pixels"], each["score"]) for each in found)
    for one, other in zip(ordered, scores, strict=True):
        assert one[2] == pytest.approx(other[2], abs=2e-4)


def places(out: Path) -> set[str]:
    """The polygons of a folder: without scores, whose last digits differ, and without the order of the parts of an object."""
    features = json.loads((out / "polygons/scene.geojson").read_text())["features"]
    for feature in features:
        feature["properties"]["score"] = 0
        polygons = feature["geometry"]["coordinates"]
        feature["geometry"]["coordinates"] = sorted([outer, *sorted(holes)] for outer, *holes in polygons)
    return {json.dumps(feature) for feature in features}


def test_bands_and_stretch(command: Command, tmp_path: Path) -> None:
    pixels = drawn(300, 400)
    dark = np.zeros((300, 400, 5), np.uint16)
    dark[..., [3, 2, 1]] = pixels.astype(np.uint16) * 12 + 300
    write_raster(tmp_path / "scene.tif", dark)
    out = tmp_path / "out"
    for bands, stretch in (("4,3,2", "0,100"), ("1", "0,100")):
        arguments = ["-f", "geotiff", "--bands", bands, "--stretch", stretch]
        assert command("label", tmp_path / "scene.tif", "-o", out / bands, *OPTIONS, *arguments).code == 0
    assert "nothing wrong" in command("check", out / "1").err
    loud = [word for word in OPTIONS if word != "--quiet"]
    plain = command("label", tmp_path / "scene.tif", "-o", out / "plain", *loud, "-f", "geotiff", "--bands", "4,3,2")
    assert "its values reach 3,3" in plain.err, plain.err
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    stretched = np.rint((pixels - low) * 255 / (high - low)).astype(np.uint8)
    different = (read(out / "4,3,2/masks/scene.tif") != whole(stretched).labels).mean()
    assert different < 0.002  # rounding in float32
    assert not (read(out / "1/masks/scene.tif") == whole(stretched).labels).all()
    repeated = command("label", tmp_path / "scene.tif", "-o", tmp_path / "re", "--from", out / "4,3,2", "-q")
    assert repeated.code == 0, repeated.err
    assert (read(tmp_path / "re/masks/scene.tif") == read(out / "4,3,2/masks/scene.tif")).all()


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("float64", {}), ("uint8", {"BIGTIFF": "YES", "ENDIANNESS": "BIG"})],
    ids=["float64", "big-endian BigTIFF"],
)
def test_what_pillow_lacks_is_labelled_as_the_hint_says(
    command: Command, tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    path = write_raster(tmp_path / "scene.tif", drawn(60, 60)[..., :1].astype(dtype), **options)
    ran = command("label", path, "-o", tmp_path / "out", *OPTIONS, "-f", "png")
    assert ran.code == 1
    assert all(flag in ran.err for flag in ("geotiff", "--bands", "--stretch")), ran.err
    followed = ("-f", "geotiff", "--bands", "1", "--stretch", "2,98")
    assert command("label", path, "-o", tmp_path / "raster", *OPTIONS, *followed).code == 0


@pytest.mark.parametrize("system", ["EPSG:3035", "ESRI:102014", "+proj=laea +lat_0=47 +lon_0=11 +ellps=GRS80 +units=m"])
def test_polygons_keep_any_coordinate_system(command: Command, tmp_path: Path, system: str) -> None:
    path = write_raster(tmp_path / "scene.tif", drawn(60, 60), crs=system)
    assert command("label", path, "-o", tmp_path / "out", *OPTIONS, "-f", "geojson").code == 0
    told = pyogrio.read_info(tmp_path / "out/polygons/scene.geojson")["crs"]
    with rasterio.open(path) as source:
        assert rasterio.CRS.from_user_input(told) == source.crs


def test_pixels_without_data_are_ignored(command: Command, tmp_path: Path) -> None:
    pixels = drawn(600, 700)
    pixels[100:300, 200:600] = 0
    pixels[pixels.sum(2) == 0] = 0
    write_raster(tmp_path / "scene.tif", pixels, nodata=0)
    assert command("label", tmp_path / "scene.tif", "-o", tmp_path / "out", *OPTIONS, "-f", "geotiff,geojson").code == 0
    labels = read(tmp_path / "out/masks/scene.tif")
    empty = (pixels == 0).any(2)
    assert (labels[empty] == 255).all()
    assert (labels[~empty] == whole(pixels).labels[~empty]).all()


def test_holes_of_a_sparse_raster_are_not_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their labels are those of a raster with the same values in all tiles."""
    pixels = np.zeros((1600, 1600, 3), np.uint8)
    pixels[600:900, 700:1100] = drawn(300, 400)
    write_raster(tmp_path / "dense/scene.tif", pixels, nodata=0, blockxsize=256, blockysize=256)
    sparse = write_raster(
        tmp_path / "sparse/scene.tif", pixels, nodata=0, blockxsize=256, blockysize=256, sparse_ok=True
    )
    assert sparse.stat().st_size < (tmp_path / "dense/scene.tif").stat().st_size / 5
    valid, looked_at = Raster.valid, []

    def spy(raster: Raster, *place: int) -> NDArray[np.bool_]:
        found = valid(raster, *place)
        looked_at.extend([place] if found.shape == place[2:] else [])
        return found

    monkeypatch.setattr(Raster, "valid", spy)
    for name in ("dense", "sparse"):
        arguments = [*OPTIONS, "-f", "geotiff,geojson"]
        assert command("label", tmp_path / name, "-o", tmp_path / "out" / name, *arguments).code == 0
    assert len(looked_at) == 16 + 2
    one, other = (tmp_path / "out" / name for name in ("dense", "sparse"))
    assert (read(one / "masks/scene.tif") == read(other / "masks/scene.tif")).all()
    assert (one / "polygons/scene.geojson").read_bytes() == (other / "polygons/scene.geojson").read_bytes()


def test_a_palette_is_read_as_its_colours(command: Command, tmp_path: Path) -> None:
    picture = Image.fromarray(drawn(300, 400)).quantize(200)
    write_raster(tmp_path / "scene.tif", np.asarray(picture)[..., None])
    colours: list[list[int]] = np.array(picture.getpalette()).reshape(-1, 3).tolist()
    with rasterio.open(tmp_path / "scene.tif", "r+") as raster:
        raster.write_colormap(1, {index: tuple(colour) for index, colour in enumerate(colours)})
    arguments = (*OPTIONS, "-f", "geotiff")
    assert command("label", tmp_path / "scene.tif", "-o", tmp_path / "out", *arguments).code == 0
    assert (read(tmp_path / "out/masks/scene.tif") == whole(np.asarray(picture.convert("RGB"))).labels).all()
    ran = command("label", tmp_path / "scene.tif", "-o", tmp_path / "other", *arguments, "--stretch", "2,98")
    assert "the colours of a palette cannot be stretched" in ran.err


def test_pixels_that_are_no_numbers_are_ignored(command: Command, tmp_path: Path) -> None:
    pixels = drawn(300, 400).astype(np.float32)
    pixels[50:100, 60:200, 1] = np.nan
    write_raster(tmp_path / "scene.tif", pixels)
    ran = command(
        "label", tmp_path / "scene.tif", "-o", tmp_path / "out", *OPTIONS, "-f", "geotiff", "--stretch", "0,100"
    )
    assert ran.code == 0, ran.err
    labels = read(tmp_path / "out/masks/scene.tif")
    assert ((labels == 255) == np.isnan(pixels).any(2)).all()


def test_a_grid_without_a_coordinate_system(command: Command, tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", drawn(128, 128), metres=2, crs="")
    loud = [word for word in OPTIONS if word != "--quiet"]
    ran = command("label", tmp_path / "scene.tif", "-o", tmp_path / "out", *loud, "-f", "geojson")
    assert "coordinates and areas are in units of that grid" in ran.err, ran.err
    (feature, *_) = json.loads((tmp_path / "out/polygons/scene.geojson").read_text())["features"]
    assert feature["properties"]["area"] == 4 * feature["properties"]["pixels"]


def test_a_ground_resolution_is_that_of_the_labels(command: Command, tmp_path: Path) -> None:
    pixels = drawn(1024, 1400)
    path = write_raster(tmp_path / "scene.tif", pixels, metres=0.25)
    for name, arguments in {"resolution": ["--ground-resolution", 0.5], "scale": ["--scales", 0.5]}.items():
        assert command("label", path, "-o", tmp_path / name, *OPTIONS, "-f", "geotiff", *arguments).code == 0
    with rasterio.open(tmp_path / "resolution/masks/scene.tif") as mask:
        assert (mask.shape, mask.res, tuple(mask.bounds)) == (
            (512, 700), (0.5, 0.5), (500_000, 4_999_744, 500_350, 5_000_000),
        )  # fmt: skip
        labels = mask.read(1)
    assert (labels == read(tmp_path / "scale/masks/scene.tif")).all()
    assert "nothing wrong" in command("check", tmp_path / "scale").err
    # Two by two pixels are averaged, as if the whole scene were.
    halved = np.rint(pixels.reshape(512, 2, 700, 2, 3).mean((1, 3))).astype(np.uint8)
    assert (labels != whole(halved).labels).mean() < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stretch", "98,2"], "not a pair of percentiles"),
        (["-f", "geotiff,png", "--bands", "1"], "works only without other formats"),
        (["-f", "geotiff", "--bands", "1,2"], "neither one band nor three"),
        (["-f", "geotiff", "--ground-resolution", "0"], "must be above 0"),
        (["-f", "geotiff", "--short-side", "300"], "--short-side cannot be used with the format geotiff"),
        (["-f", "geotiff", "--scales", "2", "--ground-resolution", "1"], "exclude each other"),
    ],
)
def test_wrong_options(command: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    path = write_raster(tmp_path / "scene.tif", drawn(64, 64))
    ran = command("label", path, "-o", tmp_path / "out", *OPTIONS, *arguments)
    assert (ran.code, message in ran.err) == (2, True), ran.err


def unfit(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Files that are refused, by name: further arguments, and a part of the message."""
    pixels = drawn(64, 64)
    write_raster(folder / "bands.tif", pixels[..., :2])
    write_raster(folder / "floats.tif", pixels.astype(np.float32))
    write_raster(folder / "complex.tif", pixels.astype(np.complex64))
    write_raster(folder / "nowhere.tif", pixels, crs=None)
    write_raster(folder / "degrees.tif", pixels, crs="EPSG:4326")
    write_raster(folder / "tiny.tif", pixels[:5, :5])
    write_raster(folder / "nan.tif", pixels, transform=rasterio.Affine(math.nan, 0, 0, 0, math.nan, 0))
    corners = [(0, 0), (0, 64), (64, 0)]
    points = [rasterio.control.GroundControlPoint(row=y, col=x, x=10 + x, y=50 - y, z=0) for y, x in corners]
    write_raster(folder / "points.tif", pixels, crs="EPSG:4326", transform=None, gcps=points)
    write_raster(folder / "cut.tif", drawn(600, 600))
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:200_000])
    (folder / "text.tif").write_text("nothing")
    Image.fromarray(pixels).save(folder / "large.png")
    return {
        "bands.tif": (["--bands", "3,2,1"], "no band 3: it has 2"),
        "floats.tif": ([], "float32 have no 8-bit equivalent"),
        "complex.tif": (["--stretch", "2,98"], "complex64 have no 8-bit equivalent"),
        "nowhere.tif": (["--ground-resolution", "1"], "it has no coordinate system"),
        "degrees.tif": (["--ground-resolution", "1"], "its coordinate system is not projected"),
        "nan.tif": ([], "its coordinates are not finite"),
        "points.tif": ([], "it has ground control points in place of a grid"),
        "tiny.tif": ([], "smaller than a patch"),
        "cut.tif": ([], "broken raster"),
        "text.tif": ([], "not a GeoTIFF, JPEG 2000, PNG or JPEG"),
        "large.png": (["--max-pixels", "4000"], "cannot be read by windows"),
    }


def test_unfit_rasters_are_refused(command: Command, tmp_path: Path) -> None:
    for name, (arguments, message) in unfit(tmp_path).items():
        ran = command("label", tmp_path / name, "-o", tmp_path / name[:-4], *OPTIONS, "-f", "geotiff", *arguments)
        assert (ran.code, ran.err.count(message), len(ran.err.splitlines())) == (1, 1, 1), (name, ran.err)


def test_other_commands_refuse_rasters(command: Command, tmp_path: Path) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(64, 64)), tmp_path / "out"
    assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff").code == 0
    edit(out / "masks/scene.tif")
    (tmp_path / "truth").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "truth/scene.png")
    for arguments in (
        ["convert", out, "-f", "png"],
        ["convert", out, "-f", "geojson,coco"],
        ["report", out],
        ["correct", out, "--from", out / "masks"],
        ["eval", out, "--gt", tmp_path / "truth"],
        ["fit", out, "-o", tmp_path / "its.fit"],
    ):
        ran = command(*arguments)
        assert (ran.code != 0, "geotiff" in ran.err) == (True, True), (arguments, ran.err)
    mixed = command("label", path, "-o", out, *OPTIONS, "-f", "png")
    assert (mixed.code, "other settings: raster yes -> no" in mixed.err) == (1, True), mixed.err
    assert command("label", path, "-o", tmp_path / "plain", *OPTIONS, "-f", "png").code == 0
    mixed = command("label", path, "-o", tmp_path / "plain", *OPTIONS, "-f", "geotiff")
    assert (mixed.code, "other settings: raster no -> yes" in mixed.err) == (1, True), mixed.err


def edit(path: Path, label: int = 2, **profile: Any) -> NDArray[Any]:
    """Save a mask as a GIS does, with a label in its last columns. Return it."""
    with rasterio.open(path) as mask:
        before, labels = mask.profile, mask.read(1)
    labels[:, -40:] = label
    after = {**before, "driver": "GTiff", **profile}
    labels = labels[: after["height"]].astype(after["dtype"])
    with rasterio.open(path, "w", **after) as mask:
        for band in range(after["count"]):
            mask.write(labels, band + 1)
    return labels


def test_a_mask_changed_by_hand_is_a_label(command: Command, tmp_path: Path) -> None:
    write_raster(tmp_path / "in/a.tif", drawn(300, 700))
    write_raster(tmp_path / "in/b.tif", drawn(100, 120))
    out = tmp_path / "out"
    again = ["label", tmp_path / "in", "-o", out, *OPTIONS, "-f", "geotiff,geojson,gpkg"]
    assert command(*again).code == 0
    for mask, arguments in (("a", ["convert", out, "-f", "geojson"]), ("b", again)):
        labels = edit(out / f"masks/{mask}.tif")
        (out / f"polygons/{mask}.geojson").unlink()
        ran = command(*arguments)
        assert ran.code == 0, ran.err
        counts = {number: int((labels == number).sum()) for number in (1, 2, 3)}
        of_gpkg = pyogrio.raw.read(out / f"polygons/{mask}.gpkg")[3]
        found = [(each["class_id"], each["pixels"]) for each in properties(out / f"polygons/{mask}.geojson")]
        for objects in (found, list(zip(of_gpkg[1], of_gpkg[4], strict=True))):
            assert {number: sum(area for own, area in objects if own == number) for number in counts} == counts
        assert (read(out / f"masks/{mask}.tif") == labels).all()
        checked = command("check", out)
        assert (checked.code, "nothing wrong" in checked.err) == (0, True), checked.err
        entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
        (entry,) = (entry for entry in entries if entry["image"] == f"{mask}.tif")
        assert entry["corrected"]["accepted"] is False
        assert {each["id"]: each["pixels"] for each in entry["classes"]} == {
            number: count for number, count in counts.items() if count
        }
    assert "Left out 2 corrected images" in command("rank", out).err


@pytest.mark.parametrize(
    ("profile", "fault"),
    [
        ({"label": 9}, "unknown ids: 9"),
        ({"count": 3}, "3 bands"),
        ({"dtype": "uint16"}, "1 band of uint16"),
        ({"height": 299}, "299 x 700"),
        ({"crs": None}, "coordinates"),
        ({"transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000.01)}, "coordinates"),
        ({}, "cannot be read"),
    ],
    ids=str,
)
def test_a_mask_that_is_no_label_is_named(
    command: Command, tmp_path: Path, profile: dict[str, Any], fault: str
) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(300, 700)), tmp_path / "out"
    again = ["label", path, "-o", out, *OPTIONS, "-f", "geotiff,geojson"]
    assert command(*again).code == 0
    mask, polygons = out / "masks/scene.tif", out / "polygons/scene.geojson"
    before = polygons.read_bytes()
    edit(mask, **profile)
    if not profile:
        mask.write_bytes(mask.read_bytes()[:100])
    kept = mask.read_bytes()
    polygons.unlink()
    for arguments in (["convert", out, "-f", "geojson"], again):
        ran = command(*arguments)
        assert (ran.code, str(polygons) in ran.out, fault in ran.err) == (1, False, True), ran.err
        assert ("--undo" if profile else "delete it") in ran.err
    assert fault in command("check", out).out
    assert mask.read_bytes() == kept
    assert command("correct", out, "--undo", "scene.tif").code == 0
    assert command(*again).code == 0
    assert polygons.read_bytes() == before
    assert "nothing wrong" in command("check", out).err


def test_without_a_cache_a_mask_tells_its_coordinates(command: Command, tmp_path: Path) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(100, 120)), tmp_path / "out"
    assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff").code == 0
    mask = out / "masks/scene.tif"
    shutil.rmtree(out / ".tipsseg")
    with rasterio.open(mask, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as raster:
        raster.crs = "EPSG:32633"
    ran = command("label", path, "-o", out, *OPTIONS)
    assert (ran.code, "coordinates" in ran.err) == (1, True), ran.err


def test_without_a_cache_files_of_a_raster_stay_as_they_are(command: Command, tmp_path: Path) -> None:
    """Of a mask that a program wrote again without its tags, what it says is put back first."""
    path, out = write_raster(tmp_path / "scene.tif", drawn(300, 700)), tmp_path / "out"
    again = ["label", path, "-o", out, *OPTIONS, "-f", "geotiff,geojson,gpkg"]
    assert command(*again).code == 0
    mask, before = out / "masks/scene.tif", labels_of(out)
    assert properties(out / "polygons/scene.geojson")[0]["score"] is not None
    shutil.rmtree(out / ".tipsseg")
    assert command(*again).code == 0
    assert (labels_of(out), (out / "replaced").exists()) == (before, False)
    with rasterio.open(mask) as raster:
        profile, labels, colours = raster.profile, raster.read(1), raster.colormap(1)
    with rasterio.open(mask, "w", **profile) as raster:
        raster.write_colormap(1, colours)
        raster.write(labels, 1)
    assert command(*again).code == 0
    shutil.rmtree(out / ".tipsseg")
    ran = command(*again)
    assert (ran.code, "edited" in ran.err, (read(mask) == labels).all()) == (0, False, True), ran.err


def labels_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*.*") if path.parent.name in ("masks", "polygons")}


def test_without_a_cache_a_mask_that_says_nothing_is_taken_in_beside_a_new_one(
    command: Command, tmp_path: Path
) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(100, 120)), tmp_path / "out"
    again, mask = ["label", path, "-o", out, *OPTIONS], out / "masks/scene.tif"
    assert command(*again, "-f", "geotiff").code == 0
    shutil.rmtree(out / ".tipsseg")
    (out / "manifest.jsonl").unlink()  # else it tells
    labels, mine = edit(mask), mask.read_bytes()
    ran = command(*again)
    assert (ran.code, mask.read_bytes()) == (1, mine)
    assert "Move the mask elsewhere, label the image again, and move the mask back." in ran.err
    mask.rename(tmp_path / "mine.tif")
    assert command(*again).code == 0
    (tmp_path / "mine.tif").rename(mask)
    assert command(*again).code == 0
    assert (read(mask) == labels).all()
    (entry,) = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    assert "corrected" in entry


def test_coordinates_that_a_tool_rounded_are_the_same(command: Command, tmp_path: Path) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(100, 120)), tmp_path / "out"
    assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff").code == 0
    edit(out / "masks/scene.tif", transform=rasterio.Affine(0.50000001, 0, 500_000.0001, 0, -0.5, 5_000_000))
    ran = command("label", path, "-o", out, *OPTIONS)
    assert ran.code == 0, ran.err
    edit(out / "masks/scene.tif", crs=None)
    ran = command("label", path, "-o", out, *OPTIONS)
    assert (ran.code, "coordinates" in ran.err) == (1, True), "a corrected mask has coordinates too"


def properties(path: Path) -> list[dict[str, Any]]:
    return [each["properties"] for each in json.loads(path.read_text())["features"]]


def test_convert_adds_polygons_to_masks_of_rasters(command: Command, tmp_path: Path) -> None:
    """They are those that label writes: masks have the scores."""
    path, classes = write_raster(tmp_path / "scene.tif", drawn(700, 900)), ["-c", "car,road,car/wheel", *OPTIONS[2:]]
    once, later = tmp_path / "once", tmp_path / "later"
    both = [*classes, "--min-area", 40]
    assert command("label", path, "-o", once, *both, "-f", "geotiff,geojson").code == 0
    assert command("label", path, "-o", later, *both, "-f", "geojson").code == 0
    (later / "polygons/scene.geojson").unlink()
    (path).unlink()
    ran = command("convert", later, "-f", "geotiff,geojson,gpkg")
    assert ran.code == 0, ran.err
    assert (read(once / "masks/scene.tif") == read(later / "masks/scene.tif")).all()
    written, added = (properties(each / "polygons/scene.geojson") for each in (once, later))
    assert places(once) == places(later)
    assert added == written
    scores = pyogrio.raw.read(later / "polygons/scene.gpkg")[3][2]
    assert scores.tolist() == [each["score"] for each in added]
    assert "nothing wrong" in command("check", later).err


def test_an_image_with_coordinates_keeps_them_by_default(command: Command, tmp_path: Path) -> None:
    write_raster(tmp_path / "in/scene.tif", drawn(300, 400))
    loud = OPTIONS[:-1]
    ran = command("label", tmp_path / "in", "-o", tmp_path / "out", *loud)
    assert (ran.code, "scene.tif is georeferenced: it is labelled at its full resolution" in ran.err) == (0, True), (
        ran.err
    )
    assert command("label", tmp_path / "in", "-o", tmp_path / "asked", *OPTIONS, "-f", "geotiff").code == 0
    one, other = (tmp_path / each / "masks/scene.tif" for each in ("out", "asked"))
    assert one.read_bytes() == other.read_bytes()
    assert command("label", tmp_path / "in", "-o", tmp_path / "out", *loud).out == ran.out
    refined = command("label", tmp_path / "in", "-o", tmp_path / "refined", *loud, "--refine", "pamr")
    assert (refined.code, "--refine cannot be used with the format geotiff" in refined.err) == (0, True), refined.err
    assert (tmp_path / "refined/masks/scene.png").exists()
    Image.fromarray(drawn(300, 400)).save(tmp_path / "in/plain.jpg")
    mixed = command("label", tmp_path / "in", "-o", tmp_path / "mixed", *loud)
    assert (mixed.code, "png, coco, overlay do not store" in mixed.err) == (0, True), mixed.err


@pytest.mark.parametrize(
    ("bands", "scale", "profile"),
    [
        (3, 257, {"dtype": "uint16"}),
        (4, 257, {"dtype": "uint16", "BIGTIFF": "YES", "ENDIANNESS": "BIG"}),
        (12, 1, {"dtype": "uint8", "ENDIANNESS": "BIG"}),
        (2, 1, {"dtype": "uint8", "BIGTIFF": "YES"}),
    ],
    ids=str,
)
def test_coordinates_are_seen_whatever_the_bands(
    command: Command, tmp_path: Path, bands: int, scale: int, profile: dict[str, Any]
) -> None:
    pixels = drawn(100, 120)
    many = np.concatenate([pixels] * 4, 2)[..., :bands].astype(profile["dtype"]) * scale
    path = write_raster(tmp_path / "scene.tif", many, **profile)
    ran = command("label", path, "-o", tmp_path / "out", *OPTIONS[:-1])
    assert (ran.code, "scene.tif is georeferenced" in ran.err) == (0, True), ran.err
    seen = pixels if bands > 2 else pixels[..., :1].repeat(3, 2)
    assert (read(tmp_path / "out/masks/scene.tif") == whole(seen).labels).all()


def test_a_raster_of_floats_is_asked_for_a_stretch(command: Command, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", drawn(100, 120).astype(np.float32))
    ran = command("label", path, "-o", tmp_path / "out", *OPTIONS)
    assert (ran.code, "--stretch" in ran.err, "damaged" in ran.err) == (1, True, False), ran.err
    assert command("label", path, "-o", tmp_path / "stretched", *OPTIONS, "--stretch", "2,98").code == 0
    assert (tmp_path / "stretched/masks/scene.tif").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II*\0",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0+\0\x08\0\0" + b"\xff" * 8,
        b"II+\0\x08\0\0\0\x10" + b"\0" * 7 + b"\xff" * 9,
    ],
)
def test_cut_headers_have_no_coordinates(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    assert not has_coordinates(tmp_path / "a.tif")


def test_white_may_be_zero(command: Command, tmp_path: Path) -> None:
    """Pillow inverts 8 bits alone, so deeper pictures are refused where it reads them."""
    grey = drawn(100, 120)[..., :1]
    for dtype, highest in ((np.uint8, 255), (np.uint16, 65535)):
        values = grey.astype(dtype) * (highest // 255)
        path = write_raster(tmp_path / f"{highest}.tif", highest - values, photometric="miniswhite")
        out = tmp_path / "out" / str(highest)
        for more in ([], ["--stretch", "0,100"]):
            arguments = [path, "-o", out / f"raster{len(more)}", *OPTIONS, "-f", "geotiff", *more]
            assert command("label", *arguments).code == 0
        plain = command("label", path, "-o", out / "plain", *OPTIONS, "-f", "png")
        assert (plain.code, "0 is white" in plain.err) == ((0, False) if highest == 255 else (1, True)), plain.err
        assert (read(out / "raster0/masks" / path.name) == whole(grey.repeat(3, 2)).labels).all()
        low, high = int(grey.min()), int(grey.max())
        stretched = np.rint((grey.astype(float) - low) * 255 / (high - low)).astype(np.uint8).repeat(3, 2)
        assert (read(out / "raster2/masks" / path.name) != whole(stretched).labels).mean() < 0.002


@pytest.mark.parametrize("apart", [False, True])
def test_signed_bytes_are_not_read_as_unsigned(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    """Another process, which decodes large pictures, does not tell how values are stored."""
    if apart:
        monkeypatch.setattr(decoders, "_FEW", 0)
    values = (drawn(100, 120)[..., :1].astype(np.int16) - 128).astype(np.int8)
    path = write_raster(tmp_path / "scene.tif", values, compress="deflate")
    ran = command("label", path, "-o", tmp_path / "out", *OPTIONS, "-f", "png")
    assert (ran.code, "signed" in ran.err) == (1, True), ran.err


def test_coordinates_of_a_picture_that_its_metadata_turn_are_left_out(command: Command, tmp_path: Path) -> None:
    tags = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0)}
    kinds = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in tags.items():
        kinds.tagtype[tag] = TiffTags.DOUBLE
        kinds[tag] = values
    kinds[274] = 6
    Image.fromarray(drawn(128, 128)).save(tmp_path / "scene.tif", tiffinfo=kinds)
    with rasterio.open(tmp_path / "scene.tif") as raster:
        assert raster.transform.c == 500_000
    out = tmp_path / "out"
    assert command("label", tmp_path / "scene.tif", "-o", out, *OPTIONS, "-f", "png").code == 0
    ran = command("convert", out, "-f", "geotiff")
    assert (ran.code, "scene.tif has no coordinates" in ran.err) == (0, True), ran.err
    with rasterio.open(out / "masks/scene.tif") as mask:
        assert mask.transform.is_identity


def test_labels_of_whole_images_become_masks_and_polygons_with_coordinates(command: Command, tmp_path: Path) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(300, 400)), tmp_path / "out"
    assert command("label", path, "-o", out, *OPTIONS, "-f", "png,coco").code == 0
    ran = command("convert", out, "-f", "geotiff,geojson,gpkg")
    assert ran.code == 0, ran.err
    with rasterio.open(path) as source, rasterio.open(out / "masks/scene.tif") as mask:
        assert (mask.crs, mask.transform, mask.nodata) == (source.crs, source.transform, 255)
        assert (mask.read(1) == np.asarray(Image.open(out / "masks/scene.png"))).all()
    coco = json.loads((out / "annotations.json").read_text())["annotations"]
    polygons = properties(out / "polygons/scene.geojson")
    assert [(each["class_id"], each["pixels"]) for each in polygons] == [
        (each["category_id"], each["area"]) for each in coco
    ]
    assert all(each["score"] > 0 for each in polygons)
    dropped = command("convert", out, "--drop", "coco")
    assert dropped.code == 0, dropped.err
    edited = np.asarray(Image.open(out / "masks/scene.png")).copy()
    edited[:50] = 2
    Image.fromarray(edited).save(out / "masks/scene.png")
    again = command("label", path, "-o", out, *OPTIONS)
    assert again.code == 0, again.err
    assert (read(out / "masks/scene.tif") == edited).all()
    assert "nothing wrong" in command("check", out).err


def test_pictures_without_coordinates_have_places_in_pixels(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.fromarray(drawn(150, 200))
    picture.save(tmp_path / "in/a.webp")
    picture.save(tmp_path / "in/b.jpg", exif=exif)
    picture.save(tmp_path / "in/c.gif")
    out = tmp_path / "out"
    assert command("label", tmp_path / "in", "-o", out, *OPTIONS, "-f", "png").code == 0
    ran = command("convert", out, "-f", "geotiff,geojson")
    assert (ran.code, "a.webp has no coordinates, like 2 more images" in ran.err) == (0, True), ran.err
    for name in ("a", "b", "c"):
        assert (read(out / f"masks/{name}.tif") == np.asarray(Image.open(out / f"masks/{name}.png"))).all()
    assert command("label", tmp_path / "in", "-o", out, *OPTIONS).code == 0


def test_a_folder_of_images_does_not_become_one_of_rasters(command: Command, tmp_path: Path) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(64, 64)), tmp_path / "out"
    assert command("label", path, "-o", out, *OPTIONS, "-f", "coco").code == 0
    assert command("convert", out, "-f", "geotiff").code == 0
    assert command("convert", out, "--drop", "coco").code == 0
    ran = command("convert", out, "--drop", "png")
    assert (ran.code, "png cannot be dropped: it holds the labels" in ran.err) == (2, True), ran.err
    assert json.loads((out / "run.json").read_text())["formats"] == ["png", "geotiff"]
    assert command("check", out).code == 0


def test_blocks_of_an_interrupted_run_have_what_the_next_one_needs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats are no part of the digest, but polygons are a part of the blocks."""
    path, out = write_raster(tmp_path / "scene.tif", drawn(300, 700)), tmp_path / "out"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GeoTiff, "write_mask", stop)
        assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff").code == 130
    assert len(list((out / ".tipsseg/blocks").glob("*/*.npz"))) == 2
    assert command("label", path, "-o", out, *OPTIONS, "-f", "geotiff,geojson").code == 0
    features = json.loads((out / "polygons/scene.geojson").read_text())["features"]
    assert (
        sum(each["properties"]["pixels"] for each in features)
        == np.isin(read(out / "masks/scene.tif"), (1, 2, 3)).sum()
    )
    assert not (out / ".tipsseg/blocks").exists()  # the blocks without polygons are gone too


@pytest.mark.parametrize("name", ["geotiff", "geojson", "gpkg"])
def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, out = write_raster(tmp_path / "scene.tif", drawn(64, 64)), tmp_path / "out"
    real = BlockFiles.read

    def fail(blocks: BlockFiles, run: RunContext) -> Iterator[LabelBlock]:
        yield from real(blocks, run)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BlockFiles, "read", fail)
    ran = command("label", path, "-o", out, *OPTIONS, "-f", name)
    assert (ran.code, "no space left on the device" in ran.err) == (1, True), ran.err
    assert not [file for folder in ("masks", "polygons") for file in (out / folder).glob("*")]
