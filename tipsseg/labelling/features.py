"""Features: the vision tower's output for one image, to compare with class vectors. Windows of several images share batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import DeviceError, FeatureFileError, UsageError
from tipsseg.features.file import FeatureRecord, Origin, read_feature_file, write_feature_file
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.scores import compute_cosines
from tipsseg.labelling.view import Prepared, stretched_size
from tipsseg.options import FEATURE_DTYPES, FeatureDtype, choose
from tipsseg.types import WindowPlan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tipsseg.backbones.devices import HostCopy


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of one image, on the model's device.

    Attributes:
        size: (height, width) of the image in pixels, upright.
        plan: Size and windows of the resized image.
        patches: [B, h, w, D] float32: one unit vector per patch, for B windows of h x w patches. B is 1 for an image in
            one piece.
        class_tokens: [B, C, D] float32: C unit vectors per window. TIPSv2 has two: the first was trained on web
            alt-texts, the second on synthetic captions.
        finer: The features at larger scales, in ascending order. Their own `finer` is empty.
        pixels: Digest of the upright image, of features from a file that `tipsseg encode` wrote; else "".
    """

    size: tuple[int, int]
    plan: WindowPlan
    patches: Tensor
    class_tokens: Tensor
    finer: tuple[Features, ...] = ()
    pixels: str = ""

    @classmethod
    def at_scales(cls, scales: Sequence[Features]) -> Features:
        """Join the features of one image at several scales, in ascending order."""
        first, *finer = scales
        return replace(first, finer=tuple(finer)) if finer else first

    @property
    def scales(self) -> tuple[Features, ...]:
        """The features at each scale, in ascending order: this one, then `finer`."""
        return (self, *self.finer)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Compare the patches at this scale with vectors, for example phrase vectors.

        Args:
            vectors: [P, D] float32 of unit length, on the same device.

        Returns:
            The cosine of each patch with each vector, [B, h, w, P] float32.
        """
        import torch

        if self.patches.device.type == "cpu":
            return torch.from_numpy(compute_cosines(self.patches.numpy(), vectors.numpy()))
        height, width, dim = self.patches.shape[1:]
        with torch.inference_mode():
            # Multiply window by window: a device's summation order may depend on the matrix size, and labels must not.
            windows = [patches.reshape(-1, dim) @ vectors.T for patches in self.patches]  # B of [h * w, P]
            return torch.stack(windows).view(len(windows), height, width, -1)

    def save(self, path: str | Path, dtype: FeatureDtype = "float16") -> None:
        """Write the features to a safetensors file. The file is written atomically.

        Args:
            path: The file. An existing file is overwritten.
            dtype: "float32" is exact; "float16" takes half the bytes; "int8" takes a quarter, with one scale per patch.

        Raises:
            UsageError: The dtype is unknown, or the features have several scales.
            OutputError: The file cannot be written.
        """
        if self.finer:
            raise UsageError(
                f"the features have {len(self.scales)} scales, but a file stores only one",
                "Save each of `features.scales` to its own file, and join them with Features.at_scales.",
            )
        write_feature_file(Path(path), round_features(self, dtype).record())

    @staticmethod
    def load(path: str | Path, device: str | torch.device = "cpu") -> Features:
        """Read features that `save` or `tipsseg encode` wrote.

        Args:
            path: The file.
            device: The device of the model that labels them.

        Returns:
            The features, in float32.

        Raises:
            FeatureFileError: The file is damaged, or is not a feature file.
        """
        import torch

        path = Path(path)
        try:
            return features_of(read_feature_file(path).to_float32(), torch.device(device))
        except ValueError as error:
            raise FeatureFileError(path, str(error), "Encode the image again.") from error

    def __repr__(self) -> str:
        height, width = self.size
        windows, rows, columns, dim = self.patches.shape
        scales = f", {len(self.scales)} scales" if self.finer else ""
        return f"Features({height}x{width}, {windows} windows of {rows}x{columns} patches of {dim} dimensions{scales})"


def features_of(record: FeatureRecord, device: torch.device) -> Features:
    """Convert a record to features in float32, on a device."""
    from tipsseg.backbones.devices import to_device

    patches, class_tokens = to_device(record.patches, device), to_device(record.class_tokens, device)
    return Features(record.size, record.plan, patches, class_tokens, pixels=record.pixels)


def round_features(features: Features, dtype: FeatureDtype) -> RoundedFeatures:
    """Round the features of one scale to the precision of a file in `dtype`, without waiting for the device.

    Raise UsageError for an unknown dtype.
    """
    import torch

    from tipsseg.backbones.devices import HostCopy

    dtype = choose(dtype, FEATURE_DTYPES, "feature dtype")
    patches, class_tokens = features.patches, features.class_tokens
    if dtype == "float32":
        return RoundedFeatures(features, dtype, HostCopy(patches, class_tokens))
    with torch.inference_mode():
        class_tokens = class_tokens.half()
        if dtype == "float16":
            patches = patches.half()
            arriving, rounded = HostCopy(patches, class_tokens), patches.float()
        else:
            scales = patches.abs().amax(-1) / 127  # [B, h, w]
            patches = (patches / scales[..., None]).round().to(torch.int8)
            arriving, rounded = HostCopy(patches, class_tokens, scales), patches.float() * scales[..., None]
        return RoundedFeatures(Features(features.size, features.plan, rounded, class_tokens.float()), dtype, arriving)


def find_features(device: torch.device) -> Callable[[FeatureFiles, str], Features | None]:
    """Return a function that reads an image's features from a store by its sha256, and copies them to a device. Thread-safe."""
    from tipsseg.backbones.devices import as_device_error

    def find(files: FeatureFiles, sha256: str) -> Features | None:
        record = files.find(sha256)
        with as_device_error(device, "for stored features"):
            return None if record is None else features_of(record, device)

    return find


@dataclass(frozen=True, slots=True, eq=False)
class RoundedFeatures:
    """Features in the precision of a file, and the arrays of that file on their way from the device.

    Attributes:
        features: The features that `features_of` would return for the record.
        dtype: The dtype of the file.
        arriving: Arrays of the file: patches, class tokens, and scales for int8, see FeatureRecord.
    """

    features: Features
    dtype: FeatureDtype
    arriving: HostCopy

    def record(self, origin: Origin | None = None, pixels: str = "") -> FeatureRecord:
        """Wait for the arrays and return the record to write. Safe to call from any thread."""
        patches, class_tokens, *scales = self.arriving.arrays()
        size, plan = self.features.size, self.features.plan
        factors = scales[0] if scales else None
        return FeatureRecord(size, plan, self.dtype, patches, factors, class_tokens, origin, pixels)


def encode_prepared(backbone: Backbone, prepared: Prepared) -> Features:
    """Encode a prepared image at each of its scales. Raise DeviceError if the device has too little memory."""
    return Features.at_scales([_encode_scale(backbone, scale) for scale in prepared.scales])


def _encode_scale(backbone: Backbone, prepared: Prepared) -> Features:
    if windows := prepared.windows():
        encoded = backbone.encode_windows(windows)
    else:
        encoded = backbone.encode_whole(prepared.resized, stretched_size(prepared.plan.size, backbone.patch_size))
    return Features(prepared.size, prepared.plan, encoded.patches, encoded.class_tokens)


def unsound_error(backbone: Backbone) -> DeviceError:
    """Return the error for an image whose features are not unit vectors."""
    return DeviceError(
        backbone.device_name,
        f"the model returned infinity, NaN or zeros in {backbone.dtype_name} on {backbone.device_name}",
        "Run tipsseg doctor." if backbone.dtype_name == "float32" else "Use dtype float32, and run tipsseg doctor.",
    )


Batched = TypeVar("Batched")


class Batches(Generic[Batched]):
    """Queue of images. An image leaves it, in order, once a full batch has encoded its last window."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._windows: deque[NDArray[np.uint8]] = deque()
        self._images: deque[_PendingImage[Batched]] = deque()

    def add(self, image: Batched, prepared: Prepared) -> Iterator[tuple[Batched, Features]]:
        """Add an image. Yield every image that is now complete with its features, which equal the result of `Model.encode`.

        Args:
            image: Any object that identifies the image in the result.
            prepared: The prepared image.
        """
        windows = [scale.windows() for scale in prepared.scales]
        # Encode immediately in "whole" mode, and on a CPU, which divides its threads between the windows of a single image.
        if not windows[0] or (self._backbone.batch_size == 1 and not self._images):
            yield image, encode_prepared(self._backbone, prepared)
            return
        self._images.append(_PendingImage(image, prepared))
        self._windows.extend(chain.from_iterable(windows))
        yield from self._run(self._backbone.batch_size)

    def has_time(self) -> bool:
        """Return True if images wait for a full batch, and the device would not compute one that is not full yet."""
        return bool(self._images) and self._backbone.is_busy()

    def flush(self) -> Iterator[tuple[Batched, Features]]:
        """Encode the remaining windows, and yield the remaining images with their features."""
        return self._run(1)

    def _run(self, at_least: int) -> Iterator[tuple[Batched, Features]]:
        backbone = self._backbone
        while len(self._windows) >= at_least:
            batch = [self._windows.popleft()]
            # A scale below the model's native size has smaller windows, which cannot share a batch with larger ones.
            while self._windows and len(batch) < backbone.batch_size and self._windows[0].shape == batch[0].shape:
                batch.append(self._windows.popleft())
            encoded = backbone.encode_windows(batch)
            for window in zip(encoded.patches, encoded.class_tokens, strict=True):
                with backbone.at_device("for the features"):
                    features = self._images[0].add_window(*window)
                if features is not None:
                    yield self._images.popleft().image, features


class _PendingImage(Generic[Batched]):
    """An image with windows that are not yet encoded."""

    def __init__(self, image: Batched, prepared: Prepared) -> None:
        self.image = image
        self._size = prepared.size
        self._plans = [scale.plan for scale in prepared.scales]
        self._scales: list[Features] = []
        self._done = 0

    def add_window(self, patches: Tensor, class_tokens: Tensor) -> Features | None:
        """Add the features of the next window, [h, w, D] and [C, D]. After the last, return the features of the image."""
        plan = self._plans[len(self._scales)]
        windows = len(plan.corners)
        if not self._done:
            self._patches = patches.new_empty(windows, *patches.shape)
            self._class_tokens = class_tokens.new_empty(windows, *class_tokens.shape)
        self._patches[self._done] = patches
        self._class_tokens[self._done] = class_tokens
        self._done += 1
        if self._done < windows:
            return None
        self._scales.append(Features(self._size, plan, self._patches, self._class_tokens))
        self._done = 0
        return Features.at_scales(self._scales) if len(self._scales) == len(self._plans) else None
