"""`tipsseg convert --to`: write labels and images as a data set of shards, into an empty folder or behind a URL.

The images are sorted by name and cut into shards by their sizes, as they are read. The card is written last: a place without one
has no whole data set.
"""

from __future__ import annotations

import heapq
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from tipsseg.address import address_text, as_address, has_scheme, is_web, url_of, without_query
from tipsseg.errors import ImageError, InputError, OutputError, TipssegError, UsageError, Words
from tipsseg.folder.cache import key_of
from tipsseg.folder.find import CARD, DATA_FOLDER, check_image_root, is_card
from tipsseg.folder.labels import is_same_picture, scored_objects
from tipsseg.folder.merge import refuse_different
from tipsseg.folder.names import refuse_shared
from tipsseg.folder.notes import readable_size
from tipsseg.folder.read import Run, RunImage, find_only, open_run, unlabelled_error
from tipsseg.folder.results import Deriver
from tipsseg.formats import check_data_set
from tipsseg.formats.base import encode_text, output_name
from tipsseg.formats.coco import annotation_records, encode_masks
from tipsseg.formats.png import encode_mask, encode_picture
from tipsseg.formats.yolo import is_for_validation
from tipsseg.images.access import absence, exists
from tipsseg.images.decoding import ImageReader
from tipsseg.images.finding import as_paths
from tipsseg.images.upright import orientation_of
from tipsseg.options.records import ReadingOptions
from tipsseg.plugins.datasets.shards import DATASETS, Dataset, Sample, card, cut
from tipsseg.say import Progress
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import output_error
from tipsseg.util.json import json_bytes
from tipsseg.util.text import pluralize, quote
from tipsseg.util.threads import map_in_order

TRAIN, VALIDATION = _SPLITS = "train", "validation"

#: The names of shards.
_SHARD = re.compile(rf"{DATA_FOLDER}/({'|'.join(_SPLITS)})-[0-9]{{5,}}\.(parquet|tar)")

#: Formats and modes of pictures that every loader reads as tipsseg does.
_COMMON = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_MODES = frozenset({"L", "RGB", "RGBA", "P"})

#: Images that are looked up, to tell whether all have moved.
_LOOKED_UP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenDataset:
    """The result of `write_dataset`.

    Attributes:
        place: The folder or the URL.
        shards: The names of the shards.
        images: The number of images in them.
        failed: The errors of images that were left out.
    """

    place: Path
    shards: tuple[str, ...]
    images: int
    failed: tuple[ImageError, ...]


def write_shards(
    outputs: Sequence[Path],
    to: str | Path,
    name: str,
    *,
    root: Path | None,
    only: Iterable[str | Path] | None,
    val_fraction: float | None,
    shard_size: int,
    overwrite: bool,
    reading: ReadingOptions,
    progress: Progress,
) -> WrittenDataset:
    """Write a data set in the format `name`. See `verb.write_dataset`; `root` has the images."""
    check_data_set(name, tuple(DATASETS))
    form, place = DATASETS[name], _Place(to)
    form.check()
    check_image_root(root)
    with ExitStack() as stack:
        runs = [stack.enter_context(open_run(folder, max_pixels=reading.max_pixels)) for folder in outputs]
        _refuse_runs(runs)
        names = None
        if only is not None:
            entries = (entry for run in runs for entry in run.cache.entries())
            names, unknown = find_only(entries, as_paths(only), root)
            if unknown:
                raise unlabelled_error(unknown[0], runs[0].output)
        fraction = runs[0].context.files.val_fraction if val_fraction is None else val_fraction
        writer = _Writer(runs, names, root, fraction or 0.0, progress)
        writer.refuse_moved()
        place.clear(overwrite=overwrite)
        return writer.write(form, place, shard_size, reading.jobs)


def _refuse_runs(runs: Sequence[Run]) -> None:
    """Raise InputError if runs cannot be joined in a data set."""
    if not runs:
        raise UsageError("no output folder", "Pass an output folder of tipsseg label.")
    refuse_different([run.info for run in runs])
    if len(runs) > 1:  # images with one key would be one image to a loader
        names = sorted(name for run in runs for name in run.cache.names())
        refuse_shared(runs[0].output, runs[0].context.files.names, ("png",), names)


class _Place:
    """The place of a data set: a folder on this machine, or behind a URL that fsspec writes.

    Attributes:
        address: Its path or URL.
    """

    def __init__(self, to: str | Path) -> None:
        """Raise UsageError or InputError if nothing can be written there."""
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        hint = "Pass a folder, or a URL that fsspec writes, such as s3://bucket/set."
        if not isinstance(to, str | Path) or not str(to) or "\0" in str(to):
            raise UsageError(Words("{to}={place} is not a path", place=quote(to)), hint)
        address = self.address = as_address(to)
        self._is_local = not has_scheme(address) or address.parts[0] in ("file:", "local:")
        if self._is_local:
            self.address = Path("/", *address.parts[1:]) if has_scheme(address) else address
            self._files, self._root = LocalFileSystem(), str(self.address.absolute())
            return
        if is_web(address) or without_query(str(address)) != str(address):
            why = "no data set can be written to a web server or to a URL with a query"
            raise UsageError(Words("{to}={address}: {why}", address=address_text(address), why=why), hint)
        try:
            self._files, self._root = url_to_fs(url_of(address))
        except Exception as error:  # each file system of fsspec raises exceptions of its own
            why = str(error) if isinstance(error, ImportError) else type(error).__name__
            raise UsageError(f"{address_text(address)} cannot be opened ({why})", hint) from error

    def clear(self, *, overwrite: bool) -> None:
        """Remove an earlier data set, if `overwrite` allows it. Raise OutputError for any other file, and touch none then."""
        with self._writing(self.address):
            self._files.invalidate_cache()
            paths = {path.removeprefix(self._root).lstrip("/"): path for path in self._files.find(self._root)}
            if paths and not overwrite:
                hint = Words("Choose another place, or replace the data set there with {overwrite}.")
                raise OutputError(self.address, "it is not empty", hint)
            for name, path in paths.items():
                if not (is_card(self._files.cat_file(path)) if name == CARD else _SHARD.fullmatch(name)):
                    why = "it is not a file of a data set of tipsseg"
                    raise OutputError(self.address / name, why, "Move it away, or choose another place.")
            for name in sorted(paths, key=lambda name: name != CARD):
                self._files.rm_file(paths[name])

    @contextmanager
    def create(self, name: str) -> Iterator[Any]:
        """Open a new file to write. Raise OutputError if that fails."""
        path = f"{self._root}/{name}"
        with self._writing(self.address / name):
            with suppress(NotImplementedError, FileExistsError):  # a bucket has no folders
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as file:
                yield file

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise output_error(path, error) from error
        except Exception as error:  # each file system of fsspec raises exceptions of its own
            if self._is_local or isinstance(error, TipssegError):
                raise
            raise OutputError(path, f"cannot be reached ({type(error).__name__})") from error


class _Writer:
    """Writes the images of runs as samples."""

    def __init__(
        self, runs: Sequence[Run], names: set[str] | None, images: Path | None, fraction: float, progress: Progress
    ) -> None:
        self._runs, self._names, self._root, self._fraction, self._progress = runs, names, images, fraction, progress
        self._derivers = {id(run): Deriver(run.context) for run in runs}
        self._failed, self._images, self._encoded, self._state = list[ImageError](), 0, 0, sha256()

    def refuse_moved(self) -> None:
        """Raise InputError if there are no images, or none of the first ones is at its place."""
        images = (image for split in _SPLITS for image in islice(self._images_of(split), _LOOKED_UP))
        if not any(exists(image.path(self._root)) for image in images):
            why = f"{self._runs[0].output}: no labelled images, or none of the first ones is at its place"
            raise InputError(why, Words("Set the folder of the images with {images}."))

    def write(self, form: Dataset, place: _Place, shard_size: int, jobs: int) -> WrittenDataset:
        run, progress, text = self._runs[0], self._progress, address_text(place.address)
        began, shards, size = time.monotonic(), dict[str, list[str]](), 0
        total = sum(map(len, self._runs)) if self._names is None else len(self._names)
        progress.begin("datasets.writing_dataset", total, images=pluralize(total, "image"), form=form.name, place=text)
        for split in _SPLITS:
            for samples in cut(self._samples(split, jobs), shard_size):
                names = shards.setdefault(split, [])
                names.append(f"{DATA_FOLDER}/{split}-{len(names):05d}{form.suffix}")
                with place.create(names[-1]) as file:
                    form.write(file, samples, run.classes)
                    size += file.tell()
                progress.results([place.address / names[-1]])
        if shards:  # no loader takes a card without shards
            title = place.address.name or place.address.resolve().name
            data = card(form, title, shards, self._state.hexdigest()[:8], run.context.info, run.classes)
            with place.create(CARD) as file:
                file.write(encode_text(data))
        progress.end()
        if self._encoded:
            why = "not JPEG, PNG or WebP, or with an EXIF orientation or 16 bits, which loaders treat in different ways"
            progress.note("datasets.pictures_encoded", pictures=pluralize(self._encoded, "picture"), why=why)
        written = tuple(name for names in shards.values() for name in names)
        failed = f"; {pluralize(len(self._failed), 'image')} failed." if self._failed else "."
        progress.note(
            "datasets.dataset",
            images=pluralize(self._images, "image"),
            shards=pluralize(len(written), "shard"),
            size=readable_size(size),
            place=text,
            seconds=f"{time.monotonic() - began:.1f}",
            failed=failed,
        )
        return WrittenDataset(place=place.address, shards=written, images=self._images, failed=tuple(self._failed))

    def _images_of(self, split: str) -> Iterator[RunImage]:
        """Yield the images of a split, sorted by name."""
        for image in heapq.merge(*(run.images() for run in self._runs), key=lambda image: key_of(image.entry.image)):
            name = image.entry.image
            validates = is_for_validation(name, self._fraction)
            if validates == (split == VALIDATION) and (self._names is None or name in self._names):
                yield image

    def _samples(self, split: str, jobs: int) -> Iterator[Sample]:
        """Yield the samples of a split, and note the images that fail."""
        for sample in map_in_order(jobs, self._read, self._images_of(split)):
            if isinstance(sample, ImageError):
                self._failed.append(sample)
                self._progress.error(sample)
            else:
                self._images += 1
                self._encoded += sample.encoded
                for part in (sample.picture, sample.mask, json_bytes(sample.facts)):
                    self._state.update(part)
                yield sample
            self._progress.advance()

    def _read(self, image: RunImage) -> Sample | ImageError:
        """Read an image with its labels. Thread-safe."""
        ref, run, hint = (
            image.ref(self._root),
            image.run,
            Words("Set the folder of the images with {images}, or label it again."),
        )
        try:
            if not exists(ref.path):
                raise ImageError(ref.path, absence(ref.path), hint)
            if not is_same_picture(image.entry, ref.path, run.reader):
                raise ImageError(ref.path, "changed since it was labelled", hint)
            entry, labels, size = image.entry, image.labels(), image.entry.mask.size
            every = scored_objects(labels, run.classes, image.objects(labels), None, None)
            objects = self._derivers[id(run)].objects(entry, labels, every)
            records = annotation_records(objects, encode_masks(objects, size), run.classes)
            picture, suffix, encoded = _picture(ref, size, run.reader)
        except ImageError as error:
            return error
        names = [run.classes[each - 1].name for each in entry.mask.names]
        facts = {
            "file_name": printable_path(ref.relative), "height": size[0], "width": size[1], "names": names,
            "corrected": entry.corrected, "objects": records,
        }  # fmt: skip
        key, mask = output_name(ref.relative, run.context.files.names), encode_mask(labels.labels, run.classes)
        return Sample(key=printable_path(key), suffix=suffix, picture=picture, encoded=encoded, mask=mask, facts=facts)


def _picture(ref: ImageRef, size: tuple[int, int], reader: ImageReader) -> tuple[bytes, str, bool]:
    """Return the bytes of an image, their suffix, and True if they are a new PNG: of its upright pixels, as the model saw them."""
    with reader.header(ref.path) as image:
        picture = image.picture
        is_common = picture.format in _COMMON and picture.mode in _MODES and not (image.deep or image.pages)
        if is_common and orientation_of(picture) == 1 and reader.stretch is None:
            image.source.seek(0)
            return image.source.read(), _COMMON[str(picture.format)], False
    return encode_picture(Image.fromarray(reader.pixels(ref.path, size))), ".png", True
