"""The library as a program uses it: the examples, the public names, and nothing left behind in the program that imports it."""

from __future__ import annotations

import json
import os
import pydoc
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from running import Command

import tipsseg
from tipsseg import Labeller, LabelMap, Model, errors
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.errors import InputError
from tipsseg.options import Refinement

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DESERT = EXAMPLES / "scenes/desert.png"
PANDA = EXAMPLES / "scenes/meadow/two-pandas.png"
TRUNCATED = "broken.png"


@pytest.fixture(scope="module")
def model() -> Model:
    return tipsseg.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def result(model: Model) -> LabelMap:
    return Labeller(model, ["panda", "tree", "sky"]).label(DESERT)


def test_a_traceback_shows_the_hint() -> None:
    with pytest.raises(tipsseg.TipssegError) as raised:
        tipsseg.load("l41")
    text = "".join(traceback.format_exception(raised.value))
    assert "Did you mean 'l14'?" in text
    assert "Did you mean" not in str(raised.value)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


# ---- the examples ----

# name: (arguments, what is printed among other things, files that are written)
CASES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "label_one": ([str(DESERT)], ["LabelMap(300x560, panda ", "panda: ", "sky: ", "confidence 0."], []),
    "label_many": ([str(PANDA.parent), "out"], ["out/two-pandas.png"], ["two-pandas.png"]),
    "features": (
        [str(DESERT)],
        ["Features(300x560, 3 windows of 16x16 patches of 192 dimensions)", "sky ", "background only"],
        [],
    ),
    "write_formats": ([str(DESERT), "out"], ["panda: ", " polygons"], ["annotations.json", "mask.png", "overlay.png"]),
    "label_folder": (
        [str(PANDA.parent), "out", str(EXAMPLES / "truth/meadow")],
        [
            "two-pandas.png: out/masks/two-pandas.png",
            "FolderSummary('out': 3 labelled)",
            "mean IoU 0.8",
            "over 3 images",
        ],
        ["annotations.json", "classes.json", "manifest.jsonl", "masks", "run.json"],
    ),
    "handle_errors": (
        [str(DESERT), TRUNCATED],
        [f"{DESERT}: ", f"{TRUNCATED}: truncated file", "Download the image again"],
        [],
    ),
}


def test_each_example_is_run_here_and_short() -> None:
    files = list((EXAMPLES / "library").glob("*.py"))
    assert {path.stem for path in files} == set(CASES)
    assert {
        path.stem: len(path.read_text().splitlines()) for path in files if len(path.read_text().splitlines()) > 30
    } == {}


@pytest.mark.parametrize("name", CASES)
def test_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, printed, written = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path(TRUNCATED).write_bytes(DESERT.read_bytes()[:2000])
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / "library" / f"{name}.py"), run_name="__main__")
    out = capsys.readouterr().out
    for each in printed:
        assert each in out
    assert sorted(path.name for path in tmp_path.glob("out/[!.]*")) == written
    for path in tmp_path.glob("out/*.png"):
        with Image.open(path) as picture:
            picture.load()


# ---- runs ----

VIEW: dict[str, Any] = {"mode": "whole", "short_side": 112}


def masks_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("masks/**/*.png"))}


def test_a_folder_is_labelled_as_the_command_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    again = {"output": tmp_path / "out", "model": "tiny", **VIEW, "device": "cpu"}
    results = tipsseg.iter_label_folder([PANDA, DESERT], ["panda", "tree"], **again)
    assert not [*(tmp_path / "out").rglob("*.png")], "the work is done while the results are consumed"
    del results
    assert not (tmp_path / "out").exists()
    results = tipsseg.iter_label_folder([PANDA, DESERT], ["panda", "tree"], **again)
    first = next(results)
    assert (first.path, first.status, first.error) == (DESERT, "labelled", None)
    assert first.files == {"png": tmp_path / "out/masks/desert.png", "overlay": tmp_path / "out/overlays/desert.jpg"}
    assert first.files["png"].is_file()
    results.close()
    assert not (tmp_path / "out/annotations.json").exists()
    run = tipsseg.label_folder([PANDA, DESERT], ["panda", "tree"], **again)
    assert (len(run), run.count("unchanged"), run.count("labelled"), run.count("failed")) == (2, 1, 1, 0)
    assert repr(run) == f"FolderSummary({str(tmp_path / 'out')!r}: 1 labelled, 1 unchanged)"
    before, other = run
    assert (before, other.path) == (replace(first, status="unchanged"), PANDA)
    with Image.open(before.files["png"]) as mask:
        assert before.classes == {
            name: pytest.approx((np.asarray(mask) == number).mean())
            for number, name in ((1, "panda"), (2, "tree"))
            if (np.asarray(mask) == number).any()
        }
    assert list(run) == [before, other], "read again"
    assert capfd.readouterr() == ("", "")
    command = [sys.executable, "-m", "tipsseg", "label", PANDA, DESERT, "-c", "panda,tree", "-m", "tiny"]
    command += ["--mode", "whole", "--short-side", "112", "--device", "cpu", "-o", tmp_path / "by-command"]
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
    assert masks_of(tmp_path / "out") == masks_of(tmp_path / "by-command")
    names = ("annotations.json", "classes.json")
    assert [(tmp_path / "out" / each).read_bytes() for each in names] == [
        (tmp_path / "by-command" / each).read_bytes() for each in names
    ]


def test_an_image_that_fails_is_a_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.png").write_bytes(DESERT.read_bytes()[:2000])
    (result,) = tipsseg.label_folder(tmp_path / "in", ["tree"], output=tmp_path / "out", model="tiny", device="cpu")
    assert isinstance(result.error, tipsseg.ImageError)
    assert (result.path, result.error.path, result.status) == (*2 * (tmp_path / "in/broken.png",), "failed")
    assert capfd.readouterr() == ("", "")
    (again,) = tipsseg.label_folder(tmp_path / "in", ["tree"], output=tmp_path / "out", model="tiny", device="cpu")
    assert (again.path, again.status) == (result.path, "failed")


def test_a_shard_has_its_images(tmp_path: Path) -> None:
    parts = [
        tipsseg.label_folder(
            PANDA.parent, ["tree"], output=tmp_path / "out", model="tiny", device="cpu", shard=f"{part}/2", **VIEW
        )
        for part in (1, 2)
    ]
    images = [list(part) for part in parts]
    assert sorted(image.path for part in images for image in part) == sorted(PANDA.parent.iterdir())
    assert all(image.files["png"].is_file() for part in images for image in part)
    assert {image.status for part in images for image in part} == {"labelled"}


# name: (the call, the kind of its error, a part of its message)
REFUSED: dict[str, tuple[Callable[[Path], object], type[tipsseg.TipssegError], str]] = {
    "no images": (lambda out: tipsseg.label_folder((), ["a"], output=out), tipsseg.UsageError, "no images given"),
    "model": (
        lambda out: tipsseg.label_folder(DESERT, ["a"], output=out, model=object()), tipsseg.UsageError,  # type: ignore[arg-type]
        "`model` must be an id or a folder, not object",
    ),
    "no such image": (
        lambda out: tipsseg.label_folder("absent.png", ["a"], output=out, model="tiny"), tipsseg.errors.InputError,
        "absent.png",
    ),
    "no masks": (lambda out: tipsseg.review.score_masks(out, out), tipsseg.errors.InputError, "no such folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_raised_by_the_call(name: str, tmp_path: Path) -> None:
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=re.escape(message)):
        call(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_scores_are_those_of_the_command(command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, truths = PANDA.parent, EXAMPLES / "truth/meadow"
    classes = tipsseg.read_vocabulary(EXAMPLES / "leaves.txt", "none")
    tipsseg.label_folder(images, classes, output=tmp_path / "out", model="tiny", **VIEW, device="cpu")
    found = tipsseg.review.score_masks(tmp_path / "out", truths)
    assert (found.scored, found.failed, found.without_truth) == (3, 0, 0)
    assert 0.3 < found.scores.mean_iou < 1
    assert capfd.readouterr() == ("", "")
    assert (ran := command("eval", tmp_path / "out", "--gt", truths, "--json")).code == 0
    assert json.loads(ran.out) == found.record()


# ---- the public names ----


def test_public_names() -> None:
    names = dir(tipsseg)
    assert len(names) <= 25
    for name in names:
        assert getattr(tipsseg, name).__doc__, name
    for module in (tipsseg.learn, tipsseg.review):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
    with pytest.raises(AttributeError, match=r"module 'tipsseg' has no attribute 'Encoder'$"):
        tipsseg.Encoder  # noqa: B018
    for name, place in (("fit_folder", "learn"), ("score_masks", "review"), ("InputError", "errors")):
        with pytest.raises(AttributeError, match=rf"; use tipsseg\.{place}\.{name}$"):
            getattr(tipsseg, name)


def test_help_is_a_page_that_leads_on() -> None:
    text = pydoc.render_doc(tipsseg, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    page = text.split("PACKAGE CONTENTS")[0]
    assert page.count("\n") < 45
    assert text.count("\n") < 80
    there = re.findall(r"help\((tipsseg(?:\.\w+)+)\)", page)
    assert len(there) > 8
    for name in there:
        assert pydoc.locate(name) is not None, name


@pytest.mark.parametrize(
    "function", [tipsseg.label_folder, tipsseg.iter_label_folder, tipsseg.encode_folder, Labeller, Model.label]
)
def test_help_shows_keywords(function: Callable[..., object]) -> None:
    text = pydoc.plain(pydoc.render_doc(function))
    for words in ("scales: ", "short_side: ", "Literal['slide', 'whole']", "Keyword Args:"):
        assert words in text


IMPORT = """
import sys, warnings
from PIL import Image
before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
import tipsseg
assert not {"torch", "cv2", "typer"} & set(sys.modules), "the import is slow"
labeller = tipsseg.Labeller(tipsseg.load("tiny", device="cpu"), ["tree", "sky"])
labeller.label(sys.argv[1]).save_mask("mask.png")
assert (list(warnings.filters)[-len(before[0]):], Image.MAX_IMAGE_PIXELS) == before
assert not [each for each in warnings.filters if "PIL" in str(each)]
"""


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "cwd").mkdir()
    keep = {name: value for name, value in os.environ.items() if name not in ("TIPSSEG_CACHE", "XDG_CACHE_HOME")}
    environment = {**keep, "HOME": str(home), "PYTHONPATH": str(EXAMPLES.parent)}
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, str(DESERT)],
        cwd=tmp_path / "cwd",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert [path.name for path in (tmp_path / "cwd").rglob("*")] == ["mask.png"]
    assert [path.relative_to(home).as_posix() for path in home.rglob("*") if "tipsseg" in path.name] == []


# ---- many images ----


def test_images_are_read_as_they_are_needed(mlp_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    backbone.batch_size = 2
    read: list[int] = []

    def images() -> Iterator[Image.Image]:
        for number in range(20):
            read.append(number)
            yield Image.new("RGB", (60, 60), (number, 0, 0))

    results = Labeller(Model(backbone), ["tree", "sky"]).label_many(images())
    assert read == []
    for number in range(20):
        next(results)
        assert len(read) <= number + 2


def test_an_image_that_cannot_be_read_comes_in_its_turn(mlp_checkpoint: Path, tmp_path: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    backbone.batch_size = 64
    results = Labeller(Model(backbone), ["tree", "sky"]).label_many([PANDA, DESERT, tmp_path / "gone.png", PANDA])
    assert [next(results).shape for _ in range(2)] == [opened(path).size[::-1] for path in (PANDA, DESERT)]
    with pytest.raises(tipsseg.ImageError, match=r"gone\.png: no such file"):
        next(results)


def test_an_image_that_cannot_be_read_is_an_item_if_that_is_asked_for(model: Model, tmp_path: Path) -> None:
    labeller = model.labeller(["tree", "sky"])
    images: list[str | Path | np.ndarray[Any, Any]] = [
        PANDA,
        tmp_path / "gone.png",
        np.zeros((5, 4, 2), np.uint8),
        str(DESERT),
    ]
    first, gone, odd, last = labeller.label_many(images, errors="yield")
    assert isinstance(first, LabelMap)
    assert isinstance(gone, tipsseg.ImageError)
    assert gone.path == tmp_path / "gone.png"
    assert isinstance(odd, InputError)
    assert isinstance(last, LabelMap)
    assert (first.image, last.image) == (PANDA, str(DESERT))
    assert np.array_equal(last.labels, labeller.label(DESERT).labels)


def test_the_model_labels_by_itself(model: Model, result: LabelMap, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ["panda", "tree", "sky"]
    plain, made = Labeller.__init__, []

    def counted(self: Labeller, *args: Any, **keywords: Any) -> None:
        made.append(args)
        plain(self, *args, **keywords)

    monkeypatch.setattr(Labeller, "__init__", counted)
    first = model.label(DESERT, classes, min_confidence=np.float64(0.5))
    assert np.array_equal(first, model.labeller(classes, min_confidence=0.5).label(DESERT))
    assert np.array_equal(first.labels, np.where(result.confidence < 0.5, first.ignore, result.labels))
    again = model.label(DESERT, {name: [] for name in classes}, min_confidence=0.5)
    assert np.array_equal(again, first)
    assert len(made) == 2, "the phrases of the last call stay encoded"
    assert np.array_equal(model.label(model.encode(DESERT), classes), result)
    with pytest.raises(
        TypeError,
        match=r"Model\.label\(\) got an unexpected keyword argument 'min_confidense'\. Did you mean 'min_confidence'\?",
    ):
        model.label(DESERT, classes, min_confidense=0.5)  # type: ignore[call-arg]
    pixels = np.asarray(Image.open(DESERT).convert("RGB"))
    channels_first: Any = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    assert np.array_equal(model.label(channels_first, classes), model.label(pixels, classes))
    assert np.array_equal(tipsseg.label(pixels, classes, model="tiny", device="cpu"), result)


def test_other_libraries_take_the_labels() -> None:
    result = tipsseg.label(DESERT, ["cactus", "sky"], model="tiny", device="cpu")
    assert np.array_equal(torch.as_tensor(result).numpy(), result.labels)
    assert np.array_equal(np.asarray(Image.fromarray(np.asarray(result))), result.labels)


# What programs pass: a name, the keywords of a labeller, and the options that they make.
TAKEN: dict[str, tuple[dict[str, Any], tipsseg.LabelOptions]] = {
    "numbers of numpy": (
        {"min_confidence": np.float32(0.5), "short_side": np.int64(112)},
        tipsseg.LabelOptions(min_confidence=0.5, short_side=112),
    ),
    "an array": ({"scales": np.array([2, 1])}, tipsseg.LabelOptions(scales=(1.0, 2.0))),
    "a text": ({"scales": "1,2"}, tipsseg.LabelOptions(scales=(1.0, 2.0))),
    "a number for a list": ({"scales": 2}, tipsseg.LabelOptions(scales=(2.0,))),
    "None": ({"short_side": None, "min_confidence": None}, tipsseg.LabelOptions()),
    "a record too": (
        {"options": tipsseg.LabelOptions(mode="whole"), "min_confidence": 0.5},
        tipsseg.LabelOptions(mode="whole", min_confidence=0.5),
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_options_are_keywords(model: Model, name: str) -> None:
    keywords, options = TAKEN[name]
    assert Labeller(model, ["tree"], **keywords).options == options


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), (torch.device("cpu"), torch.float32)])
def test_devices_and_dtypes_of_torch(device: Any, dtype: Any) -> None:
    backbone = tipsseg.load("tiny", device=device, dtype=dtype).backbone
    assert (str(backbone.device), backbone.dtype_name) == ("cpu", "float32")


# What programs pass as classes, and the colour and synonyms of the first class.
CLASSES: dict[str, tuple[Any, tuple[int, int, int], tuple[str, ...]]] = {
    "a dict": ({"tree": ["oak", "elm"]}, (230, 57, 70), ("oak", "elm")),
    "a hex colour": ([tipsseg.ClassSpec("tree", colour="#0A0b0c")], (10, 11, 12), ()),
    "an array": ([tipsseg.ClassSpec("tree", colour=np.array([10, 11, 12]))], (10, 11, 12), ()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_as_programs_have_them(name: str) -> None:
    classes, colour, synonyms = CLASSES[name]
    tree = tipsseg.make_vocabulary(classes).classes[0]
    assert (tree.name, tree.colour, tree.synonyms) == ("tree", colour, synonyms)


@pytest.mark.parametrize("kind", ["path", "text", "Pillow", "array", "RGBA", "tensor", "features"])
def test_an_image_may_come_in_any_form(model: Model, result: LabelMap, kind: str) -> None:
    labeller = Labeller(model, ["panda", "tree", "sky"])
    forms: dict[str, Path | str | Image.Image | np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | tipsseg.Features] = {
        "path": DESERT,
        "text": str(DESERT),
        "Pillow": opened(DESERT),
        "array": np.array(opened(DESERT).convert("RGB")),
        "RGBA": np.array(opened(DESERT).convert("RGBA")),
        "tensor": cast(Any, torch.from_numpy(np.array(opened(DESERT).convert("RGB")))),
        "features": model.encode(DESERT),
    }
    assert np.array_equal(labeller.label(forms[kind]).labels, result.labels)


def test_a_grey_array_is_a_grey_image(model: Model) -> None:
    grey = opened(DESERT).convert("L")
    assert np.array_equal(model.label(np.asarray(grey), ["tree"]), model.label(grey, ["tree"]))


def test_limits_are_of_the_labeller(model: Model) -> None:
    small = Labeller(model, ["tree"], max_pixels=1000)
    with pytest.raises(tipsseg.ImageError, match="the limit is 1,000"):
        small.label(DESERT)
    with pytest.raises(tipsseg.ImageError, match="the limit is 1,000"):
        model.encode(DESERT, max_pixels=1000)
    Labeller(model, ["tree"]).label(DESERT)


@pytest.mark.parametrize("refine", ["guided", "pamr", "pamr-guided"])
def test_refinement_works_from_features(model: Model, refine: Refinement) -> None:
    labeller = Labeller(model, ["panda", "tree", "sky"], tipsseg.LabelOptions(refine=refine))
    features = model.encode(DESERT)
    assert np.array_equal(labeller.label(features, guide=DESERT).labels, labeller.label(DESERT).labels)
    for guide, message in ((None, "`guide`"), (PANDA, "must have the 300 x 560")):
        with pytest.raises(tipsseg.UsageError) as caught:
            labeller.label(features, guide=guide)
        assert message in f"{caught.value.message} {caught.value.hint}"


# ---- what labels become ----


def test_masks_hold_the_ids(result: LabelMap, tmp_path: Path) -> None:
    result.save_mask(tmp_path / "new/mask.png")
    with Image.open(tmp_path / "new/mask.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), result.labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda each: each.save_mask("mask.jpg"), "a mask is a PNG file, not mask.jpg", id="jpg"),
        pytest.param(lambda each: each.to_coco(0, first_id=0), "`first_id`=0 is too small; the minimum is 1", id="0"),
    ],
)
def test_wrong_arguments_of_label_maps_are_refused(
    result: LabelMap, call: Callable[[LabelMap], object], message: str
) -> None:
    with pytest.raises(errors.UsageError) as caught:
        call(result)
    assert caught.value.message == message


# What pycocotools gives says nothing of copies yet, which newer versions of numpy ask for.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_annotations_hold_the_objects(result: LabelMap) -> None:
    records = json.loads(json.dumps(result.to_coco(7, first_id=5, min_area=50)))
    objects = result.find_objects(min_area=50)
    assert [record["id"] for record in records] == list(range(5, 5 + len(objects)))
    assert {record["image_id"] for record in records} == {7}
    painted = np.zeros_like(result.labels)
    for record, each in zip(records, objects, strict=True):
        pixels = coco_mask.decode(record["segmentation"]).astype(bool)
        left, top, right, bottom = each.xyxy
        assert (record["category_id"], record["area"], record["score"]) == (each.class_id, pixels.sum(), each.score)
        assert record["bbox"] == [left, top, right - left, bottom - top]
        assert np.array_equal(pixels, each.mask)
        assert result.names[each.class_id] == each.name
        painted[pixels] = record["category_id"]
    assert (painted == result.labels).mean() > 0.95
    assert len(objects) > len(result.find_objects(instances="class", min_area=50)) == len(np.unique(painted)) - 1


def test_a_dry_run_lists_the_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.effect_noise((40, 30), 60).save(tmp_path / "in/a.png")
    run = tipsseg.label_folder(tmp_path / "in", ["tree"], model="tiny", output=tmp_path / "out", dry_run=True)
    assert [(image.name, image.status) for image in run] == [("a.png", "planned")]
    assert not (tmp_path / "out").exists()
