"""Rules of the files that formats have for a whole run; annotations.json has more, see check_coco."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import Rows, RowsFile, RunContext, RunFile, run_files
from tipsseg.formats.listing import LIST_END, OBJECT_END, check_end
from tipsseg.formats.problem import Problem
from tipsseg.images.decoding import decode_stored
from tipsseg.runs.check.annotations import area_faults
from tipsseg.runs.check.manifest import Images, expected_files
from tipsseg.store.classes_file import read_classes
from tipsseg.store.stored_rows import LISTS, stored_objects
from tipsseg.util.files import reason_of
from tipsseg.util.json_values import parse, take
from tipsseg.util.record_paths import actual_path

_ENDS = {
    "coco-polygon": OBJECT_END,
    "coco-results": LIST_END,
    "panoptic": OBJECT_END,
    "label-studio": LIST_END,
    "hf": b"",  # one line an image, each read by itself
}


def check_run_files(output: Path, images: Images, name: str) -> Iterator[Problem]:
    """What is wrong with the files that format `name` has for the run of these images."""
    context = RunContext(output, images.run.state, (), {}, images.run.files)
    for file in run_files(name, context):
        if not file.path.is_file():
            yield Problem(file.path, "missing")
        elif isinstance(file, RowsFile):
            yield from _check_records(output, images, name, file)
        elif not _is_as_written(output, images, name, file):
            yield Problem(file.path, "not what tipsseg writes for these classes and images")


def _is_as_written(output: Path, images: Images, name: str, file: RunFile) -> bool:
    """Whether a file without records is the one that is written for these classes and images."""
    try:
        classes = read_classes(output)
    except (OSError, ValueError):  # said where classes.json is checked
        return True
    holders = [image for image, formats in images.formats.items() if name in formats]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for again in run_files(name, RunContext(place, place, classes, {}, images.run.files)):
            if again.path.relative_to(place) == file.path.relative_to(images.run.state):
                again.write(holders, lambda _: ())
                return again.path.read_bytes() == file.path.read_bytes()
    return True


def _check_records(output: Path, images: Images, name: str, file: RowsFile) -> Iterator[Problem]:
    wanted = dict.fromkeys(image for image, formats in images.formats.items() if name in formats)
    seen: set[str] = set()
    try:
        check_end(file.path, _ENDS[name])
        for image, records in file.read(tuple(wanted)):
            if image in seen:
                yield Problem(file.path, f"image {image}: there twice")
            elif image not in wanted:
                yield Problem(file.path, f"image {image}: not in the manifest, or not in this format")
            else:
                for what in _check_image(output, images, name, image, records):
                    yield Problem(file.path, f"image {image}: {what}")
            seen.add(image)
    except OSError as error:
        yield Problem(file.path, reason_of(error))
    except ValueError as error:
        yield Problem(file.path, f"not as tipsseg writes it: {error}")
    else:
        for image in wanted:
            if image not in seen:
                yield Problem(file.path, f"image {image}: missing")


def _check_image(output: Path, images: Images, name: str, image: str, records: Rows) -> Iterator[str]:
    """What is wrong with the records of one image. Raises ValueError for what is none."""
    for record in records:
        parse(record)
    if name in LISTS:
        labelled = images.get(image)
        areas: dict[int, int] = {}
        for each in stored_objects(name, records, labelled.size):
            areas[each.class_id] = areas.get(each.class_id, 0) + each.area
        yield from area_faults(areas, labelled, images.run)
    if name == "panoptic":
        yield from _check_segments(output, image, records[1], images.run.files.names)


def _check_segments(output: Path, image: str, record: bytes, names: str) -> Iterator[str]:
    """Whether the segments of an image are those of its PNG."""
    segments = take(parse(record), "segments_info", list)
    said = {take(each, "id", int): take(each, "area", int) for each in segments}
    place = actual_path(output, expected_files(image, ("panoptic",), names)["panoptic"])
    try:
        colours = np.asarray(decode_stored(place).convert("RGB")).astype(np.int32)  # [H, W, 3]
    except ImageError:  # said where the images are checked
        return
    ids, counts = np.unique(colours @ np.array([1, 256, 65536]), return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    found.pop(0, None)
    if found != said or len(said) != len(segments):
        yield f"its segments are not those of {place}"
