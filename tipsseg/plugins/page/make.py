"""`tipsseg report`: write a run's page into a self-contained folder that works offline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import resources
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.address import address_text
from tipsseg.errors import FeatureFileError, ImageError, InputError, OutputError, Words
from tipsseg.features.file import read_class_tokens
from tipsseg.features.folder import feature_path, read_store
from tipsseg.folder.files import Files
from tipsseg.folder.find import REPORT_FILE, check_image_root
from tipsseg.folder.job import Job
from tipsseg.folder.lock import LOCK_FILE, FolderLock
from tipsseg.folder.notes import list_counts, note_aside
from tipsseg.folder.rank import ReviewOrder
from tipsseg.folder.read import Run, open_run
from tipsseg.folder.summary import TotalsSum
from tipsseg.learning.evaluate import score_labels
from tipsseg.masks.findings import read_doubts
from tipsseg.masks.labels import LabelSource
from tipsseg.options.records import ReadingOptions, TruthOptions
from tipsseg.plugins.page.image import MOVED_HINT, ImageMaker, PageRecord, Place, failed_record, image_key, script
from tipsseg.regions.objects import ancestors
from tipsseg.say import Progress
from tipsseg.types import ImageRef, ignore_id
from tipsseg.util.files import actual_name, clean_up, clean_up_below, remove_file
from tipsseg.util.text import pluralize
from tipsseg.util.threads import map_in_order

#: The static files of the page.
PAGE_FILES = (
    "index.html",
    "page.css",
    "page.js",
    "labels.js",
    "strokes.js",
    "changes.js",
    "statistics.js",
    "viewer.js",
    "tools.js",
)

#: The scores that the page shows (see `Evaluation.record`).
_SCORES = ("mean_iou", "pixel_accuracy", "classes", "confusion")

#: The folder of the scripts with the records of all images.
DATA = "data"

#: The number of similar images to list for an image.
ALIKE = 8

#: Longer vectors are projected to this length by a fixed random matrix, which changes products by about 0.1.
_LENGTH = 128

#: The number of images to compare with all images in one matrix product.
_BATCH = 256

_Vectors = NDArray[np.float32]

#: The number of images in a chunk of data. The first chunk is small, because the page shows it first.
_FIRST_CHUNK = 200
_CHUNK = 1000


def write_page(
    output: Path,
    target: Path | None,
    *,
    images: Path | None,
    features: str | Path | None,
    labels: str | Path | None,
    doubts: str | Path | None,
    truths: str | Path | None,
    truth: TruthOptions,
    reading: ReadingOptions,
    command: str,
    progress: Progress,
) -> int:
    """Write the page of a run (see `report_folder`); `command` writes it again from any folder."""
    check_image_root(images)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(output, ended=False, max_pixels=reading.max_pixels))
        classes = run.classes
        findings = {} if doubts is None else read_doubts(Path(doubts))
        others = None if labels is None else LabelSource(Path(labels), classes)
        evaluation = None
        if truths is not None:
            evaluation = score_labels(output, Path(truths), None, truth, reading, progress)
        folder = output / "report" if target is None else target
        if target is None:
            Files(output).refuse_outside(folder / REPORT_FILE)
        lock = FolderLock(folder)
        stack.callback(lock.give_back)
        if lock.left_over:
            clean_up([folder], keep={LOCK_FILE})
            clean_up_below(path for path in folder.iterdir() if path.is_dir())
        place, began = Place(folder), time.monotonic()
        progress.begin("page.drawing", len(run), images=pluralize(len(run), "image"), output=run.output, folder=folder)
        if others or findings:
            _note_unmatched([image.ref(images) for image in run.images()], others, findings, progress)
        drawn = _draw(run, ImageMaker(place, classes, images, others), reading.jobs, progress)
        place.remove_others({image_key(image) for image in drawn.order if image not in drawn.unreadable})
        alike = {} if features is None else _similar_images(Path(features), drawn, progress)
        scored = () if evaluation is None else evaluation.images
        accuracies = {score.image: round(score.right / score.pixels, 4) for score in scored if score.pixels}
        scores = None if evaluation is None else evaluation.record()
        failures = [
            failed_record(
                each.image,
                str(each.ref.path) if images is None else address_text(images / actual_name(each.image)),
                each.reason,
            )
            for each in run.failed.all()
            if each.image not in run
        ]
        records = _records(place, drawn, {"alike": alike, "doubts": findings, "accuracy": accuracies})
        number = len(drawn.order) + len(failures)
        run_facts = {
            "name": str(run.output.absolute()),
            "digest": run.info.digest,
            "ended": run.info.ended is not None,
            "images": number,
            "chunks": _write_data(place, number, chain(records, failures)),
            "classes": [
                {
                    "id": entry.id,
                    "name": entry.name,
                    "colour": "#{:02x}{:02x}{:02x}".format(*entry.colour),
                    **({"whole": entry.part_of} if entry.part_of else {}),
                }
                for _, entry in sorted(zip(ancestors(classes), classes, strict=True), key=itemgetter(0))
            ],
            "ignore": ignore_id(len(classes)),
            "truth": None if scores is None else {name: scores[name] for name in _SCORES},
            "scored": len(accuracies),
            "doubted": len(findings),
            "command": command,
            "summary": [*_facts(run), *drawn.totals.lines()],
        }
        place.write(folder / DATA / "run.js", script("run", run_facts))
        # Write index.html last, because it needs the other files.
        aside = place.write_pages({name: page_file(name) for name in reversed(PAGE_FILES)})
        progress.end()
        note_aside(aside, progress)
        progress.results([folder / PAGE_FILES[0]])
        counts = {name: drawn.counts[name] for name in ("unchanged", "failed")}
        done = list_counts(drawn.counts["drawn"], "drawn", counts)
        progress.note("page.drawn", counts=done, seconds=f"{time.monotonic() - began:.1f}", folder=folder)
        return drawn.counts["failed"] + (0 if evaluation is None else evaluation.failed)


def _note_unmatched(
    refs: list[ImageRef], others: LabelSource | None, findings: Mapping[str, object], progress: Progress
) -> None:
    """Compare the images with the other labels and the findings, and note labels and findings of other images."""
    if others is not None and not others.names.expect(refs):
        progress.note("page.no_image_labelled")
    if findings and not findings.keys() & {ref.name for ref in refs}:
        progress.note("page.no_image_found")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The images of a page.

    Attributes:
        order: Their names in the order of the page: in the order of review, then images without labels.
        hashes: The sha256 of each image by name.
        unreadable: The records of images whose labels cannot be read.
        totals: The sum of their labels.
        counts: The numbers of images drawn, unchanged and failed.
    """

    order: Sequence[str]
    hashes: Mapping[str, str | None]
    unreadable: Mapping[str, PageRecord]
    totals: TotalsSum
    counts: Counter[str]


def _draw(run: Run, maker: ImageMaker, jobs: int, progress: Progress) -> _Drawn:
    """Draw the images of a run, and note those that cannot be read."""
    review, totals, counts = ReviewOrder(), TotalsSum(maker.classes), Counter[str]()
    hashes, unreadable, moved = dict[str, str | None](), dict[str, PageRecord](), list[ImageError]()
    for result in Job(progress, resumes=True).each(map_in_order(jobs, maker.make, run.images())):
        entry = result.entry
        review.add(entry, result.objects)
        hashes[entry.image] = entry.input.sha256
        totals.add(entry.mask)
        counts["failed" if result.error else "drawn" if result.new else "unchanged"] += 1
        if result.error is not None and result.error.hint == MOVED_HINT:
            moved.append(result.error)
        elif result.error is not None:
            progress.error(result.error)
        if result.record["state"] == "failed":
            unreadable[entry.image] = result.record
    if moved:
        more = f", like {pluralize(len(moved) - 1, 'more image')}" if len(moved) > 1 else ""
        progress.error(ImageError(moved[0].path, moved[0].reason + more, MOVED_HINT))
    order = sorted(review.names(), key=unreadable.__contains__)  # a stable sort
    return _Drawn(order=order, hashes=hashes, unreadable=unreadable, totals=totals, counts=counts)


def _similar_images(features: Path, drawn: _Drawn, progress: Progress) -> dict[str, list[int]]:
    """Return the positions on the page of the images most similar to each image, by the class tokens in a feature store."""
    vectors, images = _token_vectors(features, list(drawn.hashes.values())), list(drawn.hashes)
    if missing := len(vectors) - int(np.count_nonzero(vectors.any(1))):
        progress.note("page.not_compared", images=pluralize(missing, "image"), features=features)
    positions = {image: position for position, image in enumerate(drawn.order)}
    return {
        image: [positions[images[index]] for index in indices]
        for image, indices in zip(images, _nearest(vectors), strict=True)
        if indices
    }


def _token_vectors(features: Path, hashes: Sequence[str | None]) -> _Vectors:
    """Return vectors [n, d] of images by sha256: their class tokens, averaged over windows, then scaled to unit length.

    An image without features has a zero vector. Raise InputError if the folder is not a feature store.
    """
    if read_store(features) is None:
        hint = Words("Compute features with tipsseg encode, or with tipsseg label and {features}.")
        raise InputError(f"{features}: not a feature store", hint)
    vectors, projection = np.zeros((len(hashes), 1), np.float32), None
    for index, sha256 in enumerate(hashes):
        if sha256 is None:
            continue
        with suppress(FeatureFileError):
            tokens = read_class_tokens(feature_path(features, sha256)).astype(np.float32).mean(0)  # [C, D]
            vector = _normalize(_normalize(tokens).reshape(1, -1))  # [1, C * D]
            length = vector.shape[1]
            if length > _LENGTH:
                if projection is None:
                    random = np.random.default_rng(length)
                    projection = random.standard_normal((length, _LENGTH)).astype(np.float32)
                vector = _normalize(vector @ projection)
            if vectors.shape[1] == 1:
                vectors = np.zeros((len(hashes), vector.shape[1]), np.float32)
            vectors[index] = vector
    return vectors


def _normalize(vectors: _Vectors) -> _Vectors:
    """Scale vectors [n, d] to unit length, except zero vectors."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _nearest(vectors: _Vectors) -> Iterator[list[int]]:
    """Yield the indices of the most similar images for each image, nearest first; [] for a zero vector."""
    known: NDArray[np.bool_] = np.asarray(vectors.any(1))
    for start in range(0, len(vectors), _BATCH):
        similarity = vectors[start : start + _BATCH] @ vectors.T  # [b, n] cosines
        similarity[:, ~known] = -np.inf
        similarity[np.arange(len(similarity)), start + np.arange(len(similarity))] = -np.inf
        for image, row in enumerate(similarity.round(5), start):
            best = np.argsort(-row, kind="stable")[:ALIKE].tolist()
            yield [other for other in best if known[image] and np.isfinite(row[other])]


def _records(place: Place, drawn: _Drawn, known: Mapping[str, Mapping[str, object]]) -> Iterator[PageRecord]:
    """Yield the records of the images in their order, each with what is `known` of it beside its labels."""
    for image in drawn.order:
        try:
            record = drawn.unreadable[image] if image in drawn.unreadable else place.read(image_key(image))[1]
        except (OSError, ValueError) as error:
            reason = f"the files of {image} changed while the page was written: {error}"
            raise OutputError(place.folder, reason, "Run the same command again.") from error
        yield {**record, **{name: values[image] for name, values in known.items() if image in values}}


def _write_data(place: Place, number: int, records: Iterator[PageRecord]) -> list[str]:
    """Write the records in chunks, remove older chunks, and return the names of the chunks."""
    chunks: list[str] = []
    for size in _chunks(number):
        chunks.append(f"{DATA}/images-{len(chunks):05}.js")
        place.write(place.folder / chunks[-1], script("images", len(chunks) - 1, list(islice(records, size))))
    for path in (place.folder / DATA).glob("images-*.js"):
        if f"{DATA}/{path.name}" not in chunks:
            remove_file(path)
    return chunks


def _chunks(images: int) -> Iterator[int]:
    size = _FIRST_CHUNK
    while images > 0:
        yield min(size, images)
        images -= size
        size = _CHUNK


def _facts(run: Run) -> Iterator[str]:
    """Yield sentences about a run."""
    info = run.info
    version = "" if info.noted is None else f"; labelled with tipsseg {info.noted.version}"
    yield f"Model {info.spec.model}, {info.dtype}{f' on {info.device}' if info.device else ''}{version}."
    if info.noted is not None:
        yield f"Command: {info.noted.command}"
    if info.started is not None:
        ended = "not finished" if info.ended is None else f"finished {info.ended:%Y-%m-%d %H:%M}"
        yield f"Started {info.started:%Y-%m-%d %H:%M} (UTC), {ended}."


def page_file(name: str) -> bytes:
    return (resources.files("tipsseg.plugins.page") / "assets" / name).read_bytes()
