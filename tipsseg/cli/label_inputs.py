"""The images of a `tipsseg label` run: those that the arguments name, or those that failed in an earlier run."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from tipsseg.cli import options as opt
from tipsseg.errors import InputError, UsageError
from tipsseg.runs import inputs
from tipsseg.runs.label import Find, Images
from tipsseg.runs.progress import Progress
from tipsseg.store.error_log import read_failed
from tipsseg.store.file_names import NameKey, OutputNames
from tipsseg.store.results import Failed
from tipsseg.store.run_record import read_run
from tipsseg.store.spec import Job
from tipsseg.types import ImageRef, name_order


@dataclass(frozen=True, slots=True)
class Arguments:
    """What says which images; see the help of `tipsseg label`. Raises UsageError for what cannot be meant."""

    paths: tuple[str, ...]
    null: bool
    limit: int | None
    sample: int | None
    retry_failed: bool

    def __post_init__(self) -> None:
        inputs.check_choice(self.limit, self.sample)
        if self.paths:
            return
        if not self.retry_failed:
            raise UsageError("no images given", "Name images or folders, or give - and a list of them on stdin.")
        if self.limit is not None or self.sample is not None:
            raise UsageError("--limit and --sample are for images that are given", "Leave them out, or name images.")


def find_images(job: Job, asked: Arguments, progress: Progress) -> Find:
    """Look for the images, as far as that can be done before the run begins. Raises UsageError and InputError."""
    if not asked.retry_failed:
        return _given(job, asked, progress)
    record = read_run(job.context.state)
    if record is None:
        raise InputError(f"no run in {job.context.state}, so nothing to retry", "Leave out --retry-failed.")
    failed = read_failed(job.context.state)
    if not failed:
        progress.note(f"No image failed in {job.context.state}.")
    if asked.paths:
        return _only(_given(job, asked, progress), {ref.name for ref in failed})
    root = Path(str(record.get("image_root") or "."))
    return lambda key: Images(tuple(inputs.again(failed, output=job.request.output)), root)


def _given(job: Job, asked: Arguments, progress: Progress) -> Find:
    output, shard = job.request.output, job.request.shard

    def names(key: NameKey) -> OutputNames:
        return OutputNames(key, job.request.files.names, job.request.formats)

    def listed(key: NameKey) -> Images:
        images = islice(inputs.stream(entries, output=output, names=names(key)), asked.limit)
        return Images((each for each in images if shard is None or shard.takes(each.name)), Path.cwd())

    def chosen(key: NameKey) -> Images:
        inputs.check_collisions(found.refs, names(key))
        inputs.check_not_outputs(found.refs, output, key)
        # A folder that cannot be listed is told by each shard, as its images are of any of them.
        refs: list[ImageRef | Failed] = [*found.refused]
        refs += [each for each in found.refs if shard is None or shard.takes(each.name)]
        return Images(tuple(sorted(refs, key=lambda each: name_order(each.name))), found.root)

    if asked.sample is None and opt.from_stdin(asked.paths):
        entries = opt.stdin_entries(asked.null)
        return listed
    found = inputs.choose(opt.find_images(asked.paths, asked.null, output), asked.limit, asked.sample)
    opt.note_inputs(progress, found)
    return chosen


def _only(find: Find, names: Container[str]) -> Find:
    """Of the images those with these names, or in folders with these names."""

    def wanted(each: ImageRef | Failed) -> bool:
        name = PurePosixPath(each.name)
        return any(str(part) in names for part in (name, *name.parents))

    def part(key: NameKey) -> Images:
        images = find(key)
        if isinstance(images.refs, tuple):
            return replace(images, refs=tuple(filter(wanted, images.refs)))
        return replace(images, refs=filter(wanted, images.refs))

    return part
