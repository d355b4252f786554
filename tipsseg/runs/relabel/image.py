"""One image that the folder labels: what an earlier run left of it, read back and written as a new run writes it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, of_the_model, write_labels
from tipsseg.formats.base import ImageLabels, RunContext
from tipsseg.images.decoding import open_thumbnail
from tipsseg.label_map import LabelMap
from tipsseg.regions.objects import LabelledObject, labelled_objects
from tipsseg.runs.relabel.decision import Decided, Undecided, decide
from tipsseg.store.manifest import ManifestEntry, input_path
from tipsseg.store.results import Item, Labelled, Left, in_place, restore_links
from tipsseg.store.resume import ResumeState
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import (
    LabelledImage,
    ObjectScores,
    archives,
    labelled_image,
    object_scores,
    read_labels,
    read_scores,
    unknown_confidence,
)
from tipsseg.store.summary import label_summary
from tipsseg.types import ImageRef, KeptCosines
from tipsseg.util.fingerprint import Fingerprint, fingerprint
from tipsseg.util.record_paths import actual_path
from tipsseg.util.threads import in_order_by


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier run left of an image.

    Attributes:
        entry: Its line in the manifest.
        before: The run that gave it its labels.
        held: The formats whose per-image file is there, as it was written.
    """

    entry: ManifestEntry
    before: RunInfo
    held: frozenset[str]


class Relabelling:
    """Labels images from what an output folder holds of them.

    Attributes:
        images: How many images were labelled so, by what decided them.
    """

    def __init__(self, info: RunInfo, context: RunContext, resume: ResumeState) -> None:
        """Nothing is read yet.

        Args:
            info: The new run; its dtype is known.
            context: Of the new run.
            resume: What earlier runs left.
        """
        self._info = info
        self._context = context
        self._resume = resume
        self.images: Counter[str] = Counter()
        self._counting = threading.Lock()

    def run_without_model(self, ref: ImageRef | None) -> RunInfo | None:
        """What the new run comes to where the folder decides an image; None where it does not.

        Where there is no image it is asked of a run that has nothing to label.
        """
        resume = self._resume
        if ref is None:
            before = resume.before if resume.of_the_same and len(resume.manifest) else None
        else:
            known = self._known(ref)
            before = None if known is None or isinstance(self._decide(known), Undecided) else known.before
        if before is None or before.vocabulary is None:
            return None
        asked = self._info.spec.vocabulary
        return replace(
            self._info,
            model=before.model,
            device=before.device,
            vocabulary=replace(asked, background=before.vocabulary.background, auto=False),
            batch_size=before.batch_size,
        )

    def items(self, left: Iterable[Left], pool: Executor, *, ahead: bool) -> Iterator[Item]:
        """The images, each labelled where the folder decides it.

        Args:
            left: The images, and results that are known.
            pool: Labels them.
            ahead: Whether several are taken before the first is given; not for images that come slowly.
        """
        if ahead:
            return in_order_by(pool, 2 * self._info.spec.jobs, self._item, left)
        return map(self._item, left)

    def _item(self, left: Left) -> Item:
        return self.label(left) if isinstance(left, ImageRef) else left

    def _known(self, ref: ImageRef, *, put_back: bool = True) -> Known | None:
        """What an earlier run left of an image; None where it has not labelled it, or where it is to be labelled in any case.

        With `put_back` a file of it may be written, see `_put_back`.
        """
        entry = self._resume.manifest.get(ref.name)
        if entry is None or not self._info.spec.resume or not entry.fingerprint.matches(ref.path):
            return None
        before = self._resume.run_of(entry)
        if before is None:
            return None
        held = self._resume.held(entry)
        gone = [name for name in entry.files if name not in held and FORMATS[name].labels == "all"]
        if gone and put_back:
            held = held.union(name for name in gone if self._put_back(ref, entry, before, name))
        return Known(entry, before, held)

    def _put_back(self, ref: ImageRef, entry: ManifestEntry, before: RunInfo, name: str) -> bool:
        """Undo what a run that was broken off did to a file, and no record has: where its content of before can be made again.

        Its digest in the manifest proves that. Returns whether the file is as the manifest says.
        """
        context = self._context
        path = actual_path(context.output, entry.files[name])
        if not context.ownership.is_pending(path):
            return False
        try:
            data = self._content_before(ref, entry, before, name)
        except (ImageError, OSError, ValueError):
            return False
        if hashlib.sha256(data).hexdigest() != entry.written[name].sha256:
            return False
        context.ownership.put_back(path, data)
        return True

    def _content_before(self, ref: ImageRef, entry: ManifestEntry, before: RunInfo, name: str) -> bytes:
        """What the file of an image in a format was, if what is there now is of the same labels, or keeps the same cosines."""
        spec, options = self._info.spec, before.spec.files
        image = labelled_image(entry, before.names, spec.files, spec.max_pixels)
        path = actual_path(self._context.output, entry.files[name])
        classes, cosines = before.spec.vocabulary.classes, None
        if options.keep_cosines and FORMATS[name].archive:
            cosines = FORMATS[name].read_cosines(image.stored, path)
            label_map = self._labels_by(cosines, image, before, before, (name,))
        else:
            label_map = LabelMap(
                FORMATS[name].read_labels(image.stored, path), unknown_confidence(image.stored.size), classes
            )
            if FORMATS[name].archive:
                confidence, top = FORMATS[name].read_scores(image.stored, path)
                label_map = replace(label_map, confidence=confidence, top=top)
        labels = ImageLabels(ref, lambda: open_thumbnail(ref.path), label_map, self._objects, cosines)
        return FORMATS[name].encode(labels, replace(self._context, classes=classes, files=options))

    def decide(self, ref: ImageRef) -> Decided | Undecided | None:
        """Whether the folder decides the labels of an image; None for an image that is none of an earlier run's.

        Nothing is written.
        """
        known = self._known(ref, put_back=False)
        return None if known is None else self._decide(known)

    def _decide(self, known: Known) -> Decided | Undecided:
        keeps = known.before.spec.files.keep_cosines and any(FORMATS[name].archive for name in known.held)
        return decide(known.before, self._info, known.entry, known.held, cosines=keeps)

    def label(self, ref: ImageRef) -> Labelled | ImageRef:
        """Label an image and write its files; or the image again, where the model is needed. Any thread may call it.

        Raises:
            OutputError: For what ends the run.
        """
        known = self._known(ref)
        decision = None if known is None else self._decide(known)
        if known is None or not isinstance(decision, Decided):
            return ref
        try:
            labelled = self._label(ref, known, by_cosines=decision.source == "cosines")
        except (ImageError, OSError, ValueError):  # the model says what is wrong, or labels it
            return ref
        with self._counting:
            self.images[decision.source] += 1
        return labelled

    def _label(self, ref: ImageRef, known: Known, *, by_cosines: bool) -> Labelled:
        """Label an image. Raises ImageError and ValueError where what is stored is not as it was written."""
        began = time.monotonic()
        entry, spec, context = known.entry, self._info.spec, self._context
        same = known.before.digest == self._info.digest
        image = self._read(entry, known.before, known.held)
        stays: tuple[str, ...] = ()
        if not by_cosines:
            stays = self._same_files(ref, entry) if same else self._same_scores(known)
        formats = tuple(name for name in spec.formats if name not in stays)
        cosines = self._cosines(image, known) if by_cosines or self._keeps(formats) else None
        if by_cosines and cosines is not None:
            label_map, find = self._labels_by(cosines, image, known.before, self._info, formats), self._objects
            summary: Mapping[str, object] = label_summary(label_map)
        else:
            label_map, summary = self._labels(image, formats), entry.summary
            find = ObjectScores(entry.objects or (), image.means, context.files).objects
        labels = ImageLabels(ref, lambda: open_thumbnail(ref.path, spec.max_pixels), label_map, find, cosines)
        objects = entry.objects if same else object_scores(labels.objects)
        done = write_labels(labels, formats, context)
        restore_links(context, ref, stays)
        files, written = {**entry.files, **done.files}, {**entry.written, **done.written}
        own = [name for name in spec.formats if name in files]
        new = ManifestEntry(
            ref.name,
            input_path(ref),
            _now(entry, ref),
            self._info.digest,
            summary,
            {name: files[name] for name in own},
            spec.formats,
            round(time.monotonic() - began, 3),
            {name: written[name] for name in own},
            objects,
        )
        return Labelled(ref, new, done.rows, labels.polygon_quality)

    def _same_files(self, ref: ImageRef, entry: ManifestEntry) -> tuple[str, ...]:
        """The formats of the run that an image with the same labels is in, as they are to be."""
        journals = self._resume.journals
        return tuple(
            name for name in self._info.spec.formats if in_place(name, entry, ref, self._context, journals.get(name))
        )

    def _read(self, entry: ManifestEntry, before: RunInfo, held: Collection[str]) -> LabelledImage:
        """An image as the manifest has it, in the formats whose files can be trusted."""
        gone = [name for name in entry.files if name not in held]
        return labelled_image(entry.without(gone), before.names, before.spec.files, self._info.spec.max_pixels)

    def _labels(self, image: LabelledImage, formats: Sequence[str]) -> LabelMap:
        """The labels of an image as they are stored, and what these formats need beside them."""
        context = self._context
        labels, confidence, top = read_labels(image, {}, context), unknown_confidence(image.stored.size), None
        if any(FORMATS[name].confidence or FORMATS[name].top for name in formats):
            confidence, top = read_scores(image, context)
        return LabelMap(labels, confidence, context.classes, top)

    def _cosines(self, image: LabelledImage, known: Known) -> KeptCosines:
        """The cosines that an archive keeps. Raises ValueError where none does as it was written."""
        for name in archives():
            if name in known.held:
                path = actual_path(self._context.output, known.entry.files[name])
                if known.entry.written[name].same_bytes(path):
                    return FORMATS[name].read_cosines(image.stored, path)
        raise ValueError("no cosines are kept")

    def _labels_by(
        self, cosines: KeptCosines, image: LabelledImage, before: RunInfo, info: RunInfo, formats: Sequence[str]
    ) -> LabelMap:
        """The labels that the cosines of a run `before` give under the options of `info`, made as `Labeller.assign` does."""
        from tipsseg.labelling.label_table import label_table
        from tipsseg.labelling.scoring.compiled.match import match
        from tipsseg.labelling.scoring.scores import Scores, WholeScores, WindowScores
        from tipsseg.types import WindowPlan

        plan = WindowPlan(cosines.size, cosines.side, cosines.corners)
        scores: Scores
        if plan.whole:
            scores = WholeScores(cosines.values[0], plan.size, cosines.temperature)
        else:
            scores = WindowScores(cosines.values, plan, cosines.temperature)
        asked, used = info.spec.vocabulary, before.vocabulary or before.spec.vocabulary
        table = label_table(replace(asked, background=used.background, auto=False), info.spec.options.min_confidence)
        if sum(table.groups) != cosines.values.shape[3]:
            raise ValueError("cosines of other phrases")
        found = match(scores, image.stored.size, table)
        # They go by no minimum confidence.
        top = read_scores(image, self._context)[1] if any(FORMATS[name].top for name in formats) else None
        return LabelMap(found.labels, found.confidence, asked.classes, top)

    def _objects(self, label_map: LabelMap) -> list[LabelledObject]:
        return labelled_objects(label_map.labels, label_map.confidence, len(label_map.classes), self._context.files)

    def _keeps(self, formats: Sequence[str]) -> bool:
        """Whether cosines are to be kept in one of these formats."""
        return self._context.files.keep_cosines and any(FORMATS[name].archive for name in formats)

    def _same_scores(self, known: Known) -> tuple[str, ...]:
        """The formats of the model whose files stay as they are, where the labels and confidences are the same."""
        same = known.before.spec.files.keep_cosines == self._context.files.keep_cosines
        held = known.held & set(of_the_model())
        return tuple(name for name in self._info.spec.formats if name in held and (same or not FORMATS[name].archive))


def _now(entry: ManifestEntry, ref: ImageRef) -> Fingerprint:
    """The fingerprint of an image whose time alone may be another. Raises ValueError where it is another image."""
    now = entry.fingerprint
    if ref.path.stat().st_mtime_ns != now.mtime_ns:
        now = fingerprint(ref.path)
    if not now.same_content(entry.fingerprint):
        raise ValueError("another image")
    return now
