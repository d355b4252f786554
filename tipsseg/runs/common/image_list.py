"""The images of a run, found before its output folder is opened: what was named, or what failed in an earlier run."""

from __future__ import annotations

from collections.abc import Container, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.options.run import ImageOptions
from tipsseg.runs.common import inputs
from tipsseg.runs.common.inputs import Found
from tipsseg.runs.common.progress import Progress
from tipsseg.store.file_names import OutputNames, RunNames, name_key
from tipsseg.store.results import Failed
from tipsseg.store.run_record import find_run
from tipsseg.store.spec import RunSpec
from tipsseg.store.state import State
from tipsseg.types import ImageRef, name_order


@dataclass(frozen=True, kw_only=True)
class Choice(ImageOptions):
    """Which images a run is about.

    Attributes:
        paths: Files and folders. None where there is a list.
        entries: A list of paths, which may come bit by bit, in place of `paths`.
    """

    paths: tuple[Path, ...] = ()
    entries: Iterable[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run: all of them, or one after the other as a list comes in.

    Attributes:
        refs: A tuple, or an iterator; with inputs of which it is known that they cannot be labelled.
        root: The folder that their names begin at.
    """

    refs: Iterable[ImageRef | Failed]
    root: Path

    @property
    def known(self) -> tuple[ImageRef | Failed, ...]:
        """The images that are known before the run begins: all, or none of a list that comes bit by bit."""
        return self.refs if isinstance(self.refs, tuple) else ()

    @property
    def number(self) -> int | None:
        """How many there are; None where that is not known yet."""
        return len(self.refs) if isinstance(self.refs, tuple) else None


def check_choice(given: bool, options: ImageOptions) -> None:
    """Raise UsageError for a choice that cannot be meant; `given` tells whether there are paths or a list."""
    if given:
        return
    if not options.retry_failed:
        raise UsageError("no images given", "Name images or folders, or give - and a list of them on stdin.")
    if options.limit is not None or options.sample is not None:
        raise UsageError(
            "argument `limit` and argument `sample` are for images that are given", "Leave them out, or name images."
        )


def find_images(spec: RunSpec, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run, and refuse those whose files would have one name.

    Raises:
        UsageError: For a list that is empty, or separated by something else.
        InputError: Where there is no image, where two would share an output, where one is among the outputs of the run, or where
            one is in the folder under another name.
    """
    if not choice.retry_failed:
        return _given(spec, choice, progress)
    before = find_run(spec.state)
    if before is None:
        raise InputError(f"no run in {spec.state}, so nothing to retry", "Leave out argument `retry_failed`.")
    with closing(State(spec.state)) as records:
        failed = tuple(each.ref for each in records.failures())
    if not failed:
        progress.note(f"No image failed in {spec.state}.")
    if choice.paths or choice.entries is not None:
        return _only(_given(spec, choice, progress), {ref.name for ref in failed})
    root = Path(before.image_root or ".")
    return Images(tuple(inputs.again(failed, output=spec.output)), root)


def found_images(
    paths: Iterable[Path],
    entries: Iterable[bytes] | None,
    output: Path | None,
    apart: Path | None = None,
    run: RunNames | None = None,
) -> Found:
    """All images of these paths or of this list; see `inputs.find` for the folders that are left out. Raises InputError."""
    if entries is not None:
        return inputs.from_list(entries, output=output, apart=apart, run=run)
    return inputs.find(tuple(paths), output=output, apart=apart)


def note_inputs(progress: Progress, found: Found) -> None:
    """Say what was passed over in the folders."""
    if found.skipped:
        progress.note(f"Skipped in the folders, as no images by their extensions: {found.skipped}.")
        for hint in found.skipped.hints:
            progress.note(hint)
    if found.outputs:
        progress.note(f"Not searched, as a place of outputs: {', '.join(map(str, found.outputs))}.")


def _given(spec: RunSpec, choice: Choice, progress: Progress) -> Images:
    """The images that were named, of a shard its part."""
    shard, run = spec.shard, RunNames(spec.state)
    if choice.entries is not None and choice.sample is None:
        images = islice(inputs.stream(choice.entries, output=spec.output, names=_names(spec), run=run), choice.limit)
        return Images((image for image in images if shard is None or shard.takes(image.name)), run.root or Path.cwd())
    found = found_images(choice.paths, choice.entries, spec.output, run=run)
    if choice.entries is None and not spec.overwrite:
        found = _in_run(found, run, spec.output)
    found = inputs.choose(found, choice.limit, choice.sample)
    note_inputs(progress, found)
    names = _names(spec)
    inputs.check_collisions(found.refs, names)
    inputs.check_not_outputs(found.refs, spec.output, names.key)
    # A folder that cannot be listed is told by each shard, as its images are of any of them.
    refs: list[ImageRef | Failed] = [*found.refused]
    refs += [ref for ref in found.refs if shard is None or shard.takes(ref.name)]
    return Images(tuple(sorted(refs, key=lambda each: name_order(each.name))), found.root)


def _in_run(found: Found, run: RunNames, output: Path) -> Found:
    """The images by their names in a run. Raises InputError where only some of them can be named so, and a name is another one."""
    named = [run.named(ref) for ref in found.refs]
    if any(ours == theirs for ours, theirs in zip(named, found.refs, strict=True)):
        run.check(found.refs, output)
        return found
    refused = tuple(replace(failed, ref=run.named(failed.ref)) for failed in found.refused)
    refs = tuple(sorted(named, key=lambda each: name_order(each.name)))
    return replace(found, refs=refs, refused=refused, root=run.root or found.root)


def _names(spec: RunSpec) -> OutputNames:
    """The names that the files of a run may take, by the rules of the file system that its folder is on, or will be."""
    return OutputNames(name_key(spec.state), spec.files.names, spec.formats)


def _only(images: Images, names: Container[str]) -> Images:
    """Of the images those with these names, or in folders with these names."""

    def is_wanted(each: ImageRef | Failed) -> bool:
        name = PurePosixPath(each.name)
        return any(str(part) in names for part in (name, *name.parents))

    refs = filter(is_wanted, images.refs)
    return replace(images, refs=tuple(refs) if images.number is not None else refs)
