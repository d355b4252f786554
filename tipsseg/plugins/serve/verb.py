"""Serve predictions to Label Studio."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import FILES, IMAGES, Opt, take_options
from tipsseg.options.records import ComputeOptions
from tipsseg.verbs.shared import Background

if TYPE_CHECKING:
    from tipsseg.say import Verbosity

_EPILOG = """\b
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

# fmt: off
_Host = Annotated[str, Opt(metavar="ADDRESS",
    help="Address to listen on. With 0.0.0.0, other machines can use the server, without a password.")]
_Port = Annotated[int, Opt(metavar="N", min=0, help="Port to listen on.")]
_Phrases = Annotated[Background, Opt(
    help='Background phrases: auto (a general list), none, or your own, such as "sky,wall".')]
_Fits = Annotated[str | Path, Opt(metavar="DIR", group=FILES,
    help="Folder for the trained vocabularies, one .fit file per project.")]
_Root = Annotated[str | Path | None, Opt(metavar="DIR", group=IMAGES,
    help="Document root of Label Studio's local files, to read images from the disk.")]
# fmt: on


@verb("serve", _EPILOG)
def serve(
    ask: Ask,
    *,
    model: opt.ModelName = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = None,
    use_cache: opt.UseCache = False,
    features: opt.Features = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    min_confidence: opt.MinConfidence = 0.0,
    refine: opt.Refine = "none",
    host: _Host = "127.0.0.1",
    port: _Port = 9090,
    background: _Phrases = "auto",
    fits: _Fits = Path("fits"),
    images: _Root = None,
    verbose: Verbosity = None,
) -> None:
    """Serve predictions to Label Studio, and learn from its annotations."""
    from tipsseg.plugins.serve import label_studio
    from tipsseg.say import progress_for

    with progress_for(verbose) as progress:
        backend = label_studio.Backend(
            take_options(ComputeOptions, ask.values),
            min_confidence=min_confidence,
            refine=refine,
            background=str(background),
            fits=Path(fits),
            images=None if images is None else Path(images),
            note=progress.say,
        )
        with label_studio.serve(backend, host, port) as server:
            name = socket.gethostname() if host == "0.0.0.0" else host
            progress.note("serve.serving", model=model, name=name, server_port=server.server_port)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                progress.note("serve.stopped")
                backend.close()
                os._exit(0)  # while Python ends, a thread that runs torch would abort the process
