"""The label files, byte by byte where they are small, and as their readers see them."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from output_folders import image_labels, make_run, save_inputs
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tipsseg.errors import ImageError, UsageError
from tipsseg.formats import FORMATS, IMAGE_FORMATS, check_format, image_folders
from tipsseg.formats.base import ImageLabels, PartsFormat, Rows, RunFacts
from tipsseg.formats.classes_file import classes_json
from tipsseg.formats.cvat import label_map_text
from tipsseg.formats.label_studio import local_files_url
from tipsseg.formats.yolo import is_for_validation
from tipsseg.label_map import LabelMap
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.options.values import Shard
from tipsseg.regions.drawing import colour_labels, draw_labels
from tipsseg.regions.objects import labelled_objects
from tipsseg.types import IGNORED_COLOUR, ImageRef, LabelArray, LabelClass, TopClasses, label_dtype
from tipsseg.vocabulary.palette import colour

# pycocotools' readers trip over numpy 2's newer protocol; the package does not call them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def classes_of(*names: str) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(number, name, colour(number)) for number, name in enumerate(names, 1))


def numbered(count: int) -> tuple[LabelClass, ...]:
    return classes_of(*(f"class {number}" for number in range(1, count + 1)))


PANDA = classes_of("panda leg", "tree", "bench")


def facts_of(classes: tuple[LabelClass, ...] = PANDA, options: FileOptions = DEFAULT_FILE_OPTIONS) -> RunFacts:
    info = {"version": "0.1.0", "command": "tipsseg label in", "model": "tiny", "revision": None, "vocabulary": "a,b"}
    return RunFacts(classes=classes, info=info, files=options)


def map_of(labels: LabelArray, classes: tuple[LabelClass, ...] = PANDA, confidence: float = 0.5) -> LabelMap:
    return LabelMap(labels, np.full(labels.shape, confidence, np.float32), classes)


def image_of(name: str, label_map: LabelMap) -> ImageLabels:
    return image_labels(ImageRef(Path("in") / name, PurePosixPath(name)), label_map)


def encode(name: str, label_map: LabelMap, options: FileOptions = DEFAULT_FILE_OPTIONS) -> bytes:
    """The file of an image in a format."""
    return FORMATS[name].encode(image_of("s/a.png", label_map), facts_of(label_map.classes, options))


def run_file(
    name: str, facts: RunFacts, rows: Mapping[str, Rows], images: list[str] | None = None, number: int = 0
) -> str:
    """A file for the whole run."""
    form = FORMATS[name]
    pieces = form.run_file(form.files[number], facts, list(rows) if images is None else images, rows.__getitem__)
    return b"".join(pieces).decode()


def coco(maps: Mapping[str, LabelMap], classes: tuple[LabelClass, ...] = PANDA) -> str:
    facts = facts_of(classes)
    return run_file(
        "coco", facts, {name: FORMATS["coco"].image_rows(image_of(name, each), facts) for name, each in maps.items()}
    )


def blank(label_map: LabelMap) -> NDArray[np.uint8]:
    return np.full((*label_map.shape, 3), 128, np.uint8)


SMALL = np.array([[1, 1, 0, 3], [0, 1, 0, 3], [255, 0, 0, 0], [2, 0, 0, 1]], np.uint8)

#: The objects in it, by number.
OBJECTS = ((1, "panda leg"), (2, "panda leg"), (3, "tree"), (4, "bench"))


# ---- registry ----


def test_the_registry_names_every_format() -> None:
    for name, entry in FORMATS.items():
        assert entry.description
        assert entry.name == name
        assert entry.files or entry.folder
    with pytest.raises(UsageError) as caught:
        check_format("coc")
    assert "'coco'" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        check_format("yaml")
    assert ", ".join(FORMATS) in caught.value.hint


def test_the_page_of_formats_has_every_format_as_the_registry_says_it() -> None:
    repository = Path(__file__).parents[2]
    page = (repository / "examples" / "formats" / "README.md").read_text("utf-8")
    rows = [line.replace("`", "") for line in page.splitlines() if line.startswith("| `")]
    wanted = [f"| {name} | {entry.description} |" for name, entry in FORMATS.items()]
    assert [row for row in rows if row in wanted] == wanted
    readme = (repository / "README.md").read_text("utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in readme] == []


def test_files_of_images_go_to_the_folders_that_inputs_leave_out(tmp_path: Path) -> None:
    save_inputs(tmp_path / "imgs", {"sub/a.jpg": SMALL})
    make_run(tmp_path / "out", tmp_path / "imgs", {"sub/a.jpg": SMALL}, ("panda leg", "tree", "bench"), IMAGE_FORMATS)
    found = {
        PurePosixPath(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*/*") if path.is_file()
    }
    image = PurePosixPath("sub/a.jpg")
    forms = [FORMATS[name] for name in IMAGE_FORMATS]
    paths = {form.relative_path(image, DEFAULT_FILE_OPTIONS) for form in forms if not isinstance(form, PartsFormat)}
    paths |= {form.picture_path(image, DEFAULT_FILE_OPTIONS) for form in forms}
    paths |= {PurePosixPath("binary", entry.name, "sub/a.png") for entry in PANDA}
    paths |= {PurePosixPath("cutouts", name, f"sub/a-{number}.png") for number, name in OBJECTS}
    assert {path.parts[0] for path in paths if path is not None} <= image_folders()
    paths |= {PurePosixPath(file) for form in forms for file in form.files if "/" in file}
    assert found - {PurePosixPath(".tipsseg/cache.db")} == paths - {None}


# ---- archives ----


def test_archives_are_the_same_bytes_in_whatever_order_the_arrays_are() -> None:
    confidence = np.linspace(0, 1, SMALL.size, dtype=np.float32).reshape(SMALL.shape)
    ids, scores = np.arange(12, dtype=np.uint8).reshape(2, 3, 2) % 4, np.ones((2, 3, 2), np.float16)
    found = {
        encode("npz", LabelMap(order(SMALL), order(confidence), PANDA, TopClasses(order(ids), order(scores))))
        for order in (np.ascontiguousarray, np.asfortranarray)
    }
    (data,) = found
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_DEFLATED}


# ---- masks ----


@pytest.mark.parametrize("labels", [SMALL, SMALL[:1], SMALL[:, :1]], ids=["small", "one row", "one column"])
def test_masks_are_read_alike_by_pillow_and_opencv(labels: LabelArray) -> None:
    data = encode("png", map_of(labels))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), labels)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert np.array_equal(read.reshape(labels.shape), labels)


@pytest.mark.parametrize("count", [254, 255, 300, 1000])
def test_masks_of_many_classes(count: int) -> None:
    labels: LabelArray = np.arange(count + 1, dtype=np.uint16).reshape(1, -1)
    labels = labels.astype(np.uint8) if label_dtype(count) is np.uint8 else labels
    label_map = map_of(labels, numbered(count))
    labels[0, 0] = label_map.ignore
    data = encode("png", label_map)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert read.dtype == (np.uint8 if count == 254 else np.uint16)
    assert np.array_equal(read, labels)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == ("L" if count == 254 else "I;16")
        assert np.array_equal(np.asarray(image), labels)


# ---- COCO ----


def test_coco_without_images() -> None:
    read = json.loads(coco({}))
    assert read["images"] == read["annotations"] == []
    assert [each["id"] for each in read["categories"]] == [1, 2, 3]


def test_coco_undecodable_names() -> None:
    read = json.loads(coco({"caf\udce9.png": map_of(SMALL)}, classes_of("caf\udce9", "b", "c")))
    assert read["images"][0]["file_name"] == r"caf\udce9.png"
    assert read["categories"][0]["name"] == r"caf\udce9"


def test_coco_evaluates_itself_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    maps = {f"{n}.jpg": map_of(rng.integers(0, 4, (6, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)) for n in range(3)}
    maps["empty.jpg"] = map_of(np.zeros((7, 5), np.uint8))
    path = tmp_path / "annotations.json"
    path.write_text(coco(maps))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes(json.loads(path.read_bytes())["annotations"])
        for kind in ("segm", "bbox"):
            evaluation = COCOeval(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert evaluation.stats[0] == pytest.approx(1.0)
    assert len(truth.getImgIds()) == 4
    assert len(truth.getCatIds()) == 3


# ---- files for the whole run ----


RUN_FILES = [(name, number) for name, entry in FORMATS.items() for number in range(len(entry.files))]


@pytest.mark.parametrize(("name", "number"), RUN_FILES)
def test_classes_whose_names_are_no_utf_8(name: str, number: int) -> None:
    """A file that lists the classes lists them too."""
    lists = []
    for class_name, written in (("coffee", "coffee"), ("caf\udce9", r"caf\udce9")):
        text = run_file(name, facts_of(classes_of(class_name)), {}, number=number)
        lists.append(written in text.replace("\\\\", "\\"))
    assert lists[0] == lists[1]


def test_coco_has_the_supercategories_of_classes() -> None:
    read = json.loads(coco({}, (LabelClass(1, "oak", (1, 2, 3), supercategory="tree"),)))
    assert read["categories"] == [{"id": 1, "name": "oak", "supercategory": "tree"}]


@pytest.mark.parametrize(
    ("names", "black"),
    [
        (("Background", "VOID"), "unlabelled"),
        (("background", "unlabelled", "void", "nothing of these", "Background 2"), "background 3"),
    ],
)
def test_no_class_is_called_as_the_background_of_cvat_is(names: tuple[str, ...], black: str) -> None:
    assert label_map_text(classes_of(*names)).splitlines()[1] == f"{black}:0,0,0::"


@pytest.mark.parametrize(
    ("path", "relative", "address"),
    [
        ("a.png", "a.png", "farm/a.png"),
        ("../farm/sub/a b.png", "sub/a b.png", "farm/sub/a%20b.png"),
        ("link/a.png", "link/a.png", "farm/link/a.png"),
        ("link/a.png", "a.png", "link/a.png"),
        ("caf\udce9.png", "caf\udce9.png", "farm/caf%E9.png"),
    ],
)
def test_label_studio_finds_images_from_the_folder_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, relative: str, address: str
) -> None:
    (tmp_path / "farm").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "farm/link").symlink_to("../elsewhere")
    monkeypatch.chdir(tmp_path / "farm")
    assert local_files_url(ImageRef(Path(path), PurePosixPath(relative))) == f"/data/local-files/?d={address}"


def test_predictions_for_label_studio_have_a_score() -> None:
    """The mean confidence of the pixels of all objects; tasks without an object have none."""
    confidence = np.where(SMALL == 1, 0.9, 0.5).astype(np.float32)
    maps = {"a.png": LabelMap(SMALL, confidence, PANDA), "b.png": map_of(np.zeros((2, 2), np.uint8))}
    form = FORMATS["label-studio"]
    rows = [form.image_rows(image_of(name, each), facts_of()) for name, each in maps.items()]
    tasks = [json.loads(row) for (row,) in rows]
    predictions = [task["predictions"][0] for task in tasks]
    # 4 pixels of class 1 and 3 others.
    assert predictions[0]["score"] == pytest.approx((4 * 0.9 + 3 * 0.5) / 7, abs=1e-4)
    assert predictions[1] == {"model_version": "tiny tipsseg 0.1.0", "result": []}


# ---- palettes ----


def test_masks_with_a_palette_have_the_colours_of_the_overlays() -> None:
    classes = (PANDA[0], LabelClass(2, "tree", (1, 2, 3)), LabelClass(3, "bench", (0, 0, 0)))
    with Image.open(io.BytesIO(encode("png-palette", map_of(SMALL, classes)))) as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == SMALL.tolist()
        colours = np.asarray(picture.convert("RGB"))
    drawn = colour_labels(SMALL, classes, ignored=IGNORED_COLOUR)
    assert np.array_equal(colours, drawn)


# ---- yolo ----


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_a_part_of_the_images_is_for_validation_whatever_else_there_is(fraction: float) -> None:
    names = [f"sub {number % 7}/{number}.jpg" for number in range(4000)]
    chosen = {name for name in names if is_for_validation(name, fraction)}
    assert abs(len(chosen) / len(names) - fraction) < 0.03
    assert {name for name in names if is_for_validation(name, fraction + 0.2)} > chosen
    # Of a shard too, which is drawn by a hash as well.
    shard = [name for name in names if Shard(1, 4).takes(name)]
    assert abs(len(chosen.intersection(shard)) / len(shard) - fraction) < 0.06


def test_the_choice_of_images_is_the_same_for_ever() -> None:
    names = ("a.png", "sub/b.jpg", "\u718a.png", "c.tif")
    assert [is_for_validation(name, 0.5) for name in names] == [True, True, True, False]


#: A fraction and images, and the lines of data.yaml; "a.png" is among the half, and "c.tif" is not.
DATA_YAML: Mapping[str, tuple[float | None, list[str], tuple[str, str]]] = {
    "undivided": (None, ["a.png", "c.tif"], ("train", "train")),
    "by 0": (0.0, ["a.png", "c.tif"], ("train", "train")),
    "divided": (0.5, ["a.png", "c.tif"], ("train", "val")),
    "all for training": (0.5, ["c.tif"], ("train", "train")),
    "all for validation": (0.5, ["a.png"], ("val", "val")),
    "no images": (0.5, [], ("train", "train")),
}


@pytest.mark.parametrize(("fraction", "images", "parts"), DATA_YAML.values(), ids=DATA_YAML)
def test_data_yaml_names_folders_that_are_there(
    fraction: float | None, images: list[str], parts: tuple[str, str]
) -> None:
    train, val = parts
    assert run_file("yolo", facts_of(options=FileOptions(val_fraction=fraction)), {}, images).startswith(
        f"train: images/{train}\nval: images/{val}\nnc: "
    )


def test_readers_of_yolo_find_the_labels_of_every_image(tmp_path: Path) -> None:
    """They change the last folder `images` of a path, and no two images get one file."""
    names = ["images/a.jpg", "images_/a.jpg", "images__/a.jpg", "b/images/c/a.jpg", "imagesque/a.jpg", "labels/a.jpg"]
    form, files = FORMATS["yolo"], set()
    for name in names:
        file, link = (
            path(PurePosixPath(name), DEFAULT_FILE_OPTIONS) for path in (form.relative_path, form.picture_path)
        )
        head, tail = f"/{link}".rsplit("/images/", 1)
        assert f"/{file}" == f"{head}/labels/{tail}".replace(".jpg", ".txt")
        files.add(file)
    assert len(files) == len(names)


# ---- classes.json ----


def test_classes_golden() -> None:
    classes = (
        LabelClass(1, 'panda "leg"', (230, 57, 70), ("paw",), "panda", 0.5),
        LabelClass(2, "\u718a\u732b", (0, 10, 255)),
    )
    assert classes_json(classes, ("sky", "wall"), {}).decode() == (
        '{\n  "background": 0,\n  "ignore": 255,\n  "background_phrases": [\n    "sky",\n    "wall"\n  ],\n  "classes": [\n'
        '    {\n      "id": 1,\n      "name": "panda \\"leg\\"",\n      "synonyms": [\n        "paw"\n      ],\n'
        '      "colour": "#e63946",\n      "supercategory": "panda",\n      "min_confidence": 0.5\n    },\n'
        '    {\n      "id": 2,\n      "name": "\u718a\u732b",\n      "synonyms": [],\n'
        '      "colour": "#000aff",\n      "supercategory": "\u718a\u732b"\n    }\n  ]\n}\n'
    )
    assert json.loads(classes_json(numbered(255), (), {}))["ignore"] == 65535


# ---- confidence ----


def test_confidence_is_written_as_255_steps() -> None:
    confidence = np.array([[0, 1, 0.5], [0.001, 0.002, 0.9999]], np.float32)
    label_map = LabelMap(np.array([[0, 1, 255], [1, 2, 2]], np.uint8), confidence, PANDA)
    with Image.open(io.BytesIO(encode("confidence", label_map))) as picture:
        assert picture.mode == "L"
        assert np.asarray(picture).tolist() == [[0, 255, 128], [0, 1, 255]]


# ---- overlays ----

NAME = "s/a.png"


def render(image: NDArray[np.uint8], label_map: LabelMap, name: str) -> NDArray[np.uint8]:
    return draw_labels(image, label_map.labels, label_map.classes, name)


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((1, 1), (320, 320)),
        ((20, 30), (220, 330)),
        ((480, 640), (480, 640)),
        ((1, 500), (1, 500)),
        ((900, 3), (900, 320)),
    ],
)
def test_overlays_have_room_for_the_legend(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    label_map = map_of(np.random.default_rng(0).integers(0, 4, size).astype(np.uint8))
    picture = render(blank(label_map), label_map, NAME)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (canvas[1], 3)
    assert picture.shape[0] > canvas[0] + 20
    with Image.open(io.BytesIO(encode("overlay", label_map))) as image:
        assert image.size == (picture.shape[1], picture.shape[0])


def test_overlays_of_large_images_are_scaled_down() -> None:
    label_map = map_of(np.ones((5000, 40), np.uint8))
    picture = render(np.full((4096, 33, 3), 128, np.uint8), label_map, NAME)
    assert picture.shape[1] == 320
    assert 4096 < picture.shape[0] < 4500


def test_overlays_show_classes_background_and_ignored_pixels() -> None:
    labels = np.zeros((300, 400), np.uint8)
    labels[:, :100] = 1
    labels[:, 100:200] = 2
    labels[:, 300:] = 255
    image = blank(map_of(labels))
    kept = image.copy()
    picture = render(image, map_of(labels), NAME).astype(int)
    assert np.array_equal(image, kept)  # the caller's picture is not painted on
    for x, number in ((50, 1), (150, 2)):
        assert np.abs(picture[50, x] - (64 + np.array(colour(number)) / 2)).max() <= 1
    assert (picture[150, 250] < 128).all()
    assert len(np.unique(picture[140:160, 350:370].reshape(-1, 3), axis=0)) == 2  # stripes
    assert picture[150, 99].tolist() == list(colour(1))  # outline
    legend = {tuple(pixel) for pixel in picture[300:].reshape(-1, 3).tolist()}
    assert colour(1) in legend
    assert colour(2) in legend
    assert colour(3) not in legend


@pytest.mark.parametrize(
    "name",
    [
        "caf\xe9",
        "\u718a\u732b",
        "a\nb\tc",
        "x" * 500,
        "\udce9",
        "\U0001f43c",
        "\u05d0\u05d1",
        "\u200b",
        "e\u0301",
        "\ue000",
        "a & <b> \"c\" 'd'",
    ],
)
def test_overlays_of_any_name(name: str) -> None:
    label_map = map_of(np.ones((30, 40), np.uint8), classes_of(name))
    picture = render(blank(label_map), label_map, NAME)
    assert picture.shape[1] == 320
    assert (picture[-40:] > 200).all(axis=2).any()  # something is written


def has(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (picture == np.array(colour, np.uint8)).all(2)
    return found


def test_a_legend_without_room_for_all_has_the_largest() -> None:
    labels = np.repeat(np.arange(1, 301, dtype=np.uint16), np.arange(1, 301)).reshape(150, 301)
    label_map = map_of(labels, numbered(300))
    legend = render(blank(label_map), label_map, NAME)[2 * 150 :]
    shown = [entry.id for entry in label_map.classes if has(legend, entry.colour).sum() >= 13 * 13]
    assert len(shown) > 8
    assert min(shown) > 300 - 2 * len(shown)


def test_overlays_have_the_name_of_the_image_below() -> None:
    label_map = map_of(np.zeros((240, 320), np.uint8))
    pictures = [render(blank(label_map), label_map, name) for name in ("", "a.png", "b.png", "x" * 1000 + "/b.png")]
    assert len({picture.shape for picture in pictures}) == 1
    without, *named = pictures
    for picture in named:
        rows, columns = np.nonzero((picture != without).any(2))
        assert 240 < rows.min() < rows.max() < 240 + 30
        assert columns.min() > 5
        assert columns.max() < 320 - 5
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_overlays_have_names_on_the_larger_regions() -> None:
    labels = np.zeros((240, 320), np.uint8)
    labels[20:220, 10:150] = 1
    labels[20:30, 160:300] = 2  # too low for letters
    label_map = map_of(labels)
    other = map_of(labels, classes_of("another", "tree", "bench"))
    one, two = (render(blank(each), each, NAME)[:240] for each in (label_map, other))
    rows, columns = np.nonzero((one != two).any(2))
    assert 20 < rows.min() < 120 < rows.max() < 220
    assert 10 < columns.min() < 80 < columns.max() < 150


# ---- files ----


def test_a_class_whose_minimum_confidence_is_0_says_so() -> None:
    """0 is not the same as none of its own: such a class is never ignored."""
    classes = (LabelClass(1, "tree", (1, 2, 3), min_confidence=0.0), LabelClass(2, "sky", (1, 2, 3)))
    entries = json.loads(classes_json(classes, (), {}))["classes"]
    assert [entry.get("min_confidence") for entry in entries] == [0.0, None]


@pytest.mark.slow
def test_panoptic_ids_go_over_three_bytes_and_instances_refuse_them() -> None:
    """Each pixel of a grid is a segment; R + 256 G + 65536 B counts them."""
    labels = np.zeros((2, 2 * 65_600), np.uint8)
    labels[0, ::2] = 1
    objects = labelled_objects(labels, [np.ones(labels.shape, np.float32)], PANDA, DEFAULT_FILE_OPTIONS)
    ref, run = ImageRef(Path("a.png"), PurePosixPath("a.png")), facts_of()
    image = ImageLabels(ref=ref, labels=labels, objects=objects)
    with Image.open(io.BytesIO(FORMATS["panoptic"].encode(image, run))) as picture:
        ids = np.asarray(picture).astype(np.uint32) @ np.array([1, 256, 65_536], np.uint32)  # [2, W]
    assert (ids[0, ::2] == np.arange(1, 65_601)).all()
    assert not ids[0, 1::2].any()
    assert not ids[1].any()
    with pytest.raises(ImageError, match="65,600 objects, but a 16-bit instance mask can store only 65,535"):
        FORMATS["instances"].encode(image, run)
