"""Store the features of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tipsseg.ask import Ask, verb
from tipsseg.errors import UsageError, Words
from tipsseg.folder.outcome import FolderImage, summed
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.verbs.shared import DryRun, Inputs

if TYPE_CHECKING:
    from tipsseg.say import Verbosity

_EPILOG = """\b
Examples:
  tipsseg encode photos/ -o feats
  tipsseg label photos/ -c "panda leg,tree" --features feats
  tipsseg encode photos/ -o feats --dry-run        (estimate the disk space)
  tipsseg encode photos/ -o feats --shard 3/8      (part 3 of 8)

\b
Identifies images by content: a changed image is encoded again, a moved image
is not. Run the same command again to resume. Paths of feature files go to
stdout unless it is a terminal, everything else to stderr.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage, 130 or 143
interrupted.
"""


@verb("encode", _EPILOG, prints="files", jsonl="Print one JSON object per image on stdout, instead of paths.")
def iter_encode_folder(
    ask: Ask,
    images: Inputs,
    output: opt.Store,
    *,
    model: opt.ModelName = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = None,
    use_cache: opt.UseCache = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    feature_dtype: opt.StoreDtype = None,
    shard: opt.ShardOfStore = None,
    mode: opt.ViewMode = "slide",
    short_side: opt.ShortSide = None,
    stretch: opt.Stretch = None,
    scales: opt.Scales = (1.0,),
    sample: opt.Sample = None,
    every: opt.EveryFrame = None,
    dry_run: DryRun = False,
    verbose: Verbosity = None,
) -> Iterator[FolderImage]:
    """Store the features of images in a folder, to label the images again without encoding.

    Images are encoded only while the results are consumed.

    Args:
        images: See `label_folder`.
        output: The feature folder. Images with features in it are not encoded again.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The images, in order, once their features are stored; with `dry_run` as they would be.

    Raises:
        TipssegError: The run cannot start or continue.
    """
    from tipsseg.folder.find import choice_of
    from tipsseg.labelling.encode import encode_images, encode_spec, estimate_store
    from tipsseg.say import progress_for

    choice = choice_of(ask.values)
    spec = encode_spec(ask.values)
    progress = progress_for(verbose)
    if dry_run and progress.jsonl:
        raise UsageError(Words("{dry_run} prints paths, but lines of JSON are records of features"), "Use one of them.")
    work = estimate_store if dry_run else encode_images
    return work(spec, choice, progress)


encode_folder = summed(
    iter_encode_folder,
    """Encode images and store their features in a folder, as `tipsseg encode` does.

        tipsseg.encode_folder("photos/", "feats")
        tipsseg.label_folder("photos/", ["car", "road"], features="feats")      # does not run the model again

    Args:
        images: See `label_folder`.
        output: The feature folder. Images with features in it are not encoded again.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        A FolderSummary: iterate over it for the FolderImage of each image, with its files and error. A bad image does not end
        the run.

    Raises:
        TipssegError: The run cannot start or continue.
    """,
)
