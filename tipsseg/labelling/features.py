"""Define Features: the vision tower's output for one image, to compare with class vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import FeatureFileError, UsageError
from tipsseg.features.file import FeatureRecord, Origin, read_feature_file, write_feature_file
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.scoring.scores import compute_cosines
from tipsseg.options import FEATURE_DTYPES, FeatureDtype, choose
from tipsseg.types import WindowPlan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tipsseg.backbones.transfers import HostCopy


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
    """

    size: tuple[int, int]
    plan: WindowPlan
    patches: Tensor
    class_tokens: Tensor
    finer: tuple[Features, ...] = ()

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
    from tipsseg.backbones.transfers import to_device

    return Features(record.size, record.plan, to_device(record.patches, device), to_device(record.class_tokens, device))


def round_features(features: Features, dtype: FeatureDtype) -> RoundedFeatures:
    """Round the features of one scale to the precision of a file in `dtype`, without waiting for the device.

    Raise UsageError for an unknown dtype.
    """
    import torch

    from tipsseg.backbones.transfers import HostCopy

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
    """Return a function that reads an image's features from a store by its sha256, and copies them to a device."""

    def find(files: FeatureFiles, sha256: str) -> Features | None:
        record = files.find(sha256)
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

    def record(self, origin: Origin | None = None) -> FeatureRecord:
        """Wait for the arrays and return the record to write. Safe to call from any thread."""
        patches, class_tokens, *scales = self.arriving.arrays()
        size, plan = self.features.size, self.features.plan
        return FeatureRecord(size, plan, self.dtype, patches, scales[0] if scales else None, class_tokens, origin)
