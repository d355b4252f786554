"""The labelling interface of a Label Studio project: its labels, and its annotations as masks of them.

Label Studio shows the `value` of a label to people; its results and exports name the `alias`, if the label has one. The alias is
therefore the phrase and the name of the class: what people see can be in any language, and `correct` reads exports without the
interface.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from numpy.typing import NDArray

from tipsseg.errors import InputError, UsageError
from tipsseg.formats.label_studio import Label, read_task
from tipsseg.formats.records import ClassNames
from tipsseg.masks.labels import paint_objects
from tipsseg.types import LabelClass
from tipsseg.util.json import read_value, short, take

#: The control tags whose results are pixels, and the results of each.
_KINDS = {
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "PolygonLabels": "polygonlabels",
    "RectangleLabels": "rectanglelabels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The labelling interface of a project: its labels, the key of the image in a task's data, and the name of the image tag."""

    labels: tuple[Label, ...]
    image: str
    tag: str

    @property
    def phrases(self) -> list[str]:
        return [label.name for label in self.labels]

    def implied_whole(self, classes: Sequence[LabelClass]) -> InputError | None:
        """Return an error if the classes have a whole after the labels, because parts of it have labels and it has none."""
        if len(classes) == len(self.labels):
            return None
        whole = classes[len(self.labels)].name
        return InputError(
            f"the labels have parts of {whole}, but not {whole}: its other pixels are not shown, and count as background in a fit",
            f"Add the label {whole} to the project, and mark it.",
        )


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
                name = each.get("alias") or each.get("value") or ""
                if name.strip():
                    labels.setdefault(name.strip(), Label(name=name, kind=kind, control=control.get("name") or ""))
    if not labels or not images[target].startswith("$"):
        raise UsageError(
            "the labelling interface has no labels for an image",
            f'Add <Image name="image" value="$image"/> and one of {", ".join(_KINDS)} with labels.',
        )
    return Interface(labels=tuple(labels.values()), image=images[target][1:], tag=target)


def parse_project(project: object, created: object = None) -> str:
    """Return the name of a project: its id and, if it is known, the time of its creation, which tells servers apart.

    Label Studio writes both as "12.1700000000", or as two fields. Raise ValueError for others.
    """
    found = re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", str(project))
    if found is None:
        raise ValueError(f"no project {short(project)}")
    if created is None:
        return found[0]
    return f"{found[0]}.{int(datetime.fromisoformat(str(created)).timestamp())}"


def newest_annotations(
    tasks: object,
) -> tuple[list[tuple[Mapping[str, Any], Mapping[str, Any]]], list[Mapping[str, Any]]]:
    """Return tasks with their newest annotation, without cancelled ones, and the other tasks.

    Raise ValueError if `tasks` is not a list of objects with lists of objects.
    """
    submitted, others = list[tuple[Mapping[str, Any], Mapping[str, Any]]](), list[Mapping[str, Any]]()
    for task in read_value(tuple[dict[str, Any], ...], tasks, "tasks"):
        annotations = take(task, "annotations", tuple[dict[str, Any], ...] | None) or ()
        own = [each for each in annotations if not each.get("was_cancelled")]
        if own:
            submitted.append((task, max(own, key=lambda each: str(each.get("updated_at")))))
        else:
            others.append(task)
    return submitted, others


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
    known = [(label.kind, label.control, interface.tag) for label in interface.labels]
    names = ClassNames(classes, add=False)
    try:
        results = take(annotation, "result", tuple[dict[str, Any], ...] | None) or ()
        own = [each for each in results if (each.get("type"), each.get("from_name"), each.get("to_name")) in known]
        if results and not own:
            raise ValueError("its annotation has no pixels of a label")
        source = read_task({**task, "annotations": [{"result": own}]}, Path("Label Studio"), 1, names)
        assert source is not None
        objects = source.read(size)
    except ValueError as error:
        raise InputError(str(error)) from error
    names.raise_unknown()
    return paint_objects(objects, size, classes)[0]
