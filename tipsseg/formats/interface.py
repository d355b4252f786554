"""The labelling interface of a Label Studio project: its labels, and results as its control tags ask for them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.errors import InputError, UsageError
from tipsseg.formats.corrections import ClassNames
from tipsseg.formats.given import paint_objects
from tipsseg.formats.label_studio import encode_brush, polygon_results, read_task, result_head
from tipsseg.formats.png import encode_picture
from tipsseg.types import LabelClass

if TYPE_CHECKING:
    from tipsseg.regions.objects import LabelledObject

#: The control tags whose results are pixels, and the results of each.
_KINDS = {
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "PolygonLabels": "polygonlabels",
    "RectangleLabels": "rectanglelabels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label of a labelling interface.

    Attributes:
        phrase: What it is looked for by.
        written: What results name it by: its alias, if it has one.
        kind: The kind of its results, such as "brushlabels".
        control: The name of its control tag.
    """

    phrase: str
    written: str
    kind: str
    control: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The labelling interface of a project: its labels, the key of the image in a task's data, and the name of the image tag."""

    labels: tuple[Label, ...]
    image: str
    tag: str


def parse_interface(config: str) -> Interface:
    """Parse a labelling interface. Raise UsageError if it has no image, or no labels for pixels or boxes."""
    try:
        root = ET.fromstring(config)
    except ET.ParseError as error:
        raise UsageError(f"the labelling interface is not XML: {error}") from error
    images = {tag.get("name") or "": tag.get("value") or "" for tag in root.iter("Image")}
    labels, target = dict[str, Label](), ""
    for tag, kind in _KINDS.items():
        for control in root.iter(tag):
            if control.get("toName") not in images or (target and control.get("toName") != target):
                continue
            target = control.get("toName") or ""
            for each in control.iter("Label"):
                value = each.get("value") or ""
                label = Label(
                    phrase=value.strip(),
                    written=each.get("alias") or value,
                    kind=kind,
                    control=control.get("name") or "",
                )
                if label.phrase:
                    labels.setdefault(label.phrase, label)
    if not labels or not images[target].startswith("$"):
        raise UsageError(
            "the labelling interface has no labels for an image",
            f'Add <Image name="image" value="$image"/> and one of {", ".join(_KINDS)} with labels.',
        )
    return Interface(labels=tuple(labels.values()), image=images[target][1:], tag=target)


def read_annotation(
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    interface: Interface,
    classes: Sequence[LabelClass],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Return an annotation as a mask [H, W].

    Args:
        task: The task.
        annotation: One of its annotations. Results of other tags are skipped.
        interface: The interface; `classes` are its labels in their order, then others.
        classes: The classes of the mask.
        size: (height, width) of the image in pixels.

    Raises:
        InputError, ImageError: A result is invalid, or all are of other tags.
    """
    known = {(label.kind, label.control, interface.tag) for label in interface.labels}
    results = [each for each in annotation.get("result") or () if isinstance(each, dict)]
    own = [each for each in results if (each.get("type"), each.get("from_name"), each.get("to_name")) in known]
    if results and not own:
        raise InputError("its annotation has no pixels of a label")
    classes = _written(classes, interface)
    names = ClassNames(classes, add=False)
    try:
        source = read_task({**task, "annotations": [{"result": own}]}, Path("Label Studio"), 1, names)
        assert source is not None
        objects = source.read(size)
    except ValueError as error:
        raise InputError(str(error)) from error
    names.raise_unknown()
    return paint_objects(objects, size, classes)[0]


def _written(classes: Sequence[LabelClass], interface: Interface) -> list[LabelClass]:
    """Return classes under the names that results use. The labels come first; wholes that only parts imply follow."""
    labels = {number: label.written for number, label in enumerate(interface.labels, start=1)}
    return [replace(entry, name=labels.get(entry.id, entry.name)) for entry in classes]


def interface_results(
    objects: Sequence[LabelledObject], interface: Interface, classes: Sequence[LabelClass], size: tuple[int, int]
) -> list[dict[str, object]]:
    """Return the results of a prediction for an image of `size` (H, W), as the control tag of each label asks.

    `classes` are the labels of the interface in their order, then others, which have no results.
    """
    results, classes = list[dict[str, object]](), _written(classes, interface)
    for kind, control in dict.fromkeys((label.kind, label.control) for label in interface.labels):
        ids = {
            number
            for number, label in enumerate(interface.labels, start=1)
            if (label.kind, label.control) == (kind, control)
        }
        own = [each for each in objects if each.region.class_id in ids]
        tags = control, interface.tag
        if kind == "polygonlabels":
            found = polygon_results(own, size, classes, tags)
        else:
            found = [
                {
                    **result_head(str(number), kind, tags, size, each.score),
                    "value": {**_value(each, kind, size), kind: [classes[each.region.class_id - 1].name]},
                }
                for number, each in enumerate(own, start=1)
            ]
        results += [
            {key: f"{control}-{value}" if key in ("id", "from_id", "to_id") else value for key, value in each.items()}
            for each in found
        ]
    return results


def _value(found: LabelledObject, kind: str, size: tuple[int, int]) -> dict[str, object]:
    """Return the pixels of an object: its box in percent, a run-length code, or a PNG."""
    (y, x, h, w), (height, width) = found.region.box, size
    if kind == "rectanglelabels":
        box = {"x": x / width, "y": y / height, "width": w / width, "height": h / height}
        return {**{key: round(100 * share, 5) for key, share in box.items()}, "rotation": 0}
    mask = np.zeros(size, np.bool_)
    mask[y : y + h, x : x + w] = found.region.mask
    if kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(mask)}
    opaque = np.repeat(mask[..., None].view(np.uint8) * np.uint8(255), 4, axis=2)
    return {
        "imageDataURL": "data:image/png;base64," + base64.b64encode(encode_picture(Image.fromarray(opaque))).decode()
    }
