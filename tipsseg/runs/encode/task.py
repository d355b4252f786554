"""What is done to one image, from its file to the file of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tipsseg.errors import FeatureFileError
from tipsseg.features.file import FeatureHeader
from tipsseg.features.folder import FeatureStore
from tipsseg.images.decoding import as_image_error, opened
from tipsseg.images.upright import upright_image
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.options import LabelOptions
from tipsseg.runs.engine.image_task import NO_PIXELS, Loaded, OneLarge, fingerprint_of, kept, read_steadily
from tipsseg.store.results import Encoded
from tipsseg.types import ImageRef
from tipsseg.util.fingerprint import content_digest


class EncodeTask:
    """Encodes images and writes their features, in the steps of an ImageTask; `item` comes before them."""

    def __init__(self, model: Model, options: LabelOptions, store: FeatureStore, max_pixels: int) -> None:
        """Say how it is done.

        Args:
            model: Makes the features.
            options: How images are shown to it.
            store: Gets the features.
            max_pixels: Images of more pixels are refused.
        """
        self._model = model
        self._mode = options.mode
        self._store = store
        self._files = {side: store.at(side) for side in model.short_sides(options)}
        self._max_pixels = max_pixels
        self._alone = OneLarge()
        self._damaged: dict[str, str] = {}  # by image

    def item(self, ref: ImageRef) -> ImageRef | Encoded:
        """The image, or its result where the store has its features; their numbers are not read. Any thread may call it."""
        try:
            sha256 = content_digest(ref.path)
            found = self._headers(ref, sha256)
        except (OSError, ValueError):
            return ref  # reading the image says what is wrong
        if len(found) < len(self._files):
            return ref
        return self._encoded(ref, sha256, found, made=False)

    def _headers(self, ref: ImageRef, sha256: str) -> dict[int, FeatureHeader]:
        """What the store has of an image, by the short side of each scale."""
        found: dict[int, FeatureHeader] = {}
        for side, files in self._files.items():
            try:
                header = files.find_header(sha256)
            except FeatureFileError as error:
                self._damaged[ref.name] = error.message
                continue
            if header is not None and header.plan == self._model.plan(header.size, self._mode, side):
                found[side] = header
        return found

    def _encoded(
        self, ref: ImageRef, sha256: str, found: Mapping[int, FeatureHeader], *, made: bool, damaged: str = ""
    ) -> Encoded:
        headers = list(found.values())
        file, *finer = [files.path(sha256) for files in self._files.values()]
        windows, held = sum(each.patches[0] for each in headers), sum(each.bytes for each in headers)
        return Encoded(ref, file, headers[0].size, windows, held, made, damaged, tuple(finer))

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image; may be called from several threads. Raises ImageError."""
        return read_steadily(ref, self._load)

    def _load(self, ref: ImageRef) -> Loaded:
        with opened(ref.path, self._max_pixels) as image, self._alone(image.size), as_image_error(ref.path):
            upright = upright_image(image.decode())
            found = fingerprint_of(ref.path)
            sha256 = found.sha256 or content_digest(ref.path)
            prepared = self._model.prepare(upright, self._mode, *self._lacking(ref, sha256))
            remarks = image.remarks(upright)
        damaged = self._damaged.pop(ref.name, "")
        return Loaded(ref, NO_PIXELS, prepared, found, sha256=sha256, damaged=damaged, remarks=remarks)

    def _lacking(self, ref: ImageRef, sha256: str) -> list[int]:
        """The short sides at which the store has no features of an image."""
        sides = list(self._files)
        if len(sides) == 1:  # as `item` has found
            return sides
        there = self._headers(ref, sha256)
        return [side for side in sides if side not in there] or sides

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""
        return self._model.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """What makes features of images, in batches; for one thread."""
        return Batches(self._model)

    def keep(self, loaded: Loaded, features: Features) -> tuple[Loaded, Features]:
        """The features as the store has them, for the same thread."""
        return kept(self._store, loaded, features, self._model)

    def score(self, features: Features) -> None:
        """There is nothing to compare features with."""

    def finish(self, loaded: Loaded, scored: None) -> Encoded:
        """Write the features; may be called from several threads. Raises OutputError."""
        for unsaved in loaded.unsaved:
            record = unsaved()
            self._files[record.plan.short_side].add(record)
        ref, sha256 = loaded.ref, loaded.sha256
        encoded = self._encoded(ref, sha256, self._headers(ref, sha256), made=True, damaged=loaded.damaged)
        return replace(encoded, remarks=loaded.all_remarks)
