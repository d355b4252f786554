"""Rules of the files that formats have for a whole run; annotations.json has more, see check_coco."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tipsseg.check_manifest import expected_files
from tipsseg.check_problem import Problem
from tipsseg.check_run import Run
from tipsseg.errors import ImageError
from tipsseg.images import decode_file, reason_of
from tipsseg.record_values import actual_path, take
from tipsseg.writers import RecordFile, RunContext, run_files


def check_run_files(output: Path, run: Run, name: str, images: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the files of format `name`; `images` are those of the manifest that the format holds, in their order."""
    context = RunContext(output, run.records, (), {})
    for file in run_files(name, context):
        if not file.path.is_file():
            yield Problem(file.path, "missing")
        elif isinstance(file, RecordFile):
            yield from _check_records(output, name, file, images)


def _check_records(output: Path, name: str, file: RecordFile, images: Sequence[str]) -> Iterator[Problem]:
    wanted = dict.fromkeys(images)
    seen: set[str] = set()
    try:
        for image, records in file.read(images):
            if image in seen:
                yield Problem(file.path, f"image {image}: there twice")
            elif image not in wanted:
                yield Problem(file.path, f"image {image}: not in the manifest, or not in this format")
            elif name == "panoptic":
                yield from _check_segments(output, file.path, image, records[1])
            seen.add(image)
    except OSError as error:
        yield Problem(file.path, reason_of(error))
    except ValueError as error:
        yield Problem(file.path, f"not as tipsseg writes it: {error}")
    else:
        for image in wanted:
            if image not in seen:
                yield Problem(file.path, f"image {image}: missing")


def _check_segments(output: Path, path: Path, image: str, record: bytes) -> Iterator[Problem]:
    """Whether the segments of an image are those of its PNG."""
    segments = take(json.loads(record), "segments_info", list)
    said = {take(each, "id", int): take(each, "area", int) for each in segments}
    place = actual_path(output, expected_files(image, ("panoptic",))["panoptic"])
    try:
        colours = decode_file(place, lambda picture: np.asarray(picture.convert("RGB"))).astype(np.int32)  # [H, W, 3]
    except ImageError:  # said where the images are checked
        return
    ids, counts = np.unique(colours @ np.array([1, 256, 65536]), return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    found.pop(0, None)
    if found != said or len(said) != len(segments):
        yield Problem(path, f"image {image}: its segments are not those of {place}")
