"""Label rasters with coordinates: GeoTIFF and JPEG 2000 in, GeoTIFF masks and polygons out."""

from tipsseg.say import NOTES

NOTES |= {
    "geo.in_pixels": "{image} has no coordinates{more}: places are in pixels, with y downwards.",
}
