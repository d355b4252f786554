"""Labels through the tools that people correct with, opened and saved and not edited. Each loop takes the output folder, the images
and an empty folder, and gives what the tool saved, for `tipsseg correct --from`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import size_of

#: (output folder, folder of the images, where to save) -> what the tool saved
Loop = Callable[[Path, Path, Path], Path]


@dataclass(frozen=True)
class ThroughATool:
    """A way of labels through a tool.

    tool    its name on PyPI
    way     what is opened and how it is saved, for the README
    form    the format of what comes back, where it is not recognised
    """

    tool: str
    way: str
    run: Loop
    form: str | None = None


# ---- FiftyOne, with its database ----


def fiftyone_coco(file: str, *, crowd: bool = False) -> Loop:
    def loop(out: Path, images: Path, place: Path) -> Path:
        import fiftyone

        fiftyone.config.show_progress_bars = False

        kind = fiftyone.types.COCODetectionDataset
        dataset = fiftyone.Dataset.from_dir(
            dataset_type=kind, data_path=str(images), labels_path=str(out / file), label_types="segmentations"
        )
        if crowd:
            for sample in dataset:
                for each in sample["ground_truth"].detections if sample["ground_truth"] else ():
                    each["iscrowd"] = 1
                sample.save()
        dataset.export(
            dataset_type=kind,
            labels_path=str(place / "labels.json"),
            label_field="ground_truth",
            data_path=str(images),
            export_media=False,
            rel_dir=str(images),
        )
        return place / "labels.json"

    return loop


def fiftyone_masks(out: Path, images: Path, place: Path) -> Path:
    import fiftyone

    fiftyone.config.show_progress_bars = False

    kind = fiftyone.types.ImageSegmentationDirectory
    dataset = fiftyone.Dataset.from_dir(dataset_type=kind, data_path=str(images), labels_path=str(out / "masks"))
    dataset.export(
        dataset_type=kind,
        labels_path=str(place / "masks"),
        label_field="ground_truth",
        export_media=False,
        rel_dir=str(images),
    )
    return place / "masks"


# ---- supervision ----


def supervision_coco(file: str) -> Loop:
    def loop(out: Path, images: Path, place: Path) -> Path:
        import supervision

        dataset = supervision.DetectionDataset.from_coco(str(images), str(out / file), force_masks=True)
        dataset.as_coco(annotations_path=str(place / "labels.json"))
        return place / "labels.json"

    return loop


# ---- CVAT ----


def cvat(source: str, *, polygons: bool, masks: bool) -> Loop:
    """Uploads and exports as CVAT does them, by datumaro; `polygons` is its switch "Convert masks to polygons"."""

    def loop(out: Path, images: Path, place: Path) -> Path:
        from datumaro.components.annotation import AnnotationType
        from datumaro.components.dataset import Dataset
        from datumaro.components.media import Image

        if source == "cvat":
            read = Dataset.import_from(str(out / "cvat"), "voc_segmentation")
        else:
            (place / "in/annotations").mkdir(parents=True)
            (place / "in/images").symlink_to(images.absolute())
            shutil.copy(out / source, place / "in/annotations/instances_default.json")
            read = Dataset.import_from(str(place / "in"), "coco_instances")
        names = [each.name for each in read.categories()[AnnotationType.label]]
        pictures = {path.stem: path for path in images.iterdir()}
        items = []
        for item in read:
            # Boxes beside masks, and objects of a label that the task does not have, are not taken in.
            kept = [
                each
                for each in item.annotations
                if each.type != AnnotationType.bbox and names[each.label] != "background"
            ]
            media = Image.from_file(path=str(pictures[item.id]), size=size_of(pictures[item.id]))
            items.append(item.wrap(annotations=kept, media=media))
        dataset = Dataset.from_iterable(items, categories=read.categories())
        if polygons:
            dataset.transform("masks_to_polygons")
        if not masks:
            dataset.export(str(place / "out"), "coco_instances", save_media=False)
            return place / "out"
        for step in ("polygons_to_masks", "boxes_to_masks", "merge_instance_segments"):
            dataset.transform(step)
        label_map = str(out / "cvat/labelmap.txt")
        dataset.export(str(place / "out"), "voc_segmentation", save_media=False, label_map=label_map)
        return place / "out"

    return loop


# ---- LabelMe, Label Studio, ultralytics, datasets ----


def labelme(out: Path, images: Path, place: Path) -> Path:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from labelme import LabelFile

    for path in sorted((out / "labelme").glob("*.json")):
        record = json.loads(path.read_bytes())
        if not record["imagePath"].endswith(".gif"):  # LabelMe 6.3 opens no pictures with palettes
            file: Any = LabelFile(str(path))
            file.save(
                filename=str(place / path.name),
                shapes=file.shapes,
                image_path=file.image_path,
                image_height=record["imageHeight"],
                image_width=record["imageWidth"],
            )
    return place


def _accepted(out: Path, place: Path) -> Path:
    """What Label Studio exports once all predictions were accepted."""
    tasks = json.loads((out / "label-studio.json").read_bytes())
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task.pop("predictions")
        task["annotations"] = [{"id": number, "was_cancelled": False, "result": prediction["result"]}]
        task["id"] = number
    (place / "export.json").write_text(json.dumps(tasks), "utf-8")
    return place / "export.json"


def label_studio(out: Path, images: Path, place: Path) -> Path:
    return _accepted(out, place)


def label_studio_coco(out: Path, images: Path, place: Path) -> Path:
    from label_studio_sdk.converter import Converter

    converter = Converter((out / "label-studio.xml").read_text("utf-8"), str(place), download_resources=False)
    converter.convert_to_coco(str(_accepted(out, place)), str(place / "coco"), is_dir=False)
    return place / "coco/result.json"


def ultralytics(out: Path, images: Path, place: Path) -> Path:
    """COCO polygons made into YOLO's text files."""
    from ultralytics.data.converter import convert_coco

    (place / "in").mkdir()
    shutil.copy(out / "annotations-polygon.json", place / "in/instances_default.json")
    convert_coco(str(place / "in"), str(place / "out"), use_segments=True, cls91to80=False)
    names = [each["name"] for each in json.loads((out / "classes.json").read_bytes())["classes"]]
    (place / "out/data.yaml").write_text(f"names: {json.dumps(names)}\n")
    return place / "out"


def datasets(out: Path, images: Path, place: Path) -> Path:
    """The masks of the data set, saved by their images' names."""
    import datasets as library

    library.disable_progress_bars()
    rows = library.load_dataset("imagefolder", data_dir=str(out / "hf"), split="train", cache_dir=str(place / "cache"))
    paths = rows.cast_column("image", library.Image(decode=False))
    (place / "masks").mkdir()
    for row, path in zip(rows, paths, strict=True):
        row["mask"].save(place / "masks" / f"{Path(path['image']['path']).stem}.png")
    return place / "masks"


_CONVERTED = '"Convert masks to polygons" on, as it is by default'

LOOPS = (
    ThroughATool("fiftyone", "`coco`; exported as `COCODetectionDataset`", fiftyone_coco("annotations.json")),
    ThroughATool("fiftyone", "`coco-polygon`; the same", fiftyone_coco("annotations-polygon.json")),
    ThroughATool("fiftyone", "`coco`; the same, with `iscrowd` 1", fiftyone_coco("annotations.json", crowd=True)),
    ThroughATool("fiftyone", "`png`; exported as `ImageSegmentationDirectory` with `rel_dir`", fiftyone_masks),
    ThroughATool("supervision", "`coco`; `as_coco`", supervision_coco("annotations.json")),
    ThroughATool("supervision", "`coco-polygon`; `as_coco`", supervision_coco("annotations-polygon.json")),
    ThroughATool(
        "datumaro", f"CVAT: `coco`, {_CONVERTED}; exported as COCO 1.0",
        cvat("annotations.json", polygons=True, masks=False),
    ),
    ThroughATool(
        "datumaro", "CVAT: the same; exported as Segmentation mask 1.1",
        cvat("annotations.json", polygons=True, masks=True), "cvat",
    ),
    ThroughATool(
        "datumaro", f"CVAT: `cvat`, {_CONVERTED}; exported as COCO 1.0", cvat("cvat", polygons=True, masks=False)
    ),
    ThroughATool(
        "datumaro", "CVAT: the same; exported as Segmentation mask 1.1", cvat("cvat", polygons=True, masks=True), "cvat"
    ),
    ThroughATool(
        "datumaro", "CVAT: `coco-polygon`; exported as COCO 1.0",
        cvat("annotations-polygon.json", polygons=True, masks=False),
    ),
    ThroughATool(
        "datumaro", "CVAT: `coco-polygon`; exported as Segmentation mask 1.1",
        cvat("annotations-polygon.json", polygons=True, masks=True), "cvat",
    ),
    ThroughATool(
        "datumaro", "CVAT: `cvat`, the switch off; exported as Segmentation mask 1.1",
        cvat("cvat", polygons=False, masks=True), "cvat",
    ),
    ThroughATool("labelme", "`labelme`; opened and saved; it takes no GIF", labelme),
    ThroughATool("label-studio-sdk", "`label-studio`; all accepted, exported as JSON", label_studio),
    ThroughATool("label-studio-sdk", "`label-studio`; all accepted, exported as COCO", label_studio_coco),
    ThroughATool("ultralytics", "`coco-polygon`; `convert_coco(use_segments=True)`", ultralytics),
    ThroughATool("datasets", "`hf`; the column `mask` saved as PNG", datasets),
)  # fmt: skip
