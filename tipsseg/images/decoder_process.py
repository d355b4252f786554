"""Decode an image to a TIFF on stdout, for `decode_apart`: python -m tipsseg.images.decoder_process PATH SECONDS PIXELS."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.images.apart import REPORTED
from tipsseg.images.decoding import catch_pillow_errors, open_header
from tipsseg.images.pillow import silence_decoders


def main() -> None:
    path, seconds, pixels = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with suppress(ImportError):  # Windows lacks this module, so only the caller's timeout applies there
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    silence_decoders()
    try:
        with open_header(path, pixels) as image, catch_pillow_errors(path, pixels):
            image.picture.load()
            plain = image.picture.copy()  # a copy has no format, so its metadata are not written
            plain.info.clear()
            plain.save(sys.stdout.buffer, "TIFF", compression=None, big_tiff=True)
    except ImageError as error:
        sys.stderr.write(json.dumps({"reason": error.reason, "hint": error.hint}))
        sys.exit(REPORTED)


if __name__ == "__main__":
    main()
