"""Read label files with third-party tools. The functions take the output folder and the images, and return ids [H, W] by image."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from comparing import paint_boxes
from numpy.typing import NDArray
from PIL import Image, ImageOps
from reading import Ids, painted

#: (output folder, folder of the images) -> ids by image name, "sub/a.jpg". Tools may skip images that they do not support.
Read = Callable[[Path, Path], Mapping[str, Ids]]


@dataclass(frozen=True)
class Reader:
    """A tool that reads a format.

    tool    the package on PyPI
    format  the format, by our name
    how     how to load it, for the README
    read    the function that reads it
    least   the required IoU of each class: 1 for pixels, less for polygons, which tools fill in different ways
    """

    tool: str
    format: str
    how: str
    read: Read
    least: float = 1.0


def class_ids(out: Path) -> dict[str, int]:
    """Return the class ids by name."""
    return {entry["name"]: entry["id"] for entry in json.loads((out / "classes.json").read_bytes())["classes"]}


# ---- pycocotools ----


def _coco_api(out: Path, file: str) -> Any:
    from pycocotools.coco import COCO

    with redirect_stdout(None):
        return COCO(out / file)


def _annotations(coco: Any, images: Iterable[int]) -> Iterator[tuple[str, Ids]]:
    for number in images:
        record = coco.loadImgs(number)[0]
        objects = coco.loadAnns(coco.getAnnIds(number))
        masks = ((entry["category_id"], coco.annToMask(entry) > 0) for entry in objects)
        yield record["file_name"], painted(masks, (record["height"], record["width"]))


def pycocotools_instances(out: Path, images: Path) -> Mapping[str, Ids]:
    coco = _coco_api(out, "annotations.json")
    return dict(_annotations(coco, coco.getImgIds()))


def pycocotools_polygons(out: Path, images: Path) -> Mapping[str, Ids]:
    coco = _coco_api(out, "annotations-polygon.json")
    return dict(_annotations(coco, coco.getImgIds()))


def pycocotools_results(out: Path, images: Path) -> Mapping[str, Ids]:
    """Read results.json, and check that its average precision against annotations.json is 1 for boxes and masks."""
    from pycocotools.cocoeval import COCOeval

    coco = _coco_api(out, "annotations.json")
    with redirect_stdout(None):
        results = coco.loadRes(str(out / "results.json"))
        for kind in ("segm", "bbox"):
            evaluation = COCOeval(coco, results, kind)
            evaluation.params.maxDets = [1, 10, 1000]  # an image may have more than 100 objects
            evaluation.evaluate()
            evaluation.accumulate()
            precision = evaluation.eval["precision"][..., -1]
            if not np.allclose(precision[precision > -1], 1):
                raise ValueError(f"average precision of {kind} is not 1")
    return dict(_annotations(results, results.getImgIds()))


# ---- supervision ----


def _detections(dataset: Any, images: Path, ids: Mapping[str, int]) -> Iterator[tuple[str, Ids]]:
    for path, picture, detections in dataset:
        size = picture.shape[:2]
        names = [dataset.classes[number] for number in detections.class_id]
        masks = zip((ids[name] for name in names), detections.mask if len(detections) else [], strict=True)
        yield str(Path(path).relative_to(images)), painted(masks, size)


def _supervision_coco(file: str) -> Read:
    def read(out: Path, images: Path) -> Mapping[str, Ids]:
        import supervision

        dataset = supervision.DetectionDataset.from_coco(
            images_directory_path=str(images), annotations_path=str(out / file), force_masks=True
        )
        return dict(_detections(dataset, images, class_ids(out)))

    return read


def supervision_yolo(out: Path, images: Path) -> Mapping[str, Ids]:
    """Read the top folder only: supervision reads one folder of images at a time."""
    import supervision

    dataset = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(out / "yolo/images/train"),
        annotations_directory_path=str(out / "yolo/labels/train"),
        data_yaml_path=str(out / "yolo/data.yaml"),
        force_masks=True,
    )
    return dict(_detections(dataset, out / "yolo/images/train", class_ids(out)))


# ---- datasets ----


def hugging_face(out: Path, images: Path) -> Mapping[str, Ids]:
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("imagefolder", data_dir=str(out / "hf"), split="train", cache_dir=cache)
        paths = rows.cast_column("image", datasets.Image(decode=False))
        labels = {}
        for row, path in zip(rows, paths, strict=True):
            name = Path(path["image"]["path"]).relative_to(out / "hf/images")
            ids = np.asarray(row["mask"]).astype(np.int64)
            if row["image"].size[::-1] != ids.shape:
                raise ValueError(f"{name}: {row['image'].size} and {ids.shape}")
            labels[str(name)] = ids
        return labels


# ---- datumaro ----


@contextmanager
def _coco_layout(images: Path) -> Iterator[Path]:
    """Create the folders of a COCO data set: a link to the images, and an empty folder for annotations."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").symlink_to(images.absolute())
        (root / "annotations").mkdir()
        yield root


def _items(dataset: Any, ids: Mapping[str, int], images: Path) -> Iterator[tuple[str, Ids]]:
    from datumaro.components.annotation import AnnotationType

    names = [label.name for label in dataset.categories()[AnnotationType.label]]
    by_stem = {str(path.relative_to(images).with_suffix("")): path for path in images.rglob("*") if path.is_file()}
    for item in dataset:
        masks = [
            (ids[names[entry.label]], np.asarray(entry.image, bool))
            for entry in item.annotations
            if entry.type == AnnotationType.mask and names[entry.label] in ids
        ]
        path = by_stem[item.id]
        yield str(path.relative_to(images)), painted(masks, size_of(path))


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width of the upright image."""
    with Image.open(path) as picture:
        width, height = ImageOps.exif_transpose(picture).size
    return height, width


def _datumaro(root: Path, format_name: str, out: Path, images: Path) -> Mapping[str, Ids]:
    from datumaro.components.dataset import Dataset

    return dict(_items(Dataset.import_from(str(root), format_name), class_ids(out), images))


def datumaro_coco(out: Path, images: Path) -> Mapping[str, Ids]:
    with _coco_layout(images) as root:
        shutil.copy(out / "annotations.json", root / "annotations/instances_default.json")
        return _datumaro(root, "coco_instances", out, images)


def datumaro_panoptic(out: Path, images: Path) -> Mapping[str, Ids]:
    with _coco_layout(images) as root:
        shutil.copy(out / "panoptic.json", root / "annotations/panoptic_default.json")
        shutil.copytree(out / "panoptic", root / "annotations/panoptic_default")
        return _datumaro(root, "coco_panoptic", out, images)


def datumaro_voc(out: Path, images: Path) -> Mapping[str, Ids]:
    """Read like CVAT, which reads its "Segmentation mask 1.1" with datumaro."""
    return _datumaro(out / "cvat", "voc_segmentation", out, images)


# ---- ultralytics ----


def ultralytics(out: Path, images: Path) -> Mapping[str, Ids]:
    """Read the data set like ultralytics does for training, without images in formats that it does not support."""
    labels = {}
    for image, size, classes, label in _ultralytics_labels(out, "yolo", "segment"):
        rings = [_filled(ring * size[::-1], size) for ring in label["segments"]]
        labels[image] = painted(list(zip(classes, rings, strict=True)), size)
    return labels


def ultralytics_boxes(out: Path, images: Path) -> Mapping[str, Ids]:
    labels = {}
    for image, size, classes, label in _ultralytics_labels(out, "yolo-boxes", "detect"):
        boxes = []
        for x, y, w, h in label["bboxes"]:
            corners = np.array(
                [[y - h / 2, x - w / 2], [y - h / 2, x + w / 2], [y + h / 2, x + w / 2], [y + h / 2, x - w / 2]]
            )
            boxes.append(corners * size)
        labels[image] = paint_boxes(list(zip(classes, boxes, strict=True)), size)
    return labels


def ultralytics_obb(out: Path, images: Path) -> Mapping[str, Ids]:
    labels = {}
    for image, size, classes, label in _ultralytics_labels(out, "yolo-obb", "obb"):
        boxes = [ring[:, ::-1] * size for ring in label["segments"]]
        labels[image] = paint_boxes(list(zip(classes, boxes, strict=True)), size)
    return labels


def _ultralytics_labels(
    out: Path, form: str, task: str
) -> Iterator[tuple[str, tuple[int, int], list[int], Mapping[str, Any]]]:
    """Yield the name, the size, the class ids and the label of each image."""
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / form
        shutil.copytree(out / form, root)  # ultralytics writes caches beside the labels
        data = check_det_dataset(str(root / "data.yaml"))
        dataset = YOLODataset(img_path=data["train"], data=data, task=task, augment=False)
        ids = class_ids(out)
        for label in dataset.labels:
            image = Path(label["im_file"]).relative_to(root.resolve() / "images/train")
            classes = [ids[data["names"][number]] for number in label["cls"].ravel().astype(int).tolist()]
            yield str(image), label["shape"], classes, label


def _filled(ring: NDArray[np.floating[Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a polygon like ultralytics, which uses OpenCV."""
    from ultralytics.data.utils import polygon2mask

    return np.asarray(polygon2mask(size, [ring.reshape(-1)]), bool)


# ---- LabelMe ----


def labelme(out: Path, images: Path) -> Mapping[str, Ids]:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from labelme import LabelFile, utils

    ids, labels_by_image = class_ids(out), {}
    for path in sorted((out / "labelme").rglob("*.json")):
        if json.loads(path.read_bytes())["imagePath"].endswith(".gif"):
            continue  # LabelMe 6.3 does not open images with palettes
        file = LabelFile(str(path))
        pixels = utils.img_data_to_arr(file.image_data)
        labels, _ = utils.shapes_to_label(pixels.shape, file.shapes, ids)
        image = path.parent.relative_to(out / "labelme") / file.image_path
        labels_by_image[str(image)] = labels.astype(np.int64)
    return labels_by_image


# ---- Label Studio ----


def label_studio(out: Path, images: Path) -> Mapping[str, Ids]:
    """Validate interface and predictions with the SDK, and convert them to COCO like accepted labels."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((out / "label-studio.xml").read_text("utf-8"))
    tasks = json.loads((out / "label-studio.json").read_bytes())
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task["predictions"]
        if not interface.validate_prediction(prediction):
            raise ValueError(f"{task['data']['file_name']}: prediction does not match the interface")
        # The export of Label Studio after a prediction was accepted.
        task["annotations"] = [{"id": number, "result": prediction["result"]}]
        task["id"] = number
    with tempfile.TemporaryDirectory() as folder:
        exported, converted = Path(folder, "exported.json"), Path(folder, "coco")
        exported.write_text(json.dumps(tasks), "utf-8")
        converter = Converter((out / "label-studio.xml").read_text("utf-8"), folder, download_resources=False)
        converter.convert_to_coco(str(exported), str(converted), is_dir=False)
        coco = _coco_api(converted, "result.json")
    ids = class_ids(out)
    names = {entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())}
    labels = {}
    for task, record in zip(tasks, coco.loadImgs(coco.getImgIds()), strict=True):
        objects = coco.loadAnns(coco.getAnnIds(record["id"]))
        masks = ((ids[names[entry["category_id"]]], coco.annToMask(entry) > 0) for entry in objects)
        labels[task["data"]["file_name"]] = painted(masks, (record["height"], record["width"]))
    return labels


def label_studio_round_trip(out: Path, images: Path) -> Mapping[str, Ids]:
    """Accept predictions, change the class of one object, and read them back with `tipsseg correct`.

    Return the masks of the unchanged images. Raise ValueError if the change is not in the corrected mask.
    """
    from label_studio_sdk.label_interface import LabelInterface

    import tipsseg

    interface = LabelInterface((out / "label-studio.xml").read_text("utf-8"))
    tasks = json.loads((out / "label-studio.json").read_bytes())
    classes = list(class_ids(out))
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task.pop("predictions")
        if prediction["result"] and not 0 < prediction["score"] <= 1:
            raise ValueError(f"{task['data']['file_name']}: Label Studio needs a score above 0")
        task["id"] = number
        task["annotations"] = [{"id": number, "was_cancelled": False, "result": prediction["result"]}]
    changed = max(tasks, key=lambda task: len(task["annotations"][0]["result"]))
    value = changed["annotations"][0]["result"][0]["value"]
    (before,) = value["polygonlabels"]
    after = next(name for name in classes if name != before)
    value["polygonlabels"] = [after]
    for task in tasks:
        if not interface.validate_annotation(task["annotations"][0]):
            raise ValueError(f"{task['data']['file_name']}: annotation does not match the interface")
    labels = {}
    with tempfile.TemporaryDirectory() as folder:
        copy, export = Path(folder, "out"), Path(folder, "export.json")
        shutil.copytree(out, copy, symlinks=True)
        export.write_text(json.dumps(tasks), "utf-8")
        corrections = tipsseg.review.correct_folder(copy, export)
        images_changed = [mask.image for mask in corrections.masks]
        if images_changed != [changed["data"]["file_name"]] or not corrections.masks[0].changed:
            raise ValueError(f"corrected: {images_changed}")
        for task in tasks:
            name = task["data"]["file_name"]
            if name != changed["data"]["file_name"]:
                with Image.open(copy / "masks" / PurePosixPath(name).with_suffix(".png")) as mask:
                    labels[name] = np.asarray(mask).astype(np.int64)
    ignored = json.loads((out / "classes.json").read_bytes())["ignore"]
    return {name: np.where(ids == ignored, 0, ids) for name, ids in labels.items()}


# ---- CVAT ----


def cvat_function(out: Path, images: Path) -> Mapping[str, Ids]:
    """Call the auto-annotation function, and decode its masks with the SDK."""
    from types import SimpleNamespace

    from cvat_sdk.masks import decode_mask

    from tipsseg.plugins.serve import cvat

    function = cvat.create(classes=",".join(class_ids(out)), model="tiny", device="cpu", min_confidence=0.5)
    context: Any = SimpleNamespace(conf_threshold=None, conv_mask_to_poly=False)
    labels = {}
    for path in sorted(path for path in images.rglob("*") if path.is_file()):
        with Image.open(path) as picture:
            shapes = function.detect(context, ImageOps.exif_transpose(picture))
        size = size_of(path)
        masks = (
            (shape.label_id, decode_mask(shape.points, image_height=size[0], image_width=size[1])) for shape in shapes
        )
        labels[str(path.relative_to(images))] = painted(masks, size)
    return labels


# ---- FiftyOne ----


def fiftyone_zoo(out: Path, images: Path) -> Mapping[str, Ids]:
    """Load the model from a remote source of the zoo, and label images that FiftyOne reads."""
    import fiftyone
    import fiftyone.utils.image
    import fiftyone.zoo

    source = Path(__file__).resolve().parents[2] / "examples" / "fiftyone"
    with tempfile.TemporaryDirectory() as zoo:
        name = json.loads((source / "manifest.json").read_bytes())["name"]
        shutil.copytree(source, Path(zoo, name), ignore=shutil.ignore_patterns("__pycache__"))
        fiftyone.config.model_zoo_dir = zoo
        fiftyone.zoo.download_zoo_model("tipsseg")
        model = fiftyone.zoo.load_zoo_model(
            "tipsseg", classes=list(class_ids(out)), model="tiny", device="cpu", min_confidence=0.5
        )
        if {name: number for number, name in model.mask_targets.items()} != class_ids(out):
            raise ValueError(f"unexpected classes: {model.mask_targets}")
        paths = sorted(path for path in images.rglob("*") if path.is_file())
        read = fiftyone.utils.image.read
        return {str(path.relative_to(images)): model.predict(read(str(path))).mask.astype(np.int64) for path in paths}


def _fiftyone_coco(file: str) -> Read:
    def read(out: Path, images: Path) -> Mapping[str, Ids]:
        from fiftyone.utils.coco import COCODetectionDatasetImporter

        importer = COCODetectionDatasetImporter(
            data_path=str(images), labels_path=str(out / file), label_types="segmentations"
        )
        with importer:
            return dict(_fiftyone_labels(importer, class_ids(out), images))

    return read


def fiftyone_yolo(out: Path, images: Path) -> Mapping[str, Ids]:
    from fiftyone.utils.yolo import YOLOv5DatasetImporter

    importer = YOLOv5DatasetImporter(
        dataset_dir=str(out / "yolo"), yaml_path="data.yaml", split="train", label_type="instances"
    )
    with importer:
        return dict(_fiftyone_labels(importer, class_ids(out), out.absolute() / "yolo/images/train"))


def _fiftyone_labels(importer: Any, ids: Mapping[str, int], images: Path) -> Iterator[tuple[str, Ids]]:
    for path, metadata, label in importer:
        size = metadata.height, metadata.width
        masks = ((ids[entry.label], _full_mask(entry, size)) for entry in (label.detections if label else ()))
        yield str(Path(path).relative_to(images)), painted(masks, size)


def _full_mask(detection: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a detection in the whole image. FiftyOne stores it in a box, in fractions of the image size."""
    mask = np.zeros(size, bool)
    x, y = round(detection.bounding_box[0] * size[1]), round(detection.bounding_box[1] * size[0])
    part = np.asarray(detection.mask, bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask


def fiftyone_masks(out: Path, images: Path) -> Mapping[str, Ids]:
    from fiftyone.utils.data.importers import ImageSegmentationDirectoryImporter

    importer = ImageSegmentationDirectoryImporter(
        data_path=str(images), labels_path=str(out / "masks"), load_masks=True
    )
    with importer:
        return {str(Path(path).relative_to(images)): np.asarray(label.mask, np.int64) for path, _, label in importer}


#: Tools that the default tests install.
LIGHT = (
    Reader("pycocotools", "coco", '`COCO("out/annotations.json")`', pycocotools_instances),
    Reader("pycocotools", "coco-polygon", '`COCO("out/annotations-polygon.json")`', pycocotools_polygons, 0.99),
    Reader(
        "pycocotools", "coco-results", '`COCO("out/annotations.json").loadRes("out/results.json")`', pycocotools_results
    ),
    Reader(
        "supervision", "coco", '`DetectionDataset.from_coco("photos", "out/annotations.json", force_masks=True)`',
        _supervision_coco("annotations.json"),
    ),
    Reader(
        "supervision", "coco-polygon", "the same with `annotations-polygon.json`; corners are rounded to whole pixels",
        _supervision_coco("annotations-polygon.json"), 0.7,
    ),
    Reader(
        "supervision",
        "yolo",
        '`DetectionDataset.from_yolo("out/yolo/images/train", "out/yolo/labels/train", "out/yolo/data.yaml", force_masks=True)`, '
        "folder by folder",
        supervision_yolo,
        0.9,
    ),
    Reader(
        "datasets", "hf", '`load_dataset("imagefolder", data_dir="out/hf")`: columns `image` and `mask`', hugging_face
    ),
)  # fmt: skip

_DATUMARO_COCO = (
    "`photos` as `d/images`, `out/annotations.json` as `d/annotations/instances_default.json`; "
    '`Dataset.import_from("d", "coco_instances")`'
)
_DATUMARO_PANOPTIC = (
    "`out/panoptic` and `out/panoptic.json` as `d/annotations/panoptic_default` and `.json`; "
    '`import_from("d", "coco_panoptic")`'
)
_LABEL_STUDIO = (
    "the parent folder of `photos` as the root of local files, `label-studio.xml` as the interface; "
    "import `label-studio.json`"
)
_ROUND_TRIP = "the same; export as JSON, `tipsseg correct out --from export.json`: unchanged masks stay identical"
_ZOO = (
    '`foz.load_zoo_model("tipsseg", classes="panda leg,tree")` of [examples/fiftyone](../../examples/fiftyone), '
    "without label files"
)
_CVAT = "`cvat-cli task auto-annotate ID --function-module tipsseg.plugins.serve.cvat`: the function alone, without a server"
_FIFTYONE_YOLO = (
    '`Dataset.from_dir(dataset_type=YOLOv5Dataset, dataset_dir="out/yolo", yaml_path="data.yaml", split="train", '
    'label_type="instances")`'
)
_FIFTYONE = (
    "`Dataset.from_dir(dataset_type=COCODetectionDataset, "
    'data_path="photos", labels_path="out/annotations.json", label_types="segmentations")`'
)

#: Tools with large dependencies.
HEAVY = (
    Reader("datumaro", "coco", _DATUMARO_COCO, datumaro_coco),
    Reader("datumaro", "panoptic", _DATUMARO_PANOPTIC, datumaro_panoptic),
    Reader("datumaro", "cvat", '`Dataset.import_from("out/cvat", "voc_segmentation")`', datumaro_voc),
    Reader(
        "ultralytics", "yolo", "`yolo segment train model=yolo11n-seg.yaml data=out/yolo/data.yaml`; without GIF",
        ultralytics, 0.99,
    ),
    Reader(
        "ultralytics", "yolo-boxes", "`yolo detect train model=yolo11n.yaml data=out/yolo-boxes/data.yaml`; without GIF",
        ultralytics_boxes, 0.99,
    ),
    Reader(
        "ultralytics", "yolo-obb", "`yolo obb train model=yolo11n-obb.yaml data=out/yolo-obb/data.yaml`; without GIF",
        ultralytics_obb, 0.95,
    ),
    Reader("labelme", "labelme", "`labelme out/labelme`; without GIF", labelme, 0.99),
    Reader("label-studio-sdk", "label-studio", _LABEL_STUDIO, label_studio, 0.99),
    Reader("label-studio-sdk", "label-studio", _ROUND_TRIP, label_studio_round_trip),
    Reader("cvat-sdk", "cvat", _CVAT, cvat_function),
    Reader("fiftyone", "png", _ZOO, fiftyone_zoo),
    Reader("fiftyone", "coco", _FIFTYONE, _fiftyone_coco("annotations.json")),
    Reader(
        "fiftyone", "coco-polygon", "the same with `annotations-polygon.json`",
        _fiftyone_coco("annotations-polygon.json"), 0.99,
    ),
    Reader(
        "fiftyone", "png",
        '`Dataset.from_dir(dataset_type=ImageSegmentationDirectory, data_path="photos", labels_path="out/masks")`',
        fiftyone_masks,
    ),
    Reader("fiftyone", "yolo", _FIFTYONE_YOLO, fiftyone_yolo, 0.8),
)  # fmt: skip
