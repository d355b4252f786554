"""All pairs of options of `label`: both options have their effects, or the pair is refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rasters import drawn, write_raster
from safetensors.numpy import load_file, save_file
from sources import write_video
from tipsseg_stranger.counts import Counts

import tipsseg
from tipsseg import formats
from tipsseg.ask import verb_of
from tipsseg.errors import UsageError
from tipsseg.folder.outcome import FolderImage
from tipsseg.options.values import parse_shard

pytestmark = pytest.mark.slow

OF_LABEL = verb_of(tipsseg.iter_label_folder).options

#: Formats of images, and of rasters.
FORMATS, OF_RASTERS = ["png", "coco", "confidence", "yolo"], ["geotiff", "geojson"]

#: Options of one command, which the run before it does not have.
ONCE = ("dry_run", "overwrite", "prune", "replace_edited", "sample", "shard")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call left: the results, and the folder."""

    results: list[FolderImage]
    folder: Path
    before: set[Path]

    @property
    def statuses(self) -> dict[str, str]:
        return {each.name: each.status for each in self.results}

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_bytes())
        return found

    @property
    def classes(self) -> list[str]:
        return [each["name"] for each in self.record["vocabulary"]["classes"]]

    @property
    def pixels(self) -> dict[str, NDArray[Any]]:
        """The labels and the confidences."""
        return {
            str(path.relative_to(self.folder)): np.asarray(Image.open(path))
            for path in self.folder.rglob("*")
            if path.suffix in (".png", ".tif")
            and path.is_relative_to(self.folder / "masks") | ("confidence" in path.parts)
        }

    @property
    def objects(self) -> list[object]:
        """The objects in the files of objects."""
        found: list[object] = [
            json.loads(path.read_bytes())["annotations"] for path in self.folder.glob("annotations.json")
        ]
        found += [json.loads(path.read_bytes())["features"] for path in self.folder.rglob("*.geojson")]
        return found + [path.read_text() for path in sorted(self.folder.rglob("yolo/labels/**/*.txt"))]


Probe = Callable[[Outcome, Callable[[], Outcome]], bool]


def labels_change(ran: Outcome, without: Callable[[], Outcome]) -> bool:
    one, other = ran.pixels, without().pixels
    return one.keys() != other.keys() or any(not np.array_equal(one[name], other[name]) for name in one)


def labels_stay(ran: Outcome, without: Callable[[], Outcome]) -> bool:
    return not labels_change(ran, without)


def objects_change(ran: Outcome, without: Callable[[], Outcome]) -> bool:
    return ran.objects != without().objects


@dataclass(frozen=True, kw_only=True)
class Case:
    """An option with a value, the options that it needs, what shows its effect, and what is done before."""

    value: Any
    probe: Probe
    needs: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[Scene, Path, dict[str, Any]], None] | None = None
    of_rasters: bool = False
    without_labels: bool = False  # holds for a dry run too


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The images."""

    images: Path
    gone: Path  # an image that is among them for a while


def other_labels(scene: Scene, output: Path, options: dict[str, Any]) -> None:
    if "replace_edited" in options:
        return  # has its own
    raster = "geotiff" in options["formats"]
    tipsseg.label_folder(scene.images, ["sea"], output=output, model="tiny", formats=OF_RASTERS if raster else ["png"])


def with_more_images(scene: Scene, output: Path, options: dict[str, Any]) -> None:
    if "overwrite" in options:
        return  # the pair is refused
    shutil.copy(scene.gone, scene.images)
    tipsseg.label_folder(**{name: value for name, value in options.items() if name not in ONCE})
    (scene.images / scene.gone.name).unlink()


def with_the_other_part(scene: Scene, output: Path, options: dict[str, Any]) -> None:
    [*tipsseg.iter_label_folder(**{**options, "shard": "2/2", "dry_run": False})]


def with_an_edited_mask(scene: Scene, output: Path, options: dict[str, Any]) -> None:
    tipsseg.label_folder(**{name: value for name, value in options.items() if name not in ONCE})
    mask = next(path for path in sorted((output / "masks").rglob("*"))[::-1] if path.suffix in (".png", ".tif"))
    if mask.suffix == ".png":
        Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
        return
    import rasterio

    with rasterio.open(mask) as file:
        profile = file.profile
    with rasterio.open(mask, "w", **profile) as file:
        file.write(np.zeros((1, file.height, file.width), np.uint8))


def all_are_labelled(ran: Outcome, _: Callable[[], Outcome]) -> bool:
    return set(ran.statuses.values()) <= {"labelled", "failed"} and "labelled" in ran.statuses.values()


def no_mask_is_empty(ran: Outcome, _: Callable[[], Outcome]) -> bool:
    return all(labels.any() for name, labels in ran.pixels.items() if name.startswith("masks"))


def repeats_the_run(ran: Outcome, _: Callable[[], Outcome]) -> bool:
    return (ran.classes, ran.record["vocabulary"]["background"]) == (["tree", "panda"], ["wall"])


CASES = {
    "vocab": Case(value="words.txt", probe=lambda ran, _: "sky" in ran.classes),
    "background": Case(value="wall", probe=lambda ran, _: ran.record["vocabulary"]["background"] == ["wall"]),
    "regions": Case(value="regions", probe=labels_change),
    "regions_only": Case(value=True, needs={"regions": "regions"}, probe=labels_change),
    "regions_margin": Case(value=6.0, needs={"regions": "regions", "refine": "pamr"}, probe=labels_change),
    "present": Case(value="folders", probe=labels_change),
    "onto": Case(value="old/masks", probe=labels_change),
    "jobs": Case(value=1, probe=labels_stay),
    "max_pixels": Case(value=19_000, probe=lambda ran, _: "failed" in ran.statuses.values()),
    "model": Case(value="tiny2", probe=labels_change),
    "device": Case(value="cpu", probe=labels_stay),
    "dtype": Case(value="bfloat16", probe=lambda ran, _: ran.record["dtype"] == "bfloat16"),
    "batch_size": Case(value=3, probe=labels_stay),
    "use_cache": Case(value=True, probe=labels_stay),
    "features": Case(value="feats", probe=lambda _, __: any(Path("feats").rglob("*.safetensors"))),
    "mode": Case(value="whole", probe=labels_change),
    "short_side": Case(value=112, probe=labels_change),
    "min_confidence": Case(value=0.97, probe=labels_change),
    "refine": Case(value="pamr", probe=labels_change),
    "scales": Case(value=[1, 1.5], probe=labels_change),
    "stretch": Case(value=[20, 60], probe=labels_change),
    "output": Case(value="elsewhere", probe=lambda ran, _: ran.folder.name == "elsewhere", without_labels=True),
    "formats": Case(value=["csv"], probe=lambda ran, _: any(ran.folder.rglob("*.csv")) or any(ran.folder.rglob("*.gpkg"))),
    "overwrite": Case(value=True, probe=all_are_labelled, before=other_labels),
    "prune": Case(
        value=1, probe=lambda ran, _: not any(ran.folder.rglob("masks/**/gone.*")), before=with_more_images
    ),
    "replace_edited": Case(value=True, probe=no_mask_is_empty, before=with_an_edited_mask),
    "shard": Case(
        value="1/2",
        before=with_the_other_part,
        probe=lambda ran, _: all(map(parse_shard("1/2").takes, ran.statuses)), without_labels=True
    ),
    "instances": Case(value="class", probe=objects_change),
    "min_area": Case(value="12%", probe=objects_change),
    "simplify": Case(value=4.0, probe=objects_change),
    "names": Case(value="full", probe=lambda ran, _: any(ran.folder.rglob("masks/**/*.[pt]??.*"))),
    "val_fraction": Case(value=0.5, probe=lambda ran, _: any(ran.folder.rglob("yolo/labels/val/**/*.txt"))),
    "extra": Case(
        value=["counts.separator=comma"],
        needs={"formats": [*FORMATS, "counts"]},
        probe=lambda ran, _: any("," in path.read_text() for path in ran.folder.rglob("*.counts")),
    ),
    "sample": Case(value=2, probe=lambda ran, _: len(ran.results) <= 2, without_labels=True),
    "every": Case(value=2, probe=lambda ran, _: any("clip" in name for name in ran.statuses), without_labels=True),
    "bands": Case(value=[3, 2, 1], probe=labels_change, of_rasters=True),
    "ground_resolution": Case(value=1.0, probe=labels_change, of_rasters=True),
    "from_run": Case(value="earlier", probe=repeats_the_run),
    "dry_run": Case(
        value=True,
        probe=lambda ran, _: {*ran.folder.rglob("*")} == ran.before and "labelled" not in ran.statuses.values(),
        without_labels=True,
    ),
}  # fmt: skip

#: Options that need another machine.
ELSEWHERE = {"ray"}


def test_every_option_has_a_case() -> None:
    assert OF_LABEL.keys() - {"images", "classes", *ELSEWHERE} == CASES.keys()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Path:
    monkeypatch.setitem(formats.FORMATS, "counts", Counts())
    top = tmp_path_factory.mktemp("pairs")
    monkeypatch.chdir(top)
    pixels, names = drawn(900, 600), ["tree/a", "panda/b", "tree/c"]
    large = next(name for name in names if parse_shard("1/2").takes(f"{name}.png"))
    for number, name in enumerate(names):
        part = np.roll(pixels, number * 150, (0, 1)) if number else pixels[600:, :300]  # a large panda and a tree
        height = 160 if name == large else 120
        rows, columns = np.indices((height, 140))
        image, regions = (
            Image.fromarray(part).resize((140, height)),
            (rows // 30 + columns // 30 * 2) % 4 * (columns < 100),
        )
        for folder, picture in {"imgs": image, "regions": Image.fromarray(regions.astype(np.uint8))}.items():
            path = Path(folder, f"{name}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    Image.fromarray(pixels[300:, 300:]).resize((140, 120)).save("gone.png")
    write_video(Path("imgs/clip.mp4"), 8, size=(120, 140))
    write_raster(Path("scenes/scene.tif"), pixels[:400, :400])
    Image.fromarray(pixels[:200, :200]).save("scenes/plain.png")  # read whole
    write_video(Path("scenes/clip.mp4"), 4, size=(120, 140))
    write_raster(Path("gone.tif"), pixels[200:400, :200])
    Path("words.txt").write_text("panda\nsky\n")
    shutil.copytree(tiny_checkpoint, "tiny2")
    weights = load_file("tiny2/model.safetensors")
    save_file(
        {name: each * 1.05 if each.ndim > 1 else each for name, each in weights.items()}, "tiny2/model.safetensors"
    )
    tipsseg.label_folder("imgs", ["tree"], output="old", model="tiny", formats=["png"], min_confidence=0.5)
    tipsseg.label_folder("imgs", ["tree", "panda"], background="wall", output="earlier", model="tiny", formats=FORMATS)
    return top


class Runs:
    """Runs of options, each in an empty folder, and what they left."""

    def __init__(self) -> None:
        self._numbers, self._known = count(), dict[tuple[str, ...], Outcome]()

    def run(self, names: tuple[str, ...], more: Mapping[str, Any]) -> Outcome:
        """Label with these options, and `more` that they need."""
        key = (*names, "+", *more)
        if key not in self._known:
            self._known[key] = self._run(names, more)
        return self._known[key]

    def _run(self, names: tuple[str, ...], more: Mapping[str, Any]) -> Outcome:
        top = Path(f"run{next(self._numbers)}")
        top.mkdir()
        raster = any(CASES[name].of_rasters for name in names)
        scene = (
            Scene(images=Path("scenes"), gone=Path("gone.tif"))
            if raster
            else Scene(images=Path("imgs"), gone=Path("gone.png"))
        )
        options: dict[str, Any] = {
            "images": scene.images, "classes": ["panda", "tree"], "model": "tiny", "verbose": False,
            "formats": OF_RASTERS if raster else FORMATS, "output": top / "out",
        }  # fmt: skip
        options |= {**more, **{name: CASES[name].value for name in names}}
        if "formats" in names:
            options["formats"] = [*OF_RASTERS, "gpkg"] if raster else [*FORMATS, "csv"]
        if "output" in names:
            options["output"] = top / "elsewhere"
        if {"from_run", "vocab"} & {*names}:
            del options["classes"]
        if "from_run" in names and "model" not in names:
            del options["model"]
        if "onto" in names and "classes" in options:
            options["classes"] = ["panda"]
        shutil.rmtree("feats", ignore_errors=True)
        folder = Path(options["output"])
        for name in names:
            if (prepare := CASES[name].before) is not None:
                prepare(scene, folder, options)
        before = {*folder.rglob("*")}
        return Outcome(results=[*tipsseg.iter_label_folder(**options)], folder=folder, before=before)


def fault(runs: Runs, names: tuple[str, str]) -> str:
    """What is wrong with a pair of options; "" if it works, or is refused with a reason that names one of them."""
    needed = {key: value for name in names for key, value in CASES[name].needs.items() if key not in names}
    try:
        ran = runs.run(names, needed)
    except UsageError as error:
        text = f"{error.message} {error.hint}"
        return "" if any(f"`{name}`" in text for name in (*names, *needed)) else f"refused without a name: {text}"
    for name in names:
        case = CASES[name]
        if "dry_run" in names and not case.without_labels:
            continue
        others = tuple(each for each in names if each != name)
        more = {**needed, **case.needs}
        more.pop(others[0], None)
        try:
            if not case.probe(ran, lambda others=others, more=more: runs.run(others, more)):  # type: ignore[misc]
                return f"{name} has no effect beside {others[0]}"
        except UsageError as refused:  # the other option alone, as it needs this one
            if "requires" not in refused.message:
                raise
    return ""


@pytest.mark.parametrize("first", CASES)
def test_two_options_work_together_or_are_refused(place: Path, first: str) -> None:
    runs, names = Runs(), [*CASES]
    faults = dict[str, str]()
    for second in names[names.index(first) + 1 :]:
        try:
            found = fault(runs, (first, second))
        except tipsseg.TipssegError as error:
            found = f"{type(error).__name__}: {error.message}"
        if found:
            faults[second] = found
    assert faults == {}
