"""Count, print and note: the results of a run, and what a person should know of its folder, model, images and formats."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.address import address_text
from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS
from tipsseg.formats.pictures import Overlay
from tipsseg.formats.yolo import TRAINING, VALIDATING
from tipsseg.labelling.view import LONGEST_ASPECT
from tipsseg.options.fields import options_of
from tipsseg.options.records import DEFAULT_LABEL_OPTIONS, FileOptions, LabelOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.run.entry import ERRORS_FILE
from tipsseg.run.files import TRASH
from tipsseg.run.folder import OutputFolder
from tipsseg.run.inputs import Images
from tipsseg.run.moves import Moves
from tipsseg.run.results import OTHER_PICTURE, Labelled, Unchanged, accept_command
from tipsseg.run.resume import NEW
from tipsseg.run.settle import Settled
from tipsseg.run.spec import Counts, RunInfo, RunSpec
from tipsseg.run.summary import image_summary
from tipsseg.types import Failed, ImageRef, LabelClass, Remark
from tipsseg.util.json import json_bytes
from tipsseg.util.progress import Progress
from tipsseg.util.text import join_first, one_line, pluralize, shell_word
from tipsseg.vocabulary.rivals import describe_rivals, part_beside_whole
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.lock import get_model
from tipsseg.weights.sources import ModelSource
from tipsseg.words import Words

#: The demo model, which was trained on synthetic scenes only.
_DEMO_MODEL = "tiny"

#: Maximum number of names in a note, and of classes in the first line of a run.
_MAX_NAMES, _MAX_CLASSES = 3, 20

_REMARKS: Mapping[Remark, str] = {
    "squeezed": f"more than {LONGEST_ASPECT} times as long as wide, and narrow. The model saw the long side squeezed, which may "
    "cost accuracy. Cut such images into pieces.",
    "labelme": "a GIF, CMYK or 16 bits per channel, which LabelMe does not open. Save such images as RGB with 8 bits, and label "
    "them again.",
    "rough": Words(
        "the refined labels change along less than half of the edges of the regions. If the regions are "
        "off by some pixels, set {regions_margin}=1.5, or more."
    ),
    "dark": Words(
        "16 bits per channel, but no value above 12 bits, so the model saw a nearly black image. Stretch "
        "the contrast of such images with {stretch}=2,98."
    ),
    "pages": Words(
        "several pages or frames; only the first was read. Save other pages as files to label them. Save "
        "an animation as a video, and take its frames with {every}."
    ),
}


class Remarks:
    """Collect remarks about the images of a run, and note each kind once."""

    def __init__(self) -> None:
        self._images: dict[Remark, tuple[str, int]] = {}  # the first image, and the number of images

    def add(self, ref: ImageRef, remarks: Iterable[Remark], formats: Container[str] = ()) -> None:
        """Add the remarks on an image; "labelme" counts only if that is one of the formats of its labels."""
        for remark in remarks:
            if remark == "labelme" and remark not in formats:
                continue
            first, number = self._images.get(remark, (ref.name, 0))
            self._images[remark] = first, number + 1

    def end(self, progress: Progress) -> None:
        for remark, text in _REMARKS.items():
            first, number = self._images.get(remark, ("", 0))
            if number:
                more = f" and {pluralize(number - 1, 'more image')}" if number > 1 else ""
                progress.note(f"{first}{more}: " + text)


class ImageNotes:
    """Collect notes about the images that a run labels."""

    def __init__(self, model: Mapping[str, object], formats: Sequence[str], progress: Progress) -> None:
        """Set up for a model, from `ModelSource.facts`, and the formats of a folder."""
        self._formats = formats
        self._progress = progress
        self._quality, self._other_pictures = PolygonQuality(), list[Unchanged]()
        self._remarks = Remarks()
        self._is_demo = model.get("sha256") == ModelSource(_DEMO_MODEL, get_model(_DEMO_MODEL)).facts()["sha256"]

    def add(self, result: Labelled | Unchanged) -> None:
        if isinstance(result, Unchanged):
            self._other_pictures += [result] if result.reason == OTHER_PICTURE else []
            return
        labelled = result
        self._quality += labelled.derived.quality
        if labelled.damaged:
            note_damaged(labelled.damaged, self._progress)
        self._remarks.add(labelled.ref, labelled.remarks, self._formats)
        if self._is_demo and labelled.entry.input.sha256 not in example_hashes():
            self._is_demo = False  # note this once
            self._progress.note(
                Words(
                    "The model {demo_model} knows only synthetic scenes, as in examples/scenes. Do not trust its "
                    "labels of photographs; use {model}=l14.",
                    demo_model=_DEMO_MODEL,
                )
            )

    def end(self, folder: OutputFolder) -> None:
        note_polygon_quality(self._progress, self._quality)
        self._remarks.end(self._progress)
        if self._other_pictures:
            names = [each.ref.name for each in self._other_pictures]
            number = pluralize(len(names), "picture")
            self._progress.note(
                f"{number} changed since the labels were corrected, which stay: {join_first(names, _MAX_NAMES)}. To let the model "
                f"label such an image again: tipsseg correct {shell_word(str(folder.path))} --undo {shell_word(names[0])}"
            )
            commands = (
                accept_command(folder.context, each.ref.path, each.entry, folder.reader)
                for each in self._other_pictures
            )
            if command := next(filter(None, commands), ""):
                self._progress.note(f"Where they fit the new picture: {command}")


def note_vocabulary(vocabulary: Vocabulary, progress: Progress, options: LabelOptions = DEFAULT_LABEL_OPTIONS) -> None:
    """Print the classes as the first line of a run.

    Note commas that became part of a name, and classes that compete for the same pixels.
    """
    names = [f'"{entry.name}"' if "," in entry.name else entry.name for entry in vocabulary.classes]
    source = f" of {vocabulary.source}" if vocabulary.source else ""
    progress.head(f"{pluralize(len(names), 'class', 'classes')}{source}: {join_first(names, _MAX_CLASSES)}.")
    with_comma = [entry.name for entry in vocabulary.classes if "," in entry.name]
    if with_comma and not vocabulary.source:
        progress.note(
            Words(
                "Every value of {classes} is one class, including its commas, as in {text}.", text=repr(with_comma[0])
            )
        )
    elif with_comma and not vocabulary.source.lower().endswith(".toml"):
        progress.note(
            f"{vocabulary.source} has one class per line, so commas are part of a name, as in {with_comma[0]!r}."
        )
    if not vocabulary.source and (pair := part_beside_whole(vocabulary)):
        whole, part = pair
        path = f"{whole}/{part.removeprefix(whole).strip()}"
        progress.note(
            f"{part!r} and {whole!r} compete for the same pixels. If one is a part of the other, write "
            f'"{whole},{path}".'
        )
    for text in describe_rivals(vocabulary):
        progress.note(text)


def note_damaged(what: str, progress: Progress) -> None:
    progress.note(f"{what}; encoded the image again.")


@cache
def example_hashes() -> frozenset[str]:
    """Return the sha256 of every picture in examples/scenes."""
    text = (resources.files("tipsseg") / "assets" / "examples.sha256").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines())


def note_folder(folder: OutputFolder, images: Images, progress: Progress) -> None:
    """Note what differs from an earlier run in the folder."""
    before = folder.before
    if before is None or not len(folder):
        return
    root = before.image_root
    if root is not None and root != address_text(images.root):
        progress.note(
            f"Image names are relative to {address_text(images.root)}; in the earlier run they were relative to {root}."
        )
    old, new = before.spec.files, folder.info.spec.files
    names = (name for name, each in options_of(FileOptions).items() if each.about.held == "nothing")
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    if changed and not folder.starting_over:
        texts = ", ".join(f"{name.replace('_', '-')} {getattr(old, name)} -> {getattr(new, name)}" for name in changed)
        progress.note(f"Writing files again that depend on changed options: {texts}.")


def note_renamed(renamed: Mapping[str, ImageRef], progress: Progress) -> None:
    """Note the pictures whose labels followed them."""
    pairs = [f"{old} is now {ref.name}" for old, ref in renamed.items()]
    if len(pairs) == 1:
        progress.note(f"Renamed: {pairs[0]}; its labels were kept.")
    elif pairs:
        progress.note(f"Renamed {len(pairs)} images, whose labels were kept: {join_first(pairs, _MAX_NAMES)}.")


def note_gone(folder: OutputFolder, images: Images, moves: Moves, progress: Progress) -> None:
    """Note the images whose pictures are gone, with the commands that remove them."""
    root, output = address_text(images.root), shell_word(str(folder.info.spec.output))
    if gone := [name for name in moves.gone if name in folder]:  # a run that started over forgot them
        number = pluralize(len(gone), "labelled image is", "labelled images are")
        command = folder.info.spec.command(prune=len(gone))
        progress.note(
            f"{number} no longer in {root}: {join_first(gone, _MAX_NAMES)}. The labels stay; to remove them, run: {command}"
        )
    if moves.corrected:
        number = pluralize(len(moves.corrected), "corrected image is", "corrected images are")
        each = " for each" if len(moves.corrected) > 1 else ""
        progress.note(
            f"{number} no longer in {root}: {join_first(moves.corrected, _MAX_NAMES)}. The labels stay; to remove them, "
            f"run{each}: tipsseg correct {output} --remove {shell_word(moves.corrected[0])}"
        )


def note_reasons(reasons: Mapping[str, int], progress: Progress, verb: str = "labelled again") -> None:
    """Note why images were labelled that an earlier run had labelled."""
    for reason, number in reasons.items():
        if reason != NEW:
            progress.note(f"{pluralize(number, 'image')} {verb}: {reason}.")


def note_aside(paths: Iterable[Path], progress: Progress) -> None:
    """Note files that another program changed, and that have other names now."""
    for path in paths:
        progress.note(f"{path.stem} was changed since tipsseg wrote it, so it is {path} now.")


def note_trashed(folder: OutputFolder, progress: Progress) -> None:
    """Note the files that a command moved to the trash."""
    if paths := folder.files.trashed:
        names = join_first([str(path.relative_to(folder.path)) for path in paths], _MAX_NAMES)
        them = "it" if len(paths) == 1 else "them"
        progress.note(f"Moved {pluralize(len(paths), 'file')} that may be somebody's work to {folder.path / TRASH}: {names}. "
                      f"To have {them} again, move {them} back.")  # fmt: skip


def note_settled(folder: OutputFolder, settled: Settled, progress: Progress, asked: Sequence[str] = ()) -> None:
    """Note what became of the derived files of a folder."""
    word = shell_word(str(folder.path))
    if settled.adopted:
        progress.note(f"Kept {pluralize(settled.adopted, 'mask')} changed by hand.")
    formats = [name for name in settled.formats if name not in asked]
    if formats:
        images = pluralize(max(settled.formats[name] for name in formats), "image")
        progress.note(f"Wrote {', '.join(formats)} of {images} from the labels.")
    if folder.copies:
        number, size = pluralize(sum(folder.copies.values()), "file"), readable_size(folder.copied_bytes)
        progress.detail(f"Copied images into {' and '.join(folder.copies)}: {number}, {size}.")
    others = list(dict.fromkeys(settled.edited))
    pictures = [path for path in others if _is_picture(path.relative_to(folder.path))]
    if pictures:
        number = pluralize(len(pictures), "changed copy of an image", "changed copies of images")
        progress.note(f"Kept {number}: {join_first([str(path) for path in pictures], _MAX_NAMES)}.")
    _note_by_hand(folder, [path for path in others if path not in pictures], progress)
    known = folder.cache.places()
    if strays := [place for place in folder.strays if place not in known]:
        number = pluralize(len(strays), "mask that belongs to no image", "masks that belong to no image")
        progress.note(
            f"Left out {number} of the run: {join_first(strays, _MAX_NAMES)}. Move such masks away, or label their images."
        )
    note_trashed(folder, progress)
    if settled.in_pixels:
        more = f", like {pluralize(len(settled.in_pixels) - 1, 'more image')}" if len(settled.in_pixels) > 1 else ""
        progress.note(f"{settled.in_pixels[0]} has no coordinates{more}: places are in pixels, with y downwards.")
    if lacking := settled.without_picture:
        images, names = pluralize(max(lacking.values()), "image"), ",".join(lacking)
        progress.note(
            f"Did not write {names} of {images}: the picture is missing or has changed. If it has changed, "
            f"label it again; if it has moved, run: tipsseg convert {word} --format {names} --images FOLDER"
        )
    note_polygon_quality(progress, settled.quality)


def _is_picture(place: PurePath) -> bool:
    """Return True for a copy of an image in the folder of a format."""
    forms = [form for form in FORMATS.values() if form.picture_folder and place.is_relative_to(form.picture_folder)]
    return any(not (place.is_relative_to(str(form.folder)) and place.suffix == form.suffix) for form in forms)


def _note_by_hand(folder: OutputFolder, paths: Iterable[Path], progress: Progress) -> None:
    """Note files that a person changed, by folder or file, with the command that takes them in."""
    readable = {
        (form.folder or form.files[0]).split("/")[0]
        for name, form in FORMATS.items()
        if form.reads and name != "label-studio"  # whose predictions are not read
    }
    tops: dict[str, list[str]] = {}
    for path in paths:
        tops.setdefault(path.relative_to(folder.path).parts[0], []).append(str(path))
    for top, names in tops.items():
        command = f"tipsseg correct {shell_word(str(folder.path))} --from {shell_word(str(folder.path / top))}"
        hint = (
            f"Import the changes: {command}"
            if top in readable
            else "To have it written again, move it elsewhere first."
        )
        progress.note(f"Kept {pluralize(len(names), 'file')} changed by hand: {join_first(names, _MAX_NAMES)}. {hint}")


def note_begin(
    info: RunInfo, images: Images, counts: Counts, progress: Progress, *, recorded: int = 0, again: bool = False
) -> None:
    """Note the start after the model is loaded.

    `counts` covers the images that needed no model, and `recorded` those in the record; `again` is True if an earlier run noted
    what is true of the whole folder.
    """
    number = images.number
    what = "Images from a list" if number is None else pluralize(number, "image")
    known = f", {recorded} of them in the record," if recorded else ""
    spec = info.spec
    stored = "" if spec.features is None else f", features in {spec.features} ({spec.labelled_in})"
    regions = "" if spec.regions is None else f", regions in {spec.regions}"
    regions += "" if spec.onto is None else f", onto {spec.onto}"
    setting = f"{spec.model} on {info.place}{stored}{regions}"
    progress.begin(f"{what}{known} with {setting}.", number, counts.done)
    if spec.onto is not None:
        ids = {False: list[str](), True: list[str]()}
        for entry in spec.vocabulary.classes:
            ids[entry.name in spec.new_classes].append(f"{entry.name} (id {entry.id})")
        kept, added = (join_first(ids[new], 10) for new in (False, True))
        progress.note(f"Kept from {spec.onto}: {kept or 'no other classes'}. Added: {added}.")
    if info.dropped and not again:
        pairs = ", ".join(f"{phrase} (close to {name})" for phrase, name in info.dropped.items())
        progress.detail(
            f"Left out of the automatic background, because they mean nearly the same as a class to this model: {pairs}."
        )


def note_given(spec: RunSpec, items: Iterable[ImageRef | Failed], progress: Progress) -> None:
    """Compare the images of a run with its regions, labels and names, and note which match none."""
    given = spec.given
    if given is None:
        return
    refs = [item for item in items if isinstance(item, ImageRef)]
    if not given.expect(refs):
        progress.note(f"{spec.onto} has no labels of these images. Images and labels are matched by their names.")
    if given.present is not None and refs:
        unnamed, unused = given.present.expect(refs)
        if unused:
            progress.note(f"Ignored {pluralize(unused, 'entry', 'entries')} of {spec.present} without an image.")
        if unnamed:
            number = pluralize(len(unnamed), "image")
            progress.note(f"All classes compete in {number} without listed classes: {join_first(unnamed, _MAX_NAMES)}.")


def note_skipped(skipped: Mapping[str, int], labels: Path | None, progress: Progress) -> None:
    """Note shapes without pixels in labels, such as lines."""
    for kind, number in skipped.items():
        progress.note(f"Skipped {pluralize(number, 'shape')} without pixels in {labels}: {kind}.")


def note_edited(info: RunInfo, counts: Counts, progress: Progress) -> None:
    """Note the number of images that a person corrected."""
    if counts.edited:
        them = "it" if counts.edited == 1 else "them"
        progress.note(
            Words(
                "Kept {edited}; {replace_edited} labels {them} again.",
                edited=pluralize(counts.edited, "edited image"),
                them=them,
            )
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
    formats: Sequence[str],
    options: FileOptions,
    classes: Iterable[LabelClass],
    progress: Progress,
) -> None:
    """Note formats that split objects of several parts, and names that no font can draw."""
    single = [name for name in formats if not FORMATS[name].multi_part_objects]
    if single and options.instances == "class":
        progress.note(
            f"{' and '.join(single)} cannot store objects of several pieces, so every piece of a class becomes an object."
        )
    if any("thumbnail" in FORMATS[name].needs for name in formats):
        from tipsseg.util.lettering import find_undrawable

        if names := find_undrawable(one_line(entry.name) for entry in classes):
            progress.note(
                f"No installed font has all letters of {join_first(names, _MAX_NAMES)}; overlays replace letters with ?, or names "
                "with numbers. Install a font that has them, such as Noto Sans CJK for Chinese."
            )


def note_division(
    formats: Iterable[str], names: Sequence[str], options: FileOptions, note: Callable[[str], None]
) -> None:
    """Note the sizes of the training and the validation split, or that both have the same images."""
    for name in formats:
        images = names if FORMATS[name].splits else []
        parts = Counter(FORMATS[name].split(PurePosixPath(image), options) for image in images)
        if len(parts) > 1:
            note(f"{name}: {pluralize(parts[TRAINING], 'image')} for training, {parts[VALIDATING]} for validation.")
        elif parts:
            fraction = options.val_fraction
            hint = (
                Words("{val_fraction}={fraction} requires more images", fraction=f"{fraction:g}")
                if fraction
                else Words("see {val_fraction}")
            )
            note(
                f"{name}: {FORMATS[name].files[0]} has the same {pluralize(len(images), 'image')} for training "
                f"and validation; {hint}."
            )


def note_polygon_quality(progress: Progress, quality: PolygonQuality) -> None:
    if quality.objects:
        progress.detail(
            f"Polygons of {pluralize(quality.objects, 'object')}: IoU with their pixels {quality.total / quality.objects:.4f} "
            f"on average, {quality.worst:.4f} at worst."
        )


class Reporter:
    """Count and print results.

    Attributes:
        progress: Prints results and notes.
        counts: The results so far; `labelled` counts the images that this run labelled.
        began: The time.monotonic() at which labelling began.
        shown: The overlay with the most pixels that are surely labelled, unless lines of JSON are printed.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.counts = progress, Counts()
        self.began = time.monotonic()
        self.shown: Path | None = None
        self._most = -1.0
        self._failed = set[Path]()

    def report(self, result: Labelled | Unchanged | Failed) -> None:
        """Count and print a recorded result. Raise OutputError if stdout is closed."""
        counts = self.counts
        if isinstance(result, Failed):
            self._fail(result.error)
        elif isinstance(result, Unchanged):
            self.counts = replace(counts, unchanged=counts.unchanged + 1, edited=counts.edited + bool(result.edited))
            self._print(result)
        else:
            self.counts = replace(counts, labelled=counts.labelled + 1)
            self._print(result)
        self.progress.advance()

    def report_derived(self, found: list[Path] | Failed) -> None:
        """Print derived files of an image that are new, or count and print an error, unless it was before."""
        if isinstance(found, Failed):
            if found.error.path not in self._failed:
                self._fail(found.error)
        elif not self.progress.jsonl:
            self.progress.results(found)

    def _fail(self, error: ImageError) -> None:
        self.counts = replace(self.counts, failed=self.counts.failed + 1)
        self._failed.add(error.path)
        self.progress.error(error)

    def note_failures(self, folder: OutputFolder) -> None:
        """Note the number of failed images, and where their reasons are."""
        if self.counts.failed and len(folder.failed):
            number = f"{self.counts.failed} of {pluralize(self.counts.done, 'image')} failed"
            self.progress.note(f"{number}: see {folder.path / ERRORS_FILE}.")

    def interruption(self) -> str:
        """Return the message for an interrupted run."""
        counts = self.counts
        done = max(
            counts.labelled + counts.unchanged, self.progress.done - counts.failed
        )  # with Ray, more than was reported
        return f"{pluralize(done, 'image')} done; run the same command to resume"

    def _print(self, result: Labelled | Unchanged) -> None:
        if self.progress.jsonl:
            record = image_summary(result.ref, result.entry.mask, result.files, result.reason)
            self.progress.text(json_bytes(record).decode() + "\n")
        else:
            facts = result.entry.mask
            sure = sum(facts.counts[each] * facts.confidence.get(each, 0) for each in facts.names)
            if isinstance(result, Labelled) and Overlay.name in result.files and sure > self._most:
                self.shown, self._most = result.files[Overlay.name], sure
            self.progress.results(path for path in result.files.values() if path.exists())
