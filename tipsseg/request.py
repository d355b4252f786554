"""What a run was asked for, and what of it can be seen to be wrong before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tipsseg import __version__
from tipsseg.device_names import check_device_name, check_dtype_name
from tipsseg.errors import OutputError, UsageError
from tipsseg.file_options import DEFAULT_FILE_OPTIONS, FileOptions
from tipsseg.files import is_file, is_folder
from tipsseg.label_options import MAX_PIXELS, REFINEMENTS, LabelOptions
from tipsseg.loading import ModelSource, find_model
from tipsseg.printable import shell_line
from tipsseg.records import MAX_CLASSES_8_BIT
from tipsseg.run_record import Decides
from tipsseg.shards import SHARDS_FOLDER, Shard
from tipsseg.templates import PROTOCOL_TEMPLATES, TEMPLATES
from tipsseg.vocabulary import Vocabulary
from tipsseg.writers import RunContext, check_formats


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
    max_pixels: int = MAX_PIXELS

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch is seen to be right.

        Raises UsageError, CheckpointError, WeightsError.
        """
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} is too small; the least is 1")
        check_device_name(self.device)
        check_dtype_name(self.dtype)
        return find_model(self.model)

    def check_device(self) -> None:
        """Raise DeviceError for a device that is not here, or that has not the dtype."""
        # Only now torch, which takes its time.
        from tipsseg.devices import resolve_device, resolve_dtype

        resolve_dtype(self.dtype, resolve_device(self.device))

    def command(self) -> str:
        """A command line that asks for the same labels, without paths or what does not change them."""
        vocabulary = self.vocabulary
        words = ["tipsseg", "label", "--model", self.model]
        if vocabulary.source:
            words += ["--vocab", vocabulary.source]
        else:
            for entry in vocabulary.classes:
                words += ["-c", entry.name]
        # What "auto" came to is in the record of the vocabulary.
        words += ["--background", "auto" if vocabulary.auto else _option_value(vocabulary.background)]
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
        return shell_line(words)


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
    files: FileOptions = DEFAULT_FILE_OPTIONS
    resume: bool = True
    shard: Shard | None = None
    jsonl: bool = False

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch or images is seen to be right.

        Raises UsageError, OutputError, CheckpointError, WeightsError.
        """
        classes = self.model.vocabulary.classes
        check_formats(self.formats, classes)
        if self.files.png_mode == "P" and len(classes) > MAX_CLASSES_8_BIT:
            raise UsageError(
                f"--png-mode P holds {MAX_CLASSES_8_BIT} classes, and there are {len(classes)}", "Use --png-mode L."
            )
        check_folder(self.output)
        return self.model.check()


@dataclass(frozen=True, slots=True)
class Job:
    """A request with all that follows from it, known before the model is loaded.

    context  for the writers
    decides  all that decides the labels
    """

    request: LabelRequest
    source: ModelSource
    context: RunContext
    decides: Decides


def make_job(request: LabelRequest, source: ModelSource) -> Job:
    """Lay out a run. Raises CheckpointError where the files of a local model cannot be read."""
    asked, shard = request.model, request.shard
    model = source.facts()
    info = {
        "version": __version__,
        "command": asked.command(),
        "model": model["id"],
        "revision": model["revision"],
        "vocabulary": [entry.name for entry in asked.vocabulary.classes],
    }
    context = RunContext(
        request.output,
        request.output if shard is None else request.output / SHARDS_FOLDER / shard.folder,
        asked.vocabulary.classes,
        info,
        request.files,
        "" if shard is None else f"{shard.folder}-",
    )
    return Job(request, source, context, Decides(model, asked.vocabulary, asked.options, request.files, asked.dtype))


def check_folder(output: Path) -> None:
    """Raise OutputError where an output folder cannot be made, because a file has its name or that of a parent."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", "Choose another output folder with -o.")
