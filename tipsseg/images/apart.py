"""Decode images whose decoder cannot be stopped in a process of their own, which can.

Most decoders of Pillow ask for a file block by block, and can be ended at any of them. Those here take a file at once, in one call
that nothing ends; a file of some kilobytes can keep them busy for hours.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tipsseg.errors import ImageError

#: Formats whose decoder may take any time for any number of pixels.
_UNBOUND = frozenset({"JPEG2000", "ICNS"})  # the second may hold the first

#: Formats whose decoder takes a file at once, in a time that goes with the number of pixels.
_AT_ONCE = frozenset({"WEBP", "AVIF", "HEIF", "TIFF"})

#: So many pixels of those take about a second at the most, which nobody needs to stop; a process of its own takes a quarter of one.
_FEW = 16_000_000

#: The process may be kept waiting, by slow disks and busy machines, so many times as long as it may work.
_WAIT = 10

#: The exit code of a process that says what is wrong with the image: on the last line of stderr, in JSON.
TOLD = 3

# -P: what lies in the current folder is no module of ours.
_COMMAND = (sys.executable, "-P", "-m", "tipsseg.images.decoder_process")

_TILE_SIDES = (322, 323)  # tags of TIFF


class DecodingTimeoutError(Exception):
    """An image that takes too long to decode."""


def needs_own_process(image: Image.Image) -> bool:
    """Tell whether an open image should be decoded by `decode_apart`. Raises anything for a damaged file."""
    if image.format in _UNBOUND:
        return True
    return image.format in _AT_ONCE and _decoded_pixels(image) > _FEW


def _decoded_pixels(image: Image.Image) -> int:
    """Count the pixels that the decoder makes; that of TIFF makes whole tiles, however little of them belongs to the image."""
    width, height = image.size
    if image.format != "TIFF":
        return width * height
    if not any(tile[0] == "libtiff" for tile in getattr(image, "tile", ())):
        return 0  # not compressed, and read block by block
    tags = getattr(image, "tag_v2", {})
    if any(tag not in tags for tag in _TILE_SIDES):
        return width * height
    tile_width, tile_height = (int(tags[tag]) for tag in _TILE_SIDES)
    return -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height


def decode_apart(path: Path, seconds: int, pixels: int) -> Image.Image:
    """Decode the image in a file, without its metadata, in so many seconds of work at most, if it has no more `pixels`.

    Raises:
        ImageError: The file is broken or too large.
        DecodingTimeoutError: Decoding takes longer.
    """
    command = [*_COMMAND, os.fspath(path), str(seconds), str(pixels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    with tempfile.TemporaryFile() as result:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=subprocess.PIPE,
                timeout=seconds * _WAIT,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DecodingTimeoutError from error
        if done.returncode:
            raise _failure(path, done.returncode, done.stderr)
        result.seek(0)
        image = Image.open(result, formats=("TIFF",))
        image.load()
        image.getexif()  # read while the file is open
    return image


def _failure(path: Path, code: int, stderr: bytes) -> Exception:
    """Return the error for a decoder process that exited with `code` and wrote `stderr`."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return DecodingTimeoutError()
    lines = stderr.splitlines()
    if code == TOLD and lines:
        told = json.loads(lines[-1])
        return ImageError(path, told["reason"], told["hint"])
    what = (
        f"was ended by signal {-code}"
        if code < 0
        else f"failed ({lines[-1].decode(errors='replace') if lines else code})"
    )
    return ImageError(path, f"its decoder {what}", "Fetch the image again, or remove it.")
