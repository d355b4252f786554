"""Decode images in a separate process if their decoder cannot be interrupted.

Most decoders of Pillow read a file block by block, and can be stopped between blocks. The decoders here read a file in one call
that cannot be stopped, and a file of a few kilobytes can keep them busy for hours.
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

#: Formats whose decoding time is not bounded by the number of pixels.
_UNBOUNDED = frozenset({"JPEG2000", "ICNS"})  # ICNS may contain JPEG 2000

#: Formats that are decoded in one call, in a time proportional to the number of pixels.
_ONE_CALL = frozenset({"WEBP", "AVIF", "HEIF", "TIFF"})

#: Up to this many pixels, those formats take at most about a second, so they need no process, which takes 0.25 s to start.
_FEW = 16_000_000

#: Timeout as a multiple of the CPU time limit, to allow for slow disks and busy machines.
_WAIT = 10

#: Exit code of a process that reports an image fault as JSON on the last line of stderr.
REPORTED = 3

# -P: do not import modules from the current folder.
_COMMAND = (sys.executable, "-P", "-m", "tipsseg.images.decoder_process")

_TILE_SIDES = (322, 323)  # TIFF tags


class DecodingTimeoutError(Exception):
    """An image took too long to decode."""


def needs_own_process(image: Image.Image) -> bool:
    """Return True if `decode_apart` must decode this open image. A damaged file may raise any exception."""
    if image.format in _UNBOUNDED:
        return True
    return image.format in _ONE_CALL and _decoded_pixels(image) > _FEW


def _decoded_pixels(image: Image.Image) -> int:
    """Count the pixels that the decoder produces. For TIFF, these are whole tiles, which may reach beyond the image."""
    width, height = image.size
    if image.format != "TIFF":
        return width * height
    if not any(tile[0] == "libtiff" for tile in getattr(image, "tile", ())):
        return 0  # not compressed, so read block by block
    tags = getattr(image, "tag_v2", {})
    if any(tag not in tags for tag in _TILE_SIDES):
        return width * height
    tile_width, tile_height = (int(tags[tag]) for tag in _TILE_SIDES)
    return -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height


def decode_apart(path: Path, file: Path, seconds: int, pixels: int) -> Image.Image:
    """Decode an image in another process, without its metadata.

    Args:
        path: The address of the image, for errors.
        file: Its file.
        seconds: Limit on the CPU time.
        pixels: Limit on the number of pixels.

    Raises:
        ImageError: The file is broken or too large.
        DecodingTimeoutError: Decoding takes longer than the limit.
    """
    command = [*_COMMAND, os.fspath(file), str(seconds), str(pixels)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
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
        image.getexif()  # Pillow reads it lazily, and the file is about to close
    return image


def _failure(path: Path, code: int, stderr: bytes) -> Exception:
    """Return the error for a decoder process that exited with `code` and wrote `stderr`."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return DecodingTimeoutError()
    lines = stderr.splitlines()
    if code == REPORTED and lines:
        report = json.loads(lines[-1])
        return ImageError(path, report["reason"], report["hint"])
    failure = (
        f"was killed by signal {-code}"
        if code < 0
        else f"failed ({lines[-1].decode(errors='replace') if lines else code})"
    )
    return ImageError(path, f"its decoder {failure}", "Download the image again, or remove it.")
