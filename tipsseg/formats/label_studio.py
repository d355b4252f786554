"""Label Studio: label-studio.json with one task per image and polygons as predictions, label-studio.xml with the interface.

Image URLs point to Label Studio's local files, relative to the parent of the image root.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.address import is_url
from tipsseg.formats.base import BASE_FIELD, Format, ImageLabels, Rows, RunFacts, base_of, encode_text
from tipsseg.formats.png import encode_picture
from tipsseg.formats.records import (
    ClassNames,
    Objects,
    Size,
    SourceImage,
    check_size,
    decode_png,
    image_errors,
    parse_corners,
    parse_floats,
    read_objects,
)
from tipsseg.formats.source import LIST_MAX, Source
from tipsseg.regions.objects import LabelledObject, find_wholes
from tipsseg.regions.shapes import (
    NoPixelsError,
    Shape,
    ellipse_corners,
    rectangle_corners,
    shape_from_mask,
    shape_from_polygons,
)
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.json import encode_list, json_bytes, short, take

_LOCAL_FILES = "/data/local-files/?d="

#: The decimals of corners, in percent of the image size.
_DECIMALS = 5

#: Names of the control tag and the object tag in the labelling interface.
_FROM, _TO = "label", "image"

#: Result types that define pixels.
_REGIONS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "bitmasklabels")

#: Result types with a location, but without pixels.
_WITHOUT_PIXELS = frozenset({"keypointlabels", "keypoint", "vectorlabels", "vector"})

#: Result types that describe the whole image.
_IMAGE_TYPES = frozenset({"choices", "textarea", "rating", "number", "datetime", "relation", "taxonomy", "pairwise"})

#: The start of a bitmask.
_DATA_URL = "data:image/png;base64,"


class LabelStudio(Format):
    name = "label-studio"
    description = "Label Studio predictions: label-studio.json, and the labelling interface, label-studio.xml"
    files = ("label-studio.json", "label-studio.xml")
    needs = frozenset({"address", "objects"})
    multi_part_objects = False

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        version = f"{run.info.get('model', '')} tipsseg {run.info.get('version', '')}".strip()
        labels = [Label(name=each.name, kind="polygonlabels", control=_FROM) for each in run.classes]
        results = object_results(image.objects, image.size, run.classes, labels, _TO)
        prediction = {"model_version": version, **prediction_score(image.objects), "result": results}
        data = {"image": local_files_url(image.ref), "file_name": image.ref.name}
        data |= {BASE_FIELD: image.base} if image.base else {}
        return (json_bytes({"data": data, "predictions": [prediction]}),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterable[bytes]:
        if name == self.files[0]:
            return chain(encode_list(rows(image)[0] for image in images), (b"\n",))
        return (encode_text(_interface(run.classes)),)

    def detect_json(self, value: object) -> bool:
        """Return True if a JSON value looks like a task, a list of tasks, or JSON-MIN."""
        first = (value[0] if value else None) if isinstance(value, list) else value
        return isinstance(first, dict) and (
            _is_minimal(first)
            or (isinstance(first.get("data"), dict) and not first.keys().isdisjoint(("annotations", "predictions")))
        )

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        """Yield the images of tasks that a person annotated. Raise ImageError if a task or label-studio.xml is invalid."""
        if names.collects:
            names.declare(_read_interface(source, self.files[1]))
        for name in source.find_suffix(".json"):
            value = source.json(name)
            where = source.display_path(name)
            if self.detect_json(value):
                for number, task in enumerate(value if isinstance(value, list) else [value], start=1):
                    with image_errors(where, f"task {number}"):
                        image = read_task(task, where, number, names)
                    if image is not None:
                        yield image

    def round_ring(self, ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        sides = np.array(size[::-1], np.float64)
        return np.round(ring * 100 / sides, _DECIMALS) * (sides / 100)


# ---- writing ----


def local_files_url(ref: ImageRef) -> str:
    """Return the URL of an image: its own, or that in Label Studio if its document root is the parent of the image root."""
    if is_url(ref.path):
        return ref.address
    # Links are not resolved: a link in the image root keeps its own name.
    root = Path(os.path.abspath(ref.path)).parents[len(ref.relative.parts) - 1]  # noqa: PTH100
    return _LOCAL_FILES + quote(os.fsencode(f"{root.name}/{ref.relative}"))


def prediction_score(objects: Sequence[LabelledObject]) -> dict[str, float]:
    """Return the `score` of a prediction; {} if it has no objects. Label Studio uses it to order and sample tasks.

    The score is the mean confidence of all object pixels, 0..1. It is computed from object scores, which every command has, so that
    all commands write the same value.
    """
    pixels = sum(entry.region.area for entry in objects)
    if not pixels:
        return {}
    return {"score": round(sum(entry.region.area * entry.score for entry in objects) / pixels, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label of a labelling interface: its name in results, the kind of its results, and the name of its control tag."""

    name: str
    kind: str
    control: str


def object_results(
    objects: Sequence[LabelledObject],
    size: Size,
    classes: Sequence[LabelClass],
    labels: Sequence[Label],
    tag: str,
) -> list[dict[str, object]]:
    """Return the results of a prediction, then a relation from each result of a part to the first result of its whole.

    Args:
        objects: The objects of an image. A polygon is a result of its own; other kinds have one result per object.
        size: (height, width) of the image in pixels.
        classes: The classes by id.
        labels: The labels of the first classes. Objects of the others have no results.
        tag: The name of the image tag in the labelling interface.
    """
    results, ids = list[dict[str, object]](), list[list[str]]()
    for number, entry in enumerate(objects, start=1):
        ids.append([])
        for label in labels[entry.region.class_id - 1 : entry.region.class_id]:
            for part, value in enumerate(_values(entry, label.kind, size), start=1):
                ids[-1].append(f"{number}-{part}")
                head = result_head(ids[-1][-1], label.kind, (label.control, tag), size, entry.score)
                results.append({**head, "value": {**value, label.kind: [label.name]}})
    return results + [
        {"type": "relation", "from_id": part, "to_id": ids[whole][0], "direction": "right", "labels": ["part of"]}
        for own, whole in zip(ids, find_wholes(objects, classes), strict=True)
        if whole is not None and ids[whole]
        for part in own
    ]


def _values(found: LabelledObject, kind: str, size: Size) -> Iterator[dict[str, object]]:
    """Yield the pixels of an object: its polygons and its box in percent of the image size, a run-length code, or a PNG."""
    (y, x, h, w), (height, width) = found.region.box, size
    if kind == "polygonlabels":
        for ring in found.outline.rings:
            corners = [
                [round(100 * x / width, _DECIMALS), round(100 * y / height, _DECIMALS)] for y, x in ring.tolist()
            ]
            yield {"points": corners, "closed": True}
        return
    if kind == "rectanglelabels":
        box = {"x": x / width, "y": y / height, "width": w / width, "height": h / height}
        yield {**{key: round(100 * share, _DECIMALS) for key, share in box.items()}, "rotation": 0}
        return
    mask = np.zeros(size, np.bool_)
    mask[y : y + h, x : x + w] = found.region.mask
    if kind == "brushlabels":
        yield {"format": "rle", "rle": encode_brush(mask)}
        return
    opaque = np.repeat(mask[..., None].view(np.uint8) * np.uint8(255), 4, axis=2)
    yield {"imageDataURL": _DATA_URL + base64.b64encode(encode_picture(Image.fromarray(opaque))).decode()}


def result_head(result_id: str, kind: str, tags: tuple[str, str], size: Size, score: float) -> dict[str, object]:
    """Return the fields that all results have, for an upright image."""
    height, width = size
    return {
        "id": result_id,
        "type": kind,
        "from_name": tags[0],
        "to_name": tags[1],
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": score,
    }


def _interface(classes: Sequence[LabelClass]) -> str:
    labels = "".join(
        f'    <Label value={quoteattr(entry.name)} background="#{bytes(entry.colour).hex()}"/>\n' for entry in classes
    )
    return (
        "<View>\n"
        f'  <Image name="{_TO}" value="$image"/>\n'
        f'  <PolygonLabels name="{_FROM}" toName="{_TO}">\n{labels}  </PolygonLabels>\n'
        "</View>\n"
    )


# ---- reading ----


def _read_interface(source: Source, name: str) -> list[str]:
    """Return the classes in a labelling interface in or beside a source, in its order; none without it.

    Raise ImageError if that fails.
    """
    where = source.display_path(name)
    if not source.has(name) and not where.is_file():
        return []
    with image_errors(where), ExitStack() as stack:
        data = (source if source.has(name) else stack.enter_context(Source(where))).read(name, LIST_MAX)
        try:
            controls = [tag for tag in ET.fromstring(data).iter() if tag.tag.lower() in _REGIONS]
        except ET.ParseError as error:
            raise ValueError(f"not XML: {error}") from error
    return [each.get("alias") or each.get("value") or "" for control in controls for each in control.iter("Label")]


def _is_minimal(task: Mapping[str, object]) -> bool:
    return "annotation_id" in task and "data" not in task


def _expand(task: Mapping[str, Any]) -> dict[str, object]:
    """Return a record of JSON-MIN, which has the regions under the names of their tags, as a task."""
    tags = [value for value in task.values() if isinstance(value, list)]
    regions = [region for tag in tags for region in tag if isinstance(region, dict) and "original_width" in region]
    kinds = [next((key for key in region if key.endswith("labels")), "region without a label") for region in regions]
    results = [{**region, "type": kind, "value": region} for region, kind in zip(regions, kinds, strict=True)]
    return {"data": task, "annotations": [{"result": results}]}


def read_task(task: object, where: Path, number: int, names: ClassNames) -> SourceImage | None:
    """Return the annotation of a task, the `number`-th in the file `where`; None without one. Raise ValueError if that fails."""
    if isinstance(task, dict) and _is_minimal(task):
        task = _expand(task)
    data = take(task, "data", dict)
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if annotations is None:
        return None
    if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
        raise ValueError("`annotations` is not a list of annotations")
    annotations = [entry for entry in annotations if not entry.get("was_cancelled")]
    if len(annotations) > 1:
        raise ValueError(f"{len(annotations)} annotations for one image: delete all but one")
    if not annotations:
        return None
    image = _image_name(data)
    results = take(annotations[0], "result", list)
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        labels = value.get(result["type"]) if isinstance(value, dict) and result.get("type") in _REGIONS else None
        names.declare(labels if isinstance(labels, list) else ())
    read = partial(_read_objects, results, names, where, f"task {number}", base_of(data))
    return SourceImage(image, where, read)


def _image_name(data: Mapping[str, Any]) -> str:
    """Return the image name of a task: the `file_name` that tipsseg wrote, or else the path in its URL."""
    name = data.get("file_name")
    if isinstance(name, str) and name:
        return name
    for value in (data.get("image"), *data.values()):
        if isinstance(value, str) and value:
            parts = urlsplit(value)
            local = parse_qs(parts.query).get("d")
            return local[0] if local else unquote(parts.path)
    raise ValueError("the task has no image")


def _read_objects(
    results: Sequence[object], names: ClassNames, where: Path, task: str, base: str, size: Size
) -> Objects:
    read = partial(_read_shape, names=names, size=size)
    return read_objects(where, results, lambda number, _: f"{task}, result {number}", read, "label-studio", task, base)


def _read_shape(result: object, names: ClassNames, size: Size) -> Shape | None:
    """Return the pixels of a result; None if the result describes the whole image."""
    kind = take(result, "type", str)
    if kind in _IMAGE_TYPES:
        return None
    if kind in _WITHOUT_PIXELS:
        raise NoPixelsError(kind)
    if not isinstance(result, dict) or kind not in _REGIONS:
        raise ValueError(f"unsupported result type {short(kind)}")
    if result.get("image_rotation", 0) != 0:
        raise ValueError("the image was rotated in Label Studio")
    check_size(result.get("original_height"), result.get("original_width"), size)
    value = take(result, "value", dict)
    labels = take(value, kind, list)
    if len(labels) != 1:
        raise ValueError(f"an object must have one class, not {len(labels)}")
    class_id = names.id_of(labels[0])
    if kind == "polygonlabels":
        return shape_from_polygons(class_id, [_to_pixels(value.get("points"), size)], size)
    if kind == "brushlabels":
        return shape_from_mask(class_id, decode_brush(value.get("rle"), size))
    if kind == "bitmasklabels":
        # A PNG whose opaque pixels belong to the object.
        picture = decode_png(take(value, "imageDataURL", str).removeprefix(_DATA_URL), size)
        check_size(picture.height, picture.width, size)
        return shape_from_mask(class_id, np.asarray(picture.convert("RGBA"))[..., 3] > 0)
    return shape_from_polygons(class_id, [_read_turned(value, kind, size)], size)


def _read_turned(value: Mapping[str, Any], kind: str, size: Size) -> NDArray[np.float64]:
    """Return the corners of a rectangle, which turns around its top left corner, or of an ellipse, around its centre."""
    sides = ("radiusX", "radiusY") if kind == "ellipselabels" else ("width", "height")
    angle = parse_floats([value.get("rotation", 0)]).item()
    start, lengths = _to_pixels([[value.get(key) for key in keys] for keys in (("x", "y"), sides)], size).tolist()
    if kind == "ellipselabels":
        return ellipse_corners(start, lengths, angle)
    return rectangle_corners(start, start, lengths, angle)


def _to_pixels(points: object, size: Size) -> NDArray[np.float64]:
    """Convert (x, y) corners [K, 2] from percent of the image size to pixels."""
    with np.errstate(over="ignore"):  # infinity is rejected with the shape
        return parse_corners(points) * (size[1] / 100, size[0] / 100)


# ---- brush strokes ----
#
# Label Studio's run-length code (RLE) encodes the bytes of an RGBA picture as bits, highest first. Header: the number of bytes
# (32 bits); the width of a byte minus one (5 bits); the widths of four length fields, each minus one (4 bits each). Then parts: a
# flag for a repeated byte (1 bit), the index of the length field (2 bits), the length minus one, and either the repeated byte or
# `length` bytes.


class _Bits:
    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._bits = np.unpackbits(data)
        self._position = 0

    def number(self, width: int) -> int:
        return int(self.numbers(1, width)[0])

    def numbers(self, count: int, width: int) -> NDArray[np.int64]:
        """Read `count` numbers of `width` bits each, [count]. Raise ValueError at the end of the bits."""
        start, self._position = self._position, self._position + count * width
        if self._position > len(self._bits):
            raise ValueError("unexpected end")
        digits = self._bits[start : self._position].reshape(count, width)
        return digits @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


#: The bits of all length fields that are written.
_LENGTH_BITS = 16


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask [H, W] as a list of bytes; the pixels of the object are opaque."""
    flat = mask.ravel()
    most = (1 << _LENGTH_BITS) // 4  # pixels of a part
    ends = np.union1d(np.flatnonzero(np.diff(flat)) + 1, [*range(most, len(flat), most), len(flat)]).astype(np.int64)
    lengths, values = np.diff(ends, prepend=0) * 4, flat[ends - 1] * 255
    columns = [(np.ones_like(lengths), 1), (np.zeros_like(lengths), 2), (lengths - 1, _LENGTH_BITS), (values, 8)]
    head = [(flat.size * 4, 32), (7, 5), *[(_LENGTH_BITS - 1, 4)] * 4]
    bits = [_to_bits(np.array([number]), width) for number, width in head]
    parts = np.concatenate([_to_bits(numbers, width) for numbers, width in columns], axis=1)
    return np.packbits(np.concatenate([*(each.ravel() for each in bits), parts.ravel()])).tolist()


def _to_bits(numbers: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return the bits of numbers, highest first, [count, width]."""
    return (numbers[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8)


def decode_brush(code: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a list of bytes to a mask of the painted (not transparent) pixels, [H, W] bool.

    Raise ValueError if the code is invalid, or its image is not of `size` (H, W).
    """
    if not isinstance(code, list) or not all(type(number) is int and 0 <= number <= 255 for number in code):
        raise ValueError("its RLE is not a list of bytes")
    bits = _Bits(np.array(code, np.uint8))
    height, width = size
    try:
        total = bits.number(32)
        if total != height * width * 4:
            raise ValueError(f"it has {total} bytes, but {height} x {width} RGBA pixels have {height * width * 4}")
        byte_width = bits.number(5) + 1
        lengths = [bits.number(4) + 1 for _ in range(4)]
        if byte_width != 8:
            raise ValueError(f"its bytes have {byte_width} bits")
        return _opaque(bits, total, lengths).reshape(height, width)
    except ValueError as error:
        raise ValueError(f"its RLE cannot be read: {error}") from error


def _opaque(bits: _Bits, total: int, lengths: list[int]) -> NDArray[np.bool_]:
    """Decode the parts to a mask of the pixels that are not transparent, [total / 4]."""
    opaque = np.zeros(total // 4, np.bool_)
    done = 0
    while done < total:
        repeated = bits.number(1)
        end = done + 1 + bits.number(lengths[bits.number(2)])
        if end > total:
            raise ValueError("it has more bytes than its header declares")
        # The fourth byte of a pixel is its alpha.
        first, last = done // 4, end // 4
        if repeated:
            if bits.number(8):
                opaque[first:last] = True
        else:
            values = bits.numbers(end - done, 8)
            opaque[first:last] = values[3 - done % 4 :: 4][: last - first] > 0
        done = end
    return opaque
