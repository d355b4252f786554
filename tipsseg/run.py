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
from tipsseg.files import is_file, is_folder, json_bytes
from tipsseg.inputs import Found
from tipsseg.loading import ModelSource, find_model
from tipsseg.progress import Progress, counted, print_text
from tipsseg.records import REFINEMENTS, ImageRef, LabelMap, LabelOptions
from tipsseg.run_record import RunFacts, other_run, write_errors, write_run
from tipsseg.summary import image_summary
from tipsseg.templates import PROTOCOL_TEMPLATES, TEMPLATES
from tipsseg.vocabulary import Vocabulary
from tipsseg.writers import RunContext, check_format, create
from tipsseg.writers.classes import write_classes

if TYPE_CHECKING:
    from tipsseg.labeller import Labeller
    from tipsseg.pipeline import RunCounts


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What decides the labels of an image, and how the model is run; see the help of `tipsseg label`."""

    model: str
    vocabulary: Vocabulary
    options: LabelOptions
    device: str
    dtype: str
    batch_size: int
    jobs: int
    quiet: bool

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch is seen to be right.

        Raises UsageError, CheckpointError, WeightsError.
        """
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} is too small; the least is 1")
        return find_model(self.model)

    def check_device(self) -> None:
        """Raise UsageError or DeviceError for a device or dtype that is none, or is not here."""
        # Only now torch, which takes its time.
        from tipsseg.devices import resolve_device, resolve_dtype

        resolve_dtype(self.dtype, resolve_device(self.device))

    def labeller(self, source: ModelSource) -> Labeller:
        """The model with its vocabulary, ready to label. Raises TipssegError."""
        from tipsseg.encode import Encoder
        from tipsseg.labeller import Labeller

        self.check_device()  # before any download
        encoder = Encoder(source.fetch(quiet=self.quiet), self.device, self.dtype, self.batch_size)
        return Labeller(encoder, self.vocabulary, self.options)

    def command(self, vocabulary: Vocabulary) -> str:
        """A command line that asks for the same labels, without paths or what does not change them.

        `vocabulary` is the one that was used, with its background resolved.
        """
        words = ["tipsseg", "label", "--model", self.model]
        if vocabulary.source:
            words += ["--vocab", vocabulary.source]
        else:
            for entry in vocabulary.classes:
                words += ["-c", entry.name]
        # What "auto" came to is in the record of the vocabulary.
        words += ["--background", "auto" if self.vocabulary.auto else _option_value(vocabulary.background)]
        if vocabulary.templates != PROTOCOL_TEMPLATES:
            words += [
                "--templates",
                next((name for name, known in TEMPLATES.items() if known == vocabulary.templates), "FILE"),
            ]
        words += ["--mode", self.options.mode]
        if self.options.short_side is not None:
            words += ["--short-side", str(self.options.short_side)]
        if self.options.min_confidence:
            words += ["--min-confidence", str(self.options.min_confidence)]
        if self.options.refine != REFINEMENTS[0]:
            words += ["--refine", self.options.refine]
        return shlex.join(words)


def _option_value(background: Sequence[str]) -> str:
    """What --background takes for these phrases; FILE where only a vocabulary file can say them."""
    if not background:
        return "none"
    if background in (("auto",), ("none",)) or any("," in phrase for phrase in background):
        return "FILE"
    return ",".join(background)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What was asked for, beside the images; see the help of `tipsseg label`."""

    model: ModelRequest
    output: Path
    formats: tuple[str, ...]
    min_area: int
    jsonl: bool = False

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch or images is seen to be right.

        Raises UsageError, OutputError, CheckpointError, WeightsError.
        """
        for name in self.formats:
            check_format(name)
        if len(set(self.formats)) < len(self.formats):
            raise UsageError(f"a format is named twice: {', '.join(self.formats)}")
        if self.min_area < 0:
            raise UsageError(f"--min-area {self.min_area} is too small; the least is 0")
        check_folder(self.output)
        return self.model.check()


def check_folder(output: Path) -> None:
    """Raise OutputError where an output folder cannot be made, because a file has its name or that of a parent."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", "Choose another output folder with -o.")


def run_label(request: LabelRequest, source: ModelSource, found: Found, progress: Progress) -> RunCounts:
    """Label `found` and write everything below the output folder.

    Raises TipssegError for what ends a run; a bad image is reported and counted.
    """
    inputs.check_collisions(found.refs)
    inputs.check_not_outputs(found.refs, request.output)
    labeller = begin(request.model, source, len(found.refs), progress)

    from tipsseg.pipeline import label_images

    files = LabelFiles(request, source, labeller, found.root, progress)
    reporter = JsonReporter(progress, request.output) if request.jsonl else Reporter(progress)
    began = time.monotonic()
    counts = label_images(found.refs, labeller, files.writers, reporter, request.model.jobs)
    files.finish(counts, reporter)
    note_end(progress, counts, time.monotonic() - began, f", into {request.output}")
    return counts


def begin(request: ModelRequest, source: ModelSource, images: int, progress: Progress) -> Labeller:
    """The labeller of a run, and what there is to say of it. Raises TipssegError."""
    labeller = request.labeller(source)
    encoder = labeller.encoder
    progress.begin(
        f"{counted(images, 'image')} with {request.model} on {encoder.device} ({encoder.dtype_name}).", images
    )
    if labeller.dropped:
        same = ", ".join(f"{stuff} (close to {name})" for stuff, name in labeller.dropped.items())
        progress.note(f"Left out of the automatic background, as the model takes it for a class: {same}.")
    return labeller


def note_end(progress: Progress, counts: RunCounts, seconds: float, where: str) -> None:
    """The last line of a run."""
    failed = f", {counts.failed} failed" if counts.failed else ""
    progress.note(f"{counted(counts.labelled, 'image')} labelled{failed} in {seconds:.1f} s{where}")


class LabelFiles:
    """The files of one run: its records, and a writer for each format."""

    def __init__(
        self, request: LabelRequest, source: ModelSource, labeller: Labeller, root: Path, progress: Progress
    ) -> None:
        """Write the records that come first, so that masks of a run that is broken off can be read, and are not taken for inputs.

        `root` is the folder that the images' relative paths begin at. Raises OutputError.
        """
        vocabulary = labeller.vocabulary
        command = request.model.command(vocabulary)
        model = source.facts()
        self._output = request.output
        self._progress = progress
        self._facts = RunFacts(
            command=command,
            model=model,
            device=str(labeller.encoder.device),
            dtype=labeller.encoder.dtype_name,
            options=request.model.options,
            min_area=request.min_area,
            vocabulary=vocabulary,
            formats=request.formats,
            started=datetime.now(UTC),
        )
        if (other := other_run(self._output, self._facts)) is not None:
            progress.note(
                f"{self._output} holds labels of another run ({other}); what this one does not replace stays."
            )
        info = {
            "version": __version__,
            "command": command,
            "model": model["id"],
            "revision": model["revision"],
            "vocabulary": [entry.name for entry in vocabulary.classes],
        }
        context = RunContext(self._output, root, vocabulary.classes, info, request.min_area)
        write_run(self._output, self._facts, None)
        self._classes_file = write_classes(self._output, vocabulary.classes, vocabulary.background_texts)
        self.writers = [create(name, context) for name in request.formats]

    def finish(self, counts: RunCounts, reporter: Reporter) -> None:
        """Close the writers and write the records that come last; raises OutputError."""
        for writer in self.writers:
            self._progress.results(writer.close())
        self._progress.results([self._classes_file])
        write_errors(self._output, reporter.failures)
        write_run(self._output, self._facts, {"labelled": counts.labelled, "failed": counts.failed})


class Reporter:
    """Passes on what the pipeline does to the terminal, and keeps the failures."""

    def __init__(self, progress: Progress) -> None:
        self.failures: list[tuple[ImageRef, ImageError]] = []
        self._progress = progress

    def labelled(self, ref: ImageRef, label_map: LabelMap, paths: Sequence[Path]) -> None:
        """Tell of an image's files."""
        self._progress.results(paths)
        self._progress.advance()

    def failed(self, ref: ImageRef, error: ImageError) -> None:
        """Tell of an image that failed, and remember it."""
        self.failures.append((ref, error))
        self._progress.error(error)
        self._progress.advance()


class JsonReporter(Reporter):
    """Prints a line of JSON for each image, in place of the paths of its files."""

    def __init__(self, progress: Progress, output: Path) -> None:
        super().__init__(progress)
        self._output = output

    def labelled(self, ref: ImageRef, label_map: LabelMap, paths: Sequence[Path]) -> None:
        """Print the image's record."""
        print_text(json_bytes(image_summary(ref, label_map, self._output, paths)).decode() + "\n")
        self._progress.advance()
