"""Labels of rasters larger than memory: GeoTIFF masks and polygons, with the coordinate system of the input.

A run writes them block by block; other formats need the labels of a whole image at once.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tipsseg.formats.base import Format, RunFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.types import LabelArray

#: Side of the tiles in GeoTIFF files, in pixels. Blocks are multiples of it, so that each tile is written once.
TILE = 512

#: The columns of a GeoPackage, with their types. An area of None becomes NaN.
_COLUMNS = {"class": "O", "class_id": "int32", "score": "float64", "area": "float64", "pixels": "int64"}

#: Polygons written at a time.
_CHUNK = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterGrid:
    """The grid of the labels of a raster.

    Attributes:
        size: (height, width) in pixels.
        transform: The affine transform from (column, row) to coordinates: a, b, c, d, e, f.
        crs: The coordinate system as WKT; "" if the raster has none.
        epsg: Its EPSG code, if it has one.
        ignore: The label id of pixels without data, and below the minimum confidence.
    """

    size: tuple[int, int]
    transform: tuple[float, ...]
    crs: str
    epsg: int | None
    ignore: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterBlock:
    """The labels of a part of a raster.

    Attributes:
        corner: (top, left) in pixels.
        labels: [h, w], the label ids.
        polygons: The polygons of its objects, as lines of GeoJSON features.
    """

    corner: tuple[int, int]
    labels: LabelArray
    polygons: Sequence[str]


#: A function that reads all blocks again, from top to bottom, then from left to right.
Blocks = Callable[[], Iterable[RasterBlock]]


class RasterFormat(Format):
    """A format that is written block by block, for rasters that rasterio opens."""

    needs_polygons: ClassVar[bool] = False

    @property
    def model_only(self) -> bool:
        """True for polygons, whose scores only the model has."""
        return self.needs_polygons

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        """Write the file of a raster. Raise OSError if that fails."""
        raise NotImplementedError


class GeoTiff(RasterFormat):
    name = "geotiff"
    description = "index masks of rasters, with their coordinates: masks/<image>.tif"
    folder = "masks"
    suffix = ".tif"

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        """Write a tiled, compressed GeoTIFF with a palette, the class names as tags `class_<id>`, and overviews."""
        import rasterio
        from rasterio.crs import CRS
        from rasterio.enums import Resampling
        from rasterio.transform import Affine
        from rasterio.windows import Window

        from tipsseg.images.raster import gdal

        height, width = grid.size
        wide = grid.ignore > 255
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "count": 1,
            "dtype": "uint16" if wide else "uint8",
            "nodata": grid.ignore,
            "transform": Affine(*grid.transform),
            "crs": CRS.from_wkt(grid.crs) if grid.crs else None,
            "tiled": True,
            "blockxsize": TILE,
            "blockysize": TILE,
            "compress": "deflate",
            "bigtiff": "if_safer",
        }
        with gdal():
            with rasterio.open(path, "w", **profile) as target:
                if not wide:
                    colours = {entry.id: (*entry.colour, 255) for entry in run.classes}
                    target.write_colormap(1, {0: (0, 0, 0, 255), **colours, grid.ignore: (0, 0, 0, 0)})
                target.update_tags(**{f"class_{entry.id}": entry.name for entry in run.classes})
                for block in blocks():
                    (top, left), (h, w) = block.corner, block.labels.shape
                    target.write(block.labels, 1, window=Window(left, top, w, h))
            factors = [factor for factor in (2, 4, 8, 16, 32, 64, 128) if max(grid.size) // factor >= TILE // 2]
            if factors:
                with rasterio.open(path, "r+") as target:
                    target.build_overviews(factors, Resampling.nearest)


class GeoJson(RasterFormat):
    name = "geojson"
    description = "polygons of rasters in their coordinates: polygons/<image>.geojson"
    folder = "polygons"
    suffix = ".geojson"
    needs_polygons = True

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        """Write a FeatureCollection. It names its CRS, as GDAL does, because GeoJSON itself allows only WGS 84."""
        head: dict[str, object] = {"type": "FeatureCollection"}
        if grid.epsg is not None:
            head["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{grid.epsg}"}}
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head)[:-1] + ', "features": [\n')
            first = True
            for line in _features(blocks):
                file.write(line if first else f",\n{line}")
                first = False
            file.write("\n]}\n")


class GeoPackage(RasterFormat):
    name = "gpkg"
    description = "polygons of rasters as a GeoPackage: polygons/<image>.gpkg"
    folder = "polygons"
    suffix = ".gpkg"
    needs_polygons = True

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        import numpy as np
        import pyogrio

        # A fixed date, so that equal labels give equal bytes.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
        lines, written = _features(blocks), False
        while (chunk := [json.loads(line) for line in islice(lines, _CHUNK)]) or not written:
            rows = [feature["properties"] for feature in chunk]
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # the run notes it
                    pyogrio.raw.write(
                        path,
                        np.array([wkb(feature["geometry"]) for feature in chunk], object),
                        [np.array([row[name] for row in rows], kind) for name, kind in _COLUMNS.items()],
                        list(_COLUMNS),
                        layer="labels",
                        driver="GPKG",
                        geometry_type="MultiPolygon",
                        crs=grid.crs or None,
                        append=written,
                    )
            except RuntimeError as error:  # all errors of pyogrio
                raise OSError(f"GDAL cannot write it: {error}") from error
            written = True


def _features(blocks: Blocks) -> Iterator[str]:
    for block in blocks():
        yield from block.polygons


def polygon_features(
    numbers: NDArray[np.uint32],
    objects: Sequence[tuple[int, str, float, int]],
    corner: tuple[int, int],
    grid: RasterGrid,
) -> list[str]:
    """Return the objects in a part of a raster as lines of GeoJSON features, in the order of `objects`.

    Args:
        numbers: [h, w], the number of the object at each pixel, from 1; 0 for none.
        objects: Class id, class name, score and pixels of each object.
        corner: (top, left) of the part in pixels.
        grid: The grid of the raster.
    """
    import numpy as np
    from rasterio.features import shapes
    from rasterio.transform import Affine

    a, b, _, d, e, _ = grid.transform
    shifted = Affine(*grid.transform) @ Affine.translation(corner[1], corner[0])
    rings: dict[int, list[Any]] = {}
    signed = numbers.astype(np.int32)
    for geometry, number in shapes(signed, mask=signed > 0, connectivity=4, transform=shifted):
        rings.setdefault(int(number), []).append(geometry["coordinates"])
    pixel_area, geographic = abs(a * e - b * d), is_geographic(grid)
    lines = []
    for number, (class_id, name, score, pixels) in enumerate(objects, start=1):
        area = None if geographic else round(pixels * pixel_area, 6)
        facts = {"class": name, "class_id": class_id, "score": round(score, 4), "area": area, "pixels": pixels}
        geometry = {"type": "MultiPolygon", "coordinates": rings[number]}
        record = {"type": "Feature", "properties": facts, "geometry": geometry}
        lines.append(json.dumps(record, ensure_ascii=False))
    return lines


def is_geographic(grid: RasterGrid) -> bool:
    """Return True if coordinates are degrees, in which areas mean nothing."""
    from rasterio.crs import CRS

    return bool(grid.crs) and CRS.from_wkt(grid.crs).is_geographic


def wkb(geometry: Mapping[str, Any]) -> bytes:
    """Encode a MultiPolygon as well-known binary (OGC 06-103r4)."""
    import numpy as np

    polygons = geometry["coordinates"]
    parts = [struct.pack("<BII", 1, 6, len(polygons))]
    for rings in polygons:
        parts.append(struct.pack("<BII", 1, 3, len(rings)))
        for ring in rings:
            parts.append(struct.pack("<I", len(ring)) + np.asarray(ring, "<f8").tobytes())
    return b"".join(parts)
