"""Masks that a person corrected: how they are found and read, and what becomes of the numbers that the run had of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, index_masks
from tipsseg.formats.base import StoredImage
from tipsseg.regions.components import count_labels
from tipsseg.store.manifest import Manifest, ManifestEntry
from tipsseg.store.reader import FinishedRun
from tipsseg.store.writing import RunContext
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, ignore_id
from tipsseg.util.ownership import Ownership, digest_of
from tipsseg.util.record_paths import actual_path

#: The confidence of what a person labelled.
CERTAIN = 1.0

_BACK = "Correct the mask, or label the image again: the command that labelled it, with argument `replace_edited`."


@dataclass(frozen=True, slots=True)
class Correction:
    """A mask that is not as the run wrote it.

    Attributes:
        name: The format of the mask.
        path: Where the mask is.
        digest: The sha256 of its content.
    """

    name: str
    path: Path
    digest: str


def find_correction(entry: ManifestEntry, output: Path, ownership: Ownership) -> Correction | None:
    """The corrected mask of an image; None where no mask was changed, whatever its time and size say.

    Raises ImageError where two masks were changed, each in its own way.
    """
    found: list[Correction] = []
    for name in index_masks():
        if name in entry.files:
            path = actual_path(output, entry.files[name])
            if path.is_symlink():
                raise ImageError(path, "a link is in the place of the mask", "Put the file itself there.")
            digest = digest_of(path)
            if digest and digest != entry.written[name].sha256 and not ownership.is_pending(path):
                found.append(Correction(name, path, digest))
    if entry.taken is not None:
        # Of masks that one correction replaced, that which was not replaced yet does not count; nor does a copy of a mask that was
        # edited since.
        found = [each for each in found if each.digest != entry.taken.before] or found
        found = found[:1] + [each for each in found[1:] if each.digest != entry.taken.mask]
    if len(found) > 1 and found[0].digest != found[1].digest:
        raise ImageError(
            found[0].path,
            f"this mask was changed, and {found[1].path} was changed in another way",
            "Remove the one that does not count.",
        )
    return found[0] if found else None


def corrections_of(run: FinishedRun, context: RunContext) -> Iterator[tuple[ManifestEntry, Correction | None]]:
    """Yield the images of a run, in the order of their names, each with its corrected mask, see `find_correction`."""
    with closing(Manifest(run.state)) as manifest:
        context.ownership.load(run.info.files, manifest.records)
        for entry in manifest.entries():
            yield entry, find_correction(entry, run.output, context.ownership)


def written_mask(entry: ManifestEntry, output: Path) -> Correction:
    """The mask of an image that is as the run wrote it. Raises ImageError where it is gone."""
    for name in index_masks():
        if name in entry.files:
            path = actual_path(output, entry.files[name])
            if path.exists():
                return Correction(name, path, entry.written[name].sha256 or "")
    raise ImageError(output, f"the corrected mask of {entry.image} is gone", _BACK)


def read_correction(correction: Correction, image: StoredImage) -> LabelArray:
    """The label ids in a corrected mask [H, W].

    Raises ImageError where it is no mask of the image's size and of the mode that the run wrote, or where ids are neither classes
    nor background nor ignored pixels.
    """
    try:
        labels = FORMATS[correction.name].read_labels(image, correction.path)
    except ImageError as error:
        raise ImageError(correction.path, f"changed by hand: {error.reason}", _BACK) from error
    known = {BACKGROUND, *image.classes, ignore_id(len(image.classes))}
    unknown = [label_id for label_id in np.flatnonzero(count_labels(labels)).tolist() if label_id not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ImageError(correction.path, f"changed by hand: ids that are no class: {unknown[0]}{more}", _BACK)
    return labels


def corrected_summary(
    labels: LabelArray, classes: tuple[LabelClass, ...], before: Mapping[str, object]
) -> dict[str, object]:
    """What corrected labels [H, W] hold, as `summary.label_summary` says it of a run's.

    The mean confidence of a class stays as the model had it; of a class that a person brought in it is CERTAIN.
    """
    height, width = labels.shape
    pixels = count_labels(labels)
    means = _means(before)

    def share(label_id: int) -> dict[str, object]:
        number = int(pixels[label_id])
        confidence = means.get(label_id, CERTAIN) if number else None
        return {"pixels": number, "share": round(number / (height * width), 6), "confidence": confidence}

    return {
        "height": height,
        "width": width,
        "classes": [{"id": each.id, "name": each.name, **share(each.id)} for each in classes if pixels[each.id]],
        "background": share(BACKGROUND),
        "ignored": int(pixels[ignore_id(len(classes))]),
    }


def _means(summary: Mapping[str, object]) -> dict[int, float]:
    """The mean confidences in a summary, by label id."""
    classes, background = summary.get("classes"), summary.get("background")
    records = [each for each in classes if isinstance(each, dict)] if isinstance(classes, list) else []
    records += [{**background, "id": BACKGROUND}] if isinstance(background, dict) else []
    return {each["id"]: each["confidence"] for each in records if isinstance(each.get("confidence"), float)}
