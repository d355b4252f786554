"""The other side of `decode_apart`: `python -m tipsseg.images.decoder_process PATH SECONDS PIXELS` decodes an image into a TIFF."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.images.apart import TOLD
from tipsseg.images.decoding import faults_of, opened
from tipsseg.images.pillow import silence_decoders


def main() -> None:
    path, seconds, pixels = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with suppress(ImportError):  # not there on Windows, where the clock alone counts
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    silence_decoders()
    try:
        with opened(path, pixels) as image, faults_of(path, pixels):
            image.picture.load()
            plain = image.picture.copy()  # of no format, so that no metadata are written
            plain.info.clear()
            plain.save(sys.stdout.buffer, "TIFF", compression=None, big_tiff=True)
    except ImageError as error:
        sys.stderr.write(json.dumps({"reason": error.reason, "hint": error.hint}))
        sys.exit(TOLD)


if __name__ == "__main__":
    main()
