"""`tipsseg convert`: add formats to an output folder, or end one, without the model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, UsageError, Words
from tipsseg.folder.entry import FileRow
from tipsseg.folder.find import check_image_root
from tipsseg.folder.folder import OutputFolder, change_folder
from tipsseg.folder.job import Job
from tipsseg.folder.names import refuse_shared
from tipsseg.folder.notes import note_division, note_end, note_formats, note_settled, note_trashed
from tipsseg.folder.read import find_only, unlabelled_error
from tipsseg.folder.settle import Settled, settle_images
from tipsseg.folder.spec import Counts, RunInfo
from tipsseg.formats import (
    FORMATS,
    block_formats,
    check_extra,
    check_format,
    check_formats,
    format_name,
    is_model_only,
)
from tipsseg.options.records import FileOptions, ReadingOptions
from tipsseg.say import Progress
from tipsseg.util.text import pluralize


def convert_labels(
    output: Path,
    formats: Sequence[str],
    *,
    root: Path | None,
    only: Iterable[str | Path] | None,
    options: FileOptions,
    reading: ReadingOptions,
    progress: Progress,
) -> int:
    """Add formats to an output folder, and update all others. See `verbs.convert.convert_folder`; `root` has the images."""
    check_image_root(root)
    _check(formats)
    with change_folder(output, max_pixels=reading.max_pixels) as folder:
        folder.change(_with_formats(folder.info, formats, options, covers=only is None))
        names, unknown = None, list[Path]()
        if only is not None:
            names, unknown = find_only(folder.cache.entries(), map(Path, only), root)
            for path in unknown:
                progress.error(unlabelled_error(path, output))
            if not names:
                return len(unknown)
        refuse_shared(output, folder.context.files.names, formats, folder.cache.names())
        folder.write_record()
        if names is not None:
            _ask(folder, names, formats)
        return _settle(folder, formats, root, reading.jobs, progress, names) + len(unknown)


def _ask(folder: OutputFolder, images: Iterable[str], formats: Sequence[str]) -> None:
    """Note files of formats that the folder does not have as missing, so that `settle` writes them of these images."""
    for image in ("", *images):
        held = {*folder.context.formats, *(format_name(row.name) for row in folder.cache.files(image).values())}
        for name in (name for name in formats if name not in held):
            places = [name] if image else FORMATS[name].files
            folder.cache.note_files(image, [FileRow(place=place, name=name, digest="") for place in places])


def _with_formats(info: RunInfo, formats: Sequence[str], options: FileOptions, *, covers: bool) -> RunInfo:
    """Return a run with more formats, if all images are to be in them, and with the file options that the user gave."""
    spec, files = info.spec, info.spec.files
    if spec.block_mask and (others := [name for name in formats if name not in block_formats()]):
        raise InputError(
            f"{spec.output}: {', '.join(others)} cannot be written from masks in the format {spec.mask_format}",
            f"Use {', '.join(block_formats())}, or label the images into another folder with these formats.",
        )
    check_formats(formats, spec.vocabulary.classes)
    every = tuple(dict.fromkeys((*spec.formats, *formats)))
    if "extra" in options.given:
        check_extra(every, options)
        files = replace(files, extra=(*files.extra, *options.extra))
    if "val_fraction" in options.given:
        names = [name for name, form in FORMATS.items() if form.splits]
        if set(names).isdisjoint(every):
            raise UsageError(
                Words("{val_fraction} requires the format {names}", names=" or ".join(names)),
                Words("Remove {val_fraction}, or add {names} to the formats.", names=" or ".join(names)),
            )
        files = replace(files, val_fraction=options.val_fraction)
    return replace(info, spec=replace(spec, formats=every if covers else spec.formats, files=files))


def _check(formats: Sequence[str]) -> None:
    """Raise UsageError for formats that labels alone do not give."""
    for name in formats:
        check_format(name)
        FORMATS[name].check()
        if is_model_only(name):
            raise UsageError(
                f"only the model can write {name}, which stores its scores",
                Words("Run the original command again with {formats} and this format."),
            )


def _settle(
    folder: OutputFolder,
    formats: Sequence[str],
    images: Path | None,
    jobs: int,
    progress: Progress,
    names: set[str] | None,
) -> int:
    """Write the files of a folder in these formats, and those that are out of date. Return the number of failed images."""
    began = time.monotonic()
    number, context = len(folder) if names is None else len(names), folder.context
    into = f" into {', '.join(formats)}" if formats else ""
    progress.begin("converting", None, images=pluralize(number, "image"), path=folder.path, into=into)
    note_formats(formats, context.files, context.classes, progress)
    settled, job = Settled(), Job(progress, resumes=True)
    for _ in job.each(settle_images(folder, settled, jobs, asked=formats, only=names, images=images)):
        pass
    folder.finish_changes()
    if any(FORMATS[name].folder is not None for name in formats):
        for entry, rows in folder.cache.images():
            if names is None or entry.image in names:
                own = (row for row in rows.values() if row.is_file and format_name(row.name) in formats)
                paths = {path for row in own if (path := folder.files.path(row.place)).exists()}
                progress.results(sorted(paths))
    run_files = [folder.path / file for name in formats for file in FORMATS[name].files]
    progress.results(dict.fromkeys((*(path for path in run_files if path.exists()), *settled.run_files)))
    note_settled(folder, settled, progress, asked=formats)
    note_division(formats, folder.cache.names(), context.files, progress)
    failed = len(settled.failed)
    counts = Counts(labelled=job.done, failed=failed, unchanged=max(number - job.done - failed, 0))
    note_end(progress, counts, time.monotonic() - began, f", into {folder.path}", "converted")
    return failed


def end_formats(output: Path, names: Sequence[str], progress: Progress) -> None:
    """End formats: remove their files. Those that a person changed go to the trash."""
    for name in names:
        check_format(name)
    with change_folder(output) as folder:
        spec = folder.info.spec
        for name in names:
            if name == spec.mask_format:
                raise UsageError(f"{name} cannot be dropped: it holds the labels", "Drop another format.")
        formats = tuple(each for each in spec.formats if each not in names)
        extra = tuple(text for text in spec.files.extra if text.partition(".")[0] in formats)
        folder.change(replace(folder.info, spec=replace(spec, formats=formats, files=replace(spec.files, extra=extra))))
        for name in names:  # also one that is not there: an earlier command may have been interrupted at its end
            folder.drop(name)
        folder.finish_changes()
        note_trashed(folder, progress)
        progress.note("format_ended", path=folder.path, names=" and ".join(names))
