"""Output folders as runs leave them, made without a model, and ways to damage them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.folder.folder import open_folder
from tipsseg.folder.results import find_grid, write_image
from tipsseg.folder.settle import settle
from tipsseg.folder.spec import Counts, RunInfo, RunSpec
from tipsseg.formats.base import ImageLabels
from tipsseg.images.decoding import ImageReader
from tipsseg.images.upright import pixel_digest
from tipsseg.label_map import LabelMap
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.options.values import Shard
from tipsseg.regions.objects import labelled_objects
from tipsseg.say import Progress
from tipsseg.types import ImageRef, LabelArray, TopClasses, printable_path
from tipsseg.util.files import stamp
from tipsseg.verbs.check import check_folder
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary
from tipsseg.weights.sources import find_model

SOME_FORMATS = ("png", "coco", "overlay", "confidence")
CLASSES = ("panda leg", "tree", "sky")

A: LabelArray = np.array(
    [
        [1, 1, 0, 0, 2, 2, 0, 0],
        [1, 1, 0, 0, 2, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 3, 3, 3, 0, 0, 1],
        [0, 0, 3, 0, 3, 0, 0, 0],
        [255, 255, 3, 3, 3, 0, 0, 0],
    ],
    np.uint8,
)
B: LabelArray = np.repeat(np.array([[2, 2, 2, 0, 0]], np.uint8), 7, axis=0)
NOTHING: LabelArray = np.zeros((4, 4), np.uint8)

#: The images of `make_run` by name, with their labels. The second is turned by its EXIF orientation.
LABELS: Mapping[str, LabelArray] = {"a.png": A, "sub/b c.jpg": B, "sub/ü.png": NOTHING}


def save_inputs(folder: Path, labels: Mapping[str, LabelArray]) -> None:
    """A picture of the size of each label map; JPEGs lie on their side and say so."""
    for name, ids in labels.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.full((*ids.shape, 3), 90, np.uint8))
        if path.suffix == ".jpg":
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
        else:
            picture.save(path)


def image_labels(
    ref: ImageRef,
    label_map: LabelMap,
    options: FileOptions = DEFAULT_FILE_OPTIONS,
    thumbnail: NDArray[np.uint8] | None = None,
) -> ImageLabels:
    """An image with its labels and all that formats may need of it."""
    return ImageLabels(
        ref=ref,
        labels=label_map.labels,
        objects=labelled_objects(label_map.labels, [label_map.confidence], label_map.classes, options),
        confidence=label_map.confidence,
        top=label_map.top,
        thumbnail=np.full((*label_map.shape, 3), 128, np.uint8) if thumbnail is None else thumbnail,
        pixels=np.full((*label_map.shape, 3), 90, np.uint8),
    )


def confidence_of(ids: LabelArray) -> NDArray[np.float32]:
    """A confidence [H, W] for labels, different from pixel to pixel, that 8 bits a pixel hold."""
    bytes_of = (np.arange(ids.size) * 37 + 11) % 256
    return (bytes_of / 255).reshape(ids.shape).astype(np.float32)


def make_run(
    output: Path,
    images: Path,
    labels: Mapping[str, LabelArray] = LABELS,
    classes: tuple[str, ...] = CLASSES,
    formats: tuple[str, ...] = SOME_FORMATS,
    *,
    options: FileOptions = DEFAULT_FILE_OPTIONS,
    shard: Shard | None = None,
) -> None:
    """What a run, or a shard, leaves below `output`; the inputs are in `images` already."""
    info = _run_info(output, images, classes, formats, options, shard)
    with open_folder(info.spec) as folder:
        folder.begin(info)
        for name, ids in labels.items():
            ref = ImageRef(images / name, PurePosixPath(name))
            if shard is not None and not shard.takes(ref.name):
                continue
            top = TopClasses(ids[None, :2, :2].copy(), np.full((1, *ids[:2, :2].shape), 0.5, np.float16))
            label_map = LabelMap(ids, confidence_of(ids), info.spec.vocabulary.classes, top)
            folder.record(
                write_image(
                    folder.deriver,
                    ref,
                    stamp(ref.path),
                    label_map,
                    thumbnail=ImageReader().thumbnail(ref.path),
                    pixels=partial(np.full, (*ids.shape, 3), 90, np.uint8),
                    pixel_digest=pixel_digest(ImageReader().upright(ref.path)),
                    grid=partial(find_grid, formats, ref.path, ids.shape, len(classes), ImageReader()),
                )
            )
        settle(folder, 1)
        folder.finish(Counts(labelled=len(folder)))


def _run_info(
    output: Path,
    images: Path,
    classes: tuple[str, ...],
    formats: tuple[str, ...],
    options: FileOptions,
    shard: Shard | None,
) -> RunInfo:
    return RunInfo(
        RunSpec(
            model="tiny",
            vocabulary=make_vocabulary([ClassSpec(name) for name in classes], "none"),
            files=options,
            formats=formats,
            output=output,
            shard=shard,
            command="tipsseg label imgs",
        ),
        find_model("tiny").facts(),
        dtype="float32",
        device="cpu",
        image_root=str(images),
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )


Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    """All files below a folder, but for the database, of which the records are exported."""
    return {
        printable_path(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "cache.db"
    }


def problems(folder: Path) -> list[str]:
    """What `tipsseg check` finds."""
    return list(map(str, check_folder(folder, jobs=2, verbose=Progress(quiet=True))))
