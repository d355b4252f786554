"""Plan the new mask of one image: read its correction, compare it with the old mask, write the new mask to a temporary file."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.formats.reading.records import Objects, PixelLabels, SourceImage, image_errors
from tipsseg.options.run import CorrectOptions
from tipsseg.regions.objects import LabelledObject, object_regions
from tipsseg.runs.correct.comparing import Comparison
from tipsseg.runs.correct.old_objects import written_shapes
from tipsseg.runs.correct.painting import compare_masks, copy_mask, paint
from tipsseg.store.manifest import ManifestEntry, TakenFrom
from tipsseg.store.ownership import digest_of
from tipsseg.store.stored_image import Mask, RunImage
from tipsseg.store.summary import CERTAIN
from tipsseg.store.writing import RunContext
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, ignore_id
from tipsseg.util.files import TEMPORARY_PREFIX, output_error
from tipsseg.util.fingerprint import content_digest
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
    """A new mask, ready to be renamed into place.

    Attributes:
        mask: The mask, for the report.
        taken: The source of the mask, for its manifest entry; None in a dry run.
        files: The masks to replace, each with its temporary file; empty in a dry run.
    """

    mask: CorrectedMask
    taken: TakenFrom | None
    files: tuple[tuple[Path, Path], ...]


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
        entry: The image's manifest entry.
        current: The mask with the current labels.
        edited: True if a person edited `current`.
        targets: The masks to write, by format.
        old: [H, W], the labels of `current`.
        new: The correction.
        digest: The digest of the correction.
        done: True if this correction was imported before, and the mask has not changed since.
        objects: The comparison of their objects; None if the correction replaces all pixels, or is done.
    """

    entry: ManifestEntry
    current: Mask
    edited: bool
    targets: tuple[tuple[str, Path], ...]
    old: LabelArray
    new: PixelLabels | Objects
    digest: str
    done: bool
    objects: Comparison | None

    @property
    def masks_agree(self) -> bool:
        """Return True if all masks to write have the content of the current one."""
        return all(digest_of(path) == self.current.digest for _, path in self.targets)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plan new masks. `source` is the absolute path of the corrections, `format` their format."""

    context: RunContext
    source: str
    format: str
    options: CorrectOptions

    def compare(self, image: RunImage, source_image: SourceImage) -> ImageCorrection:
        """Read a correction and compare it with the old mask. Raises ImageError if either cannot be used."""
        entry, edited = image.entry, image.correction()
        current = edited or image.mask()
        old = image.read_mask(current)
        with image_errors(source_image.where):
            new = source_image.read(old.shape)
            digest = new.digest(exact=self.options.exact)
            taken = entry.taken
            done = taken is not None and (taken.content, taken.mask) == (digest, current.digest)
            objects = None if done else self._compare_objects(image, old, new, edited)
            if self.options.strict and isinstance(new, Objects):
                _refuse_vague(source_image.name, new, objects)
        return ImageCorrection(
            entry, current, edited is not None, self._targets(image, current), old, new, digest, done, objects
        )

    def depends_on_source(self, correction: ImageCorrection) -> bool:
        """Return True if the new mask depends on whether the source writes objects exactly."""
        return not self.options.exact and correction.objects is not None and correction.objects.depends_on_source

    def outcome_if_redrawn(self, correction: ImageCorrection) -> Outcome:
        """Return the outcome for a source that redraws objects; it is not final if a mask changes."""
        unchanged = correction.objects is not None and correction.objects.unchanged_if_redrawn
        redrawn = self._redrawn_objects(correction, exact=False)
        empty = self._is_empty(correction.new, correction.old)
        return Outcome(None, redrawn, empty, final=unchanged and correction.masks_agree)

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
        if not changed and correction.masks_agree:
            return Outcome(None, redrawn, empty)
        taken, current = correction.entry.taken, correction.current
        own = taken is not None and current.digest in (taken.mask, taken.before)
        if changed and correction.edited and not own and not self.options.replace_edited:
            raise ImageError(
                current.path,
                "a person edited this mask in place, and the correction differs from it",
                "Remove the image from the corrections, or overwrite the edited mask with argument `replace_edited`.",
            )
        emptied = empty and self._has_objects(correction.old)
        mask = CorrectedMask(correction.entry.image, correction.targets[0][1], changed, emptied)
        return Outcome(self._write(correction, labels, mask), redrawn, empty)

    def _compare_objects(
        self, image: RunImage, old: LabelArray, new: PixelLabels | Objects, edited: Mask | None
    ) -> Comparison | None:
        if isinstance(new, Objects):
            options = self.context.files
            instances = image.instances(old, corrected=image.is_corrected(edited))
            regions = object_regions(old, len(self.context.classes), options, instances)
            objects = [LabelledObject(region, CERTAIN, options.simplify) for region in regions]
            before = written_shapes(objects, new.written_as, old.shape)
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
            RedrawnObject(correction.entry.image, names[shape.class_id], (shape.y, shape.x, *shape.mask.shape))
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
        """Write the new mask to temporary files beside its targets. After an error, `change_run` removes them."""
        entry = correction.entry
        if self.options.dry_run:
            return Plan(mask, None, ())
        image = ImageLabels(ref=ImageRef(Path(entry.path), PurePosixPath(entry.image)), labels=labels)
        files: list[tuple[Path, Path]] = []
        # The first mask comes last: until it is replaced, the old labels count, and the same command resumes.
        for name, path in reversed(correction.targets):
            temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
            self.context.ownership.refuse_outside(path)
            try:
                temporary.write_bytes(FORMATS[name].encode(image, self.context))
            except OSError as error:
                raise output_error(path, error) from error
            files.append((path, temporary))
        written = content_digest(files[-1][1])
        before = entry.taken.before if correction.done and entry.taken else correction.current.digest
        taken = TakenFrom(self.source, self.format, correction.digest, written, before)
        return Plan(mask, taken, tuple(files))

    def _targets(self, image: RunImage, current: Mask) -> tuple[tuple[str, Path], ...]:
        """Return the masks to write: the current one; if a person edited it, also masks that precede it or were edited."""
        written = image.entry.written
        if current.digest == written[current.name].sha256:
            return ((current.name, current.path),)
        masks = image.masks
        names = list(masks)
        # `RunImage.correction` treats only masks with the same bytes as one correction.
        preceding = names[: names.index(current.name)] if self.context.files.png_mode == "L" else []
        return tuple(
            (name, path)
            for name, path in masks.items()
            if name in preceding or digest_of(path) not in (None, written[name].sha256)
        )


def _refuse_vague(image: str, new: Objects, objects: Comparison | None) -> None:
    """Raise ValueError if a correction has shapes without pixels, or new objects that are only boxes."""
    for kind, number in new.skipped.items():
        raise ValueError(f"{image}: {pluralize(number, 'shape')} without pixels: {kind}")
    for shape in () if objects is None else objects.boxes:
        h, w = shape.mask.shape
        raise ValueError(f"{image}: a box without a polygon, {w} x {h} pixels at x {shape.x}, y {shape.y}")
