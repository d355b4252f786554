"""Check one image: its entry, its per-image files and links, its input."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, of_the_model
from tipsseg.formats.base import ImageLabels
from tipsseg.formats.png import label_faults
from tipsseg.formats.problem import UNREADABLE, Problem, by, unreadable, what_is_wrong
from tipsseg.images.decoding import upright_size
from tipsseg.runs.check.manifest import check_entry, known_files
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.results import link_of
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import Mask, ObjectScores, RunImage
from tipsseg.store.summary import CERTAIN
from tipsseg.types import LabelArray
from tipsseg.util.files import is_file, reason_of
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.record_paths import actual_path


@dataclass(frozen=True, slots=True)
class Place:
    """Where to find what a run used and made.

    Attributes:
        output: The output folder.
        run: The run.
        images: The folder that the images' names begin at; None where it is not known.
        max_pixels: Larger images are refused.
    """

    output: Path
    run: RunInfo
    images: Path | None
    max_pixels: int


@dataclass(slots=True)
class Report:
    """What came of checking an image.

    Attributes:
        problems: What is wrong with the image and its files.
        files: How many per-image files were looked at.
        edited: Per-image files that were changed by hand, which is no problem.
        behind: 1 where a mask was changed by hand and the other formats have the labels of before.
        other: Whether it was labelled with other settings than run.json says, as may be after a merge.
        gone: Whether the input was not found.
    """

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    edited: list[Path] = field(default_factory=list)
    behind: int = 0
    other: bool = False
    gone: bool = False


def check_image(place: Place, image: RunImage) -> Report:
    """Check one image; any thread may call it.

    Args:
        place: Where its files are.
        image: What the manifest says of it.
    """
    report = Report(other=not image.stored.sure)
    try:
        _check(place, image, report)
    except OSError as error:  # what is read may fail at any moment
        report.problems.append(unreadable(error, place.output))
    return report


def _check(place: Place, image: RunImage, report: Report) -> None:
    run, entry = place.run, image.entry
    report.problems += [
        Problem(run.spec.state / MANIFEST_FILE, f"{entry.image}: {what}") for what in check_entry(run, image)
    ]
    corrected: dict[str, Path] = {}
    masks: dict[Path, LabelArray] = {}
    for name, file in known_files(run, entry).items():
        report.files += 1
        path = actual_path(place.output, file)
        digest, reason = _digest(path)
        changed = bool(digest) and name in entry.written and digest != entry.written[name].sha256
        if FORMATS[name].labels == "mask":
            labels, faults = _check_mask(Mask(name, path, digest), image, changed=changed)
            masks |= {} if labels is None else {path: labels}
            corrected |= {digest: path} if changed else {}
        else:
            faults = [reason] if reason else [_fault_of_change(name, path, image)] if changed else []
        faults = list(filter(None, faults))
        report.problems += [Problem(path, what) for what in faults]
        report.edited += [path] if changed and not faults else []
    if len(corrected) > 1:
        one, other = corrected.values()
        report.problems.append(Problem(one, f"changed by hand, and {other} was changed in another way"))
    elif entry.corrected not in (corrected or {None}):
        # A mask that is the run's again counts as corrected back.
        report.behind += 1
    else:
        report.problems += _stale(image, masks, corrected.values(), report.edited)
    _check_links(place, image, report)
    _check_input(
        None if place.images is None else actual_path(place.images, entry.image), image, place.max_pixels, report
    )


def _stale(
    image: RunImage, masks: Mapping[Path, LabelArray], corrected: Iterable[Path], edited: Container[Path]
) -> Iterator[Problem]:
    """Name the files that do not have the labels of the corrected mask, which they follow.

    Left out are files that a person `edited`, and those that depend on more than the labels and the run say, as on pixels.
    """
    entry, context = image.entry, image.context
    what = f"{entry.image}: not the labels of its corrected mask; remove the file, and convert again"
    for mask in masks.keys() & set(corrected):
        labels = masks[mask]
        yield from (Problem(path, what) for path, other in masks.items() if (other != labels).any())
        certain = {each.id: CERTAIN for each in context.classes}
        objects = ObjectScores(entry.objects or (), certain, context.files).objects(labels, len(context.classes))
        taken = ImageLabels(ref=image.ref(None), labels=labels, objects=objects)
        for name, path in known_files(image.run.info, entry).items() if image.stored.sure else ():
            form = FORMATS[name]
            place = actual_path(context.output, path)
            if (
                place in edited
                or name not in entry.written
                or name in of_the_model()
                or form.needs_thumbnail
                or form.labels == "mask"
            ):
                continue
            if sha256(form.encode(taken, context)).hexdigest() != entry.written[name].sha256:
                yield Problem(place, what)


def _digest(path: Path) -> tuple[str, str]:
    """Return the sha256 of a file, and why it has none."""
    try:
        return content_digest(path), ""
    except OSError as error:
        return "", reason_of(error)


def _check_mask(found: Mask, image: RunImage, *, changed: bool) -> tuple[LabelArray | None, list[str]]:
    """Return the labels in an index mask, if other files are to agree with them, and what is wrong with it.

    A mask that a person changed is that person's affair, as long as it can be one, until other formats follow it.
    """
    try:
        form = FORMATS[found.name]
        labels = image.read_mask(found) if changed else form.read_labels(image.stored, found.path)
    except ImageError as error:
        return None, [error.reason]
    if changed and found.digest != image.entry.corrected:
        return None, []
    if not changed and image.entry.corrected is not None:
        return labels, []
    faults = list(label_faults(labels, image.stored))
    return (None if changed and faults else labels), faults


def _fault_of_change(name: str, path: Path, image: RunImage) -> str:
    """Return what is wrong with a file that a person changed; "" if it can be read: what is in it is that person's affair."""
    try:
        FORMATS[name].try_reading(path, image.stored)
    except UNREADABLE as error:
        return f"changed since it was written, and {what_is_wrong(error)}"
    return ""


def _check_links(place: Place, image: RunImage, report: Report) -> None:
    for name in image.entry.formats:
        relative = link_of(image.entry, name, place.run.spec.files)
        if relative is not None:
            path = actual_path(place.output, str(relative))
            if not path.exists():
                report.problems.append(Problem(path, "it leads to no file" if path.is_symlink() else "missing"))


def _check_input(path: Path | None, image: RunImage, max_pixels: int, report: Report) -> None:
    if path is None or not is_file(path):
        report.gone = True
        return
    try:
        if not image.entry.fingerprint.matches(path):
            report.problems.append(Problem(path, "changed since it was labelled"))
        elif (size := upright_size(path, max_pixels)) != image.stored.size:
            report.problems.append(Problem(path, f"{by(size)}, but labelled as {by(image.stored.size)}"))
    except ImageError as error:
        report.problems.append(Problem(path, error.reason))
