"""Define Model, which labels and encodes images, and `load`, which returns one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import UsageError, Words
from tipsseg.images.decoding import ImageInput, ImageReader
from tipsseg.labelling.features import Features, encode_prepared
from tipsseg.labelling.labeller import Labeller
from tipsseg.labelling.view import view_of
from tipsseg.options import MAX_PIXELS, ONE_SCALE, Dtype, Mode, check_scales, device_name, dtype_name
from tipsseg.options import declared as opt
from tipsseg.options.fields import check_whole_number, take_options
from tipsseg.options.records import LabelOptions
from tipsseg.options.signature import takes_options
from tipsseg.util.text import quote
from tipsseg.vocabulary.fitted import Classes, as_vocabulary
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    import torch

    from tipsseg.label_map import LabelMap


class Model:
    """A model on a device; `load` returns it.

    Attributes:
        backbone: The model's two towers, on the device.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._last: tuple[object, Labeller] | None = None

    def __repr__(self) -> str:
        backbone = self.backbone
        return f"Model({str(backbone.folder)!r}, device={backbone.device_name!r}, dtype={backbone.dtype_name!r})"

    @takes_options
    def label(
        self,
        image: ImageInput | Features,
        classes: Classes,
        *,
        guide: ImageInput | None = None,
        regions: ArrayLike | None = None,
        max_pixels: int = MAX_PIXELS,
        mode: opt.ViewMode = "slide",
        short_side: opt.ShortSide = None,
        stretch: opt.Stretch = None,
        min_confidence: opt.MinConfidence = 0.0,
        refine: opt.Refine = "none",
        scales: opt.Scales = ONE_SCALE,
    ) -> LabelMap:
        """Label one image.

            model.label("photo.jpg", ["panda leg", "tree"], min_confidence=0.5)

        The next call with the same classes reuses the encoded phrases. For many images use `labeller`, which can also batch
        them.

        Args:
            image: An address (see `examples/inputs`), an open file, a Pillow image, pixels, or features (see `Labeller.label`).
            classes: Class names, ClassSpecs, a dict that maps names to synonyms, a Vocabulary, or a fit (see `tipsseg.learn`).
            guide: The encoded image, if `image` is features and labels are refined.
            regions: Regions to give one class each (see `Labeller.label`).
            max_pixels: Reject image files with more pixels than this.

        Returns:
            The labels of the image.

        Raises:
            TipssegError: See `Labeller` and `Labeller.label`.
        """
        vocabulary, fitted = as_vocabulary(classes)
        options = take_options(
            LabelOptions,
            {
                "mode": mode,
                "short_side": short_side,
                "stretch": stretch,
                "min_confidence": min_confidence,
                "refine": refine,
                "scales": scales,
            },
        )
        question = vocabulary, options, max_pixels
        if self._last is not None and self._last[0] == question:
            labeller = self._last[1]
        else:
            labeller = Labeller(self, fitted or vocabulary, options, max_pixels=max_pixels)
            self._last = question, labeller
        return labeller.label(image, guide=guide, regions=regions)

    @takes_options
    def labeller(
        self,
        classes: Classes,
        *,
        max_pixels: int = MAX_PIXELS,
        cache: Path | None = None,
        mode: opt.ViewMode = "slide",
        short_side: opt.ShortSide = None,
        stretch: opt.Stretch = None,
        min_confidence: opt.MinConfidence = 0.0,
        refine: opt.Refine = "none",
        scales: opt.Scales = ONE_SCALE,
    ) -> Labeller:
        """Return a labeller, which encodes the class phrases once for any number of images.

        Args:
            classes: See `label`.
            max_pixels: Reject image files with more pixels than this.
            cache: Folder to cache phrase vectors in. None: no cache.

        Raises:
            TipssegError: See `Labeller`.
        """
        return Labeller(
            self,
            classes,
            max_pixels=max_pixels,
            cache=cache,
            mode=mode,
            short_side=short_side,
            stretch=stretch,
            min_confidence=min_confidence,
            refine=refine,
            scales=scales,
        )

    def encode(
        self,
        image: ImageInput,
        *,
        mode: Mode = "slide",
        short_side: int | None = None,
        scales: Sequence[float] = ONE_SCALE,
        stretch: tuple[float, float] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Features:
        """Encode an image once, to label it with any number of class lists: pass the features to `label` in place of the image.

        Args:
            image: An address, an open file, a Pillow image, or pixels (see `Labeller.label`).
            mode: "slide": overlapping windows of the model's native size; "whole": the image in one piece.
            short_side: Resize the shorter side of the image to this many pixels. None: the model's native size.
            scales: Factors of the short side. The image is encoded at each of them.
            stretch: Percentiles of each band that become black and white. None: values as they are.
            max_pixels: Reject image files with more pixels than this.

        Returns:
            The features of the image, on the model's device.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or is too elongated.
            UsageError: The mode is unknown, or the short side is too small or too large.
            DeviceError: The device has too little memory.
        """
        options = LabelOptions(mode=mode, short_side=short_side, scales=check_scales(scales), stretch=stretch)
        reader = ImageReader(check_whole_number(Words("{max_pixels}"), max_pixels), options.stretch)
        upright = reader.upright(image)
        return encode_prepared(self.backbone, view_of(self.backbone, options).prepare(upright))


@lru_cache(maxsize=1)
def _load_once(model: str | Path, device: str) -> Model:
    return load(model, device=device)


@takes_options
def label(
    image: ImageInput,
    classes: Classes,
    *,
    model: str | Path = "l14",
    device: str = "auto",
    mode: opt.ViewMode = "slide",
    short_side: opt.ShortSide = None,
    stretch: opt.Stretch = None,
    min_confidence: opt.MinConfidence = 0.0,
    refine: opt.Refine = "none",
    scales: opt.Scales = ONE_SCALE,
) -> LabelMap:
    """Label one image. The model stays in memory for the next call.

        tipsseg.label("photo.jpg", ["panda leg", "tree"])

    For many images use `tipsseg.label_folder`, or `tipsseg.load` and `Model.labeller`.

    Args:
        image: See `Model.label`.
        classes: See `Model.label`.
        model: An id in weights.lock, or a folder (see `load`).
        device: See `load`.

    Returns:
        The labels of the image.

    Raises:
        TipssegError: See `load` and `Model.label`.
    """
    return _load_once(model, device).label(
        image,
        classes,
        mode=mode,
        short_side=short_side,
        stretch=stretch,
        min_confidence=min_confidence,
        refine=refine,
        scales=scales,
    )


def load(
    model: str | Path = "l14",
    *,
    device: str | int | torch.device = "auto",
    dtype: Dtype | torch.dtype = "auto",
    batch_size: int | None = None,
    quiet: bool = False,
) -> Model:
    """Load a model. Download it if it is missing, and verify its files.

        model = tipsseg.load("l14")

    Args:
        model: An id in weights.lock (l14, b14, so400m14, g14, tiny), its repository ("google/tipsv2-l14"), or a folder in the
            layout of the hub. A Path is always a folder.
        device: "auto" (CUDA before MPS before CPU), "cpu", "cuda", "cuda:1", "mps", the number of a GPU, or a torch.device.
        dtype: The model's dtype: "float32", "bfloat16", "float16", "int8" (on a CPU) or a torch dtype. "auto" is bfloat16 on a
            GPU that supports it, and on a CPU with AMX or AVX512_BF16, but not for `tiny`. Otherwise it is float32.
        batch_size: The number of windows that a GPU encodes at once. None: 8, or 2 on MPS.
        quiet: Hide download progress.

    Raises:
        UsageError: An argument has an invalid value.
        DeviceError: The device or the dtype is not available.
        WeightsError: The files cannot be downloaded, or differ from their pins.
        CheckpointError: The files are not a model of a known architecture.
    """
    from tipsseg.backbones.devices import resolve_device, resolve_dtype
    from tipsseg.backbones.registry import open_backbone

    if not isinstance(model, str | Path):
        raise UsageError(f"the model must be an id or a folder, not {quote(model)}", 'For example: load("l14").')
    # pathlib drops the leading dot, by which `find_model` distinguishes a folder from an id.
    source = find_model(model if isinstance(model, str) else os.path.join(".", model))  # noqa: PTH118
    if batch_size is not None:
        batch_size = check_whole_number(Words("{batch_size}"), batch_size)
    resolve_dtype(dtype, resolve_device(device))  # before any download
    return Model(open_backbone(source.fetch(quiet=quiet), device_name(device), dtype_name(dtype), batch_size))
