"""`tipsseg eval`: labels of a run, masks drawn by hand, numberings, the layouts of benchmarks, names beside masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masks import PRED, TABLE, TRUTH, Rows, files, ious, names, read, result, save, save_photo, scores
from output_folders import make_run, save_inputs
from running import Command, Ran

from tipsseg.folder.record import SCHEMA

pytestmark = pytest.mark.usefixtures("no_weights_in_folder")

CLASSES = "panda leg,tree,sky"
NO_CONFIDENCES = "The precision by confidence requires labels in the format npz."
IDS = {"background": 0, "panda leg": 1, "tree": 2, "sky": 3}


def image_scores(ran: Ran) -> list[dict[str, object]]:
    found: list[dict[str, object]] = result(ran)["image_scores"]  # type: ignore[assignment]
    return found


@pytest.mark.usefixtures("masks")
def test_the_table_is_all_that_stdout_has(command: Command, process: Command, tmp_path: Path) -> None:
    arguments = ["eval", "pred", "--gt", "gt", "-c", "panda,tree"]
    for ran in (command(*arguments), process(*arguments, cwd=tmp_path)):
        assert (ran.code, ran.out) == (0, TABLE)
        assert ran.err == f"Scoring 1 mask of pred against gt.\n{NO_CONFIDENCES}\n"


def test_labels_score_1_against_themselves(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--device", "cpu"]
    assert command("label", pictures, *model, "-f", "png", "-o", "labels").code == 0
    shutil.copytree("labels/masks", "gt")
    masks = [read(path) for path in Path("gt").rglob("*.png")]
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=4)
    ran = command("eval", "labels", "--gt", "gt", "--json")
    record = result(ran)
    assert ious(ran) == {name: 1.0 for name, number in IDS.items() if counts[number]}
    assert (record["images"], record["failed"], record["pixels"]) == (3, 0, counts.sum())
    assert (record["mean_iou"], record["pixel_accuracy"], record["mean_accuracy"]) == (1.0, 1.0, 1.0)
    assert (record["pred"], record["gt"], record["layout"]) == ("labels", "gt", "plain")


def test_the_precision_of_stored_confidences(
    command: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    """Of the model's own labels: a corrected image is left out."""
    label = ["label", pictures, "-c", CLASSES, "-m", mlp_checkpoint, "--device", "cpu", "-f", "png,npz", "-o", "out"]
    assert command(*label).code == 0
    for path in sorted(Path("out/masks").rglob("*.png")):
        truth = np.where(np.indices(read(path).shape).sum(0) % 3, read(path), 1)
        truth[:5] = 255
        save(str("gt" / path.relative_to("out/masks")), truth)
    save("out/masks/a.png", np.zeros_like(read(Path("out/masks/a.png"))))
    ran = command("eval", "out", "--gt", "gt", "--json")
    found: Any = result(ran)["confidence"]
    assert (found["images"], found["at_least"]) == (2, [0.5, 0.7, 0.9, 0.95])
    arrays = [np.load(path) for path in sorted(Path("out/npz/sub").glob("*.npz"))]
    labels, levels = (np.concatenate([each[name].ravel() for each in arrays]) for name in ("labels", "confidence"))
    truths = np.concatenate([read(path).ravel() for path in sorted(Path("gt/sub").glob("*.png"))])
    for entry in found["classes"]:
        own = labels == entry["id"]
        kept = [own & (levels / 255 >= least) for least in found["at_least"]]
        assert entry["kept"] == [
            pytest.approx(each.sum() / own.sum(), abs=1e-6) if own.any() else None for each in kept
        ]
        right = [(each & (truths == entry["id"])).sum() / max((each & (truths < 255)).sum(), 1) for each in kept]
        known = [(each & (truths < 255)).any() for each in kept]
        assert entry["precision"] == [
            pytest.approx(r, abs=1e-6) if k else None for r, k in zip(right, known, strict=True)
        ]
    assert len(arrays) == 2
    assert "\nprecision in % at " in (table := command("eval", "out", "--gt", "gt")).out
    assert "--format npz" not in table.err
    Path("out/npz/sub/b c.npz").write_bytes(b"")
    ran = command("eval", "out", "--gt", "gt")
    assert (ran.code, "out/npz/sub/b c.npz: it cannot be read" in ran.err) == (1, True)
    shutil.rmtree("out/npz")
    ran = command("eval", "out", "--gt", "gt", "--json")
    assert (result(ran)["confidence"], ran.err.splitlines()[1:]) == (None, [NO_CONFIDENCES])


def test_a_benchmark_is_labelled_by_its_preset_and_scored_by_its_layout(command: Command, mlp_checkpoint: Path) -> None:
    save_photo("VOC2012/JPEGImages/2007_1.jpg")
    truth = np.zeros((30, 40), np.uint8)
    truth[5:25, 5:20], truth[4, 5:20] = 15, 255
    save("VOC2012/SegmentationClass/2007_1.png", truth, palette=True)
    assert command("label", "VOC2012/JPEGImages", "--vocab", "voc21", "-m", mlp_checkpoint, "-o", "out").code == 0
    record = result(command("eval", "out", "--gt", "VOC2012/SegmentationClass", "--layout", "voc21", "--json"))
    assert (record["layout"], record["images"], record["pixels"]) == ("voc21", 1, 30 * 40 - 15)


def test_a_list_of_masks_on_stdin_is_scored(command: Command) -> None:
    for name in "abc":
        save(f"pred/{name}.png", PRED)
        save(f"gt/{name}.png", TRUTH)
    arguments = ["--gt", "gt", "-c", "panda,tree", "--json"]
    ran = command("eval", "-", *arguments, stdin=b"pred/a.png\npred/c.png\n")
    assert [each["image"] for each in image_scores(ran)] == ["pred/a.png", "pred/c.png"]
    assert scores(command("eval", "-", "-0", *arguments, stdin=b"pred/a.png\0pred/c.png\0")) == scores(ran)
    ran = command("eval", "-", "--gt", "gt", stdin=b"pred/a.png\n")
    assert (ran.code, "the masks in a list have no classes.json" in ran.err) == (2, True)
    ran = command("eval", "pred", "-0", *arguments)
    assert (ran.code, "-0 is for a list on stdin" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("masks", "truths", "scored", "said"),
    [
        ("a.png b.png c.png d.png e.png", "e.png", "e.png", "4 of 5: a.png, b.png, c.png and 1 more."),
        # A truth of the same file name is that of another image.
        ("lake/a.png street/a.png", "street/a.png", "street/a.png", "1 of 2: lake/a.png."),
        # The truths of a sub-folder, and truths without folders.
        ("s/a.png s/b.png", "val/s/a.png", "s/a.png", "1 of 2: s/b.png."),
        ("images/a.png", "labels/a.png", "images/a.png", ""),
    ],
)  # fmt: skip
def test_masks_without_a_truth_are_counted_and_left_out(
    command: Command, masks: str, truths: str, scored: str, said: str
) -> None:
    for name in masks.split():
        save(f"pred/{name}", PRED)
    for name in truths.split():
        save(f"gt/{name}", TRUTH)
    ran = command("eval", "pred", "--gt", "gt", "-c", "panda,tree", "--json")
    assert [each["image"] for each in image_scores(ran)] == scored.split()
    assert result(ran)["without_truth"] == len(masks.split()) - len(scored.split())
    assert (f"Ignored {said.replace(':', ' masks without ground truth:')}\n" in ran.err) == bool(said)
    number = result(ran)["without_truth"]
    last = f"The scores do not include {number} mask{'s' if number != 1 else ''} without ground truth."
    assert (ran.err.splitlines()[-1] == last) == bool(said)


@pytest.mark.usefixtures("masks")
def test_nothing_is_written(command: Command, tmp_path: Path) -> None:
    before = files(tmp_path)
    for flags in ([], ["--json"]):
        assert command("eval", "pred", "--gt", "gt", "-c", "panda,tree", *flags).code == 0
        assert files(tmp_path) == before


@pytest.mark.usefixtures("masks")
def test_the_json_record(command: Command) -> None:
    ran = command("eval", "pred", "--gt", "gt", "-c", 'panda "leg", left', "-c", "tree", "--json")
    record = result(ran)
    assert (record["pred"], record["gt"]) == ("pred", "gt")
    assert record["confusion"] == {
        "columns": ["background", 'panda "leg", left', "tree", "no label"],
        "counts": [[1, 0, 0, 0], [1, 1, 0, 1], [0, 1, 2, 0]],
    }
    assert [(each["pixels"], each["right"]) for each in image_scores(ran)] == [(7, 4)]


def test_masks_of_a_run_bring_their_names(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    save_photo("imgs/a.png")
    save("gt/a.png", np.full((30, 40), 2))
    label = ["label", "imgs", "-m", mlp_checkpoint, "--background", "none", "-o", "run"]
    assert command(*label, "-c", CLASSES, "-f", "png,overlay").code == 0
    by_folder = command("eval", "run", "--gt", "gt", "--json")
    by_masks = command("eval", "run/masks", "--gt", "gt", "--json")
    by_option = command("eval", "run", "--gt", "gt", "--json", "-c", "panda,shrub,clouds")
    assert scores(by_folder) == scores(by_masks)
    assert names(by_folder) == list(IDS)
    assert names(by_option) == ["background", "panda", "shrub", "clouds"]

    in_order = ["eval", "run/masks", "--gt", "gt", "-c"]
    assert command(*in_order, "Panda leg,tree,sky").code == 0
    for classes, message in (
        ("Tree,panda leg,sky", "classes in a different order"),
        ("tree", "got 1 class, but the masks"),
    ):
        ran = command(*in_order, classes)
        assert (ran.code, ran.out, message in ran.err) == (2, "", True)

    (tmp_path / "run" / "classes.json").unlink()  # the record has the names
    assert scores(command("eval", "run", "--gt", "gt", "--json")) == scores(by_folder)

    assert command(*label, "-c", CLASSES, "-f", "coco", "-o", "other").code == 0  # its masks are hidden
    assert scores(command("eval", "other", "--gt", "gt", "--json")) == scores(by_folder)
    mask = tmp_path / "run" / "masks" / "a.png"
    mask.write_bytes(b"not a mask")
    ran = command("eval", "run", "--gt", "gt", "-c", CLASSES)
    assert (ran.code, "run/masks/a.png: cannot be read" in ran.err) == (1, True)
    mask.unlink()
    ran = command("eval", "run", "--gt", "gt", "-c", CLASSES)
    assert (ran.code, ran.out, "run: no labelled images" in ran.err) == (1, "", True)


FOREIGN = ("{", '{"classes": [{"id": "1", "name": "a"}]}')


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.usefixtures("masks")
def test_a_foreign_classes_file(command: Command, content: str) -> None:
    Path("pred/classes.json").write_text(content)
    ran = command("eval", "pred", "--gt", "gt")
    assert (ran.code, ran.out, "pred/classes.json: not a classes.json of tipsseg" in ran.err) == (1, "", True)
    assert command("eval", "pred", "--gt", "gt", "-c", "panda,tree").out == TABLE


@pytest.mark.usefixtures("masks")
def test_the_classes_of_another_run_beside_the_masks_are_not_theirs(command: Command) -> None:
    """As if the output folder of a run were the working folder."""
    classes = {"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]}
    Path("classes.json").write_text(json.dumps(classes))
    assert command("eval", "pred", "--gt", "gt", "-c", "panda,tree").out == TABLE
    ran = command("eval", "pred", "--gt", "gt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: the masks in pred have no classes.json that names their ids\n")
    Path("pred").rename("masks")
    assert names(command("eval", "masks", "--gt", "gt", "--json")) == ["background", "a", "b", "c"]


# flags: truth, IoU of the classes that occur, pixels; always against PRED
NUMBERINGS: dict[str, tuple[list[str], Rows, dict[str, float], int]] = {
    # without the truth of 0; a prediction of 0 is then no label: panda: 1 of 3 + 2 - 1
    "reduced": (["--reduce-zero-label"], TRUTH, {"panda": 0.25, "tree": 0.666667}, 6),
    # 0 is panda, 1 is tree. Truth panda where 0, 1, 2 were predicted; tree where 1, 0, none, 2
    "zero-based": (
        ["--zero-based"],
        [[0, 0, 1, 0], [1, 255, 1, 1]],
        # panda: 1 of 3 + 2 - 1; tree: 1 of 4 + 2 - 1
        {"panda": 0.25, "tree": 0.2},
        7,
    ),
    "ignored id": (
        ["--ignore-index", "9"], [[0, 1, 2, 2], [1, 9, 1, 2]], {"background": 0.5, "panda": 0.25, "tree": 0.666667}, 7,
    ),
    "ignored class": (
        ["--ignore-index", "2"],
        [[0, 1, 2, 2], [1, 2, 1, 2]],
        # left: 0-0 1-1 / 0-1 none-1: background: 1 of 1 + 2 - 1; panda: 1 of 3 + 1 - 1
        {"background": 0.5, "panda": 0.333333},
        4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMBERINGS)
def test_numberings_of_truth_masks(command: Command, case: str) -> None:
    flags, truth, expected, pixels = NUMBERINGS[case]
    save("pred/a.png", PRED)
    save("gt/a.tif", truth)
    ran = command("eval", "pred", "--gt", "gt", "-c", "panda,tree", "--json", *flags)
    assert ious(ran) == expected
    assert result(ran)["pixels"] == pixels


# layout: mask of tipsseg and its ids, truth and its ids, IoU of the classes that occur, pixels
BENCHMARKS: dict[str, tuple[str, str, Rows, str, Rows, dict[str, float], int]] = {
    "ade20k": (
        "ade20k", "ADE_val_00000001.png", [[1, 1, 2, 3, 150]],
        "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", [[1, 2, 2, 0, 150]],
        {"wall": 0.5, "building": 0.5, "flag": 1.0}, 4,
    ),
    "voc21": (
        "voc21", "2007_000033.png", [[0, 0, 1, 1, 20, 0]], "VOC2012/SegmentationClass/2007_000033.png",
        [[0, 1, 1, 255, 20, 20]], {"background": 0.333333, "aeroplane": 0.5, "tv monitor": 0.5}, 5,
    ),
    "pascal-context-59": (
        "pascal-context-59", "2008_000002.png", [[1, 1, 59, 2, 1]], "VOC2010/SegmentationClassContext/2008_000002.png",
        [[1, 0, 59, 59, 255]], {"aeroplane": 1.0, "bag": 0.0, "wood": 0.5}, 3,
    ),
    # 7 road, 8 sidewalk, 26 car, 33 bicycle; 0 and 29 are not evaluated
    "cityscapes label ids": (
        "cityscapes", "bern/bern_000000_000019_leftImg8bit.png", [[1, 2, 2, 14, 19, 1, 1]],
        "gtFine/val/bern/bern_000000_000019_gtFine_labelIds.png", [[7, 7, 8, 26, 33, 0, 29]],
        {"road": 0.5, "sidewalk": 0.5, "car": 1.0, "bicycle": 1.0}, 5,
    ),
    "cityscapes train ids": (
        "cityscapes", "bern/bern_000000_000019_leftImg8bit.png", [[1, 2, 2, 14, 19, 1]],
        "gtFine/val/bern/bern_000000_000019_gtFine_labelTrainIds.png", [[0, 0, 1, 13, 18, 255]],
        {"road": 0.5, "sidewalk": 0.5, "car": 1.0, "bicycle": 1.0}, 5,
    ),
    # 0 person, 12 stop sign (11 is unused, so the 12th class), 91 banner (the 81st), 181 wood (the 171st)
    "coco-stuff raw": (
        "coco-stuff", "000000000139.png", [[1, 12, 81, 81, 171, 5]], "stuffthingmaps/val2017/000000000139.png",
        [[0, 12, 91, 12, 181, 255]], {"person": 1.0, "stop sign": 0.5, "banner": 0.5, "wood": 1.0}, 5,
    ),
    "coco-stuff train ids": (
        "coco-stuff", "000000000139.png", [[1, 12, 81, 81, 171, 5]],
        "stuffthingmaps/val2017/000000000139_labelTrainIds.png", [[0, 11, 80, 11, 170, 255]],
        {"person": 1.0, "stop sign": 0.5, "banner": 0.5, "wood": 1.0}, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BENCHMARKS)
def test_benchmarks_in_their_own_files(command: Command, case: str) -> None:
    layout, mask, ids, truth, true_ids, expected, pixels = BENCHMARKS[case]
    save(f"pred/{mask}", ids)
    save(truth, true_ids, palette=layout.startswith("voc"))
    top = Path(truth).parent if layout != "cityscapes" else Path(truth).parents[1]
    ran = command("eval", "pred", "--gt", top, "--layout", layout, "--json")
    assert ious(ran) == expected
    record = result(ran)
    assert record["pixels"] == pixels
    assert record["layout"] == layout
    assert record["mean_iou"] == pytest.approx(sum(expected.values()) / len(expected), abs=1e-6)


def test_bad_masks_are_reported_and_left_out(command: Command) -> None:
    for name in "abcde":
        save(f"pred/{name}.png", PRED)
        save(f"gt/{name}.png", TRUTH)
    Path("gt/e.png").write_bytes(b"")
    Path("pred/b.png").write_bytes(Path("pred/a.png").read_bytes()[:40])
    save_photo("pred/c.png", 2, 4)
    save("pred/d.png", [[0]])
    ran = command("eval", "pred", "--gt", "gt", "-c", "panda,tree", "--json")
    record = result(ran, code=1)
    assert (record["images"], record["failed"], record["pixels"]) == (1, 4, 7)
    assert ious(ran, code=1) == {"background": 0.5, "panda": 0.25, "tree": 0.666667}
    assert ran.err.count("Error: ") == 4
    assert "gt/e.png: empty file" in ran.err
    assert "pred/c.png: a colour image (RGB)" in ran.err
    assert "pred/d.png: the labels are 1 x 1 (height x width), but the ground truth is 2 x 4 (gt/d.png)" in ran.err
    assert ran.err.endswith("The scores do not include 4 failed images.\n")
    Path("pred/a.png").write_bytes(b"")
    ran = command("eval", "pred", "--gt", "gt", "-c", "panda,tree", "--quiet")
    assert (ran.code, ran.out) == (1, "")
    assert "\nError: no image was scored; the first failure: pred/a.png: empty file (0 bytes)\n" in ran.err


MANY = "panda leg,tree,sky,road"
SWAPPED = (
    "Most pixels of 'panda leg' in the ground truth are labelled 'tree', and likewise for {}. Check that the classes are in the "
    "order of the masks' ids; if the ids do not begin at 1, see --zero-based and --layout."
)

# name: (truth, predicted, flags, the note)
ORDERS: dict[str, tuple[Rows, Rows, list[str], str | None]] = {
    "two swapped": ([[1, 1, 1, 2, 3, 4]], [[2, 2, 1, 1, 3, 4]], [], SWAPPED.format("1 more class")),
    "from 0, read as from 1": ([[0, 1, 2, 3]], [[1, 2, 3, 4]], [], SWAPPED.format("2 more classes")),
    "no more than half of a class": ([[1, 1, 2, 2, 3, 4]], [[2, 1, 1, 2, 3, 4]], [], None),
}


@pytest.mark.parametrize("case", ORDERS)
def test_classes_in_another_order_than_the_truth_are_suspected(command: Command, case: str) -> None:
    truth, predicted, flags, note = ORDERS[case]
    save("gt/a.png", truth)
    save("pred/a.png", predicted)
    arguments = ["eval", "pred", "--gt", "gt", "-c", MANY, *flags]
    ran, quiet = command(*arguments), command(*arguments, "--quiet")
    assert (ran.code, ran.err.splitlines()[1:]) == (0, [*([note] if note else []), NO_CONFIDENCES])
    assert (quiet.err, quiet.out) == ("", ran.out)


def test_0_and_255_alone_count_as_background_and_ignored(command: Command) -> None:
    """255 means what it means everywhere; a mask of one class as 0 and 255 gives no IoU of that class, not a wrong one."""
    save("pred/a.png", [[0, 1, 1, 0]])
    save("gt/a.png", [[0, 255, 255, 0]])
    ran = command("eval", "pred", "--gt", "gt", "-c", "panda", "--json")
    assert ious(ran) == {"background": 1.0}
    assert result(ran)["pixels"] == 2
    assert ran.err.splitlines()[1:] == [
        "The ground truth has no pixels of these classes. If its ids mean something else, see --ignore-index, --zero-based "
        "and --layout.",
        NO_CONFIDENCES,
    ]
    assert command("eval", "pred", "--gt", "gt", "-c", "panda", "--quiet").err == ""


def test_a_folder_of_masks_that_is_no_run_is_taken_as_it_is(command: Command) -> None:
    """A subfolder masks/ has no special meaning there."""
    for name in ("masks/a.png", "b.png"):
        save(f"pred/{name}", PRED)
        save(f"gt/{name}", TRUTH)
    assert result(command("eval", "pred", "--gt", "gt", "-c", "panda,tree", "--json"))["images"] == 2


@pytest.mark.usefixtures("masks")
def test_names_are_those_nearest_to_the_masks(command: Command, tmp_path: Path) -> None:
    masks = tmp_path / "run" / "masks"
    masks.parent.mkdir()
    Path("pred").rename(masks)
    Path("run/classes.json").write_text('{"classes": [{"name": "panda"}, {"name": "tree"}]}')
    assert command("eval", "run/masks", "--gt", "gt").out == TABLE
    assert command("eval", ".", "--gt", "../../gt", cwd=masks).out == TABLE
    Path("classes.json").write_text('{"classes": [{"name": "dog"}, {"name": "cat"}]}')
    assert names(command("eval", ".", "--gt", "../../gt", "--json")) == ["background", "dog", "cat"]


@pytest.mark.parametrize("folder", ["run", "run/masks"])
@pytest.mark.usefixtures("masks")
def test_names_are_those_of_the_run(command: Command, tmp_path: Path, folder: str) -> None:
    labels = {"a.png": np.array(PRED, np.uint8)}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "run", tmp_path / "imgs", labels, ("panda", "tree"), ("png",))
    Path("run/classes.json").write_text('{"classes": [{"id": 1, "name": "bush"}]}')
    assert command("eval", folder, "--gt", "gt").out == TABLE
    record = Path("run/run.json")
    record.write_text(record.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'))
    ran = command("eval", folder, "--gt", "gt")
    assert (ran.code, ran.out, "another version" in ran.err) == (1, "", True)


def test_an_output_folder_as_ground_truth_means_its_masks(command: Command, tmp_path: Path) -> None:
    """Not its pictures, which the folder of yolo has under the same names."""
    labels = {"a.png": np.array(TRUTH, np.uint8)}
    save_inputs(tmp_path / "imgs", labels)
    make_run(tmp_path / "run", tmp_path / "imgs", labels, ("panda", "tree"), ("yolo",))
    save("pred/a.png", PRED)
    assert command("eval", "pred", "--gt", "run", "-c", "panda,tree").out == TABLE
    for arguments in (["run"], ["pred", "-c", "tree,panda"]):
        ran = command("eval", *arguments, "--gt", "run")
        assert (ran.code, ran.out) == (2, "")  # against itself, and ids of other classes
