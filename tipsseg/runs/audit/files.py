"""Write the findings of an audit as files that annotation tools open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tipsseg._version import __version__
from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.coco import category_record, image_record
from tipsseg.regions.components import encode_regions
from tipsseg.regions.objects import LabelledObject
from tipsseg.run.spec import RunSpec
from tipsseg.runs.audit.run import Audit, Finding
from tipsseg.types import ImageRef
from tipsseg.util.files import atomic_write, json_bytes
from tipsseg.util.json_lists import encode_list
from tipsseg.util.json_values import parse


def refuse_existing(path: Path) -> None:
    """Raise OutputError if a file to write exists."""
    if os.path.lexists(path):
        raise OutputError(path, "the file exists", "Move it away, or choose another file.")


def write_coco(audit: Audit, spec: RunSpec, path: Path) -> None:
    """Write the findings as a COCO file, which CVAT and FiftyOne open. Raises OutputError if the file exists.

    The category of an annotation is the class that the model sees, or the label if it sees none; `attributes` has both.
    """
    refuse_existing(path)
    numbers: dict[str, int] = {}
    images, annotations = [], []
    for number, (finding, record) in enumerate(zip(audit.findings, audit.records(), strict=True), start=1):
        if finding.ref.name not in numbers:
            numbers[finding.ref.name] = len(numbers) + 1
            images.append({"id": numbers[finding.ref.name], **image_record(finding.ref, finding.size)})
        annotations.append(
            {
                "id": number,
                "image_id": numbers[finding.ref.name],
                "category_id": _shown_class(finding),
                "segmentation": encode_regions([finding.doubt.region], finding.size)[0],
                "area": finding.doubt.region.area,
                "bbox": record["bbox"],
                "iscrowd": 0,
                "score": record["score"],
                "attributes": {key: record[key] for key in ("kind", "label", "seen")},
            }
        )
    categories: Sequence[object] = [category_record(entry) for entry in spec.vocabulary.classes]
    value = {"images": images, "categories": categories, "annotations": annotations}
    atomic_write(path, json_bytes(value) + b"\n")


def write_label_studio(audit: Audit, spec: RunSpec, path: Path) -> None:
    """Write the findings as Label Studio tasks with predictions, the most doubtful image first.

    A polygon has the class that the model sees, or the label if it sees none; its `meta` says why the label is doubted. Raises
    OutputError if the file exists.
    """
    refuse_existing(path)
    run = RunFacts(classes=spec.vocabulary.classes, info={"model": spec.model, "version": __version__})
    by_image: dict[ImageRef, list[Finding]] = {}
    for finding in audit.findings:
        by_image.setdefault(finding.ref, []).append(finding)
    tasks = []
    for ref, findings in by_image.items():
        objects = [
            LabelledObject(replace(each.doubt.region, class_id=_shown_class(each)), round(each.doubt.score, 4))
            for each in findings
        ]
        nothing = np.broadcast_to(np.uint8(0), findings[0].size)
        (row,) = FORMATS["label-studio"].image_rows(ImageLabels(ref=ref, labels=nothing, objects=objects), run)
        task = parse(row)
        (prediction,) = task["predictions"]
        prediction["score"] = objects[0].score
        for result in prediction["result"]:
            number, _, _ = result["id"].partition("-")
            result["meta"] = {"text": [audit.describe(findings[int(number) - 1].doubt)]}
        tasks.append(json_bytes(task))
    atomic_write(path, b"".join(encode_list(tasks)) + b"\n")


def _shown_class(finding: Finding) -> int:
    return finding.doubt.seen or finding.doubt.label
