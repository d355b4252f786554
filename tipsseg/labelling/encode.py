"""A `tipsseg encode` run: images ─► those that the store lacks ─► the model ─► feature files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tipsseg.backbones.registry import read_sizes
from tipsseg.errors import ImageError
from tipsseg.features.file import FeatureHeader, feature_bytes
from tipsseg.features.folder import FeatureFiles, feature_path, read_store
from tipsseg.folder.entry import Failure, Failures
from tipsseg.folder.find import Choice, find_images
from tipsseg.folder.job import Job
from tipsseg.folder.lock import LOCK_FILE, FolderLock
from tipsseg.folder.notes import Remarks, list_counts, note_end, readable_size
from tipsseg.folder.outcome import FolderImage, Status
from tipsseg.folder.plan import plan_run
from tipsseg.folder.results import Encoded
from tipsseg.folder.spec import Counts, RunSpec
from tipsseg.images.access import identify
from tipsseg.labelling.local import load_for
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.labelling.stages import run_stages
from tipsseg.labelling.view import short_sides, view_of
from tipsseg.options import FEATURE_DTYPES, ONE_SCALE, choose
from tipsseg.options.fields import text_of
from tipsseg.say import Progress
from tipsseg.types import Failed
from tipsseg.util.files import clean_up, is_folder
from tipsseg.util.json import json_bytes
from tipsseg.util.text import pluralize
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

EncodeResult = Encoded | Failed


def encode_spec(values: Mapping[str, Any]) -> RunSpec:
    """Return the settings of an encoding run: without classes and formats, with the feature store as output folder."""
    return RunSpec.of(values, features=values["output"], vocabulary=Vocabulary((), (), ()), formats=())


def encode_images(spec: RunSpec, choice: Choice, progress: Progress) -> Iterator[FolderImage]:
    """Encode the images that the store lacks. Yield every image once its features are stored.

    Any number of runs may add features to a store, but only one at a time owns its records.

    Args:
        spec: The settings, from `encode_spec`.
        choice: The images.
        progress: Prints results and notes.

    Raises:
        TipssegError: The run cannot continue.
    """
    info = plan_run(spec)
    spec = info.spec
    images, remarks, made = find_images(spec, choice, progress), Remarks(), 0
    refs = iter(images.refs)
    first = list(islice(refs, 1))  # an empty list raises before the store is created
    loaded = load_for(info, progress.say, quiet=progress.quiet)
    assert loaded.store is not None
    files = [loaded.store.at(side) for side in loaded.view.short_sides]
    source: FeatureSource[FeatureHeader] = FeatureSource(
        loaded.model.backbone, loaded.view, loaded.store, FeatureFiles.find_header, spec.reader
    )
    what = "Images" if images.number is None else pluralize(images.number, "image")
    place = f"{info.model['id']} on {loaded.info.place}"
    progress.begin("encoding", images.number, what=what, place=place, feature_dtype=spec.feature_dtype)
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(progress)
        lock = FolderLock(spec.output, spec.shard)
        stack.callback(lock.give_back)
        if lock.left_over:
            clean_up([spec.output], keep={LOCK_FILE})
        failures = Failures(spec.output, spec.shard)
        stages = run_stages(chain(first, refs), source, lambda _: None, partial(_encoded, source, files), spec.jobs)
        job = Job(progress, resumes=True)
        for result in job.outcomes(stages):
            if isinstance(result, Failed):
                failures.add(Failure.of(result.ref, progress.printed(result.error)))
            else:
                made += result.made
                failures.mend(result.ref.name)
                remarks.add(result.ref, result.remarks)
                if result.damaged:
                    progress.note("encoded_again", what=result.damaged)
            if progress.jsonl:
                progress.text(json_bytes(result_record(result)).decode() + "\n")
            elif isinstance(result, Encoded):
                progress.results(result.files)
            yield _outcome(result, spec)
        if spec.shard is None:
            failures.join()
        failures.forget_old()
        failures.write()
    remarks.end(progress)
    counts = Counts(labelled=made, unchanged=job.done - made, failed=job.failed)
    note_end(progress, counts, time.monotonic() - began, f", into {spec.output}", "encoded")


def _outcome(result: EncodeResult, spec: RunSpec) -> FolderImage:
    if isinstance(result, Failed):
        return FolderImage(path=result.ref.path, name=result.ref.name, status="failed", error=result.error)
    files = {f"{scale:g}": file for scale, file in zip(spec.options.scales, result.files, strict=False)}
    status: Status = "encoded" if result.made else "unchanged"
    return FolderImage(path=result.ref.path, name=result.ref.name, status=status, files=files)


def _encoded(
    source: FeatureSource[FeatureHeader], files: Sequence[FeatureFiles], loaded: Loaded[FeatureHeader], _: None
) -> Encoded:
    """Return the stored files of an image. Thread-safe."""
    made = loaded.missing is not None
    headers = source.find_stored(loaded.sha256)[0] if made else loaded.stored
    file, *finer = [each.path(loaded.sha256) for each in files]
    return Encoded(
        ref=loaded.ref,
        file=file,
        size=headers[0].size,
        windows=sum(header.patches[0] for header in headers),
        bytes=sum(header.bytes for header in headers),
        made=made,
        damaged=loaded.damaged,
        finer=tuple(finer),
        remarks=loaded.picture.remarks if made else (),
    )


def result_record(result: EncodeResult) -> dict[str, object]:
    """Return the JSON record of a result.

    It has `path` and `image` as in the lines of `tipsseg label`; `status`: "encoded", "unchanged" or "failed"; `file`: the feature
    file, or None if the image failed. Then `reason` of a failure, or `height`, `width` (pixels), `windows` and `bytes`, and with
    several scales `finer`, the files of the larger scales.
    """
    record: dict[str, object] = {"path": result.ref.address, "image": result.ref.name}
    if isinstance(result, Failed):
        return {**record, "status": "failed", "file": None, "reason": result.error.reason}
    return {
        **record,
        "status": "encoded" if result.made else "unchanged",
        "file": os.fspath(result.file),
        "height": result.size[0],
        "width": result.size[1],
        "windows": result.windows,
        "bytes": result.bytes,
        **({"finer": [os.fspath(file) for file in result.finer]} if result.finer else {}),
    }


def estimate_store(spec: RunSpec, choice: Choice, progress: Progress) -> Iterator[FolderImage]:
    """Yield the images to encode, print their paths, and note the size of their features. Write nothing.

    Args:
        spec: The settings, from `encode_spec`.
        choice: The images.
        progress: Prints the paths and notes.
    """
    spec = plan_run(spec).spec
    images, store = find_images(spec, choice, progress), read_store(spec.output)
    dtype = choose(spec.feature_dtype, FEATURE_DTYPES, "feature dtype")
    source = find_model(spec.model)
    model = view = None
    if source.is_here:
        model = read_sizes(source.fetch(quiet=True, keep_stamps=spec.use_cache))
        view = view_of(model, spec.options)
    todo = unchanged = failed = windows = total = 0
    for ref in images.refs:
        if isinstance(ref, Failed):
            failed += 1
            progress.error(ref.error)
            yield FolderImage(path=ref.ref.path, name=ref.ref.name, status="failed", error=ref.error)
            continue
        try:
            sides = set() if store is None else _stored_sides(spec, store.recipe.short_side, ref.path)
            if len(sides) == len(spec.options.scales):
                unchanged += 1
                yield FolderImage(path=ref.path, name=ref.name, status="unchanged")
                continue
            size = spec.reader.size(ref.path)
        except (ImageError, OSError, ValueError) as error:
            failed += 1
            failure = error if isinstance(error, ImageError) else ImageError(ref.path, str(error))
            progress.error(failure)
            yield FolderImage(path=ref.path, name=ref.name, status="failed", error=failure)
            continue
        todo += 1
        if model is not None and view is not None:
            grids = [grid for side, grid in zip(view.short_sides, view.grids(size), strict=True) if side not in sides]
            windows += sum(grid[0] for grid in grids)
            total += sum(feature_bytes((*grid, model.embed_dim), model.class_tokens, dtype) for grid in grids)
        progress.path(ref.path)
        yield FolderImage(path=ref.path, name=ref.name, status="planned")
    totals = list_counts(todo, "to encode", {"unchanged": unchanged, "cannot be encoded": failed})
    progress.note("listed", counts=totals, output=spec.output)
    if todo and model is None:
        progress.note("no_estimate", model=spec.model)
    elif todo:
        place = next(path for path in (spec.output.absolute(), *spec.output.absolute().parents) if is_folder(path))
        progress.note(
            "store_size",
            dtype=dtype,
            each=readable_size(total / todo),
            total=readable_size(total),
            free=readable_size(shutil.disk_usage(place).free),
        )
        if spec.options.scales != ONE_SCALE:
            progress.note("windows_to_encode", scales=text_of(spec.options.scales), number=f"{windows / todo:.1f}")


def _stored_sides(spec: RunSpec, own: int, path: Path) -> set[int]:
    """Return the run's short sides at which the store has features of an image; `own` is the short side of scale 1."""
    sha256 = identify(path, any_size=True)[1]
    paths = {
        side: feature_path(spec.output, sha256, None if side == own else side)
        for side in short_sides(own, spec.options.scales)
    }
    return {side for side, path in paths.items() if os.path.lexists(path)}
