"""The images of a run: those that the user gave, under their names in its folder, or those that failed before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tipsseg.address import is_url, suffix_of
from tipsseg.errors import ImageError, InputError, NoImagesError, UsageError, Words
from tipsseg.folder.files import TRASH
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.moving import MOVING
from tipsseg.folder.names import NameKey, OutputNames, RunNames, exact, name_key
from tipsseg.folder.record import RUN_FILE
from tipsseg.folder.spec import RunSpec
from tipsseg.formats import image_folders
from tipsseg.images.access import CONTAINERS, is_plain, kind_of, real_path
from tipsseg.images.decoders import image_extensions
from tipsseg.images.finding import (
    Found,
    Listed,
    Paths,
    as_paths,
    by_name,
    choose_images,
    find,
    find_in_list,
    stream,
)
from tipsseg.options.values import Every
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef, name_order
from tipsseg.util.files import is_folder
from tipsseg.util.text import join_first

#: The card of a data set, and the folder of its shards, which has pictures that are no input.
CARD, DATA_FOLDER = "README.md", "data"

#: The file that marks a folder written by `tipsseg report`; such a folder is not searched.
REPORT_FILE = "report.json"

_OTHER_OUTPUT = Words("Choose another output folder with {output}.")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The images that the user chose.

    Attributes:
        images: Files and folders, or a list.
        sample: The number of images to draw from them; None for all.
        every: The interval of the frames of videos.
    """

    images: tuple[Path, ...] | Listed = ()
    sample: int | None = None
    every: Every | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders; none for a list."""
        return () if isinstance(self.images, Listed) else self.images

    @property
    def entries(self) -> Iterable[bytes] | None:
        """Return the entries of a list; None for files and folders."""
        return self.images.entries if isinstance(self.images, Listed) else None


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run: a tuple, or a stream.

    Attributes:
        refs: A tuple, or an iterator over a streamed list; both may include inputs that already failed.
        root: The folder that image names are relative to.
        whole: True if they are all images in the folders of the resumed run, which could be listed.
        elsewhere: The images of other shards, once `refs` is read; None if they are not known.
    """

    refs: Iterable[ImageRef | Failed]
    root: Path
    whole: bool = False
    elsewhere: Sequence[ImageRef] | None = None

    @property
    def known(self) -> tuple[ImageRef | Failed, ...]:
        """The images that are known before the run: all of a tuple, none of a stream."""
        return self.refs if isinstance(self.refs, tuple) else ()

    @property
    def number(self) -> int | None:
        """The number of images; None for a stream."""
        return len(self.refs) if isinstance(self.refs, tuple) else None


def choice_of(values: Mapping[str, Any]) -> Choice:
    """Return the images that the options of a verb choose. Raise UsageError if there are none."""
    images = values["images"]
    paths = images if isinstance(images, Listed) else as_paths(images)
    if not isinstance(paths, Listed) and not paths:
        raise UsageError("no images given", "Pass images or folders, or - to read a list from stdin.")
    return Choice(images=paths, sample=values["sample"], every=values["every"])


def find_images(spec: RunSpec, choice: Choice, progress: Progress, folder: OutputFolder | None = None) -> Images:
    """Find the images of a run.

    Args:
        spec: The settings of the run.
        choice: The images that the user chose.
        progress: Prints notes.
        folder: The output folder, whose images keep their names; None for a feature store.

    Raises:
        UsageError: The list is empty, or uses another separator.
        InputError: No images were found, two images would share an output file, an image is an output of the run, or the output
            folder has an image under another name.
    """
    if spec.shard is not None and spec.shard.source:
        progress.note("part", index=spec.shard.index, count=spec.shard.count, source=spec.shard.source)
    _note_outputs(choice.paths, spec.output, progress)
    try:
        return _given(spec, choice, progress, folder)
    except NoImagesError as error:
        if any(map(is_output, choice.paths)):
            raise NoImagesError(
                f"no images in {join_first([str(path) for path in choice.paths], 1)}, an output folder of tipsseg",
                "Pass the folder of the images.",
            ) from error
        raise


def _note_outputs(paths: Iterable[Path], output: Path | None, progress: Progress) -> None:
    """Note inputs that tipsseg wrote, and a folder that is input and output."""
    for path in (path for path in paths if not is_url(path)):
        run = next((each.parent for each in (path, *path.parents) if each.name in image_folders()), None)
        if output is not None and _identity(path) == _identity(output) is not None:
            if not is_output(path):
                progress.note("beside_images", path=path)
        elif is_output(path):
            progress.note("own_folder", path=path)
        elif run is not None and is_output(run):
            progress.note("own_pictures", path=path, run=run)


def found_images(
    paths: Iterable[Path],
    entries: Iterable[bytes] | None,
    ignored: Ignored,
    run: RunNames | None = None,
    every: Every | None = None,
) -> Found:
    """Find the images in paths or in a list.

    Args:
        paths: Files and folders.
        entries: A list of paths, instead of `paths`.
        ignored: What is not searched; it notes the output folders that it left out.
        run: The resumed run, whose images keep their names.
        every: The interval of the frames of videos.

    Raises:
        InputError: A path does not exist, or no image was found.
    """
    if entries is None:
        return find(tuple(paths), ignored, every)
    found = find_in_list(entries, _list_root(run), ignored, every)
    refs = found.refs if run is None else sorted(map(run.named, found.refs), key=by_name)
    return replace(found, refs=tuple(refs))


def note_inputs(progress: Progress, found: Found, ignored: Ignored) -> None:
    """Note skipped files, and the output folders that were not searched."""
    if found.skipped:
        progress.note("files_skipped", skipped=found.skipped)
        for hint in found.skipped.hints:
            progress.say(hint)
    if ignored.outputs:
        progress.note("folders_skipped", outputs=", ".join(map(str, sorted(ignored.outputs))))


def _given(spec: RunSpec, choice: Choice, progress: Progress, folder: OutputFolder | None) -> Images:
    """Return the images that the user gave, or the shard's part of them."""
    run = RunNames()
    if folder is not None and folder.before is not None:
        run = RunNames(folder.cache, folder.before.image_root)
    if choice.entries is not None and choice.sample is None:
        images = stream_images(choice.entries, spec.output, _names(spec), run, choice.every)
        elsewhere = list[ImageRef]()
        return Images(_of_shard(images, spec, elsewhere), run.root or Path.cwd(), elsewhere=elsewhere)
    ignored = Ignored(spec.output)
    found = found_images(choice.paths, choice.entries, ignored, run, choice.every)
    whole = (
        choice.entries is None
        and choice.sample is None
        and spec.shard is None
        and not found.refused
        and found.root == (run.root or found.root)
        and all(is_folder(path) or (suffix_of(path) in CONTAINERS and kind_of(path).has_files) for path in choice.paths)
    )
    if choice.entries is None and not spec.overwrite:
        found = _in_run(found, run, spec.output)
    found = choose_images(found, choice.sample)
    if choice.entries is None:
        _refuse_others(found, spec)
    note_inputs(progress, found, ignored)
    names = _names(spec)
    check_collisions(found.refs, names)
    check_not_outputs(found.refs, spec.output, names.key)
    elsewhere = list[ImageRef]()
    refs = _of_shard((*found.refused, *found.refs), spec, elsewhere)
    return Images(tuple(sorted(refs, key=lambda item: name_order(item.name))), found.root, whole, elsewhere)


def stream_images(
    entries: Iterable[str | bytes],
    output: Path | None,
    names: OutputNames,
    run: RunNames | None = None,
    every: Every | None = None,
) -> Iterator[ImageRef | Failed]:
    """Yield the images in a list as its entries arrive (see `finding.stream`), under their names in the run.

    Files in folders that this run writes pictures to, and images that would share a file with an earlier one (see `names`), become
    a Failed. Memory grows by three strings per image.
    """
    pictures = PictureFolders(output, names.key)
    for image in stream(entries, _list_root(run), Ignored(output), every):
        if isinstance(image, Failed):
            yield image
            continue
        ref = image if run is None else run.named(image)
        if reason := pictures.conflict_with(ref.path):
            yield Failed(ref, ImageError(ref.path, reason, _OTHER_OUTPUT))
        elif reason := names.take(ref):
            yield Failed(ref, ImageError(ref.path, reason, names.hint))
        else:
            yield ref


def _list_root(run: RunNames | None) -> Path:
    """Return the folder that the names of a list are relative to."""
    return Path.cwd() if run is None or run.root is None else run.root


def _of_shard(
    refs: Iterable[ImageRef | Failed], spec: RunSpec, elsewhere: list[ImageRef]
) -> Iterator[ImageRef | Failed]:
    """Yield the images of a shard, or all if there is no shard; add the images of other shards to `elsewhere`.

    Every shard reports a folder that cannot be listed, because its images may be in any shard.
    """
    for ref in refs:
        if spec.shard is None or not isinstance(ref, ImageRef) or spec.shard.takes(ref.name):
            yield ref
        else:
            elsewhere.append(ref)


def _refuse_others(found: Found, spec: RunSpec) -> None:
    """Raise InputError if the user named only files such as notes.txt, so that no folder is created for them."""
    extensions, error = image_extensions(), None
    for ref in found.refs:
        if spec.block_mask or suffix_of(ref.path) in extensions or not is_plain(ref.path):
            return
        try:
            with spec.reader.header(ref.path):
                return
        except ImageError as fault:
            error = error or fault
    if error is not None:
        raise InputError(error.message, error.hint)


def _in_run(found: Found, run: RunNames, output: Path) -> Found:
    """Rename the images as in an earlier run, if all names differ from it. Raise InputError if only some do."""
    named = [run.named(ref) for ref in found.refs]
    if any(ours == theirs for ours, theirs in zip(named, found.refs, strict=True)):
        run.check(found.refs, output)
        return found
    refused = tuple(replace(failed, ref=run.named(failed.ref)) for failed in found.refused)
    refs = tuple(sorted(named, key=lambda ref: name_order(ref.name)))
    return replace(found, refs=refs, refused=refused, root=run.root or found.root)


def _names(spec: RunSpec) -> OutputNames:
    """Return the register of the run's file names, for the file system of its folder."""
    return OutputNames(name_key(spec.output), spec.files.names, spec.formats)


def find_alone(images: Paths | Listed, ignored: Ignored, progress: Progress) -> Found:
    """Find images for a command without an output folder, and note what is left out.

    Raise InputError if a path does not exist, a folder cannot be listed, or no image was found.
    """
    if isinstance(images, Listed):
        found = found_images((), images.entries, ignored)
    else:
        found = found_images(as_paths(images), None, ignored)
    note_inputs(progress, found, ignored)
    if found.refused:
        raise InputError(found.refused[0].error.message, found.refused[0].error.hint)
    return found


def check_image_root(images: Path | None) -> None:
    """Raise UsageError if the folder that replaces a run's image root is missing; None replaces nothing."""
    if images is not None and not is_url(images) and not is_folder(images):
        raise UsageError(
            Words("{images}={folder}: no such folder", folder=images),
            "Pass the folder that image names are relative to.",
        )


def check_collisions(refs: Sequence[ImageRef], names: OutputNames) -> None:
    """Raise InputError if two inputs would share output files. The message names the first pair and counts the others."""
    reasons = [reason for ref in refs if (reason := names.take(ref))]
    if reasons:
        pairs = len(reasons)
        more = f" (and {pairs - 1} more such pair{'s' if pairs > 2 else ''})" if pairs > 1 else ""
        raise InputError(reasons[0] + more, names.hint)


def check_not_outputs(refs: Sequence[ImageRef], output: Path, key: NameKey = exact) -> None:
    """Raise InputError if an input is one of the run's own pictures, which it may overwrite.

    `key` maps names of the same file to the same text; see `names.name_key`.
    """
    outputs = PictureFolders(output, key)
    for ref in refs:
        if reason := outputs.conflict_with(ref.path):
            raise InputError(f"{ref.address}: {reason}", _OTHER_OUTPUT)


class Ignored:
    """The names that a search for images leaves out: output folders of runs, the pictures in them, data sets and reports.

    Attributes:
        outputs: The folders that were left out because they contain, or will contain, outputs of a run.
    """

    def __init__(self, output: Path | None) -> None:
        """Set up for a run that writes to the folder `output`."""
        self.outputs: list[Path] = []
        self._output = output

    def __call__(self, folder: Path, subfolders: Sequence[str]) -> set[str]:
        """Return the names to leave out in a folder; see `finding.Ignore`."""
        # Once per folder: in a stream, the run may have created its output folder by now.
        output = None if self._output is None else _identity(self._output)
        is_ours = (output is not None and _identity(folder) == output) or is_output(folder)
        pictures = {*image_folders(), TRASH, MOVING} if is_ours else set[str]()
        if is_card(_head(folder / CARD)):
            pictures.add(DATA_FOLDER)
        found = set(pictures)
        for name in subfolders:
            path = folder / name
            own = _identity(path)
            if name in pictures or _names_tool(path / REPORT_FILE) or (own == output and is_output(path)):
                self.outputs.append(path)
                found.add(name)
            elif own is not None and own == output:
                found.add(name)
        return found


class PictureFolders:
    """The folders that a run writes pictures to."""

    def __init__(self, output: Path | None, key: NameKey) -> None:
        self._key = key
        self._folders = [] if output is None else [output / name for name in sorted(image_folders())]
        self._starts = [key(os.path.join(os.path.realpath(folder), "")) for folder in self._folders]  # noqa: PTH118

    def conflict_with(self, path: Path) -> str:
        """Return the reason to reject an input in one of these folders; "" for other inputs."""
        real = self._key(real_path(path))
        for folder, start in zip(self._folders, self._starts, strict=True):
            if real.startswith(start):
                return f"an input in {folder}, which this run writes to"
        return ""


def is_output(folder: Path) -> bool:
    """Return True if a run of tipsseg wrote into a folder."""
    return _names_tool(folder / RUN_FILE)


def is_card(data: bytes) -> bool:
    """Return True for a card of a data set that tipsseg wrote."""
    return re.search(rb"(?m)^- tipsseg\r?$", data) is not None


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _names_tool(path: Path) -> bool:
    return re.search(rb'"tool"\s*:\s*"tipsseg"', _head(path)) is not None


def _head(path: Path) -> bytes:
    """Return the beginning of a file; b"" if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
