"""COCO instances: annotations.json, masks as compressed run-length codes.

The file has one record a line, annotations in the order of their images, so that it can be written, read and checked line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.formats.base import Format, ImageCheck, ImageLabels, Rows, RunFacts, StoredImage
from tipsseg.formats.listing import OBJECT_END, check_end, match, read_section, section_pieces
from tipsseg.formats.problem import class_faults, class_text
from tipsseg.util.files import json_bytes, open_regular
from tipsseg.util.json_values import parse, short, take

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject
    from tipsseg.regions.rle import Runs
    from tipsseg.types import ImageRef, LabelArray, LabelClass

FILE_NAME = "annotations.json"

Record = dict[str, object]

_DESCRIPTION = {
    "component": "Labels made by tipsseg; one annotation per connected component.",
    "class": "Labels made by tipsseg; one annotation per class and image.",
}
_INFO_KEYS = ("version", "command", "model", "revision", "vocabulary")
_IMAGE = re.compile(rb'\{"id": (\d+), ("file_name": .*\})')
_ANNOTATION = re.compile(rb'\{"id": (\d+), "image_id": (\d+), (.*\})')


class CocoInstances(Format):
    """A format that is laid out as annotations.json."""

    has_rows = True
    needs_objects = True
    scores_objects = True

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        """Return the file of images and annotations."""
        yield from head_pieces(run, _DESCRIPTION, map(category_record, run.classes))
        yield from section_pieces(b"images", image_lines(images, rows))
        yield from section_pieces(b"annotations", _annotation_lines(images, rows))
        yield b"\n}\n"

    def read_rows(self, path: Path, images: Sequence[str]) -> Iterator[tuple[str, Rows]]:
        """Yield the images with their rows, see Format."""
        return ((image.name, image.rows) for image in read_images(path))

    def read_names(self, path: Path, images: Sequence[str]) -> Iterator[str]:
        """Yield the names of the images, see Format, without a look at the annotations."""
        with open_regular(path) as file:
            for line in read_section(file, b"images"):
                yield _file_name(b"{" + match(_IMAGE, line)[2])


class Coco(CocoInstances):
    """The format "coco"."""

    name = "coco"
    description = "COCO instances: annotations.json, masks as run-length codes"
    files = (FILE_NAME,)
    labels = "objects"

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the entry of `images`, then the entries of `annotations`."""
        return annotated_rows(image, codes(image.objects, image.size))

    def labels_of_rows(self, image: StoredImage, rows: Rows) -> LabelArray:
        """Return the label ids that the run-length codes paint, see Format."""
        import numpy as np

        from tipsseg.regions.rle import inside
        from tipsseg.types import label_dtype

        # [W, H], as codes go down the columns
        labels: LabelArray = np.zeros(image.size[::-1], label_dtype(len(image.classes)))
        for annotation in map(parse, rows[1:]):
            class_id = take(annotation, "category_id", int)
            if class_id not in image.classes:
                raise ValueError(f"an object of a class {class_id} that there is not")
            runs = _runs(annotation, image.size)
            labels.reshape(-1)[runs[0, 0] : runs[-1, 1]][inside(runs)] = class_id
        return labels.T.copy()

    def check_run_file(self, path: Path, classes: Mapping[int, str], images: Collection[str]) -> CocoCheck:
        """Rules of images and annotations, see CocoCheck."""
        return CocoCheck(path, classes, images)


# ---- writing ----


def annotated_rows(image: ImageLabels, segmentations: Iterable[object]) -> Rows:
    """Return the entry of `images` for an image, then its entries of `annotations`; ids are counted over the file, later."""
    annotations = map(annotation_record, image.objects, segmentations)
    return tuple(json_bytes(record) for record in (image_record(image.ref, image.size), *annotations))


def annotation_record(labelled: LabelledObject, segmentation: object) -> Record:
    """The entry of `annotations` for an object, without its ids."""
    return {
        "category_id": labelled.region.class_id,
        "segmentation": segmentation,
        "area": labelled.region.area,
        "bbox": box(labelled),
        "iscrowd": 0,
        "score": labelled.score,
    }


def codes(objects: Sequence[LabelledObject], size: tuple[int, int]) -> Sequence[object]:
    """The pixels of objects in an image of `size` (height, width) as compressed run-length codes."""
    from tipsseg.regions.components import encode_regions

    return encode_regions([each.region for each in objects], size)


def image_record(ref: ImageRef, size: tuple[int, int]) -> Record:
    """The entry of `images` for an image of `size` (height, width), without its id, which is its place in the file."""
    height, width = size
    return {"file_name": ref.name, "width": width, "height": height, "license": 1}


def box(labelled: LabelledObject) -> list[int]:
    """The smallest box around an object, [x, y, w, h]."""
    y, x, h, w = labelled.region.box
    return [x, y, w, h]


def category_record(entry: LabelClass) -> Record:
    """The entry of `categories` for a class."""
    # A class without one is its own supercategory: readers that group by it take an empty one for a group.
    return {"id": entry.id, "name": entry.name, "supercategory": entry.supercategory or entry.name}


def head_pieces(run: RunFacts, description: Mapping[str, str], categories: Iterable[Record]) -> Iterator[bytes]:
    """The beginning of a file: `info` with the description for the run's instances, `licenses`, `categories`."""
    info: Record = {"description": description[run.files.instances]}
    info |= {key: run.info[key] for key in _INFO_KEYS if key in run.info}
    yield b'{\n"info": ' + json_bytes(info)
    yield b',\n"licenses": ' + json_bytes([{"id": 1, "name": "", "url": ""}])
    yield from section_pieces(b"categories", map(json_bytes, categories))


def image_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    """The entries of `images`, of the first row of each image."""
    for number, image in enumerate(images, start=1):
        yield b'{"id": %d, ' % number + rows(image)[0].removeprefix(b"{")


def _annotation_lines(images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
    annotation = 0
    for number, image in enumerate(images, start=1):
        for row in rows(image)[1:]:
            annotation += 1
            yield b'{"id": %d, "image_id": %d, ' % (annotation, number) + row.removeprefix(b"{")


# ---- reading back: only as it was written, anything else is a ValueError ----


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the file.

    Attributes:
        id: The id of the image.
        name: The file name of the image.
        rows: The rows of the image, as `annotated_rows` makes them.
        annotations: The ids of the annotations.
    """

    id: int
    name: str
    rows: Rows
    annotations: tuple[int, ...]


def read_images(path: Path) -> Iterator[CocoImage]:
    """The images in the order of the file. Raises OSError and ValueError."""
    with open_regular(path) as file, open_regular(path) as beside:
        annotations = (match(_ANNOTATION, line) for line in read_section(beside, b"annotations"))
        grouped = groupby(annotations, key=lambda found: int(found[2]))
        waiting = next(grouped, None)
        for line in read_section(file, b"images"):
            image = match(_IMAGE, line)
            own: list[re.Match[bytes]] = []
            if waiting is not None and waiting[0] == int(image[1]):
                own = list(waiting[1])
                waiting = next(grouped, None)
            record = b"{" + image[2]
            rows = (record, *(b"{" + each[3] for each in own))
            yield CocoImage(int(image[1]), _file_name(record), rows, tuple(int(each[1]) for each in own))
        if waiting is not None:
            raise ValueError(f"annotations of an image {waiting[0]} that is not there, or not in its place")


def _file_name(record: bytes) -> str:
    name = parse(record)["file_name"]
    if not isinstance(name, str):
        raise ValueError("a file name that is no text")
    return name


def _runs(annotation: Mapping[str, object], size: tuple[int, int]) -> Runs:
    """The pixels of an annotation in an image of `size` (height, width). Raises ValueError."""
    from tipsseg.regions.rle import decode_runs

    code = take(annotation, "segmentation", dict)
    if code.get("size") != list(size):
        raise ValueError(f"the size of its code is {short(code.get('size'))}, that of the image {list(size)}")
    counts = take(code, "counts", str)
    try:
        return decode_runs(counts, size)
    except ValueError as error:
        raise ValueError(f"its code cannot be read: {error}") from error


# ---- checking ----


class CocoCheck:
    """Rules of annotations.json.

    As a whole it is laid out line by line, has the classes of the run and the images that it is to hold, and its ids rise. Each
    annotation has what loaders need and says what its pixels say; together the annotations of an image are its mask.
    """

    def __init__(self, path: Path, classes: Mapping[int, str], images: Collection[str]) -> None:
        """Takes what `Format.check_run_file` takes."""
        self._path = path
        self._classes = classes
        self._wanted = images

    def whole(self) -> Iterator[str]:
        """What is wrong with the file as a whole, see RunFileCheck."""
        yield from chain(self._check_head(), self._check_images())
        check_end(self._path, OBJECT_END)

    def images(self) -> Iterator[tuple[str, ImageCheck]]:
        """The images with their rules, see RunFileCheck."""
        for image in read_images(self._path):
            yield image.name, partial(_check_image, image)

    def _check_head(self) -> Iterator[str]:
        """All that comes before the images."""
        with open_regular(self._path) as file:
            if file.readline(3) != b"{\n":  # all may stand in one line, which need not fit into memory
                raise ValueError("it has not one record a line")
            lines = takewhile(lambda line: not line.startswith(b'"images": ['), file)
            head = parse(b"{" + b"".join(lines).removesuffix(b",\n") + b"}")
        take(head, "info", dict)
        if not take(head, "licenses", list):
            yield "`licenses` is empty"
        classes = [(take(each, "id", int), take(each, "name", str)) for each in take(head, "categories", list)]
        for what in class_faults(classes, self._classes):
            yield f"`categories`: {what}"
        for each in head["categories"]:
            take(each, "supercategory", str)

    def _check_images(self) -> Iterator[str]:
        seen: set[str] = set()
        last = last_annotation = 0
        for image in read_images(self._path):
            if image.id <= last:
                yield f"image {image.name}: its id {image.id} is not above {last}"
            last = image.id
            if image.name in seen:
                yield f"image {image.name}: there twice"
            elif image.name not in self._wanted:
                yield f"image {image.name}: not in the manifest, or not in this format"
            seen.add(image.name)
            for number in image.annotations:
                if number <= last_annotation:
                    yield f"annotation {number} ({image.name}): its id is not above {last_annotation}"
                last_annotation = number
        for name in self._wanted:
            if name not in seen:
                yield f"image {name}: missing"


def _check_image(found: CocoImage, image: StoredImage, labels: LabelArray | None) -> Iterator[str]:
    """What is wrong with an image of the file; `labels` [H, W] is its mask, None where no mask can be compared."""
    import numpy as np

    from tipsseg.regions.rle import inside
    from tipsseg.types import label_dtype

    try:
        record, *annotations = [parse(each) for each in found.rows]
    except ValueError as error:
        yield f"image {image.name}: not JSON: {error}"
        return
    size = [record.get("height"), record.get("width")]
    if size != list(image.size):
        yield f"image {image.name}: [height, width] is {short(size)}, where the manifest says {list(image.size)}"
    painted: LabelArray = np.zeros(
        image.size[::-1], label_dtype(len(image.classes))
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
            if class_id not in image.classes:
                faults.append(f"no category has the id {class_id}")
            elif wanted is not None and (wanted[place][pixels] != class_id).any():
                faults.append(f"not all of its pixels are of {class_text(image.classes, class_id)} in the mask")
            else:
                part[pixels] = class_id
        whole = whole and not faults
        for what in faults:
            yield f"annotation {number} ({image.name}): {what}"
    if whole and image.sure:  # with other settings the minimum area may have been another
        for what in _left_out(image, painted.T, labels):
            yield f"image {image.name}: {what}"


def _plain_faults(annotation: Mapping[str, object]) -> Iterator[str]:
    crowd, score = annotation.get("iscrowd"), annotation.get("score")
    # JSON's true and false are numbers to Python.
    if crowd != 0 or crowd is False:
        yield f"`iscrowd` is {short(crowd)}, not 0"
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        yield f"`score` is {short(score)}, not a number from 0 to 1"


def _shape_faults(annotation: Mapping[str, object], runs: Runs, height: int) -> Iterator[str]:
    from tipsseg.regions import rle

    if annotation.get("area") != rle.area(runs):
        yield f"`area` is {short(annotation.get('area'))}, its code has {rle.area(runs)} pixels"
    if annotation.get("bbox") != rle.box(runs, height):
        yield f"`bbox` is {short(annotation.get('bbox'))}, that of its code {rle.box(runs, height)}"


def _left_out(image: StoredImage, painted: LabelArray, labels: LabelArray | None) -> Iterator[str]:
    """Pixels of classes that no annotation has, but for small objects, by the mask or else by the manifest."""
    from tipsseg.regions.components import count_labels
    from tipsseg.regions.objects import object_regions
    from tipsseg.types import BACKGROUND

    if labels is not None:
        left: LabelArray = labels.copy()
        left[painted != BACKGROUND] = BACKGROUND
        for region in object_regions(left, len(image.classes), image.options):
            y, x, h, w = region.box
            yield f"no annotation has the {region.area} pixels of {class_text(image.classes, region.class_id)} in {[x, y, w, h]}"
        return
    counts = count_labels(painted)
    smallest = image.options.min_area.pixels(image.size)
    for class_id in image.classes:
        number, wanted = int(counts[class_id]), image.pixels.get(class_id, 0)
        if number > wanted or (number < wanted and smallest <= 1):
            yield f"its objects have {number} pixels of {class_text(image.classes, class_id)}, where the manifest says {wanted}"
