"""What the vision tower makes of one image: the step between the model and the comparison with phrases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tipsseg.errors import FeatureFileError, UsageError
from tipsseg.features.file import FeatureRecord, Origin, read_feature_file, write_feature_file
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.scoring.scores import cosines_with
from tipsseg.options import FEATURE_DTYPES, FeatureDtype, choose
from tipsseg.types import WindowPlan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tipsseg.backbones.transfers import Arriving


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of one image, on the device of the model.

    Attributes:
        size: (height, width) of the image in pixels, upright.
        plan: How the image was resized and cut into windows.
        patches: [B, h, w, D] float32 of unit length: a vector for each of the h x w patches of each of the B windows of `plan`.
            B is 1 for an image that was seen in one piece.
        class_tokens: [B, C, D] float32 of unit length: C vectors for each window as a whole. TIPSv2 has two: the first was trained
            for alt-texts of the web, the second for synthetic captions.
        finer: The features of the same image at larger scales, in ascending order; none of them has finer ones itself.
    """

    size: tuple[int, int]
    plan: WindowPlan
    patches: Tensor
    class_tokens: Tensor
    finer: tuple[Features, ...] = ()

    @classmethod
    def at_scales(cls, scales: Sequence[Features]) -> Features:
        """Join the features of one image at several scales, in ascending order, none of which has finer ones."""
        first, *finer = scales
        return replace(first, finer=tuple(finer)) if finer else first

    @property
    def scales(self) -> tuple[Features, ...]:
        """The features at each scale: these, and the finer ones."""
        return (self, *self.finer)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Compare the patches of this scale with vectors.

        Args:
            vectors: [P, D] float32 of unit length, on the same device.

        Returns:
            The cosine of each patch with each vector, [B, h, w, P] float32.
        """
        import torch

        if self.patches.device.type == "cpu":
            return torch.from_numpy(cosines_with(self.patches.numpy(), vectors.numpy()))
        height, width, dim = self.patches.shape[1:]
        with torch.inference_mode():
            # Window by window: how a device adds up may depend on the size of a product, and labels must not.
            each = [patches.reshape(-1, dim) @ vectors.T for patches in self.patches]  # B of [h * w, P]
            return torch.stack(each).view(len(each), height, width, -1)

    def save(self, path: str | Path, dtype: FeatureDtype = "float16") -> None:
        """Write the features into a safetensors file, which appears whole or not at all. A file holds one scale.

        Args:
            path: The file; one that is there is replaced.
            dtype: What they are kept in. "float32": as they are; "float16": half the bytes; "int8": a quarter, with a scale for
                each patch.

        Raises:
            UsageError: The dtype is unknown, or there are several scales.
            OutputError: The file cannot be written.
        """
        if self.finer:
            raise UsageError(
                f"the features are of {len(self.scales)} scales, and a file holds one",
                "Save each of `features.scales` in a file of its own, and join them by Features.at_scales.",
            )
        write_feature_file(Path(path), self.record(dtype))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read features that `save` wrote, or a run of `tipsseg encode`.

        Args:
            path: The file.
            device: Where to put them: that of the model whose labeller gets them.

        Returns:
            The features, in float32.

        Raises:
            FeatureFileError: The file is not whole, or is no file of features.
        """
        import torch

        path = Path(path)
        try:
            return cls.from_record(read_feature_file(path).in_float32(), torch.device(device))
        except ValueError as error:
            raise FeatureFileError(path, str(error), "Encode the image again.") from error

    def record(self, dtype: FeatureDtype, origin: Origin | None = None) -> FeatureRecord:
        """The features of this scale as a file in that dtype holds them. Raises UsageError for an unknown dtype."""
        return self.rounded(dtype).record(origin)

    def rounded(self, dtype: FeatureDtype) -> RoundedFeatures:
        """The features of this scale as they are read from a file in that dtype, without waiting for the device.

        Raises UsageError for an unknown dtype.
        """
        import torch

        from tipsseg.backbones.transfers import Arriving

        kept = choose(dtype, FEATURE_DTYPES, "dtype of features")
        patches, class_tokens = self.patches, self.class_tokens
        if kept == "float32":
            return RoundedFeatures(self, kept, Arriving(patches, class_tokens))
        with torch.inference_mode():
            class_tokens = class_tokens.half()
            if kept == "float16":
                patches = patches.half()
                arriving, again = Arriving(patches, class_tokens), patches.float()
            else:
                scales = patches.abs().amax(-1) / 127  # [B, h, w]
                patches = (patches / scales[..., None]).round().to(torch.int8)
                arriving, again = Arriving(patches, class_tokens, scales), patches.float() * scales[..., None]
            return RoundedFeatures(Features(self.size, self.plan, again, class_tokens.float()), kept, arriving)

    @classmethod
    def from_record(cls, record: FeatureRecord, device: torch.device) -> Self:
        """Send the features of a record in float32 to a device."""
        from tipsseg.backbones.transfers import sent

        return cls(record.size, record.plan, sent(record.patches, device), sent(record.class_tokens, device))


def find_features(device: torch.device) -> Callable[[FeatureFiles, str], Features | None]:
    """Return what finds the features of an image in the files of a store, by its sha256, and sends them to a device."""

    def find(files: FeatureFiles, sha256: str) -> Features | None:
        record = files.find(sha256)
        return None if record is None else Features.from_record(record, device)

    return find


@dataclass(frozen=True, slots=True, eq=False)
class RoundedFeatures:
    """Features in the precision of a file, and what the file is to hold, on its way from the device.

    Attributes:
        features: The same as `Features.from_record` makes of the record.
        dtype: Of the file.
        arriving: Patches, class tokens, and for int8 the scales, as FeatureRecord has them.
    """

    features: Features
    dtype: FeatureDtype
    arriving: Arriving

    def record(self, origin: Origin | None = None) -> FeatureRecord:
        """Wait for what the file is to hold; any thread may."""
        patches, class_tokens, *scales = self.arriving.arrays()
        size, plan = self.features.size, self.features.plan
        return FeatureRecord(size, plan, self.dtype, patches, scales[0] if scales else None, class_tokens, origin)
