"""Label pictures block by block, with the windows of the whole picture, and write their files.

picture ─► for each block: windows ─► cosines ─► labels and scores ─► a file of the block ─► all blocks ─► the picture's files

Every pixel sees the windows that cover it in the whole picture, so its label is the same as if the picture were labelled at once.
A window is encoded once, except after an interruption: its cosines are kept while a block that it covers is to come. The files of
finished blocks stay in the state folder until the image is recorded, so that an interrupted run goes on after them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.folder.cache import CACHE_FOLDER
from tipsseg.folder.files import Content, StagedFile, one_image
from tipsseg.folder.labels import RunContext
from tipsseg.folder.results import Derived, Deriver, ImageResult, Labelled, Triaged, new_entry, stage_files
from tipsseg.folder.spec import RunInfo
from tipsseg.folder.summary import class_facts, mean_confidences
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Grid
from tipsseg.formats.blocks import (
    BLOCK,
    BlockFormat,
    BlockMask,
    LabelBlock,
    Picture,
    block_objects,
    block_places,
    digest_blocks,
)
from tipsseg.formats.mask import MaskFacts, PictureFacts, facts_text, make_envelope
from tipsseg.images.access import identify, local_file
from tipsseg.label_map import LabelMap, find_objects
from tipsseg.labelling.labeller import Cosines, Labeller
from tipsseg.labelling.view import window_side, window_starts
from tipsseg.regions.objects import EVERY_OBJECT, add_to_wholes
from tipsseg.types import BlockPlace, Failed, ImageRef, LabelArray, LabelClass, WindowPlan, ignore_id, label_dtype
from tipsseg.util.files import Fingerprint, atomic_write, describe_error, output_error
from tipsseg.util.text import pluralize

#: The folder of finished blocks in the state folder.
_FOLDER = "blocks"

#: Windows of a row that are encoded together, always the same ones: rounding may depend on their number.
_TOGETHER = 8


class BlockTask:
    """Label pictures in blocks, one after the other; each uses all cores."""

    def __init__(
        self, mask: BlockMask, labeller: Labeller, info: RunInfo, context: RunContext, note: Callable[[str], None]
    ) -> None:
        """Set up the task of a run, whose masks have the format `mask`."""
        self._mask, self._labeller = mask, labeller
        self._info, self._spec = info, info.spec
        self._forms = [form for name in context.formats if isinstance(form := FORMATS[name], BlockFormat)]
        self._needs_objects = any("objects" in form.needs for form in self._forms)
        self._context, self._deriver = context, Deriver(context)
        self._note = note

    def results(self, items: Iterable[Triaged]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image, and pass other items through. An ImageError yields a Failed."""
        folder, failed = self._context.output / CACHE_FOLDER / _FOLDER, False
        for item in items:
            if not isinstance(item, ImageRef):
                yield item
                continue
            try:
                result, blocks = self._label(item)
            except ImageError as error:
                failed = True
                yield Failed(item, error)
                continue
            yield result
            shutil.rmtree(blocks, ignore_errors=True)  # the image is recorded now
        if not failed:  # blocks of other settings, which no run goes on with
            shutil.rmtree(folder, ignore_errors=True)

    def _label(self, ref: ImageRef) -> tuple[Labelled, Path]:
        """Label an image and write its files under temporary names. Return the folder of its blocks too."""
        with self._open(ref) as picture:
            fingerprint, grid = identify(ref.path)[0], picture.grid
            blocks = self._label_blocks(ref, picture, fingerprint)
        try:
            digest = digest_blocks(blocks.read(self._context), grid.size)
        except OSError as error:
            raise output_error(blocks.folder, error) from error
        facts = MaskFacts(
            image=ref.name,
            question=self._context.question,
            picture=PictureFacts(bytes=fingerprint.size, sha256=fingerprint.sha256 or ""),
            labels=digest,
            size=grid.size,
            grid=grid.facts,
            **blocks.count_facts(math.prod(grid.size)),
        )
        return self._write(ref, grid, blocks, facts, fingerprint), blocks.folder

    @contextmanager
    def _open(self, ref: ImageRef) -> Iterator[Picture]:
        """Open a picture as the run labels it. Raise ImageError if it cannot be read, or is too small."""
        spec, view = self._spec, self._labeller.view
        try:
            with (
                local_file(ref.path) as file,
                self._mask.open_picture(file, spec, len(self._context.classes)) as picture,
            ):
                if not window_side(view.native_size, min(picture.size), view.patch_size):
                    height, width = picture.size
                    raise ImageError(ref.path, f"{height} x {width} pixels are smaller than a patch of the model")
                yield picture
        except OSError as error:
            raise ImageError(ref.path, describe_error(error)) from error

    def _label_blocks(self, ref: ImageRef, picture: Picture, fingerprint: Fingerprint) -> BlockFiles:
        height, width = picture.size
        digest, content = self._info.digest, (fingerprint.size, fingerprint.mtime_ns, fingerprint.sha256)
        identity = [digest, ref.name, *content, BLOCK, self._needs_objects]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        folder = self._context.output / CACHE_FOLDER / _FOLDER / key
        blocks = BlockFiles(folder, picture.size, self._context.classes)
        left = [place for place in blocks.places if not blocks.holds(place)]
        done = len(blocks.places) - len(left)
        self._note(
            f"{ref.name}: labels of {height:,} x {width:,} pixels{picture.about}"
            f", in {pluralize(len(blocks.places), 'block')}" + (f"; {done} are done." if done else ".")
        )
        for remark in picture.remarks:
            self._note(f"{ref.name}: " + remark)
        labeller, ignore = BlockLabeller(self._labeller, picture), ignore_id(len(self._context.classes))
        for place in left:
            valid = picture.valid(place.top, place.left, place.height, place.width)
            if valid.shape != (place.height, place.width):
                blocks.add_hole(place, ignore)
                continue
            labels = labeller.label(place) if valid.any() else self._nothing(place)
            labels.labels[~valid] = ignore
            blocks.add(place, labels, self._scores(labels) if self._needs_objects else ())
        return blocks

    def _nothing(self, place: BlockPlace) -> LabelMap:
        """Return the labels of a block without data, which the model need not see."""
        size = place.height, place.width
        labels = cast(LabelArray, np.zeros(size, label_dtype(len(self._context.classes))))
        return LabelMap(labels, np.zeros(size, np.float32), self._context.classes)

    def _scores(self, labels: LabelMap) -> list[float]:
        """Return the scores of the objects in a block, in the order of `block_objects`."""
        return [each.score for each in find_objects(labels, EVERY_OBJECT)]

    def _write(
        self, ref: ImageRef, grid: Grid, blocks: BlockFiles, facts: MaskFacts, fingerprint: Fingerprint
    ) -> Labelled:
        """Write the files of an image under temporary names. Raise as `Deriver.make` does."""
        context, files, staged = self._context, self._deriver.files, list[StagedFile]()
        parts: dict[str, Any] = {"grid": grid, "blocks": partial(blocks.read, context), "run": context}
        with one_image(ref, staged):
            write = partial(self._mask.write_mask, **parts, facts=facts_text(facts), scores=blocks.scores())
            staged.append(mask := files.stage(self._mask.name, context.mask_path(ref), write))
            entry = new_entry(ref, mask, make_envelope(facts), fingerprint, ())
            made, shows = dict[str, tuple[Path, Content]](), dict[str, str]()
            for form in self._forms:
                path = form.relative_path(ref.relative, context.files)
                if form.name != mask.row.name and path is not None:
                    made[form.name] = context.output / path, partial(form.write, **parts)
                    shows[form.name] = self._deriver.shows(form.name, entry)
            derived = Derived(formats=context.formats, files=stage_files(files, ref, made, shows))
        return Labelled(ref, entry, mask, derived)


class BlockFiles:
    """The finished blocks of an image, one file each. A file appears whole, and a damaged one counts as missing."""

    def __init__(self, folder: Path, size: tuple[int, int], classes: Sequence[LabelClass]) -> None:
        self.folder = folder
        self.places = tuple(block_places(size))
        self._classes = classes

    def holds(self, place: BlockPlace) -> bool:
        """Return True if a block is done."""
        try:
            with zipfile.ZipFile(self._path(place)) as archive:
                return archive.testzip() is None
        except (OSError, zipfile.BadZipFile):
            return False

    def add_hole(self, place: BlockPlace, ignore: int) -> None:
        """Write a block without data, as one pixel. Raise OutputError if that fails."""
        labels = cast(LabelArray, np.full((1, 1), ignore, label_dtype(len(self._classes))))
        self.add(place, LabelMap(labels, np.zeros((1, 1), np.float32), tuple(self._classes)), ())

    def add(self, place: BlockPlace, labels: LabelMap, scores: Sequence[float]) -> None:
        """Write a finished block, with the scores of its objects. Raise OutputError if that fails."""
        number = len(self._classes) + 1
        known = labels.labels < number
        ids = labels.labels[known].astype(np.int64)
        arrays = {
            "labels": labels.labels,
            "counts": np.bincount(ids, minlength=number),
            "sums": np.bincount(ids, labels.confidence[known], minlength=number),
            "scores": np.array(scores, np.float64),
        }
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its last parameter is a flag
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path(place), file.getvalue())

    def read(self, run: RunContext) -> Iterator[LabelBlock]:
        """Yield all blocks. The scores of their objects must be stored if the objects are read."""
        for place in self.places:
            with np.load(self._path(place)) as stored:
                labels, scores = stored["labels"], stored["scores"]
            yield LabelBlock(place=place, labels=labels, objects=block_objects(labels, run.classes, iter(scores)))

    def scores(self) -> NDArray[np.float64]:
        """Return the scores of the objects in all blocks, [K]."""
        found = []
        for place in self.places:
            with np.load(self._path(place)) as stored:
                found.append(stored["scores"])
        return np.concatenate(found)

    def count_facts(self, pixels: int) -> dict[str, Any]:
        """Count the labels of an image with this number of pixels (see `summary.count_facts`)."""
        classes = self._classes
        counts, sums = np.zeros(ignore_id(len(classes)) + 1, np.int64), np.zeros(len(classes) + 1)
        for place in self.places:
            with np.load(self._path(place)) as stored:
                counts[: len(sums)] += stored["counts"]
                sums += stored["sums"]
        counts[-1] = pixels - counts.sum()
        counts, sums = add_to_wholes(counts, classes), add_to_wholes(sums, classes)
        return class_facts(counts, classes, mean_confidences(counts, sums))

    def _path(self, place: BlockPlace) -> Path:
        return self.folder / f"{place.number:06d}.npz"


class BlockLabeller:
    """Label the blocks of a picture, in any order; ascending order is fastest.

    Attributes:
        fade: See `WindowPlan`. Half a patch, so that labels change about as seldom at borders of windows as elsewhere: wider fades
            give worse labels, as fewer pixels are seen in several windows.
    """

    def __init__(self, labeller: Labeller, picture: Picture) -> None:
        """Set up for a picture. `labeller` has windows and one scale."""
        self._labeller = labeller
        self._picture = picture
        size = picture.size
        view = labeller.view
        self.fade = view.patch_size // 2
        self._side = window_side(view.native_size, min(view.native_size, *size), view.patch_size)
        self._tops, self._lefts = (window_starts(length, self._side) for length in size)
        # By row and group of windows that are encoded together (see `Labeller.score_windows`).
        self._known: dict[tuple[int, int], Any] = {}

    def label(self, place: BlockPlace) -> LabelMap:
        """Label a block. Raise DeviceError if the device has too little memory, and ImageError if the picture cannot be read."""
        rows = _covering(self._tops, self._side, place.top, place.height)
        columns = _covering(self._lefts, self._side, place.left, place.width)
        groups = range(columns[0] // _TOGETHER, columns[-1] // _TOGETHER + 1)
        values, norms = [], []
        for row in rows:
            row_values = {}
            for group in groups:
                scored, arriving = self._score(row, group)
                norms += arriving
                for index, cosines in enumerate(scored):
                    row_values[group * _TOGETHER + index] = cosines
            values += [row_values[column] for column in columns]
        top, left = self._tops[rows[0]], self._lefts[columns[0]]
        height = self._tops[rows[-1]] + self._side - top
        width = self._lefts[columns[-1]] + self._side - left
        corners = tuple((self._tops[row] - top, self._lefts[column] - left) for row in rows for column in columns)
        plan = WindowPlan((height, width), self._side, corners, self.fade)
        inner = (place.top - top, place.left - left, place.height, place.width)
        self._forget(place, rows, groups)
        return self._labeller.assign(Cosines(_stack(values), norms, (plan,), (height, width)), inner=inner)

    def _score(self, row: int, group: int) -> Any:
        """Return the cosines of the windows of a group, each [h, w, P], and the lengths of their features."""
        if (row, group) not in self._known:
            lefts = self._lefts[group * _TOGETHER : (group + 1) * _TOGETHER]
            pixels = self._picture.read(self._tops[row], lefts[0], self._side, lefts[-1] + self._side - lefts[0])
            windows = [pixels[:, left - lefts[0] : left - lefts[0] + self._side] for left in lefts]
            self._known[row, group] = self._labeller.score_windows([np.ascontiguousarray(each) for each in windows])
        return self._known[row, group]

    def _forget(self, place: BlockPlace, rows: range, groups: range) -> None:
        """Drop cosines that neither the next block to the right nor the blocks below need."""
        below = {row for row in rows if self._tops[row] + self._side > place.top + place.height}
        last_column = place.left + place.width >= self._picture.size[1]
        for row, group in list(self._known):
            if row in below or row > rows[-1]:
                continue
            if last_column or row < rows[0] or group < groups[-1]:
                del self._known[row, group]


def _covering(starts: tuple[int, ...], side: int, first: int, length: int) -> range:
    """Return the windows along one axis that cover any of `length` pixels from `first`."""
    found = [index for index, start in enumerate(starts) if start < first + length and start + side > first]
    return range(found[0], found[-1] + 1)


def _stack(values: list[Any]) -> list[Any]:
    if isinstance(values[0], np.ndarray):
        return [np.stack(values)]
    import torch

    return [torch.stack(values)]
