"""The `tipsseg correct` command: import corrected labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tipsseg.cli import options as opt
from tipsseg.cli.parameters import command
from tipsseg.cli.wording import open_progress, prints_paths
from tipsseg.errors import UsageError
from tipsseg.options.fields import keywords_of, option
from tipsseg.options.run import CorrectOptions, ReadingOptions

EPILOG = """\b
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Correcting:
    # fmt: off
    source: Path | None = option(None, flag="from", metavar="SOURCE",
        help="File, folder or zip archive with the corrected labels.")
    undo: list[str] | None = option(None, metavar="IMAGE",
        help="Discard the correction of this image: the next run labels the image again. Repeat the option for more images.")
    remove: list[str] | None = option(None, metavar="IMAGE",
        help="Remove this image with its labels, corrected or not. Repeat the option for more images.")
    jsonl: bool = option(False, help="Print one JSON object per corrected mask on stdout, instead of its path.")
    # fmt: on


@command(EPILOG)
def correct(
    output: opt.Folder,
    options: CorrectOptions,
    reading: ReadingOptions,
    correcting: Correcting,
    results: opt.Results,
    printing: opt.Quiet,
) -> int:
    """Import corrected labels from CVAT, LabelMe, Label Studio and others into an output folder."""
    from tipsseg.commands.correct.take import correct_folder, remove_images, undo_corrections
    from tipsseg.types import printable_path
    from tipsseg.util.json import json_bytes

    source, undo, jsonl = correcting.source, correcting.undo, correcting.jsonl
    if jsonl and results.null:
        raise UsageError(
            "--jsonl and --null exclude each other", "Remove --null: it separates paths, and --jsonl prints JSON lines."
        )
    given = [flag for flag, value in (("--from", source), ("--undo", undo), ("--remove", correcting.remove)) if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other", "Run one after the other.")
    prints = prints_paths(results.null) and not jsonl
    with open_progress(printing.quiet, results=prints, null=results.null) as progress:
        if undo is not None:
            undo_corrections(output, undo, dry_run=options.dry_run, verbose=progress)
            return 0
        if correcting.remove is not None:
            remove_images(output, correcting.remove, dry_run=options.dry_run, verbose=progress)
            return 0
        if source is None:
            raise UsageError("nothing to import", "Pass corrections with --from, or images with --undo or --remove.")
        result = correct_folder(output, source, verbose=progress, **keywords_of(options), **keywords_of(reading))
        for mask in result.masks if jsonl else ():
            record = {"image": mask.image, "mask": printable_path(mask.path), "changed": mask.changed}
            progress.text(json_bytes(record).decode() + "\n")
    return result.failed
