"""Measure the peak memory of `tipsseg label --format geotiff,geojson` on rasters of several sizes, with `tiny`.

    python tests/benchmarks/raster.py
    python tests/benchmarks/raster.py --sizes 10000x10000,60000x60000

A raster is labelled in a process of its own. Rasters above 200 million pixels have data in their first rows and columns only: those
of a block, 2,048 pixels, and no data elsewhere, as a scene that is turned to the north.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from models import machine
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"

#: Side of the pictures that a raster is made of; a tile of its file.
SIDE = 512

#: Pixels from which on a raster is mostly empty, and the width of its part with data.
LARGE, FILLED = 200_000_000, 2048

#: A run that prints its peak memory.
RUN = """
import resource, sys
from tipsseg.cli.main import main
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def write_scene(path: Path, height: int, width: int) -> float:
    """Write a raster, and return how many of its pixels have data."""
    names = sorted(path for path in SCENES.rglob("*.*") if path.suffix in (".jpg", ".png"))
    tiles = [
        np.asarray(Image.open(name).convert("RGB").resize((SIDE, SIDE))).clip(1).transpose(2, 0, 1) for name in names
    ]
    rng, filled = np.random.default_rng(0), 0
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "nodata": 0, "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_000_000, 0.5, 0.5), "tiled": True, "blockxsize": SIDE, "blockysize": SIDE,
        "compress": "deflate", "sparse_ok": True, "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        for top in range(0, height, SIDE):
            for left in range(0, width, SIDE):
                if height * width > LARGE and min(top, left) >= FILLED:
                    continue
                h, w = min(SIDE, height - top), min(SIDE, width - left)
                target.write(tiles[rng.integers(len(tiles))][:, :h, :w], window=Window(left, top, w, h))
                filled += h * w
    return filled / (height * width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="4000x4000,10000x10000,60000x60000", help="HEIGHTxWIDTH,...")
    print(machine("rasterio"))
    for size in parser.parse_args().sizes.split(","):
        height, width = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "scene.tif")
            filled = write_scene(path, height, width)
            arguments = [
                "label",
                str(path),
                "-m",
                "tiny",
                "-c",
                "panda,tree,house,car",
                "-f",
                "geotiff,geojson",
                "-o",
                f"{name}/out",
            ]
            began = time.monotonic()
            done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=True)
            seconds = time.monotonic() - began
            peak = int(re.findall(r"^peak (\d+)", done.stderr, re.MULTILINE)[-1]) / 1024
            millions = height * width * filled / 1e6
            print(
                f"{height} x {width}: {peak:6.0f} MB at the peak; {seconds:5.0f} s, {seconds / millions:.2f} s per million pixels "
                f"with data ({filled:.0%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
