"""`tipsseg fit --precision`: choose minimum confidences from edited masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.address import as_address
from tipsseg.commands.fit.masks import EditedMasks, draw_masks, edited_masks, learn_from, require_masks
from tipsseg.commands.fit.vectors import check_suffix, spec_of_run
from tipsseg.engine.local import LocalEngine, load_for
from tipsseg.errors import UsageError
from tipsseg.label_map import LabelMap
from tipsseg.labelling.labeller import Patches, Scored
from tipsseg.labelling.source import Loaded
from tipsseg.learning.metrics import percent, rounded
from tipsseg.learning.thresholds import ClassThreshold, Tally, choose_thresholds, tally
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import ComputeKeywords, with_keywords
from tipsseg.options.run import ComputeOptions
from tipsseg.regions.objects import ancestors, split_levels
from tipsseg.run.plan import plan_run
from tipsseg.run.record import run_context
from tipsseg.run.spec import RunSpec
from tipsseg.types import LabelArray
from tipsseg.util.files import atomic_write
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import join_first, quote, text_table
from tipsseg.vocabulary.files import vocabulary_toml
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary, with_min_confidences

#: A threshold is chosen on at least two images, and validated on another one.
_MINIMUM = 3


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """Minimum confidences chosen from the masks of a run.

    Attributes:
        vocabulary: The classes with their minimum confidences.
        fitted: The same with fitted vectors; None if the run was labelled from text.
        precision: The requested precision, 0..1.
        thresholds: The threshold of each class 1..N.
        images: The number of images used.
        failed: The number of images that failed and were left out.
    """

    vocabulary: Vocabulary
    fitted: FittedVocabulary | None
    precision: float
    thresholds: tuple[ClassThreshold, ...]
    images: int
    failed: int

    def save(self, path: str | Path) -> None:
        """Write a vocabulary file: .fit if it includes fitted vectors, else .toml.

        Args:
            path: The file to write.

        Raises:
            UsageError: If the path has the wrong suffix.
            OutputError: If the file cannot be written.
        """
        check_suffix(Path(path), fitted=self.fitted is not None)
        if self.fitted is not None:
            self.fitted.save(path)
        else:
            atomic_write(Path(path), vocabulary_toml(self.vocabulary).encode())

    def record(self) -> dict[str, object]:
        """Return the numbers as JSON values."""
        names = [entry.name for entry in self.vocabulary.classes]
        return {
            "images": self.images,
            "failed": self.failed,
            "precision": self.precision,
            "classes": [
                {
                    "id": number,
                    "name": name,
                    "images": threshold.images,
                    "min_confidence": threshold.min_confidence,
                    "reached": threshold.reached,
                    "own": threshold.own,
                    "precision": rounded(threshold.precision),
                    "recall": rounded(threshold.recall),
                    "precision_before": rounded(threshold.precision_before),
                    "recall_before": rounded(threshold.recall_before),
                }
                for number, (name, threshold) in enumerate(zip(names, self.thresholds, strict=False), start=1)
            ],
        }

    def table(self) -> str:
        """Return a text table of the numbers, with shares in per cent and "-" for unknown values."""
        heads = ["in %", "at least", "precision", "recall", "(before)", "(before)", "images", ""]
        rows = []
        for entry, threshold in zip(self.vocabulary.classes, self.thresholds, strict=True):
            shares = (threshold.precision, threshold.recall, threshold.precision_before, threshold.recall_before)
            remark = "" if threshold.own else "too few images: threshold of all classes"
            if not threshold.reached:
                shares, remark = (None, 0.0, *shares[2:]), "not reached: not labelled"
            lowest = f"{100 * threshold.min_confidence:.1f}"
            rows.append([entry.name, lowest, *map(percent, shares), str(threshold.images), remark])
        text = text_table(heads, rows, left=(0, 7))
        note = (
            "precision and recall: each image with thresholds chosen on the other images; (before): without thresholds"
        )
        return f"{text}\n{note}\n"


@with_keywords(ComputeKeywords, ComputeOptions)
def fit_thresholds(
    output: str | Path,
    precision: float = 0.95,
    *,
    fitted: FittedVocabulary | None = None,
    images: str | Path | None = None,
    verbose: Verbosity = None,
    **keywords: Unpack[ComputeKeywords],
) -> Thresholds:
    """Choose the minimum confidence of each class from the masks of a run that a person edited, as `tipsseg fit --precision` does.

        thresholds = tipsseg.learn.fit_thresholds("labels", precision=0.95)
        print(thresholds.table())
        thresholds.save("farm.toml")

    Args:
        output: The output folder of `label_folder`.
        precision: The precision to reach for each class, 0..1: the share of its pixels that are right.
        fitted: The fit that the run was labelled with, if any.
        images: The image folder, if it has moved.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The `vocabulary` with its minimum confidences; `fitted`, the same with fitted vectors; `thresholds`, `table()`, `record()`
        and `save()`.

    Raises:
        UsageError: `precision` is out of range, or `fitted` is missing.
        InputError: Fewer than three masks were edited, or `output` is not the folder of a finished run.
        TipssegError: The run cannot start or continue.
    """
    if not 0 < precision < 1:
        raise UsageError(
            f"argument `precision`={quote(precision)} must be above 0 and below 1",
            "Write 0.95 if 95 of 100 pixels must be correct.",
        )
    compute, moved = take_options(ComputeOptions, keywords), None if images is None else as_address(images)
    with progress_for(verbose) as progress, edited_masks(Path(output), moved) as masks:
        return _fit_thresholds(masks, precision, _spec(masks, compute, fitted), progress)


def _fit_thresholds(masks: EditedMasks, precision: float, spec: RunSpec, progress: Progress) -> Thresholds:
    """Choose minimum confidences from masks. Images that cannot be read are reported and left out."""
    spec.check()
    require_masks(masks, len(masks.refs), _MINIMUM)
    if spec.fitted is not None:
        progress.note(
            "If the vectors were fitted to these masks, the thresholds will be too low: use masks of other images."
        )
    masks = draw_masks(masks, progress)
    loaded = load_for(plan_run(spec), progress.note, quiet=progress.quiet, images=masks.refs)
    engine = LocalEngine(loaded, run_context(loaded.info), progress.note, spec.fitted or spec.vocabulary)

    def tally_mask(image: Loaded[Patches], scored: Scored) -> Tally | None:
        with engine.alone(image):
            label_map, mask = engine.label(image, scored), masks.read(image.ref)
            if not (mask <= len(label_map.classes)).any():
                return None
            return _tally(label_map, mask)

    found, failures = learn_from(masks.refs, loaded, engine.source, engine.score, tally_mask, progress, masked=True)
    tallies = [image for image in found if image is not None]
    require_masks(masks, len(tallies), _MINIMUM, failures)
    thresholds = choose_thresholds(tallies, precision)
    minima = [threshold.min_confidence for threshold in thresholds]
    vocabulary = with_min_confidences(spec.vocabulary, minima, spec.options.refine)
    missed = [
        entry.name for entry, threshold in zip(vocabulary.classes, thresholds, strict=True) if not threshold.reached
    ]
    if missed:
        progress.note(
            f"No threshold reaches the precision for {join_first(missed, 10)}. A minimum confidence of 1 leaves almost no "
            "pixel with the label; choose a lower precision to keep more."
        )
    fitted = None if spec.fitted is None else replace(spec.fitted, vocabulary=vocabulary)
    return Thresholds(vocabulary, fitted, precision, thresholds, len(tallies), failures.failed)


def _tally(label_map: LabelMap, mask: NDArray[np.unsignedinteger]) -> Tally:
    """Count the pixels of an image. Wholes are counted with their parts, by their own confidence."""
    labels, classes = label_map.labels, label_map.classes
    confidences = (*label_map.whole_confidences, label_map.confidence)
    levels = zip(split_levels(labels, classes), split_levels(cast(LabelArray, mask), classes), strict=True)
    found = [
        tally(of_level, confidences[min(depth, len(confidences) - 1)], truth, len(classes))
        for depth, (of_level, truth) in enumerate(levels)
    ]
    rows = [(len(chain) - 1, number) for number, chain in enumerate(ancestors(classes))]
    return Tally(
        np.stack([found[depth].labelled[number] for depth, number in rows]),
        np.stack([found[depth].right[number] for depth, number in rows]),
        np.array([found[depth].truth[number] for depth, number in rows]),
    )


def _spec(masks: EditedMasks, compute: ComputeOptions, fitted: FittedVocabulary | None) -> RunSpec:
    """Return settings that relabel a run's images without minimum confidences.

    Raises:
        UsageError: If `fitted` is not the run's fitted vocabulary.
        InputError: If the files of the run's model have changed.
    """
    recorded = masks.info.spec
    digest = recorded.vocabulary.fit
    if digest != ("" if fitted is None else fitted.vocabulary.fit):
        used = "no fitted vectors" if not digest else "other vectors" if fitted else "fitted vectors"
        raise UsageError(
            f"the run in {masks.folder} used {used}",
            "Set argument `fitted` to the run's fitted vocabulary." if digest else "Remove argument `fitted`.",
        )
    spec = spec_of_run(masks, compute)
    vocabulary = recorded.vocabulary if fitted is None else fitted.vocabulary
    vocabulary = with_min_confidences(vocabulary, [None] * len(vocabulary.classes), "")
    fitted = None if fitted is None else replace(fitted, vocabulary=vocabulary)
    return replace(spec, vocabulary=vocabulary, fitted=fitted, options=replace(recorded.options, min_confidence=0.0))
