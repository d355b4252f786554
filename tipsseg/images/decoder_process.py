"""The other side of `decode_apart`: `python -m tipsseg.images.decoder_process PATH SECONDS PIXELS` decodes an image into a TIFF."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.images import decoding as images
from tipsseg.images.apart import TOLD


def main() -> None:
    """Decode one image, or say on stderr what is wrong with it."""
    path, seconds, pixels = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with suppress(ImportError):  # not there on Windows, where the clock alone counts
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    images.limit_pixels(pixels)
    try:
        with images.opened(path) as image, images.faults_of(path):
            image.load()
            plain = image.copy()  # of no format, so that no metadata are written
            plain.info.clear()
            plain.save(sys.stdout.buffer, "TIFF", compression=None, big_tiff=True)
    except ImageError as error:
        sys.stderr.write(json.dumps({"reason": error.reason, "hint": error.hint}))
        sys.exit(TOLD)


if __name__ == "__main__":
    main()
