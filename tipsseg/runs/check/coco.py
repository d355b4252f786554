"""Rules of annotations.json as a whole: valid JSON, laid out as `writers.coco` does; categories, images, ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain, takewhile
from pathlib import Path

from tipsseg.formats import coco_file
from tipsseg.formats.coco import FILE_NAME
from tipsseg.formats.listing import OBJECT_END, check_end
from tipsseg.formats.problem import Problem
from tipsseg.runs.check.run import Run
from tipsseg.store.classes_file import class_faults
from tipsseg.util.files import open_regular, reason_of
from tipsseg.util.json_values import parse, take


class Annotations:
    """The annotations.json of a run; `sound` tells whether it can be read."""

    def __init__(self, run: Run) -> None:
        self.path = run.state / FILE_NAME
        self.sound = True
        self._run = run

    def check(self, wanted: Collection[str]) -> Iterator[Problem]:
        """What is wrong with the file as a whole; once, before its images are read. `wanted` are the images that it is to hold."""
        try:
            for what in chain(self._check_head(), _check_images(self.path, wanted)):
                yield Problem(self.path, what)
            check_end(self.path, OBJECT_END)
        except OSError as error:
            self.sound = False
            yield Problem(self.path, reason_of(error))
        except ValueError as error:
            self.sound = False
            yield Problem(self.path, f"not as tipsseg writes it: {error}")

    def images(self) -> Iterator[coco_file.CocoImage]:
        """The images with their annotations, in the order of the file; none where it cannot be read."""
        if self.sound:
            yield from coco_file.images(self.path)

    def _check_head(self) -> Iterator[str]:
        """All that comes before the images."""
        with open_regular(self.path) as file:
            if file.readline(3) != b"{\n":  # all may stand in one line, which need not fit into memory
                raise ValueError("it has not one record a line")
            lines = takewhile(lambda line: not line.startswith(b'"images": ['), file)
            head = parse(b"{" + b"".join(lines).removesuffix(b",\n") + b"}")
        take(head, "info", dict)
        if not take(head, "licenses", list):
            yield "`licenses` is empty"
        classes = [(take(each, "id", int), take(each, "name", str)) for each in take(head, "categories", list)]
        for what in class_faults(classes, self._run.names):
            yield f"`categories`: {what}"
        for each in head["categories"]:
            take(each, "supercategory", str)


def _check_images(path: Path, wanted: Collection[str]) -> Iterator[str]:
    seen: set[str] = set()
    last = last_annotation = 0
    for image in coco_file.images(path):
        if image.id <= last:
            yield f"image {image.name}: its id {image.id} is not above {last}"
        last = image.id
        if image.name in seen:
            yield f"image {image.name}: there twice"
        elif image.name not in wanted:
            yield f"image {image.name}: not in the manifest, or not in this format"
        seen.add(image.name)
        for number in image.annotations:
            if number <= last_annotation:
                yield f"annotation {number} ({image.name}): its id is not above {last_annotation}"
            last_annotation = number
    for name in wanted:
        if name not in seen:
            yield f"image {name}: missing"
