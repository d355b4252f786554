"""Parts inside wholes through the command: what the files say, and what comes back from them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from running import Command

# pycocotools does it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes" / "meadow"
CLASSES = "panda/head,panda/body,panda/leg,tree/crown,tree/trunk,dog/head"
HEAD, BODY, LEG, CROWN, TRUNK, _, PANDA, TREE, DOG = range(1, 10)
FORMATS = "png,coco,coco-polygon,labelme,label-studio,yolo,panoptic,csv,binary,instances,cutouts"
Ids = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Path:
    """A folder with the labels of two scenes in many formats."""
    monkeypatch.chdir(tmp_path)
    Path("imgs").mkdir()
    for name in ("panda-and-tree", "two-pandas"):
        Image.open(next(SCENES.glob(f"{name}.*"))).resize((320, 240)).save(f"imgs/{name}.png")
    ran = label(command, "-f", FORMATS)
    assert ran.code == 0, ran.err
    return tmp_path / "out"


def label(command: Command, *more: str, classes: str = CLASSES) -> Any:
    return command("label", "imgs", "-c", classes, "-m", "tiny", "--device", "cpu", "-o", "out", *more)


def mask(name: str = "panda-and-tree", folder: str = "out") -> Ids:
    return np.asarray(Image.open(f"{folder}/masks/{name}.png"))


def coco(path: str = "out/annotations.json") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(path).read_bytes())
    return loaded


def wholes_of(ids: Ids) -> Ids:
    table = np.arange(256, dtype=np.uint8)
    table[[HEAD, BODY, LEG, CROWN, TRUNK]] = PANDA, PANDA, PANDA, TREE, TREE
    return table[ids]


# ---- files ----


def test_coco_has_wholes_with_their_whole_area_and_parts_that_point_to_them() -> None:
    data = COCO("out/annotations.json")
    names = {each["id"]: each["name"] for each in data.dataset["categories"]}
    assert [each["supercategory"] for each in data.dataset["categories"]][:2] == ["panda", "panda"]
    for image in data.dataset["images"]:
        ids = mask(Path(image["file_name"]).stem)
        found = {PANDA: np.zeros(ids.shape, bool), TREE: np.zeros(ids.shape, bool)}
        for each in data.loadAnns(data.getAnnIds(image["id"])):
            own = coco_mask.decode(each["segmentation"]) > 0
            if each["category_id"] in found:
                assert "part_of" not in each
                found[each["category_id"]] |= own
            else:
                (whole,) = data.loadAnns(each["part_of"])
                assert names[each["category_id"]].startswith(names[whole["category_id"]] + "/")
                assert whole["image_id"] == each["image_id"]
                assert not (own & ~(coco_mask.decode(whole["segmentation"]) > 0)).any()
        for label_id, own in found.items():
            assert np.array_equal(own, wholes_of(ids) == label_id)


def test_other_files_say_it_too() -> None:
    ids = mask()
    shapes = json.loads(Path("out/labelme/panda-and-tree.json").read_bytes())["shapes"]
    groups = {each["group_id"] for each in shapes if each["label"].startswith("panda")}
    assert len(groups) == 1
    assert groups.isdisjoint(each["group_id"] for each in shapes if each["label"].startswith("tree"))

    (task,) = (
        each
        for each in json.loads(Path("out/label-studio.json").read_bytes())
        if "panda-and" in each["data"]["file_name"]
    )
    results = task["predictions"][0]["result"]
    classes = {each["id"]: each["value"]["polygonlabels"][0] for each in results if each["type"] == "polygonlabels"}
    relations = [(classes[each["from_id"]], classes[each["to_id"]]) for each in results if each["type"] == "relation"]
    assert ("panda/head", "panda") in relations
    assert all(part.startswith(f"{whole}/") for part, whole in relations)

    with Path("out/labels.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file) if row["image"] == "panda-and-tree.png"}
    assert int(rows["panda"]["pixels"]) == (wholes_of(ids) == PANDA).sum()
    assert int(rows["panda/head"]["pixels"]) == (ids == HEAD).sum()

    binary = np.asarray(Image.open("out/binary/panda/panda-and-tree.png"))
    assert np.array_equal(binary > 0, wholes_of(ids) == PANDA)
    numbers = np.asarray(Image.open("out/instances/panda-and-tree.png"))
    assert len(np.unique(numbers[wholes_of(ids) == TREE])) == 1
    record = {
        each["name"]: each.get("part_of") for each in json.loads(Path("out/classes.json").read_bytes())["classes"]
    }
    assert record["panda/head"] == "panda"
    assert record["panda"] is None


def test_jsonl_has_both(command: Command) -> None:
    ran = label(command, "--jsonl", "--overwrite", "-q")
    (line,) = (json.loads(line) for line in ran.out.splitlines() if "panda-and" in line)
    pixels = {each["name"]: each["pixels"] for each in line["classes"]}
    assert pixels["panda"] == (wholes_of(mask()) == PANDA).sum() > pixels["panda/head"] > 0


def panoptic_ids(name: str = "panda-and-tree") -> NDArray[np.uint32]:
    """The number of the segment of each pixel."""
    rgb = np.asarray(Image.open(f"out/panoptic/{name}.png")).astype(np.uint32)
    return rgb @ np.array([1, 256, 65536], np.uint32)


def test_panoptic_has_one_segment_for_each_pixel_and_one_for_the_rest_of_a_whole(command: Command) -> None:
    data, picture, wanted = coco("out/panoptic.json"), panoptic_ids(), mask()
    (segments,) = (each["segments_info"] for each in data["annotations"] if each["file_name"] == "panda-and-tree.png")
    ids = np.zeros_like(wanted)
    for each in segments:
        assert each["area"] == (picture == each["id"]).sum() > 0
        ids[picture == each["id"]] = each["category_id"]
    assert np.array_equal(ids, wanted)
    scores = {(each["category_id"], each["score"]) for each in coco()["annotations"]}
    assert {(each["category_id"], each["score"]) for each in segments} <= scores
    assert [each["id"] for each in data["categories"]] == [*range(1, 10)]
    panda = coco_objects(PANDA)
    assert [each["category_id"] for each in segments].count(PANDA) == len(panda)
    pieces, _ = cv2.connectedComponents((wanted == PANDA).astype(np.uint8), connectivity=8)
    assert pieces - 1 > len(panda)
    assert command("check", "out").code == 0


def coco_objects(label_id: int, name: str = "panda-and-tree") -> list[dict[str, Any]]:
    """The annotations of a class in an image."""
    data = coco()
    (image,) = (each["id"] for each in data["images"] if Path(each["file_name"]).stem == name)
    return [each for each in data["annotations"] if (each["image_id"], each["category_id"]) == (image, label_id)]


def test_yolo_has_a_polygon_of_each_whole_and_of_each_part(command: Command) -> None:
    before = mask(), mask("two-pandas")
    lines = Path("out/yolo/labels/train/panda-and-tree.txt").read_text().splitlines()
    for label_id in range(1, 10):
        own = [line for line in lines if line.split()[0] == str(label_id - 1)]
        polygons = [each["segmentation"] for each in coco_objects_of_polygons(label_id)]
        assert len(own) == sum(map(len, polygons))
    assert np.array_equal(corrected(command, "out/yolo"), before[0])
    assert np.array_equal(mask("two-pandas"), before[1])


def coco_objects_of_polygons(label_id: int) -> list[dict[str, Any]]:
    data = coco("out/annotations-polygon.json")
    (image,) = (each["id"] for each in data["images"] if "panda-and" in each["file_name"])
    return [each for each in data["annotations"] if (each["image_id"], each["category_id"]) == (image, label_id)]


def test_boxes_are_those_of_wholes_and_of_their_parts(command: Command) -> None:
    before = mask(), mask("two-pandas")
    assert command("convert", "out", "-f", "yolo-boxes,yolo-obb").code == 0
    data = coco()
    for image in data["images"]:
        lines = Path(f"out/yolo-boxes/labels/train/{Path(image['file_name']).stem}.txt").read_text().splitlines()
        size = np.array([image["width"], image["height"]] * 2)
        found = []
        for number, *sides in (line.split() for line in lines):
            x, y, w, h = (np.array(sides, float) * size).tolist()
            found.append((int(number) + 1, *(round(each, 2) for each in (x - w / 2, y - h / 2, w, h))))
        own = [each for each in data["annotations"] if each["image_id"] == image["id"]]
        assert found == [(each["category_id"], *each["bbox"]) for each in own]
    assert np.array_equal(corrected(command, "out/yolo-obb"), before[0])
    assert np.array_equal(mask("two-pandas"), before[1])
    path = Path("out/yolo-obb/labels/train/panda-and-tree.txt")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.split()[0] != str(HEAD - 1)))
    assert np.array_equal(corrected(command, "out/yolo-obb"), np.where(before[0] == HEAD, PANDA, before[0]))


def test_files_made_later_are_the_same(command: Command) -> None:
    before = {path: path.read_bytes() for path in Path("out").rglob("*.json") if "run.json" not in path.name}
    assert command("convert", "out", "--drop", "coco,labelme,panoptic,label-studio").code == 0
    assert command("convert", "out", "-f", "coco,labelme,panoptic,label-studio").code == 0
    assert {path: path.read_bytes() for path in before} == before


# ---- corrections ----


def corrected(command: Command, source: str) -> Ids:
    ran = command("correct", "out", "--from", source)
    assert ran.code == 0, ran.err
    return mask()


def edit_coco(edit: Callable[[dict[str, Any]], None]) -> None:
    data = coco()
    edit(data)
    Path("edited.json").write_text(json.dumps(data))


def shuffled(items: list[Any]) -> list[Any]:
    return random.Random(7).sample(items, len(items))


def rename(data: Any, separator: str) -> Any:
    return json.loads(json.dumps(data).replace("panda/", f"panda{separator}").replace("tree/", f"tree{separator}"))


@pytest.mark.parametrize("separator", ["/", "_", " "])
@pytest.mark.parametrize("form", ["coco", "coco-polygon", "labelme", "label-studio", "yolo"])
def test_shuffled_files_that_nobody_edited_change_nothing(command: Command, form: str, separator: str) -> None:
    before = mask(), mask("two-pandas")
    if form.startswith("coco"):
        data = coco("out/annotations.json" if form == "coco" else "out/annotations-polygon.json")
        data["annotations"] = shuffled(data["annotations"])
        Path("edited.json").write_text(json.dumps(rename(data, separator)))
        source = "edited.json"
    elif form == "labelme":
        for path in Path("out/labelme").glob("*.json"):
            data = json.loads(path.read_bytes())
            data["shapes"] = shuffled(data["shapes"])
            Path("edited").mkdir(exist_ok=True)
            Path("edited", path.name).write_text(json.dumps(rename(data, separator)))
        source = "edited"
    elif form == "label-studio":
        tasks = rename(json.loads(Path("out/label-studio.json").read_bytes()), separator)
        for task in tasks:
            task["annotations"] = [{"result": shuffled(task.pop("predictions")[0]["result"])}]
        Path("edited.json").write_text(json.dumps(tasks))
        source = "edited.json"
    else:
        for path in Path("out/yolo/labels/train").glob("*.txt"):
            path.write_text("".join(line + "\n" for line in shuffled(path.read_text().split("\n")[:-1])))
        source = "out/yolo"
    assert np.array_equal(corrected(command, source), before[0])
    assert np.array_equal(mask("two-pandas"), before[1])


@pytest.mark.parametrize("redrawn", [False, True], ids=["exactly", "redrawn"])
def test_yolo_that_lists_wholes_with_their_parts_changes_nothing(command: Command, redrawn: bool) -> None:
    """As tools write it of COCO: through the centres of pixels, or as the polygons are."""
    before = mask(), mask("two-pandas")
    data = coco("out/annotations.json" if redrawn else "out/annotations-polygon.json")
    for image in data["images"]:
        size = np.array([image["width"], image["height"]])
        lines = []
        for each in (each for each in data["annotations"] if each["image_id"] == image["id"]):
            rings = [np.reshape(ring, (-1, 2)) for ring in each["segmentation"]] if not redrawn else [
                ring[:, 0] for ring in cv2.findContours(
                    coco_mask.decode(each["segmentation"]), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
                )[0] if len(ring) > 2
            ]  # fmt: skip
            lines += [[each["category_id"] - 1, *(ring / size).ravel().tolist()] for ring in rings]
        name = Path(image["file_name"]).stem
        Path(f"out/yolo/labels/train/{name}.txt").write_text("".join(" ".join(map(str, each)) + "\n" for each in lines))
    assert np.array_equal(corrected(command, "out/yolo"), before[0])
    assert np.array_equal(mask("two-pandas"), before[1])


def remove(*names: str) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        ids = {each["id"] for each in data["categories"] if each["name"] in names}
        data["annotations"] = [each for each in data["annotations"] if each["category_id"] not in ids]

    return edit


def test_a_deleted_part_becomes_its_whole(command: Command) -> None:
    before = mask()
    edit_coco(remove("panda/head"))
    after = corrected(command, "edited.json")
    assert (before == HEAD).any()
    assert np.array_equal(after, np.where(before == HEAD, PANDA, before))


def test_a_deleted_whole_with_its_parts_is_gone(command: Command) -> None:
    before = mask()
    edit_coco(remove("panda", "panda/head", "panda/body", "panda/leg"))
    assert np.array_equal(corrected(command, "edited.json"), np.where(wholes_of(before) == PANDA, 0, before))


def test_parts_without_their_whole_stay(command: Command) -> None:
    before = mask()
    edit_coco(remove("panda"))
    assert np.array_equal(corrected(command, "edited.json"), np.where(before == PANDA, 0, before))


def test_an_object_drawn_over_a_part_covers_it(command: Command) -> None:
    before = mask()
    y, x = (int(each.mean()) for each in np.nonzero(before == HEAD))

    def edit(data: dict[str, Any]) -> None:
        (image,) = (each for each in data["images"] if each["file_name"] == "panda-and-tree.png")
        square = [x - 5, y - 5, x + 5, y - 5, x + 5, y + 5, x - 5, y + 5]
        data["annotations"].append(
            {
                "id": 900,
                "image_id": image["id"],
                "category_id": DOG,
                "segmentation": [square],
                "bbox": [0, 0, 1, 1],
                "area": 1,
            },
        )

    edit_coco(edit)
    after = corrected(command, "edited.json")
    assert (after[y - 4 : y + 4, x - 4 : x + 4] == DOG).all()
    assert np.array_equal(after[before != HEAD], before[before != HEAD])


@pytest.mark.parametrize("form", ["coco", "coco-polygon"])
def test_a_new_part_over_another_is_taken(command: Command, form: str) -> None:
    before = mask()
    path = "out/annotations.json" if form == "coco" else "out/annotations-polygon.json"
    data = coco(path)
    y, x = (int(each.mean()) for each in np.nonzero(before == HEAD))
    (image,) = (each for each in data["images"] if each["file_name"] == "panda-and-tree.png")
    square = [x - 5, y - 5, x + 5, y - 5, x + 5, y + 5, x - 5, y + 5]
    data["annotations"].append({"id": 900, "image_id": image["id"], "category_id": LEG, "segmentation": [square]})
    Path("edited.json").write_text(json.dumps(data))
    assert (corrected(command, "edited.json")[y - 4 : y + 4, x - 4 : x + 4] == LEG).all()


def test_a_part_that_becomes_another_whole_is_on_top(command: Command) -> None:
    before = mask()
    path = Path("out/labelme/panda-and-tree.json")
    path.write_text(path.read_text().replace('"panda/head"', '"dog"'))
    # A polygon follows its pixels but for a few.
    assert (corrected(command, "out/labelme") != np.where(before == HEAD, DOG, before)).sum() < 0.02 * (
        before == HEAD
    ).sum()


@pytest.mark.parametrize("form", ["coco", "labelme"])
def test_parts_of_a_whole_that_becomes_another_stay(command: Command, form: str) -> None:
    before = mask()
    if form == "coco":
        data = coco()
        for each in data["annotations"]:
            each["category_id"] = DOG if each["category_id"] == PANDA else each["category_id"]
        Path("edited.json").write_text(json.dumps(data))
        source = "edited.json"
    else:
        path = Path("out/labelme/panda-and-tree.json")
        path.write_text(path.read_text().replace('"panda"', '"dog"'))
        source = "out/labelme"
    assert np.array_equal(corrected(command, source), np.where(before == PANDA, DOG, before))


def yolo_lines(*kept: int) -> None:
    """Keep the lines of these classes only, by their place in the list from 1."""
    path = Path("out/yolo/labels/train/panda-and-tree.txt")
    lines = path.read_text().split("\n")[:-1]
    path.write_text("".join(f"{line}\n" for line in lines if int(line.split()[0]) + 1 in kept))


def test_a_part_deleted_with_its_whole_is_gone(command: Command) -> None:
    before = mask()
    yolo_lines(LEG, CROWN, TRUNK, TREE)
    assert np.array_equal(corrected(command, "out/yolo"), np.where(np.isin(before, [PANDA, HEAD, BODY]), 0, before))


def test_unchanged_parts_stay_above_a_whole_that_is_enlarged_over_them(command: Command) -> None:
    ran = label(command, "-f", "png,yolo", "--overwrite", classes="panda/head,tree")
    assert ran.code == 0, ran.err
    before, (head, panda) = mask(), (1, 3)
    path = Path("out/yolo/labels/train/panda-and-tree.txt")
    lines = path.read_text().split("\n")[:-1]
    index = max((i for i, line in enumerate(lines) if line.startswith(f"{panda - 1} ")), key=lambda i: len(lines[i]))
    corners = np.array(lines[index].split()[1:], float).reshape(-1, 2)
    larger = corners.mean(0) + (corners - corners.mean(0)) * 1.25
    lines[index] = f"{panda - 1} " + " ".join(f"{each:.6f}" for each in larger.clip(0, 1).ravel())
    path.write_text("\n".join(lines) + "\n")
    after = corrected(command, "out/yolo")
    assert (after == panda).sum() > (before == panda).sum()
    assert np.array_equal(after == head, before == head)


def test_parts_deleted_in_yolo_become_their_whole(command: Command) -> None:
    before = mask()
    yolo_lines(*{*range(1, 10)} - {LEG})
    assert np.array_equal(corrected(command, "out/yolo"), np.where(before == LEG, PANDA, before))


def test_parts_deleted_in_panoptic(command: Command) -> None:
    """A segment is what parts leave of a whole. A part becomes its whole, unless all of that is deleted too."""
    before, data, picture = mask(), coco("out/panoptic.json"), panoptic_ids()
    assert (before == PANDA).any()
    (image,) = (each for each in data["annotations"] if each["file_name"] == "panda-and-tree.png")
    data["images"] = [each for each in data["images"] if each["id"] == image["image_id"]]
    segments = image["segments_info"]
    for gone, wanted in (
        ((HEAD,), np.where(before == HEAD, PANDA, before)),
        ((HEAD, BODY, LEG, PANDA), np.where(wholes_of(before) == PANDA, 0, before)),
    ):
        image["segments_info"] = [each for each in segments if each["category_id"] not in gone]
        left = np.where(np.isin(picture, [each["id"] for each in image["segments_info"]]), picture, 0)
        colours = left.astype("<u4").view(np.uint8).reshape(*left.shape, 4)[..., :3]
        Path("edited/panoptic").mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save("edited/panoptic/panda-and-tree.png")
        Path("edited/panoptic.json").write_text(json.dumps({**data, "annotations": [image]}))
        assert np.array_equal(corrected(command, "edited"), wanted)


def test_a_new_part_of_a_known_whole_is_added(command: Command) -> None:
    data = coco()
    (head,) = (each for each in data["categories"] if each["name"] == "panda/head")
    head["name"] = "panda/face"
    Path("edited.json").write_text(json.dumps(data))
    assert command("correct", "out", "--from", "edited.json", "--add-classes").code == 0
    record = {each["name"]: each for each in json.loads(Path("out/classes.json").read_bytes())["classes"]}
    assert record["panda/face"]["part_of"] == "panda"
    assert record["panda/face"]["id"] == 10
    assert command("check", "out").code == 0
    assert any("part_of" in each for each in coco()["annotations"] if each["category_id"] == 10)


# ---- evaluation, keeping, mistakes ----


def test_eval_scores_wholes_and_parts(command: Command) -> None:
    for path in Path("out/masks").glob("*.png"):
        Path("gt").mkdir(exist_ok=True)
        Image.fromarray(wholes_of(np.asarray(Image.open(path)))).save(Path("gt", path.name))
    ran = command("eval", "out", "--gt", "gt", "--json")
    scores = json.loads(ran.out)
    assert scores["mean_iou_wholes"] == 1
    assert scores["mean_iou_parts"] == 0
    assert "likewise" not in ran.err


def test_onto_paints_parts_inside_wholes_that_exist(command: Command) -> None:
    assert label(command, "-o", "old", "-f", "png", classes="panda,tree").code == 0
    ran = command("label", "imgs", "-c", "panda/head", "--onto", "old", "-m", "tiny", "-o", "new", "-f", "png,coco")
    assert ran.code == 0, ran.err
    old, new = mask(folder="old"), mask(folder="new")
    assert (new == 3).any()
    assert np.array_equal(np.where(new == 3, 1, new), old)


def test_classes_that_compete_with_their_parts_are_noted(command: Command) -> None:
    note = "'panda leg' and 'panda' compete for the same pixels"
    ran = label(command, "-o", "flat", "-f", "coco", classes="panda,panda leg")
    assert note in ran.err
    assert '"panda,panda/leg"' in ran.err
    Path("v.txt").write_text("panda\npanda leg\n")
    for more in (("--vocab", "v.txt"), ("-c", "panda,panda/leg")):
        ran = command("label", "imgs", *more, "-m", "tiny", "-o", f"other{len(more)}{more[1][:3]}", "-f", "coco")
        assert ran.code == 0, ran.err
        assert note not in ran.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("-c", "imgs/two-pandas.png"), "is a path, and a slash separates a whole from its part"),
        (("-c", "panda/,tree"), "'panda/' has an empty name"),
        (("-c", "panda head,panda/head"), "'panda head' belongs to two classes"),
    ],
)
def test_mistakes(command: Command, arguments: tuple[str, ...], part: str) -> None:
    ran = command("label", "imgs", *arguments, "-m", "tiny", "-o", "new")
    assert ran.code in (1, 2)
    assert part in ran.err
    assert not Path("new").exists()


def test_another_list_of_parts_is_another_question(command: Command) -> None:
    ran = label(command, classes="panda,tree")
    assert ran.code == 1
    assert "classes panda/head" in ran.err


def test_a_vocabulary_says_what_is_a_thing(command: Command) -> None:
    Path("v.toml").write_text('classes = [{name="panda", thing=true}, {name="sky", thing=false}, "tree"]\n')
    for instances, expected in (("component", [1, 0, 1]), ("class", [1, 0, 0])):
        arguments = ("--vocab", "v.toml", "-m", "tiny", "-o", instances, "-f", "panoptic", "--instances", instances)
        assert command("label", "imgs", *arguments).code == 0
        assert [each["isthing"] for each in coco(f"{instances}/panoptic.json")["categories"]] == expected
        assert command("convert", instances, "--drop", "panoptic").code == 0
        assert command("convert", instances, "-f", "panoptic").code == 0
        assert [each["isthing"] for each in coco(f"{instances}/panoptic.json")["categories"]] == expected
