"""What an earlier run left in an output folder, and what of it a job can go on from."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import OutputError
from tipsseg.files import file_size
from tipsseg.journal import Journal
from tipsseg.links import restore_link
from tipsseg.manifest import MANIFEST_FILE, Entry, Manifest
from tipsseg.merge_stage import finish_command, is_unfinished
from tipsseg.record_values import actual_path
from tipsseg.records import ImageRef
from tipsseg.request import Job
from tipsseg.run_record import differences, read_run
from tipsseg.shards import shards_in
from tipsseg.writers import link_path, own_path, record_file

_ANOTHER_FOLDER = "Choose another output folder with -o"
_START_OVER = f"{_ANOTHER_FOLDER}, or start over in this one with --no-resume; what is not replaced then stays."


def own_paths(output: Path, ref: ImageRef, formats: Iterable[str]) -> dict[str, Path]:
    """Where an image's own file is, for each of the formats that has one."""
    paths = {name: own_path(name, output, ref.relative) for name in formats}
    return {name: path for name, path in paths.items() if path is not None}


def restore_links(output: Path, ref: ImageRef, formats: Iterable[str], owner: str = "") -> None:
    """Let the links to an image lead to it where they do not, as after it was moved. Raises OutputError."""
    for name in formats:
        place = link_path(name, ref.relative)
        if place is not None:
            restore_link(ref.path, output / place, owner)


def in_place(name: str, entry: Entry, ref: ImageRef, output: Path, journal: Journal | None) -> bool:
    """Whether an image is in a format, as the manifest says: its own file is there, of its size, and its records in the journal."""
    path = own_path(name, output, ref.relative)
    return (
        name in entry.formats
        and (path is None or file_size(path) == entry.sizes.get(name))
        and (journal is None or journal.has(ref.name))
    )


class Earlier:
    """The records of an earlier run, opened and not changed; close it in the end.

    record    the content of its run.json; None where there is none
    manifest  its images
    outdated  formats in which images were that have been labelled otherwise since
    journals  the formats of the job that keep records
    """

    def __init__(self, job: Job) -> None:
        """Raises OutputError where records cannot be read, or the folder has those of a whole run and the job is a shard, or the
        other way round.
        """
        self._job = job
        self._digest = job.decides.digest
        self._refuse_neighbours()
        context = job.context
        self.record: Mapping[str, object] | None = read_run(context.records)
        self.manifest = Manifest(context.records)
        self.outdated: set[str] = set()
        files = {name: record_file(name, context) for name in job.request.formats}
        self.journals = {
            name: Journal(name, file, context.records, self.manifest.holding(name))
            for name, file in files.items()
            if file is not None
        }

    @property
    def of_the_same(self) -> bool:
        """Whether it was asked for the same labels."""
        return self.record is not None and self.record.get("digest") == self._digest

    @property
    def mixed(self) -> bool:
        """Whether there are labels of it that this job would not give."""
        return bool(self.manifest.others(self._digest))

    def unchanged(self, ref: ImageRef) -> Entry | None:
        """The entry of an image that is done: same input, same digest, all files in place, of their sizes; None for others."""
        formats = self._job.request.formats
        entry = self.manifest.get(ref.name)
        if entry is None or entry.digest != self._digest:
            return None
        output = self._job.context.output
        if not all(in_place(name, entry, ref, output, self.journals.get(name)) for name in formats):
            return None
        return entry if entry.fingerprint.matches(ref.path) else None

    def with_other_formats(self, entry: Entry) -> Entry:
        """The entry of an image that was labelled just now, with other formats of an earlier entry for the same labels.

        Formats of other labels are no more the image's; `outdated` has them.
        """
        before = self.manifest.get(entry.image)
        if before is None:
            return entry
        if before.digest != entry.digest or not entry.fingerprint.same_content(before.fingerprint):
            self.outdated |= set(before.formats) - set(entry.formats)
            return entry
        output = self._job.context.output
        others = {name: file for name, file in before.files.items() if name not in entry.formats}
        gone = {name for name, file in others.items() if file_size(actual_path(output, file)) != before.sizes.get(name)}
        kept = [name for name in before.formats if name not in entry.formats and name not in gone]
        return replace(
            entry,
            formats=(*entry.formats, *kept),
            files={**entry.files, **{name: others[name] for name in kept if name in others}},
            sizes={**entry.sizes, **{name: before.sizes[name] for name in kept if name in others}},
        )

    def refuse_other_ids(self) -> None:
        """Raise OutputError where it has labels of another model or vocabulary."""
        if not len(self.manifest) or self.record is None:
            return
        other = differences(self.record, self._job.decides.record())
        if other:
            raise OutputError(
                self._job.context.output,
                f"it holds labels of another run{self._by_whom()}; other: {', '.join(other)}",
                _START_OVER,
            )

    def refuse_mixture(self, covered: Container[str]) -> None:
        """Raise OutputError where labels of it would stay, that were made with other options.

        `covered` are the names of the images of the job.
        """
        left = [image for image in self.manifest.others(self._digest) if image not in covered]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise OutputError(
                self._job.context.output,
                f"it holds the labels of {left[0]}{more}, made with other options{self._by_whom()}, and this run is not for those; "
                f"other: {', '.join(self._other_options()) or 'version'}",
                _START_OVER,
            )

    def close(self) -> None:
        """Close the files; safe to call twice."""
        self.manifest.close()
        for journal in self.journals.values():
            journal.close()

    def _other_options(self) -> list[str]:
        """The names of the options that are not as they were."""
        record = self.record or {}
        before, now = record.get("options"), self._job.decides.option_record()
        names = [name for name, value in now.items() if isinstance(before, dict) and before.get(name) != value]
        asked = record.get("asked")
        if isinstance(asked, dict) and asked.get("dtype") != self._job.decides.dtype:
            names.append("dtype")
        return [name.replace("_", "-") for name in names]

    def _by_whom(self) -> str:
        command = (self.record or {}).get("command")
        return f" ({command})" if isinstance(command, str) else ""

    def _refuse_neighbours(self) -> None:
        output, shard = self._job.context.output, self._job.request.shard
        if is_unfinished(output):
            raise OutputError(
                output,
                "a merge into it has not ended",
                f"{_ANOTHER_FOLDER}, or finish it first: {finish_command(output)}",
            )
        others = [each for each in shards_in(output) if shard is None or each.count != shard.count]
        if others:
            raise OutputError(
                output,
                f"it holds {others[0].folder}, a part of a run in shards",
                f"{_ANOTHER_FOLDER}, or join its shards: tipsseg merge {output} -o {output}",
            )
        if shard is not None and (output / MANIFEST_FILE).exists():
            raise OutputError(
                output,
                "it holds a whole run, and this is a shard",
                f"{_ANOTHER_FOLDER}, and join both then with tipsseg merge.",
            )
