"""Open and save labels in labelling tools, without edits, and return what they saved for `tipsseg correct --from`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import size_of

#: (output folder, folder of the images, empty folder) -> path of the saved labels
Run = Callable[[Path, Path, Path], Path]


@dataclass(frozen=True)
class RoundTrip:
    """A round trip of labels through a tool.

    tool    the package on PyPI
    steps   the format that is opened and how it is saved, for the README
    run     the function that opens and saves
    form    the format of the saved labels, if `correct` cannot detect it
    whole   True for labels with one object a class, `--instances class`
    """

    tool: str
    steps: str
    run: Run
    form: str | None = None
    whole: bool = False


# ---- FiftyOne, with its database ----


def fiftyone_coco(file: str, *, crowd: bool = False) -> Run:
    def run(out: Path, images: Path, target: Path) -> Path:
        import fiftyone

        fiftyone.config.show_progress_bars = False

        kind = fiftyone.types.COCODetectionDataset
        dataset = fiftyone.Dataset.from_dir(
            dataset_type=kind, data_path=str(images), labels_path=str(out / file), label_types="segmentations"
        )
        if crowd:
            for sample in dataset:
                for detection in sample["ground_truth"].detections if sample["ground_truth"] else ():
                    detection["iscrowd"] = 1
                sample.save()
        dataset.export(
            dataset_type=kind,
            labels_path=str(target / "labels.json"),
            label_field="ground_truth",
            data_path=str(images),
            export_media=False,
            rel_dir=str(images),
        )
        return target / "labels.json"

    return run


def fiftyone_yolo(out: Path, images: Path, target: Path) -> Path:
    """Polylines of COCO's masks, whose holes become objects of YOLO."""
    import fiftyone

    fiftyone.config.show_progress_bars = False

    dataset = fiftyone.Dataset.from_dir(
        dataset_type=fiftyone.types.COCODetectionDataset,
        data_path=str(images),
        labels_path=str(out / "annotations.json"),
        label_types="segmentations",
        use_polylines=True,
    )
    dataset.export(
        export_dir=str(target / "yolo"),
        dataset_type=fiftyone.types.YOLOv5Dataset,
        label_field="ground_truth",
        split="train",
    )
    return target / "yolo"


def fiftyone_masks(out: Path, images: Path, target: Path) -> Path:
    import fiftyone

    fiftyone.config.show_progress_bars = False

    kind = fiftyone.types.ImageSegmentationDirectory
    dataset = fiftyone.Dataset.from_dir(dataset_type=kind, data_path=str(images), labels_path=str(out / "masks"))
    dataset.export(
        dataset_type=kind,
        labels_path=str(target / "masks"),
        label_field="ground_truth",
        export_media=False,
        rel_dir=str(images),
    )
    return target / "masks"


# ---- supervision ----


def supervision_coco(file: str) -> Run:
    def run(out: Path, images: Path, target: Path) -> Path:
        import supervision

        dataset = supervision.DetectionDataset.from_coco(str(images), str(out / file), force_masks=True)
        dataset.as_coco(annotations_path=str(target / "labels.json"))
        return target / "labels.json"

    return run


# ---- CVAT ----


def cvat(source: str, *, polygons: bool, masks: bool) -> Run:
    """Upload and export like CVAT, with datumaro; `polygons` is CVAT's option "Convert masks to polygons"."""

    def run(out: Path, images: Path, target: Path) -> Path:
        from datumaro.components.annotation import AnnotationType
        from datumaro.components.dataset import Dataset
        from datumaro.components.media import Image

        if source == "cvat":
            read = Dataset.import_from(str(out / "cvat"), "voc_segmentation")
        else:
            (target / "in/annotations").mkdir(parents=True)
            (target / "in/images").symlink_to(images.absolute())
            shutil.copy(out / source, target / "in/annotations/instances_default.json")
            read = Dataset.import_from(str(target / "in"), "coco_instances")
        names = [label.name for label in read.categories()[AnnotationType.label]]
        pictures = {path.stem: path for path in images.iterdir()}
        items = []
        for item in read:
            # CVAT ignores boxes of masks, and objects of labels that the task does not have.
            kept = [
                entry
                for entry in item.annotations
                if entry.type != AnnotationType.bbox and names[entry.label] != "background"
            ]
            media = Image.from_file(path=str(pictures[item.id]), size=size_of(pictures[item.id]))
            items.append(item.wrap(annotations=kept, media=media))
        dataset = Dataset.from_iterable(items, categories=read.categories())
        if polygons:
            dataset.transform("masks_to_polygons")
        if not masks:
            dataset.export(str(target / "out"), "coco_instances", save_media=False)
            return target / "out"
        for step in ("polygons_to_masks", "boxes_to_masks", "merge_instance_segments"):
            dataset.transform(step)
        label_map = str(out / "cvat/labelmap.txt")
        dataset.export(str(target / "out"), "voc_segmentation", save_media=False, label_map=label_map)
        return target / "out"

    return run


# ---- LabelMe, Label Studio, ultralytics, datasets ----


def labelme(out: Path, images: Path, target: Path) -> Path:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from labelme import LabelFile

    for path in sorted((out / "labelme").glob("*.json")):
        record = json.loads(path.read_bytes())
        if not record["imagePath"].endswith(".gif"):  # LabelMe 6.3 does not open images with palettes
            file: Any = LabelFile(str(path))
            file.save(
                filename=str(target / path.name),
                shapes=file.shapes,
                image_path=file.image_path,
                image_height=record["imageHeight"],
                image_width=record["imageWidth"],
            )
    return target


def _accept_predictions(out: Path, target: Path) -> Path:
    """Write the export of Label Studio after all predictions were accepted."""
    tasks = json.loads((out / "label-studio.json").read_bytes())
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task.pop("predictions")
        task["annotations"] = [{"id": number, "was_cancelled": False, "result": prediction["result"]}]
        task["id"] = number
    (target / "export.json").write_text(json.dumps(tasks), "utf-8")
    return target / "export.json"


def label_studio(out: Path, images: Path, target: Path) -> Path:
    return _accept_predictions(out, target)


def label_studio_coco(out: Path, images: Path, target: Path) -> Path:
    from label_studio_sdk.converter import Converter

    converter = Converter((out / "label-studio.xml").read_text("utf-8"), str(target), download_resources=False)
    converter.convert_to_coco(str(_accept_predictions(out, target)), str(target / "coco"), is_dir=False)
    return target / "coco/result.json"


def ultralytics(out: Path, images: Path, target: Path) -> Path:
    """Convert COCO polygons to YOLO text files."""
    from ultralytics.data.converter import convert_coco

    (target / "in").mkdir()
    shutil.copy(out / "annotations-polygon.json", target / "in/instances_default.json")
    convert_coco(str(target / "in"), str(target / "out"), use_segments=True, cls91to80=False)
    names = [entry["name"] for entry in json.loads((out / "classes.json").read_bytes())["classes"]]
    (target / "out/data.yaml").write_text(f"names: {json.dumps(names)}\n")
    return target / "out"


def datasets(out: Path, images: Path, target: Path) -> Path:
    """Save the masks of the data set under the names of their images."""
    import datasets as library

    library.disable_progress_bars()
    rows = library.load_dataset("imagefolder", data_dir=str(out / "hf"), split="train", cache_dir=str(target / "cache"))
    paths = rows.cast_column("image", library.Image(decode=False))
    (target / "masks").mkdir()
    for row, path in zip(rows, paths, strict=True):
        row["mask"].save(target / "masks" / f"{Path(path['image']['path']).stem}.png")
    return target / "masks"


_CONVERTED = '"Convert masks to polygons" on (the default)'

ROUND_TRIPS = (
    RoundTrip("fiftyone", "`coco`; exported as `COCODetectionDataset`", fiftyone_coco("annotations.json")),
    RoundTrip("fiftyone", "`coco-polygon`; the same", fiftyone_coco("annotations-polygon.json")),
    RoundTrip("fiftyone", "`coco`; the same, with `iscrowd` 1", fiftyone_coco("annotations.json", crowd=True)),
    RoundTrip("fiftyone", "`coco`, as polylines; exported as `YOLOv5Dataset`", fiftyone_yolo),
    RoundTrip("fiftyone", "`png`; exported as `ImageSegmentationDirectory` with `rel_dir`", fiftyone_masks),
    RoundTrip("supervision", "`coco`; `as_coco`", supervision_coco("annotations.json")),
    RoundTrip("supervision", "`coco-polygon`; `as_coco`", supervision_coco("annotations-polygon.json")),
    RoundTrip(
        "datumaro", f"CVAT: `coco`, {_CONVERTED}; exported as COCO 1.0",
        cvat("annotations.json", polygons=True, masks=False),
    ),
    RoundTrip(
        "datumaro", "CVAT: the same; exported as Segmentation mask 1.1",
        cvat("annotations.json", polygons=True, masks=True), "cvat",
    ),
    RoundTrip(
        "datumaro", f"CVAT: `cvat`, {_CONVERTED}; exported as COCO 1.0", cvat("cvat", polygons=True, masks=False)
    ),
    RoundTrip(
        "datumaro", "CVAT: the same; exported as Segmentation mask 1.1", cvat("cvat", polygons=True, masks=True), "cvat"
    ),
    RoundTrip(
        "datumaro", "CVAT: `coco-polygon`; exported as COCO 1.0",
        cvat("annotations-polygon.json", polygons=True, masks=False),
    ),
    RoundTrip(
        "datumaro", "CVAT: `coco-polygon`; exported as Segmentation mask 1.1",
        cvat("annotations-polygon.json", polygons=True, masks=True), "cvat",
    ),
    RoundTrip(
        "datumaro", "CVAT: `cvat`, \"Convert masks to polygons\" off; exported as Segmentation mask 1.1",
        cvat("cvat", polygons=False, masks=True), "cvat",
    ),
    RoundTrip(
        "datumaro", f"CVAT: `cvat` with `--instances class`, {_CONVERTED}; exported as COCO 1.0",
        cvat("cvat", polygons=True, masks=False), whole=True,
    ),
    RoundTrip("labelme", "`labelme`; opened and saved; without GIF", labelme),
    RoundTrip("label-studio-sdk", "`label-studio`; all accepted, exported as JSON", label_studio),
    RoundTrip("label-studio-sdk", "`label-studio`; all accepted, exported as COCO", label_studio_coco),
    RoundTrip("ultralytics", "`coco-polygon`; `convert_coco(use_segments=True)`", ultralytics),
    RoundTrip("datasets", "`hf`; the column `mask` saved as PNG", datasets),
)  # fmt: skip
