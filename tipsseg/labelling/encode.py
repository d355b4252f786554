"""Encode prepared images with the vision tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipsseg.errors import DeviceError
from tipsseg.labelling.features import Features
from tipsseg.labelling.windows import stretched_size

if TYPE_CHECKING:
    from tipsseg.backbones.protocol import Backbone
    from tipsseg.labelling.prepare import Prepared


def encode_prepared(backbone: Backbone, prepared: Prepared) -> Features:
    """Encode a prepared image at each of its scales. Raise DeviceError if the device has too little memory."""
    return Features.at_scales([_encode_scale(backbone, scale) for scale in prepared.scales])


def _encode_scale(backbone: Backbone, prepared: Prepared) -> Features:
    if windows := prepared.windows():
        encoded = backbone.encode_windows(windows)
    else:
        encoded = backbone.encode_whole(prepared.resized, stretched_size(prepared.plan.size, backbone.patch_size))
    return Features(prepared.size, prepared.plan, encoded.patches, encoded.class_tokens)


def non_finite_error(backbone: Backbone) -> DeviceError:
    """Return the error for an image whose features contain infinity or NaN."""
    return DeviceError(
        backbone.device_name,
        f"the model returned infinity or NaN in {backbone.dtype_name} on {backbone.device_name}",
        "Run tipsseg doctor." if backbone.dtype_name == "float32" else "Use dtype float32, and run tipsseg doctor.",
    )
