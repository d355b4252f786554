"""RunSpec and RunInfo: the settings of a run, and its result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tipsseg import types
from tipsseg.errors import InputError, OutputError, UsageError, VocabularyError, Words, named
from tipsseg.features.folder import DEFAULT_FEATURE_DTYPE
from tipsseg.formats import FORMATS, block_formats, check_extra, check_formats, mask_format
from tipsseg.formats.blocks import BlockMask
from tipsseg.options import DEFAULT_FORMATS
from tipsseg.options import declared as opt
from tipsseg.options.fields import Opt, json_value, options_of, record_of, take_options, text_of
from tipsseg.options.records import (
    DEFAULT_FILE_OPTIONS,
    DEFAULT_LABEL_OPTIONS,
    DEFAULT_PICTURE_OPTIONS,
    ComputeOptions,
    FileOptions,
    LabelOptions,
    PictureOptions,
)
from tipsseg.options.values import Every, Shard
from tipsseg.types import BACKGROUND
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.text import shell_line
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.phrases import PROTOCOL_TEMPLATES
from tipsseg.vocabulary.vocabulary import (
    Vocabulary,
    class_record,
    listed_classes,
    make_vocabulary,
)
from tipsseg.weights.sources import find_model

if TYPE_CHECKING:
    from tipsseg.images.decoding import ImageReader
    from tipsseg.masks.given import Given

#: The records of options within the settings of a run, each with the field of RunSpec that holds it.
PARTS: Mapping[type, str] = {
    LabelOptions: "options",
    FileOptions: "files",
    PictureOptions: "picture",
}


@dataclass(frozen=True, kw_only=True)
class RunSpec(ComputeOptions):
    """Settings of a run, except its images.

    Attributes:
        vocabulary: The classes and the background phrases, as requested.
        fitted: The vocabulary's vectors if they were fitted to masks; run.json records only their digest.
        options: Labelling options.
        picture: Options for pictures that are read in parts.
        files: File options.
        formats: The formats to write; nothing is written if empty. With regions or labels, they include the instance masks.
        formats_given: False if the user named no formats; `plan_run` then takes the folder's formats, if it has any.
        feature_dtype: Dtype of the features in the store; None before `plan_run`, which reads it from the store.
        command: The command line of the run; "" for an earlier run.
        new_classes: The classes to add to the existing labels.
    """

    vocabulary: Vocabulary
    fitted: FittedVocabulary | None = None
    options: LabelOptions = DEFAULT_LABEL_OPTIONS
    picture: PictureOptions = DEFAULT_PICTURE_OPTIONS
    files: FileOptions = DEFAULT_FILE_OPTIONS
    feature_dtype: str | None = None
    regions: Annotated[Path | None, opt.Regions] = None
    regions_only: opt.RegionsOnly = False
    regions_margin: opt.RegionsMargin = 0.0
    present: Annotated[Path | None, opt.Present] = None
    onto: Annotated[Path | None, opt.Onto] = None
    sample: opt.Sample = None
    every: Annotated[Every | None, opt.EveryFrame] = None
    output: Annotated[Path, opt.Output] = Path("labels")
    overwrite: opt.Overwrite = False
    prune: opt.Prune = None
    replace_edited: opt.ReplaceEdited = False
    shard: Annotated[Shard | None, opt.ShardOfRun] = None
    formats: Annotated[tuple[str, ...], opt.Formats] = DEFAULT_FORMATS
    formats_given: bool = True
    command: str = ""
    new_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            self.formats and self.mask_format not in self.formats
        ):  # always written: the masks are the record of the labels
            object.__setattr__(self, "formats", (self.mask_format, *self.formats))

    @cached_property
    def given(self) -> Given | None:
        """Return the regions, labels and names that the run is given; None without any. Their files are listed once.

        Raises:
            InputError, ImageError: They cannot be listed.
        """
        if self.regions is None and self.onto is None and self.present is None:
            return None
        from tipsseg.masks.given import Given  # slow to import
        from tipsseg.masks.labels import LabelSource
        from tipsseg.masks.present import PresentNames
        from tipsseg.masks.regions import RegionSource

        classes = self.vocabulary.classes
        return Given(
            regions=None if self.regions is None else RegionSource(self.regions),
            only=self.regions_only,
            margin=self.regions_margin,
            labels=None if self.onto is None else LabelSource(self.onto, classes),
            added=[entry.id for entry in classes if entry.name in self.new_classes],
            present=None if self.present is None else PresentNames(self.present, self.vocabulary),
            classes=classes,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any], **more: Any) -> RunSpec:
        """Return the settings of a run from values of options and of other fields, and check them. Raise as `check` does."""
        parts: dict[str, Any] = {name: take_options(record, values) for record, name in PARTS.items()}
        spec = take_options(cls, {**values, **parts, **more})
        spec.check()
        return spec

    def changed(self, **changes: Any) -> RunSpec:
        """Return the settings with some changes. The files of its regions and labels are not listed again."""
        spec = replace(self, **changes)
        if "given" in self.__dict__:
            spec.__dict__["given"] = self.__dict__["given"]
        return spec

    @property
    def reader(self) -> ImageReader:
        """Return the reader of the run's images."""
        from tipsseg.images.decoding import ImageReader  # slow to import

        return ImageReader(self.max_pixels, self.options.stretch)

    @property
    def labelled_in(self) -> str:
        """Return the dtype of the features that are labelled: the feature store's, or "float32"."""
        return "float32" if self.features is None else self.feature_dtype or DEFAULT_FEATURE_DTYPE

    @property
    def mask_format(self) -> str:
        """Return the format of the masks."""
        return mask_format(self.formats)

    def check(self) -> None:
        """Run all checks of the settings that need neither torch nor images. `plan_run` checks formats of the folder.

        Raises:
            UsageError: Options contradict each other.
            OutputError: The output folder cannot be created.
            CheckpointError, WeightsError: The model is not found.
        """
        if self.formats_given:
            self.check_formats()
        output = Path(os.path.realpath(self.output))
        for name, source in {"features": self.features, "regions": self.regions, "onto": self.onto}.items():
            real = None if source is None or not self.formats else Path(os.path.realpath(source))
            if real == output:
                raise UsageError(
                    Words("{name} and {output} are the same folder", name=named(name)), "Choose two folders."
                )
            if real is not None and name != "features" and real.is_relative_to(output):
                raise UsageError(
                    Words("{name} is inside the output folder", name=named(name)), "Choose another output folder."
                )
        if self.vocabulary.fit != ("" if self.fitted is None else self.fitted.vocabulary.fit):
            raise UsageError(
                "the fitted vectors of this vocabulary are missing, or belong to another fit",
                Words("Pass the fit file itself as {vocab}."),
            )
        find_model(self.model)
        refuse_file(self.output)  # last, so that errors in options are raised first

    def check_formats(self) -> None:
        """Raise UsageError if the formats do not fit the other settings."""
        check_formats(self.formats, self.vocabulary.classes)
        check_extra(self.formats, self.files)
        self._check_blocks()

    @property
    def block_mask(self) -> BlockMask | None:
        """Return the format of masks that are written block by block; None for images that are labelled whole."""
        form = FORMATS[self.mask_format]
        return form if isinstance(form, BlockMask) else None

    def _check_blocks(self) -> None:
        """Raise UsageError for options without which blocks are labelled, or for options of blocks alone."""
        if self.block_mask is None:
            for name, option in options_of(PictureOptions).items():
                if getattr(self.picture, name) != option.default:
                    raise UsageError(
                        Words(
                            "{name} works only without other formats than {block_formats}",
                            name=named(name),
                            block_formats=", ".join(block_formats()),
                        ),
                        "Pass only the images to restore, or remove the argument.",
                    )
            return
        options = self.options
        refused = (name for name, (value, default, about) in self.settings() if not about.blocks and value != default)
        if (unfit := next(refused, None)) is not None:
            raise UsageError(
                Words("{unfit} cannot be used with the format {mask}", unfit=named(unfit), mask=self.mask_format),
                Words("Set {scales} instead.") if unfit == "short_side" else "Remove it, or use another format.",
            )
        if len(options.scales) > 1:
            raise UsageError(
                f"the format {self.mask_format} has labels at one scale",
                Words("Set {scales} to one factor of the pixel size."),
            )

    def settings(self, *records: type) -> Iterator[tuple[str, Setting]]:
        """Yield the options of these records of options, by default of all, by name."""
        for record in records or (*PARTS, RunSpec):
            holder = getattr(self, PARTS[record]) if record in PARTS else self
            for name, option in options_of(record).items():
                yield name, Setting(getattr(holder, name), option.default, option.about)

    def question(self, model: str) -> str:
        """Return the command line for the same labels without paths, so that it is the same on every machine."""
        words = ["tipsseg", "label", *self._question(model)]
        if self.labelled_in != "float32":
            words += ["--features", "DIR"]
        if self.regions is not None:
            words += ["--regions", "PATH", *(["--regions-only"] * self.regions_only)]
            words += ["--regions-margin", f"{self.regions_margin:g}"] if self.regions_margin else []
        if self.onto is not None:
            words += ["--onto", "PATH"]
        if self.present is not None:
            words += ["--present", "FILE"]
        return shell_line(words)

    def _question(self, model: str) -> list[str]:
        vocabulary = self.vocabulary
        words = ["--model", model]
        if vocabulary.source or vocabulary.fit or vocabulary.templates != PROTOCOL_TEMPLATES:
            words += ["--vocab", vocabulary.source or ("FIT" if vocabulary.fit else "FILE")]
        else:
            for entry in vocabulary.classes:
                words += ["-c", entry.name]
        # The vocabulary's record has the phrases that "auto" was resolved to.
        if not vocabulary.fit:
            phrases = vocabulary.background
            # Some phrases can only be written in a vocabulary file.
            in_file = phrases in (("auto",), ("none",)) or any("," in phrase for phrase in phrases)
            text = "FILE" if in_file else ",".join(phrases) or "none"
            words += ["--background", "auto" if vocabulary.auto else text]
        for name, (value, default, about) in self.settings(LabelOptions):
            if name == "mode" or value != default:
                words += option_words(about.long(name), value)
        return words


class Setting(NamedTuple):
    """The value of an option in a run, its default and its declaration."""

    value: Any
    default: object
    about: Opt


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of images that a run labelled, that were unchanged since an earlier run, and that failed.

    Attributes:
        edited: Number of unchanged images with edited files, which are kept.
    """

    labelled: int = 0
    unchanged: int = 0
    failed: int = 0
    edited: int = 0

    @property
    def done(self) -> int:
        return self.labelled + self.unchanged + self.failed


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run and its result. `plan_run`, `begin` and `OutputFolder` fill in the fields step by step.

    Attributes:
        spec: Settings of the run.
        model: `id`, `repository`, `revision` and `sha256` of the model (see `ModelSource.facts`).
        dtype: The dtype of the model; "auto" until the model is loaded, if the output folder has no labels yet.
        device: The device of the model. Known once the model is loaded, as are the next three.
        dtype_reason: The reason for the dtype (see `Backbone`).
        vocabulary: The vocabulary with its background resolved.
        dropped: Ignored background phrases, each with the class phrase that means the same.
        image_root: The folder that image names are relative to; None if the images are from several folders.
        started: Time at which labelling began.
        ended: Time at which the run ended; None before that.
        counts: Number of images by result.
        batch_size: Final number of windows per batch, which is halved if memory runs out; None if unknown.
        summary: Summary of all labels in the folder (see `summary.TotalsSum`).
        added: The classes that `tipsseg correct` added to the question.
        overwriting: True while a run replaces all labels of its folder.
        removed: The images that the last command removed or gave back to the model, as the user named them.
        noted: The program that wrote the record of an earlier run; None for a run of this process.
    """

    spec: RunSpec
    model: Mapping[str, object]
    dtype: str
    device: str = ""
    dtype_reason: str = ""
    vocabulary: Vocabulary | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    image_root: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    counts: Counts = Counts()
    batch_size: int | None = None
    summary: Mapping[str, object] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    overwriting: bool = False
    removed: tuple[str, ...] = ()
    noted: Maker | None = None

    @property
    def place(self) -> str:
        """Return the device and the dtype for users: "cpu (bfloat16, as this CPU has AMX)"."""
        return f"{self.device} ({self.dtype}{self.dtype_reason and f', {self.dtype_reason}'})"

    @property
    def digest(self) -> str:
        """Return 32 hex digits that identify the question that a folder answers: the digest of all that changes labels.

        Options at their default are left out, so that a new option changes no digest.
        """
        settings = self.spec.settings(LabelOptions, FileOptions)
        plain = {_question_name(name): json_value(default) for name, (_, default, _) in settings}
        facts = {name: value for name, value in question_facts(self).items() if value != plain.get(name)}
        if self.added:  # by a person: the model's labels stay valid
            facts["classes"] = [each for each in facts["classes"] if each["name"] not in self.added]  # type: ignore[attr-defined]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def names(self) -> dict[int, str]:
        return {each.id: each.name for each in self.spec.vocabulary.classes}


@dataclass(frozen=True, slots=True)
class Maker:
    """The program that wrote the record of a run; it may be of another version.

    Attributes:
        version: Version of tipsseg.
        labels_version: See `types.LABELS_VERSION`.
        digest: See RunInfo.
        command: The command line of the run.
        versions: Versions of Python and of packages.
        method_versions: See `types.METHOD_VERSIONS`.
        folder: The folder in which the command was started; "" if it is unknown.
    """

    version: str
    labels_version: int
    digest: str
    command: str
    versions: Mapping[str, object]
    folder: str = ""
    method_versions: Mapping[str, object] = field(default_factory=dict)


#: What the names of versions of methods begin with in a question (see `types.METHOD_VERSIONS`).
VERSION_OF = "version of "


def question_facts(info: RunInfo) -> dict[str, object]:
    """Return all that changes labels: the question that a folder answers, by the names that messages use."""
    spec = info.spec
    held = {
        _question_name(name): json_value(value)
        for name, (value, _, about) in spec.settings(LabelOptions, FileOptions)
        if about.role == "labels"
    }
    vocabulary: dict[str, Any] = vocabulary_record(spec.vocabulary, spec.vocabulary)
    vocabulary.pop("source")  # it changes no label
    if spec.vocabulary.auto:  # the model's phrases, which may be others
        vocabulary["background"] = None
    mask = FORMATS[spec.mask_format]
    plain = () if mask.colours else ("colour", "supercategory")
    classes = [{key: value for key, value in each.items() if key not in plain} for each in vocabulary.pop("classes")]
    regions = None if spec.regions is None else "regions only" if spec.regions_only else "regions"
    if spec.regions_margin:
        regions = f"{regions}, margin {spec.regions_margin:g}"
    versions = types.METHOD_VERSIONS if info.noted is None else info.noted.method_versions
    used = {
        "refinement": spec.options.refine != "none",
        "parts": any(entry.part_of for entry in spec.vocabulary.classes),
        "names": spec.present is not None,
    }
    return {
        "labels version": types.LABELS_VERSION if info.noted is None else info.noted.labels_version,
        "model": model_identity(info.model),
        "classes": classes,
        **vocabulary,
        **held,
        "dtype": info.dtype,
        # Features stored in float32 give the same labels as no store.
        "features": spec.labelled_in,
        "regions": regions,
        "onto": list(spec.new_classes) if spec.onto is not None else None,
        **({} if spec.present is None else {"present": True}),
        **({mask.setting: record_of(spec.picture)} if isinstance(mask, BlockMask) else {}),
        **{f"{VERSION_OF}{name}": versions.get(name, 1) for name, is_used in used.items() if is_used},
    }


def _question_name(option: str) -> str:
    return option.replace("_", "-")


def model_identity(facts: Mapping[str, object]) -> Mapping[str, object]:
    """Return the identity of a model: a revision of a repository, or the hashes of its files."""
    if facts.get("revision"):
        return {"repository": facts.get("repository"), "revision": facts["revision"]}
    return {"sha256": facts.get("sha256")}


def vocabulary_record(asked: Vocabulary, used: Vocabulary) -> dict[str, object]:
    """Return the record of a vocabulary, for run.json.

    Its keys are `classes`, as in a vocabulary file, with their ids (0: written as background); `background`; `auto`, which is True
    if the background is automatic; `templates`; and `fit`, the digest of fitted vectors.
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


def option_words(flag: str, value: object) -> list[str]:
    """Return the words of an option in a command line."""
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, text_of(value)]


def refuse_file(output: Path) -> None:
    """Raise OutputError if the output folder or one of its parents is a file."""
    for folder in (output, *output.parents):
        if is_folder(folder):
            break
        if is_file(folder):
            raise OutputError(output, f"{folder} is a file", Words("Choose another output folder with {output}."))


def with_classes(info: RunInfo, names: Sequence[str]) -> RunInfo:
    """Return a run with more classes. Raise InputError if a name is invalid."""
    return replace(
        info,
        spec=replace(info.spec, vocabulary=_extended(info.spec.vocabulary, names)),
        added=(*info.added, *names),
        vocabulary=None if info.vocabulary is None else _extended(info.vocabulary, names),
    )


def _extended(vocabulary: Vocabulary, names: Sequence[str]) -> Vocabulary:
    specs = [*vocabulary.specs, *listed_classes(names, (spec.name for spec in vocabulary.specs))]
    try:
        made = make_vocabulary(specs, "none", vocabulary.templates, vocabulary.source)
    except VocabularyError as error:
        raise InputError("invalid new class: " + error.message, error.hint) from None
    return replace(made, **{name: getattr(vocabulary, name) for name in ("background", "auto", "closed", "fit")})
