"""Rules of one image's annotations: each is what loaders need and says what its pixels say, and together they are the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tipsseg.formats.coco_file import CocoImage
from tipsseg.formats.problem import class_text
from tipsseg.regions.components import components, count_labels, whole_classes
from tipsseg.regions.rle import Runs, area, box, decode_runs, inside
from tipsseg.runs.check.run import Run
from tipsseg.store.labelled_image import LabelledImage
from tipsseg.types import BACKGROUND, LabelArray, label_dtype
from tipsseg.util.json_values import parse, short, take


def check_annotations(image: LabelledImage, found: CocoImage, run: Run, labels: LabelArray | None) -> Iterator[str]:
    """What is wrong with an image of annotations.json; `labels` [H, W] is its mask, None where there is none to compare with."""
    name = image.entry.image
    try:
        record, *annotations = [parse(each) for each in found.rows]
    except ValueError as error:
        yield f"image {name}: not JSON: {error}"
        return
    size = [record.get("height"), record.get("width")]
    if size != list(image.size):
        yield f"image {name}: [height, width] is {short(size)}, where the manifest says {list(image.size)}"
    painted: LabelArray = np.zeros(
        image.size[::-1], label_dtype(len(run.names))
    )  # [W, H], as codes go down the columns
    wanted = None if labels is None else labels.T.reshape(-1)
    whole = True
    for number, annotation in zip(found.annotations, annotations, strict=True):
        faults = list(_plain_faults(annotation))
        try:
            class_id = take(annotation, "category_id", int)
            runs = _runs(annotation, image.size)
        except ValueError as error:
            faults.append(str(error))
        else:
            faults += _shape_faults(annotation, runs, image.size[0])
            place, pixels = slice(runs[0, 0], runs[-1, 1]), inside(runs)
            part = painted.reshape(-1)[place]
            if part[pixels].any():
                faults.append("it overlaps another before it")
            if class_id not in run.names:
                faults.append(f"no category has the id {class_id}")
            elif wanted is not None and (wanted[place][pixels] != class_id).any():
                faults.append(f"not all of its pixels are of {class_text(run.names, class_id)} in the mask")
            else:
                part[pixels] = class_id
        whole = whole and not faults
        for what in faults:
            yield f"annotation {number} ({name}): {what}"
    if whole and image.entry.digest == run.digest:  # with other settings the least area may have been another
        for what in _left_out(image, painted.T, run, labels):
            yield f"image {name}: {what}"


def _plain_faults(annotation: Mapping[str, object]) -> Iterator[str]:
    crowd, score = annotation.get("iscrowd"), annotation.get("score")
    # JSON's true and false are numbers to Python.
    if crowd != 0 or crowd is False:
        yield f"`iscrowd` is {short(crowd)}, not 0"
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        yield f"`score` is {short(score)}, not a number from 0 to 1"


def _runs(annotation: Mapping[str, object], size: tuple[int, int]) -> Runs:
    """The pixels of an annotation. Raises ValueError."""
    code = take(annotation, "segmentation", dict)
    if code.get("size") != list(size):
        raise ValueError(f"the size of its code is {short(code.get('size'))}, that of the image {list(size)}")
    counts = take(code, "counts", str)
    try:
        return decode_runs(counts, size)
    except ValueError as error:
        raise ValueError(f"its code cannot be read: {error}") from error


def _shape_faults(annotation: Mapping[str, object], runs: Runs, height: int) -> Iterator[str]:
    if annotation.get("area") != area(runs):
        yield f"`area` is {short(annotation.get('area'))}, its code has {area(runs)} pixels"
    if annotation.get("bbox") != box(runs, height):
        yield f"`bbox` is {short(annotation.get('bbox'))}, that of its code {box(runs, height)}"


def _left_out(image: LabelledImage, painted: LabelArray, run: Run, labels: LabelArray | None) -> Iterator[str]:
    """Pixels of classes that no annotation has, but for small objects, by the mask or else by the manifest."""
    least = run.files.min_area.pixels(image.size)
    if labels is not None:
        left: LabelArray = labels.copy()
        left[painted != BACKGROUND] = BACKGROUND
        find = whole_classes if run.files.instances == "class" else components
        for region in find(left, len(run.names), least):
            y, x, h, w = region.box
            yield f"no annotation has the {region.area} pixels of {class_text(run.names, region.class_id)} in {[x, y, w, h]}"
        return
    counts = count_labels(painted)
    yield from area_faults({class_id: int(counts[class_id]) for class_id in run.names}, image, run)


def area_faults(areas: Mapping[int, int], image: LabelledImage, run: Run) -> Iterator[str]:
    """Pixels of objects, summed by class, that the manifest does not have, or that are missing, but for small objects."""
    for class_id in sorted(areas.keys() - run.names.keys()):
        yield f"objects of a class {class_id} that there is not"
    if image.entry.digest != run.digest:  # with other settings the least area may have been another
        return
    least = run.files.min_area.pixels(image.size)
    for class_id, name in run.names.items():
        number, wanted = areas.get(class_id, 0), image.pixels.get(class_id, 0)
        if number > wanted or (number < wanted and least <= 1):
            yield f"its objects have {number} pixels of class {class_id} ({name}), where the manifest says {wanted}"
