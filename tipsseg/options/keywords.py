"""Typed keyword arguments of the library's functions, for editors and type checkers.

The option records define the keywords. These classes repeat their names and types; a test compares both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_type_hints

from tipsseg.options import Dtype, FeatureDtype, Instances, MinArea, Mode, Names, Refinement
from tipsseg.options.fields import options_of
from tipsseg.options.values import ByteSize, Every

_Function = TypeVar("_Function", bound=Callable[..., Any])


class ViewKeywords(TypedDict, total=False):
    """Keywords of LabelOptions for the model's view of an image."""

    mode: Mode
    short_side: int | None
    stretch: Sequence[float] | str | None


class LabelKeywords(ViewKeywords, total=False):
    min_confidence: float
    refine: Refinement
    scales: Iterable[float] | float | str


class FileKeywords(TypedDict, total=False):
    instances: Instances
    min_area: int | str | MinArea
    simplify: float | None
    names: Names
    val_fraction: float | None


class ReadingKeywords(TypedDict, total=False):
    jobs: int | None
    max_pixels: int


class DeviceKeywords(ReadingKeywords, total=False):
    """Keywords of EncodeOptions, except the model."""

    device: str | int
    dtype: Dtype
    batch_size: int | None
    use_cache: bool


class ComputeKeywords(DeviceKeywords, total=False):
    """Keywords of ComputeOptions, except the model."""

    features: str | Path | None


class ModelKeywords(TypedDict, total=False):
    model: str | Path


class ImageKeywords(TypedDict, total=False):
    sample: int | None
    every: str | int | Every | None


class TruthKeywords(TypedDict, total=False):
    layout: str | None
    ignore_index: int | None
    reduce_zero_label: bool
    zero_based: bool


class RegionKeywords(TypedDict, total=False):
    regions: str | Path | None
    regions_only: bool
    regions_margin: float
    present: str | Path | None


class LabelFolderKeywords(
    LabelKeywords, RegionKeywords, FileKeywords, ComputeKeywords, ModelKeywords, ImageKeywords, total=False
):
    onto: str | Path | None
    bands: Sequence[int] | str | None
    ground_resolution: float | None
    output: str | Path
    formats: Sequence[str] | None
    overwrite: bool
    prune: int | None
    replace_edited: bool
    shard: str | None
    ray: str | None


class EncodeFolderKeywords(ViewKeywords, DeviceKeywords, ModelKeywords, ImageKeywords, total=False):
    scales: Iterable[float] | float | str
    feature_dtype: FeatureDtype | None
    shard: str | None


class ScoreMasksKeywords(TruthKeywords, ReadingKeywords, total=False):
    """Keywords of `score_masks`."""


class ReportKeywords(TruthKeywords, ReadingKeywords, total=False):
    """Keywords of `report_folder`."""


class FitKeywords(ReadingKeywords, total=False):
    """Keywords of ComputeOptions, except what the run has fixed: the model and its dtype."""

    device: str | int
    batch_size: int | None
    use_cache: bool
    features: str | Path | None


class DatasetKeywords(ReadingKeywords, total=False):
    shard_size: int | str | ByteSize
    overwrite: bool


class ConvertKeywords(ReadingKeywords, total=False):
    val_fraction: float | None


class CorrectKeywords(ReadingKeywords, total=False):
    source_format: str | None
    add_classes: bool
    everything: bool
    replace_edited: bool
    emptied: bool | None
    exact: bool
    accept: bool
    images: str | Path | None
    dry_run: bool


def with_keywords(typed: type, *records: type) -> Callable[[_Function], _Function]:
    """Return a decorator that adds the keywords of `typed` to a function's signature and docstring.

    Their defaults and help texts come from the option `records`. The decorated function rejects other keywords.
    """
    hints = get_type_hints(typed)
    doc = ["", "    Keyword Args:"]
    added = []
    for name, hint in hints.items():
        option = next(options[name] for options in map(options_of, records) if name in options)
        added.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hint))
        doc.append(f"        {name}: {option.about.help.replace('{formats}', 'see tipsseg label --help')}")

    def decorate(function: _Function) -> _Function:
        own = inspect.signature(function)
        parameters = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in parameters} | hints.keys()

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            for name in keywords.keys() - names:
                hint = "".join(f". Did you mean {close!r}?" for close in get_close_matches(name, names, 1))
                raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {name!r}{hint}")
            return function(*args, **keywords)

        call.__signature__ = own.replace(parameters=[*parameters, *added])  # type: ignore[attr-defined]  # for help() and notebooks
        call.__doc__ = "\n".join([(function.__doc__ or "").rstrip(), *doc, "    "])
        return cast(_Function, call)

    return decorate
