"""The `tipsseg serve` command: a machine-learning backend for Label Studio."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.options import LabelOptions
from tipsseg.options.fields import FILES, IMAGES, OTHER, WHAT, option
from tipsseg.options.run import ComputeOptions

EPILOG = """\b
Examples:
  tipsseg serve
  tipsseg serve -m b14 --features feats/ --port 9091

\b
In Label Studio: Settings, Model, Connect Model, with the printed URL. The labels
of the project are the phrases. "Start Training" fits them to the submitted
annotations, in the folder fits/. Ends with Ctrl-C.
LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: address and access token, to read
uploaded images and annotations.
Exit code: 0 success, 1 error, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    # fmt: off
    host: str = option("127.0.0.1", metavar="ADDRESS", group=OTHER,
        help="Address to listen on. With 0.0.0.0, other machines can use the server, without a password.")
    port: int = option(9090, metavar="N", group=OTHER, min=0, help="Port to listen on.")
    background: str = option("auto", metavar="NAMES", group=WHAT,
        help='Background phrases: auto (a general list), none, or your own, such as "sky,wall".')
    fits: Path = option(Path("fits"), metavar="DIR", group=FILES,
        help="Folder for the trained vocabularies, one .fit file per project.")
    images: Path | None = option(None, metavar="DIR", group=IMAGES,
        help="Document root of Label Studio's local files, to read images from the disk.")
    quiet: bool = option(False, short="q", group=OTHER, help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG, no_args_is_help=False)
def serve(
    compute: Annotated[ComputeOptions, Only("model", "device", "dtype", "batch_size", "features", "max_pixels")],
    labelling: Annotated[LabelOptions, Only("min_confidence", "refine")],
    serving: Serving,
) -> None:
    """Serve predictions to Label Studio, and learn from its annotations."""
    from tipsseg.integrations import label_studio

    with open_progress(serving.quiet, results=False) as progress:
        backend = label_studio.Backend(
            compute,
            min_confidence=labelling.min_confidence,
            refine=labelling.refine,
            background=serving.background,
            fits=serving.fits,
            images=serving.images,
            note=progress.note,
        )
        with label_studio.serve(backend, serving.host, serving.port) as server:
            host = socket.gethostname() if serving.host == "0.0.0.0" else serving.host
            progress.note(f"Serving {compute.model} on http://{host}:{server.server_port}")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                progress.note("Stopped.")
                backend.close()
                os._exit(0)  # while Python ends, a thread that runs torch would abort the process
