"""`tipsseg report`: write a run's page into a self-contained folder that works offline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib import resources
from itertools import chain, islice
from pathlib import Path

import numpy as np

from tipsseg.address import address_text
from tipsseg.commands.audit import ListedDoubt, read_doubts
from tipsseg.commands.evaluate import Evaluation, evaluate_masks
from tipsseg.commands.inputs import check_image_root
from tipsseg.commands.notes import list_counts
from tipsseg.commands.progress import Progress
from tipsseg.commands.rank import ReviewOrder
from tipsseg.commands.report.image import ImageMaker, Place, Record, failed_record, image_key
from tipsseg.commands.report.likeness import nearest, token_vectors
from tipsseg.commands.report.pictures import script
from tipsseg.formats.given import LabelSource
from tipsseg.options import MAX_PIXELS, Palette
from tipsseg.options.run import TruthOptions
from tipsseg.run.lock import LOCK_FILE, FolderLock
from tipsseg.run.read import Run, open_runs, refuse_other_settings, refuse_raster
from tipsseg.run.summary import TotalsSum
from tipsseg.types import LabelClass, ignore_id
from tipsseg.util.files import actual_name, clean_up, clean_up_below, remove_file
from tipsseg.util.text import pluralize
from tipsseg.util.threads import map_in_order
from tipsseg.vocabulary.palette import safe_colour

#: The static files of the page.
PAGE_FILES = ("index.html", "page.css", "page.js", "statistics.js", "viewer.js", "corrections.js")

#: The scores that the page shows, see `Evaluation.record`.
_SCORES = ("mean_iou", "pixel_accuracy", "classes", "confusion")

#: The folder of the scripts with the records of all images.
DATA = "data"

#: The number of similar images to list for an image.
ALIKE = 8

#: The number of images in a chunk of data. The first chunk is small, because the page shows it first.
FIRST_CHUNK = 200
CHUNK = 1000


def make_report(
    output: Path,
    target: Path | None,
    images: Path | None,
    jobs: int,
    progress: Progress,
    max_pixels: int = MAX_PIXELS,
    features: Path | None = None,
    palette: Palette = "own",
    *,
    labels: Path | None = None,
    doubts: Path | None = None,
    truths: Path | None = None,
    truth: TruthOptions | None = None,
) -> int:
    """Write the page of a run, finished or not, and return the number of images that cannot be read or scored.

    Files that show the present labels stay.

    Memory use grows by a few hundred bytes per image, plus the pixels of `jobs` images.

    Args:
        output: The run's output folder.
        target: The folder for the page. If None, `report` in the output folder.
        images: The folder of the images, if they have moved.
        jobs: The number of threads.
        progress: Prints progress and notes.
        max_pixels: Images with more pixels are rejected.
        features: A feature store, to find similar images by their class tokens. None compares their labels.
        palette: "own" for the classes' own colours, "safe" for a colour-blind-safe palette.
        labels: Other labels to switch to on the page, in any format that `tipsseg correct` reads.
        doubts: The findings of `tipsseg audit --jsonl` to list on the page.
        truths: A folder of truth masks. The page shows the scores of the labels, see `evaluate_masks`.
        truth: How to read them.

    Raises:
        UsageError: If `images` is not a folder.
        InputError: If `output` is not an output folder, `features` is not a feature store, or `labels`, `doubts` or `truths` cannot
            be read.
        OutputError: If the folder for the page cannot be written, or contains other files.
    """
    check_image_root(images)
    with ExitStack() as stack:
        runs = stack.enter_context(open_runs(output, ended=False, max_pixels=max_pixels))
        refuse_raster(runs[0].info)
        refuse_other_settings(runs)
        classes = runs[0].classes
        if palette == "safe":
            classes = tuple(replace(entry, colour=safe_colour(entry.id)) for entry in classes)
        found = {} if doubts is None else read_doubts(doubts)
        others = None if labels is None else LabelSource(labels, classes)
        evaluation = None
        if truths is not None:
            evaluation = evaluate_masks(
                output, truths, truth or TruthOptions(), None, progress, jobs=jobs, max_pixels=max_pixels
            )
        folder = output / "report" if target is None else target
        lock = FolderLock(folder)
        stack.callback(lock.give_back)
        if lock.left_over:
            clean_up([folder], keep={LOCK_FILE})
            clean_up_below(path for path in folder.iterdir() if path.is_dir())
        report = _Report(
            runs=runs,
            image_root=images,
            classes=classes,
            place=Place(folder),
            evaluation=evaluation,
            features=features,
            others=others,
            doubts=found,
            progress=progress,
        )
        return report.make(jobs, max_pixels) + (0 if evaluation is None else evaluation.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """A page to write; see `make_report`."""

    runs: Sequence[Run]
    image_root: Path | None
    classes: tuple[LabelClass, ...]
    place: Place
    evaluation: Evaluation | None
    features: Path | None
    others: LabelSource | None
    doubts: Mapping[str, Sequence[ListedDoubt]]
    progress: Progress

    def make(self, jobs: int, max_pixels: int) -> int:
        """Write the page, and return the number of images that cannot be read."""
        began = time.monotonic()
        progress, folder, number = self.progress, self.place.folder, sum(map(len, self.runs))
        progress.begin(f"Drawing {pluralize(number, 'image')} of {self.runs[0].output} into {folder}.", number)
        self._note_others()
        maker = ImageMaker(self.place, self.classes, self.image_root, max_pixels, self.others)
        review, totals, counts = ReviewOrder(), TotalsSum(self.classes), Counter[str]()
        hashes: dict[str, str | None] = {}
        unreadable: dict[str, Record] = {}
        images = (image for run in self.runs for image in run.images())
        try:
            with closing(map_in_order(jobs, maker.make, images)) as results:
                for result in results:
                    entry = result.entry
                    review.add(entry)
                    hashes[entry.image] = entry.input.sha256
                    totals.add(entry.summary)
                    counts["failed" if result.error else "drawn" if result.new else "unchanged"] += 1
                    if result.error is not None:
                        progress.error(result.error)
                    if result.record["state"] == "failed":
                        unreadable[entry.image] = result.record
                    progress.advance()
        except KeyboardInterrupt as interrupt:
            done = pluralize(counts["drawn"] + counts["unchanged"], "image")
            interrupt.add_note(f"{done} done; run the same command to resume")
            raise
        # A stable sort: images without labels come last.
        order = sorted(review.names(), key=unreadable.__contains__)
        self.place.remove_others({image_key(image) for image in order if image not in unreadable})
        failures = self._failures()
        number = len(order) + len(failures)
        chunks = self._write_data(number, chain(self._records(order, unreadable, hashes), failures))
        self._write_page(number, chunks, totals)
        progress.end()
        progress.results([folder / PAGE_FILES[0]])
        others = {name: counts[name] for name in ("unchanged", "failed")}
        progress.note(
            f"{list_counts(counts['drawn'], 'drawn', others)} in {time.monotonic() - began:.1f} s, into {folder}"
        )
        return counts["failed"]

    def _note_others(self) -> None:
        """Compare the images with the other labels and the doubts, and note those of other images only."""
        hint = "They are matched by the names of the images."
        refs = (
            [image.ref(self.image_root) for run in self.runs for image in run.images()]
            if self.others or self.doubts
            else []
        )
        if self.others is not None and not self.others.names.expect(refs):
            self.progress.note(f"No image of the run has other labels. {hint}")
        if self.doubts and not self.doubts.keys() & {ref.name for ref in refs}:
            self.progress.note(f"No image of the run has doubts. {hint}")

    def _similar_images(
        self, features: Path, hashes: Mapping[str, str | None], order: Sequence[str]
    ) -> dict[str, list[int]]:
        """Return the positions in `order` of the images most similar to each image, whose names and sha256 are `hashes`."""
        vectors, images = token_vectors(features, list(hashes.values())), list(hashes)
        if missing := len(vectors) - int(np.count_nonzero(vectors.any(1))):
            self.progress.note(
                f"Did not compare {pluralize(missing, 'image')} with the others: no features in {features}."
            )
        positions = {image: position for position, image in enumerate(order)}
        return {
            image: [positions[images[index]] for index in indices]
            for image, indices in zip(images, nearest(vectors, ALIKE), strict=True)
        }

    def _failures(self) -> list[Record]:
        """Return the records of images that could not be labelled."""
        root = self.image_root
        return [
            failed_record(image, str(path) if root is None else address_text(root / actual_name(image)), reason)
            for run in self.runs
            for image, path, reason in run.failures()
        ]

    def _records(
        self, order: Sequence[str], unreadable: Mapping[str, Record], hashes: Mapping[str, str | None]
    ) -> Iterator[Record]:
        """Yield the records of the images in `order`, with what is known beside their labels."""
        alike = {} if self.features is None else self._similar_images(self.features, hashes, order)
        accuracies = _accuracies(self.evaluation)
        for image in order:
            record = dict(unreadable[image] if image in unreadable else self.place.read(image_key(image))[1])
            if similar := alike.get(image):
                record["alike"] = similar
            if image in self.doubts:
                record["doubts"] = self.doubts[image]
            if image in accuracies:
                record["accuracy"] = accuracies[image]
            yield record

    def _write_data(self, number: int, records: Iterator[Record]) -> list[str]:
        """Write the records in chunks, remove older chunks, and return the names of the chunks."""
        chunks: list[str] = []
        for size in _chunks(number):
            chunks.append(f"{DATA}/images-{len(chunks):05}.js")
            data = script("images", len(chunks) - 1, list(islice(records, size)))
            self.place.write(self.place.folder / chunks[-1], data)
        for path in (self.place.folder / DATA).glob("images-*.js"):
            if f"{DATA}/{path.name}" not in chunks:
                remove_file(path)
        return chunks

    def _write_page(self, images: int, chunks: Sequence[str], totals: TotalsSum) -> None:
        runs, folder = self.runs, self.place.folder
        scores = None if self.evaluation is None else self.evaluation.record()
        facts = {
            "name": str(runs[0].output.absolute()),
            "digest": runs[0].info.digest,
            "ended": all(run.info.ended is not None for run in runs),
            "images": images,
            "chunks": chunks,
            "classes": [
                {"id": entry.id, "name": entry.name, "colour": "#{:02x}{:02x}{:02x}".format(*entry.colour)}
                for entry in self.classes
            ],
            "ignore": ignore_id(len(self.classes)),
            "truth": None if scores is None else {name: scores[name] for name in _SCORES},
            "scored": len(_accuracies(self.evaluation)),
            "doubted": len(self.doubts),
            "summary": [*_facts(runs), *totals.lines()],
        }
        self.place.write(folder / DATA / "run.js", script("run", facts))
        # Write index.html last, because it needs the other files.
        for name in reversed(PAGE_FILES):
            self.place.write(folder / name, page_file(name))


def _accuracies(evaluation: Evaluation | None) -> dict[str, float]:
    """Return the share of correct pixels of each image that has scored pixels."""
    images = () if evaluation is None else evaluation.images
    return {score.image: round(score.right / score.pixels, 4) for score in images if score.pixels}


def _facts(runs: Sequence[Run]) -> Iterator[str]:
    """Yield sentences about a run, or about the first of its shards."""
    info = runs[0].info
    if len(runs) > 1:
        yield f"{len(runs)} shards. The first shard:"
    version = "" if info.noted is None else f"; labelled with tipsseg {info.noted.version}"
    yield f"Model {info.spec.model}, {info.dtype}{f' on {info.device}' if info.device else ''}{version}."
    if info.noted is not None:
        yield f"Command: {info.noted.command}"
    if info.started is not None:
        ended = "not finished" if info.ended is None else f"finished {info.ended:%Y-%m-%d %H:%M}"
        yield f"Started {info.started:%Y-%m-%d %H:%M} (UTC), {ended}."


def page_file(name: str) -> bytes:
    return (resources.files("tipsseg") / "assets" / "report" / name).read_bytes()


def _chunks(images: int) -> Iterator[int]:
    size = FIRST_CHUNK
    while images > 0:
        yield min(size, images)
        images -= size
        size = CHUNK
