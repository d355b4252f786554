"""Whether an output folder decides the labels of an image under other options, byte for byte, or the model is needed.

What the folder may hold of an image, and what follows from it:

    labels     a mask or an archive, with the scores of its objects in the manifest: other formats, colours, polygons and modes of
               masks; a larger minimum area; one object for each class
    cosines    an archive that keeps the cosines of patches and phrases: all that, and any minimum confidence

Confidences of 8 bits, as archives always have them, decide no minimum confidence: pixels within half a step of it may be on either
side, and the score of an object is the mean of exact confidences.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tipsseg.formats import FORMATS
from tipsseg.store import spec as specs
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.run_record import difference_texts, of_same_phrases
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import suffices

#: Pixels of a class times phrases, up to which the sum of confidences is the same in whatever order they are added: the
#: confidence of a winner is no less than 1 / phrases, so that in float32 it is a multiple of 2^-24 / phrases at least, and a sum
#: of that many such numbers has no more than the 53 bits of float64.
_EXACT = 1 << 28


_NO_SCORES = "no scores of the objects are stored"


@dataclass(frozen=True, slots=True)
class Decided:
    """The folder decides the labels, by what `source` names."""

    source: Literal["labels", "cosines"]


@dataclass(frozen=True, slots=True)
class Undecided:
    """The model is needed.

    Attributes:
        reason: Why, in a few words.
        cosines: Whether kept cosines would have decided it.
    """

    reason: str
    cosines: bool = False


def decide(
    before: RunInfo, now: RunInfo, entry: ManifestEntry, held: Collection[str], *, cosines: bool
) -> Decided | Undecided:
    """Whether the labels, objects and files of an image under a new run follow from what an earlier run left.

    Args:
        before: The run that gave the image its labels.
        now: The new run; its dtype is known.
        entry: The image in the manifest.
        held: The formats whose per-image file is there, as it was written.
        cosines: Whether one of these files keeps the cosines.
    """
    if other := _other_question(before, now):
        return Undecided(other)
    by_cosines = now.spec.options.refine == "none" and before.device.startswith("cpu")
    reason = _beyond_labels(before, now, entry, held)
    if not reason:
        return Decided("labels")
    if cosines and by_cosines:
        return Decided("cosines")
    return Undecided(reason, by_cosines)


def thresholds(info: RunInfo) -> list[float]:
    """The minimum confidence of each label id: of the background, and of the classes 1..N."""
    least = info.spec.options.min_confidence
    own = (each.min_confidence for each in info.spec.vocabulary.classes)
    return [least, *(least if each is None else each for each in own)]


def _other_question(before: RunInfo, now: RunInfo) -> str:
    """What the model would be asked otherwise, so that no record of its answer is of use; "" where it is the same."""
    if before.noted is not None and before.noted.labels_version != specs.LABELS_VERSION:
        return "another version of the labels"
    if other := difference_texts(of_same_phrases(before), of_same_phrases(now)):
        return other[0]
    old, new = before.spec.options, now.spec.options
    names = [name for name in ("mode", "short_side", "scales") if getattr(old, name) != getattr(new, name)]
    names += [] if before.noted is None else before.noted.gone
    names += ["dtype"] if before.dtype != now.dtype else []
    names += ["dtype of features"] if before.spec.labelled_in != now.spec.labelled_in else []
    return " and ".join(f"{'other' if name == 'scales' else 'another'} {name.replace('_', ' ')}" for name in names)


def _beyond_labels(before: RunInfo, now: RunInfo, entry: ManifestEntry, held: Collection[str]) -> str:
    """What does not follow from the labels and the scores of objects; "" where all does."""
    if before.spec.options.refine != now.spec.options.refine:
        return "another refinement"
    if thresholds(before) != thresholds(now):
        return "another minimum confidence"
    if entry.corrected is not None:
        return "labels that were corrected by hand"
    return _lacking_files(before, now, held) or ("" if _scores_known(before, now, entry) else _NO_SCORES)


def _lacking_files(before: RunInfo, now: RunInfo, held: Collection[str]) -> str:
    """Which formats cannot be made from the files that are there; "" where all can be."""
    if not any(FORMATS[name].labels == "all" for name in held):
        return "no labels of every pixel are stored"
    new, old = now.spec.files.keep_cosines, before.spec.files.keep_cosines
    if new and not old and any(FORMATS[name].archive for name in now.spec.formats):
        return "no cosines are kept yet"
    lacking = [name for name in now.spec.formats if name not in held and not suffices(name, held)]
    return f"{' and '.join(lacking)} cannot be made from what is stored" if lacking else ""


def _scores_known(before: RunInfo, now: RunInfo, entry: ManifestEntry) -> bool:
    """Whether the score of every object is known that the labels show under the new options."""
    old, new, numbers = before.spec.files, now.spec.files, entry.numbers
    if entry.objects is None:  # an earlier version did not keep them; a format more may do without
        more = (name for name in now.spec.formats if name not in entry.formats)
        return before.digest == now.digest and not any(FORMATS[name].scores for name in more)
    if old.instances == new.instances and new.min_area.pixels(numbers.size) >= old.min_area.pixels(numbers.size):
        return True
    if new.instances == "class":
        # The score is the mean confidence of the class, which the manifest has.
        phrases = len((before.vocabulary or before.spec.vocabulary).phrases)
        return now.spec.options.refine == "none" and all(each.pixels * phrases <= _EXACT for each in numbers.classes)
    # No object is smaller than those that are listed where these have all pixels of the classes.
    listed = sum(area for _, area, *_ in entry.objects)
    return old.instances == "component" and listed == sum(each.pixels for each in numbers.classes)
