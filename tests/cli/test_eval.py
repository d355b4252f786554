"""`tipsseg eval` from the command line to the scores; a small random model where one is needed, masks drawn by hand elsewhere."""

from __future__ import annotations

import csv
import json
import shlex
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Command, Ran

from tipsseg import run_eval, weights
from tipsseg.predictions import in_other_order
from tipsseg.vocabulary_file import read_vocabulary

CLASSES = "panda leg,tree,sky"
IDS = {"background": 0, "panda leg": 1, "tree": 2, "sky": 3}

Rows = Sequence[Sequence[int]]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may need weights, or the network: models come from a local folder."""

    def never(spec: object, *, quiet: bool = False) -> Path:
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(weights, "fetch", never)
    monkeypatch.chdir(tmp_path)


def save(path: str, ids: Rows | np.ndarray, *, palette: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(ids, np.uint8))
    if palette:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([(37 * number + channel) % 256 for number in range(256) for channel in range(3)])
    image.save(path)


def save_photo(path: str, height: int = 30, width: int = 40) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng([height, width]).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(colours).resize((width, height)).save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def result(ran: Ran, code: int = 0) -> dict[str, object]:
    """The one JSON object on stdout."""
    assert ran.code == code, ran.err
    assert ran.out.count("\n") == 1
    record = json.loads(ran.out)
    assert isinstance(record, dict)
    return record


def scores(ran: Ran, code: int = 0) -> dict[str, object]:
    """What was scored, without what was run."""
    record = result(ran, code)
    return {key: record[key] for key in ("images", "failed", "mean_iou", "pixel_accuracy", "pixels", "classes")}


def ious(ran: Ran, code: int = 0) -> dict[str, float]:
    """The IoU of each class that occurs."""
    classes = result(ran, code)["classes"]
    assert isinstance(classes, list)
    return {entry["name"]: entry["iou"] for entry in classes if entry["iou"] is not None}


def names(ran: Ran) -> list[str]:
    classes = result(ran)["classes"]
    assert isinstance(classes, list)
    return [entry["name"] for entry in classes]


# ---- images ----


def test_labels_score_1_against_themselves_and_exactly_less_where_the_truth_differs(
    command: Command, process: Command, mlp_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--device", "cpu"]
    assert command("label", pictures, *model, "-f", "png", "-o", "labels").code == 0
    written = files(tmp_path / "labels" / "masks")
    masks = {name: read(tmp_path / "labels" / "masks" / name).copy() for name in written}
    total = sum(mask.size for mask in masks.values())
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks.values()]), minlength=4)
    assert (counts > 17).sum() >= 2

    ran = command("eval", pictures, "--gt", "labels/masks", *model, "--json", "-f", "png", "-o", "scores")
    record = result(ran)
    assert ious(ran) == {name: 1.0 for name, number in IDS.items() if counts[number]}
    assert (record["images"], record["failed"], record["pixels"]) == (3, 0, total)
    assert (record["mean_iou"], record["pixel_accuracy"], record["mean_accuracy"]) == (1.0, 1.0, 1.0)
    assert record["layout"] == "plain"
    assert (record["image_root"], record["gt"]) == (str(pictures), "labels/masks")
    assert str(record["labels"]).startswith("tipsseg label --model ")
    assert not {"command", "pred"} & set(record)
    assert files(tmp_path / "scores" / "masks") == written
    assert json.loads((tmp_path / "scores" / "eval.json").read_bytes()) == record

    often, seldom = (int(number) for number in np.argsort(counts)[[-1, -2]])
    changed = masks["a.png"]
    places = np.argwhere(changed == often)[:17]
    assert len(places) == 17
    changed[tuple(places[:10].T)] = seldom
    changed[tuple(places[10:].T)] = 255
    for name, mask in masks.items():
        save(f"gt/{name}", mask)
    expected = {name: 1.0 for name, number in IDS.items() if counts[number]}
    name_of = {number: name for name, number in IDS.items()}
    expected[name_of[often]] = round((counts[often] - 17) / (counts[often] - 7), 6)
    expected[name_of[seldom]] = round(counts[seldom] / (counts[seldom] + 10), 6)
    ran = command("eval", pictures, "--gt", "gt", *model, "--json")
    assert ious(ran) == expected
    record = result(ran)
    assert record["pixels"] == total - 7
    assert record["pixel_accuracy"] == round((total - 17) / (total - 7), 6)

    alone = process("eval", pictures, "--gt", "gt", *model, "--json", cwd=tmp_path)
    assert result(alone) == record
    assert alone.err.startswith(
        "Skipped in the folders: 1 other file, no image by its extension.\nChecking 3 truth masks.\n"
    )
    assert scores(command("eval", "--pred", "labels", "--gt", "gt", "--json")) == scores(ran)


def test_a_benchmark_from_images_and_from_their_masks(
    command: Command, process: Command, mlp_checkpoint: Path, tmp_path: Path
) -> None:
    save_photo("VOC2012/JPEGImages/2007_1.jpg")
    truth = np.zeros((30, 40), np.uint8)
    truth[5:25, 5:20], truth[4, 5:20] = 15, 255
    save("VOC2012/SegmentationClass/2007_1.png", truth, palette=True)
    both = ["--gt", "VOC2012/SegmentationClass", "--layout", "voc21", "--json"]
    ran = command("eval", "VOC2012/JPEGImages", *both, "-m", mlp_checkpoint, "-f", "png", "-o", "out")
    record = result(ran)
    assert (record["layout"], record["images"], record["pixels"]) == ("voc21", 1, 30 * 40 - 15)
    assert "--vocab voc21" in str(record["labels"])
    again = process("eval", "--pred", "out", *both, cwd=tmp_path)
    assert scores(again) == scores(ran)
    assert again.err == "Checking 1 truth mask.\n1 mask of out against VOC2012/SegmentationClass.\n"


@pytest.mark.parametrize("background", [None, "auto", "none", "road, sea"])
def test_the_command_in_the_record_makes_the_labels_that_were_scored(
    command: Command, mlp_checkpoint: Path, tmp_path: Path, background: str | None
) -> None:
    """Where the background was automatic, the command says so, rather than what it came to."""
    save_photo("imgs/a.jpg")
    save("gt/a.png", np.full((30, 40), 2))
    flags = [] if background is None else ["--background", background]
    ran = command("eval", "imgs", "--gt", "gt", "-c", CLASSES, "-m", mlp_checkpoint, *flags, "--json", "-o", "scores")
    record = result(ran)
    words = shlex.split(str(record["labels"]))
    assert words[:2] == ["tipsseg", "label"]
    assert words[words.index("--background") + 1] == {None: "auto", "road, sea": "road,sea"}.get(background, background)
    assert json.loads(Path("scores/eval.json").read_bytes()) == record
    assert command(*words[1:], record["image_root"], "-o", "run").code == 0
    assert json.loads(Path("run/run.json").read_bytes())["command"] == record["labels"]
    assert scores(command("eval", "--pred", "run", "--gt", record["gt"], "--json")) == scores(ran)


def test_names_with_commas_in_a_text_file_are_told(command: Command, mlp_checkpoint: Path) -> None:
    save_photo("imgs/a.png")
    save("gt/a.png", np.full((30, 40), 2))
    lines, toml = "salt, pepper\ntree\n", 'classes = ["salt, pepper", "tree"]\n'
    for name, content, told in (
        ("v.txt", lines, True),
        ("v", lines, True),
        ("v.toml", toml, False),
        ("v.TOML", toml, False),
    ):
        Path(name).write_text(content)
        ran = command(
            "eval", "imgs", "--gt", "gt", "--vocab", name, "-m", mlp_checkpoint, "--background", "none", "--json"
        )
        assert names(ran) == ["background", "salt, pepper", "tree"]
        assert ran.err.startswith(f"{name} has one class a line, commas and all, such as 'salt, pepper'.\n") == told
        assert ("commas" in ran.err) == told


@pytest.mark.parametrize("null", [False, True])
def test_a_list_on_stdin(command: Command, mlp_checkpoint: Path, null: bool) -> None:
    for name in ("a", "b", "c"):
        save_photo(f"imgs/s/{name}.jpg")
        save(f"gt/{name}.png", np.full((30, 40), 2))
    separator, flags = (b"\0", ["-0"]) if null else (b"\n", [])
    listed = separator.join([b"imgs/s/a.jpg", b"imgs/s/c.jpg", b""])
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none"]
    ran = command("eval", "-", *flags, "--gt", "gt", *model, "--json", stdin=listed)
    assert (result(ran)["images"], result(ran)["pixels"]) == (2, 2 * 30 * 40)
    assert "1 truth mask without an image.\n" in ran.err


def test_bad_images_and_truths_of_another_size_cost_a_line_and_are_left_out(
    command: Command, mlp_checkpoint: Path, tmp_path: Path
) -> None:
    model = ["-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--json"]
    for name in ("a", "broken", "other", "z"):
        save_photo(f"imgs/{name}.png")
        save(f"gt/{name}.png", np.full((30, 40), 1))
    good = scores(command("eval", "imgs/a.png", "imgs/z.png", "--gt", "gt", *model))
    assert good["images"] == 2
    Path("imgs/broken.png").write_bytes(b"")
    save("gt/other.png", np.full((40, 30), 1))
    for flags in (["-o", "out", "-f", "png"], []):
        ran = command("eval", "imgs", "--gt", "gt", *model, "--quiet", *flags)
        assert scores(ran, code=1) == {**good, "failed": 2}
        assert ran.err == (
            "Error: imgs/broken.png: empty file (0 bytes) (Fetch the image again, or remove it.)\n"
            "Error: imgs/other.png: the labels are 30 x 40 (height x width), the truth is 40 x 30 (gt/other.png) (The truth must "
            "belong to this image and have its size, with the image upright.)\n"
        )
    assert sorted(files(tmp_path / "out" / "masks")) == ["a.png", "z.png"]
    assert [json.loads(line)["image"] for line in Path("out/errors.jsonl").read_text().splitlines()] == [
        "broken.png",
        "other.png",
    ]
    ran = command("eval", "imgs", "--gt", "gt", *model)
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "The scores leave out 2 that failed."


def test_no_image_at_all_that_could_be_scored(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    for name in ("broken", "other"):
        save_photo(f"imgs/{name}.png")
        save(f"gt/{name}.png", np.full((40, 30), 1))
    Path("imgs/broken.png").write_bytes(b"")
    arguments = ["eval", "imgs", "--gt", "gt", "-c", CLASSES, "-m", mlp_checkpoint, "--background", "none", "--quiet"]
    for flags in ([], ["--json"], ["-o", "out"]):
        ran = command(*arguments, *flags)
        assert (ran.code, ran.out) == (1, "")
        first, second, *last = ran.err.splitlines()
        assert first.startswith("Error: imgs/broken.png: ")
        assert second.startswith("Error: imgs/other.png: ")
        assert last == ["Error: nothing was scored: 2 of 2 failed", "Hint: The lines above say why."]
    assert not (tmp_path / "out").exists()


def test_quiet(command: Command, mlp_checkpoint: Path) -> None:
    save_photo("imgs/a.png")
    save("gt/a.png", np.full((30, 40), 1))
    save("gt/unused.png", [[1]])
    ran = command("eval", "imgs", "--gt", "gt", "-c", "tree", "-m", mlp_checkpoint, "--quiet", "-o", "out", "-f", "png")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "in %              IoU  precision     recall   of truth"


# ---- masks ----

PRED = [[0, 1, 1, 2], [0, 1, 255, 2]]
TRUTH = [[0, 1, 2, 2], [1, 255, 1, 2]]
# Left: 0-0 1-1 1-2 2-2 / 0-1 none-1 2-2, seven pixels.
TABLE = """\
in %              IoU  precision     recall   of truth
background      50.00      50.00     100.00      14.29
panda           25.00      50.00      33.33      42.86
tree            66.67     100.00      66.67      42.86

mean IoU              47.22   over the 3 of 3 that occur in truth or labels
mean class accuracy   66.67
pixel accuracy        57.14   of 7 pixels
"""


@pytest.fixture
def masks() -> None:
    """Masks from elsewhere in pred, and their truth in gt."""
    save("pred/s/a.png", PRED)
    save("gt/s/a.png", TRUTH)


@pytest.mark.usefixtures("masks")
def test_the_table_is_all_that_stdout_has(command: Command, process: Command, tmp_path: Path) -> None:
    arguments = ["eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree"]
    written = "Written: out/eval.json, out/confusion.csv, out/confusion.png\n"
    for ran, told in (
        (command(*arguments), ""),
        (process(*arguments, cwd=tmp_path), ""),
        (command(*arguments, "-o", "out"), written),
    ):
        assert (ran.code, ran.out) == (0, TABLE)
        assert ran.err == "Checking 1 truth mask.\n1 mask of pred against gt.\n" + told
    assert sorted(files(tmp_path / "out")) == ["confusion.csv", "confusion.png", "eval.json"]


@pytest.mark.usefixtures("masks")
def test_without_an_output_folder_nothing_is_written(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    save_photo("imgs/s/a.png", 2, 4)
    before = files(tmp_path)
    for arguments in (["--pred", "pred"], ["imgs", "-m", mlp_checkpoint, "--background", "none"]):
        for flags in ([], ["--json"]):
            assert command("eval", *arguments, "--gt", "gt", "-c", "panda,tree", *flags).code == 0
            assert files(tmp_path) == before


@pytest.mark.usefixtures("masks")
def test_the_reports(command: Command) -> None:
    arguments = ["--pred", "pred", "--gt", "gt", "-c", 'panda "leg", left', "-c", "tree"]
    ran = command("eval", *arguments, "--json", "-o", "deep/out")
    assert json.loads(Path("deep/out/eval.json").read_bytes()) == result(ran)
    record = result(ran)
    assert (record["pred"], record["gt"]) == ("pred", "gt")
    assert not {"command", "labels", "image_root"} & set(record)
    with Path("deep/out/confusion.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["truth / predicted", "background", 'panda "leg", left', "tree", "none"]
    assert rows == [
        ["background", "1", "0", "0", "0"],
        ['panda "leg", left', "1", "1", "0", "1"],
        ["tree", "0", "1", "2", "0"],
    ]
    assert sum(int(cell) for row in rows for cell in row[1:]) == result(ran)["pixels"] == 7
    with Image.open("deep/out/confusion.png") as picture:
        assert picture.format == "PNG"
        picture.load()
    again = command("eval", *arguments, "--json", "-o", "deep/out")
    assert result(again) == result(ran)


def test_masks_of_a_run_bring_their_names(command: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    save_photo("imgs/a.png")
    save("gt/a.png", np.full((30, 40), 2))
    label = ["label", "imgs", "-m", mlp_checkpoint, "--background", "none", "-o", "run"]
    assert command(*label, "-c", CLASSES, "-f", "png,overlay").code == 0
    by_folder = command("eval", "--pred", "run", "--gt", "gt", "--json")
    by_masks = command("eval", "--pred", "run/masks", "--gt", "gt", "--json")
    by_option = command("eval", "--pred", "run", "--gt", "gt", "--json", "-c", "panda,shrub,clouds")
    assert scores(by_folder) == scores(by_masks)
    assert names(by_folder) == list(IDS)
    assert names(by_option) == ["background", "panda", "shrub", "clouds"]

    in_order = ["eval", "--pred", "run/masks", "--gt", "gt", "-c"]
    assert command(*in_order, "Panda leg,tree,sky").code == 0
    ran = command(*in_order, "Tree,panda leg,sky")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "Error: the masks in run/masks were made with the classes in another order: panda leg, tree, sky\n"
        "Hint: Leave out --classes and --vocab; the names are known from that run. The truth must have its order.\n"
    )

    for option in (["-c", "tree"], ["--vocab", "more.txt"], ["--layout", "voc20"]):
        Path("more.txt").write_text("panda leg\ntree\nsky\nroad\n")
        ran = command("eval", "--pred", "run", "--gt", "gt", *option)
        assert (ran.code, ran.out) == (2, "")
        number = {"-c": "1 class", "--vocab": "4 classes", "--layout": "20 classes"}[option[0]]
        assert ran.err == (
            f"Error: {number} given, but the masks in run were made with 3: panda leg, tree, sky\n"
            "Hint: The names are known from that run: leave out --classes and --vocab. To score by --layout, label with the "
            "vocabulary of its name.\n"
        )

    assert command("eval", "--pred", "run", "--gt", "gt", "-o", "run", "--quiet").code == 0
    assert scores(command("eval", "--pred", "run", "--gt", "gt", "--json")) == scores(by_folder)
    (tmp_path / "run" / "classes.json").unlink()
    ran = command("eval", "--pred", "run", "--gt", "gt", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "Error: no classes.json beside the masks in run says what their ids mean\n"
        "Hint: Give the classes with --classes, --vocab or --layout.\n"
    )
    assert scores(command("eval", "--pred", "run", "--gt", "gt", "--json", "-c", CLASSES)) == scores(by_folder)

    assert command(*label, "-c", CLASSES, "-f", "coco").code == 0
    for path in (tmp_path / "run" / "masks").iterdir():
        path.unlink()
    (tmp_path / "run" / "masks").rmdir()
    ran = command("eval", "--pred", "run", "--gt", "gt")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: the run in run wrote no masks\nHint: Label with --format png.\n"


@pytest.mark.parametrize("content", ["[]", "{", '{"classes": 3}', '{"classes": [{"id": 1}]}', '{"classes": ["a"]}'])
@pytest.mark.usefixtures("masks")
def test_a_foreign_classes_file(command: Command, content: str) -> None:
    Path("pred/classes.json").write_text(content)
    ran = command("eval", "--pred", "pred", "--gt", "gt")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "Error: pred/classes.json is not what tipsseg writes\nHint: Give the classes with --classes or --vocab.\n"
    )
    assert command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree").out == TABLE


@pytest.mark.usefixtures("masks")
def test_the_classes_of_another_run_beside_the_masks_are_not_theirs(command: Command) -> None:
    """Where a run's output folder is the working folder, say."""
    classes = {"classes": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "c"}]}
    Path("classes.json").write_text(json.dumps(classes))
    assert command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree").out == TABLE
    ran = command("eval", "--pred", "pred", "--gt", "gt")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: no classes.json beside the masks in pred says what their ids mean\n")
    Path("pred").rename("masks")
    assert names(command("eval", "--pred", "masks", "--gt", "gt", "--json")) == ["background", "a", "b", "c"]


# flags: truth, IoU of the classes that occur, pixels; always against PRED
NUMBERINGS: dict[str, tuple[list[str], Rows, dict[str, float], int]] = {
    # background: 1 of 1 + 2 - 1; panda: 1 of 3 + 2 - 1; tree: 2 of 3 + 2 - 2
    "plain": ([], TRUTH, {"background": 0.5, "panda": 0.25, "tree": 0.666667}, 7),
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
        ["--ignore-index", "9"],
        [[0, 1, 2, 2], [1, 9, 1, 2]],
        {"background": 0.5, "panda": 0.25, "tree": 0.666667},
        7,
    ),
    "ignored class": (
        ["--ignore-index", "2"],
        [[0, 1, 2, 2], [1, 2, 1, 2]],
        # left: 0-0 1-1 / 0-1 none-1: background: 1 of 1 + 2 - 1; panda: 1 of 3 + 1 - 1
        {"background": 0.5, "panda": 0.333333},
        4,
    ),
    "zero-based with another ignored id": (
        ["--zero-based", "--ignore-index", "2"],
        [[0, 0, 1, 0], [1, 2, 1, 1]],
        {"panda": 0.25, "tree": 0.2},
        7,
    ),
}


@pytest.mark.parametrize("case", NUMBERINGS)
def test_numberings(command: Command, case: str) -> None:
    flags, truth, expected, pixels = NUMBERINGS[case]
    save("pred/a.png", PRED)
    save("gt/a.tif", truth)
    ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", "--json", *flags)
    assert ious(ran) == expected
    assert result(ran)["pixels"] == pixels


# layout: mask of tipsseg and its ids, truth and its ids, IoU of the classes that occur, pixels
BENCHMARKS: dict[str, tuple[str, str, Rows, str, Rows, dict[str, float], int]] = {
    "ade20k": (
        "ade20k",
        "ADE_val_00000001.png",
        [[1, 1, 2, 3, 150]],
        "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png",
        [[1, 2, 2, 0, 150]],
        {"wall": 0.5, "building": 0.5, "flag": 1.0},
        4,
    ),
    "voc21": (
        "voc21",
        "2007_000033.png",
        [[0, 0, 1, 1, 20, 0]],
        "VOC2012/SegmentationClass/2007_000033.png",
        [[0, 1, 1, 255, 20, 20]],
        {"background": 0.333333, "aeroplane": 0.5, "tv monitor": 0.5},
        5,
    ),
    "voc20": (
        "voc20",
        "2007_000033.png",
        [[2, 0, 1, 1, 20, 0]],
        "VOC2012/SegmentationClass/2007_000033.png",
        [[0, 1, 1, 255, 20, 20]],
        {"aeroplane": 0.5, "tv monitor": 0.5},
        4,
    ),
    "pascal-context-59": (
        "pascal-context-59",
        "2008_000002.png",
        [[1, 1, 59, 2, 1]],
        "VOC2010/SegmentationClassContext/2008_000002.png",
        [[1, 0, 59, 59, 255]],
        {"aeroplane": 1.0, "bag": 0.0, "wood": 0.5},
        3,
    ),
    "pascal-context-60": (
        "pascal-context-60",
        "2008_000002.png",
        [[1, 1, 59, 2, 1]],
        "VOC2010/SegmentationClassContext/2008_000002.png",
        [[1, 0, 59, 59, 255]],
        {"background": 0.0, "aeroplane": 0.5, "bag": 0.0, "wood": 0.5},
        4,
    ),
    # 7 road, 8 sidewalk, 26 car, 33 bicycle; 0 and 29 are not evaluated
    "cityscapes label ids": (
        "cityscapes",
        "bern/bern_000000_000019_leftImg8bit.png",
        [[1, 2, 2, 14, 19, 1, 1]],
        "gtFine/val/bern/bern_000000_000019_gtFine_labelIds.png",
        [[7, 7, 8, 26, 33, 0, 29]],
        {"road": 0.5, "sidewalk": 0.5, "car": 1.0, "bicycle": 1.0},
        5,
    ),
    "cityscapes train ids": (
        "cityscapes",
        "bern/bern_000000_000019_leftImg8bit.png",
        [[1, 2, 2, 14, 19, 1]],
        "gtFine/val/bern/bern_000000_000019_gtFine_labelTrainIds.png",
        [[0, 0, 1, 13, 18, 255]],
        {"road": 0.5, "sidewalk": 0.5, "car": 1.0, "bicycle": 1.0},
        5,
    ),
    # 0 person, 12 stop sign (11 is unused, so the 12th class), 91 banner (the 81st), 181 wood (the 171st)
    "coco-stuff raw": (
        "coco-stuff",
        "000000000139.png",
        [[1, 12, 81, 81, 171, 5]],
        "stuffthingmaps/val2017/000000000139.png",
        [[0, 12, 91, 12, 181, 255]],
        {"person": 1.0, "stop sign": 0.5, "banner": 0.5, "wood": 1.0},
        5,
    ),
    "coco-stuff train ids": (
        "coco-stuff",
        "000000000139.png",
        [[1, 12, 81, 81, 171, 5]],
        "stuffthingmaps/val2017/000000000139_labelTrainIds.png",
        [[0, 11, 80, 11, 170, 255]],
        {"person": 1.0, "stop sign": 0.5, "banner": 0.5, "wood": 1.0},
        5,
    ),
}


@pytest.mark.parametrize("case", BENCHMARKS)
def test_benchmarks_in_their_own_files(command: Command, case: str) -> None:
    layout, mask, ids, truth, true_ids, expected, pixels = BENCHMARKS[case]
    save(f"pred/{mask}", ids)
    save(truth, true_ids, palette=layout.startswith("voc"))
    top = Path(truth).parent if layout != "cityscapes" else Path(truth).parents[1]
    ran = command("eval", "--pred", "pred", "--gt", top, "--layout", layout, "--json")
    assert ious(ran) == expected
    record = result(ran)
    assert record["pixels"] == pixels
    assert record["layout"] == layout
    assert record["mean_iou"] == pytest.approx(sum(expected.values()) / len(expected), abs=1e-6)


def test_bad_masks_cost_a_line_and_are_left_out(command: Command) -> None:
    for name in "abcd":
        save(f"pred/{name}.png", PRED)
        save(f"gt/{name}.png", TRUTH)
    Path("pred/b.png").write_bytes(Path("pred/a.png").read_bytes()[:40])
    save_photo("pred/c.png", 2, 4)
    save("pred/d.png", [[0]])
    arguments = ["eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", "--json"]
    ran = command(*arguments)
    record = result(ran, code=1)
    assert (record["images"], record["failed"], record["pixels"]) == (1, 3, 7)
    assert ious(ran, code=1) == {"background": 0.5, "panda": 0.25, "tree": 0.666667}
    checking, first, *middle, last = ran.err.splitlines()
    assert (checking, first) == ("Checking 4 truth masks.", "4 masks of pred against gt.")
    assert middle[0].startswith("Error: pred/b.png: ")
    assert middle[1].startswith(
        "Error: pred/c.png: a colour picture (RGB); masks must hold class ids (grey or palette) ("
    )
    assert middle[2].startswith(
        "Error: pred/d.png: the labels are 1 x 1 (height x width), the truth is 2 x 4 (gt/d.png) ("
    )
    assert len(middle) == 3
    assert last == "The scores leave out 3 that failed."
    quiet = command(*arguments, "--quiet")
    assert (quiet.code, quiet.out, quiet.err.splitlines()) == (1, ran.out, middle)


def test_no_mask_at_all_that_could_be_scored(command: Command, tmp_path: Path) -> None:
    save("pred/a.png", [[0]])
    save("gt/a.png", TRUTH)
    before = files(tmp_path)
    for flags in ([], ["--json"], ["-o", "out"]):
        ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", *flags)
        assert (ran.code, ran.out) == (1, "")
        first, second, third, *last = ran.err.splitlines()
        assert (first, second) == ("Checking 1 truth mask.", "1 mask of pred against gt.")
        assert third.startswith("Error: pred/a.png: the labels are 1 x 1 ")
        assert last == ["Error: nothing was scored: 1 of 1 failed", "Hint: The lines above say why."]
        assert files(tmp_path) == before


@pytest.mark.parametrize("jobs", [1, 3])
def test_so_many_threads_check_the_masks_and_none_keeps_what_it_read(
    command: Command, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        save(f"pred/{number}.png", PRED)
        save(f"gt/{number}.png", TRUTH)
    reads: dict[str, list[int]] = {"read_truth": [], "read_labels": []}
    live: set[int] = set()
    lock, main = threading.Lock(), threading.current_thread()

    def watch(name: str) -> None:
        real = getattr(run_eval, name)
        together = threading.Barrier(jobs)

        def read(*arguments: object) -> np.ndarray:
            if threading.current_thread() is main:  # it scores, once all is checked
                return real(*arguments)
            # Six masks in groups of `jobs`: with less threads than that a group never is complete.
            together.wait(timeout=30)
            array: np.ndarray = real(*arguments)
            with lock:
                reads[name].append(len(live))
                live.add(id(array))
            weakref.finalize(array, live.discard, id(array))
            return array

        monkeypatch.setattr(run_eval, name, read)

    for name in reads:
        watch(name)
    ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", "--json", "--jobs", jobs)
    assert (result(ran)["images"], result(ran)["pixels"]) == (6, 6 * 7)
    for counts in reads.values():
        assert len(counts) == 6
        assert max(counts) < jobs


MANY = "panda leg,tree,sky,road"
SWAPPED = (
    "Most of what is 'panda leg' in the truth is labelled 'tree', and likewise for {}. Are the classes in the order of the "
    "truth's ids? If these begin otherwise, see --zero-based and --layout."
)

# name: (truth, predicted, flags, the note)
ORDERS: dict[str, tuple[Rows, Rows, list[str], str | None]] = {
    "in order": ([[0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4]], [], None),
    "two swapped": ([[1, 1, 1, 2, 3, 4]], [[2, 2, 1, 1, 3, 4]], [], SWAPPED.format("1 more class")),
    "all turned": ([[0, 1, 2, 3, 4]], [[0, 2, 3, 4, 1]], [], SWAPPED.format("3 more classes")),
    "from 0, read as from 1": (
        [[0, 1, 2, 3]],
        [[1, 2, 3, 4]],
        [],
        SWAPPED.format("2 more classes"),
    ),
    "from 0, and said so": ([[0, 1, 2, 3]], [[1, 2, 3, 4]], ["--zero-based"], None),
    "only one is another": ([[1, 2, 3, 4]], [[2, 2, 3, 4]], [], None),
    "no more than half of a class": ([[1, 1, 2, 2, 3, 4]], [[2, 1, 1, 2, 3, 4]], [], None),
    "all labelled as one": ([[1, 2, 3, 4]], [[1, 1, 1, 1]], [], None),
    "all labelled as background": ([[1, 2, 3, 4]], [[0, 0, 0, 0]], [], None),
}


@pytest.mark.parametrize("case", ORDERS)
def test_classes_in_another_order_than_the_truth_are_suspected(command: Command, case: str) -> None:
    truth, predicted, flags, note = ORDERS[case]
    save("gt/a.png", truth)
    save("pred/a.png", predicted)
    arguments = ["eval", "--pred", "pred", "--gt", "gt", "-c", MANY, *flags]
    ran, as_json, quiet = command(*arguments), command(*arguments, "--json"), command(*arguments, "--quiet")
    assert ran.err.splitlines()[2:] == ([note] if note else [])
    assert as_json.err == ran.err
    assert (quiet.err, quiet.out) == ("", ran.out)
    assert (ran.code, as_json.code, quiet.code) == (0, 0, 0)


# ---- what goes wrong ----


def save_masks() -> None:
    save("pred/a.png", PRED)
    save("gt/a.png", TRUTH)


def save_empty_truth() -> None:
    save_masks()
    Path("gt/a.png").write_bytes(b"")


def save_jpeg_truth() -> None:
    save_photo("gt/a.jpg", 2, 4)
    save("gt/b.png", TRUTH)


def save_foreign_masks() -> None:
    """One that cannot be read, and one with ids that are no class."""
    for name in "ab":
        save(f"gt/{name}.png", TRUTH)
    save("pred/b.png", [[0, 3, 3, 0], [0, 9, 255, 2]])
    Path("pred/a.png").write_bytes(b"")


ARRANGE: dict[str, Callable[[], None]] = {
    "masks": save_masks,
    "colour": lambda: save_photo("gt/a.png", 2, 4),
    "binary": lambda: save("gt/a.png", [[0, 255, 255, 0], [0, 0, 0, 255]]),
    "values": lambda: save("gt/a.png", [[0, 100, 200, 0], [0, 0, 0, 254]]),
    "empty": lambda: Path("gt").mkdir(),
    "jpeg": lambda: save_photo("gt/a.jpg", 2, 4),
    "void": save_empty_truth,
    "jpeg among masks": save_jpeg_truth,
    "foreign": save_foreign_masks,
    "missing": lambda: save("gt/b.png", TRUTH),
    "nothing": lambda: None,
}
RELATED = (
    "Hint: The vocabulary has {}. If that is right, say what the ids mean with --ignore-index, --reduce-zero-label or "
    "--zero-based, or name the benchmark with --layout.\n"
)
CHECKING = "Checking 1 truth mask.\n"
NOT_FOUND = "Hint: --gt takes the folder that the truth masks are in.\n"
NO_PRED = "Hint: --pred takes a folder of masks, or the output folder of a run with --format png.\n"
NO_OUTPUT = "Hint: Choose another output folder with -o.\n"
NO_FILES = (
    "Hint: Folders are searched for files with one of .png .tif .tiff .bmp. If these are the photographs, images and --gt are "
    "swapped.\n"
)
NO_THREADS = "Error: --jobs {} is too small; the least is 1\n"
EXCLUDE = "Hint: Give images to label and score, or --pred with a folder of masks.\n"

MODEL = ["imgs", "-c", "panda,tree", "-m", "l14"]
MASKS = ["--pred", "pred", "-c", "panda,tree"]

# name: (what lies in gt, arguments, exit code, stderr); imgs/a.jpg is there. The model would have to be downloaded.
WRONG: dict[str, tuple[str, list[str], int, str]] = {
    "images and truth swapped": (
        "masks",
        ["gt", "--gt", "imgs", "-c", "panda,tree", "-m", "l14"],
        1,
        "Error: no truth masks in imgs\n" + NO_FILES,
    ),
    "ids beyond the classes": (
        "masks",
        ["imgs", "--gt", "gt", "-c", "panda", "-m", "l14"],
        1,
        CHECKING + "Error: gt/a.png: ids that are no class: 2 (3 pixels)\n" + RELATED.format("1 class"),
    ),
    "ids beyond the classes where 0 is the first": (
        "masks",
        ["--gt", "gt", *MODEL, "--zero-based"],
        1,
        CHECKING + "Error: gt/a.png: ids that are no class: 2 (3 pixels)\n" + RELATED.format("2 classes"),
    ),
    "seams where another id is ignored": (
        "masks",
        ["--gt", "gt", *MODEL, "--ignore-index", "0"],
        1,
        CHECKING + "Error: gt/a.png: ids that are no class: 255 (1 pixel)\n" + RELATED.format("2 classes"),
    ),
    "grey values": (
        "values",
        ["--gt", "gt", *MODEL],
        1,
        CHECKING
        + "Error: gt/a.png: ids that are no class: 100 (1 pixel), 200 (1 pixel), 254 (1 pixel)\n"
        + RELATED.format("2 classes"),
    ),
    "0 and 255 as one class": (
        "binary",
        ["imgs", "--gt", "gt", "-c", "panda", "-m", "l14", "--ignore-index", "254"],
        1,
        CHECKING + "Error: gt/a.png: ids that are no class: 255 (3 pixels)\n" + RELATED.format("1 class"),
    ),
    "coloured truth": (
        "colour",
        ["--gt", "gt", *MODEL],
        1,
        CHECKING + "Error: gt/a.png: a colour picture (RGB); masks must hold class ids (grey or palette)\n"
        "Hint: Save it as a PNG of one channel, 8 or 16 bits, whose values are the class ids. If it is a photograph, images and "
        "masks are swapped.\n",
    ),
    "empty truth": (
        "void",
        ["--gt", "gt", *MODEL],
        1,
        CHECKING + "Error: gt/a.png: empty file (0 bytes)\nHint: Fetch the image again, or remove it.\n",
    ),
    "empty truth of masks": (
        "void",
        [*MASKS, "--gt", "gt"],
        1,
        CHECKING + "Error: gt/a.png: empty file (0 bytes)\nHint: Fetch the image again, or remove it.\n",
    ),
    "ids beyond the classes in the truth of masks": (
        "masks",
        ["--pred", "pred", "-c", "panda", "--gt", "gt"],
        1,
        CHECKING + "Error: gt/a.png: ids that are no class: 2 (3 pixels)\n" + RELATED.format("1 class"),
    ),
    "ids beyond the classes in a mask": (
        "foreign",
        [*MASKS, "--gt", "gt"],
        1,
        "Checking 2 truth masks.\nError: pred/b.png: ids that are no class: 3 (2 pixels), 9 (1 pixel)\n"
        "Hint: Predicted masks hold 0 for background, 1..2 for the classes in the vocabulary's order and 255 for pixels without a "
        "label. Give the vocabulary that they were made with.\n",
    ),
    "truth without files": ("empty", ["--gt", "gt", *MODEL], 1, "Error: no truth masks in gt\n" + NO_FILES),
    "truth of JPEGs": ("jpeg", ["--gt", "gt", *MODEL], 1, "Error: no truth masks in gt\n" + NO_FILES),
    "truth is a JPEG": (
        "jpeg among masks",
        ["--gt", "gt", *MODEL],
        1,
        "Error: no truth for imgs/a.jpg in gt: looked for a with one of .png .tif .tiff .bmp\n"
        "Hint: gt/a.jpg is there, but truth masks need exact ids, as in a PNG. Or are images and --gt swapped?\n",
    ),
    "truth is a file": ("masks", ["--gt", "gt/a.png", *MODEL], 1, "Error: gt/a.png: not a folder\n" + NOT_FOUND),
    "no truth folder": ("nothing", ["--gt", "gt", *MODEL], 1, "Error: gt: no such folder\n" + NOT_FOUND),
    "no truth for an image": (
        "missing",
        ["--gt", "gt", *MODEL],
        1,
        "Error: no truth for imgs/a.jpg in gt: looked for a with one of .png .tif .tiff .bmp\n"
        "Hint: Truths are found by the image's path in its folder, or by its file name. Name the images that have one, or the "
        "benchmark with --layout.\n",
    ),
    "truth and images in one folder": (
        "masks",
        ["gt", "--gt", "gt", "-c", "panda,tree"],
        1,
        "Error: gt/a.png would be its own truth\n"
        "Hint: Images and truths lie in one folder, or the truths inside the images' folder. Name the images alone, for example "
        "by a pattern such as photos/*.jpg.\n",
    ),
    "masks are the truth": (
        "masks",
        ["--pred", "gt", "--gt", "gt/../gt", "-c", "panda,tree"],
        2,
        "Error: --pred and --gt are one folder\nHint: Give the folder of the truth masks as --gt.\n",
    ),
    "masks without names": (
        "masks",
        ["--pred", "pred", "--gt", "gt"],
        2,
        "Error: no classes.json beside the masks in pred says what their ids mean\n"
        "Hint: Give the classes with --classes, --vocab or --layout.\n",
    ),
    "no folder of masks": ("masks", ["--pred", "labels", "--gt", "gt"], 1, "Error: labels: no such folder\n" + NO_PRED),
    "masks are a file": (
        "masks",
        ["--pred", "pred/a.png", "--gt", "gt"],
        1,
        "Error: pred/a.png: not a folder\n" + NO_PRED,
    ),
    "an empty folder of masks": (
        "empty",
        ["--pred", "gt", "--gt", "imgs", "-c", "a"],
        1,
        "Error: no masks in gt\n" + NO_PRED,
    ),
    "neither images nor masks": (
        "masks",
        ["--gt", "gt"],
        2,
        "Error: nothing to score: no images and no --pred\n" + EXCLUDE,
    ),
    "images and masks": (
        "masks",
        ["imgs", *MASKS, "--gt", "gt"],
        2,
        "Error: images and --pred exclude each other\n" + EXCLUDE,
    ),
    "labels without a folder": (
        "masks",
        [*MODEL, "--gt", "gt", "-f", "png"],
        2,
        "Error: --format writes labels of images into a folder\nHint: Give images, and the folder with -o.\n",
    ),
    "labels of masks": (
        "masks",
        [*MASKS, "--gt", "gt", "-f", "png", "-o", "out"],
        2,
        "Error: --format writes labels of images into a folder\nHint: Give images, and the folder with -o.\n",
    ),
    "components without labels": (
        "masks",
        [*MODEL, "--gt", "gt", "-o", "out", "--min-area", "9"],
        2,
        "Error: --min-area is for the labels that --format writes\nHint: Give --format coco, and a folder with -o.\n",
    ),
    "unknown format": (
        "masks",
        [*MODEL, "--gt", "gt", "-f", "pgn", "-o", "out"],
        2,
        "Error: unknown format 'pgn'\nHint: Did you mean 'png'? The formats are: png, coco, overlay, confidence.\n",
    ),
    "no threads": ("masks", [*MODEL, "--gt", "gt", "--jobs", "0"], 2, NO_THREADS.format(0)),
    "no threads for masks": ("masks", [*MASKS, "--gt", "gt", "--jobs", "-2"], 2, NO_THREADS.format(-2)),
    "a file of background": (
        "masks",
        [*MODEL, "--gt", "gt", "--background", "turned.txt"],
        2,
        "Error: --background takes phrases, and turned.txt is the name of a file\n"
        "Hint: Put the phrases into the vocabulary file, as `background`, or name them: --background sky,wall\n",
    ),
    "no classes": (
        "masks",
        ["imgs", "--gt", "gt"],
        2,
        'Error: no classes given\nHint: Name what to label, for example: --classes "panda leg,tree"\n',
    ),
    "two vocabularies": (
        "masks",
        [*MODEL, "--gt", "gt", "--vocab", "voc20"],
        2,
        "Error: --classes and --vocab both say what to label\nHint: Give one of them.\n",
    ),
    "two numberings": (
        "masks",
        [*MODEL, "--gt", "gt", "--zero-based", "--reduce-zero-label"],
        2,
        "Error: --reduce-zero-label and --zero-based exclude each other\n"
        "Hint: Use the first where 0 stands for pixels that do not count, the second where 0 is the first class.\n",
    ),
    "no such id": (
        "masks",
        [*MASKS, "--gt", "gt", "--ignore-index", "-1"],
        2,
        "Error: ignore index -1 is not between 0 and 65535\n",
    ),
    "unknown layout": (
        "masks",
        ["imgs", "--gt", "gt", "--layout", "voc22"],
        2,
        "Error: unknown layout 'voc22'\nHint: Did you mean 'voc21'? The layouts are: ade20k, voc20, voc21, pascal-context-59, "
        "pascal-context-60, cityscapes, coco-stuff.\n",
    ),
    "unknown layout with a vocabulary": (
        "masks",
        [*MASKS, "--gt", "gt", "--layout", "mine"],
        2,
        "Error: unknown layout 'mine'\nHint: The layouts are: ade20k, voc20, voc21, pascal-context-59, "
        "pascal-context-60, cityscapes, coco-stuff.\n",
    ),
    "layout and numbering": (
        "masks",
        ["imgs", "--gt", "gt", "--layout", "voc21", "--ignore-index", "0"],
        2,
        "Error: --layout voc21 says already what the ids of the truth mean\n"
        "Hint: Leave out --ignore-index, --reduce-zero-label and --zero-based.\n",
    ),
    "layout and other classes": (
        "masks",
        [*MODEL, "--gt", "gt", "--layout", "voc21"],
        2,
        "Error: the layout voc21 has 20 classes, the vocabulary has 2\n"
        "Hint: Leave out --classes and --vocab to take the preset voc21.\n",
    ),
    "layout and its classes in another order": (
        "masks",
        ["imgs", "--gt", "gt", "--layout", "voc20", "--vocab", "turned.txt"],
        2,
        "Error: the vocabulary has the classes of voc20 in another order\n"
        "Hint: Leave out --classes and --vocab to take the preset voc20.\n",
    ),
    "output is a file": (
        "masks",
        [*MODEL, "--gt", "gt", "-o", "imgs/a.jpg"],
        1,
        "Error: cannot write imgs/a.jpg: imgs/a.jpg is a file\n" + NO_OUTPUT,
    ),
    "output of masks is a file": (
        "masks",
        [*MASKS, "--gt", "gt", "-o", "imgs/a.jpg/out"],
        1,
        "Error: cannot write imgs/a.jpg/out: imgs/a.jpg is a file\n" + NO_OUTPUT,
    ),
    "output among the masks": (
        "masks",
        [*MASKS, "--gt", "gt", "-o", "pred"],
        1,
        "Error: cannot write pred: the results would come among the masks in pred\n" + NO_OUTPUT,
    ),
    "output in the truth": (
        "masks",
        [*MODEL, "--gt", "gt", "-o", "imgs/../gt/out"],
        1,
        "Error: cannot write imgs/../gt/out: the results would come among the masks in gt\n" + NO_OUTPUT,
    ),
    "output upon the truth": (
        "nothing",
        [*MODEL, "--gt", "run/masks", "-o", "run", "-f", "png"],
        1,
        "Error: cannot write run: the results would come among the masks in run/masks\n" + NO_OUTPUT,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_wrong_is_said_before_any_work(command: Command, tmp_path: Path, case: str) -> None:
    arranged, arguments, code, message = WRONG[case]
    save_photo("imgs/a.jpg", 2, 4)
    save("run/masks/a.png", TRUTH)
    turned = [entry.name for entry in reversed(read_vocabulary("voc20").classes)]
    Path("turned.txt").write_text("\n".join(turned))
    ARRANGE[arranged]()
    before = files(tmp_path)
    ran = command("eval", *arguments)
    assert (ran.err, ran.code, ran.out) == (message, code, "")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "option",
    [
        "--background none",
        "--templates plain",
        "--model tiny",
        "--mode slide",
        "--short-side 448",
        "--refine none",
        "--min-confidence 0",
        "--min-area 1",
        "--device auto",
        "--dtype auto",
        "--batch-size 8",
        "--null",
    ],
)
@pytest.mark.usefixtures("masks")
def test_options_of_labelling_have_no_place_beside_masks(command: Command, option: str) -> None:
    """Not even with the values that they have by default."""
    ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", *option.split())
    name = option.split(maxsplit=1)[0]
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"Error: {name} is for labelling, and with --pred nothing is labelled\n"


def test_every_option_is_either_refused_or_of_use_beside_masks() -> None:
    import typer

    from tipsseg.cli import app
    from tipsseg.commands.evaluate import _LABELLING

    names = {parameter.name for parameter in typer.main.get_command(app).commands["eval"].params}  # type: ignore[attr-defined]
    used = {
        "gt",
        "paths",
        "pred",
        "classes",
        "vocab",
        "layout",
        "ignore_index",
        "reduce_zero_label",
        "zero_based",
        "jobs",
    }
    assert names == used | {"as_json", "output", "formats", "quiet"} | set(_LABELLING)


@pytest.mark.usefixtures("masks")
def test_the_truth_option_is_required(command: Command) -> None:
    ran = command("eval", "--pred", "pred", "-c", "panda,tree")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("\nError: Missing option '--gt'.\n")


def test_0_and_255_alone_count_as_background_and_ignored(command: Command) -> None:
    """255 means what it means everywhere; a mask of one class as 0 and 255 gives no IoU of that class, not a wrong one."""
    save("pred/a.png", [[0, 1, 1, 0]])
    save("gt/a.png", [[0, 255, 255, 0]])
    ran = command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda", "--json")
    assert ious(ran) == {"background": 1.0}
    assert result(ran)["pixels"] == 2
    assert ran.err.splitlines()[2:] == [
        "The truth has no pixel of any class. If its ids mean something else, see --ignore-index, --zero-based and --layout."
    ]
    assert command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda", "--quiet").err == ""


def test_a_folder_of_masks_that_is_no_run_is_taken_as_it_is(command: Command) -> None:
    """Its folder masks/ is one like any other."""
    for name in ("masks/a.png", "b.png"):
        save(f"pred/{name}", PRED)
        save(f"gt/{name}", TRUTH)
    assert result(command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree", "--json"))["images"] == 2
    Path("pred/run.json").write_text("{}")  # the sign of a run
    assert result(command("eval", "--pred", "pred", "--gt", "gt/masks", "-c", "panda,tree", "--json"))["images"] == 1


@pytest.mark.usefixtures("masks")
def test_names_are_those_nearest_to_the_masks(command: Command, tmp_path: Path) -> None:
    masks = tmp_path / "run" / "masks"
    masks.parent.mkdir()
    Path("pred").rename(masks)
    Path("run/classes.json").write_text('{"classes": [{"name": "panda"}, {"name": "tree"}]}')
    assert command("eval", "--pred", "run/masks", "--gt", "gt").out == TABLE
    assert command("eval", "--pred", ".", "--gt", "../../gt", cwd=masks).out == TABLE
    Path("classes.json").write_text('{"classes": [{"name": "dog"}, {"name": "cat"}]}')
    assert names(command("eval", "--pred", ".", "--gt", "../../gt", "--json")) == ["background", "dog", "cat"]


@pytest.mark.parametrize("content", ['{"classes": []}', '{"classes": {}}', '{"classes": [{"name": 1}, {"name": "a"}]}'])
@pytest.mark.usefixtures("masks")
def test_a_classes_file_without_names(command: Command, content: str) -> None:
    Path("pred/classes.json").write_text(content)
    ran = command("eval", "--pred", "pred", "--gt", "gt")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Error: pred/classes.json names no classes\nHint: Give the classes with --classes or --vocab.\n"


@pytest.mark.usefixtures("masks")
def test_a_record_of_another_tool_beside_masks(command: Command) -> None:
    Path("pred/run.json").write_text("{}")
    assert command("eval", "--pred", "pred", "--gt", "gt", "-c", "panda,tree").out == TABLE


@pytest.mark.parametrize(
    ("given", "written", "turned"),
    [
        (["a", "b"], ["b", "a"], True),
        (["A", "b"], ["B", "a"], True),
        (["a", "b"], ["a", "b"], False),
        (["A", "b"], ["a", "B"], False),
        (["a", "b"], ["a", "c"], False),
        (["b", "a"], ["a", "b", "c"], False),
        (["b", "a", "c"], ["a", "b"], False),
        (["a", "a", "b"], ["a", "b", "b"], False),
    ],
)
def test_names_in_another_order(given: list[str], written: list[str], turned: bool) -> None:
    assert in_other_order(given, written) == turned


def test_truths_inside_a_listed_folder_are_no_images(command: Command, mlp_checkpoint: Path) -> None:
    save_photo("imgs/a.jpg")
    save("imgs/gt/a.png", np.full((30, 40), 1))
    arguments = ["--gt", "imgs/gt", "-c", "tree", "-m", mlp_checkpoint, "--json"]
    for paths, stdin in ((["imgs"], None), (["-"], b"imgs\n")):
        assert result(command("eval", *paths, *arguments, stdin=stdin))["images"] == 1
