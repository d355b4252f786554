"""RunSpec: what a run is asked for, and what of it can be seen to be wrong before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tipsseg.errors import OutputError, UsageError
from tipsseg.formats import check_formats
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_FORMATS,
    DEFAULT_LABEL_OPTIONS,
    MAX_PIXELS,
    REFINEMENTS,
    FileOptions,
    LabelOptions,
    check_device_name,
    check_dtype_name,
    default_jobs,
)
from tipsseg.store.shards import Shard, state_folder
from tipsseg.types import MAX_CLASSES_8_BIT
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.printable import shell_line
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, TEMPLATES
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is asked for, beside its images.

    Attributes:
        model: An id or a repository of weights.lock, or a folder in the hub layout.
        vocabulary: The classes and the background phrases, as they are asked for.
        options: How an image is labelled.
        files: How labels become files.
        formats: The formats to write. Without formats nothing is written.
        output: The output folder.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
        batch_size: Windows that a GPU takes at once.
        jobs: Threads that decode images, and make labels and files.
        max_pixels: Larger images are refused.
        resume: Whether images that are done in the output folder stay as they are.
        overwrite: Whether what an earlier run wrote is removed first.
        replace_edited: Whether images are labelled anew whose files were changed by hand.
        shard: The part of the images that this run labels. None: all of them.
        use_cache: Whether the user's cache keeps what saves time the next time: the vectors of phrases, and stamps of hashed files.
    """

    model: str
    vocabulary: Vocabulary
    options: LabelOptions = DEFAULT_LABEL_OPTIONS
    files: FileOptions = DEFAULT_FILE_OPTIONS
    formats: tuple[str, ...] = DEFAULT_FORMATS
    output: Path = Path("labels")
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8
    jobs: int = field(default_factory=default_jobs)
    max_pixels: int = MAX_PIXELS
    resume: bool = True
    overwrite: bool = False
    replace_edited: bool = False
    shard: Shard | None = None
    use_cache: bool = False

    @property
    def state(self) -> Path:
        """The state folder: the output folder, or the folder of the shard in it."""
        return state_folder(self.output, self.shard)

    @property
    def owner(self) -> str:
        """What the names of temporary files in the output folder begin with; see `files.clean_up`."""
        return "" if self.shard is None else f"{self.shard.folder}-"

    def check(self) -> None:
        """Raise an error for everything that can be seen to be wrong without torch and without images.

        Raises:
            UsageError: for options that cannot be meant.
            OutputError: where the output folder cannot be made.
            CheckpointError, WeightsError: where there is no such model.
        """
        if self.overwrite and not self.resume:
            raise UsageError(
                "--overwrite and --no-resume exclude each other",
                "Give --overwrite to remove what an earlier run wrote, --no-resume to label the images again.",
            )
        classes = self.vocabulary.classes
        check_formats(self.formats, classes)
        if self.files.png_mode == "P" and len(classes) > MAX_CLASSES_8_BIT:
            raise UsageError(
                f"--png-mode P holds {MAX_CLASSES_8_BIT} classes, and there are {len(classes)}", "Use --png-mode L."
            )
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} is too small; the least is 1")
        check_device_name(self.device)
        check_dtype_name(self.dtype)
        find_model(self.model)
        check_folder(self.output)  # after the options: their faults are told first

    def option_record(self) -> dict[str, object]:
        """The options of labelling and of files, as run.json has them."""
        return {**asdict(self.options), **self.files.record()}

    def command(self) -> str:
        """A command line that asks for the same labels, without paths and without what does not change the labels."""
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
    """The value of --background for these phrases; FILE where only a vocabulary file can say them."""
    if not background:
        return "none"
    if background in (("auto",), ("none",)) or any("," in phrase for phrase in background):
        return "FILE"
    return ",".join(background)


def check_folder(output: Path) -> None:
    """Raise OutputError where an output folder cannot be made, because a file has its name or that of a parent."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", "Choose another output folder with -o.")
