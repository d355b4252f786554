"""Label rasters block by block, with the windows of the whole picture, and write their files.

raster ─► for each block: windows ─► cosines ─► labels and polygons ─► a file of the block ─► all blocks ─► the raster's files

Every pixel sees the windows that cover it in the whole picture, so its label is the same as if the picture were labelled at once.
A window is encoded once, except after an interruption: its cosines are kept while a block that it covers is to come. The files of
finished blocks stay in the state folder until the raster is recorded, so that an interrupted run goes on after them.
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
from tipsseg.folder.mask import MaskFacts, PictureFacts, facts_text, make_envelope
from tipsseg.formats import FORMATS
from tipsseg.formats.raster import (
    BLOCK,
    GeoTiff,
    RasterBlock,
    RasterFormat,
    block_objects,
    block_places,
    digest_blocks,
)
from tipsseg.images.access import identify, local_file
from tipsseg.images.raster import Raster, open_raster
from tipsseg.label_map import LabelMap, find_objects
from tipsseg.labelling.labeller import Cosines, Labeller
from tipsseg.labelling.view import window_side, window_starts
from tipsseg.regions.objects import EVERY_OBJECT, add_to_wholes
from tipsseg.run.cache import CACHE_FOLDER
from tipsseg.run.files import Content, StagedFile, one_image
from tipsseg.run.labels import RunContext
from tipsseg.run.results import Derived, Deriver, ImageResult, Labelled, Triaged, new_entry, stage_files
from tipsseg.run.spec import RunInfo
from tipsseg.run.summary import class_facts, mean_confidences
from tipsseg.types import (
    BlockPlace,
    Failed,
    ImageRef,
    LabelArray,
    LabelClass,
    RasterGrid,
    WindowPlan,
    ignore_id,
    label_dtype,
)
from tipsseg.util.files import Fingerprint, atomic_write, describe_error, output_error
from tipsseg.util.text import pluralize

#: Windows of a row that are encoded together, always the same ones: rounding may depend on their number.
_TOGETHER = 8

#: Function that reads a part of the picture: top, left, height, width -> [h, w, 3] uint8.
Read = Callable[[int, int, int, int], NDArray[np.uint8]]


class BlockLabeller:
    """Label the blocks of a picture, in any order; ascending order is fastest.

    Attributes:
        fade: See `WindowPlan`. Half a patch, so that labels change about as seldom at borders of windows as elsewhere: wider fades
            give worse labels, as fewer pixels are seen in several windows.
    """

    def __init__(self, labeller: Labeller, size: tuple[int, int], read: Read) -> None:
        """Set up for a picture of `size` (height, width) that `read` reads. `labeller` has windows and one scale."""
        self._labeller = labeller
        self._read = read
        self._size = size
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
            pixels = self._read(self._tops[row], lefts[0], self._side, lefts[-1] + self._side - lefts[0])
            windows = [pixels[:, left - lefts[0] : left - lefts[0] + self._side] for left in lefts]
            self._known[row, group] = self._labeller.score_windows([np.ascontiguousarray(each) for each in windows])
        return self._known[row, group]

    def _forget(self, place: BlockPlace, rows: range, groups: range) -> None:
        """Drop cosines that neither the next block to the right nor the blocks below need."""
        below = {row for row in rows if self._tops[row] + self._side > place.top + place.height}
        last_column = place.left + place.width >= self._size[1]
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


_FOLDER = "rasters"


class RasterTask:
    """Label rasters one after the other; each uses all cores."""

    def __init__(self, labeller: Labeller, info: RunInfo, context: RunContext, note: Callable[[str], None]) -> None:
        """Set up the task of a run."""
        self._labeller = labeller
        self._info, self._spec = info, info.spec
        self._forms = [form for name in context.formats if isinstance(form := FORMATS[name], RasterFormat)]
        self._needs_polygons = any("objects" in form.needs for form in self._forms)
        self._context, self._deriver = context, Deriver(context)
        self._note = note
        self._ignore = ignore_id(len(context.classes))

    def results(self, items: Iterable[Triaged]) -> Generator[ImageResult, None, None]:
        """Yield the result of each raster, and pass other items through. An ImageError yields a Failed."""
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
            shutil.rmtree(blocks, ignore_errors=True)  # the raster is recorded now
        if not failed:  # blocks of other settings, which no run goes on with
            shutil.rmtree(folder, ignore_errors=True)

    def _label(self, ref: ImageRef) -> tuple[Labelled, Path]:
        """Label a raster and write its files under temporary names. Return the folder of its blocks too."""
        with self._open(ref) as raster:
            fingerprint = identify(ref.path)[0]
            grid = RasterGrid(
                size=raster.size,
                transform=raster.transform,
                crs=raster.crs,
                epsg=raster.epsg,
                ignore=self._ignore,
            )
            blocks = self._label_blocks(ref, raster, grid, fingerprint)
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
            transform=grid.transform,
            epsg=grid.epsg,
            **blocks.count_facts(math.prod(grid.size)),
        )
        return self._write(ref, grid, blocks, facts, fingerprint), blocks.folder

    @contextmanager
    def _open(self, ref: ImageRef) -> Iterator[Raster]:
        """Open a raster as the run labels it. Raise ImageError if it cannot be read, or is too small."""
        options, reader, view = self._spec.raster, self._spec.reader, self._labeller.view
        try:
            with (
                local_file(ref.path) as file,
                open_raster(
                    file, reader, options.bands, self._spec.options.scales[0], options.ground_resolution
                ) as raster,
            ):
                if not window_side(view.native_size, min(raster.size), view.patch_size):
                    height, width = raster.size
                    raise ImageError(ref.path, f"{height} x {width} pixels are smaller than a patch of the model")
                raster.stretch(reader.stretch)
                yield raster
        except OSError as error:
            raise ImageError(ref.path, describe_error(error)) from error

    def _label_blocks(self, ref: ImageRef, raster: Raster, grid: RasterGrid, fingerprint: Fingerprint) -> BlockFiles:
        height, width = raster.size
        digest, content = self._info.digest, (fingerprint.size, fingerprint.mtime_ns, fingerprint.sha256)
        identity = [digest, ref.name, *content, BLOCK, self._needs_polygons]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        folder = self._context.output / CACHE_FOLDER / _FOLDER / key
        blocks = BlockFiles(folder, raster.size, self._context.classes)
        left = [place for place in blocks.places if not blocks.holds(place)]
        done = len(blocks.places) - len(left)
        self._note(
            f"{ref.name}: labels of {height:,} x {width:,} pixels"
            + (f" of {raster.resolution[0]:g} {raster.unit}" if raster.unit else "")
            + f", in {pluralize(len(blocks.places), 'block')}"
            + (f"; {done} are done." if done else ".")
        )
        for warning in raster.warnings:
            self._note(f"{ref.name}: " + warning)
        labeller = BlockLabeller(self._labeller, raster.size, raster.read)
        for place in left:
            if raster.is_hole(place.top, place.left, place.height, place.width):
                blocks.add_hole(place, self._ignore)
                continue
            valid = raster.has_data(place.top, place.left, place.height, place.width)
            labels = labeller.label(place) if valid.any() else self._nothing(place)
            labels.labels[~valid] = self._ignore
            blocks.add(place, labels, self._scores(labels) if self._needs_polygons else ())
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
        self, ref: ImageRef, grid: RasterGrid, blocks: BlockFiles, facts: MaskFacts, fingerprint: Fingerprint
    ) -> Labelled:
        """Write the files of a raster under temporary names. Raise as `Deriver.make` does."""
        context, files, staged = self._context, self._deriver.files, list[StagedFile]()
        parts: dict[str, Any] = {"grid": grid, "blocks": partial(blocks.read, context), "run": context}
        with one_image(ref, staged):
            text = facts_text(facts)
            write = partial(GeoTiff().write, **parts, facts=text, scores=blocks.scores())
            staged.append(mask := files.stage(GeoTiff.name, context.mask_path(ref), write))
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
    """The finished blocks of a raster, one file each. A file appears whole, and a damaged one counts as missing."""

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

    def read(self, run: RunContext) -> Iterator[RasterBlock]:
        """Yield all blocks. The scores of their objects must be stored if the objects are read."""
        for place in self.places:
            with np.load(self._path(place)) as stored:
                labels, scores = stored["labels"], stored["scores"]
            yield RasterBlock(place=place, labels=labels, objects=block_objects(labels, run.classes, iter(scores)))

    def scores(self) -> NDArray[np.float64]:
        """Return the scores of the objects in all blocks, [K]."""
        found = []
        for place in self.places:
            with np.load(self._path(place)) as stored:
                found.append(stored["scores"])
        return np.concatenate(found)

    def count_facts(self, pixels: int) -> dict[str, Any]:
        """Count the labels of a raster with this number of pixels (see `summary.count_facts`)."""
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
