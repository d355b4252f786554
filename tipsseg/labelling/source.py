"""Get the features of image files: read them from the feature store, or compute and store them.

file ─► `load`, in threads ─► stored features ──────────────────────┐
                          └─► prepared image ─► `batches` ─► `merge` ─► features at all scales
                                                                └─► `save`, in threads ─► feature store
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import FeatureFileError, ImageError
from tipsseg.features.file import FeatureHeader, FeatureRecord, Origin
from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.images.access import identify, stamp_source
from tipsseg.images.containers import Stamp
from tipsseg.images.decoding import ImageReader, as_image_error
from tipsseg.images.upright import pixel_digest, thumbnail_rgb
from tipsseg.labelling.features import Batched, Batches, Features, RoundedFeatures, round_features, unsound_error
from tipsseg.labelling.view import Prepared, View
from tipsseg.types import ImageRef, Remark
from tipsseg.util.files import Fingerprint, describe_error

#: Images with more pixels than this are decoded and labelled one at a time.
_HEAVY = 32_000_000

#: Placeholder for pixels that are not needed.
NO_PIXELS = np.empty((0, 0, 3), np.uint8)

#: Attempts to read a file that changes while it is read.
_ATTEMPTS = 3


#: Stored content for an image at one scale: the features, or only their header.
Stored = TypeVar("Stored", bound="Features | FeatureRecord | FeatureHeader")

#: Function that reads the stored content for a sha256 from the files of one scale. It returns None if the file is missing, and
#: raises FeatureFileError if it is damaged.
Find = Callable[[FeatureFiles, str], Stored | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenPicture:
    """An image in memory.

    Attributes:
        prepared: The image prepared for the model. Its `resized` is 0 x 0 if the image was not decoded.
        pixels: Digest of the upright image (see `pixel_digest`).
        thumbnail: [h, w, 3] uint8 (see `thumbnail_rgb`); 0 x 0 if not requested.
        remarks: Remarks on file content that the model does not see.
    """

    prepared: Prepared
    pixels: str
    thumbnail: NDArray[np.uint8]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded(Generic[Stored]):
    """An image, read from its file and from the store.

    Attributes:
        ref: The image.
        fingerprint: Fingerprint of the file.
        sha256: Hash of the file, its key in the store; "" without a store.
        picture: The pixels, as far as they are needed.
        stored: Stored content at some or all scales, in ascending order.
        damaged: Fault of a damaged feature file, which will be replaced; "" if all files are intact.
        seconds: Time spent reading, in seconds.
    """

    ref: ImageRef
    fingerprint: Fingerprint
    sha256: str = ""
    picture: SeenPicture
    stored: tuple[Stored, ...] = ()
    damaged: str = ""
    seconds: float = 0.0

    @property
    def missing(self) -> Prepared | None:
        """The prepared image at the scales that are not stored; None if all are stored."""
        plans = {features.plan for features in self.stored}
        scales = [scale for scale in self.picture.prepared.scales if scale.plan not in plans]
        return replace(scales[0], finer=tuple(scales[1:])) if scales else None


#: Function that waits for features from the device, and returns their record for the store.
PendingRecord = Callable[[], FeatureRecord]


class FeatureSource(Generic[Stored]):
    """Reads images and their stored features. Rounds and stores newly encoded features.

    Attributes:
        backbone: The model that encodes images.
        view: Sizes and windows of its input.
    """

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        store: FeatureStore | None,
        find: Find[Stored],
        reader: ImageReader,
        *,
        digests: Digests | None = None,
        pixels: bool = False,
        thumbnails: bool = False,
    ) -> None:
        """Create a source of features.

        Args:
            backbone: The model that encodes images.
            view: Sizes and windows of its input.
            store: The feature store to read and extend. None: no features are stored.
            find: Reads stored features.
            reader: Decodes images.
            digests: Hashes that are already computed.
            pixels: Decode images even if their features are stored.
            thumbnails: Make thumbnails.
        """
        self.backbone, self.view = backbone, view
        self._files = {} if store is None else {side: store.at(side) for side in view.short_sides}
        self._find = find
        self._reader = reader
        self._digests = digests or Digests()
        self._pixels = pixels
        self._thumbnails = thumbnails
        self._large = threading.Lock()

    def alone(self, size: tuple[int, int]) -> AbstractContextManager[object]:
        """Return the context to enter while an image of `size` (height, width) is in memory.

        It admits one large image at a time, so that memory does not grow with the number of threads.
        """
        return self._large if prod(size) > _HEAVY else nullcontext()

    def load(self, ref: ImageRef) -> Loaded[Stored]:
        """Read an image; read it again if its file changes in the meantime. Safe to call from several threads.

        Raise ImageError if the file cannot be read.
        """
        began = time.monotonic()
        for _ in range(_ATTEMPTS):
            before = _read_stamp(ref.path)
            failure: ImageError | None = None
            try:
                loaded = self._read(ref)
            except ImageError as error:
                failure = error
            if _read_stamp(ref.path) != before:
                continue  # the content may be a mixture of the old and the new file
            if failure is not None:
                raise failure
            return replace(loaded, seconds=time.monotonic() - began)
        raise ImageError(ref.path, "the file keeps changing while it is read", "Run again once the file is complete.")

    def _read(self, ref: ImageRef) -> Loaded[Stored]:
        if not self._files:
            picture = self._picture(ref, ())
            try:
                return Loaded(ref=ref, fingerprint=identify(ref.path)[0], picture=picture)
            except OSError as error:
                raise ImageError(ref.path, describe_error(error)) from error
        try:
            file_fingerprint, sha256 = self._digests.pop(ref.path)
        except (OSError, ValueError) as error:
            self._picture(ref, ())  # raises a more precise error for nearly all faults
            raise ImageError(ref.path, str(error)) from error
        stored, damaged = self.find_stored(sha256)
        if any(prod(features.size) > self._reader.max_pixels for features in stored):
            stored = ()
        picture = self._picture(ref, stored)
        return Loaded(
            ref=ref, fingerprint=file_fingerprint, sha256=sha256, picture=picture, stored=stored, damaged=damaged
        )

    def find_stored(self, sha256: str) -> tuple[tuple[Stored, ...], str]:
        """Return an image's stored content at some or all scales, and the fault of a damaged file or ""."""
        stored = list[Stored]()
        damaged = ""
        for index, files in enumerate(self._files.values()):
            try:
                features = self._find(files, sha256)
            except FeatureFileError as error:
                damaged = damaged or error.message
                continue
            if features is None:
                continue
            if features.plan == self.view.plans(features.size)[index]:
                stored.append(features)
            else:
                damaged = damaged or f"{files.path(sha256)}: its windows do not match the current settings"
        return tuple(stored), damaged

    def _picture(self, ref: ImageRef, stored: Sequence[Stored]) -> SeenPicture:
        """Decode an image, unless its features are stored and no pixels are needed."""
        prepared: Prepared | None = None
        pixels, thumbnail, remarks = "", NO_PIXELS, tuple[Remark, ...]()
        if len(stored) == len(self.view.short_sides) and not self._pixels:
            first, *finer = [Prepared(features.size, NO_PIXELS, features.plan) for features in stored]
            prepared, pixels = replace(first, finer=tuple(finer)), stored[0].pixels
        if prepared is None or self._thumbnails:
            with self._reader.header(ref.path) as image, self.alone(image.size), as_image_error(ref.path):
                upright = image.upright()
                thumbnail = thumbnail_rgb(upright) if self._thumbnails else NO_PIXELS
                if prepared is None:
                    prepared, remarks = self.view.prepare(upright), image.remarks(upright)
                    pixels = pixel_digest(upright)
        squeezed: tuple[Remark, ...] = ("squeezed",) if prepared.squeezed else ()
        return SeenPicture(prepared=prepared, pixels=pixels, thumbnail=thumbnail, remarks=(*remarks, *squeezed))

    @property
    def batch_size(self) -> int:
        return self.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """Return a queue that encodes images in batches. Use it from a single thread only."""
        return Batches(self.backbone)

    def merge(
        self, loaded: Loaded[Stored], encoded: Features | None
    ) -> tuple[list[Stored | Features], list[PendingRecord]]:
        """Merge stored features with newly encoded ones. Call this only from the thread that uses `batches`.

        Round new features to the store's dtype first, so that a later run on stored features gives the same labels.

        Args:
            loaded: The image.
            encoded: Its features at the scales in `missing`; None if all are stored.

        Returns:
            The features at each scale, in ascending order; and the records for `save`.
        """
        new = () if encoded is None else encoded.scales
        if not self._files:
            return list(new), []
        with self.backbone.at_device("for the features"):
            rounded = [round_features(scale, self._files[scale.plan.short_side].record.dtype) for scale in new]
        scales: list[Stored | Features] = [*loaded.stored, *(scale.features for scale in rounded)]
        scales.sort(key=lambda scale: scale.plan.short_side)
        return scales, [partial(self._record, loaded, scale) for scale in rounded]

    def save(self, pending: Iterable[PendingRecord]) -> None:
        """Wait for features and write them to the store. Safe to call from several threads.

        Raise OutputError if a file cannot be written. Raise DeviceError if features contain infinity, NaN or zeros; these are not
        stored.
        """
        for wait_for_record in pending:
            record = wait_for_record()
            self._files[record.plan.short_side].add(record)

    def _record(self, loaded: Loaded[Stored], rounded: RoundedFeatures) -> FeatureRecord:
        files = self._files[rounded.features.plan.short_side]
        origin = Origin(loaded.sha256, loaded.ref.name, files.record.recipe)
        record = rounded.record(origin, loaded.picture.pixels)
        try:
            record.to_float32()
        except ValueError as error:
            raise unsound_error(self.backbone) from error
        return record


class Digests:
    """Hashes of files that are computed ahead of time, so that those files are hashed only once."""

    def __init__(self) -> None:
        self._computed: dict[Path, tuple[Stamp | None, tuple[Fingerprint, str]]] = {}

    def compute(self, path: Path) -> str | None:
        """Return the sha256 of a file, and save it for `pop`; None if the file cannot be read."""
        before = _read_stamp(path)
        with suppress(OSError, ValueError):
            self._computed[path] = before, identify(path, any_size=True)
            return self._computed[path][1][1]
        return None

    def pop(self, path: Path) -> tuple[Fingerprint, str]:
        """Return a file's fingerprint and sha256, computed now or before. Thread-safe. Raise OSError if it cannot be read."""
        before, computed = self._computed.pop(path, (None, None))
        if computed is not None and before == _read_stamp(path):
            return computed
        return identify(path, any_size=True)


def _read_stamp(path: Path) -> Stamp | None:
    try:
        return stamp_source(path)
    except (OSError, ValueError):
        return None
