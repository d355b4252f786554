"""Join the overlays of a video's frames into overlays/<video>.mp4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from tipsseg.errors import OutputError
from tipsseg.formats.overlay import Overlay
from tipsseg.images.sources.access import frame_rate
from tipsseg.images.sources.address import VIDEOS, suffix_of
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.state import State
from tipsseg.store.writing import RunContext
from tipsseg.util.record_paths import actual_path

#: Frames per second if the video cannot be opened any more.
_RATE = 1.0


def write_overlay_videos(state: State, context: RunContext, *, missing_only: bool) -> Iterator[tuple[Path, bool]]:
    """Write a video of the overlays of each input video, at the speed of the input. Raise OutputError.

    `missing_only` leaves existing videos as they are. Yield the path of each video, and True if it was written.
    """
    held = (entry for entry in state.entries() if Overlay.name in entry.files)
    for video, entries in groupby(held, key=lambda entry: Path(entry.path).parent):
        if suffix_of(video) not in VIDEOS:
            continue
        frames = list(entries)
        pictures = [actual_path(context.output, entry.files[Overlay.name]) for entry in frames]
        place = pictures[0].parent.with_name(f"{pictures[0].parent.name}.mp4")
        written = not (missing_only and place.exists())
        if written:
            with context.ownership.replacing(place) as temporary:
                _join(temporary, pictures, _rate(video, frames))
        yield place, written


def _rate(video: Path, frames: Sequence[ManifestEntry]) -> float:
    with suppress(OSError, ValueError):
        numbers = [int(Path(entry.path).name) for entry in frames[:2]]
        return frame_rate(video) / max(numbers[-1] - numbers[0], 1)
    return _RATE


def _join(target: Path, pictures: Sequence[Path], rate: float) -> None:
    """Write a video of pictures, whose sizes may differ, as legends do: each is at the top left of a white frame."""
    import cv2

    sizes = []
    for path in pictures:
        with Image.open(path) as picture:
            sizes.append(picture.size)
    width, height = (-(-max(sides) // 2) * 2 for sides in zip(*sizes, strict=True))  # the codec needs even numbers
    writer = cv2.VideoWriter(str(target), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    if not writer.isOpened():
        raise OutputError(
            target, "OpenCV cannot write MP4 videos", "Reinstall opencv-python, or leave out the format overlay."
        )
    for path in pictures:
        frame = np.full((height, width, 3), 255, np.uint8)
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        frame[: pixels.shape[0], : pixels.shape[1]] = pixels[:, :, ::-1]
        writer.write(frame)
    writer.release()
