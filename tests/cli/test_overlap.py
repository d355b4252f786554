"""--overlap: the labels of each class are those of a run with that class alone, in every file and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from resuming import contents
from running import Command

import tipsseg
from tipsseg import review
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.errors import VocabularyError
from tipsseg.formats import FORMATS, is_model_only
from tipsseg.regions import drawing

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes" / "meadow"

#: Images with their scene and their (height, width).
IMAGES = {
    "a": ("panda-and-tree.jpg", (150, 200)),
    "sub/b": ("two-pandas.png", (200, 150)),
    "sub/c": ("house.webp", (120, 120)),
}
SIZES = {name: size for name, (_, size) in IMAGES.items()}
CLASSES = ("panda", "panda leg", "tree", "sky")
LABEL = ("label", "imgs", "-m", "tiny", "--device", "cpu", "--short-side", "112")
ALL = ("-c", ",".join(CLASSES), "--overlap")
ABLE = [name for name, form in FORMATS.items() if form.overlaps]

VOCABULARY = """
[[classes]]
name = "panda"
synonyms = ["black and white animal"]
min_confidence = 0.5

[[classes]]
name = "meadow"
negative = true

[[classes]]
name = "sky"

[[classes]]
name = "panda leg"
"""


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (scene, (height, width)) in IMAGES.items():
        path = Path("imgs", f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(SCENES / scene) as picture:
            picture.convert("RGB").resize((width, height)).save(path)


def binary(name: str, image: str, output: str = "labels") -> NDArray[np.uint8]:
    with Image.open(Path(output, "binary", name, f"{image}.png")) as picture:
        return np.asarray(picture)


def objects(output: str = "labels") -> dict[tuple[str, str], list[Any]]:
    """Pixels, box, mask and score of the objects of each image and class."""
    value = json.loads(Path(output, "annotations.json").read_text())
    images = {image["id"]: image["file_name"] for image in value["images"]}
    classes = {entry["id"]: entry["name"] for entry in value["categories"]}
    found: dict[tuple[str, str], list[Any]] = {}
    for each in value["annotations"]:
        own = [each[key] for key in ("area", "bbox", "segmentation", "score")]
        found.setdefault((images[each["image_id"]], classes[each["category_id"]]), []).append(own)
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--mode", "whole"),
        ("--scales", "1,1.75"),
        ("--refine", "pamr"),
        ("--min-confidence", "0.6", "--min-area", "20"),
        ("--background", "grass,a wall"),
        ("--instances", "class"),
    ],
    ids=" ".join,
)
def test_labels_are_those_of_each_class_alone(command: Command, options: tuple[str, ...]) -> None:
    assert command(*LABEL, *options, *ALL, "-f", "coco,binary", "-q").code == 0
    together, some, both = objects(), 0, 0
    for number, name in enumerate(CLASSES):
        alone = f"alone{number}"
        assert command(*LABEL, *options, "-c", name, "-f", "coco,binary", "-o", alone, "-q").code == 0
        for image in SIZES:
            assert np.array_equal(binary(name, image), binary(name, image, alone))
            some += int(binary(name, image).any())
        found = {key: value for key, value in together.items() if key[1] == name}
        assert found == objects(alone)
    for image in SIZES:
        masks = np.stack([binary(name, image) for name in CLASSES]) > 0
        both += int((masks.sum(0) > 1).sum())
    assert some > 3
    assert both > 0, "no two classes overlap, so this shows nothing"


def test_a_class_has_its_own_synonyms_minimum_and_negative_classes(command: Command) -> None:
    Path("all.toml").write_text(VOCABULARY)
    assert command(*LABEL, "--vocab", "all.toml", "--overlap", "-f", "binary", "-q").code == 0
    blocks = VOCABULARY.strip().split("\n\n")
    for number in (0, 2, 3):
        Path("one.toml").write_text("\n\n".join([blocks[number], blocks[1]]))
        assert command(*LABEL, "--vocab", "one.toml", "-f", "binary", "-o", f"alone{number}", "-q").code == 0
        name = ("panda", "", "sky", "panda leg")[number]
        for image in SIZES:
            assert np.array_equal(binary(name, image), binary(name, image, f"alone{number}")), (name, image)


def test_conversion_writes_what_the_run_would_have_written(command: Command) -> None:
    assert command(*LABEL, *ALL, "-f", ",".join(ABLE), "-o", "whole", "-q").code == 0
    wanted = {name: data for name, data in contents(Path("whole")).items() if name != "manifest.jsonl"}
    more = [name for name in ABLE if not is_model_only(name)]
    for first in ("coco", "npz"):
        assert command(*LABEL, *ALL, "-f", first, "-o", first, "-q").code == 0
        assert command("convert", first, "-f", ",".join(more), "-q").code == 0
        found = {name: data for name, data in contents(Path(first)).items() if name != "manifest.jsonl"}
        assert found == {name: data for name, data in wanted.items() if name in found}
        assert {name.split("/")[0] for name in wanted} - {name.split("/")[0] for name in found} <= {"npz"}
        assert command("check", first).code == 0
    with np.load("whole/npz/a.npz") as archive:
        for class_id, mask in zip(archive["class_ids"], archive["masks"], strict=True):
            assert np.array_equal(mask, binary(CLASSES[class_id - 1], "a", "whole") == 255)
        assert not archive["confidence"][~archive["masks"]].any()


def test_objects_that_no_list_has_stay_in_the_labels(command: Command) -> None:
    assert command(*LABEL, *ALL, "-f", "coco", "--min-area", "5%", "-q").code == 0
    assert command("convert", "labels", "-f", "binary", "-q").code == 0
    assert command(*LABEL, *ALL, "-f", "binary", "-o", "whole", "-q").code == 0
    for image in SIZES:
        assert all(np.array_equal(binary(name, image), binary(name, image, "whole")) for name in CLASSES)


def test_the_picture_shows_smaller_classes_on_top(command: Command) -> None:
    result = tipsseg.load("tiny", device="cpu").label("imgs/a.png", list(CLASSES), short_side=112, overlap=True)
    assert result.layers is not None
    areas = {layer.region.class_id: layer.region.area for layer in result.layers}
    for label in result.names:
        own = result.mask(label)
        assert own.sum() == areas.get(label, 0)
        covered = own & (result.labels != label)
        assert all(areas[other] <= areas[label] for other in np.unique(result.labels[covered]).tolist())
    assert (result.mask(0) == ~np.any([result.mask(label) for label in result.names], axis=0)).all()


def test_a_run_goes_on_and_shards_are_merged(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run = (*LABEL, *ALL, "-q")
    assert command(*run).code == 0
    assert sorted(path.name for path in Path("labels").iterdir() if path.is_dir()) == [".tipsseg", "overlays"]
    for shard in ("1/2", "2/2"):
        assert command(*run, "-o", "parts", "--shard", shard).code == 0
    assert command("merge", "parts", "-o", "parts", "-q").code == 0
    assert objects("parts") == objects()
    assert (
        command("encode", "imgs", "-m", "tiny", "--short-side", "112", "-o", "feats", "--feature-dtype", "float32").code
        == 0
    )

    def never(self: Tipsv2Backbone, images: object) -> None:
        raise AssertionError("the tower ran")

    monkeypatch.setattr(Tipsv2Backbone, "encode_windows", never)
    assert command(*run, "-o", "stored", "--features", "feats").code == 0
    assert objects("stored") == objects()
    assert "3 unchanged" in command(*LABEL, *ALL).err
    repeated = command("label", "imgs", "--from", "labels", "-o", "again", "--features", "feats", "-q")
    assert repeated.code == 0, repeated.err
    assert objects("again") == objects()
    assert "--overlap" in json.loads(Path("labels/run.json").read_text())["command"].split()
    for arguments in (("report", "labels"), ("rank", "labels"), ("check", "labels"), ("check", "parts")):
        ran = command(*arguments)
        assert ran.code == 0, ran.err


def test_scores_count_a_pixel_in_each_of_its_classes(command: Command) -> None:
    assert command(*LABEL, *ALL, "-f", "binary", "-q").code == 0
    truth, counts = {}, np.zeros((len(CLASSES) + 1, 3), int)
    for image, size in SIZES.items():
        ids = (np.arange(size[0] * size[1]).reshape(size) * 7 // 100 % 5).astype(np.uint8)
        ids[:4] = 255
        path = Path("gt", f"{image}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids).save(path)
        truth[image] = ids
        masks = [binary(name, image) > 0 for name in CLASSES]
        for number, mask in enumerate([~np.any(masks, axis=0), *masks]):
            own, wanted = mask & (ids < 255), ids == number
            counts[number] += (own & wanted).sum(), own.sum(), wanted.sum()
    ran = command("eval", "--pred", "labels", "--gt", "gt", "--json")
    assert ran.code == 0, ran.err
    scored = json.loads(ran.out)
    shared, own, wanted = counts.T
    found = {each["name"]: each for each in scored["classes"]}
    for number, name in enumerate(("background", *CLASSES)):
        union = own[number] + wanted[number] - shared[number]
        assert found[name]["iou"] == pytest.approx(shared[number] / union, abs=1e-6)
        assert found[name]["recall"] == pytest.approx(shared[number] / wanted[number], abs=1e-6)
        assert found[name]["precision"] == pytest.approx(shared[number] / own[number], abs=1e-6)
        assert found[name]["pixels"] == wanted[number]
    again = command("eval", *LABEL[1:], *ALL, "--gt", "gt", "--json", "-q")
    assert json.loads(again.out)["classes"] == scored["classes"]
    result = review.evaluate("imgs", "gt", list(CLASSES), model="tiny", short_side=112, overlap=True)
    assert result.scores.mean_iou == pytest.approx(scored["mean_iou"], abs=1e-6)
    assert review.score_masks("labels", "gt").scores.mean_iou == pytest.approx(scored["mean_iou"], abs=1e-6)


REFUSED = {
    "png": (("-f", "png"), 2, "the format png cannot store classes that overlap"),
    "instances": (("-f", "coco,instances"), 2, "the format instances cannot store classes that overlap"),
    "cvat": (("-f", "cvat"), 2, "the format cvat cannot store classes that overlap"),
    "no background": (("--background", "none"), 2, "labels that overlap require a background"),
    "regions": (("--regions", "imgs"), 2, "--overlap and --regions exclude each other"),
    "onto": (("--onto", "gt"), 2, "--overlap and --onto exclude each other"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_exclude_overlap_are_refused(command: Command, case: str) -> None:
    options, code, message = REFUSED[case]
    Path("gt").mkdir()
    Image.fromarray(np.zeros(SIZES["a"], np.uint8)).save("gt/a.png")
    Path("gt/classes.json").write_text('{"classes": [{"id": 1, "name": "car"}]}')
    ran = command(*LABEL, *ALL, *options)
    assert message in ran.err
    assert ran.code == code
    assert not Path("labels").exists()


def test_commands_that_need_index_masks_refuse_such_a_folder(command: Command) -> None:
    assert command(*LABEL, *ALL, "-q").code == 0
    before = contents(Path("labels"))
    for arguments in (
        ("convert", "labels", "-f", "png"),
        ("correct", "labels", "--from", "labels/annotations.json"),
        ("fit", "labels", "-o", "x.fit"),
        ("fit", "labels", "-o", "x.toml", "--precision", "0.9"),
        (*LABEL, "-c", "car", "--onto", "labels", "-o", "onto"),
        (*LABEL, "-c", ",".join(CLASSES)),
    ):
        ran = command(*arguments)
        assert ran.code in (1, 2), arguments
        assert "overlap" in ran.err, (arguments, ran.err)
    assert contents(Path("labels")) == before


def test_labels_that_do_not_overlap_are_not_replaced_unasked(command: Command) -> None:
    run = (*LABEL, "-c", ",".join(CLASSES))
    assert command(*run, "-q").code == 0
    before = contents(Path("labels"))
    ran = command(*run, "--overlap")
    assert ran.code == 1
    assert "overlap" in ran.err
    assert contents(Path("labels")) == before
    assert command(*run, "--overlap", "--overwrite", "-q").code == 0
    assert not list(Path("labels/masks").rglob("*.png"))
    assert command("check", "labels").code == 0


def test_the_library_refuses_masks_of_classes_that_overlap(command: Command) -> None:
    model = tipsseg.load("tiny", device="cpu")
    labeller = model.labeller(["panda", "tree"], short_side=112, overlap=True)
    result = labeller.label("imgs/a.png")
    with pytest.raises(tipsseg.UsageError, match="cannot store classes that overlap"):
        result.save_mask("a.png")
    with pytest.raises(tipsseg.UsageError, match="exclude each other"):
        labeller.label("imgs/a.png", regions=np.ones(SIZES["a"], int))
    with pytest.raises(VocabularyError, match="require a background"):
        model.labeller(tipsseg.make_vocabulary(["panda"], "none"), overlap=True)
    with pytest.raises(tipsseg.UsageError, match="`overlap` must be True or False"):
        model.labeller(["panda"], overlap="yes")  # type: ignore[arg-type]


def test_the_legend_says_how_much_each_class_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class may be hidden in the picture by smaller ones."""
    seen: list[dict[str, float]] = []
    before = drawing._add_legend

    def add_legend(picture: Any, name: str, entries: Any, size: int) -> Any:
        seen.append({entry.name: entry.share for entry in entries})
        return before(picture, name, entries, size)

    monkeypatch.setattr(drawing, "_add_legend", add_legend)
    result = tipsseg.load("tiny", device="cpu").label("imgs/a.png", list(CLASSES), short_side=112, overlap=True)
    result.overlay()
    for name, share in seen[0].items():
        assert share == result.mask(0 if name == "background" else name).mean()
    assert sum(seen[0].values()) > 1
