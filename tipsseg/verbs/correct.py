"""Import corrected labels into an output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.errors import UsageError, Words
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import Opt, take_options
from tipsseg.options.records import CorrectOptions, ReadingOptions
from tipsseg.verbs.shared import Labelled

if TYPE_CHECKING:
    from tipsseg.folder.correct.take import Corrections
    from tipsseg.say import Verbosity

_EPILOG = """\b
Examples:
  tipsseg correct labels/ --from task-17.zip         a CVAT export
  tipsseg correct labels/ --from labels/labelme/     edited in LabelMe
  tipsseg correct better/ --from labels/             edited masks of a run
  tipsseg correct labels/ --from export.json --dry-run

\b
Matches images by the trailing part of their paths, and classes by name. Imports all
corrections or none. Corrected masks are kept by later commands, and all
other files of their images follow them. Paths of masks go to stdout unless it is a terminal,
everything else to stderr.
Exit code: 0 success, 1 error, 2 wrong usage.
"""


# fmt: off
_Source = Annotated[str | Path, Opt(flag="from", metavar="SOURCE",
    help="File, folder or zip archive with the corrected labels.")]
_Undo = Annotated[Sequence[str] | None, Opt(metavar="IMAGE", typed=list[str], check=tuple,
    help="Discard the correction of this image: the next run labels the image again. Repeat the option for more images.")]
_Remove = Annotated[Sequence[str] | None, Opt(metavar="IMAGE", typed=list[str], check=tuple,
    help="Remove this image with its labels, corrected or not. Repeat the option for more images.")]
# fmt: on


@verb(
    "correct",
    _EPILOG,
    prints="files",
    jsonl="Print one JSON object per corrected mask on stdout, instead of its path.",
)
def correct_folder(
    ask: Ask,
    output: Labelled,
    corrections: _Source | None = None,
    *,
    source_format: opt.SourceFormat = None,
    add_classes: opt.AddClasses = False,
    replace_edited: opt.ReplaceCorrected = False,
    accept: opt.Accept = False,
    images: opt.CorrectedImages = None,
    dry_run: opt.CheckOnly = False,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    undo: _Undo = None,
    remove: _Remove = None,
    verbose: Verbosity = None,
) -> Corrections:
    """Import corrected labels from CVAT, LabelMe, Label Studio and others into an output folder.

        tipsseg.review.correct_folder("labels", "task-17.zip")

    All corrections are imported, or none. The masks then count as edited by a person, and later commands keep them.

    Args:
        output: The output folder.
        corrections: The file, folder or zip that a labelling tool exported.
        undo: Images, by path or name, to give back to the model: with the labels that it made, or the next run labels them again.
        remove: Images, by path or name, to remove with their labels; a later run labels those whose pictures exist.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The corrections: `format`, `masks` (with `image`, `path`, the number of `changed` pixels, and `emptied`), `unchanged` and
        `unmatched` images, `uncorrected` images of a source run, new `classes`, `redrawn` objects, which are left unchanged
        although their edges differ, and the number of files that `failed` to follow. Empty with `undo` or `remove`.

    Raises:
        UsageError: The format is unknown.
        InputError: A correction cannot be imported, or an image is not there to be undone or removed. Nothing was changed.
        ImageError: A file of the corrections cannot be read. Nothing was changed.
        OutputError: The folder cannot be written.
    """
    from tipsseg.folder.correct import take
    from tipsseg.say import progress_for

    options, reading = take_options(CorrectOptions, ask.values), take_options(ReadingOptions, ask.values)
    with progress_for(verbose) as progress:
        if undo is not None:
            return take.undo(Path(output), undo, progress, dry_run=dry_run)
        if remove is not None:
            return take.remove(Path(output), remove, progress, dry_run=dry_run)
        if corrections is None:
            hint = Words("Pass corrections with {corrections}, or images with {undo} or {remove}.")
            raise UsageError("nothing to import", hint)
        return take.take_corrections(Path(output), Path(corrections), options, reading, progress)
