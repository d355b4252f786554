"""`tipsseg convert --to`: write labels and images as a data set of shards, into another folder or behind a URL.

The images are sorted by name and cut into shards by the sizes of their files. A shard is written if it is missing, or if its images
or labels have changed; so the same command goes on after an interruption. tipsseg.json lists the shards with their digests, and
before they are put in place. A file with another digest is not touched.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Unpack

from tipsseg._version import __version__
from tipsseg.address import address_text, as_address, has_scheme
from tipsseg.commands.merge import refuse_different, refuse_missing
from tipsseg.datasets.destination import Destination, open_destination
from tipsseg.datasets.samples import TRAIN, VALIDATION, Samples
from tipsseg.engine.notes import readable_size
from tipsseg.errors import ImageError, InputError, OutputError, UsageError
from tipsseg.formats.base import encode_text
from tipsseg.formats.dataset import CARD, DATA_FOLDER, DATASETS, INDEX, STATE, Dataset, Sample, card
from tipsseg.images.finding import Paths, as_paths
from tipsseg.options import FileOptions
from tipsseg.options.fields import take_options
from tipsseg.options.keywords import DatasetKeywords, with_keywords
from tipsseg.options.run import DatasetOptions, ReadingOptions
from tipsseg.run.file_names import refuse_shared
from tipsseg.run.inputs import check_image_root
from tipsseg.run.read import Run, RunImage, find_only, open_runs, refuse_raster, unlabelled_error
from tipsseg.util.files import stamp
from tipsseg.util.json import json_bytes, parse, read_value, take
from tipsseg.util.progress import Progress, Verbosity, progress_for
from tipsseg.util.text import join_first, pluralize, quote
from tipsseg.util.threads import map_in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetShard:
    """A shard of a data set.

    Attributes:
        key: A digest of its images, their labels and the options.
        names: A digest of the names of its images, also of those that failed.
        images: The number of its images.
        size: Its size in bytes.
        sha256: Its digest.
        left_out: The names of images that failed.
    """

    key: str = ""
    names: str = ""
    images: int = 0
    size: int = 0
    sha256: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenDataset:
    """The result of `write_dataset`.

    Attributes:
        place: The folder or the URL.
        shards: The shards by name; `key` is for tipsseg alone.
        images: The number of images in them.
        written: The number of shards that this call wrote.
        failed: The errors of images that were left out.
    """

    place: Path
    shards: dict[str, DatasetShard]
    images: int = 0
    written: int = 0
    failed: tuple[ImageError, ...] = ()


@dataclass(slots=True)
class _Index:
    """The content of tipsseg.json.

    Attributes:
        format: The name of the format.
        model: The id of the model.
        classes: The names of the classes, in the order of their ids.
        shard_size: The size in bytes above which a new shard starts.
        cards: The digests of the card in place and of the one that replaces it.
        writer: A token of the last command that wrote here.
        shards: The shards in place, by name.
        coming: The shards that are put in place next, by name.
    """

    format: str
    model: str = ""
    classes: tuple[str, ...] = ()
    shard_size: int = 500_000_000
    cards: tuple[str, ...] = ()
    writer: str = ""
    shards: dict[str, DatasetShard] = field(default_factory=dict)
    coming: dict[str, DatasetShard] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the content."""
        return json_bytes({"tool": "tipsseg", "version": __version__, **asdict(self)}, indent=2) + b"\n"


#: Shards wait under temporary names until they have this many times the bytes of tipsseg.json, which lists them.
_BATCH = 10


@with_keywords(DatasetKeywords, DatasetOptions, ReadingOptions)
def write_dataset(
    output: Paths,
    to: str | Path,
    *,
    format: str = "parquet",  # noqa: A002  the word of the command
    images: str | Path | None = None,
    only: Iterable[str | Path] | None = None,
    val_fraction: float | None = None,
    verbose: Verbosity = None,
    **keywords: Unpack[DatasetKeywords],
) -> WrittenDataset:
    """Write the labels and images of a folder as a data set of shards, as `tipsseg convert --to` does.

        tipsseg.write_dataset("labels", "set")
        data = datasets.load_dataset("set")

    Shards that are complete and up to date are kept. Other files at `to` are not changed.

    Args:
        output: The output folder of `label_folder`, with a run or with shards of one, or several folders of one run.
        to: A folder, or a URL that fsspec writes, such as "s3://bucket/set".
        format: "parquet" or "webdataset".
        images: The image folder, if it has moved.
        only: The paths of the images to write. None writes all.
        val_fraction: The fraction of images for the validation split. None: as in the folder, or 0.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The shards, and the images that failed.

    Raises:
        UsageError: An argument is invalid, or a package is missing.
        InputError: The folders have no finished run, or runs of different settings.
        OutputError: The data set cannot be written.
    """
    options, reading = take_options(DatasetOptions, keywords), take_options(ReadingOptions, keywords)
    listed = None if only is None else as_paths(only)
    root = None if images is None else as_address(images)
    files = FileOptions(val_fraction=val_fraction)
    form = _check(format, options)
    check_image_root(root)
    place, outputs = open_destination(to), as_paths(output)
    for folder in outputs:
        if not has_scheme(place.address) and place.address.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"argument `to`={to} is in the output folder {folder}", "Choose a place outside of it.")
    with ExitStack() as stack:
        progress = stack.enter_context(progress_for(verbose))
        opened = [stack.enter_context(open_runs(folder, max_pixels=reading.max_pixels)) for folder in outputs]
        runs = [run for some in opened for run in some]
        _refuse_runs(runs, format)
        names = _select(runs, listed, root, progress)
        source = Samples(runs, names, form, options, root, files.val_fraction)
        stack.enter_context(place.locked())
        return _Writer(source, place, reading.jobs, progress).write()


def _check(name: str, options: DatasetOptions) -> Dataset:
    if not isinstance(name, str) or name not in DATASETS:
        raise UsageError(
            f"{quote(name)} is not a data set with images",
            f"Use one of {', '.join(DATASETS)}. Or remove argument `to`, to write other formats into the output folder.",
        )
    form = DATASETS[name]
    form.check()
    if options.link_images and not form.stores_paths:
        raise UsageError(f"argument `link_images`: {name} stores the images themselves", "Remove it, or use parquet.")
    return form


def _refuse_runs(runs: Sequence[Run], name: str) -> None:
    """Raise InputError if runs cannot be joined in a data set."""
    if not runs:
        raise UsageError("no output folder", "Pass an output folder of tipsseg label.")
    refuse_missing(runs)
    refuse_different([run.info for run in runs])
    refuse_raster(runs[0].info)
    if len(runs) > 1:  # images with one key would be one image to a loader
        names = {name for run in runs for name in run.state.names()}
        refuse_shared(runs[0].output, runs[0].context.files.names, ("png",), sorted(names))


def _select(
    runs: Sequence[Run], only: Iterable[Path] | None, images: Path | None, progress: Progress
) -> set[str] | None:
    """Return the names of the images at the paths `only`; None for all. Unknown paths are errors."""
    if only is None:
        return None
    names, unknown = find_only((entry for run in runs for entry in run.state.entries()), only, images)
    for path in unknown:
        progress.error(unlabelled_error(path, runs[0].output))
    if unknown:
        raise InputError(
            f"{pluralize(len(unknown), 'path')} in argument `only` not found", "Remove them from the list."
        )
    return names


@dataclass(frozen=True, slots=True)
class _Planned:
    """A shard to be: its split, the number of its images, and their `key` and `names` (see `DatasetShard`)."""

    split: str
    count: int
    key: str
    names: str


def plan_shards(source: Samples, shard_size: int) -> dict[str, _Planned]:
    """Cut the images of each split into shards of about `shard_size` bytes."""
    plan = dict[str, _Planned]()
    for split in source.splits:
        images, size, number = list[tuple[str, bytes]](), 0, 0
        for image in chain(source.images(split), [None]):
            more = 0 if image is None else source.size_of(image)
            if images and (image is None or size + more > shard_size):
                name = f"{DATA_FOLDER}/{split}-{number:05d}{source.form.suffix}"
                names, versions = zip(*images, strict=True)
                key = digest_parts([source.settings, *versions])
                plan[name] = _Planned(split, len(images), key, digest_parts([each.encode() for each in names]))
                images, size, number = [], 0, number + 1
            if image is not None:
                images.append((image.entry.image, source.version_of(image)))
                size += more
    return plan


def shard_name(form: Dataset) -> re.Pattern[str]:
    """Return the pattern of the names of shards."""
    return re.compile(rf"{DATA_FOLDER}/({TRAIN}|{VALIDATION})-[0-9]{{5,}}{re.escape(form.suffix)}")


def digest_parts(parts: Iterable[bytes]) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part + b"\n")
    return digest.hexdigest()[:32]


class _Writer:
    """Write the shards of a source that are missing or out of date."""

    def __init__(self, source: Samples, place: Destination, jobs: int, progress: Progress) -> None:
        self._source, self._place, self._jobs, self._progress = source, place, jobs, progress
        self._failed, self._encoded, self._written = list[ImageError](), 0, 0
        self._stored, self._token = place.read(INDEX), secrets.token_hex(8)
        self._index = _read_index(self._stored, place, source.form)
        self._staged, self._staging = dict[str, Path](), ExitStack()  # the files of the shards that come next

    def write(self) -> WrittenDataset:
        source, place, index, progress = self._source, self._place, self._index, self._progress
        began = time.monotonic()
        index.shard_size = source.options.shard_size or index.shard_size
        plan = plan_shards(source, index.shard_size)
        if not plan:
            raise InputError(f"{source.runs[0].output}: no labelled images", "Label images first.")
        # What a killed command announced is ours if it was put in place.
        index.shards |= {name: shard for name, shard in index.coming.items() if place.digest(name) == shard.sha256}
        index.coming = {}
        self._refuse_other_labels()
        source.refuse_moved()
        found = filter(shard_name(source.form).fullmatch, place.names(DATA_FOLDER))
        if stray := {*found} - index.shards.keys():
            raise _foreign(place.address / min(stray))
        before = sum(shard.images for shard in index.shards.values())
        index.model, index.classes = str(source.facts["model"]), tuple(entry.name for entry in source.classes)
        total = sum(planned.count for planned in plan.values())
        progress.begin(
            f"Writing {pluralize(total, 'image')} as {source.form.name} into {address_text(place.address)}.", total
        )
        try:
            with self._staging:
                for split in source.splits:
                    images = source.images(split)
                    for name, planned in plan.items():
                        if planned.split == split:
                            self._update(name, planned, islice(images, planned.count))
                self._put()
        except KeyboardInterrupt as interrupt:
            interrupt.add_note("run the same command to resume; whole shards are kept")
            raise
        for name in sorted(index.shards.keys() - plan.keys()):
            self._remove(name)
        self._write_card()
        self._refuse_other_writer()
        progress.end()
        stored = sum(shard.images for shard in index.shards.values())
        size = sum(shard.size for shard in index.shards.values())
        if self._encoded:
            progress.note(
                f"Wrote {pluralize(self._encoded, 'picture')} as PNG: not JPEG, PNG or WebP, or with an EXIF orientation or 16 "
                "bits, which loaders treat in different ways."
            )
        if len(source.splits) > 1 and not any(planned.split == VALIDATION for planned in plan.values()):
            progress.note(
                f"No image is left for validation: argument `val_fraction`={source.fraction:g} requires more images."
            )
        if stored < before:
            progress.note(f"The data set had {pluralize(before, 'image')} before, and has {stored} now.")
        shards, written = pluralize(len(index.shards), "shard"), pluralize(self._written, "shard")
        progress.note(
            f"{pluralize(stored, 'image')} in {shards} ({readable_size(size)}), in {address_text(place.address)}; "
            f"{written} written in {time.monotonic() - began:.1f} s"
            + (f"; {pluralize(len(self._failed), 'image')} failed." if self._failed else ".")
        )
        return WrittenDataset(
            place=place.address, shards=index.shards, images=stored, written=self._written, failed=tuple(self._failed)
        )

    def _update(self, name: str, planned: _Planned, images: Iterator[RunImage]) -> None:
        """Stage a shard, unless it is complete and up to date."""
        place, before = self._place, self._index.shards.get(name, DatasetShard())
        in_place = place.size(name) == before.size
        if before.key == planned.key and not before.left_out and in_place:
            for _ in images:
                self._progress.advance()
            return
        left_out = list[str]()
        samples = self._samples(images, planned, left_out)
        path = self._staging.enter_context(place.staging(name))
        if (first := next(samples, None)) is not None:
            self._source.form.write(path, chain([first], samples), self._source.classes)
        number = planned.count - len(left_out)
        # Of the same images, an earlier version that has more of them is better.
        if in_place and before.names == planned.names and number < before.images:
            self._progress.note(f"Kept the earlier {address_text(place.address / name)}, which has more images.")
        elif not number:
            self._remove(name)
        else:
            written = stamp(path)
            self._staged[name] = path
            self._index.coming[name] = DatasetShard(
                key=planned.key,
                names=planned.names,
                images=number,
                size=written.size,
                sha256=written.sha256 or "",
                left_out=tuple(left_out),
            )
            if sum(shard.size for shard in self._index.coming.values()) >= _BATCH * len(self._stored or b""):
                self._put()

    def _put(self) -> None:
        """Announce the staged shards in tipsseg.json, and put them in place."""
        place, index = self._place, self._index
        self._save()
        for name, path in self._staged.items():
            self._refuse_foreign(name)
            place.put(path, name)
            index.shards[name] = index.coming[name]
            self._written += 1
            self._progress.results([place.address / name])
        self._staged, index.coming = {}, {}
        self._staging.close()

    def _remove(self, name: str) -> None:
        """Remove a shard that has no images now."""
        self._refuse_foreign(name)
        self._place.remove(name)
        self._index.shards.pop(name, None)

    def _refuse_foreign(self, name: str) -> None:
        """Raise OutputError if the file at the place of a shard has neither the digest recorded for it nor the announced one."""
        shards = (self._index.shards.get(name), self._index.coming.get(name))
        if self._place.digest(name) not in (None, *(shard.sha256 for shard in shards if shard is not None)):
            raise _foreign(self._place.address / name)

    def _save(self) -> None:
        """Write tipsseg.json if its content has changed."""
        self._index.shards = dict(sorted(self._index.shards.items()))
        if self._index.encode() != self._stored:
            self._refuse_other_writer()
            self._index.writer = self._token
            self._stored = self._index.encode()
            self._place.write(INDEX, self._stored)

    def _refuse_other_labels(self) -> None:
        """Raise OutputError if the place has a data set of another model, or of classes with other ids."""
        index, names = self._index, tuple(entry.name for entry in self._source.classes)
        if index.shards and (
            index.classes != names[: len(index.classes)] or index.model != self._source.facts["model"]
        ):
            raise OutputError(
                self._place.address,
                f"it has a data set with the classes {join_first(index.classes, 5)} of the model {index.model}",
                "Choose another place, or remove that data set.",
            )

    def _refuse_other_writer(self) -> None:
        """Raise OutputError if another command has written tipsseg.json meanwhile."""
        if self._place.read(INDEX) != self._stored:
            raise OutputError(self._place.address, "another command writes there too", "Run them one after the other.")

    def _samples(self, images: Iterator[RunImage], planned: _Planned, left_out: list[str]) -> Iterator[Sample]:
        """Yield the samples of a shard, and note the images that fail. Raise InputError if another process changed the run."""
        versions = [self._source.settings]

        def read(image: RunImage) -> tuple[RunImage, Sample | ImageError]:
            return image, self._source.sample(image)

        for image, sample in map_in_order(self._jobs, read, images):
            versions.append(self._source.version_of(image))
            if isinstance(sample, ImageError):
                self._failed.append(sample)
                left_out.append(image.entry.image)
                self._progress.error(sample)
            else:
                self._encoded += sample.encoded
                yield sample
            self._progress.advance()
        if digest_parts(versions) != planned.key:
            raise InputError(
                f"{self._source.runs[0].output}: its labels changed meanwhile", "Run the same command again."
            )

    def _write_card(self) -> None:
        """Write tipsseg.json and the card. If a person wrote or changed that, change nothing but the digest of the shards in it."""
        source, place, index = self._source, self._place, self._index
        title = place.address.name or place.address.resolve().name
        splits = [
            split for split in source.splits if any(name.startswith(f"{DATA_FOLDER}/{split}-") for name in index.shards)
        ]
        state = digest_parts(sorted(shard.sha256.encode() for shard in index.shards.values()))[:8]
        data = encode_text(card(source.form, title, splits, state, source.facts, source.classes))
        found = place.read(CARD)
        if found is not None and _digest_of_card(found) not in index.cards:
            data = STATE.sub(rb"\g<1>" + state.encode(), found)
            self._progress.note(f"Kept {CARD}, which tipsseg did not write, or a person changed.")
        else:
            index.cards = tuple(sorted({_digest_of_card(each) for each in (found, data) if each is not None}))
        self._save()  # before the card, whose digest it has
        if data != found:
            if place.read(CARD) != found:
                raise OutputError(place.address / CARD, "it was changed meanwhile", "Run the same command again.")
            place.write(CARD, data)


def _foreign(path: Path) -> OutputError:
    reason = "it was changed, or tipsseg did not write it, but loaders would read it"
    return OutputError(path, reason, "Move it away and run the same command again, or choose another place.")


def _digest_of_card(data: bytes) -> str:
    return sha256(STATE.sub(rb"\g<1>", data)).hexdigest()


def _read_index(data: bytes | None, place: Destination, form: Dataset) -> _Index:
    """Return the index; an empty one if there is none. Raise OutputError for another format, or a damaged file."""
    if data is None:
        return _Index(form.name)
    try:
        record = parse(data)
        if take(record, "tool", str) != "tipsseg":
            raise ValueError("tipsseg did not write it")
        index: _Index = read_value(_Index, record, "")
        index.shards, index.coming = (
            {name: read_value(DatasetShard, value, "shards") for name, value in shards.items()}
            for shards in (index.shards, index.coming)
        )
        if index.format == form.name and not all(map(shard_name(form).fullmatch, [*index.shards, *index.coming])):
            raise ValueError("a shard has another name")
    except ValueError as error:
        raise OutputError(place.address / INDEX, f"not a list of shards: {error}", "Choose another place.") from error
    if index.format != form.name:
        raise OutputError(place.address, f"it has a data set in the format {index.format}", "Choose another place.")
    return index
