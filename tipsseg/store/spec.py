"""RunSpec and RunInfo: what a run is asked for, and what it came to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tipsseg import types
from tipsseg.errors import OutputError, UsageError
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE
from tipsseg.formats import check_formats
from tipsseg.options import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_FORMATS,
    DEFAULT_LABEL_OPTIONS,
    FileOptions,
    LabelOptions,
)
from tipsseg.options.fields import options_of, text_of
from tipsseg.options.run import ComputeOptions, OutputOptions
from tipsseg.store.shards import state_folder
from tipsseg.types import BACKGROUND, MAX_CLASSES_8_BIT
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.printable import shell_line, shell_word
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES
from tipsseg.vocabulary.toml_file import class_record
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

#: Options that a command to repeat a run leaves out, or names elsewhere.
_UNRECORDED = frozenset({"model", "features", "jobs", "use_cache", "resume", "overwrite", "replace_edited"})

#: See `types.LABELS_VERSION`.
LABELS_VERSION = types.LABELS_VERSION


@dataclass(frozen=True, kw_only=True)
class RunSpec(ComputeOptions, OutputOptions):
    """What a run is asked for, beside its images.

    Attributes:
        vocabulary: The classes and the background phrases, as they are asked for.
        fitted: The vectors of the vocabulary, if they were fitted to masks; a record of a run has their digest alone.
        options: How an image is labelled.
        files: How labels become files.
        formats: The formats to write. Without formats nothing is written.
        feature_dtype: What the features of the store are kept in; None before `plan_run`, which takes it from the store.
        sources: Paths of the images as the user named them, "-" for a list on stdin; none in the record of an earlier run.
        vocabulary_path: The vocabulary file or preset as the user named it.
    """

    vocabulary: Vocabulary
    fitted: FittedVocabulary | None = None
    options: LabelOptions = DEFAULT_LABEL_OPTIONS
    files: FileOptions = DEFAULT_FILE_OPTIONS
    feature_dtype: str | None = None
    formats: tuple[str, ...] = DEFAULT_FORMATS
    sources: tuple[str, ...] = ()
    vocabulary_path: str | None = None

    def __post_init__(self) -> None:
        ComputeOptions.__post_init__(self)
        OutputOptions.__post_init__(self)

    @property
    def state(self) -> Path:
        """The state folder: the output folder, or the folder of the shard in it."""
        return state_folder(self.output, self.shard)

    @property
    def labelled_in(self) -> str:
        """The dtype of the features that labels come from: that of the feature store, "float32" without one."""
        return "float32" if self.features is None else self.feature_dtype or DEFAULT_FEATURE_DTYPE

    @property
    def owner(self) -> str:
        """What the names of temporary files in the output folder begin with; see `files.clean_up`."""
        return "" if self.shard is None else f"{self.shard.folder}-"

    def check(self) -> None:
        """Raise an error for everything that can be seen to be wrong without torch and without images.

        Raises:
            UsageError: For options that cannot be meant.
            OutputError: Where the output folder cannot be made.
            CheckpointError, WeightsError: Where there is no such model.
        """
        classes = self.vocabulary.classes
        check_formats(self.formats, classes)
        if self.files.png_mode == "P" and len(classes) > MAX_CLASSES_8_BIT:
            raise UsageError(
                f"argument `png_mode`=P holds {MAX_CLASSES_8_BIT} classes, and there are {len(classes)}",
                "Use argument `png_mode`=L.",
            )
        check_features(self.features, self.output if self.formats else None)
        check_fit(self.vocabulary, self.fitted)
        find_model(self.model)
        check_folder(self.output)  # after the options: their faults are told first

    def option_record(self) -> dict[str, object]:
        """The options of labelling and of files, as run.json has them."""
        return {**self.options.record(), **self.files.record()}

    def command(self) -> str:
        """Return the command of the run, with paths and formats."""
        vocabulary = self.vocabulary_path or self.vocabulary.source
        words = ["tipsseg", "label", *(self.sources or ["IMAGES"]), *self._question(self.model, vocabulary)]
        if self.features is not None:
            words += ["--features", str(self.features)]
        files = replace(self.files, val_fraction=self.files.val_fraction or None)
        for record, values in ((ComputeOptions, self), (FileOptions, files), (OutputOptions, self)):
            for name, (each, about) in options_of(record).items():
                if name not in _UNRECORDED and (value := getattr(values, name)) != each.default:
                    words += [about.long(name), text_of(value)]
        return shell_line(words)

    def question(self, model: str) -> str:
        """Return a command that asks the model for the same labels, the same on every machine: without paths."""
        words = ["tipsseg", "label", *self._question(model, self.vocabulary.source)]
        return shell_line([*words, "--features", "DIR"] if self.labelled_in != "float32" else words)

    def _question(self, model: str, source: str) -> list[str]:
        vocabulary = self.vocabulary
        words = ["--model", model]
        if vocabulary.source or vocabulary.fit or vocabulary.templates != PROTOCOL_TEMPLATES:
            words += ["--vocab", source or ("FIT" if vocabulary.fit else "FILE")]
        else:
            for entry in vocabulary.classes:
                words += ["-c", entry.name]
        # What "auto" came to is in the record of the vocabulary.
        if not vocabulary.fit:
            words += ["--background", "auto" if vocabulary.auto else _option_value(vocabulary.background)]
        words += ["--mode", self.options.mode]
        for name, (each, about) in options_of(LabelOptions).items():
            if name != "mode" and (value := getattr(self.options, name)) != each.default:
                words += [about.long(name), text_of(value)]
        return words


@dataclass(frozen=True, slots=True)
class Counts:
    """How many images a run has labelled, left unchanged since an earlier run, and failed to label.

    Attributes:
        edited: Those of `unchanged` with files that were changed by hand, and are kept.
    """

    labelled: int = 0
    unchanged: int = 0
    failed: int = 0
    edited: int = 0

    @property
    def done(self) -> int:
        """All of them."""
        return self.labelled + self.unchanged + self.failed


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run came to. Its fields become known one after the other: see `plan_run`, `Engine.start` and `OutputFolder`.

    Attributes:
        spec: What was asked for.
        model: `id`, `repository`, `revision` and `sha256` of the model, see `ModelSource.facts`.
        dtype: The dtype that the model computes in; "auto" until the model is loaded, where the output folder has none yet.
        device: The device of the model. Known once the model is loaded, as are the next two.
        vocabulary: The vocabulary with its background resolved.
        dropped: Background phrases that were left out, each with the phrase of a class that it means the same as.
        image_root: The folder that the names of the images begin at; None where it is not one folder.
        started: When the run began to label.
        ended: When the run ended; None before that.
        counts: What became of the images.
        batch_size: Windows that made a batch at the end, after batches were halved for want of memory; None: not known.
        summary: What the labels of all images of the folder hold, see `summary.Totals`.
        files: The files that stand for the whole run, as it wrote them, by their paths relative to the output folder.
        converting: The formats of a conversion that was begun and has not ended.
        lost: Whether records of images were lost once: files may be there then that no record has.
        kept: Files that were changed by hand, and were kept when the folder was started over; relative to the output folder.
        noted: What the record of an earlier run says of the program that made it; None for a run of this process.
    """

    spec: RunSpec
    model: Mapping[str, object]
    dtype: str
    device: str = ""
    vocabulary: Vocabulary | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    image_root: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    counts: Counts = Counts()
    batch_size: int | None = None
    summary: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, Fingerprint] = field(default_factory=dict)
    converting: tuple[str, ...] = ()
    lost: bool = False
    kept: tuple[str, ...] = ()
    noted: Maker | None = None

    @property
    def digest(self) -> str:
        """32 hex digits, the same for the same labels and annotations: a function of what was asked, the model and the dtype."""
        return self.noted.digest if self.noted is not None else labels_digest(self.spec, self.model, self.dtype)

    @property
    def names(self) -> dict[int, str]:
        """The names of the classes by their ids, 1..N."""
        return {each.id: each.name for each in self.spec.vocabulary.classes}

    @property
    def images(self) -> int:
        """How many images the folder had at the end of the run."""
        held = self.summary.get("images")
        return max(self.counts.labelled + self.counts.unchanged, held if isinstance(held, int) else 0)


@dataclass(frozen=True, slots=True)
class Maker:
    """What the record of a run says of the program that made it, which may be of another version.

    Attributes:
        version: Of tipsseg.
        labels_version: See LABELS_VERSION.
        digest: See RunInfo.
        command: See `RunSpec.command`.
        versions: Of Python and of packages.
        gone: The options that this version does not have, with their values.
    """

    version: str
    labels_version: int
    digest: str
    command: str
    versions: Mapping[str, object]
    gone: Mapping[str, object] = field(default_factory=dict)


def labels_digest(spec: RunSpec, model: Mapping[str, object], dtype: str) -> str:
    """See RunInfo. Manifests have it, so that it stays the same as long as LABELS_VERSION does."""
    value = {
        "labels_version": LABELS_VERSION,
        "model": model_identity(model),
        "vocabulary": vocabulary_identity(vocabulary_record(spec.vocabulary, spec.vocabulary)),
        "options": {**spec.options.record(), **spec.files.image_record()},
        "dtype": dtype,
    }
    # Left out where labels are those without a store.
    if spec.labelled_in != "float32":
        value["features"] = spec.labelled_in
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def model_identity(facts: Mapping[str, object]) -> Mapping[str, object]:
    """What tells a model from others: a revision of a repository, or the hashes of its files."""
    if facts.get("revision"):
        return {"repository": facts.get("repository"), "revision": facts["revision"]}
    return {"sha256": facts.get("sha256")}


def vocabulary_identity(record: Mapping[str, object]) -> Mapping[str, object]:
    """What tells a vocabulary from others: all of its record but where it came from, and what an automatic background came to."""
    same = {key: value for key, value in record.items() if key != "source"}
    return {**same, "background": None} if record.get("auto") else same


def vocabulary_record(asked: Vocabulary, used: Vocabulary) -> dict[str, object]:
    """What competed: `classes` as the entries of a vocabulary file, with the ids that they were given (0: written as background),
    `background`, whether that was chosen by itself (`auto`), and `templates`; and the digest of vectors that were fitted (`fit`).
    """
    ids = iter(range(1, len(asked.classes) + 1))
    return {
        "source": asked.source,
        "classes": [{"id": BACKGROUND if spec.negative else next(ids), **class_record(spec)} for spec in asked.specs],
        "background": list(used.background),
        "auto": asked.auto,
        "templates": list(asked.templates),
        **({"fit": asked.fit} if asked.fit else {}),
    }


def _option_value(background: Sequence[str]) -> str:
    """These phrases as an option of the command takes them; FILE where only a vocabulary file can say them."""
    if not background:
        return "none"
    if background in (("auto",), ("none",)) or any("," in phrase for phrase in background):
        return "FILE"
    return ",".join(background)


def check_features(features: Path | None, output: Path | None) -> None:
    """Raise UsageError for a feature store that cannot be meant; `output` is the folder of the labels, if there is one."""
    if features is not None and output is not None and os.path.realpath(features) == os.path.realpath(output):
        raise UsageError(
            "argument `features` and argument `output` are one folder", "Give a folder for each of the two."
        )


def check_fit(vocabulary: Vocabulary, fitted: FittedVocabulary | None) -> None:
    """Raise UsageError where the vectors of a vocabulary are not at hand, or are others than it says."""
    if vocabulary.fit != ("" if fitted is None else fitted.vocabulary.fit):
        raise UsageError(
            "the vectors of this vocabulary were fitted to masks, and they are not at hand, or others",
            "Give the fitted vocabulary itself: the file that the fit wrote, as argument `vocabulary`.",
        )


def check_hint(output: Path) -> str:
    """Return what to do if the records of an output folder are not as a run leaves them."""
    return f"See what is wrong with it: tipsseg check {shell_word(str(output))}"


def check_folder(output: Path) -> None:
    """Raise OutputError where an output folder cannot be made, because a file has its name or that of a parent."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", "Choose another output folder with argument `output`.")
