"""Plan the new mask of one image: read its correction, compare it with the old mask, write the new mask to a temporary file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.corrections import ClassNames, Objects, PixelLabels, SourceImage, image_errors
from tipsseg.formats.png import encode_mask
from tipsseg.options.run import CorrectOptions
from tipsseg.regions.objects import LabelledObject, follow_correction, object_regions
from tipsseg.run.entry import Correction, Entry, Facts, object_scores
from tipsseg.run.files import Files, StagedFile, digest_of
from tipsseg.run.labels import PNG, Current, Labels, RunContext, scored_objects
from tipsseg.run.read import Run, RunImage
from tipsseg.run.record import run_context
from tipsseg.run.spec import with_classes
from tipsseg.run.summary import CERTAIN, corrected_summary
from tipsseg.runs.correct.comparing import Comparison
from tipsseg.runs.correct.painting import compare_masks, copy_mask, paint
from tipsseg.types import BACKGROUND, LabelArray, ignore_id
from tipsseg.util.printable import pluralize


@dataclass(frozen=True, slots=True)
class CorrectedMask:
    """A mask that `tipsseg correct` wrote, or would write in a dry run.

    Attributes:
        image: The name of the image.
        path: The mask.
        changed: The number of pixels with a new label.
        emptied: True if the image loses all its objects.
    """

    image: str
    path: Path
    changed: int
    emptied: bool = False


@dataclass(frozen=True, slots=True)
class RedrawnObject:
    """An object that keeps its pixels, because its outline differs only as far as tools redraw objects, or it is too thin.

    Attributes:
        image: The name of the image.
        class_name: The class of the object.
        box: (y, x, h, w) in pixels, the bounding box of the object.
    """

    image: str
    class_name: str
    box: tuple[int, int, int, int]

    def __str__(self) -> str:
        y, x, _, _ = self.box
        return f"{self.class_name!r} at x {x}, y {y} in {self.image}"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A new mask, ready to be put in place.

    Attributes:
        mask: The mask, for the report.
        entry: The new record of the image; None in a dry run.
        file: The mask under a temporary name; None in a dry run.
        before: The sha256 of the mask that it replaces.
    """

    mask: CorrectedMask
    entry: Entry | None = None
    file: StagedFile | None = None
    before: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result for one image.

    Attributes:
        plan: The new mask; None if it does not change.
        redrawn: Objects that keep their pixels.
        empty: True if the corrections leave the image without objects.
        final: False if the plan is undecided.
    """

    plan: Plan | None = None
    redrawn: tuple[RedrawnObject, ...] = ()
    empty: bool = False
    final: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ImageCorrection:
    """A correction and the old labels.

    Attributes:
        image: The image.
        current: Its labels now.
        mask: The path of its mask.
        before: The sha256 of its mask.
        new: The correction.
        digest: The digest of the correction.
        done: True if this correction was imported before, and the mask has not changed since.
        objects: The comparison of their objects; None if the correction replaces all pixels, or is done.
    """

    image: RunImage
    current: Current
    mask: Path
    before: str
    new: PixelLabels | Objects
    digest: str
    done: bool
    objects: Comparison | None

    @property
    def old(self) -> LabelArray:
        """[H, W], the labels now."""
        return self.current.labels.labels

    @property
    def in_place(self) -> bool:
        """True if a person changed the mask in place, rather than by `tipsseg correct`."""
        correction = self.current.entry.correction
        return correction is not None and not correction.source and not correction.undone


@dataclass(frozen=True, slots=True)
class Planner:
    """Plan new masks.

    Attributes:
        run: The run.
        names: Its class names, and those that corrections add.
        source: The absolute path of the corrections.
        format: Their format.
        options: See CorrectOptions.
    """

    run: Run
    names: ClassNames
    source: str
    format: str
    options: CorrectOptions

    @property
    def context(self) -> RunContext:
        return self.run.context

    def compare(self, image: RunImage, source_image: SourceImage) -> ImageCorrection:
        """Read a correction and compare it with the old mask. Raises ImageError if either cannot be used."""
        mask, taken = image.mask, digest_of(image.mask)  # before it is read: a later edit is kept
        current = image.current()
        old = current.labels.labels
        with image_errors(source_image.where):
            new = source_image.read(old.shape)
            digest = new.digest(exact=self.options.exact)
            before = current.entry.correction
            killed = any(row.pending == taken for row in image.label_files)  # after the mask was put in place
            done = before is not None and before.content == digest and (killed or not image.edited)
            objects = None if done else self._compare_objects(current, new)
            if self.options.strict and isinstance(new, Objects):
                _refuse_vague(source_image.name, new, objects)
        return ImageCorrection(image, current, mask, taken, new, digest, done, objects)

    def depends_on_source(self, correction: ImageCorrection) -> bool:
        """Return True if the new mask depends on whether the source writes objects exactly."""
        return not self.options.exact and correction.objects is not None and correction.objects.depends_on_source

    def outcome_if_redrawn(self, correction: ImageCorrection) -> Outcome:
        """Return the outcome for a source that redraws objects; it is not final if a mask changes."""
        unchanged = correction.objects is not None and correction.objects.unchanged_if_redrawn
        redrawn = self._redrawn_objects(correction, exact=False)
        empty = self._is_empty(correction.new, correction.old)
        return Outcome(None, redrawn, empty, final=unchanged)

    def plan(self, correction: ImageCorrection, *, exact: bool) -> Outcome:
        """Write an image's new mask to temporary files. `exact` is True if the source writes objects exactly.

        Raises:
            ImageError: If a person edited the mask in place, and the correction differs from it.
            OutputError: If a temporary file cannot be written.
        """
        redrawn = self._redrawn_objects(correction, exact=exact)
        labels = self._new_labels(correction, exact=exact)
        changed = int(np.count_nonzero(labels != correction.old))
        empty = self._is_empty(correction.new, labels)
        if not changed:
            return Outcome(None, redrawn, empty)
        if correction.in_place and not self.options.replace_edited:
            raise ImageError(
                correction.mask,
                "a person edited this mask in place, and the correction differs from it",
                "Remove the image from the corrections, or overwrite the edited mask with argument `replace_edited`.",
            )
        emptied = empty and self._has_objects(correction.old)
        mask = CorrectedMask(correction.image.entry.image, correction.mask, changed, emptied)
        return Outcome(self._write(correction, labels, mask), redrawn, empty)

    def _compare_objects(self, current: Current, new: PixelLabels | Objects) -> Comparison | None:
        old = current.labels.labels
        if isinstance(new, Objects):
            options = self.context.files
            regions = object_regions(old, len(self.context.classes), options, current.labels.instances)
            objects = [LabelledObject(region, CERTAIN, options.simplify) for region in regions]
            before = FORMATS[new.written_as].reread_shapes(objects, old.shape)
            return Comparison(old, before, new.shapes, exact=self.options.exact)
        if new.ignores or self.options.exact:
            return None
        return compare_masks(old, new.labels, self._ignored)

    def _redrawn_objects(self, correction: ImageCorrection, *, exact: bool) -> tuple[RedrawnObject, ...]:
        objects = correction.objects
        if objects is None or not self.depends_on_source(correction):
            return ()
        names = {entry.id: entry.name for entry in self.context.classes}
        unchanged = objects.untouched | (set() if exact else objects.redrawn)
        return tuple(
            RedrawnObject(correction.image.entry.image, names[shape.class_id], (shape.y, shape.x, *shape.mask.shape))
            for shape in (objects.before[old] for old in sorted(unchanged))
        )

    def _new_labels(self, correction: ImageCorrection, *, exact: bool) -> LabelArray:
        objects, new = correction.objects, correction.new
        if correction.done:
            return correction.old
        if isinstance(new, PixelLabels) and (objects is None or exact or not objects.depends_on_source):
            return copy_mask(correction.old, new, self._ignored)
        assert objects is not None
        return paint(objects, exact=exact)

    @property
    def _ignored(self) -> int:
        return ignore_id(len(self.context.classes))

    def _is_empty(self, new: PixelLabels | Objects, labels: LabelArray) -> bool:
        """Return True if a correction lists no objects, or leaves none in the labels."""
        return not new.shapes if isinstance(new, Objects) else not self._has_objects(labels)

    def _has_objects(self, labels: LabelArray) -> bool:
        return bool(((labels != BACKGROUND) & (labels != self._ignored)).any())

    def _write(self, correction: ImageCorrection, labels: LabelArray, mask: CorrectedMask) -> Plan:
        """Write the new mask under a temporary name. After an error, `locked_state` removes it."""
        if self.options.dry_run:
            return Plan(mask)
        image, entry = correction.image, correction.current.entry
        added = () if self.names.too_many else self.names.added  # which is refused later
        known = run_context(with_classes(self.run.info, added)).classes
        classes, data = len(known), encode_mask(labels, known, self.context.files.png_mode)
        file = Files(self.context.output).stage(PNG, correction.mask, data)
        instances = correction.current.labels.instances
        if instances is not None:
            instances = follow_correction(instances, labels, classes)
        found = Labels(labels=labels, instances=instances)
        objects = scored_objects(
            found, classes, entry.facts.objects, dict.fromkeys(range(1, classes + 1), CERTAIN), None
        )
        facts = Facts(corrected_summary(labels, known, entry.summary), object_scores(objects))
        others = [str(row.digest) for row in correction.current.rows if row.name != PNG]
        taken = Correction(source=self.source, format=self.format, content=correction.digest, before=image.digest())
        return Plan(mask, entry.with_labels([str(file.row.digest), *others], facts, taken), file, correction.before)


def _refuse_vague(image: str, new: Objects, objects: Comparison | None) -> None:
    """Raise ValueError if a correction has shapes without pixels, or new objects that are only boxes."""
    for kind, number in new.skipped.items():
        raise ValueError(f"{image}: {pluralize(number, 'shape')} without pixels: {kind}")
    for shape in () if objects is None else objects.boxes:
        h, w = shape.mask.shape
        raise ValueError(f"{image}: a box without a polygon, {w} x {h} pixels at x {shape.x}, y {shape.y}")
