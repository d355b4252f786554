"""`load` and what it gives: a model that encodes images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import DeviceError, UsageError
from tipsseg.images.decoding import ImageInput, to_upright
from tipsseg.labelling.features import Features
from tipsseg.labelling.prepare import Prepared
from tipsseg.labelling.view import View, make_view
from tipsseg.labelling.windows import stretched_size
from tipsseg.options import (
    MAX_PIXELS,
    ONE_SCALE,
    Dtype,
    LabelOptions,
    Mode,
    check_scales,
    check_whole_number,
    device_name,
    dtype_name,
)
from tipsseg.util.printable import quoted
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    import torch


class Model:
    """A model on a device, as `load` gives it.

    Attributes:
        backbone: The two towers of the model, on the device.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __repr__(self) -> str:
        backbone = self.backbone
        return f"Model({str(backbone.folder)!r}, device={backbone.device_name!r}, dtype={backbone.dtype_name!r})"

    def encode(
        self,
        image: ImageInput,
        *,
        mode: Mode = "slide",
        short_side: int | None = None,
        scales: Sequence[float] = ONE_SCALE,
        max_pixels: int = MAX_PIXELS,
    ) -> Features:
        """Encode an image once; it can then be labelled with any number of vocabularies, see `Labeller.label`.

        Args:
            image: A path, a Pillow image (turned upright by its EXIF orientation), or pixels [H, W, 3] uint8 RGB.
            mode: "slide": overlapping windows of the model's native size; "whole": the image in one piece.
            short_side: The image's shorter side is resized to so many pixels; None: to the model's native size.
            scales: Factors of the short side: the image is encoded at each of them.
            max_pixels: Image files of more pixels are refused.

        Returns:
            The features of the image, on the device of the model.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or is too elongated.
            UsageError: The mode is unknown, or the short side is too small or too large.
            DeviceError: The memory of the device is too small.
        """
        options = LabelOptions(mode=mode, short_side=short_side, scales=check_scales(scales))
        check_whole_number("argument `max_pixels`", max_pixels)
        view = self.view(options)
        return self.encode_prepared(view.prepare(to_upright(image, max_pixels)))

    def view(self, options: LabelOptions) -> View:
        """Return how the model sees images by these options. Raises UsageError, see `make_view`."""
        return make_view(self.backbone.native_size, self.backbone.patch_size, options)

    def encode_prepared(self, prepared: Prepared) -> Features:
        """Encode a prepared image: the part of `encode` that the device does."""
        return Features.at_scales([self._encode_one(each) for each in prepared.scales])

    def _encode_one(self, prepared: Prepared) -> Features:
        """Encode a prepared image at its own scale."""
        if windows := prepared.windows():
            encoded = self.backbone.encode_windows(windows)
        else:
            size = stretched_size(prepared.plan.size, self.backbone.patch_size)
            encoded = self.backbone.encode_whole(prepared.resized, size)
        return Features(prepared.size, prepared.plan, encoded.patches, encoded.class_tokens)

    def gives_no_numbers(self) -> DeviceError:
        """The error for what the towers make of an image where that holds infinity or NaN."""
        backbone = self.backbone
        return DeviceError(
            backbone.device_name,
            f"the model gives values that are no numbers in {backbone.dtype_name} on {backbone.device_name}",
            "Use dtype float32, and see tipsseg doctor.",
        )


def load(
    model: str | Path = "l14",
    *,
    device: str | int | torch.device = "auto",
    dtype: Dtype | torch.dtype = "auto",
    batch_size: int = 8,
    cache: Path | None = None,
    quiet: bool = False,
) -> Model:
    """Download a model where it is absent, verify its files and load it.

    Args:
        model: An id in weights.lock (l14, b14, so400m14, g14, tiny), its repository ("google/tipsv2-l14"), or a folder in the
            layout of the hub. A Path is a folder.
        device: "auto" (CUDA before MPS before CPU), "cpu", "cuda", "cuda:1" or "mps".
        dtype: What the model computes in: "float32", "bfloat16" or "float16". "auto" is bfloat16 on a GPU that has it. On a CPU a
            block of the model is timed: "auto" is bfloat16 where it takes at most 0.8 of the time of float32. Otherwise, and for
            `tiny`, it is float32.
        batch_size: How many windows go through the vision tower of a GPU at once.
        cache: A folder that keeps the measurement for dtype "auto", so that the dtype is the same the next time. None: nothing is
            read or written.
        quiet: Whether downloads show no progress bars.

    Returns:
        The model.

    Raises:
        UsageError: An argument has a wrong value.
        DeviceError: The device or the dtype is not available.
        WeightsError: The files cannot be had, or are not the pinned ones.
        CheckpointError: The files are not a TIPSv2 model.
    """
    from tipsseg.backbones.devices import resolve_device, resolve_dtype
    from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone, check_batch_size

    if not isinstance(model, str | Path):
        raise UsageError(f"the model must be an id or a folder, not {quoted(model)}", 'For example: load("l14").')
    # A Path is a folder, be its name that of a model; pathlib drops the dot that says so.
    source = find_model(model if isinstance(model, str) else os.path.join(".", model))  # noqa: PTH118
    check_batch_size(batch_size)
    resolve_dtype(dtype, resolve_device(device))  # before any download
    return Model(Tipsv2Backbone(source.fetch(quiet=quiet), device_name(device), dtype_name(dtype), batch_size, cache))
