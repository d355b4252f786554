"""Draw a georeferenced scene, cars and houses in UTM zone 32N with pixels of 0.25 m, and print the area of the cars.

python examples/raster/make_scene.py out/scene.tif
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

EXAMPLES = Path(__file__).resolve().parents[1]

#: (height, width) of a field in pixels, fields down and across, and metres per pixel.
FIELD, FIELDS, METRES = (240, 320), (10, 8), 0.25

#: The ids of the car's parts in examples/truth.
CAR = (18, 19)


def main() -> None:
    height, width = FIELD
    names = ("street/car.jpg", "meadow/house.webp")
    pictures = [Image.open(EXAMPLES / "scenes" / name).convert("RGB").resize((width, height)) for name in names]
    truth = Image.open(EXAMPLES / "truth/street/car.png").resize((width, height), Image.Resampling.NEAREST)

    rows, columns = FIELDS
    scene, cars = np.zeros((rows * height, columns * width, 3), np.uint8), 0
    for row in range(rows):
        for column in range(columns):
            kind = (row + column) % 2
            scene[row * height : (row + 1) * height, column * width : (column + 1) * width] = np.asarray(pictures[kind])
            cars += 0 if kind else int(np.isin(np.asarray(truth), CAR).sum())
    scene = scene.clip(1)
    scene[:100, -200:] = 0  # no data, as in the corner of a satellite scene

    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "nodata": 0, "tiled": True, "compress": "deflate"}
    size = {"height": scene.shape[0], "width": scene.shape[1]}
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, METRES, METRES)}
    with rasterio.open(sys.argv[1], "w", **profile, **size, **place) as target:
        target.write(scene.transpose(2, 0, 1))
    print(f"{scene.shape[0] * METRES:g} x {scene.shape[1] * METRES:g} m, {cars * METRES**2:.0f} m2 of cars")


if __name__ == "__main__":
    main()
