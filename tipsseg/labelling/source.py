"""The one way from an image file to its features: read from the feature store, or made by the model and kept there.

file ─► `load`, in threads ─► features that the store has ─────────────────────────────────────┐
                          └─► the image as the model sees it ─► `batches` ─► `keep` ─► features ─► whoever asked for them
                                                                                └─► `save`, in threads ─► the store
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import FeatureFileError, ImageError
from tipsseg.features.file import FeatureRecord, Origin
from tipsseg.features.folder import FeatureFiles, FeatureStore
from tipsseg.images.decoding import as_image_error, open_header
from tipsseg.images.upright import thumbnail_rgb, upright_image
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.encode import non_finite_error
from tipsseg.labelling.features import round_features
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.view import View
from tipsseg.types import ImageRef, Remark
from tipsseg.util.files import reason_of
from tipsseg.util.fingerprint import Fingerprint, fingerprint, fingerprint_and_digest

if TYPE_CHECKING:
    from tipsseg.backbones.protocol import Backbone
    from tipsseg.features.file import FeatureHeader
    from tipsseg.labelling.features import Features, RoundedFeatures

#: Images of more pixels than this are decoded, and labelled, one at a time.
_HEAVY = 32_000_000

#: The pixels of an image that nobody looks at.
NO_PIXELS = np.empty((0, 0, 3), np.uint8)

#: Size, time and inode of a file.
_Stamp = tuple[int, int, int]

#: How often an image is read again that was changed meanwhile.
_ATTEMPTS = 3


#: What a store has of an image at one scale: features, or what their file says of them.
Found = TypeVar("Found", bound="Features | FeatureRecord | FeatureHeader")

#: Finds what the files of one scale have of the image of a sha256; None where they have nothing. Raises FeatureFileError.
LookUp = Callable[[FeatureFiles, str], Found | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An image in memory.

    Attributes:
        prepared: The image as the model sees it; its `resized` is 0 x 0 if it was not decoded.
        thumbnail: [h, w, 3] uint8, see `thumbnail_rgb`; 0 x 0 if nobody needs it.
        remarks: How the model sees less than is in the file.
    """

    prepared: Prepared
    thumbnail: NDArray[np.uint8]
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded(Generic[Found]):
    """An image that was read.

    Attributes:
        ref: The image.
        fingerprint: Of the file that it was read from.
        sha256: The hash of that file, by which the store knows it; "" without a store.
        picture: Its pixels, as far as anybody needs them.
        known: What the store has of it, at some scales or all, in ascending order.
        damaged: What is wrong with a file of features that is made anew; "" if nothing is.
        seconds: The time that reading took.
    """

    ref: ImageRef
    fingerprint: Fingerprint
    sha256: str = ""
    picture: Picture
    known: tuple[Found, ...] = ()
    damaged: str = ""
    seconds: float = 0.0

    @property
    def lacking(self) -> Prepared | None:
        """The image at the scales that the store lacks; None if it has all of them."""
        known = {each.plan for each in self.known}
        left = [each for each in self.picture.prepared.scales if each.plan not in known]
        return replace(left[0], finer=tuple(left[1:])) if left else None


#: Features that are on their way from the device to the store.
Unsaved = Callable[[], FeatureRecord]


class FeatureSource(Generic[Found]):
    """Reads images, and their features from a store; rounds and keeps the features that the model makes of the others.

    Attributes:
        backbone: Makes features.
        view: How it sees images.
    """

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        store: FeatureStore | None,
        look_up: LookUp[Found],
        *,
        max_pixels: int,
        digests: Digests | None = None,
        pixels: bool = False,
        thumbnails: bool = False,
    ) -> None:
        """Say how it is done.

        Args:
            backbone: Makes features.
            view: How it sees images.
            store: Features are taken from it and added to it. None: all are made, and kept nowhere.
            look_up: Finds features in the store.
            max_pixels: Images of more pixels are refused.
            digests: Hashes that were taken already.
            pixels: Whether images are decoded even if the store has their features.
            thumbnails: Whether thumbnails are made.
        """
        self.backbone, self.view = backbone, view
        self._files = {} if store is None else {side: store.at(side) for side in view.short_sides}
        self._look_up = look_up
        self._max_pixels = max_pixels
        self._digests = digests or Digests()
        self._pixels = pixels
        self._thumbnails = thumbnails
        self.alone = OneLarge()

    def load(self, ref: ImageRef) -> Loaded[Found]:
        """Read an image, and read it again if its file was changed meanwhile; several threads may call this.

        Raises ImageError.
        """
        began = time.monotonic()
        for _ in range(_ATTEMPTS):
            before = _stamp(ref.path)
            failure: ImageError | None = None
            try:
                loaded = self._read(ref)
            except ImageError as error:
                failure = error
            if _stamp(ref.path) != before:
                continue  # a half of the old file and a half of the new one may well decode
            if failure is not None:
                raise failure
            return replace(loaded, seconds=time.monotonic() - began)
        raise ImageError(ref.path, "it changes while it is read", "Label it again once it is complete.")

    def _read(self, ref: ImageRef) -> Loaded[Found]:
        if not self._files:
            picture = self._picture(ref, ())
            try:
                return Loaded(ref=ref, fingerprint=fingerprint(ref.path), picture=picture)
            except OSError as error:
                raise ImageError(ref.path, reason_of(error)) from error
        try:
            of_file, sha256 = self._digests.take(ref.path)
        except (OSError, ValueError) as error:
            self._picture(ref, ())  # it nearly always raises what is wrong with the file
            raise ImageError(ref.path, str(error)) from error
        there, damaged = self.find(sha256)
        known = tuple(there.values())
        if any(prod(each.size) > self._max_pixels for each in known):
            known = ()
        picture = self._picture(ref, known)
        return Loaded(ref=ref, fingerprint=of_file, sha256=sha256, picture=picture, known=known, damaged=damaged)

    def find(self, sha256: str) -> tuple[Mapping[int, Found], str]:
        """Return what the store has of an image, by the short side of the scale; and what is wrong with one of its files."""
        found: dict[int, Found] = {}
        damaged = ""
        for index, (side, files) in enumerate(self._files.items()):
            try:
                there = self._look_up(files, sha256)
            except FeatureFileError as error:
                damaged = damaged or error.message
                continue
            if there is None:
                continue
            if there.plan == self.view.plans(there.size)[index]:
                found[side] = there
            else:
                damaged = damaged or f"{files.path(sha256)}: of another plan of windows"
        return found, damaged

    def _picture(self, ref: ImageRef, known: Sequence[Found]) -> Picture:
        """Decode an image, unless its features are known and nobody needs pixels."""
        prepared: Prepared | None = None
        thumbnail, remarks = NO_PIXELS, tuple[Remark, ...]()
        if len(known) == len(self.view.short_sides) and not self._pixels:
            first, *finer = [Prepared(each.size, NO_PIXELS, each.plan) for each in known]
            prepared = replace(first, finer=tuple(finer))
        if prepared is None or self._thumbnails:
            with open_header(ref.path, self._max_pixels) as image, self.alone(image.size), as_image_error(ref.path):
                upright = upright_image(image.decode())
                thumbnail = thumbnail_rgb(upright) if self._thumbnails else NO_PIXELS
                if prepared is None:
                    prepared, remarks = self.view.prepare(upright), image.remarks(upright)
        squeezed: tuple[Remark, ...] = ("squeezed",) if prepared.squeezed else ()
        return Picture(prepared=prepared, thumbnail=thumbnail, remarks=(*remarks, *squeezed))

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""
        return self.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """Return what makes features of images, in batches; for one thread."""
        return Batches(self.backbone)

    def keep(self, loaded: Loaded[Found], made: Features | None) -> tuple[list[Found | Features], list[Unsaved]]:
        """Join features that the store has with those that the model made of the rest; for the thread of `batches`.

        Those are rounded first as the store keeps them, so that a second question gets the same labels.

        Args:
            loaded: The image.
            made: Its features at the scales that the store lacks; None if it has all.

        Returns:
            The features at each scale, in ascending order; and what `save` is to write.
        """
        new = () if made is None else made.scales
        if not self._files:
            return list(new), []
        rounded = [round_features(each, self._files[each.plan.short_side].record.dtype) for each in new]
        scales: list[Found | Features] = [*loaded.known, *(each.features for each in rounded)]
        scales.sort(key=lambda each: each.plan.short_side)
        return scales, [partial(self._record, loaded, each) for each in rounded]

    def save(self, unsaved: Iterable[Unsaved]) -> None:
        """Wait for features and write them into the store; several threads may call this.

        Raises OutputError, and DeviceError if the model gives values that are no numbers: nobody is to keep those.
        """
        for each in unsaved:
            record = each()
            self._files[record.plan.short_side].add(record)

    def _record(self, loaded: Loaded[Found], rounded: RoundedFeatures) -> FeatureRecord:
        files = self._files[rounded.features.plan.short_side]
        record = rounded.record(Origin(loaded.sha256, loaded.ref.name, files.record.recipe))
        try:
            record.in_float32()
        except ValueError as error:
            raise non_finite_error(self.backbone) from error
        return record


class Digests:
    """Hashes of files: some are taken ahead of time, and nobody reads those files twice for them."""

    def __init__(self) -> None:
        self._ahead: dict[Path, tuple[_Stamp | None, tuple[Fingerprint, str]]] = {}

    def ahead(self, path: Path) -> str | None:
        """Return the sha256 of a file, and keep it for `take`; None if the file cannot be read."""
        stamp = _stamp(path)
        with suppress(OSError, ValueError):
            self._ahead[path] = stamp, fingerprint_and_digest(path)
            return self._ahead[path][1][1]
        return None

    def take(self, path: Path) -> tuple[Fingerprint, str]:
        """Return the fingerprint of a file, and its sha256 whatever its size; several threads may call this. Raises OSError."""
        stamp, known = self._ahead.pop(path, (None, None))
        return known if known is not None and stamp == _stamp(path) else fingerprint_and_digest(path)


class OneLarge:
    """Keeps large images one behind the other, so that memory goes with one of them and not with the number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, size: tuple[int, int]) -> AbstractContextManager[object]:
        """Return what is to be entered while an image of that size is in memory."""
        return self._lock if prod(size) > _HEAVY else nullcontext()


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
