"""Write GeoTIFF masks and polygons, with the coordinates of the image."""

from __future__ import annotations

import json
import math
import shutil
import struct
import tempfile
import warnings
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsseg.errors import ImageError, UsageError
from tipsseg.formats.base import ImageLabels, RunFacts
from tipsseg.formats.blocks import (
    BlockFormat,
    BlockMask,
    Blocks,
    LabelBlock,
    PictureSettings,
    block_objects,
    block_places,
)
from tipsseg.plugins.geo.pictures import IN_PIXELS, RasterGrid, gdal, open_raster
from tipsseg.types import BlockPlace, ignore_id, label_dtype
from tipsseg.util.files import temporary_path
from tipsseg.util.text import pluralize, size_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipsseg.formats.blocks import Picture
    from tipsseg.images.decoding import ImageReader

#: Side of the tiles in GeoTIFF files, in pixels. Blocks are multiples of it, so that each tile is written once.
TILE = 512

#: The columns of a GeoPackage, with their types. A score or an area of None becomes NaN.
_COLUMNS = {"class": "O", "class_id": "int32", "score": "float64", "area": "float64", "pixels": "int64"}

#: Places that differ by at most this share of a pixel are the same: programs round coordinates.
_MOVED = 0.01

#: The size limit of unpacked scores, in bytes.
_SCORES_LIMIT = 1 << 30

#: Polygons written at a time.
_CHUNK = 10_000


#: The metadata items of a mask with what it says of itself, and with the scores of the objects in the blocks.
FACTS_TAG, SCORES_TAG = "TIPSSEG", "TIPSSEG_SCORES"


class RasterFormat(BlockFormat):
    """A format with the coordinates of the image, which rasterio reads."""

    mask = "geotiff"

    def check(self) -> None:
        try:
            import rasterio  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "geotiff, geojson and gpkg require rasterio", "Install it: pip install 'tipsseg[geo]'"
            ) from error

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        assert isinstance(image.grid, RasterGrid)
        place = BlockPlace(0, 0, 0, *image.size)
        blocks = [LabelBlock(place=place, labels=image.labels, objects=image.objects)]
        with tempfile.TemporaryDirectory(prefix="tipsseg-") as folder:
            path = Path(folder, f"labels{self.suffix}")
            self.write(path, image.grid, lambda: blocks, run)
            return path.read_bytes()

    def read_grid(self, path: Path, size: tuple[int, int], classes: int, reader: ImageReader) -> RasterGrid:
        """Read the grid of an image.

        The grid is in pixels, with y downwards, for an image without coordinates, and for one that EXIF data turn, as its
        coordinates do not fit its labels.
        """
        from tipsseg.images.access import local_file
        from tipsseg.images.upright import orientation_of

        with suppress(ImageError, OSError):
            with reader.header(path) as image:
                turned = orientation_of(image.picture) != 1
            with local_file(path) as file, open_raster(file, reader, classes) as raster:
                if not turned and raster.size == size:
                    return raster.grid
        return RasterGrid(size=size, transform=IN_PIXELS, crs="", epsg=None, ignore=ignore_id(classes))


class GeoTiff(RasterFormat, BlockMask):
    name = "geotiff"
    colours = True
    claim = "is georeferenced"
    setting = "raster"
    description = "index masks of rasters, with their coordinates: masks/<image>.tif"
    folder = "masks"
    suffix = ".tif"

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        self.write_mask(path, grid, blocks, run)

    def write_mask(
        self,
        path: Path,
        grid: RasterGrid,
        blocks: Blocks,
        run: RunFacts,
        facts: str = "",
        scores: NDArray[np.float64] | None = None,
    ) -> None:
        """Write a Cloud Optimized GeoTIFF with a palette, the class names as tags `class_<id>`, and overviews."""
        import rasterio
        from rasterio.crs import CRS
        from rasterio.transform import Affine
        from rasterio.windows import Window

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
            "sparse_ok": True,
        }
        tiles = temporary_path(path)  # its tiles have the order of the blocks
        try:
            with gdal(), rasterio.open(tiles, "w", **profile) as target:
                if not wide:
                    colours = {entry.id: (*entry.colour, 255) for entry in run.classes}
                    target.write_colormap(1, {0: (0, 0, 0, 255), **colours, grid.ignore: (0, 0, 0, 0)})
                target.update_tags(**{f"class_{entry.id}": entry.name for entry in run.classes})
                if facts:
                    target.update_tags(**{FACTS_TAG: facts})
                if scores is not None and len(scores):
                    target.update_tags(
                        **{SCORES_TAG: b64encode(zlib.compress(scores.astype("<f8").tobytes())).decode()}
                    )
                for block in blocks():
                    h, w = block.labels.shape
                    if (h, w) == (1, 1) and block.labels[0, 0] == grid.ignore:
                        continue  # a missing tile means no data
                    target.write(block.labels, 1, window=Window(block.place.left, block.place.top, w, h))
            _optimize(tiles, path)
        finally:
            tiles.unlink(missing_ok=True)

    @contextmanager
    def open_picture(self, path: Path, how: PictureSettings, classes: int) -> Iterator[Picture]:
        options, scale = how.picture, how.options.scales[0]
        with open_raster(path, how.reader, classes, options.bands, scale, options.ground_resolution) as raster:
            raster.stretch(how.reader.stretch)
            yield raster

    def copy_mask(self, path: Path, target: Path, facts: str, *, scored: bool = True) -> None:
        import rasterio

        tiles = temporary_path(target)
        try:
            shutil.copyfile(path, tiles)
            with gdal(), rasterio.open(tiles, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as mask:
                mask.update_tags(**{FACTS_TAG: facts, **({} if scored else {SCORES_TAG: ""})})
            _optimize(tiles, target)
        finally:
            tiles.unlink(missing_ok=True)

    def read_facts(self, path: Path) -> str:
        with _open_mask(path) as mask:
            return str(mask.tags().get(FACTS_TAG, ""))

    def read_mask_grid(self, path: Path, classes: int) -> RasterGrid:
        with _open_mask(path) as mask:
            crs = mask.crs
            return RasterGrid(
                size=mask.shape,
                transform=tuple(mask.transform)[:6],
                crs=crs.to_wkt() if crs else "",
                epsg=crs.to_epsg() if crs else None,
                ignore=ignore_id(classes),
            )

    def read_blocks(self, path: Path, run: RunFacts) -> Iterator[LabelBlock]:
        import numpy as np
        from rasterio.windows import Window

        with _open_mask(path) as mask:
            scores = iter(np.array([], np.float64))
            with suppress(ValueError, zlib.error):
                unpacker = zlib.decompressobj()
                packed = unpacker.decompress(b64decode(mask.tags().get(SCORES_TAG, "")), _SCORES_LIMIT)
                scores = iter(np.frombuffer(packed, "<f8"))
            for place in block_places(mask.shape):
                labels = mask.read(1, window=Window(place.left, place.top, place.width, place.height))
                yield LabelBlock(place=place, labels=labels, objects=block_objects(labels, run.classes, scores))

    def check_mask(self, path: Path, classes: int, size: tuple[int, int], facts: Mapping[str, object]) -> None:
        """Check that a mask has one band of the right type, and the grid of the labels.

        A mask without the facts of a grid may have any.
        """
        import numpy as np

        dtype = np.dtype(label_dtype(classes)).name
        grid = self.read_mask_grid(path, classes)
        with _open_mask(path) as mask:
            if mask.dtypes != (dtype,):
                raise ImageError(
                    path, f"{pluralize(mask.count, 'band')} of {mask.dtypes[0]}, expected 1 band of {dtype}"
                )
        if grid.size != size:
            raise ImageError(path, f"{size_text(grid.size)}, but the raster is labelled at {size[0]} x {size[1]}")
        transform = facts.get("transform")
        if isinstance(transform, list) and [type(each) for each in transform] == [float] * 6:
            a, _, _, d, _, _ = transform
            moved = np.abs(np.subtract(grid.transform, transform)).reshape(2, 3) @ (size[1], size[0], 1)
            if grid.epsg != facts.get("epsg") or not (moved <= _MOVED * math.hypot(a, d)).all():  # also for NaN
                raise ImageError(path, "its coordinates differ from its raster's")


class GeoJson(RasterFormat):
    name = "geojson"
    description = "polygons of rasters in their coordinates: polygons/<image>.geojson"
    folder = "polygons"
    suffix = ".geojson"
    needs = frozenset({"grid", "objects"})

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        """Write a FeatureCollection. It names its CRS, as GDAL does, because GeoJSON itself allows only WGS 84.

        GDAL also reads WKT as a name, of a CRS without a code.
        """
        from rasterio.crs import CRS

        head: dict[str, object] = {"type": "FeatureCollection"}
        if grid.crs:
            code = CRS.from_wkt(grid.crs).to_authority()
            name = grid.crs if code is None else f"urn:ogc:def:crs:{'::'.join(code)}"
            head["crs"] = {"type": "name", "properties": {"name": name}}
        with path.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head)[:-1] + ', "features": [\n')
            first = True
            for line in _features(blocks(), grid, run):
                file.write(line if first else f",\n{line}")
                first = False
            file.write("\n]}\n")


class GeoPackage(RasterFormat):
    name = "gpkg"
    description = "polygons of rasters as a GeoPackage: polygons/<image>.gpkg"
    folder = "polygons"
    suffix = ".gpkg"
    needs = frozenset({"grid", "objects"})

    def write(self, path: Path, grid: RasterGrid, blocks: Blocks, run: RunFacts) -> None:
        import numpy as np
        import pyogrio

        # A fixed date, so that equal labels give equal bytes.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
        # The run notes it. For the whole process: `catch_warnings` would race with another thread's.
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        lines, written = _features(blocks(), grid, run), False
        while (chunk := [json.loads(line) for line in islice(lines, _CHUNK)]) or not written:
            rows = [feature["properties"] for feature in chunk]
            try:
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


def _features(blocks: Iterable[LabelBlock], grid: RasterGrid, run: RunFacts) -> Iterator[str]:
    """Yield the objects of a raster as lines of GeoJSON features, joined across blocks."""
    import numpy as np

    from tipsseg.plugins.geo.joining import ObjectJoiner

    joiner = ObjectJoiner(grid.size, run.classes, by_class=run.files.instances == "class")
    least, names = run.files.min_area.pixels(grid.size), {entry.id: entry.name for entry in run.classes}
    a, b, c, d, e, f = grid.transform
    pixel_area, geographic = abs(a * e - b * d), is_geographic(grid)
    for block in blocks:
        for each in joiner.add(block.place, block.objects):
            if each.area < least:
                continue
            corners = ((ring.T for ring in polygon) for polygon in each.polygons)
            rings = [[np.stack([c + x * a + y * b, f + x * d + y * e], 1).tolist() for x, y in own] for own in corners]
            facts = {
                "class": names[each.class_id],
                "class_id": each.class_id,
                "score": None if math.isnan(each.score) else round(each.score, 4),
                "area": None if geographic else round(each.area * pixel_area, 6),
                "pixels": each.area,
            }
            geometry = {"type": "MultiPolygon", "coordinates": rings}
            record = {"type": "Feature", "properties": facts, "geometry": geometry}
            yield json.dumps(record, ensure_ascii=False)


def _optimize(tiles: Path, path: Path) -> None:
    """Write a GeoTIFF mask as a Cloud Optimized GeoTIFF."""
    import rasterio.shutil

    how = {"blocksize": TILE, "compress": "deflate", "resampling": "nearest", "bigtiff": "if_safer", "sparse_ok": True}
    with gdal():
        rasterio.shutil.copy(tiles, path, driver="COG", **how)


@contextmanager
def _open_mask(path: Path) -> Iterator[Any]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with gdal(), rasterio.open(path, driver="GTiff") as mask:
            yield mask
    except RasterioError as error:
        raise ImageError(path, "the mask cannot be read") from error


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
