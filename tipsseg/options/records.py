"""Records of options that several modules hand on.

Keep imports fast here: the command's help loads this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from tipsseg.options import MAX_PIXELS, ONE_SCALE, Instances, MinArea, default_jobs
from tipsseg.options import declared as opt
from tipsseg.options.fields import OptionRecord, check_options, record_of, short_repr

#: None, which `__post_init__` replaces.
_LATER: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions(OptionRecord):
    """Options for labelling an image, except the model and the vocabulary.

    With several `scales`, the model sees the image at every scale, and the mean log-probabilities decide the labels. The scales are
    stored in ascending order.

    Raises:
        UsageError: If a value is invalid for all models.
    """

    mode: opt.ViewMode = "slide"
    short_side: opt.ShortSide = None
    min_confidence: opt.MinConfidence = 0.0
    refine: opt.Refine = "none"
    scales: Annotated[tuple[float, ...], opt.Scales] = ONE_SCALE
    stretch: Annotated[tuple[float, float] | None, opt.Stretch] = None

    __repr__ = short_repr

    def record(self) -> dict[str, object]:
        """Return the options as run.json stores them."""
        return record_of(self)


DEFAULT_LABEL_OPTIONS = LabelOptions()


#: The options that None leaves as they are in the folder, and their values in a new folder.
_KEPT: Mapping[str, Any] = {
    "instances": "component",
    "min_area": MinArea(1),
    "simplify": None,
    "val_fraction": None,
    "extra": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions(OptionRecord):
    """Options for label files.

    `min_area` also accepts a number of pixels, or a string such as "0.1%". An option that is None keeps the folder's value; the
    default applies in a new folder.

    Attributes:
        given: The names of the options that are not None.

    Raises:
        UsageError: If a value is invalid.
    """

    instances: Annotated[Instances, opt.InstanceKind] = _LATER
    min_area: Annotated[MinArea, opt.MinimumArea] = _LATER
    simplify: opt.Simplify = None
    names: opt.FileNames = "stem"
    val_fraction: opt.ValFraction = None
    extra: Annotated[tuple[str, ...], opt.FormatOptions] = _LATER
    given: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", frozenset(name for name in _KEPT if getattr(self, name) is not None))
        for name in _KEPT.keys() - self.given:
            object.__setattr__(self, name, _KEPT[name])
        check_options(self)
        object.__setattr__(self, "val_fraction", self.val_fraction or None)  # none at all is the same

    __repr__ = short_repr

    def kept(self, before: FileOptions) -> FileOptions:
        """Fill the options that are not given from an earlier run; `extra` keeps the names that it does not give."""
        kept = {name: getattr(before, name) for name in _KEPT.keys() - self.given}
        return replace(self, **{**kept, "extra": (*before.extra, *self.extra)})


DEFAULT_FILE_OPTIONS = FileOptions()


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(OptionRecord):
    """Options for reading images and masks. Raise UsageError if a value is invalid."""

    jobs: Annotated[int, opt.Jobs] = _LATER
    max_pixels: opt.MaxPixels = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.jobs is None:
            object.__setattr__(self, "jobs", default_jobs())
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(ReadingOptions):
    """Options for the model and the machine, and stored features. Raise UsageError if a value is invalid on all machines."""

    model: Annotated[str, opt.ModelName] = "l14"
    device: Annotated[str, opt.Device] = "auto"
    dtype: opt.Dtype = "auto"
    batch_size: opt.BatchSize = None
    use_cache: opt.UseCache = False
    features: Annotated[Path | None, opt.Features] = None


@dataclass(frozen=True, kw_only=True)
class PictureOptions(OptionRecord):
    """Options for pictures that are read in parts, such as satellite scenes. Raise UsageError if a value is invalid."""

    bands: Annotated[tuple[int, ...] | None, opt.Bands] = None
    ground_resolution: opt.GroundResolution = None


DEFAULT_PICTURE_OPTIONS = PictureOptions()


@dataclass(frozen=True, kw_only=True)
class TruthOptions:
    """Options for ground-truth masks: file names and ids. Without a `layout`, 0 is the background, and 1..N are the classes."""

    layout: opt.Layout = None
    ignore_index: opt.IgnoreIndex = None
    reduce_zero_label: opt.ReduceZeroLabel = False
    zero_based: opt.ZeroBased = False


@dataclass(frozen=True, kw_only=True)
class CorrectOptions:
    """Options for importing corrections."""

    source_format: opt.SourceFormat = None
    add_classes: opt.AddClasses = False
    replace_edited: opt.ReplaceCorrected = False
    accept: opt.Accept = False
    images: Annotated[Path | None, opt.CorrectedImages] = None
    dry_run: opt.CheckOnly = False
