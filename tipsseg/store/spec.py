"""What a run was asked for, and what of it can be seen to be wrong before any work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tipsseg import __version__
from tipsseg.errors import DeviceError, InputError, OutputError, UsageError
from tipsseg.formats import check_formats
from tipsseg.formats.base import RunContext
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DTYPE_NAMES,
    MAX_PIXELS,
    REFINEMENTS,
    FileOptions,
    LabelOptions,
    check_device_name,
    check_dtype_name,
)
from tipsseg.store.run_record import Decides, read_run
from tipsseg.store.shards import SHARDS_FOLDER, Shard, shards_in
from tipsseg.types import MAX_CLASSES_8_BIT
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.printable import shell_line
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, TEMPLATES
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import ModelSource, find_model


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

    def check_device(self, dtype: str) -> None:
        """Raise DeviceError for a device that is not here, or that has not the dtype."""
        # Only now torch, which takes its time.
        from tipsseg.backbones.devices import resolve_device, resolve_dtype

        device = resolve_device(self.device)
        try:
            resolve_dtype(dtype, device)
        except DeviceError as error:
            if dtype == self.dtype:
                raise
            raise DeviceError(
                error.device,
                f"the labels in the output folder were begun in {dtype}, and {error.message}",
                "Go on where that device is, or choose another output folder with -o.",
            ) from error

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
    overwrite: bool = False
    replace_edited: bool = False

    def check(self) -> ModelSource:
        """Where the model will come from, once all that can be seen without torch or images is seen to be right.

        Raises UsageError, OutputError, CheckpointError, WeightsError.
        """
        if self.overwrite and not self.resume:
            raise UsageError(
                "--overwrite and --no-resume exclude each other",
                "Give --overwrite to remove what an earlier run wrote, --no-resume to label the images again.",
            )
        classes = self.model.vocabulary.classes
        check_formats(self.formats, classes)
        if self.files.png_mode == "P" and len(classes) > MAX_CLASSES_8_BIT:
            raise UsageError(
                f"--png-mode P holds {MAX_CLASSES_8_BIT} classes, and there are {len(classes)}", "Use --png-mode L."
            )
        source = self.model.check()
        check_folder(self.output)  # after the options, so that a fault of those is told first
        return source


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
    dtype = asked.dtype if asked.dtype != "auto" else begun_dtype(context) or "auto"
    return Job(request, source, context, Decides(model, asked.vocabulary, asked.options, request.files, dtype))


def begun_dtype(context: RunContext) -> str | None:
    """The dtype that the labels in an output folder were begun in, by this run or another shard of it; None where there is none."""
    output, shards = context.output, []
    with suppress(InputError):  # told when the folder is taken
        shards = shards_in(output)
    for records in (context.state, *(output / SHARDS_FOLDER / shard.folder for shard in shards)):
        dtype = (read_run(records) or {}).get("dtype")
        if isinstance(dtype, str) and dtype in DTYPE_NAMES:
            return dtype
    return None


def check_folder(output: Path) -> None:
    """Raise OutputError where an output folder cannot be made, because a file has its name or that of a parent."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", "Choose another output folder with -o.")
