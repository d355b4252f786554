"""`tipsseg audit`: hold existing labels against the model, region by region, and rank the regions by the likelihood of an error.

A region of the existing labels is doubtful if the model sees another class in it, or the background. What the model sees on
unlabelled pixels is doubtful if it is as wide as a patch; what is thinner is the blurred edge of something labelled.

Pixels near the edge of a region count less, because labels come from patches: a pixel counts by its distance from the edge, up to
half a patch.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.corrections.records import Objects
from tipsseg.engine.job import Job
from tipsseg.engine.local import LocalEngine
from tipsseg.engine.notes import note_begin, note_skipped, note_vocabulary
from tipsseg.engine.stages import run_stages
from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.coco import category_record, image_record
from tipsseg.given.labels import LabelSource, classes_of_labels, paint_objects
from tipsseg.images.finding import Listed, Paths
from tipsseg.options import LabelOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import AuditKeywords, with_keywords
from tipsseg.options.run import ComputeOptions
from tipsseg.regions.components import Region, components, encode_regions
from tipsseg.regions.naming import PART_RADIUS
from tipsseg.regions.objects import LabelledObject, split_levels
from tipsseg.run.files import digest_of
from tipsseg.run.inputs import Ignored, Images, find_alone
from tipsseg.run.plan import plan_run
from tipsseg.run.spec import Counts, RunSpec
from tipsseg.types import BACKGROUND, ConfidenceArray, ImageRef, LabelArray, LabelClass, printable_path
from tipsseg.util.files import atomic_write, describe_error, list_left, read_regular, staged_path
from tipsseg.util.json import encode_list, json_bytes, parse, take, take_share
from tipsseg.util.progress import Verbosity, progress_for
from tipsseg.util.text import pluralize
from tipsseg.vocabulary.fitted import Classes, as_vocabulary

if TYPE_CHECKING:
    from tipsseg.labelling.labeller import Patches, Scored
    from tipsseg.labelling.source import Loaded

#: "class": the model sees another class; "nothing": it sees the background; "unlabelled": it sees a class without a label.
Kind = Literal["class", "nothing", "unlabelled"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Doubt:
    """A region, and how likely its label is wrong.

    Attributes:
        kind: The kind of the finding.
        label: The existing label id; 0 without a label.
        seen: The label id that the model sees; 0 for the background.
        score: -1..1. Of a labelled region, the mean confidence of what the model sees less the label's, times a factor for
            regions smaller than a patch; the model agrees below 0. Of an unlabelled thing, its mean confidence.
        region: The pixels.
    """

    kind: Kind
    label: int
    seen: int
    score: float
    region: Region


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """A region whose label is likely wrong.

    Attributes:
        ref: The image.
        size: (height, width) of the image in pixels.
        doubt: The region, the labels, and the score.
    """

    ref: ImageRef
    size: tuple[int, int]
    doubt: Doubt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        findings: The regions that are likely wrong, the highest score first.
        classes: The classes, by label id 1..N.
        model: The model.
        audited: The number of audited images.
        unlabelled: The number of images without labels, which were left out.
        failed: The number of images that failed.
    """

    findings: tuple[Finding, ...]
    classes: tuple[LabelClass, ...]
    model: str
    audited: int
    unlabelled: int
    failed: int

    @property
    def names(self) -> Mapping[int, str]:
        """Return the class names by label id."""
        return {entry.id: entry.name for entry in self.classes}

    def __repr__(self) -> str:
        return f"Audit({pluralize(len(self.findings), 'finding')} in {self.audited} images, {self.failed} failed)"

    def describe(self, doubt: Doubt) -> str:
        """Describe a finding in a few words."""
        label, seen = self.names.get(doubt.label), self.names.get(doubt.seen)
        return {
            "class": f"labelled {label}, looks like {seen}",
            "nothing": f"labelled {label}, looks like background",
            "unlabelled": f"no label, looks like {seen}",
        }[doubt.kind]

    def records(self) -> Iterator[dict[str, object]]:
        """Yield the findings as JSON values: image, path, kind, label, seen, score, bbox [x, y, w, h] and area in pixels."""
        for finding in self.findings:
            doubt = finding.doubt
            y, x, h, w = doubt.region.box
            yield {
                "image": finding.ref.name,
                "path": printable_path(finding.ref.path),
                "kind": doubt.kind,
                "label": self.names.get(doubt.label),
                "seen": self.names.get(doubt.seen),
                "score": round(doubt.score, 4),
                "bbox": [x, y, w, h],
                "area": doubt.region.area,
            }


#: An image, its size (height, width), and the findings; None for an image without labels.
_Audited = tuple[ImageRef, tuple[int, int], list[Doubt] | None]


def _audit(engine: LocalEngine, source: LabelSource, loaded: Loaded[Patches], scored: Scored) -> _Audited:
    """Label an image, and compare the result with its existing labels, wholes and parts apart. Thread-safe."""
    size, classes = loaded.picture.prepared.size, engine.info.spec.vocabulary.classes
    given = source.read(loaded.ref, size)
    if given is None:
        return loaded.ref, size, None
    if isinstance(given, Objects):
        source.skipped.update(given.skipped)
    with engine.alone(loaded):
        result = engine.label(loaded, scored)
        painted, instances = paint_objects(given, size, classes)
        patch = engine.labeller.view.patch_side(size)
        confidences = (*result.whole_confidences, result.confidence)
        doubts, above = list[Doubt](), result.labels
        levels = zip(split_levels(result.labels, classes), split_levels(painted, classes), strict=True)
        for depth, (labels, known) in enumerate(levels):
            confidence = confidences[min(depth, len(confidences) - 1)]
            found = find_doubts(labels, confidence, known, instances, classes=len(classes), patch=patch)
            # Labels of wholes need not have parts; and where the model sees another thing, the whole is likely wrong.
            parts = (_inside(each, above, classes) for each in found if each.label)
            doubts += [each for each in parts if each is not None] if depth else found
            above = labels
    return loaded.ref, size, [doubt for doubt in doubts if doubt.score > 0]


def _inside(doubt: Doubt, above: LabelArray, classes: Sequence[LabelClass]) -> Doubt | None:
    """Return a finding in a part in which the model sees another part, or none but its whole; None if it sees another thing."""
    if doubt.seen != BACKGROUND:
        return doubt
    y, x, h, w = doubt.region.box
    seen = int(np.bincount(above[y : y + h, x : x + w][doubt.region.mask]).argmax())
    return replace(doubt, kind="class", seen=seen) if seen == classes[doubt.label - 1].part_of else None


# ---- the findings of an image ----


def find_doubts(
    labels: LabelArray,
    confidence: ConfidenceArray,
    given: LabelArray,
    instances: NDArray[np.int32],
    *,
    classes: int,
    patch: float,
) -> list[Doubt]:
    """Return all labelled regions of an image and the things without a label, each with its finding.

    Args:
        labels: [H, W], the labels of the model.
        confidence: [H, W], 0..1, their confidence.
        given: [H, W], the existing labels; 0 without a label.
        instances: [H, W], the objects of the existing labels; 0 for pixels whose objects are components.
        classes: The number of classes.
        patch: The side of a patch in pixels of the image.
    """
    doubts = [
        _doubt(region, labels, confidence, classes, patch) for region in components(given, classes, instances=instances)
    ]
    free = labels.copy()
    free[given != BACKGROUND] = BACKGROUND
    for region in components(free, classes):
        if _distances(region.mask).max() >= PART_RADIUS * patch:
            y, x, h, w = region.box
            score = float(confidence[y : y + h, x : x + w][region.mask].mean())
            doubts.append(Doubt(kind="unlabelled", label=BACKGROUND, seen=region.class_id, score=score, region=region))
    return doubts


def _doubt(region: Region, labels: LabelArray, confidence: ConfidenceArray, classes: int, patch: float) -> Doubt:
    y, x, h, w = region.box
    mask, place = region.mask, (slice(y, y + h), slice(x, x + w))
    distance = _distances(mask)
    weights = np.minimum(distance, patch / 2) * confidence[place]
    inside = mask & (labels[place] <= classes)  # without ignored pixels
    sums = np.bincount(labels[place][inside], weights[inside], classes + 1)
    own = float(sums[region.class_id])
    sums[region.class_id] = -1
    seen = int(sums.argmax())
    whole = float(np.minimum(distance, patch / 2)[mask].sum())
    trust = min(1.0, float(distance.max()) / (PART_RADIUS * patch))
    score = (float(sums[seen]) - own) / whole * trust
    return Doubt(
        kind="nothing" if seen == BACKGROUND else "class",
        label=region.class_id,
        seen=seen,
        score=score,
        region=region,
    )


def _distances(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the distance of the pixels of a mask from its edge, [h, w]; the border of the box is an edge."""
    padded = np.pad(mask.view(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)[1:-1, 1:-1].astype(np.float32, copy=False)


# ---- findings as files ----


def refuse_existing(path: Path) -> None:
    """Raise OutputError if a file to write exists, unless a killed command may have written it: `_write` compares it then."""
    if os.path.lexists(path) and not list_left(path.parent):
        raise _exists(path)


def _exists(path: Path) -> OutputError:
    return OutputError(path, "the file exists", "Move it away, or choose another file.")


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep a temporary file beside a file to write until the block ends; if it does not, `refuse_existing` finds it."""
    with staged_path(path) as temporary:
        temporary.touch()
    yield
    with suppress(OSError):
        temporary.unlink()


def _write(path: Path, data: bytes) -> None:
    """Write a file. Raise OutputError if another one is there."""
    if os.path.lexists(path) and digest_of(path) != sha256(data).hexdigest():
        raise _exists(path)
    atomic_write(path, data)


def interface_of(path: Path) -> Path:
    """Return the path of the labelling interface for a task list of Label Studio."""
    return path.with_name(f"{path.name.removesuffix('.json')}.xml")


def write_coco(audit: Audit, path: Path) -> None:
    """Write the findings as a COCO file, which CVAT and FiftyOne open. Raise OutputError if the file exists.

    The category of an annotation is the class that the model sees, or the label if it sees none; `attributes` has both.
    """
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
    categories: list[object] = [category_record(entry) for entry in audit.classes]
    value = {"images": images, "categories": categories, "annotations": annotations}
    _write(path, json_bytes(value) + b"\n")


def write_label_studio(audit: Audit, path: Path) -> None:
    """Write the findings as Label Studio tasks with predictions, the most doubtful image first, and the interface beside them.

    A polygon has the class that the model sees, or the label if it sees none; its `meta` says why the label is likely wrong. Raise
    OutputError if the file exists.
    """
    run = RunFacts(classes=audit.classes, info={"model": audit.model, "version": __version__})
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
    form = FORMATS["label-studio"]
    _write(interface_of(path), b"".join(form.run_file(form.files[1], run, (), lambda _: ())))
    _write(path, b"".join(encode_list(tasks)) + b"\n")


def _shown_class(finding: Finding) -> int:
    return finding.doubt.seen or finding.doubt.label


#: The number of findings that the page lists for an image.
_LISTED = 50

#: A finding: kind, label, what the model sees, score, and box (x, y, w, h) in pixels. Label and seen are names or None.
ListedDoubt = tuple[str, object, object, float, list[int]]


def read_doubts(path: Path) -> Mapping[str, list[ListedDoubt]]:
    """Return the findings by image, the most doubtful first. Raise InputError if the file is not one of `tipsseg audit`."""
    found: dict[str, list[ListedDoubt]] = defaultdict(list)
    try:
        for number, line in enumerate(read_regular(path).splitlines(), start=1):
            try:
                record = parse(line)
                box = take(record, "bbox", list)
                if len(box) != 4 or not all(type(side) is int for side in box):
                    raise ValueError("`bbox` is not four whole numbers")
                names = record.get("label"), record.get("seen")
                if not all(name is None or isinstance(name, str) for name in names):
                    raise ValueError("`label` and `seen` must be strings or null")
                score = take_share(record, "score")
                found[take(record, "image", str)].append((take(record, "kind", str), *names, score, box))
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number}: {error}", "Write it with: tipsseg audit IMAGES --labels LABELS --jsonl"
                ) from error
    except OSError as error:
        raise InputError(f"{path}: {describe_error(error)}", "Check the path.") from error
    return {image: sorted(own, key=lambda doubt: -doubt[3])[:_LISTED] for image, own in found.items()}


@with_keywords(AuditKeywords, LabelOptions, ComputeOptions)
def audit(
    images: Paths | Listed,
    labels: str | Path,
    classes: Classes | None = None,
    *,
    background: str | None = None,
    verbose: Verbosity = None,
    **keywords: Unpack[AuditKeywords],
) -> Audit:
    """Find likely errors in existing labels, and things without a label, as `tipsseg audit` does.

        for record in tipsseg.review.audit("photos/", "annotations.json").records():
            print(record["score"], record["image"], record["label"], record["seen"])

    Images without labels are left out; an image that fails is counted and left out.

    Args:
        images: Files and folders.
        labels: A folder, zip or file in any format that `correct_folder` reads.
        classes: Classes by name, to add synonyms, or to name the ids of index masks. None: the classes of the labels.
        background: "auto", "none" or phrases separated by commas, if `classes` is None.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The findings, the most doubtful first; `records()` yields them as JSON values.

    Raises:
        TipssegError: The labels cannot be read, the run cannot continue, or no image has labels.
    """
    labels, named = Path(labels), None if classes is None else as_vocabulary(classes)[0]
    compute, options = (take_options(record, keywords) for record in (ComputeOptions, LabelOptions))
    vocabulary = classes_of_labels(labels, named, background)
    spec = RunSpec.of(compute, formats=(), vocabulary=vocabulary, options=options)
    with progress_for(verbose) as progress:
        note_vocabulary(vocabulary, progress)
        found = find_alone(images, Ignored(None), progress)
        source = LabelSource(labels, vocabulary.classes)
        source.names.expect(found.refs)
        engine = LocalEngine.of(plan_run(spec), progress, found.refs)
        note_begin(engine.info, Images(found.refs, found.root), Counts(), progress)
        job, findings, unlabelled = Job(progress), list[Finding](), 0
        stages = run_stages(found.refs, engine.source, engine.score, partial(_audit, engine, source), spec.jobs)
        for ref, size, doubts in job.each(stages):
            unlabelled += doubts is None
            findings += [Finding(ref=ref, size=size, doubt=doubt) for doubt in doubts or ()]
        note_skipped(source.skipped, labels, progress)
    job.require(job.done, "audited")
    if unlabelled == job.done:
        raise InputError(f"{labels}: no labels of these images", "Images and labels are matched by their names.")
    findings.sort(key=lambda finding: -finding.doubt.score)  # stable
    return Audit(
        findings=tuple(findings),
        classes=vocabulary.classes,
        model=spec.model,
        audited=job.done - unlabelled,
        unlabelled=unlabelled,
        failed=job.failed,
    )
