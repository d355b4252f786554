"""Plan new masks: read the corrections, compare them with the old masks, write the new masks to temporary files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError, Words
from tipsseg.folder.correct.edits import Comparison, compare_masks, join_levels, return_parts
from tipsseg.folder.entry import SEALED, Correction, Entry, pack_objects
from tipsseg.folder.files import TRASH, StagedFile, digest_of
from tipsseg.folder.folder import written_mask
from tipsseg.folder.labels import PNG, Labels, corrected_mask, encode_labels, read_kept, saved_at
from tipsseg.folder.read import Run, RunImage
from tipsseg.folder.record import run_context
from tipsseg.folder.spec import with_classes
from tipsseg.folder.summary import CERTAIN
from tipsseg.formats import FORMATS
from tipsseg.formats.mask import seal
from tipsseg.formats.png import encode_mask
from tipsseg.formats.records import (
    Changes,
    ClassNames,
    Objects,
    PixelLabels,
    SourceImage,
    browser_of,
    image_errors,
    is_older,
)
from tipsseg.options.records import CorrectOptions
from tipsseg.regions.components import Region
from tipsseg.regions.objects import (
    LabelledObject,
    ancestors,
    follow_correction,
    has_parts,
    number_pixels,
    object_regions,
    split_levels,
    visible_objects,
)
from tipsseg.regions.shapes import Shape
from tipsseg.say import Progress
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, ignore_id
from tipsseg.util.files import RECORD_LIMIT, actual_name
from tipsseg.util.text import pluralize

#: The maximum number of failures to print.
_FAILURES_SHOWN = 20


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """The new mask and record of one image.

    Attributes:
        mask: The new mask, for the report; None if it does not change.
        file: The new mask under a temporary name; None without one, and in a dry run.
        entry: The new record of the image, with `file`.
        before: The sha256 of the mask before.
        source: The image in the source of the corrections.
        empty: True if the correction leaves the image without objects.
        done: True if the same correction was imported before.
        left_out: Why the correction is not imported; None if it is.
        depends: True if the mask depends on whether the source writes objects exactly.
        redrawn: Objects that keep their pixels.
    """

    mask: CorrectedMask | None = None
    file: StagedFile | None = None
    entry: Entry | None = None
    before: str
    source: SourceImage
    empty: bool = False
    done: bool = False
    left_out: ImageError | None = None
    depends: bool = False
    redrawn: tuple[RedrawnObject, ...] = ()

    def discard(self) -> None:
        """Remove the temporary file."""
        if self.file is not None:
            self.file.discard()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shown:
    """The labels that a source showed when tipsseg wrote it, or the labels of now where that is unknown.

    Attributes:
        labels: The labels.
        base: Their digest (see `Entry.base`).
        is_known: False if the source showed other labels, which are not kept.
        is_now: True if the image has these labels now.
        by_person: True if a person made them.
    """

    labels: Labels
    base: str
    is_known: bool
    is_now: bool
    by_person: bool


class Planner:
    """Plan the new masks of a run.

    Attributes:
        run: The run.
        names: Its class names, and those that corrections add.
        source: The absolute path of the corrections.
        format: Their format.
        options: See CorrectOptions.
        saved: When the corrections were saved.
    """

    def __init__(self, run: Run, names: ClassNames, source: str, format_name: str, options: CorrectOptions) -> None:
        self.run, self.names, self.source, self.format, self.options = run, names, source, format_name, options
        self.saved = ""
        with suppress(OSError):
            self.saved = saved_at(Path(actual_name(source)).stat().st_mtime_ns)
        # The numbers of objects that came back exactly, and as tools redraw them, and of new boxes.
        self._same = self._redrawn = self._boxes = 0
        self._skipped = Counter[str]()
        self._ignored = ignore_id(len(run.classes))
        self._classes = tuple(run.classes)

    def plan_all(self, corrections: Mapping[str, SourceImage], progress: Progress) -> dict[str, Plan]:
        """Plan each image, and note skipped shapes. Raise InputError if a correction cannot be imported.

        Unedited objects show whether the source writes objects exactly. Until all are compared, it counts as one that redraws them.
        """
        plans: dict[str, Plan] = {}
        errors: list[ImageError] = []

        def plan(image: str, *, exact: bool) -> None:
            found, source_image = self.run.image(image), corrections[image]
            try:
                if source_image.ours:
                    plans[image] = Plan(before=digest_of(found.mask), source=source_image)
                else:
                    plans[image] = self._plan(found, source_image, exact=exact)
            except ImageError as error:
                errors.append(error)
                if len(errors) <= _FAILURES_SHOWN:
                    progress.error(error)

        for image in corrections:
            plan(image, exact=False)
            progress.advance()
        if self._same >= self._redrawn:
            for image in [image for image, planned in plans.items() if planned.depends]:
                plans[image].discard()
                plan(image, exact=True)  # read again, because the corrections of all images may not fit into memory
        if errors:
            more = f" (the first {_FAILURES_SHOWN} are printed above)" if len(errors) > _FAILURES_SHOWN else ""
            number = f"{len(errors)} of {pluralize(len(corrections), 'correction')}"
            raise InputError(
                f"{number} cannot be imported{more}; nothing was changed",
                "Fix them in the tool that exported them, or leave them out, and run the same command again.",
            )
        self.names.raise_unknown()
        for kind, count in self._skipped.items():
            progress.note("shapes_skipped", shapes=pluralize(count, "shape"), kind=kind)
        if self._boxes:
            progress.note("boxes_filled", boxes=pluralize(self._boxes, "box", "boxes"))
        return plans

    def _plan(self, image: RunImage, source_image: SourceImage, *, exact: bool) -> Plan:
        """Read the correction of an image, and write its new mask under a temporary name.

        What a person changed is the difference to what the source showed. It is made on the labels of now.

        `exact` is True if the source writes objects exactly. It matters if the plan `depends` on it.

        Raises:
            ImageError: The correction or the mask cannot be used.
            OutputError: The temporary file cannot be written.
        """
        path, before = image.mask, digest_of(image.mask)  # before it is read: a later edit is kept
        plan = Plan(before=before, source=source_image)
        now, recorded = image.labels(), image.entry.correction
        size = (now.labels.shape[0], now.labels.shape[1])
        self.names.reading = source_image.where
        with image_errors(source_image.where):
            new = source_image.read(size)
            content, base = new.digest(), source_image.base or new.base
            if recorded is not None and recorded.content == content:
                empty = not new.shapes if isinstance(new, Objects) else not self._has_objects(now.labels)
                return replace(plan, done=True, empty=empty)
            shown = self._shown(image, now, base)
            follows = recorded is not None and self._follows(recorded, source_image, base)
            if isinstance(new, Changes) and not shown.is_known:
                return replace(plan, left_out=self._left_out(image, source_image, _NOT_KEPT))
            found = self._compare(shown.labels, new)
            edited = self._edit(shown.labels, new, found, exact=exact)
        if not exact:
            self._count(new, found)
        depends = any(each.depends_on_source for each in found)
        plan = replace(
            plan,
            empty=not new.shapes if isinstance(new, Objects) else not self._has_objects(edited.labels),
            depends=depends,
            redrawn=self._redrawn_objects(image, found, exact=exact) if depends else (),
        )
        is_made_on_now = shown.is_now or follows
        labels, conflicts = (edited.labels, False) if is_made_on_now else _merge(shown, edited.labels, now.labels)
        regroups = edited.labels is shown.labels.labels
        changed = self._count_regrouped(now, edited.instances) if regroups else int((labels != now.labels).sum())
        reason = ""
        if recorded is not None and is_older(source_image.saved, recorded.saved):
            reason = _OLDER
        elif not (self.options.replace_edited or follows):
            if not shown.is_known or conflicts or (regroups and not shown.is_now):
                reason = _CHANGED
            elif not base and image.corrected:
                reason = _A_PERSONS
        if reason or not changed:
            return replace(plan, left_out=self._left_out(image, source_image, reason) if reason and changed else None)
        emptied = plan.empty and self._has_objects(now.labels)
        plan = replace(plan, mask=CorrectedMask(image.entry.image, path, changed, emptied))
        if self.options.dry_run:
            return plan
        correction = Correction(
            source=self.source,
            format=self.format,
            content=content,
            before=shown.base if is_made_on_now else image.entry.base,
            accepted=bool(source_image.accepted),
            saved=source_image.saved,
        )
        kept = shown if is_made_on_now else replace(shown, labels=now, by_person=image.corrected)
        file, entry = self._stage(image, replace(edited, labels=labels), now, kept, correction)
        return replace(plan, file=file, entry=entry)

    def _shown(self, image: RunImage, now: Labels, base: str) -> _Shown:
        """Return the labels that a source showed whose base is known, or ""."""
        is_known = base in ("", image.entry.base)
        kept = None if is_known else read_kept(image.entry, len(self.run.classes), base)
        if kept is None:
            return _Shown(labels=now, base=image.entry.base, is_known=is_known, is_now=True, by_person=image.corrected)
        labels, by_person = kept
        return _Shown(labels=labels, base=base, is_known=True, is_now=False, by_person=by_person)

    def _follows(self, recorded: Correction, source_image: SourceImage, base: str) -> bool:
        """Return True if a source is a later state of the document that the labels of now were imported from."""
        if base and base != recorded.before:
            return False
        if source_image.saved or recorded.saved:
            return browser_of(source_image.saved) == browser_of(recorded.saved)
        return recorded.source == self.source

    def _left_out(self, image: RunImage, source_image: SourceImage, reason: str) -> ImageError:
        trash, hint = str(self.run.output / TRASH), Words("Write the page again.")
        if reason in _REPLACEABLE:
            hint = Words(
                "To import it all the same, add {replace_edited}: {trash} keeps the labels of now.", trash=trash
            )
        return ImageError(source_image.where, f"{image.entry.image}: {reason}, so it keeps its labels", hint)

    def _count(self, new: PixelLabels | Objects, found: Sequence[Comparison]) -> None:
        if isinstance(new, Objects):
            self._skipped.update(new.skipped)
        for each in found:
            self._same += each.same
            self._redrawn += each.returned
            self._boxes += len(each.boxes)

    def _count_regrouped(self, current: Labels, new: NDArray[np.int32] | None) -> int:
        """Return the number of pixels that are in other objects by the instances `new` [H, W]."""
        old, labels, classes = current.instances, current.labels, self.run.classes
        if new is None:
            return 0
        if old is None:
            wholes = [each for each in object_regions(labels, classes) if not classes[each.class_id - 1].part_of]
            old = number_pixels(enumerate(wholes, start=1), (labels.shape[0], labels.shape[1])).astype(np.int32)
        new = follow_correction(new, labels, classes)
        pairs, counts = np.unique(old.astype(np.int64) << 32 | new, return_counts=True)
        kept = [np.zeros(int(pairs.max() >> 32) + 1, np.int64), np.zeros(int(new.max()) + 1, np.int64)]
        np.maximum.at(kept[0], pairs >> 32, counts)
        np.maximum.at(kept[1], pairs & 0xFFFFFFFF, counts)
        return int(old.size - min(each.sum() for each in kept))

    def _has_objects(self, labels: LabelArray) -> bool:
        return bool(((labels != BACKGROUND) & (labels != self._ignored)).any())

    def _compare(self, shown: Labels, new: PixelLabels | Objects) -> list[Comparison]:
        """Compare a correction with the labels that its source showed; [] if it states every pixel exactly.

        Objects of wholes and of parts are compared apart, or together if each pixel is in one object.
        """
        old = shown.labels
        if isinstance(new, Changes):
            return []
        if isinstance(new, PixelLabels):
            return [] if new.labels is None or new.ignores else [compare_masks(old, new.labels, self._ignored)]
        options, classes, form = self.run.context.files, self._known(), FORMATS[new.written_as]
        regions = object_regions(old, classes, options, shown.instances)
        depths = [0, *(len(chain) - 1 for chain in ancestors(classes))]

        def depth_of(shape: Shape | Region) -> int:
            return depths[shape.class_id] if shape.class_id < len(depths) else 0  # unknown classes are rejected later

        objects = [LabelledObject(region, CERTAIN, options.simplify) for region in regions]
        height, width = old.shape
        if form.divides:
            before = form.reread_shapes(visible_objects(objects, classes, (height, width)), old.shape)
            return [Comparison(old, before, sorted(new.shapes, key=depth_of))]
        levels = []
        for depth, labels in enumerate(split_levels(old, classes)):
            before = form.reread_shapes([each for each in objects if depth_of(each.region) == depth], old.shape)
            levels.append(Comparison(labels, before, [each for each in new.shapes if depth_of(each) == depth]))
        return levels

    def _known(self) -> tuple[LabelClass, ...]:
        """Return the classes of the run, and those that corrections added so far."""
        added = () if self.names.too_many else self.names.added  # which is rejected later
        if len(self._classes) != len(self.run.classes) + len(added):
            self._classes = run_context(with_classes(self.run.info, added)).classes
        return self._classes

    def _edit(self, shown: Labels, new: PixelLabels | Objects, found: Sequence[Comparison], *, exact: bool) -> Labels:
        """Return the labels that a source shows, with every pixel that nobody changed as it was."""
        old, classes = shown.labels, self._known()
        if isinstance(new, Changes):
            labels = new.draw(old, shown.instances)
        elif isinstance(new, PixelLabels):
            labels = old
            if new.labels is not None and found and found[0].depends_on_source and not exact:
                labels = found[0].paint(exact=False)
            elif new.labels is not None:
                labels = cast(LabelArray, new.labels.astype(old.dtype))
                labels[(old == self._ignored) & (labels == BACKGROUND) & (not new.ignores)] = self._ignored
            return Labels(labels=labels, instances=shown.instances if new.instances is None else new.instances)
        elif not has_parts(classes):
            labels = found[0].paint(exact=exact)
        elif len(found) > 1:
            labels = join_levels(old, found, classes, exact=exact)
        else:
            labels = return_parts(old, found[0], classes, exact=exact)
        return replace(shown, labels=labels)

    def _redrawn_objects(
        self, image: RunImage, found: Sequence[Comparison], *, exact: bool
    ) -> tuple[RedrawnObject, ...]:
        names = {entry.id: entry.name for entry in self.run.classes}
        return tuple(
            RedrawnObject(image.entry.image, names[shape.class_id], (shape.y, shape.x, *shape.mask.shape))
            for each in found
            for shape in (*each.untouched, *(() if exact else each.redrawn))
        )

    def _stage(
        self, image: RunImage, new: Labels, now: Labels, shown: _Shown, correction: Correction
    ) -> tuple[StagedFile, Entry]:
        """Write the new mask under a temporary name, and return its entry. After an error, `locked_cache` removes the file.

        `new` has the new labels, and the instances of the labels that were corrected. The mask keeps what its source showed, for
        later states of that source.
        """
        known, entry, instances = self._known(), image.entry, new.instances
        if instances is not None:
            new = replace(new, instances=follow_correction(instances, new.labels, known))
        model = entry.bulk.unpack("model", RECORD_LIMIT) if entry.corrected else image.mask.read_bytes()
        objects = image.objects(now)
        facts, bulk, found = corrected_mask(entry, new, objects, known, correction, model=model, saved=self.saved)
        if shown.by_person:
            bulk["base"] = encode_labels(shown.labels)
        data = seal(encode_mask(new.labels, known), facts, bulk)
        file = self.run.files.stage(PNG, image.mask, data, synced=True)
        return file, replace(entry, state=SEALED, packed=pack_objects(found), **written_mask(data, file.row))


_CHANGED = "its labels changed since this file was written"
_A_PERSONS = "a person corrected it, and this file does not say which labels it was made on"
_NOT_KEPT = "its labels changed since the page was written, and those that the page shows are not kept"
_OLDER = "a file that the page saved later was imported already"

#: Reasons that `CorrectOptions.replace_edited` overcomes.
_REPLACEABLE = (_CHANGED, _A_PERSONS)


def _merge(shown: _Shown, edited: LabelArray, now: LabelArray) -> tuple[LabelArray, bool]:
    """Return the labels of now [H, W] with the edits of labels that were shown, and True if both changed a pixel differently."""
    changed = edited != shown.labels.labels
    conflicts = changed & (now != shown.labels.labels) & (now != edited)
    return cast(LabelArray, np.where(changed, edited, now)), bool(conflicts.any())
