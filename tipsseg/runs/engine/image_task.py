"""What is done to one image, from its file to its label files; wherever the work is done, it is this."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tipsseg.errors import FeatureFileError, ImageError
from tipsseg.features.file import FeatureRecord, Origin
from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.formats import FORMATS
from tipsseg.formats.base import ImageLabels
from tipsseg.images.decoding import as_image_error, opened
from tipsseg.images.upright import thumbnail_rgb, upright_image
from tipsseg.label_map import LabelMap
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.labeller import Labeller, Scored
from tipsseg.labelling.model import Model
from tipsseg.labelling.prepare import Prepared
from tipsseg.options import MAX_PIXELS
from tipsseg.regions.objects import labelled_objects
from tipsseg.store.manifest import ManifestEntry, input_path
from tipsseg.store.results import Labelled
from tipsseg.store.stored_image import object_scores
from tipsseg.store.summary import label_summary
from tipsseg.store.writing import RunContext, finish_image
from tipsseg.types import ImageRef, Remark
from tipsseg.util.files import reason_of
from tipsseg.util.fingerprint import Fingerprint, content_digest, fingerprint

#: How many classes of each patch are kept, for formats that have them.
TOP_CLASSES = 5

#: Images of more pixels than this are decoded, and labelled, one at a time.
_HEAVY = 32_000_000

#: The pixels of an image that nobody looks at.
NO_PIXELS = np.empty((0, 0, 3), np.uint8)

#: How often an image is read again that was changed meanwhile.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An image in memory, ready for the model.

    Attributes:
        thumbnail: [h, w, 3] uint8, see `thumbnail_rgb`; 0 x 0 where no format needs it.
        prepared: The image as the model sees it; its `resized` is 0 x 0 where features were there and no pixels are needed.
        fingerprint: Of the file that it was read from.
        seconds: What reading it took.
        features: Its features, where the feature store has them at every scale.
        known: Where it has them at some scales, those.
        unsaved: Each waits for the features of a scale that the store is to have; see `stored`.
        sha256: The hash of the file, by which the store has its features; "" without a store.
        damaged: What was wrong with the file of its features; "" where nothing was.
        remarks: How the file holds more than the picture shows.
    """

    ref: ImageRef
    thumbnail: NDArray[np.uint8]
    prepared: Prepared
    fingerprint: Fingerprint
    seconds: float = 0.0
    features: Features | None = None
    known: tuple[Features, ...] = ()
    unsaved: tuple[Callable[[], FeatureRecord], ...] = ()
    sha256: str = ""
    damaged: str = ""
    remarks: tuple[Remark, ...] = ()

    @property
    def all_remarks(self) -> tuple[Remark, ...]:
        """How the model sees less than is in the file."""
        return (*self.remarks, "squeezed") if self.prepared.squeezed else self.remarks

    @property
    def lacking(self) -> Prepared:
        """The image as the model sees it at the scales whose features are not known."""
        known = {each.plan for each in self.known}
        if not known:
            return self.prepared
        first, *finer = [each for each in self.prepared.scales if each.plan not in known]
        return replace(first, finer=tuple(finer))


class ImageTask:
    """Labels images and writes their files, each image in four steps: `load`, its features from `batches`, `score`, `finish`."""

    def __init__(
        self,
        labeller: Labeller,
        formats: tuple[str, ...],
        context: RunContext,
        digest: str,
        inspect: Callable[[ImageRef, LabelMap], None] | None = None,
        max_pixels: int = MAX_PIXELS,
        store: FeatureStore | None = None,
    ) -> None:
        """Say how it is done.

        Args:
            labeller: Makes the labels.
            formats: That the labels are written in.
            context: Of the run.
            digest: Of all that decides the labels.
            inspect: Sees the labels of each image before anything is written, in one of several threads, and may raise ImageError.
            max_pixels: Images of more pixels are refused.
            store: Features are taken from it and added to it; None: all are made, and kept nowhere.
        """
        self._store = store
        self._labeller = labeller
        self._formats = formats
        self._context = context
        self._digest = digest
        self._inspect = inspect
        self._max_pixels = max_pixels
        self._needs_pixels = any(FORMATS[name].needs_thumbnail for name in formats)
        self._top = TOP_CLASSES if any(FORMATS[name].needs_top_classes for name in formats) else 0
        self._alone = OneLarge()

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image; may be called from several threads. Raises ImageError."""
        return read_steadily(ref, self._load)

    def _load(self, ref: ImageRef) -> Loaded:
        if self._store is None:
            return self._decoded(ref)
        try:
            sha256 = content_digest(ref.path)
        except (OSError, ValueError):
            return self._decoded(ref)  # which says what is wrong
        known, damaged = self._known(self._store, sha256)
        sides = self._labeller.short_sides
        if len(known) < len(sides) or prod(known[0].size) > self._max_pixels:
            return replace(self._decoded(ref), sha256=sha256, known=known[: len(sides) - 1], damaged=damaged)
        found = Features.at_scales(known)
        if self._labeller.options.refine != "none":
            return replace(self._decoded(ref), sha256=sha256, features=found)
        first, *finer = [Prepared(each.size, NO_PIXELS, each.plan) for each in known]
        prepared = replace(first, finer=tuple(finer))
        return Loaded(ref, self._thumbnail(ref), prepared, fingerprint_of(ref.path), features=found, sha256=sha256)

    def _known(self, store: FeatureStore, sha256: str) -> tuple[tuple[Features, ...], str]:
        """The features that a store has of an image, one scale after the other; and what is wrong with a file."""
        known: list[Features] = []
        wrong = ""
        for index, side in enumerate(self._labeller.short_sides):
            files = store.at(side)
            found, damaged = find_features(files, sha256, self._labeller.model.backbone.device)
            if found is not None and found.plan != self._labeller.plans(found.size)[index]:
                found, damaged = None, f"{files.path(sha256)}: of another plan of windows"
            known += [] if found is None else [found]
            wrong = wrong or damaged
        return tuple(known), wrong

    def _decoded(self, ref: ImageRef) -> Loaded:
        with opened(ref.path, self._max_pixels) as image, self._alone(image.size), as_image_error(ref.path):
            upright = upright_image(image.decode())
            thumbnail = thumbnail_rgb(upright) if self._needs_pixels else NO_PIXELS
            prepared, remarks = self._labeller.prepare(upright), image.remarks(upright)
        return Loaded(ref, thumbnail, prepared, fingerprint_of(ref.path), remarks=remarks)

    def _thumbnail(self, ref: ImageRef) -> NDArray[np.uint8]:
        if not self._needs_pixels:
            return NO_PIXELS
        with opened(ref.path, self._max_pixels) as image, self._alone(image.size), as_image_error(ref.path):
            return thumbnail_rgb(upright_image(image.decode()))

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""
        return self._labeller.model.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """What makes features of images, in batches; for one thread."""
        return Batches(self._labeller.model)

    def keep(self, loaded: Loaded, features: Features) -> tuple[Loaded, Features]:
        """The features in the precision of the store, and the image with what `finish` is to write; for the same thread."""
        if self._store is None or loaded.features is not None:
            return loaded, features
        # Labels come from what the store will have, so that a second question gets the same.
        return kept(self._store, loaded, features, self._labeller.model)

    def score(self, features: Features) -> Scored:
        """Compare the features of an image with the phrases; for the same thread."""
        return self._labeller.score(features, self._top)

    def finish(self, loaded: Loaded, scored: Scored) -> Labelled:
        """Label an image and write its files, under temporary names; may be called from several threads.

        Raises ImageError for what is wrong with this one, others for what ends a run.
        """
        began = time.monotonic()
        prepared = loaded.prepared
        if self._store is not None:
            for unsaved in loaded.unsaved:
                record = unsaved()
                self._store.at(record.plan.short_side).add(record)
        with self._alone(max(prepared.size, prepared.scales[-1].plan.size, key=prod)):
            ref, label_map = loaded.ref, self._labeller.assign(prepared, scored)
            if self._inspect is not None:
                self._inspect(ref, label_map)
            labels, confidence = label_map.labels, label_map.confidence
            objects = labelled_objects(labels, confidence, len(label_map.classes), self._context.files)
            image = ImageLabels(
                ref=ref,
                labels=labels,
                objects=objects,
                confidence=confidence,
                top=label_map.top,
                thumbnail=loaded.thumbnail,
            )
            done = finish_image(image, self._formats, self._context)
            summary = label_summary(label_map)
        seconds = round(loaded.seconds + time.monotonic() - began, 3)
        entry = ManifestEntry(
            ref.name,
            input_path(ref),
            loaded.fingerprint,
            self._digest,
            summary,
            done.files,
            self._formats,
            seconds,
            done.written,
            object_scores(objects),
        )
        return Labelled(
            ref, entry, done.rows, done.polygon_quality, loaded.all_remarks, loaded.damaged, staged=done.staged
        )


class OneLarge:
    """Keeps large images one behind the other, so that memory goes with one of them and not with the number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, size: tuple[int, int]) -> AbstractContextManager[object]:
        """What is to be entered while an image of that size is in memory."""
        return self._lock if size[0] * size[1] > _HEAVY else nullcontext()


def read_steadily(ref: ImageRef, read: Callable[[ImageRef], Loaded]) -> Loaded:
    """Read an image, and read it again where its file was changed meanwhile. Raises ImageError."""
    began = time.monotonic()
    for _ in range(_ATTEMPTS):
        before = _stamp(ref.path)
        failure: ImageError | None = None
        try:
            loaded = read(ref)
        except ImageError as error:
            failure = error
        if _stamp(ref.path) != before:
            continue  # a half of the old file and a half of the new one may well decode
        if failure is not None:
            raise failure
        return replace(loaded, seconds=time.monotonic() - began)
    raise ImageError(ref.path, "it changes while it is read", "Label it again once it is complete.")


def find_features(store: FeatureFiles, sha256: str, device: torch.device) -> tuple[Features | None, str]:
    """The features of an image in the files of a store, None where there are none or the file is damaged; and how it is damaged."""
    try:
        record = store.find(sha256)
    except FeatureFileError as error:
        return None, error.message
    if record is None:
        return None, ""
    try:
        return Features.from_record(record, device), ""
    except ValueError as error:
        return None, f"{store.path(sha256)}: {error}"


def stored(
    store: FeatureFiles, loaded: Loaded, features: Features, model: Model
) -> tuple[Callable[[], FeatureRecord], Features]:
    """The features of an image at one scale as they will be read from a store, and what gives them as the store keeps them.

    It waits for the device; any thread may call it. It raises DeviceError where the model gives values that are no numbers, which
    nobody is to keep.
    """
    rounded = features.rounded(store.record.dtype)
    origin = Origin(loaded.sha256, loaded.ref.name, store.record.recipe)

    def arrived() -> FeatureRecord:
        record = rounded.record(origin)
        try:
            record.check_unit()
        except ValueError as error:
            raise model.gives_no_numbers() from error
        return record

    return arrived, rounded.features


def kept(store: FeatureStore, loaded: Loaded, features: Features, model: Model) -> tuple[Loaded, Features]:
    """The features of an image, at the scales that a store lacked, as they will be read from it, beside those that it has.

    The image comes with what gives the new ones as the store keeps them, see `stored`.
    """
    made = [stored(store.at(each.plan.short_side), loaded, each, model) for each in features.scales]
    scales = [*loaded.known, *(again for _, again in made)]
    scales.sort(key=lambda each: each.plan.short_side)
    return replace(loaded, unsaved=tuple(unsaved for unsaved, _ in made)), Features.at_scales(scales)


def fingerprint_of(path: Path) -> Fingerprint:
    """The fingerprint of an image. Raises ImageError."""
    try:
        return fingerprint(path)
    except OSError as error:
        raise ImageError(path, reason_of(error)) from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
