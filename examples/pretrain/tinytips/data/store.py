"""Images of one size with captions in memory-mapped files: drawn scenes, with their truth, or somebody's own pictures.

To draw a scene, or to decode a photograph, takes longer than its share of a training step, so both are done once, ahead.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tinytips.world.captions import Captions, captions
from tinytips.world.scenes import draw_scene
from tipsseg.errors import InputError
from tipsseg.images.decoding import ImageReader
from tipsseg.util.files import is_file

#: Pictures that are longer than this, in shares of their short side, are cut at both ends.
LONGEST = 10 / 7

_CHUNK = 100

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an image: whether it is stored on its side, how long its long side is, and its captions."""

    portrait: bool
    length: int
    captions: Captions


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Images of one short side.

    images  [N, short, long, 3] uint8, each from the left
    truths  [N, short, long] uint8 leaf ids; None for pictures without
    """

    images: Pixels
    truths: Pixels | None
    records: Sequence[Record]

    @property
    def short(self) -> int:
        """The short side of every image."""
        return self.images.shape[1]

    def image(self, index: int) -> Pixels:
        """[H, W, 3] uint8."""
        record = self.records[index]
        image = self.images[index, :, : record.length]
        return image.transpose(1, 0, 2) if record.portrait else image

    def truth(self, index: int) -> Pixels:
        """[H, W] uint8 leaf ids. Raises InputError for pictures without."""
        if self.truths is None:
            raise InputError("these pictures have no ground-truth masks", "Train without the dense loss.")
        record = self.records[index]
        truth = self.truths[index, :, : record.length]
        return truth.T if record.portrait else truth


def stored_short(side: int) -> int:
    """The short side to store images with, for whole crops of `side` pixels."""
    return side * 3 // 2


def middle(image: Pixels) -> Pixels:
    """The square in the middle of an image or truth, [H, W, ...] -> [S, S, ...], S the shorter of H and W."""
    edge = min(image.shape[:2])
    top, left = ((side - edge) // 2 for side in image.shape[:2])
    return image[top : top + edge, left : left + edge]


def drawn(folder: Path, count: int, first_seed: int, short: int) -> Store:
    """The scenes of seeds first_seed .. first_seed + count - 1; drawn on first use, kept in `folder`."""
    name = f"drawn-{first_seed}-{count}-{short}"
    return _store(folder / name, count, short, partial(_draw, first_seed, short), truths=True)


def pictures(folder: Path, list_file: Path, short: int) -> Store:
    """Somebody's own pictures, from JSON lines; decoded on first use, kept in `folder`.

    Each line has `image`, a path from the list's folder on, and `alt`, `medium` and `long`, or one `caption` that stands for those
    that are not given. Raises InputError, naming the line.
    """
    lines = read_list(list_file)
    status = list_file.stat()
    name = f"{list_file.stem}-{status.st_size}-{status.st_mtime_ns}-{short}"
    return _store(folder / name, len(lines), short, partial(_decode, lines, short), truths=False)


def read_list(list_file: Path) -> list[tuple[Path, Captions]]:
    """The pictures of a list, with their captions; see `pictures`."""
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{list_file}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{list_file}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(values, dict) or not isinstance(values.get("image"), str):
            raise InputError(f"{where}: there is no `image`", 'A line is {"image": "a.jpg", "caption": "..."}.')
        texts: dict[str, Any] = {key: values.get(key, values.get("caption")) for key in ("alt", "medium", "long")}
        if not all(isinstance(text, str) and text.strip() for text in texts.values()):
            raise InputError(
                f"{where}: there is no caption, or one that is no text",
                "Give `caption`, or `alt`, `medium` and `long`.",
            )
        image = list_file.parent / values["image"]
        if not is_file(image):
            raise InputError(f"{where}: there is no {image}", "Paths are from the list's folder on.")
        found.append((image, Captions(**texts)))
    if not found:
        raise InputError(f"{list_file}: no pictures")
    return found


#: The images [n, short, long, 3] and truths [n, short, long] of some numbers, which it fills, -> their records.
_Fill = Callable[[range, Pixels, Pixels | None], list[Record]]


def _store(base: Path, count: int, short: int, fill: _Fill, *, truths: bool) -> Store:
    shape = (count, short, round(short * LONGEST))
    records_file = base.with_suffix(".json")
    kinds = {"images": (*shape, 3), **({"truths": shape} if truths else {})}
    if not records_file.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        for kind, whole in kinds.items():
            np.lib.format.open_memmap(f"{base}.{kind}.npy", "w+", np.uint8, whole).flush()
        chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        # Forked, a process would wait for threads of OpenCV that it has not got.
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            # Ctrl-C reaches all processes of a terminal, but only this one should tell of it. That it is ignored is inherited.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            jobs = [pool.submit(_fill_chunk, base, tuple(kinds), chunk, fill) for chunk in chunks]
            signal.signal(signal.SIGINT, handler)
            made: list[Record] = []
            progress = tqdm(total=count, desc=base.name, unit="image")
            try:
                for chunk, job in zip(chunks, jobs, strict=True):
                    made += job.result()
                    progress.update(len(chunk))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what is not begun is not done
                raise
            finally:
                progress.close()
        records_file.write_text(json.dumps([asdict(record) for record in made]))
    records = [
        Record(each["portrait"], each["length"], Captions(**each["captions"]))
        for each in json.loads(records_file.read_text())
    ]
    arrays = {kind: np.load(f"{base}.{kind}.npy", mmap_mode="r") for kind in kinds}
    return Store(arrays["images"], arrays.get("truths"), records)


def _fill_chunk(base: Path, kinds: tuple[str, ...], chunk: range, fill: _Fill) -> list[Record]:
    cv2.setNumThreads(1)
    arrays = {kind: np.load(f"{base}.{kind}.npy", mmap_mode="r+")[chunk.start : chunk.stop] for kind in kinds}
    return fill(chunk, arrays["images"], arrays.get("truths"))


def _draw(first_seed: int, short: int, chunk: range, images: Pixels, truths: Pixels | None) -> list[Record]:
    records = []
    for row, index in enumerate(chunk):
        seed = first_seed + index
        rng = np.random.default_rng([seed, 1])
        portrait = bool(rng.random() < 0.25)
        size = (images.shape[2], short) if portrait else (short, images.shape[2])
        scene = draw_scene(seed, *size)
        images[row] = scene.image.transpose(1, 0, 2) if portrait else scene.image
        if truths is not None:
            truths[row] = scene.truth.T if portrait else scene.truth
        records.append(Record(portrait, images.shape[2], captions(scene, rng)))
    return records


def _decode(
    lines: Sequence[tuple[Path, Captions]], short: int, chunk: range, images: Pixels, truths: Pixels | None
) -> list[Record]:
    records = []
    for row, index in enumerate(chunk):
        path, texts = lines[index]
        image = ImageReader().pixels(path)
        portrait = image.shape[0] > image.shape[1]
        if portrait:
            image = np.ascontiguousarray(image.transpose(1, 0, 2))
        length = max(round(image.shape[1] * short / image.shape[0]), short)
        method = cv2.INTER_AREA if short < image.shape[0] else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(image, (length, short), interpolation=method), np.uint8)
        left = max((length - images.shape[2]) // 2, 0)
        length = min(length, images.shape[2])
        images[row, :, :length] = resized[:, left : left + length]
        records.append(Record(portrait, length, texts))
    return records
