"""Georeferenced scenes, drawn from the pictures in examples/scenes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"


def drawn(height: int, width: int) -> NDArray[np.uint8]:
    """Pictures of the scenes side by side, [height, width, 3]."""
    names = ["street/car.jpg", "desert.png", "meadow/panda-and-tree.jpg", "beach/holiday.jpg"]
    tiles = [np.asarray(Image.open(SCENES / name).convert("RGB").resize((300, 300))) for name in names]
    rows = [
        np.concatenate([tiles[(row + 3 * column) % 4] for column in range(-(-width // 300))], 1)
        for row in range(-(-height // 300))
    ]
    return np.ascontiguousarray(np.concatenate(rows)[:height, :width])


class PixelPicture:
    """A picture in memory, read in parts (see `tipsseg.formats.blocks.Picture`)."""

    grid: Any = None
    about = ""
    remarks = ()

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self.size: tuple[int, int] = pixels.shape[0], pixels.shape[1]

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        return self._pixels[top : top + height, left : left + width]

    def valid(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
        return np.ones((height, width), np.bool_)


def write_raster(path: Path, pixels: NDArray[Any], *, metres: float = 0.5, **options: Any) -> Path:
    """Write a GeoTIFF in UTM zone 32N of pixels [H, W, bands]; `crs=None` writes one without coordinates."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.transform import from_origin

    height, width, bands = pixels.shape
    path.parent.mkdir(exist_ok=True)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": pixels.dtype,
        "crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, metres, metres), "tiled": True,
    }  # fmt: skip
    if "crs" in options and options["crs"] is None:
        del profile["transform"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{**profile, **options}) as target:
            target.write(pixels.transpose(2, 0, 1))
    return path
