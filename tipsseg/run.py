"""One `tipsseg label` run: checks before any work, the model, the writers, and the records of the run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg import __version__, inputs
from tipsseg.errors import ImageError, OutputError, UsageError
from tipsseg.inputs import Found
from tipsseg.loading import ModelSource, find_model
from tipsseg.progress import Progress, counted
from tipsseg.records import ImageRef, LabelOptions
from tipsseg.run_record import RunFacts, other_run, write_errors, write_run
from tipsseg.vocabulary import Vocabulary
from tipsseg.writers import RunContext, check_format, create
from tipsseg.writers.classes import write_classes

if TYPE_CHECKING:
    from tipsseg.pipeline import RunCounts


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What was asked for, beside the images; see the help of `tipsseg label`."""

    output: Path
    model: str
    vocabulary: Vocabulary
    options: LabelOptions
    formats: tuple[str, ...]
    min_area: int
    device: str
    dtype: str
    batch_size: int
    jobs: int
    quiet: bool

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch or images is seen to be right.

        Raises UsageError, OutputError, CheckpointError, WeightsError.
        """
        for name in self.formats:
            check_format(name)
        if len(set(self.formats)) < len(self.formats):
            raise UsageError(f"a format is named twice: {', '.join(self.formats)}")
        for what, value, least in (
            ("--batch-size", self.batch_size, 1),
            ("--jobs", self.jobs, 1),
            ("--min-area", self.min_area, 0),
        ):
            if value < least:
                raise UsageError(f"{what} {value} is too small; the least is {least}")
        for folder in (self.output, *self.output.parents):
            if folder.exists():
                if not folder.is_dir():
                    raise OutputError(self.output, f"{folder} is a file", "Choose another output folder with -o.")
                break
        return find_model(self.model)

    def command(self) -> str:
        """A command line that asks for the same labels, without paths or what does not change them."""
        words = ["tipsseg", "label", "--model", self.model]
        for entry in self.vocabulary.classes:
            words += ["-c", entry.name]
        words += ["--background", ",".join(self.vocabulary.background) or "none", "--mode", self.options.mode]
        if self.options.short_side is not None:
            words += ["--short-side", str(self.options.short_side)]
        if self.options.min_confidence:
            words += ["--min-confidence", str(self.options.min_confidence)]
        return shlex.join(words)


def run_label(request: LabelRequest, source: ModelSource, found: Found, progress: Progress) -> RunCounts:
    """Label `found` and write everything below the output folder.

    Raises TipssegError for what ends a run; a bad image is reported and counted.
    """
    inputs.check_collisions(found.refs)
    inputs.check_not_outputs(found.refs, request.output)

    # Only now torch, which takes its time.
    from tipsseg.devices import resolve_device, resolve_dtype
    from tipsseg.encode import Encoder
    from tipsseg.labeller import Labeller
    from tipsseg.pipeline import label_images

    resolve_dtype(request.dtype, resolve_device(request.device))  # before any download
    encoder = Encoder(source.fetch(quiet=request.quiet), request.device, request.dtype, request.batch_size)
    labeller = Labeller(encoder, request.vocabulary, request.options)
    dtype = str(encoder.dtype).removeprefix("torch.")
    progress.begin(f"{counted(len(found.refs), 'image')} with {request.model} on {encoder.device} ({dtype}).")

    if (other := other_run(request.output, request.command())) is not None:
        progress.note(f"{request.output} holds labels of another run ({other}); what this one does not replace stays.")
    facts = RunFacts(
        command=request.command(),
        model=source.facts(),
        device=str(encoder.device),
        dtype=dtype,
        options=request.options,
        min_area=request.min_area,
        vocabulary=request.vocabulary,
        formats=request.formats,
        started=datetime.now(UTC),
    )
    context = RunContext(
        request.output, found.root, request.vocabulary.classes, _info(request, source), request.min_area
    )
    # First of all the records, so that masks of a run that is broken off can be read, and are not taken for inputs.
    write_run(request.output, facts, None)
    classes_file = write_classes(request.output, request.vocabulary.classes)
    began = time.monotonic()
    writers = [create(name, context) for name in request.formats]
    reporter = _Reporter(progress)
    counts = label_images(found.refs, labeller, writers, reporter, request.jobs)
    for writer in writers:
        progress.results(writer.close())
    progress.results([classes_file])
    write_errors(request.output, reporter.failures)
    write_run(request.output, facts, {"labelled": counts.labelled, "failed": counts.failed})
    seconds = time.monotonic() - began
    failed = f", {counts.failed} failed" if counts.failed else ""
    progress.note(f"{counted(counts.labelled, 'image')} labelled{failed} in {seconds:.1f} s, into {request.output}")
    return counts


def _info(request: LabelRequest, source: ModelSource) -> dict[str, object]:
    facts = source.facts()
    return {
        "version": __version__,
        "command": request.command(),
        "model": facts["id"],
        "revision": facts["revision"],
        "vocabulary": [entry.name for entry in request.vocabulary.classes],
    }


class _Reporter:
    """Passes on what the pipeline does to the terminal, and keeps the failures."""

    def __init__(self, progress: Progress) -> None:
        self.failures: list[tuple[ImageRef, ImageError]] = []
        self._progress = progress

    def labelled(self, ref: ImageRef, paths: Sequence[Path]) -> None:
        self._progress.results(paths)
        self._progress.advance()

    def failed(self, ref: ImageRef, error: ImageError) -> None:
        self.failures.append((ref, error))
        self._progress.error(error)
        self._progress.advance()
