"""Compare the area of a class in a mask and in polygons, in square metres.

python examples/raster/areas.py OUT NAME CLASS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rasterio


def main() -> None:
    out, name, wanted = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with rasterio.open(out / "masks" / f"{name}.tif") as mask:
        ids = {text: int(key.removeprefix("class_")) for key, text in mask.tags().items() if key.startswith("class_")}
        across, down = mask.res
        pixels = int((mask.read(1) == ids[wanted]).sum())
    features = json.loads((out / "polygons" / f"{name}.geojson").read_text())["features"]
    areas = [each["properties"]["area"] for each in features if each["properties"]["class"] == wanted]
    print(f"{wanted}: {pixels * across * down:.0f} m2 in the mask, {sum(areas):.0f} m2 in {len(areas)} polygons")


if __name__ == "__main__":
    main()
