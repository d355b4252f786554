"""Find the images of a run before its output folder is opened: the given images, or those that failed before."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.options.every import Every
from tipsseg.options.run import ImageOptions
from tipsseg.run.files import Files
from tipsseg.run.names import OutputNames, RunNames, name_key
from tipsseg.run.record import find_run, run_context, stored_run
from tipsseg.run.results import Failed
from tipsseg.run.resume import Todo, decide
from tipsseg.run.spec import RunSpec
from tipsseg.run.state import State
from tipsseg.runs.common import inputs
from tipsseg.runs.common.inputs import Found
from tipsseg.runs.common.progress import Progress
from tipsseg.types import ImageRef, name_order
from tipsseg.util.printable import pluralize


@dataclass(frozen=True, kw_only=True)
class Choice(ImageOptions):
    """The images that the user chose.

    Attributes:
        paths: Files and folders.
        entries: A list of paths, instead of `paths`; entries may arrive one by one.
    """

    paths: tuple[Path, ...] = ()
    entries: Iterable[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run: a tuple, or a stream.

    Attributes:
        refs: A tuple, or an iterator over a streamed list; both may include inputs that already failed.
        root: The folder that image names are relative to.
    """

    refs: Iterable[ImageRef | Failed]
    root: Path

    @property
    def known(self) -> tuple[ImageRef | Failed, ...]:
        """The images that are known before the run: all of a tuple, none of a stream."""
        return self.refs if isinstance(self.refs, tuple) else ()

    @property
    def number(self) -> int | None:
        """The number of images; None for a stream."""
        return len(self.refs) if isinstance(self.refs, tuple) else None


def check_choice(given: bool, options: ImageOptions) -> None:
    """Raise UsageError for an impossible choice; `given` is True if the user gave paths or a list."""
    if given:
        return
    if not options.retry_failed:
        raise UsageError("no images given", "Name images or folders, or write - to read a list from stdin.")
    if options.limit is not None or options.sample is not None:
        raise UsageError("argument `limit` and argument `sample` need images", "Remove them, or name images.")


def find_images(spec: RunSpec, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run.

    Raises:
        UsageError: The list is empty, or uses another separator.
        InputError: No images were found, two images would share an output file, an image is an output of the run, or the output
            folder has an image under another name.
    """
    if spec.shard is not None and spec.shard.source:
        progress.note(f"Part {spec.shard.index} of {spec.shard.count}, from {spec.shard.source}.")
    if not choice.retry_failed:
        return _given(spec, choice, progress)
    before = find_run(spec.folder)
    if before is None:
        raise InputError(f"nothing to retry: no run in {spec.folder}", "Remove argument `retry_failed`.")
    with closing(State(spec.folder)) as records:
        failed = tuple(failure.ref for failure in records.failures())
    if not failed:
        progress.note(f"No image failed in {spec.folder}.")
    if choice.paths or choice.entries is not None:
        return _only(_given(spec, choice, progress), {ref.name for ref in failed})
    root = Path(before.image_root or ".")
    return Images(tuple(inputs.again(failed, output=spec.output, every=choice.every)), root)


def found_images(
    paths: Iterable[Path],
    entries: Iterable[bytes] | None,
    output: Path | None,
    apart: Path | None = None,
    run: RunNames | None = None,
    every: Every | None = None,
) -> Found:
    """Find the images in paths or in a list; see `inputs.find` for the folders that are not searched. Raise InputError if none."""
    if entries is not None:
        return inputs.from_list(entries, output=output, apart=apart, run=run, every=every)
    return inputs.find(tuple(paths), output=output, apart=apart, every=every)


def note_inputs(progress: Progress, found: Found) -> None:
    """Note skipped files and folders."""
    if found.skipped:
        progress.note(f"Skipped files without an image extension: {found.skipped}.")
        for hint in found.skipped.hints:
            progress.note(hint)
    if found.outputs:
        progress.note(f"Skipped output folders: {', '.join(map(str, found.outputs))}.")


def _given(spec: RunSpec, choice: Choice, progress: Progress) -> Images:
    """Return the images that the user gave, or the shard's part of them."""
    # A shard adds to its output folder, or else goes on with its own.
    run = RunNames(spec.folder if find_run(spec.output) is None else spec.output)
    if choice.entries is not None and choice.sample is None:
        stream = inputs.stream(choice.entries, output=spec.output, names=_names(spec), run=run, every=choice.every)
        images = islice(stream, choice.limit)
        return Images(_of_shard(images, spec, progress), run.root or Path.cwd())
    found = found_images(choice.paths, choice.entries, spec.output, run=run, every=choice.every)
    if choice.entries is None and not spec.overwrite:
        found = _in_run(found, run, spec.output)
    found = inputs.choose_images(found, choice.limit, choice.sample)
    note_inputs(progress, found)
    names = _names(spec)
    inputs.check_collisions(found.refs, names)
    inputs.check_not_outputs(found.refs, spec.output, names.key)
    refs = _of_shard((*found.refused, *found.refs), spec, progress)
    return Images(tuple(sorted(refs, key=lambda item: name_order(item.name))), found.root)


def _of_shard(refs: Iterable[ImageRef | Failed], spec: RunSpec, progress: Progress) -> Iterator[ImageRef | Failed]:
    """Yield the images of a shard that the output folder lacks, or all if there is no shard.

    Every shard reports a folder that cannot be listed, because its images may be in any shard.
    """
    shard = spec.shard
    if shard is None:
        yield from refs
        return
    with closing(State(spec.output)) as state, closing(State(spec.folder)) as own:
        before = stored_run(state)
        context, files, known = None if before is None else run_context(before), Files(spec.output), 0
        for ref in refs:
            if isinstance(ref, ImageRef):
                if not shard.takes(ref.name) or (ref.name in own and state.is_arriving(ref.name)):
                    continue  # or a killed merge was about to move it, and goes on with it
                entry = state.get(ref.name)
                if context is not None and entry is not None:
                    decision = decide(ref, entry, state.files(ref.name), spec, files, context)
                    if not isinstance(decision, Todo):
                        known += 1
                        continue
            yield ref
    if known:
        progress.note(f"{spec.output} has {pluralize(known, 'image')} of part {shard} already.")


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
    return OutputNames(name_key(spec.folder), spec.files.names, spec.formats)


def _only(images: Images, names: Container[str]) -> Images:
    """Return the images with these names, or in folders with these names."""

    def is_named(item: ImageRef | Failed) -> bool:
        name = PurePosixPath(item.name)
        return any(str(part) in names for part in (name, *name.parents))

    refs = filter(is_named, images.refs)
    return replace(images, refs=tuple(refs) if images.number is not None else refs)
