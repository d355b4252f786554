"""Read rasters by windows with rasterio, so that memory does not grow with the raster.

Importing this module does not import rasterio.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, Words
from tipsseg.images.access import open_source
from tipsseg.images.decoding import ImageReader
from tipsseg.images.upright import stretch_limits, to_bytes
from tipsseg.types import ignore_id

#: The transform of a grid in pixels.
IN_PIXELS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

#: GDAL drivers that read a file by itself. Others, such as VRT, may open other files or the network.
DRIVERS = ("GTiff", "JP2OpenJPEG", "PNG", "JPEG")

#: Drivers that decode a whole image to read a window of it.
_WHOLE = frozenset({"PNG", "JPEG"})

#: Longest side of the picture from which percentiles are computed, in pixels.
_SAMPLE = 1024

#: Values of 16 bits below it fill an eighth of their range.
_DARK = 8192

#: Limits of the scale.
_SMALLEST, _LARGEST = 1 / 1024, 8

#: TIFF's tags of a scale and tie points, or of an affine transform (OGC 19-008r4).
_GEOTIFF = frozenset({33922, 34264})

#: Tags read, of which a TIFF has at most as many; a BigTIFF may declare any number.
_MOST_TAGS = 65535

#: The mark of coordinates in a JPEG 2000 file (GeoJP2 1.0.3), in its first bytes.
_GEOJP2, _HEADER = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"), 1 << 16

#: Bytes that GDAL caches; its default is a share of the machine's memory.
_CACHE_BYTES = 64 << 20


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

    @property
    def facts(self) -> Mapping[str, object]:
        return {"transform": list(self.transform), "epsg": self.epsg}

    @property
    def remark(self) -> str:
        return "geo.in_pixels" if self.transform == IN_PIXELS else ""


class Raster:
    """An open raster, read on the grid of its labels: its own pixels, scaled by `scale`.

    Attributes:
        size: (height, width) of that grid.
        grid: The grid.
        about: The height of a pixel of the grid, such as " of 0.5 metre"; "" without a coordinate system.
        remarks: Properties of the raster that make its labels or polygons doubtful.
    """

    def __init__(self, path: Path, dataset: Any, classes: int, bands: Sequence[int] | None, scale: float) -> None:
        self._path, self._dataset = path, dataset
        self._bands = list(bands or ((1, 2, 3) if dataset.count >= 3 else (1,)))
        self._palette = None if bands else _palette_of(dataset)  # [256, 3] uint8
        height, width = dataset.height, dataset.width
        self.size = max(round(height * scale), 1), max(round(width * scale), 1)
        self._steps = height / self.size[0], width / self.size[1]
        matrix = dataset.transform @ dataset.transform.scale(self._steps[1], self._steps[0])
        crs = dataset.crs
        self.grid = RasterGrid(
            size=self.size,
            transform=tuple(matrix)[:6],
            crs=crs.to_wkt() if crs else "",
            epsg=crs.to_epsg() if crs else None,
            ignore=ignore_id(classes),
        )
        unit = (crs.linear_units if crs.is_projected else "degree") if crs else ""
        self.about = f" of {float(np.hypot(matrix.b, matrix.e)):g} {unit}" if unit else ""
        self._limits = [(0.0, 255.0)] * len(self._bands)  # the values that become black and white
        self.remarks: list[str] = []
        if not crs and dataset.transform.is_identity:
            self.remarks.append("it has no coordinate system, so polygons are in pixels, with y downwards.")
        elif not crs:
            self.remarks.append(
                "it has a grid without a coordinate system; coordinates and areas are in units of that grid."
            )

    def stretch(self, percentiles: tuple[float, float] | None) -> None:
        """Choose how values become 8 bits: from the percentiles of each band, or by the dtype if None.

        Raise ImageError if the dtype needs percentiles.
        """
        if self._palette is not None:
            if percentiles is not None:
                raise ImageError(
                    self._path, "the colours of a palette cannot be stretched", Words("Leave out {stretch}.")
                )
            return
        dtypes = {self._dataset.dtypes[band - 1] for band in self._bands}
        highest = 255.0 if dtypes <= {"uint8"} else 65535.0 if dtypes <= {"uint16"} else None
        is_complex = any(each.startswith("complex") for each in dtypes)
        if is_complex or (percentiles is None and highest is None):
            raise ImageError(
                self._path,
                f"values of type {', '.join(sorted(dtypes))} have no 8-bit equivalent",
                "Save their magnitudes as floats."
                if is_complex
                else Words("Set {stretch} to percentiles that become black and white, for example 2,98."),
            )
        if percentiles is not None:
            self._limits = [stretch_limits(band.compressed(), percentiles) for band in self._sample()]
        elif highest is not None:
            self._limits = [(0.0, highest)] * len(self._bands)
        if "MINISWHITE" in self._dataset.tags(ns="IMAGE_STRUCTURE"):
            self._limits = [(high, low) for low, high in self._limits]
        elif (
            percentiles is None
            and highest == 65535
            and 0 < (reached := int(self._sample().compressed().max(initial=0))) < _DARK
        ):
            self.remarks.append(
                Words(
                    "its values reach {reached} of 65,535, so the model sees a dark image; set {stretch}=2,98.",
                    reached=f"{reached:,}",
                )
            )

    def _sample(self) -> Any:
        """Return the bands at a small size, masked where there are no data, [bands, h, w]. Raise ImageError as `read` does."""
        height, width = self._dataset.height, self._dataset.width
        shrink = max(height, width, _SAMPLE) / _SAMPLE
        shape = len(self._bands), max(round(height / shrink), 1), max(round(width / shrink), 1)
        values = self._call(self._dataset.read, out_shape=shape, masked=True)
        return np.ma.masked_invalid(values, copy=False) if values.dtype.kind == "f" else values

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a part of the grid, [h, w, 3] uint8 RGB. Raise ImageError if the file is broken."""
        from rasterio.enums import Resampling

        whole = self._steps == (1.0, 1.0) or self._palette is not None  # means of indices are other colours
        method = Resampling.nearest if whole else Resampling.cubic if max(self._steps) < 1 else Resampling.average
        values = self._call(self._dataset.read, resampling=method, **self._part(top, left, height, width))
        if self._palette is not None:
            return self._palette[values[0]]
        if values.dtype.kind == "f":
            values = np.nan_to_num(values, copy=False)
        pixels = np.empty((height, width, len(self._bands)), np.uint8)
        for index, band in enumerate(values):
            is_plain = band.dtype == np.uint8 and self._limits[index] == (0, 255)
            pixels[..., index] = band if is_plain else to_bytes(band, *self._limits[index])
        return np.repeat(pixels, 3, axis=2) if len(self._bands) == 1 else pixels

    def _is_hole(self, top: int, left: int, height: int, width: int) -> bool:
        """Return True if a sparse GeoTIFF has no tile in a part of the grid, and its missing tiles mean no data."""
        dataset = self._dataset
        if dataset.driver != "GTiff" or dataset.nodata is None:
            return False
        down, across = self._steps
        tile_height, tile_width = dataset.block_shapes[0]
        bands = [1] if dataset.interleaving is None or dataset.interleaving.value == "PIXEL" else self._bands
        rows = range(int(top * down) // tile_height, -(-int(np.ceil((top + height) * down)) // tile_height))
        columns = range(int(left * across) // tile_width, -(-int(np.ceil((left + width) * across)) // tile_width))
        return all(
            dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band) is None
            for band in bands
            for row in rows
            for column in columns
        )

    def valid(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return True at pixels of a part of the grid with data in all bands, [h, w]; [1, 1] in a hole. Raise as `read` does."""
        from rasterio.enums import Resampling

        if self._is_hole(top, left, height, width):
            return np.zeros((1, 1), np.bool_)
        part = self._part(top, left, height, width)
        masks = self._call(self._dataset.read_masks, resampling=Resampling.nearest, **part)
        valid = np.asarray(masks.all(axis=0))
        if any(self._dataset.dtypes[band - 1].startswith("float") for band in self._bands):
            values = self._call(self._dataset.read, resampling=Resampling.nearest, **part)
            valid &= np.isfinite(values).all(axis=0)
        return valid

    def _part(self, top: int, left: int, height: int, width: int) -> dict[str, Any]:
        """Return the arguments of rasterio for a part of the grid."""
        from rasterio.windows import Window

        down, across = self._steps
        window = Window(left * across, top * down, width * across, height * down)
        return {"window": window, "out_shape": (len(self._bands), height, width)}

    def _call(self, read: Callable[..., Any], **how: Any) -> Any:
        from rasterio.errors import RasterioError

        try:
            return read(self._bands, **how)
        except (RasterioError, OSError, ValueError) as error:
            reason = "broken raster: a part of it cannot be read"
            raise ImageError(self._path, reason, "Download the file again.") from error


@contextmanager
def gdal() -> Iterator[None]:
    """Bound the memory of GDAL, keep it from files beside the raster, and silence its warning for rasters without coordinates."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    # For the whole process: `catch_warnings` would race with another thread's.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED="NO"):
        yield


@contextmanager
def open_raster(
    path: Path,
    reader: ImageReader,
    classes: int,
    bands: Sequence[int] | None = None,
    scale: float = 1.0,
    ground_resolution: float | None = None,
) -> Iterator[Raster]:
    """Open a local raster.

    Args:
        path: The file.
        reader: Its limit is for PNG and JPEG files, which are decoded whole.
        classes: The number of classes of its labels.
        bands: The bands for red, green and blue, or one band for grey, from 1. None: the first three, or the first.
        scale: The factor from the raster's pixels to pixels of the labels.
        ground_resolution: The side of a pixel of the labels in units of the coordinate system, instead of `scale`.

    Raises:
        ImageError: The file is not a raster, has too few bands, or cannot be scaled to the resolution.
    """
    import rasterio
    from rasterio.errors import RasterioError

    if not os.path.isfile(path):  # noqa: PTH113  GDAL would take names such as /vsicurl/... for other places
        raise ImageError(path, "no such file" if not os.path.lexists(path) else "not a file")
    with gdal():
        dataset = None
        for driver in DRIVERS:
            with suppress(RasterioError):
                dataset = rasterio.open(path, driver=driver)
                break
        if dataset is None:
            reason = "not a GeoTIFF, JPEG 2000, PNG or JPEG file, or broken"
            raise ImageError(path, reason, "Convert it: gdal_translate -of COG IN OUT.tif.")
        with dataset:
            _check(path, dataset, bands, reader.max_pixels)
            yield Raster(path, dataset, classes, bands, _scale(path, dataset, scale, ground_resolution))


def preferred_format(path: Path) -> str:
    """Return the format in which an image with coordinates is labelled; "" for another image."""
    return "geotiff" if has_coordinates(path) else ""


def has_coordinates(path: Path) -> bool:
    """Return True for a TIFF of any bands, or a JPEG 2000 file, with coordinates; False also for a file that cannot be read."""
    with suppress(OSError, ValueError, OverflowError, struct.error), open_source(path) as file:
        head = file.read(_HEADER)
        return _GEOJP2 in head if head[4:8] == b"jP  " else not _GEOTIFF.isdisjoint(_tiff_tags(file, head))
    return False


def _tiff_tags(file: FileIO | BytesIO, head: bytes) -> list[int]:
    """Return the tags of the first picture in a TIFF or BigTIFF; none for another file. Raise struct.error if it is cut off."""
    order = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}.get(head[:4])
    if order is None:
        return []
    start, number, entry = ("8xQ", "Q", "H18x") if b"+" in head[:4] else ("4xI", "H", "H10x")
    file.seek(struct.unpack_from(order + start, head)[0])
    (count,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
    entries = file.read(min(count, _MOST_TAGS) * struct.calcsize(order + entry))
    return [tag for (tag,) in struct.iter_unpack(order + entry, entries)]


def _palette_of(dataset: Any) -> NDArray[np.uint8] | None:
    """Return the colours of a single band of indices, [256, 3] uint8; None for other rasters."""
    from rasterio.enums import ColorInterp

    if dataset.count != 1 or dataset.colorinterp[0] != ColorInterp.palette or dataset.dtypes[0] != "uint8":
        return None
    palette = np.zeros((256, 3), np.uint8)
    for index, colour in dataset.colormap(1).items():
        palette[index] = colour[:3]
    return palette


def _check(path: Path, dataset: Any, bands: Sequence[int] | None, max_pixels: int) -> None:
    if bands is not None and max(bands) > dataset.count:
        raise ImageError(path, f"no band {max(bands)}: it has {dataset.count}", f"Choose from 1 to {dataset.count}.")
    if dataset.gcps[0]:
        raise ImageError(
            path, "it has ground control points in place of a grid", "Compute its grid: gdalwarp IN OUT.tif."
        )
    if not np.isfinite(tuple(dataset.transform)).all():
        raise ImageError(
            path, "its coordinates are not finite", "Set them: gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM IN."
        )
    pixels = dataset.height * dataset.width
    if dataset.driver in _WHOLE and pixels > max_pixels:
        raise ImageError(
            path,
            f"a {dataset.driver} of {pixels:,} pixels cannot be read by windows; the limit is {max_pixels:,}",
            Words("Convert it: gdal_translate -of COG IN OUT.tif. Or raise the limit with {max_pixels}."),
        )


def _scale(path: Path, dataset: Any, scale: float, ground_resolution: float | None) -> float:
    if ground_resolution is None:
        return scale
    if dataset.crs is None or not dataset.crs.is_projected:
        reason = "it has no coordinate system" if dataset.crs is None else "its coordinate system is not projected"
        raise ImageError(
            path,
            Words("{ground_resolution} cannot be used: {reason}", reason=reason),
            Words("Use {scales} instead, a factor of the pixel size, or project the raster: gdalwarp."),
        )
    a, b, _, d, e, _ = tuple(dataset.transform)[:6]
    own = float(np.sqrt(np.hypot(b, e) * np.hypot(a, d)))
    found = own / ground_resolution
    if not _SMALLEST <= found <= _LARGEST:  # also True for NaN
        raise ImageError(
            path,
            Words(
                "its pixels have a side of {own}, too far from {ground_resolution}={length}",
                own=f"{own:g}",
                length=f"{ground_resolution:g}",
            ),
            f"Choose a length from {own / _LARGEST:g} to {own / _SMALLEST:g}.",
        )
    return found
