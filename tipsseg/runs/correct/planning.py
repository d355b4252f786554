"""One image of `tipsseg correct`: its old mask, what a correction says of it, and the new mask, written beside the old one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.formats.reading.found import Found, Objects, Whole, faults_of
from tipsseg.options.run import CorrectOptions
from tipsseg.regions.objects import LabelledObject, object_regions
from tipsseg.runs.correct.comparing import Compared, compare_whole, paint, take_whole, written_shapes
from tipsseg.store.manifest import ManifestEntry, TakenFrom
from tipsseg.store.stored_image import Mask, RunImage
from tipsseg.store.summary import CERTAIN
from tipsseg.store.writing import RunContext
from tipsseg.types import BACKGROUND, ImageRef, LabelArray, ignore_id
from tipsseg.util.files import TEMPORARY_PREFIX, output_error
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.ownership import digest_of


@dataclass(frozen=True, slots=True)
class CorrectedMask:
    """A mask that `tipsseg correct` wrote, or would write.

    Attributes:
        image: The name of the image.
        path: The mask.
        changed: The number of pixels that have another label than before.
        emptied: Whether the image loses all of its objects.
    """

    image: str
    path: Path
    changed: int
    emptied: bool = False


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An object that stayed as it was although its outline came back a little different, or did not come back as it is so thin.

    Attributes:
        image: The name of the image.
        class_name: The class of the object.
        box: (y, x, h, w) in pixels, the smallest box around the object.
    """

    image: str
    class_name: str
    box: tuple[int, int, int, int]

    def __str__(self) -> str:
        y, x, _, _ = self.box
        return f"{self.class_name!r} at x {x}, y {y} of {self.image}"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What becomes of an image.

    Attributes:
        plan: The new mask; None where the mask is as the correction says.
        kept: The objects that stay although their outlines differ.
        same: How many objects came back exactly.
        redrawn: How many came back with another outline, within the bounds of what tools do.
        open: Whether it depends on the whole source how the image is taken. There is no plan then.
        idle: Whether an open one has no plan either where the source redraws objects.
    """

    plan: Plan | None = None
    kept: tuple[KeptObject, ...] = ()
    same: int = 0
    redrawn: int = 0
    open: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A new mask that is ready.

    Attributes:
        mask: What is told of it.
        entry: The line of the manifest that says where it comes from; as it was, in a dry run.
        places: The masks that it takes the place of, each with the temporary file that has its bytes; none in a dry run.
    """

    mask: CorrectedMask
    entry: ManifestEntry
    places: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes new masks.

    Attributes:
        context: What the writers have to know of the run.
        source: The path that the corrections are from, as text, absolute.
        format: The format of the corrections.
        options: Which corrections are taken.
    """

    context: RunContext
    source: str
    format: str
    options: CorrectOptions

    def plan(self, image: RunImage, found: Found, exact: bool | None = None) -> Outcome:
        """Make the new mask of an image.

        Args:
            image: The image in the run.
            found: The image in the source.
            exact: Whether the source writes objects exactly. None: that is not known yet.

        Raises:
            ImageError: Where the correction or the old mask cannot be used.
            OutputError: Where the temporary file cannot be written.
        """
        entry, edited = image.entry, image.correction()
        current = edited or image.mask()
        old = image.read_mask(current)
        with faults_of(found.where):
            new = found.read(old.shape)
            content = new.digest(exact=self.options.exact)
            taken = entry.taken
            done = taken is not None and (taken.content, taken.mask) == (content, current.digest)
            compared = None if done else self._compared(entry, old, new)
        exact = self.options.exact or exact
        outcome = self._outcome(entry, compared, exact)
        targets = self._targets(image, current)
        alike = all(digest_of(path) == current.digest for _, path in targets)
        if outcome.open:
            return replace(outcome, idle=outcome.idle and alike)
        before = current.digest
        if done and taken is not None:
            labels, before = old, taken.before
        elif compared is None or (isinstance(new, Whole) and (exact or not compared.tells)):
            assert isinstance(new, Whole)
            labels = take_whole(old, new, ignore_id(len(self.context.classes)))
        else:
            labels = paint(compared, exact=bool(exact))
        changed = int(np.count_nonzero(labels != old))
        if not changed and alike:
            return outcome
        if (
            changed
            and edited is not None
            and not self.options.replace_edited
            and not (taken and edited.digest in (taken.mask, taken.before))
        ):
            raise ImageError(
                edited.path,
                "a person changed this mask in its place, and the correction says something else",
                "Take the image out of the corrections, or give the changed mask up with argument `replace_edited`.",
            )
        emptied = not new.shapes if isinstance(new, Objects) else self._has_objects(old) > self._has_objects(labels)
        mask = CorrectedMask(entry.image, targets[0][1], changed, emptied)
        return replace(outcome, plan=self._ready(entry, targets, labels, content, before, mask))

    def _has_objects(self, labels: LabelArray) -> bool:
        return bool(((labels != BACKGROUND) & (labels != ignore_id(len(self.context.classes)))).any())

    def _compared(self, entry: ManifestEntry, old: LabelArray, new: Whole | Objects) -> Compared | None:
        """Compare the objects of a correction with the old ones; None for masks that say all pixels, and always did."""
        if isinstance(new, Objects):
            before = written_shapes(self._objects(old), new.written_as, old.shape)
            return Compared(old, before, new.shapes, exact=self.options.exact)
        if new.ignores or self.options.exact:
            return None
        return compare_whole(old, new.labels, ignore_id(len(self.context.classes)))

    def _outcome(self, entry: ManifestEntry, compared: Compared | None, exact: bool | None) -> Outcome:
        if compared is None:
            return Outcome()
        came_back = set(compared.partners) & compared.redrawn
        found = Outcome(same=len(compared.same), redrawn=len(came_back))
        if self.options.exact or not compared.tells:
            return found
        names = {each.id: each.name for each in self.context.classes}
        numbers = compared.undrawn | (set() if exact else compared.redrawn)
        shapes = [compared.before[number] for number in sorted(numbers)]
        kept = (KeptObject(entry.image, names[each.class_id], (each.y, each.x, *each.mask.shape)) for each in shapes)
        return replace(found, kept=tuple(kept), open=exact is None, idle=compared.idle)

    def _objects(self, labels: LabelArray) -> list[LabelledObject]:
        options = self.context.files
        regions = object_regions(labels, len(self.context.classes), options)
        return [LabelledObject(region, CERTAIN, options.simplify) for region in regions]

    def _ready(
        self,
        entry: ManifestEntry,
        targets: Sequence[tuple[str, Path]],
        labels: LabelArray,
        content: str,
        before: str,
        mask: CorrectedMask,
    ) -> Plan:
        if self.options.dry_run:
            return Plan(mask, entry, ())
        image = ImageLabels(ref=ImageRef(Path(entry.path), PurePosixPath(entry.image)), labels=labels)
        places: list[tuple[Path, Path]] = []
        try:
            # The first one last: if this is killed before, the old mask still counts, and the same command goes on.
            for name, path in reversed(targets):
                places.append((path, _beside(path)))
                self.context.ownership.refuse_outside(path)
                try:
                    places[-1][1].write_bytes(FORMATS[name].encode(image, self.context))
                except OSError as error:
                    raise output_error(path, error) from error
            written = content_digest(places[-1][1])
        except BaseException:
            discard(places)
            raise
        taken = TakenFrom(self.source, self.format, content, written, before)
        return Plan(mask, replace(entry, taken=taken), tuple(places))

    def _targets(self, image: RunImage, current: Mask) -> list[tuple[str, Path]]:
        """Return the masks to write: the old one, and if a person edited that, those that count before it or were edited too."""
        written = image.entry.written
        if current.digest == written[current.name].sha256:
            return [(current.name, current.path)]
        masks = image.masks
        held = list(masks)
        # Only masks of the same bytes are taken for one correction.
        before = held[: held.index(current.name)] if self.context.files.png_mode == "L" else []
        return [
            (name, path)
            for name, path in masks.items()
            if name in before or digest_of(path) not in (None, written[name].sha256)
        ]


def discard(places: Sequence[tuple[Path, Path]]) -> None:
    """Remove the temporary files of masks."""
    for _, temporary in places:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
