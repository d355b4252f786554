"""Count, print and note: the results of a run, and what a person should know of its folder, model, images and formats."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePath, PurePosixPath
from typing import get_args

from tipsseg.address import address_text
from tipsseg.errors import ImageError, Words
from tipsseg.folder.decide import NEW
from tipsseg.folder.entry import ERRORS_FILE
from tipsseg.folder.files import TRASH
from tipsseg.folder.find import Images
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.moves import Moves
from tipsseg.folder.question import value_text
from tipsseg.folder.results import OTHER_PICTURE, Labelled, Unchanged, accept_command
from tipsseg.folder.settle import Settled
from tipsseg.folder.spec import Counts, RunInfo, RunSpec
from tipsseg.folder.summary import image_summary
from tipsseg.formats import FORMATS
from tipsseg.formats.pictures import Overlay
from tipsseg.formats.yolo import TRAINING, VALIDATING
from tipsseg.options.fields import options_of
from tipsseg.options.records import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.say import Progress
from tipsseg.types import LONGEST_ASPECT, Failed, ImageRef, LabelClass, Remark
from tipsseg.util.json import json_bytes
from tipsseg.util.text import join_first, one_line, pluralize, shell_word
from tipsseg.vocabulary.rivals import describe_rivals, part_beside_whole
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.lock import get_model
from tipsseg.weights.sources import ModelSource

#: The demo model, which was trained on synthetic scenes only.
_DEMO_MODEL = "tiny"

#: Maximum number of names in a note, and of classes in the first line of a run.
_MAX_NAMES, _MAX_CLASSES = 3, 20

#: What may be remarked of an image.
_REMARKS: tuple[Remark, ...] = get_args(Remark)


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
        for remark in _REMARKS:
            first, number = self._images.get(remark, ("", 0))
            if number:
                more = f" and {pluralize(number - 1, 'more image')}" if number > 1 else ""
                progress.note(remark, images=first + more, aspect=LONGEST_ASPECT)


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
            self._progress.note("encoded_again", what=labelled.damaged)
        self._remarks.add(labelled.ref, labelled.remarks, self._formats)
        if self._is_demo and labelled.entry.input.sha256 not in example_hashes():
            self._is_demo = False  # note this once
            self._progress.note("demo_model", name=_DEMO_MODEL)

    def end(self, folder: OutputFolder) -> None:
        note_polygon_quality(self._progress, self._quality)
        self._remarks.end(self._progress)
        if self._other_pictures:
            names = [each.ref.name for each in self._other_pictures]
            number = pluralize(len(names), "picture")
            self._progress.note(
                "other_pictures",
                number=number,
                names=join_first(names, _MAX_NAMES),
                folder=shell_word(str(folder.path)),
                name=shell_word(names[0]),
            )
            commands = (
                accept_command(folder.context, each.ref.path, each.entry, folder.reader)
                for each in self._other_pictures
            )
            if command := next(filter(None, commands), ""):
                self._progress.note("still_fits", command=command)


def note_vocabulary(vocabulary: Vocabulary, progress: Progress) -> None:
    """Note commas that became part of a name, and classes that compete for the same pixels."""
    with_comma = [entry.name for entry in vocabulary.classes if "," in entry.name]
    if with_comma and not vocabulary.source:
        progress.note("commas_given", name=repr(with_comma[0]))
    elif with_comma and not vocabulary.source.lower().endswith(".toml"):
        progress.note("commas_in_file", source=vocabulary.source, name=repr(with_comma[0]))
    if not vocabulary.source and (pair := part_beside_whole(vocabulary)):
        whole, part = pair
        path = f"{whole}/{part.removeprefix(whole).strip()}"
        progress.note("part_beside_whole", part=repr(part), whole=repr(whole), plain=whole, path=path)
    for text in describe_rivals(vocabulary):
        progress.say(text)


def classes_text(vocabulary: Vocabulary) -> str:
    """Return the names of the classes, or the number of the classes of a vocabulary file."""
    if vocabulary.source:
        return f"{pluralize(len(vocabulary.classes), 'class', 'classes')} of {vocabulary.source}"
    names = [f'"{entry.name}"' if "," in entry.name else entry.name for entry in vocabulary.classes]
    return join_first(names, _MAX_CLASSES)


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
        progress.note("other_root", root=address_text(images.root), former=root)
    old, new = before.spec.files, folder.info.spec.files
    names = (name for name, each in options_of(FileOptions).items() if each.about.role == "files")
    changed = [name for name in names if getattr(old, name) != getattr(new, name)]
    if changed and not folder.starting_over:
        values = {name: [value_text(getattr(each, name)) for each in (old, new)] for name in changed}
        texts = [f"{name.replace('_', '-')} {' -> '.join(both)}" for name, both in values.items()]
        progress.note("options_changed", changes=", ".join(texts))


def note_renamed(renamed: Mapping[str, ImageRef], progress: Progress) -> None:
    """Note the pictures whose labels followed them."""
    pairs = [f"{old} is now {ref.name}" for old, ref in renamed.items()]
    if len(pairs) == 1:
        progress.note("renamed_one", pair=pairs[0])
    elif pairs:
        progress.note("renamed", number=len(pairs), pairs=join_first(pairs, _MAX_NAMES))


def note_gone(folder: OutputFolder, images: Images, moves: Moves, progress: Progress) -> None:
    """Note the images whose pictures are gone, with the commands that remove them."""
    root, output = address_text(images.root), shell_word(str(folder.info.spec.output))
    if gone := [name for name in moves.gone if name in folder]:  # a run that started over forgot them
        number, names = pluralize(len(gone), "labelled image is", "labelled images are"), join_first(gone, _MAX_NAMES)
        prune = options_of(RunSpec)["prune"].words(len(gone)) or []
        command = " ".join([folder.info.spec.command, *prune])
        progress.note("gone", number=number, root=root, names=names, command=command)
    if moves.corrected:
        number = pluralize(len(moves.corrected), "corrected image is", "corrected images are")
        each = " for each" if len(moves.corrected) > 1 else ""
        progress.note(
            "corrected_gone",
            number=number,
            root=root,
            names=join_first(moves.corrected, _MAX_NAMES),
            each=each,
            output=output,
            name=shell_word(moves.corrected[0]),
        )


def note_reasons(reasons: Mapping[str, int], progress: Progress, verb: str = "labelled again") -> None:
    """Note why images were labelled that an earlier run had labelled."""
    for reason, number in reasons.items():
        if reason != NEW:
            progress.note("reason", images=pluralize(number, "image"), verb=verb, reason=reason)


def note_aside(paths: Iterable[Path], progress: Progress) -> None:
    """Note files that another program changed, and that have other names now."""
    for path in paths:
        progress.note("aside", stem=path.stem, path=path)


def note_trashed(folder: OutputFolder, progress: Progress) -> None:
    """Note the files that a command moved to the trash."""
    if paths := folder.files.trashed:
        names = join_first([str(path.relative_to(folder.path)) for path in paths], _MAX_NAMES)
        them = "it" if len(paths) == 1 else "them"
        progress.note(
            "trashed", files=pluralize(len(paths), "file"), folder=folder.path / TRASH, names=names, them=them
        )


def note_settled(folder: OutputFolder, settled: Settled, progress: Progress, asked: Sequence[str] = ()) -> None:
    """Note what became of the derived files of a folder."""
    word = shell_word(str(folder.path))
    if settled.adopted:
        progress.note("masks_kept", masks=pluralize(settled.adopted, "mask"))
    formats = [name for name in settled.formats if name not in asked]
    if formats:
        images = pluralize(max(settled.formats[name] for name in formats), "image")
        progress.note("derived", formats=", ".join(formats), images=images)
    if folder.copies:
        number, size = pluralize(sum(folder.copies.values()), "file"), readable_size(folder.copied_bytes)
        progress.note("copied", copies=" and ".join(folder.copies), number=number, size=size)
    others = list(dict.fromkeys(settled.edited))
    pictures = [path for path in others if _is_picture(path.relative_to(folder.path))]
    if pictures:
        number = pluralize(len(pictures), "changed copy of an image", "changed copies of images")
        progress.note("pictures_kept", number=number, names=join_first([str(path) for path in pictures], _MAX_NAMES))
    _note_by_hand(folder, [path for path in others if path not in pictures], progress)
    known = folder.cache.places()
    if strays := [place for place in folder.strays if place not in known]:
        number = pluralize(len(strays), "mask that belongs to no image", "masks that belong to no image")
        progress.note("strays", number=number, names=join_first(strays, _MAX_NAMES))
    note_trashed(folder, progress)
    for remark, like in settled.remarks.items():
        more = f", like {pluralize(len(like) - 1, 'more image')}" if len(like) > 1 else ""
        progress.note(remark, image=like[0], more=more)
    if lacking := settled.without_picture:
        images, names = pluralize(max(lacking.values()), "image"), ",".join(lacking)
        progress.note("no_picture", formats=names, images=images, folder=word)
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
        progress.note("files_kept", files=pluralize(len(names), "file"), names=join_first(names, _MAX_NAMES), hint=hint)


def note_begin(
    info: RunInfo, images: Images, counts: Counts, progress: Progress, *, recorded: int = 0, again: bool = False
) -> None:
    """Note the start after the model is loaded.

    `counts` covers the images that needed no model, and `recorded` those in the record; `again` is True if an earlier run noted
    what is true of the whole folder.
    """
    number = images.number
    what = "images from a list" if number is None else pluralize(number, "image")
    known = f", {recorded} of them in the record," if recorded else ""
    spec = info.spec
    stored = "" if spec.features is None else f", features in {spec.features} ({spec.labelled_in})"
    regions = "" if spec.regions is None else f", regions in {spec.regions}"
    regions += "" if spec.onto is None else f", onto {spec.onto}"
    setting = f"{spec.model} on {info.place}{stored}{regions}"
    names = classes_text(spec.vocabulary)
    progress.begin("labelling", number, counts.done, images=what, known=known, setting=setting, classes=names)
    if spec.onto is not None:
        ids = {False: list[str](), True: list[str]()}
        for entry in spec.vocabulary.classes:
            ids[entry.name in spec.new_classes].append(f"{entry.name} (id {entry.id})")
        kept, added = (join_first(ids[new], 10) for new in (False, True))
        progress.note("onto", onto=spec.onto, kept=kept or "no other classes", added=added)
    if info.dropped and not again:
        pairs = ", ".join(f"{phrase} (close to {name})" for phrase, name in info.dropped.items())
        progress.note("phrases_dropped", pairs=pairs)


def note_given(spec: RunSpec, items: Iterable[ImageRef | Failed], progress: Progress) -> None:
    """Compare the images of a run with its regions, labels and names, and note which match none."""
    given = spec.given
    if given is None:
        return
    refs = [item for item in items if isinstance(item, ImageRef)]
    if not given.expect(refs):
        progress.note("onto_without_labels", onto=spec.onto)
    if given.present is not None and refs:
        unnamed, unused = given.present.expect(refs)
        if unused:
            progress.note("names_unused", entries=pluralize(unused, "entry", "entries"), present=spec.present)
        if unnamed:
            number = pluralize(len(unnamed), "image")
            progress.note("names_missing", number=number, names=join_first(unnamed, _MAX_NAMES))


def note_skipped(skipped: Mapping[str, int], labels: Path | None, progress: Progress) -> None:
    """Note shapes without pixels in labels, such as lines."""
    for kind, number in skipped.items():
        progress.note("shapes_skipped_in", shapes=pluralize(number, "shape"), labels=labels, kind=kind)


def note_edited(counts: Counts, progress: Progress) -> None:
    """Note the number of images that a person corrected."""
    if counts.edited:
        them = "it" if counts.edited == 1 else "them"
        progress.note("edited_kept", number=pluralize(counts.edited, "edited image"), them=them)


def note_end(progress: Progress, counts: Counts, seconds: float, where: str, done: str = "labelled") -> None:
    """Note the totals of a run; `done` is the verb."""
    others = {"unchanged": counts.unchanged, "failed": counts.failed}
    progress.note("ended", counts=list_counts(counts.labelled, done, others), seconds=f"{seconds:.1f}", where=where)


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
        progress.note("objects_split", formats=" and ".join(single))
    if any("thumbnail" in FORMATS[name].needs for name in formats):
        from tipsseg.util.lettering import find_undrawable

        if names := find_undrawable(one_line(entry.name) for entry in classes):
            progress.note("no_font", names=join_first(names, _MAX_NAMES))


def note_division(formats: Iterable[str], names: Sequence[str], options: FileOptions, progress: Progress) -> None:
    """Note the sizes of the training and the validation split, or that both have the same images."""
    for name in formats:
        images = names if FORMATS[name].splits else []
        parts = Counter(FORMATS[name].split(PurePosixPath(image), options) for image in images)
        number, fraction = {part: pluralize(count, "image") for part, count in parts.items()}, options.val_fraction
        if len(parts) > 1:
            progress.note("split", form=name, training=number[TRAINING], validating=parts[VALIDATING])
        elif parts:
            more = Words("{val_fraction}={fraction} requires more images", fraction=f"{fraction or 0:g}")
            hint = more if fraction else Words("see {val_fraction}")
            file, alike = FORMATS[name].files[0], pluralize(len(images), "image")
            progress.note("split_same", form=name, file=file, images=alike, hint=hint)


def note_polygon_quality(progress: Progress, quality: PolygonQuality) -> None:
    if quality.objects:
        progress.note(
            "polygons",
            objects=pluralize(quality.objects, "object"),
            mean=f"{quality.total / quality.objects:.4f}",
            worst=f"{quality.worst:.4f}",
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
            self.progress.note("failures", number=number, file=folder.path / ERRORS_FILE)

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
