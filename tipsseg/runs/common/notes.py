"""Note what a run says beside its results: on the folder, the model, the images, and what formats cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from tipsseg.formats import FORMATS, model_only_formats
from tipsseg.formats.yolo import TRAIN, VAL
from tipsseg.labelling.windows import LONGEST_ASPECT
from tipsseg.options import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.progress import Progress
from tipsseg.store.folder import OutputFolder
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.results import Labelled, Unchanged
from tipsseg.store.resume import ResumeState
from tipsseg.store.run_record import RUN_FILE
from tipsseg.store.spec import Counts, RunInfo, RunSpec
from tipsseg.store.state import State
from tipsseg.store.stored_image import label_sources
from tipsseg.types import ImageRef, LabelClass, Remark
from tipsseg.util.printable import counted, one_line, shell_word
from tipsseg.weights.lock import get_model
from tipsseg.weights.sources import ModelSource

#: The model that was trained on drawn scenes alone.
_DRAWN = "tiny"


#: How many names a note has.
_NAMED = 3


#: What is said of images by their remarks.
_REMARKS: Mapping[Remark, str] = {
    "squeezed": f"more than {LONGEST_ASPECT} times as long as wide, and narrow. The model saw the long side squeezed, which may "
    "cost accuracy. Cut such images into pieces.",
    "dark": "16 bits a channel, but no value above 12 bits, so that the model saw a nearly black picture. Stretch such images "
    "first, for example with ImageMagick: magick IN.png -auto-level OUT.png",
    "pages": "a TIFF of several pages, of which only the first was read. Save each page as a file to have them all.",
}


class Remarks:
    """Collect what the model did not see of the images of a run."""

    def __init__(self) -> None:
        self._images: dict[Remark, tuple[str, int]] = {}  # the first one, and how many

    def take(self, ref: ImageRef, remarks: Iterable[Remark]) -> None:
        """Take an image."""
        for each in remarks:
            first, number = self._images.get(each, (ref.name, 0))
            self._images[each] = first, number + 1

    def end(self, progress: Progress) -> None:
        for each, text in _REMARKS.items():
            first, number = self._images.get(each, ("", 0))
            if number:
                more = f" and {counted(number - 1, 'more image')}" if number > 1 else ""
                progress.note(f"{first}{more}: {text}")


class ImageNotes:
    """Look at each labelled image of a run."""

    def __init__(self, model: Mapping[str, object], progress: Progress) -> None:
        """`model` as `ModelSource.facts` gives it."""
        self._progress = progress
        self._quality = PolygonQuality()
        self._remarks = Remarks()
        self._beyond = model.get("sha256") == ModelSource(_DRAWN, get_model(_DRAWN)).facts()["sha256"]

    def take(self, labelled: Labelled) -> None:
        self._quality += labelled.polygon_quality
        if labelled.damaged:
            note_damaged(labelled.damaged, self._progress)
        self._remarks.take(labelled.ref, labelled.remarks)
        if self._beyond and labelled.entry.fingerprint.sha256 not in example_hashes():
            self._beyond = False  # said once
            self._progress.note(
                f"The model {_DRAWN} knows drawn scenes only, such as those of examples/scenes. Do not trust its labels of "
                "photographs; use argument `model`=l14."
            )

    def end(self) -> None:
        note_polygon_quality(self._progress, self._quality)
        self._remarks.end(self._progress)


def note_damaged(what: str, progress: Progress) -> None:
    progress.note(f"{what}; the image was encoded again.")


@cache
def example_hashes() -> frozenset[str]:
    """The sha256 of each picture in examples/scenes, which are what the model tiny is shown with."""
    text = (resources.files("tipsseg") / "assets" / "examples.sha256").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines())


@dataclass(slots=True)
class Edited:
    """Images of a run whose files were changed by hand.

    Attributes:
        images: The paths of the images that lack formats.
        lacking: The formats that they lack.
        other_input: How many of the images themselves were changed since.
    """

    images: set[Path] = field(default_factory=set)
    lacking: dict[str, None] = field(default_factory=dict)
    other_input: int = 0

    def take(self, unchanged: Unchanged) -> None:
        """Take an image."""
        if unchanged.lacking:
            self.images.add(unchanged.ref.path)
            self.lacking |= dict.fromkeys(unchanged.lacking)
        self.other_input += unchanged.other_input


def note_folder(folder: OutputFolder, progress: Progress) -> None:
    for path in folder.kept:
        progress.note(f"{path} was changed by hand, and is kept.")
    state = folder.state
    if state.rebuilt:
        progress.note(f"{state.path} is damaged, or of another version, and is made again of {MANIFEST_FILE}.")
    if state.unreadable:
        progress.note(f"{state.folder / MANIFEST_FILE}: {state.unreadable}; images of such lines are labelled again.")
    note_moved(folder.moved, progress)
    if folder.resume.lost:
        progress.note(
            f"The manifest lacks {counted(folder.resume.lost, 'image')} that {RUN_FILE} counts; labelled again where given."
        )


def note_resume(resume: ResumeState, images: Images, progress: Progress) -> None:
    for path, lost in resume.lost_rows():
        progress.note(f"{path} is gone, or not as it was written: {counted(lost, 'image')} of it to be made again.")
    root = None if resume.before is None or not len(resume.state) else resume.before.image_root
    if root is not None and root != str(images.root):
        progress.note(f"The names of images begin at {images.root} now, and began at {root} in the run before.")


def note_begin(info: RunInfo, images: Images, counts: Counts, progress: Progress) -> None:
    """Note the start once the model is ready; `counts` are of the images that needed no model."""
    number = images.number
    what = "Images as they come" if number is None else counted(number, "image")
    before = f", the first {counts.unchanged} of them done before" if counts.unchanged else ""
    spec = info.spec
    stored = "" if spec.features is None else f", features in {spec.features} ({spec.labelled_in})"
    progress.begin(f"{what} with {spec.model} on {info.device} ({info.dtype}){stored}{before}.", number, counts.done)
    if info.dropped:
        same = ", ".join(f"{phrase} (close to {name})" for phrase, name in info.dropped.items())
        they = "it means" if len(info.dropped) == 1 else "they mean"
        progress.note(
            f"Left out {counted(len(info.dropped), 'background phrase')}, because to this model {they} the same as a class: {same}."
        )


def note_outdated(resume: ResumeState, spec: RunSpec, progress: Progress) -> None:
    """Say which formats of an earlier run, or of a conversion, are not of the labels that are there now."""
    names = ",".join(name for name in FORMATS if name in resume.outdated)
    if names:
        place = shell_word(str(spec.output))
        later = ",".join(name for name in names.split(",") if name not in model_only_formats())
        how = ""
        if later and not spec.shard:
            stored = set(spec.formats) & set(label_sources())
            how = (
                f"; tipsseg convert {place} --format {later} writes them"
                if stored
                else "; label with these formats to have them"
            )
        if later != names:
            how += "; only the model can write the scores of npz and confidence, with tipsseg label --format"
        progress.note(f"Images that were labelled again are not in {names} any more{how}.")


def note_edited(spec: RunSpec, counts: Counts, edited: Edited, progress: Progress) -> None:
    """Say how many images have files that were changed by hand, and what does not follow from them."""
    if counts.edited:
        one = counts.edited == 1
        place = shell_word(str(spec.output))
        progress.note(
            f"Files of {counted(counts.edited, 'image')} were changed by hand and are kept; "
            f"argument `replace_edited` labels {'it' if one else 'them'} again, and tipsseg convert {place} --format FORMAT "
            "takes a changed mask into other formats."
        )
    if edited.other_input:
        progress.note(
            f"The image itself was changed since in {edited.other_input} of these cases: the kept labels are of the image before."
        )
    if never := [name for name in edited.lacking if name in model_only_formats()]:
        progress.note(
            f"Only the model can write {', '.join(never)}, which {counted(len(edited.images), 'changed image')} "
            f"{'lacks' if len(edited.images) == 1 else 'lack'}; argument `replace_edited` labels again, and gives the change up."
        )


def note_end(progress: Progress, counts: Counts, seconds: float, where: str, done: str = "labelled") -> None:
    """The last line of a run; `done` says what it has done to images."""
    parts = [f"{counted(counts.labelled, 'image')} {done}"]
    parts += [f"{counts.unchanged} unchanged"] if counts.unchanged else []
    parts += [f"{counts.failed} failed"] if counts.failed else []
    progress.note(f"{', '.join(parts)} in {seconds:.1f} s{where}")


def note_formats(
    formats: Sequence[str], options: FileOptions, classes: Iterable[LabelClass], progress: Progress
) -> None:
    """Say which formats cannot hold objects of several parts, if there may be some, and which names pictures cannot show."""
    unfit = [name for name in formats if not FORMATS[name].multi_part_objects]
    if unfit and options.instances == "class":
        progress.note(f"In {' and '.join(unfit)} an object has one part, so each part of a class is an object there.")
    if any(FORMATS[name].needs_thumbnail for name in formats):
        from tipsseg.util.lettering import find_undrawable

        if names := find_undrawable(one_line(each.name) for each in classes):
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            progress.note(
                f"No font of this machine has all letters of {', '.join(names[:_NAMED])}{more}: overlays show "
                f'{"it" if len(names) == 1 else "them"} with "?", or by number. '
                "Install a font that has them, such as Noto Sans CJK for Chinese."
            )


def note_moved(number: int, progress: Progress) -> None:
    if number:
        progress.note(
            f"yolo: the files of {counted(number, 'image')} moved to the folders that its data.yaml names now."
        )


def note_division(formats: Iterable[str], state: State, options: FileOptions, progress: Progress) -> None:
    """Say how many images a format has for training and for validation, or that they are the same."""
    for name in formats:
        images = state.holding(name) if FORMATS[name].splits_train_val else []
        parts = Counter(FORMATS[name].split(PurePosixPath(image), options) for image in images)
        if len(parts) > 1:
            progress.note(f"{name}: {counted(parts[TRAIN], 'image')} for training, {parts[VAL]} for validation.")
        elif parts:
            how = "argument `val_fraction`=0.2 sets about a fifth apart"
            if options.val_fraction:
                how = f"argument `val_fraction`={options.val_fraction:g} divides more images"
            progress.note(
                f"{name}: {FORMATS[name].files[0]} names the same {counted(len(images), 'image')} for training and for "
                f"validation; {how}."
            )


def note_polygon_quality(progress: Progress, quality: PolygonQuality) -> None:
    if quality.objects:
        progress.note(
            f"Polygons of {counted(quality.objects, 'object')}: IoU with their pixels {quality.total / quality.objects:.4f} "
            f"on average, {quality.worst:.4f} at worst."
        )
