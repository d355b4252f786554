"""Print notes about the folder, the model, the images and the formats of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from tipsseg.address import address_text
from tipsseg.formats import FORMATS, model_only_formats
from tipsseg.formats.yolo import TRAIN, VAL
from tipsseg.labelling.windows import LONGEST_ASPECT
from tipsseg.options import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.progress import Progress
from tipsseg.store.folder import OutputFolder
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.results import Failed, Labelled, Unchanged
from tipsseg.store.resuming.resume import ResumeState
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.spec import Counts, RunInfo, RunSpec
from tipsseg.store.state import State
from tipsseg.store.stored_image import label_sources
from tipsseg.types import ImageRef, LabelClass, Remark
from tipsseg.util.printable import join_first, one_line, pluralize, shell_word
from tipsseg.weights.lock import get_model
from tipsseg.weights.sources import ModelSource

#: The demo model, which was trained on drawn scenes only.
_DEMO_MODEL = "tiny"

#: Maximum number of names in a note.
_MAX_NAMES = 3

_REMARKS: Mapping[Remark, str] = {
    "squeezed": f"more than {LONGEST_ASPECT} times as long as wide, and narrow. The model saw the long side squeezed, which may "
    "cost accuracy. Cut such images into pieces.",
    "dark": "16 bits per channel, but no value above 12 bits, so the model saw a nearly black image. Stretch the contrast "
    "of such images with argument `stretch`=2,98.",
    "pages": "a TIFF of several pages; only the first was read. Save the other pages as files to label them.",
}


class Remarks:
    """Collect remarks about the images of a run, and note each kind once."""

    def __init__(self) -> None:
        self._images: dict[Remark, tuple[str, int]] = {}  # the first image, and the number of images

    def add(self, ref: ImageRef, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            first, number = self._images.get(remark, (ref.name, 0))
            self._images[remark] = first, number + 1

    def end(self, progress: Progress) -> None:
        for remark, text in _REMARKS.items():
            first, number = self._images.get(remark, ("", 0))
            if number:
                more = f" and {pluralize(number - 1, 'more image')}" if number > 1 else ""
                progress.note(f"{first}{more}: {text}")


class ImageNotes:
    """Collect notes about the images that a run labels."""

    def __init__(self, model: Mapping[str, object], progress: Progress) -> None:
        """Set up for a model; `model` is from `ModelSource.facts`."""
        self._progress = progress
        self._quality = PolygonQuality()
        self._remarks = Remarks()
        self._is_demo = model.get("sha256") == ModelSource(_DEMO_MODEL, get_model(_DEMO_MODEL)).facts()["sha256"]

    def add(self, labelled: Labelled) -> None:
        self._quality += labelled.polygon_quality
        if labelled.damaged:
            note_damaged(labelled.damaged, self._progress)
        self._remarks.add(labelled.ref, labelled.remarks)
        if self._is_demo and labelled.entry.fingerprint.sha256 not in example_hashes():
            self._is_demo = False  # note this once
            self._progress.note(
                f"The model {_DEMO_MODEL} knows only drawn scenes, such as those in examples/scenes. Do not trust its labels of "
                "photographs; use argument `model`=l14."
            )

    def end(self) -> None:
        note_polygon_quality(self._progress, self._quality)
        self._remarks.end(self._progress)


def note_damaged(what: str, progress: Progress) -> None:
    progress.note(f"{what}; encoded the image again.")


@cache
def example_hashes() -> frozenset[str]:
    """Return the sha256 of every picture in examples/scenes."""
    text = (resources.files("tipsseg") / "assets" / "examples.sha256").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines())


@dataclass(slots=True)
class Edited:
    """Collect images with edited label files.

    Attributes:
        images: Paths of the images that lack formats.
        lacking: The formats that they lack.
        other_input: The number of images that changed after their labels were edited.
    """

    images: set[Path] = field(default_factory=set)
    lacking: dict[str, None] = field(default_factory=dict)
    other_input: int = 0

    def add(self, unchanged: Unchanged) -> None:
        if unchanged.lacking:
            self.images.add(unchanged.ref.path)
            self.lacking |= dict.fromkeys(unchanged.lacking)
        self.other_input += unchanged.other_input


def note_folder(folder: OutputFolder, progress: Progress) -> None:
    for path in folder.kept:
        progress.note(f"Kept {path} (edited by hand).")
    state = folder.state
    if state.rebuilt:
        progress.note(f"{state.path} is damaged; rebuilt it from {MANIFEST_FILE}.")
    if state.unreadable:
        progress.note(f"{state.folder / MANIFEST_FILE}: {state.unreadable}; images of such lines are labelled again.")
    note_moved(folder.moved, progress)
    if folder.resume.lost:
        progress.note(
            f"{MANIFEST_FILE} lacks {pluralize(folder.resume.lost, 'image')} that {RUN_FILE} counts; include them to label them "
            "again."
        )


def note_resume(resume: ResumeState, images: Images, progress: Progress) -> None:
    for path, lost in resume.lost_rows():
        progress.note(f"{path} is missing or was changed; {pluralize(lost, 'image')} in it must be written again.")
    root = None if resume.before is None or not len(resume.state) else resume.before.image_root
    if root is not None and root != address_text(images.root):
        progress.note(
            f"Image names are relative to {address_text(images.root)}; in the earlier run they were relative to {root}."
        )


def note_begin(info: RunInfo, images: Images, counts: Counts, progress: Progress) -> None:
    """Note the start after the model is loaded; `counts` covers the images that needed no model."""
    number = images.number
    what = "Images from a list" if number is None else pluralize(number, "image")
    before = f"; {counts.unchanged} already done" if counts.unchanged else ""
    spec = info.spec
    stored = "" if spec.features is None else f", features in {spec.features} ({spec.labelled_in})"
    regions = "" if spec.regions is None else f", regions in {spec.regions}"
    regions += "" if spec.onto is None else f", onto {spec.onto}"
    setting = f"{spec.model} on {info.place}{stored}{regions}"
    progress.begin(f"{what} with {setting}{before}.", number, counts.done)
    if spec.onto is not None:
        ids = {False: list[str](), True: list[str]()}
        for entry in spec.vocabulary.classes:
            ids[entry.name in spec.added].append(f"{entry.name} (id {entry.id})")
        kept, added = (join_first(ids[new], 10) for new in (False, True))
        progress.note(f"Kept from {spec.onto}: {kept or 'no other classes'}. Added: {added}.")
    if info.dropped:
        pairs = ", ".join(f"{phrase} (close to {name})" for phrase, name in info.dropped.items())
        of_class = ", for that class" if spec.options.overlap else ""
        progress.note(f"Removed background phrases that mean the same as a class to this model{of_class}: {pairs}.")


def note_given(spec: RunSpec, items: Iterable[ImageRef | Failed], progress: Progress) -> None:
    """Compare the images of a run with its regions and labels, and note labels of other images only."""
    given, refs = spec.given, (item for item in items if isinstance(item, ImageRef))
    if given is not None and not given.expect(refs):
        progress.note(f"{spec.onto} has no labels of these images. Images and labels are matched by their names.")


def note_skipped(skipped: Mapping[str, int], labels: Path | None, progress: Progress) -> None:
    """Note shapes without pixels in labels, such as lines."""
    for kind, number in skipped.items():
        progress.note(f"Skipped {pluralize(number, 'shape')} without pixels in {labels}: {kind}.")


def note_outdated(resume: ResumeState, spec: RunSpec, progress: Progress) -> None:
    """Note formats of earlier runs or conversions that lack relabelled images."""
    outdated = [name for name in FORMATS if name in resume.outdated]
    if not outdated:
        return
    convertible = [name for name in outdated if name not in model_only_formats()]
    hint = ""
    if convertible and not spec.shard:
        names = ",".join(convertible)
        hint = f" To add them, run: tipsseg label --format {names}."
        if set(spec.formats) & set(label_sources()):
            hint = f" To add them, run: tipsseg convert {shell_word(str(spec.output))} --format {names}."
    if len(convertible) < len(outdated):
        hint += " npz and confidence need the model: tipsseg label --format."
    progress.note(f"Images that were labelled again are no longer in {','.join(outdated)}.{hint}")


def note_edited(spec: RunSpec, counts: Counts, edited: Edited, progress: Progress) -> None:
    """Note the number of images with edited files, and the formats that do not follow the edits."""
    if counts.edited:
        progress.note(
            f"Kept {pluralize(counts.edited, 'edited image')}; use argument `replace_edited` to relabel, or tipsseg convert "
            f"{shell_word(str(spec.output))} --format FORMAT to write an edited mask in other formats."
        )
    if edited.other_input:
        progress.note(
            f"{pluralize(edited.other_input, 'image')} changed after the labels were edited; the kept labels belong to the old "
            "image."
        )
    if never := [name for name in edited.lacking if name in model_only_formats()]:
        progress.note(
            f"{pluralize(len(edited.images), 'edited image')} cannot be added to {', '.join(never)}, which need the model; "
            "argument `replace_edited` labels again and discards the edits."
        )


def note_end(progress: Progress, counts: Counts, seconds: float, where: str, done: str = "labelled") -> None:
    """Note the totals of a run; `done` is the verb."""
    others = {"unchanged": counts.unchanged, "failed": counts.failed}
    progress.note(f"{list_counts(counts.labelled, done, others)} in {seconds:.1f} s{where}")


def list_counts(number: int, done: str, others: Mapping[str, int]) -> str:
    """Return a text such as "2 images labelled, 1 failed", without counts of 0 after the first."""
    return ", ".join(
        [f"{pluralize(number, 'image')} {done}", *(f"{count} {what}" for what, count in others.items() if count)]
    )


def readable_size(size: float) -> str:
    """Return a number of bytes as text, in the largest fitting unit."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.1f} kB"


def note_formats(
    formats: Sequence[str], options: FileOptions, classes: Iterable[LabelClass], progress: Progress
) -> None:
    """Note formats that split objects of several parts, and names that no font can draw."""
    single = [name for name in formats if not FORMATS[name].multi_part_objects]
    if single and options.instances == "class":
        progress.note(
            f"{' and '.join(single)} cannot store objects of several parts, so every part of a class becomes an object."
        )
    if any(FORMATS[name].needs_thumbnail for name in formats):
        from tipsseg.util.lettering import find_undrawable

        if names := find_undrawable(one_line(entry.name) for entry in classes):
            progress.note(
                f"No installed font has all letters of {join_first(names, _MAX_NAMES)}; overlays replace letters with ?, or names "
                "with numbers. Install a font that has them, such as Noto Sans CJK for Chinese."
            )


def note_moved(number: int, progress: Progress) -> None:
    if number:
        progress.note(f"YOLO: moved the files of {pluralize(number, 'image')} to the folders that data.yaml names now.")


def note_division(formats: Iterable[str], state: State, options: FileOptions, progress: Progress) -> None:
    """Note the sizes of the training and the validation split, or that both have the same images."""
    for name in formats:
        images = state.holding(name) if FORMATS[name].splits_train_val else []
        parts = Counter(FORMATS[name].split(PurePosixPath(image), options) for image in images)
        if len(parts) > 1:
            progress.note(f"{name}: {pluralize(parts[TRAIN], 'image')} for training, {parts[VAL]} for validation.")
        elif parts:
            fraction = options.val_fraction
            hint = (
                f"argument `val_fraction`={fraction:g} needs more images" if fraction else "see argument `val_fraction`"
            )
            progress.note(
                f"{name}: {FORMATS[name].files[0]} has the same {pluralize(len(images), 'image')} for training "
                f"and validation; {hint}."
            )


def note_polygon_quality(progress: Progress, quality: PolygonQuality) -> None:
    if quality.objects:
        progress.note(
            f"Polygons of {pluralize(quality.objects, 'object')}: IoU with their pixels {quality.total / quality.objects:.4f} "
            f"on average, {quality.worst:.4f} at worst."
        )
