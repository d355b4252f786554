"""Learn classes from corrected masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import FILES, Opt, take_options
from tipsseg.options.records import ComputeOptions
from tipsseg.verbs.shared import Labelled, Moved

if TYPE_CHECKING:
    from tipsseg.learning.vectors import Fit
    from tipsseg.say import Verbosity

_EPILOG = """\b
Examples:
  tipsseg fit labels/ -o farm.fit
  tipsseg fit labels/ -o farm.fit --features feats  (reuse stored features)
  tipsseg correct labels/ --from masks/ --accept && tipsseg fit labels/ -o farm.fit
  tipsseg label photos/ --vocab farm.fit -o better

\b
Learns from the masks of OUT that a person corrected, with the run's model and classes.
Ignores pixels with id 255. A class that the masks lack, or that they do not
improve, keeps its text vector. Can learn classes that the model has no words
for. Prints the IoU per class on held-out images on stdout, and everything else
on stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""

# fmt: off
_Target = Annotated[str | Path | None, Opt(metavar="FILE", flag="output", short="o", group=FILES, required=True,
    help="File to write, with the suffix .fit.")]
_Overwrite = Annotated[bool, Opt(group=FILES, help="Replace an existing file.")]
# fmt: on


@verb("fit", _EPILOG, json="Print the scores as one JSON object.")
def fit_folder(
    ask: Ask,
    output: Labelled,
    target: _Target = None,
    *,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
    features: opt.Features = None,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    use_cache: opt.UseCache = False,
    overwrite: _Overwrite = False,
    images: Moved = None,
    verbose: Verbosity = None,
) -> Fit:
    """Learn classes from the corrected masks of a few images, for label --vocab.

    Fits the classes of a run to the masks in its output folder that a person edited. Images are encoded as the run did, at scale 1.
    To learn from ground-truth masks, import them with `correct_folder` first.

        fit = tipsseg.learn.fit_folder("labels", "farm.fit")
        print(fit.table())

    Args:
        output: The output folder of `label_folder`.
        target: The file to write, with the suffix .fit. None writes nothing.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The fit: `fitted`, to pass as classes; the numbers of `images` it was fitted to and of `failed` ones; `table()`; and
        `record()`, the scores as JSON values.

    Raises:
        UsageError: `target` has another suffix.
        InputError: Fewer than two masks were edited, or `output` is not the folder of a finished run. Or the masks improve no
            class; then nothing is written, and `result` of the error is the fit.
        OutputError: `target` exists, or cannot be written.
        TipssegError: The run cannot start or continue.
    """
    from tipsseg.learning.vectors import check_target, fit_masks
    from tipsseg.say import progress_for

    path = None if target is None else Path(target)
    if path is not None:
        check_target(path, overwrite=overwrite)
    compute = take_options(ComputeOptions, ask.values)
    with progress_for(verbose) as progress:
        return fit_masks(Path(output), None if images is None else Path(images), compute, path, progress)
