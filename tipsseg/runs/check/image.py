"""Check one image: its entry, its per-image files and links, and its input."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, format_name, mask_formats, model_only_formats
from tipsseg.formats.base import ImageLabels
from tipsseg.formats.png import label_faults
from tipsseg.images.decoding import upright_size
from tipsseg.images.sources.access import exists, matches
from tipsseg.images.sources.address import below
from tipsseg.runs.check.manifest import check_entry, known_files
from tipsseg.store.manifest import MANIFEST_FILE, expected_files
from tipsseg.store.results import link_of
from tipsseg.store.stored_image import Mask, ObjectScores, RunImage
from tipsseg.store.summary import CERTAIN
from tipsseg.types import LabelArray
from tipsseg.util.files import describe_error
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.problem import UNREADABLE, Problem, describe_unreadable, size_text, unreadable_problem
from tipsseg.util.record_paths import actual_path


@dataclass(slots=True)
class Report:
    """Result of checking an image.

    Attributes:
        problems: Faults of the image and its files.
        files: Number of per-image files that were read.
        edited: Per-image files that were edited, which is not a problem.
        behind: 1 if a mask was edited and the other formats have the old labels.
        other: True if the image was labelled with settings that differ from run.json, which is possible after a merge.
        gone: True if the input was not found.
        moved: Per-image files at the paths of another version or another `val_fraction`.
    """

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    edited: list[Path] = field(default_factory=list)
    behind: int = 0
    other: bool = False
    gone: bool = False
    moved: set[str] = field(default_factory=set)


def check_image(images: Path | None, image: RunImage, *, anywhere: bool = False) -> Report:
    """Check one image. Thread-safe.

    Args:
        images: The folder that image names are relative to; None if unknown.
        image: The recorded image.
        anywhere: Look for an image that is not in `images` at its recorded address too.
    """
    report, entry = Report(), image.entry
    path = None if images is None else below(images, entry.image, entry.path if anywhere else "")
    try:
        _check(path, image, report)
    except ImageError as error:  # the entry has impossible numbers
        report.problems.append(Problem(error.path, error.reason))
    except OSError as error:  # any read may fail
        report.problems.append(unreadable_problem(error, image.context.output))
    return report


def _check(picture: Path | None, image: RunImage, report: Report) -> None:
    run, entry, output = image.run.info, image.entry, image.context.output
    report.other = not image.stored.sure
    report.problems += [
        Problem(run.spec.state / MANIFEST_FILE, f"{entry.image}: {what}") for what in check_entry(image)
    ]
    known = known_files(run, entry)
    report.moved |= {*known.values()} - {*expected_files(entry, entry.formats, run.spec.files).values()}
    corrected: dict[str, Path] = {}
    masks: dict[Path, LabelArray] = {}
    for key, file in known.items():
        report.files += 1
        name, path = format_name(key), actual_path(output, file)
        digest, reason = _digest(path)
        changed = bool(digest) and key in entry.written and digest != entry.written[key].sha256
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
        report.problems.append(Problem(one, f"changed by hand, but {other} was changed differently"))
    elif entry.corrected not in (corrected or {None}):
        # This includes a corrected mask that was changed back to the run's content.
        report.behind += 1
    else:
        report.problems += _stale(image, masks, corrected.values(), report.edited)
    _check_links(image, report)
    _check_input(picture, image, report)


def _stale(
    image: RunImage, masks: Mapping[Path, LabelArray], corrected: Iterable[Path], edited: Container[Path]
) -> Iterator[Problem]:
    """Yield the files that should have the labels of the corrected mask but have others.

    Ignore `edited` files, and formats that need more than the labels, for example pixels.
    """
    entry, context = image.entry, image.context
    what = f"{entry.image}: its labels differ from the corrected mask; remove the file, and convert again"
    for mask in masks.keys() & set(corrected):
        labels = masks[mask]
        yield from (Problem(path, what) for path, other in masks.items() if (other != labels).any())
        certain = {each.id: CERTAIN for each in context.classes}
        scores = ObjectScores(entry.objects or (), certain, context.files, image.instances(labels, corrected=True))
        objects = scores.objects(labels, len(context.classes))
        taken = ImageLabels(ref=image.ref(None), labels=labels, objects=objects, instances=scores.instances)
        skipped = {*model_only_formats(), *mask_formats()}
        known = known_files(image.run.info, entry) if image.stored.sure else {}
        for name in dict.fromkeys(map(format_name, known)):
            form = FORMATS[name]
            if name in skipped or form.needs_thumbnail or form.needs_pixels:
                continue
            for key, data in form.encode_files(taken, context).items():
                if key not in known or key not in entry.written:
                    continue
                place = actual_path(context.output, known[key])
                if place not in edited and sha256(data).hexdigest() != entry.written[key].sha256:
                    yield Problem(place, what)


def _digest(path: Path) -> tuple[str, str]:
    try:
        return content_digest(path), ""
    except OSError as error:
        return "", describe_error(error)


def _check_mask(found: Mask, image: RunImage, *, changed: bool) -> tuple[LabelArray | None, list[str]]:
    """Return the labels in an index mask, or None if other files need not match them, and the faults of the mask.

    An edited mask has faults only if it is unusable, or if other formats follow it.
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
    """Return why an edited file cannot be read; "" if it can, because its content is up to the user."""
    try:
        FORMATS[name].try_reading(path, image.stored)
    except UNREADABLE as error:
        return f"changed since it was written, and {describe_unreadable(error)}"
    return ""


def _check_links(image: RunImage, report: Report) -> None:
    for name in image.entry.formats:
        relative = link_of(image.entry, name, image.run.info.spec.files)
        if relative is not None:
            path = actual_path(image.context.output, str(relative))
            if not path.exists():
                report.problems.append(Problem(path, "broken link" if path.is_symlink() else "missing"))


def _check_input(path: Path | None, image: RunImage, report: Report) -> None:
    if path is None or not exists(path):
        report.gone = True
        return
    try:
        if not matches(image.entry.fingerprint, path):
            report.problems.append(Problem(path, "changed since it was labelled"))
        elif (
            not image.run.info.spec.is_raster
            and (size := upright_size(path, image.run.max_pixels)) != image.stored.size
        ):
            report.problems.append(Problem(path, f"{size_text(size)}, but labelled as {size_text(image.stored.size)}"))
    except ImageError as error:
        report.problems.append(Problem(path, error.reason))
