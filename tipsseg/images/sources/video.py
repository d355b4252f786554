"""Read frames of videos with OpenCV. Frames are counted by decoding from the start: OpenCV does not seek exactly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from tipsseg.images.sources.container import Member
from tipsseg.options.every import Every


class Video:
    """The frames of a video, numbered from 0 in the order of decoding: 000000, 000001, ... A frame is read as a BMP file.

    OpenCV turns frames upright by the video's rotation flag. Frames in ascending order are decoded once; a smaller number than the
    last one starts again at the first frame.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._capture: Any = _open(path)
        self._next = 0  # the number of the next frame
        self._last: tuple[int, bytes] | None = None

    def members(self) -> Iterator[Member]:
        """Yield all frames."""
        return self.every(Every(frames=1))

    def every(self, every: Every) -> Iterator[Member]:
        """Yield the frames at an interval, and a fault if the video ends early. Decodes the whole video."""
        capture = _open(self._path)
        try:
            yield from _sampled(capture, every)
        finally:
            capture.release()

    def size(self, name: str) -> None:
        _number(name)

    def open(self, name: str) -> BytesIO:
        number = _number(name)
        with self._lock:
            if self._last is None or self._last[0] != number:
                self._last = number, self._decode(number)
            return BytesIO(self._last[1])

    def _decode(self, number: int) -> bytes:
        import cv2

        if number < self._next:
            self._capture.release()
            self._capture, self._next = _open(self._path), 0
        while self._next <= number:
            if not self._capture.grab():
                raise FileNotFoundError(f"the video has only {self._next} readable frames")
            self._next += 1
        read, frame = self._capture.retrieve()
        if not read:
            raise OSError("OpenCV cannot decode this frame")
        return cv2.imencode(".bmp", frame)[1].tobytes()


#: How videos begin: MP4 and MOV, Matroska and WebM, AVI, WMV, MPEG program and transport streams.
_CONTENT = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"....(ftyp|moov|mdat|free|skip|wide|pnot)", rb"\x1aE\xdf\xa3", rb"RIFF....AVI ", rb"0&\xb2u\x8ef\xcf\x11",
        rb"\0\0\x01[\xb3\xba]", rb"G.{187}G", rb"....G.{191}G",
    )
)  # fmt: skip


def _open(path: Path) -> Any:
    import cv2

    with path.open("rb") as file:
        head = file.read(200)
    # A playlist could name other files and hosts, and so could a relative name, such as http:host.
    known = any(pattern.match(head) for pattern in _CONTENT)
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG) if known else cv2.VideoCapture()
    if not capture.isOpened():
        capture.release()
        raise OSError("not a video that OpenCV can read")
    return capture


def _sampled(capture: Any, every: Every) -> Iterator[Member]:
    import cv2

    count, due = 0, 0.0
    rate = capture.get(cv2.CAP_PROP_FPS)
    declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    while capture.grab():
        if every.frames is not None:
            taken = count % every.frames == 0
        else:
            assert every.seconds is not None
            # Timestamps, because frames of phones and screens are not evenly spaced; without them, the rate in the header.
            now = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if now <= 0 < count:
                now = count / rate if rate > 0 else float(count)
            taken = now + _ROUNDING >= due
            if taken:
                due = (int((now + _ROUNDING) / every.seconds) + 1) * every.seconds
        if taken:
            yield Member(f"{count:06d}")
        count += 1
    if count == 0:
        yield Member("000000", "no frame of the video can be decoded")
    elif declared > 0 and count < declared * _COMPLETE:
        yield Member(
            f"{count:06d}", f"the video ends after {count} of about {declared} frames; it is truncated or broken"
        )


#: Timestamps are rounded to milliseconds or coarser.
_ROUNDING = 0.001

#: Headers count a few frames too many.
_COMPLETE = 0.98


def _number(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) >= 6):
        raise FileNotFoundError("no such frame")
    return int(name)
