"""What is done to one image, from its file to the file of its features."""

from __future__ import annotations

from dataclasses import replace

from tipsseg.errors import FeatureFileError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import FeatureStore
from tipsseg.images.decoding import as_image_error, opened
from tipsseg.images.upright import upright_image
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.options import LabelOptions
from tipsseg.runs.image_task import NO_PIXELS, Loaded, OneLarge, fingerprint_of, read_steadily, stored
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
        self._short_side = model.check_short_side(options.short_side)
        self._store = store
        self._max_pixels = max_pixels
        self._alone = OneLarge()
        self._damaged: dict[str, str] = {}  # by image

    def item(self, ref: ImageRef) -> ImageRef | Encoded:
        """The image, or its result where the store has its features; their numbers are not read. Any thread may call it."""
        try:
            sha256 = content_digest(ref.path)
            found = self._store.find_header(sha256)
        except (OSError, ValueError):
            return ref  # reading the image says what is wrong
        except FeatureFileError as error:
            self._damaged[ref.name] = error.message
            return ref
        if found is None or found.plan != self._model.plan(found.size, self._mode, self._short_side):
            return ref
        return Encoded(ref, self._store.path(sha256), found.size, found.patches[0], found.bytes, False)

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image; may be called from several threads. Raises ImageError."""
        return read_steadily(ref, self._load)

    def _load(self, ref: ImageRef) -> Loaded:
        with opened(ref.path, self._max_pixels) as image, self._alone(image.size), as_image_error(ref.path):
            prepared = self._model.prepare(upright_image(image.decode()), self._mode, self._short_side)
        found = fingerprint_of(ref.path)
        sha256 = found.sha256 or content_digest(ref.path)
        return Loaded(ref, NO_PIXELS, prepared, found, sha256=sha256, damaged=self._damaged.pop(ref.name, ""))

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""
        return self._model.backbone.batch_size

    def batches(self) -> Batches[Batched]:
        """What makes features of images, in batches; for one thread."""
        return Batches(self._model)

    def keep(self, loaded: Loaded, features: Features) -> tuple[Loaded, Features]:
        """The features as the store has them, for the same thread."""
        unsaved, features = stored(self._store, loaded, features, self._model)
        return replace(loaded, unsaved=unsaved), features

    def score(self, features: Features) -> None:
        """There is nothing to compare features with."""

    def finish(self, loaded: Loaded, scored: None) -> Encoded:
        """Write the features; may be called from several threads. Raises OutputError."""
        assert loaded.unsaved is not None
        made = loaded.unsaved()
        path = self._store.add(made)
        windows, height, width, dim = made.patches.shape
        held = feature_bytes((windows, height, width, dim), made.class_tokens.shape[1], made.dtype)
        return Encoded(loaded.ref, path, loaded.prepared.size, windows, held, True, loaded.damaged)
