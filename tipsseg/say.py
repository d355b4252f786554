"""Print results on stdout, and progress on stderr: a bar on a terminal, otherwise a line now and then.

Paths of files, or lines of JSON, go to stdout: to a program as bytes, to a terminal as `printable` text. Errors of images go to
stderr. Lines for people pass through `message_line`, here and in `cli.main`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tipsseg.address import address_text, has_scheme
from tipsseg.errors import ImageError, NameOf, TipssegError, Words, worded
from tipsseg.util.files import output_error
from tipsseg.util.text import format_duration, message_line, pluralize, printable, printable_lines

if TYPE_CHECKING:
    from tqdm import tqdm


#: The notes, by their reasons. A plugin adds its own.
NOTES: dict[str, str] = {
    # check
    "checked": "{looked}: {problems}.",
    "checking_features": "{files} in {folder}.",
    "changed_by_hand": "{path}: changed by hand",
    "changed_as_intended": "{number} changed by hand, as intended: changed masks count as corrections, and changed copies of "
    "images stay. To import other changed files, use tipsseg correct.",
    "older_labels": "{files} with older labels, in {names}: run {update}.",
    "in_trash": "{files} in {folder} ({size}), which nothing empties.",
    "unknown_files": "Kept {files} that tipsseg does not know: {names}.",
    "unfinished_files": "{files} of runs that are in progress or were killed; a later run removes old ones.",
    "checking": "{images} in {folder}.",
    "inputs_gone": "{inputs} not found, so not compared{hint}.",
    "command": "  {command}",
    # convert
    "converting": "Converting {images} of {path}{into}.",
    "format_ended": "{path} no longer has the format {names}.",
    # correct
    "shapes_skipped": "Skipped {shapes} without pixels: {kind}.",
    "boxes_filled": "Filled {boxes} without polygons.",
    "corrected": "{masks} {would}corrected, {unchanged} unchanged{more}.",
    "importing": "Importing {images} of {source} ({name}) into {output}.",
    "undone": "{undone} {corrections}.",
    "removed": "{would} {images}: {names}.",
    "left_without_objects": "Left {number} without objects in {source} unchanged, because it does not show whether a person "
    "removed the objects or never opened the image: {names}. {accept} removes the objects.",
    "emptied": "{images} with no objects left: {names}.",
    "new_classes": "New classes: {classes}.",
    "redrawn": "Left {number} of {source} unchanged, because only edges differ or the object is too thin to export: "
    "{objects}.",
    "exact_exports": 'This export rounds outlines. For exact ones: in CVAT, upload without "Convert masks to polygons"; '
    "from FiftyOne, export ImageSegmentationDirectory with `rel_dir`.",
    "again": "The next run labels {images} again: {names}.",
    "not_matched": "Ignored {images} of {source}{reason}.",
    # encode
    "encoding": "{what} with {place}, features in {feature_dtype}.",
    "listed": "{counts}, into {output}. Nothing was written.",
    "no_estimate": "No estimate of disk space without the weights. Run: tipsseg weights download {model}",
    "store_size": "Features in {dtype} take {each} per image, {total} in total; {free} free on the disk.",
    "windows_to_encode": "At scales {scales}: {number} windows per image to encode.",
    # eval
    "scoring": "Scoring {masks} of {place} against {truths}.",
    "classes_swapped": "Most pixels of {first} in the ground truth are labelled {taken}, and likewise for {more}. Check that the "
    "classes are in the order of the masks' ids; if the ids do not begin at 1, see {zero_based} and {layout}.",
    "truth_without_classes": "The ground truth has no pixels of these classes. If its ids mean something else, see {ignore_index}, "
    "{zero_based} and {layout}.",
    "no_confidences": "The precision by confidence requires labels in the format npz.",
    "scores_lack": "The scores do not include {left_out}.",
    "masks_without_truth": "Ignored {number} of {masks} without ground truth: {names}.",
    "truth_without_labels": "Ignored {masks} without labels.",
    # fit
    "masks_drawn": "Using {most} of {masks}, drawn at random, those with rare classes first.",
    "learning": "{images} {masks}, model {model} on {place}.",
    "fitting": "Fitting {classes} to {images}.",
    "other_scales": "The fit learns from scale 1 only, and applies to all scales; the run has {scales} {number}.",
    "fitting_steps": "{done} of at most {most} fitting steps in {time}.",
    "classes_without_pixels": "The masks have no pixels of {names}: classes without pixels keep their text vectors.",
    "wrote": "Wrote {file}.",
    "fit_skips": "Could not read {images} without masks; the fit ignores them.",
    # label
    "stops": "The run would stop: {error}",
    "blocks_lost": "{name} {claim}, but {chosen} do not store that. It is resized for the model like a photograph; "
    "{formats}={mask} labels it at full resolution. To add such masks of these labels, "
    "run: tipsseg convert {folder} --format {mask}",
    "labelled_in_blocks": "{name} {claim}: it is labelled at its full resolution, in the format {mask}. To write {chosen} "
    "instead, use {formats}.",
    "blocks_refused": "{name} {claim}, which is not stored, because {message}. {hint}",
    "no_locks": "The file system of {path} has no locks: run one process at a time there, or one for each shard.",
    "correction_replaced": "{names}: the picture that was corrected is gone, and another one has its name. The correction is in "
    "{folder}.",
    "pictures_alike": "Several pictures have the same pixels, so no labels followed: {names}.",
    "parts_done": "All parts are done: {images} in {output}.",
    "last_part": "The files for the whole run are written by the last part: {reason}.",
    "parts_missing": "{number} no labels yet, in {shards} {names}.",
    "sizes": "Sizes{some}: {ends} pixels (height x width).",
    "would_remove": "Would remove the labels of {images}: {names}.",
    "another_process": "Another tipsseg process is writing to {output}.",
    "no_windows": "For the number of windows, run: tipsseg weights download {model}",
    # merge
    "joining": "Joining {what}.",
    "joined": "Joined {what} into {target}{rest}",
    "joined_parts": "Joined folders in which some images are not labelled: {folders}.",
    "joined_conflicts": "{images} had two corrections, of which the newer one stays: {names}.",
    "joined_renamed": "Joined images that were renamed between the runs: {pairs}.",
    "joined_failures": "{images} failed, see {file}",
    # folders, images and models
    "left_out": "Left out {images}.",
    "encoded_again": "{what}; encoded the image again.",
    "labelling": "Labelling {images}{known} with {setting}: {classes}.",
    "labels_removed": "Removed the labels of {images}: {names}.",
    "none_removed": "No labelled image is gone: nothing was removed.",
    "planned": "{counts}, into {output}: {classes}. Nothing was written.",
    "windows": "The model sees {number} windows per image{more}.",
    "squeezed": "{images}: more than {aspect} times as long as wide, and narrow. The model saw the long side squeezed, which may "
    "cost accuracy. Cut such images into pieces.",
    "labelme": "{images}: a GIF, CMYK or 16 bits per channel, which LabelMe does not open. Save such images as RGB with 8 bits, "
    "and label them again.",
    "rough": "{images}: the labels change along less than half of the edges of the regions. If the regions are off by some "
    "pixels, set {refine}=pamr-guided and {regions_margin}=1.5, or more. {refine} without {regions} may be better.",
    "dark": "{images}: 16 bits per channel, but no value above 12 bits, so the model saw a nearly black image. Stretch the "
    "contrast of such images with {stretch}=2,98.",
    "pages": "{images}: several pages or frames; only the first was read. Save other pages as files to label them. Save an "
    "animation as a video, and take its frames with {every}.",
    "ended": "{counts} in {seconds} s{where}",
    "commas_given": "Every value of {classes} is one class, including its commas, as in {name}.",
    "part_beside_whole": '{part} and {whole} compete for the same pixels. If one is a part of the other, write "{plain},{path}".',
    "other_root": "Image names are relative to {root}; in the earlier run they were relative to {former}.",
    "options_changed": "Writing files again that depend on changed options: {changes}.",
    "renamed_one": "Renamed: {pair}; its labels were kept.",
    "gone": "{number} no longer in {root}: {names}. The labels stay; to remove them, run: {command}",
    "corrected_gone": "{number} no longer in {root}: {names}. The labels stay; to remove them, run{each}: tipsseg correct {output} "
    "--remove {name}",
    "aside": "{stem} was changed since tipsseg wrote it, so it is {path} now.",
    "trashed": "Moved {files} that may be somebody's work to {folder}: {names}. To have {them} again, move {them} back.",
    "masks_kept": "Kept {masks} changed by hand.",
    "derived": "Wrote {formats} of {images} from the labels.",
    "pictures_kept": "Kept {number}: {names}.",
    "strays": "Left out {number} of the run: {names}. Move such masks away, or label their images.",
    "no_picture": "Did not write {formats} of {images}: the picture is missing or has changed. If it has changed, label it "
    "again; if it has moved, run: tipsseg convert {folder} --format {formats} --images FOLDER",
    "files_kept": "Kept {files} changed by hand: {names}. {hint}",
    "onto": "Kept from {onto}: {kept}. Added: {added}.",
    "onto_without_labels": "{onto} has no labels of these images. Images and labels are matched by their names.",
    "shapes_skipped_in": "Skipped {shapes} without pixels in {labels}: {kind}.",
    "edited_kept": "Kept {number}; {replace_edited} labels {them} again.",
    "objects_split": "{formats} cannot store objects of several pieces, so every piece of a class becomes an object.",
    "demo_model": "The model {name} knows only synthetic scenes, as in examples/scenes. Do not trust its labels of "
    "photographs; use {model}=l14.",
    "other_pictures": "{number} changed since the labels were corrected, which stay: {names}. To let the model label such an image "
    "again: tipsseg correct {folder} --undo {name}",
    "commas_in_file": "{source} has one class per line, so commas are part of a name, as in {name}.",
    "renamed": "Renamed {number} images, whose labels were kept: {pairs}.",
    "reason": "{images} {verb}: {reason}.",
    "names_unused": "Ignored {entries} of {present} without an image.",
    "names_missing": "All classes compete in {number} without listed classes: {names}.",
    "no_font": "No installed font has all letters of {names}; overlays replace letters with ?, or names with numbers. "
    "Install a font that has them, such as Noto Sans CJK for Chinese.",
    "failures": "{number}: see {file}.",
    "still_fits": "Where they fit the new picture: {command}",
    "split": "{form}: {training} for training, {validating} for validation.",
    "split_same": "{form}: {file} has the same {images} for training and validation; {hint}.",
    # inputs
    "part": "Part {index} of {count}, from {source}.",
    "files_skipped": "Skipped files without an image extension: {skipped}.",
    "folders_skipped": "Skipped output folders: {outputs}.",
    "beside_images": "{path} is also the output folder: labels are written beside the images.",
    "own_folder": "{path} is an output folder. Its own files are not labelled: pass the folder of the images.",
    "own_pictures": "{path} has pictures that tipsseg wrote for {run}. They are labelled too. To avoid that, pass the images' "
    "folder.",
}

#: The notes that only --verbose prints.
DETAILS: Mapping[str, str] = {
    "copied": "Copied images into {copies}: {number}, {size}.",
    "phrases_dropped": "Left out of the automatic background, because they mean nearly the same as a class to this model: {pairs}.",
    "polygons": "Polygons of {objects}: IoU with their pixels {mean} on average, {worst} at worst.",
}

#: Seconds between two lines if stderr is not a terminal.
_LINE_EVERY = 30.0

#: The remaining time is printed after this many images, and this many seconds after the first, which waits for the model.
_MIN_IMAGES, _MIN_SECONDS = 3, 5.0

#: A bar without tqdm's estimate of the remaining time, which would be hours while the model loads.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class Progress:
    """Count images and print the progress of a run. Use as a context manager.

    Args:
        quiet: Print no notes and no progress, only errors and results.
        results: Print paths of finished files on stdout.
        null: End paths on stdout with NUL instead of a newline.
        jsonl: Print a line of JSON for each image on stdout.
        detailed: Print details too.
        name_of: Returns the names of options in lines for stderr; None for the names in Python.

    The bar never shares a line with other text: it is removed before a line is printed, and drawn again below.
    """

    def __init__(
        self,
        quiet: bool,
        *,
        results: bool = True,
        null: bool = False,
        jsonl: bool = False,
        detailed: bool = False,
        name_of: NameOf | None = None,
    ) -> None:
        self.quiet = quiet
        self.jsonl = jsonl
        self.detailed = detailed
        self._results = results
        self._null = null
        self._name_of = name_of
        self._total: int | None = 0
        self._before = 0
        self._began = self._last_line = time.monotonic()
        self._first: float | None = None
        self.done = 0
        self._bar: tqdm[None] | None = None

    def begin(self, reason: str, total: int | None, before: int = 0, /, **values: object) -> None:
        """Note the start of the work, and start the clock.

        Args:
            reason: The reason of the note.
            total: The number of images; None if unknown.
            before: The number of images that were done before.
            values: The values of the note.
        """
        self.note(reason, **values)
        self._total = total
        self.done = self._before = before
        self._began = self._last_line = time.monotonic()
        self._first = None
        if self._shows_bar():
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total,
                initial=before,
                unit="image",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                bar_format=None if total is None else _BAR,
            )

    def _shows_bar(self) -> bool:
        return sys.stderr.isatty() and not self.quiet

    def advance(self) -> None:
        """Count one more image, labelled or failed."""
        self.done += 1
        now = time.monotonic()
        self._first = self._first or now
        remaining = self._remaining(now - self._first)
        if self._bar is not None:
            self._bar.set_postfix_str(remaining, refresh=False)
            self._bar.update()
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            done = pluralize(self.done, "image") if self._total is None else f"{self.done} of {self._total} images"
            rate = (self.done - self._before) / max(now - self._began, 1e-9)
            self.say(f"{done}, {rate:.1f} images/s" + (f", {remaining}" if remaining else ""))

    def _remaining(self, seconds: float) -> str:
        """Return a text such as "about 1:57 left", `seconds` after the first image; "" if it is too early for an estimate."""
        images = self.done - self._before
        if self._total is None or images < _MIN_IMAGES or seconds < _MIN_SECONDS:
            return ""
        return f"about {format_duration(round((self._total - self.done) * seconds / (images - 1)))} left"

    def end(self) -> None:
        """Remove the bar before the last lines. Safe to call twice."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def still(self, reason: str, /, **values: object) -> None:
        """Note work after the last image, if the last note of this kind, or `end`, was long ago."""
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.note(reason, **values)

    def note(self, reason: str, /, **values: object) -> None:
        """Print the note of this reason, with these values."""
        sentence = NOTES[reason] if reason in NOTES else DETAILS[reason]
        if not self.quiet and (reason in NOTES or self.detailed):
            self.say(Words(sentence, **values))

    def say(self, line: str) -> None:
        """Print a line, unless this is quiet."""
        if not self.quiet:
            self._stderr(line)

    def error(self, error: TipssegError) -> None:
        """Print the error of an image as one line."""
        self._stderr("Error: " + error.with_hint)

    def printed(self, error: ImageError) -> ImageError:
        """Return the error as `error` prints it, for errors.jsonl."""
        return ImageError(error.path, self.worded(error.reason), self.worded(error.hint))

    def worded(self, text: str) -> str:
        """Return a text with the names of options as this prints them."""
        return text if self._name_of is None else worded(text, self._name_of)

    def results(self, paths: Iterable[Path]) -> None:
        for path in paths if self._results else ():
            self.path(path)

    def path(self, path: Path) -> None:
        """Print a path on stdout, even if `results` is False."""
        with self._without_bar(sys.stdout.isatty()):
            print_path(path, null=self._null)

    def text(self, text: str) -> None:
        with self._without_bar(sys.stdout.isatty()):
            print_text(text)

    def _stderr(self, line: str) -> None:
        with self._without_bar(True):
            print(message_line(self.worded(line)), file=sys.stderr, flush=True)

    @contextmanager
    def _without_bar(self, seen: bool) -> Iterator[None]:
        if self._bar is None or not seen:
            yield
            return
        with self._bar.external_write_mode(file=sys.stderr):
            sys.stderr.flush()
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Silence(Progress):
    """Print nothing, or with `bar` only a bar, on a terminal or in a notebook: library callers get results and errors as values."""

    def __init__(self, *, bar: bool = False) -> None:
        super().__init__(quiet=True, results=False)
        self._with_bar = bar

    def _shows_bar(self) -> bool:
        return self._with_bar and (sys.stderr.isatty() or _is_notebook())

    def error(self, error: TipssegError) -> None:
        """Print nothing; the result has the error."""

    def path(self, path: Path) -> None:
        """Print nothing."""

    def text(self, text: str) -> None:
        """Print nothing."""


#: What functions of the library print: see `progress_for`.
Verbosity = bool | None | Progress


def _is_notebook() -> bool:
    """Return True in a kernel of Jupyter."""
    if (ipython := sys.modules.get("IPython")) is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def progress_for(verbose: Verbosity) -> Progress:
    """Return a Progress that prints on stderr if `verbose`; nothing if it is False; if it is None, only a bar, or itself."""
    if isinstance(verbose, Progress):
        return verbose
    return Progress(quiet=False, results=False, detailed=True) if verbose else Silence(bar=verbose is None)


def print_path(path: Path, *, null: bool = False) -> None:
    """Print a path on stdout: as bytes, because names need not be UTF-8, or `printable` on a terminal, which they could steer.

    `null` ends the path with NUL, because a name may contain line ends. Raise OutputError if this fails.
    """
    # A folder of this machine may be called s3: too.
    text = address_text(path) if has_scheme(path) and not os.path.lexists(path.parts[0]) else str(path)
    _print(os.fsencode(printable(text) if sys.stdout.isatty() else text) + (b"\0" if null else b"\n"))


def print_text(text: str) -> None:
    """Print `printable` lines on stdout, in UTF-8 regardless of the terminal's encoding. Raise OutputError if this fails."""
    _print(printable_lines(text).encode())


def _print(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # the reader closed the pipe, which needs no message
    except OSError as error:
        raise output_error(Path("standard output"), error) from error
