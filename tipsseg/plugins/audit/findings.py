"""`tipsseg audit`: hold existing labels against the model's, region by region, and rank the regions by the likelihood of an error.

An output folder has the model's labels, and their confidences in the format npz.

A region of the existing labels is doubtful if the model sees another class in it, or the background. What the model sees on
unlabelled pixels is doubtful if it is as wide as a patch; what is thinner is the blurred edge of something labelled.

Pixels near the edge of a region count less, because labels come from patches: a pixel counts by its distance from the edge, up to
half a patch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.errors import ImageError, InputError, OutputError, Words
from tipsseg.folder.files import digest_of
from tipsseg.folder.job import Job
from tipsseg.folder.notes import note_skipped
from tipsseg.folder.read import Run, RunImage, open_run
from tipsseg.folder.record import RUN_FILE
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.coco import category_record, image_record
from tipsseg.formats.npz import read_confidence, read_grid
from tipsseg.formats.records import Objects, image_errors
from tipsseg.masks.labels import LabelSource, classes_of_labels, paint_objects
from tipsseg.options import default_jobs
from tipsseg.regions.components import Region, components, encode_regions
from tipsseg.regions.naming import PART_RADIUS
from tipsseg.regions.objects import LabelledObject, ancestors, split_levels
from tipsseg.say import Progress
from tipsseg.types import (
    BACKGROUND,
    ConfidenceArray,
    Failed,
    ImageRef,
    LabelArray,
    LabelClass,
    ignore_id,
    label_dtype,
    printable_path,
)
from tipsseg.util.files import atomic_write
from tipsseg.util.json import encode_list, json_bytes, parse
from tipsseg.util.text import fold, join_first, pluralize, shell_line, shell_word
from tipsseg.util.threads import map_in_order
from tipsseg.vocabulary.vocabulary import Vocabulary

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
        findings: The regions that are likely wrong, the highest score first; with a limit, the first of them.
        found: The number of all findings.
        classes: The classes of the model's labels, by label id 1..N.
        model: The model.
        audited: The number of audited images.
        unlabelled: The number of images without labels, which were left out.
        failed: The number of images that failed.
    """

    findings: tuple[Finding, ...]
    found: int
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

    @property
    def total(self) -> str:
        """Return the numbers of findings and images as a line of text."""
        left = f"; {pluralize(self.unlabelled, 'image')} without labels" if self.unlabelled else ""
        failed = f"; {self.failed} failed" if self.failed else ""
        return f"{pluralize(self.found, 'finding')} in {pluralize(self.audited, 'image')}{left}{failed}"

    def table(self) -> str:
        """Return the findings as text, a line each."""
        lines = []
        for finding in self.findings:
            y, x, h, w = finding.doubt.region.box
            place = f"{finding.ref.name}: {w} x {h} pixels at x {x}, y {y}"
            lines.append(f"{finding.doubt.score:.2f}  {place}: {self.describe(finding.doubt)}\n")
        return "".join(lines)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Auditor:
    """Compares the labels of a model with existing labels.

    Attributes:
        source: The existing labels.
        known: Their classes.
        classes: The classes of the model's labels.
        ids: The label ids of the model's classes by the ids of the existing labels; another class is ignored.
        patch_scale: The scale of the patches in the scores.
    """

    source: LabelSource
    known: Sequence[LabelClass]
    classes: Sequence[LabelClass]
    ids: LabelArray
    patch_scale: float

    def compare(self, image: RunImage) -> _Audited | Failed | None:
        """Return the findings of an image, wholes and parts apart; None for one that a person corrected. Thread-safe."""
        if image.corrected:
            return None
        ref, size = image.ref(None), image.entry.mask.size
        try:
            given = self.source.read(ref, size)
            if given is None:
                return ref, size, None
            labels, (confidence, grid) = image.labels().labels, _scores(image, size)
            if isinstance(given, Objects):
                self.source.skipped.update(given.skipped)
        except ImageError as error:
            return Failed(ref, error)
        painted, instances = paint_objects(given, size, self.known)
        painted, patch = self.ids[painted], min(size) / min(grid) * self.patch_scale
        doubts, above = list[Doubt](), labels
        levels = zip(split_levels(labels, self.classes), split_levels(painted, self.classes), strict=True)
        for depth, (seen, known) in enumerate(levels):
            found = find_doubts(seen, confidence, known, instances, classes=len(self.classes), patch=patch)
            # Labels of wholes need not have parts; and where the model sees another thing, the whole is likely wrong.
            parts = (_inside(each, above, self.classes) for each in found if each.label)
            doubts += [each for each in parts if each is not None] if depth else found
            above = seen
        return ref, size, [doubt for doubt in doubts if doubt.score > 0]


def _scores(image: RunImage, size: tuple[int, int]) -> tuple[ConfidenceArray, tuple[int, int]]:
    """Return the confidence [H, W] of an image, and its (rows, columns) of patches. Raise ImageError if they cannot be read."""
    path = image.file("npz")
    if path is None:
        raise ImageError(image.path(None), "its scores are missing", _scores_hint(image.run))
    with image_errors(path):
        return read_confidence(path, size), read_grid(path, size)


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


def _write(path: Path, data: bytes) -> None:
    """Write a file. Raise OutputError if another one is there."""
    if os.path.lexists(path) and digest_of(path) != sha256(data).hexdigest():
        raise OutputError(path, "the file exists", "Move it away, or choose another file.")
    atomic_write(path, data)


def write_coco(audit: Audit, path: Path) -> None:
    """Write the findings as a COCO file, which CVAT and FiftyOne open. Raise OutputError if another file is there.

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
    OutputError if another file is there.
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
    _write(
        path.with_name(f"{path.name.removesuffix('.json')}.xml"),
        b"".join(form.run_file(form.files[1], run, (), lambda _: ())),
    )
    _write(path, b"".join(encode_list(tasks)) + b"\n")


def _shown_class(finding: Finding) -> int:
    return finding.doubt.seen or finding.doubt.label


#: The number of class names that a note lists.
_MOST_NAMES = 10


def audit_labels(output: Path, labels: Path, vocabulary: Vocabulary | None, progress: Progress) -> Audit:
    """Find likely errors in existing labels. See `plugins.audit.verb.audit`."""
    with ExitStack() as stack:
        run = stack.enter_context(open_run(output, ended=False))
        _refuse_other_runs(run)
        known = classes_of_labels(labels, vocabulary)
        ids, absent = _match_classes(known, run.classes)
        source, refs = LabelSource(labels, known), [image.ref(None) for image in run.images()]
        source.names.expect(refs)
        auditor = _Auditor(
            source=source,
            known=known,
            classes=run.classes,
            ids=ids,
            patch_scale=run.info.spec.options.scales[0],
        )
        progress.begin("audit.comparing", len(refs), images=pluralize(len(refs), "image"), output=output, labels=labels)
        if absent:
            _note_absent(run, labels, absent, progress)
        job, findings, unlabelled, corrected = Job(progress), list[Finding](), 0, 0
        images = (image for image in run.images())
        for result in job.each(map_in_order(default_jobs(), auditor.compare, images)):
            if result is None:
                corrected += 1
                continue
            ref, size, doubts = result
            unlabelled += doubts is None
            findings += [Finding(ref=ref, size=size, doubt=doubt) for doubt in doubts or ()]
        if corrected:
            progress.note("left_out", images=pluralize(corrected, "corrected image"))
        note_skipped(source.skipped, labels, progress)
    audited = job.done - unlabelled - corrected
    job.require(job.done, "audited")
    if corrected == job.done:
        raise InputError(f"{output}: no image has the model's labels", "Label the images into another folder.")
    if not audited:
        raise InputError(f"{labels}: no labels of these images", "Images and labels are matched by their names.")
    findings.sort(key=lambda finding: -finding.doubt.score)  # stable
    return Audit(
        findings=tuple(findings),
        found=len(findings),
        classes=run.classes,
        model=run.info.spec.model,
        audited=audited,
        unlabelled=unlabelled,
        failed=job.failed,
    )


def _refuse_other_runs(run: Run) -> None:
    """Raise InputError for a run without scores, or whose labels are not the model's alone."""
    spec = run.info.spec
    if spec.onto is not None:
        raise InputError(
            f"{spec.output}: its labels are partly from {spec.onto}, not the model's",
            Words("Label into another folder without {onto}."),
        )
    if "npz" not in spec.formats:
        raise InputError(f"{spec.output}: the format npz is missing, which stores the scores", _scores_hint(run))


def _scores_hint(run: Run) -> str:
    """Return the hint for missing scores: the command that writes them."""
    spec = run.info.spec
    repeated, output = (shell_word(str(path)) for path in (spec.output / RUN_FILE, spec.output))
    if spec.shard is not None:
        return f"Let the model write it: tipsseg label IMAGES --from {repeated} --shard {spec.shard} -f npz -o {output}"
    return f"Let the model write it: tipsseg label IMAGES --from {repeated} -f npz -o {output}"


def _match_classes(known: Sequence[LabelClass], classes: Sequence[LabelClass]) -> tuple[LabelArray, list[str]]:
    """Return the label ids of a model's classes by the ids of existing labels, and the names of classes that the model lacks.

    Names are compared before synonyms. A part that the model lacks belongs to its whole; other classes are ignored.
    """
    named = {fold(synonym): each.id for each in reversed(classes) for synonym in each.synonyms}
    named |= {fold(each.name): each.id for each in classes}
    own = [next((named[name] for name in map(fold, (each.name, *each.synonyms)) if name in named), 0) for each in known]
    dtype, ignored = label_dtype(len(classes)), ignore_id(len(classes))
    ids = np.full(int(np.iinfo(label_dtype(len(known))).max) + 1, ignored, dtype)
    ids[BACKGROUND] = BACKGROUND
    for each, wholes in zip(known, ancestors(known), strict=True):
        ids[each.id] = next((own[number - 1] for number in reversed(wholes) if own[number - 1]), ignored)
    return cast(LabelArray, ids), [each.name for each, found in zip(known, own, strict=True) if not found]


def _note_absent(run: Run, labels: Path, absent: Sequence[str], progress: Progress) -> None:
    """Note classes of existing labels that the model did not look for, with the command that labels them too."""
    spec = run.info.spec
    classes = shell_line(chain.from_iterable(("-c", name) for name in (*run.info.names.values(), *absent)))
    progress.note(
        "audit.absent_in_file" if spec.vocabulary.source else "audit.absent",
        names=join_first(absent, _MOST_NAMES),
        labels=labels,
        lacking=spec.output,
        source=shell_word(spec.vocabulary.source),
        model=shell_word(spec.model),
        classes=classes,
        output=shell_word(f"{spec.output}-2"),
    )
