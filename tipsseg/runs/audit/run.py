"""`tipsseg audit`: hold existing labels against the model, and rank the regions by doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import InputError
from tipsseg.evaluation.audit import Doubt, find_doubts
from tipsseg.formats.corrections import Objects
from tipsseg.formats.given import LabelSource, paint_objects
from tipsseg.images.finding import Found
from tipsseg.run.plan import plan_run
from tipsseg.run.record import run_context
from tipsseg.run.spec import Counts, RunSpec
from tipsseg.runs.common import inputs
from tipsseg.runs.common.inputs import Images
from tipsseg.runs.common.notes import note_begin, note_skipped
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.local import LocalEngine, load_for
from tipsseg.runs.engine.pipeline import run_stages
from tipsseg.types import Failed, ImageRef, printable_path
from tipsseg.util.printable import pluralize

if TYPE_CHECKING:
    from tipsseg.labelling.labeller import Patches, Scored
    from tipsseg.labelling.source import Loaded

#: An image, its size (height, width), and the doubts; None for an image without labels.
_Audited = tuple[ImageRef, tuple[int, int], list[Doubt] | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """A region whose label the model doubts.

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
        findings: The regions that the model doubts, the highest score first.
        names: The class names by label id, 1..N.
        audited: The number of audited images.
        unlabelled: The number of images without labels, which were left out.
        failed: The number of images that failed.
    """

    findings: tuple[Finding, ...]
    names: Mapping[int, str]
    audited: int
    unlabelled: int
    failed: int

    def __repr__(self) -> str:
        return f"Audit({pluralize(len(self.findings), 'finding')} in {self.audited} images, {self.failed} failed)"

    def describe(self, doubt: Doubt) -> str:
        """Describe a doubt in a few words."""
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


def audit_images(spec: RunSpec, found: Found, labels: Path, progress: Progress, *, quiet: bool = False) -> Audit:
    """Compare the labels of images with what the model sees.

    Images without labels are left out; an image that fails is reported and left out.

    Args:
        spec: The run; its classes include those of the labels. It writes no formats.
        found: The images.
        labels: The labels, in any format that `tipsseg correct` reads.
        progress: Prints notes and errors.
        quiet: Hide the progress of a model download.

    Raises:
        TipssegError: The run cannot continue, or no image has labels.
    """
    inputs.check_listed(found)
    source = LabelSource(labels, spec.vocabulary.classes)
    source.names.expect(found.refs)
    info = plan_run(spec)
    loaded = load_for(info, progress.note, quiet=quiet, images=found.refs)
    engine = LocalEngine(loaded, run_context(info), progress.note)
    note_begin(engine.info, Images(found.refs, found.root), Counts(), progress)
    findings: list[Finding] = []
    audited = unlabelled = failed = 0
    first = None
    finish = partial(_audit, engine, source)
    with closing(run_stages(found.refs, engine.source, engine.score, finish, spec.jobs)) as results:
        for result in results:
            progress.advance()
            if isinstance(result, Failed):
                failed, first = failed + 1, first or result.error
                progress.error(result.error)
                continue
            ref, size, doubts = result
            audited, unlabelled = audited + (doubts is not None), unlabelled + (doubts is None)
            findings += [Finding(ref=ref, size=size, doubt=doubt) for doubt in doubts or ()]
    progress.end()
    note_skipped(source.skipped, labels, progress)
    if not audited and first is not None:
        raise InputError(f"no image was audited; the first failure: {first.message}", first.hint)
    if not audited:
        raise InputError(f"{labels}: no labels of these images", "Images and labels are matched by their names.")
    findings.sort(key=lambda finding: -finding.doubt.score)  # stable
    return Audit(
        findings=tuple(findings),
        names=info.names,
        audited=audited,
        unlabelled=unlabelled,
        failed=failed,
    )


def _audit(engine: LocalEngine, source: LabelSource, loaded: Loaded[Patches], scored: Scored) -> _Audited:
    """Label an image, and compare the result with the labels that exist. Thread-safe."""
    size, classes = loaded.picture.prepared.size, len(engine.info.spec.vocabulary.classes)
    given = source.read(loaded.ref, size)
    if given is None:
        return loaded.ref, size, None
    if isinstance(given, Objects):
        source.skipped.update(given.skipped)
    with engine.alone(loaded):
        result = engine.label(loaded, scored)
        painted, instances = paint_objects(given, size, classes)
        patch = engine.labeller.view.patch_side(size)
        doubts = find_doubts(result.labels, result.confidence, painted, instances, classes=classes, patch=patch)
    return loaded.ref, size, [doubt for doubt in doubts if doubt.score > 0]
