"""What is done to one image, from its file to its label files; wherever the work is done, it is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.file_options import FileOptions
from tipsseg.fingerprint import Fingerprint, fingerprint
from tipsseg.image_labels import ImageLabels, labelled_objects
from tipsseg.images import open_image, reason_of
from tipsseg.labeller import Labeller, Prepared
from tipsseg.manifest import Entry
from tipsseg.outcome import Labelled
from tipsseg.record_values import actual_path
from tipsseg.records import ImageRef, LabelMap
from tipsseg.summary import label_summary
from tipsseg.writers import FORMATS, Writer
from tipsseg.writing import write_labels

#: How many classes of each patch are kept, for formats that have them.
TOP_CLASSES = 5

#: How often an image is read again that was changed meanwhile.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An image in memory, ready for the model; `seconds` is what that took."""

    ref: ImageRef
    image: NDArray[np.uint8]
    prepared: Prepared
    fingerprint: Fingerprint
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class ImageWork:
    """Labels images and writes their files.

    writers  by format
    files    how labels become files
    output   the output folder
    digest   of all that decides the labels
    inspect  sees each image's labels before anything is written, and may raise ImageError
    """

    labeller: Labeller
    writers: Mapping[str, Writer]
    files: FileOptions
    output: Path
    digest: str
    inspect: Callable[[ImageRef, LabelMap], None] | None = None

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image; may be called from several threads. Raises ImageError."""
        began = time.monotonic()
        image, read_from = _read(ref.path)
        try:
            prepared = self.labeller.prepare(image)
        except InputError as error:
            raise ImageError(ref.path, error.message, error.hint) from error
        return Loaded(ref, image, prepared, read_from, time.monotonic() - began)

    def finish(self, loaded: Loaded) -> Labelled:
        """Label an image and write its files. Raises ImageError for what is wrong with this one, others for what ends a run."""
        began = time.monotonic()
        ref, label_map = loaded.ref, self._label(loaded)
        if self.inspect is not None:
            self.inspect(ref, label_map)
        labels = ImageLabels(ref, lambda: loaded.image, label_map, lambda each: labelled_objects(each, self.files))
        files, records = write_labels(labels, self.writers, self.output)
        seconds = round(loaded.seconds + time.monotonic() - began, 3)
        summary = label_summary(label_map)
        sizes = {name: actual_path(self.output, file).stat().st_size for name, file in files.items()}
        entry = Entry(ref.name, loaded.fingerprint, self.digest, summary, files, tuple(self.writers), seconds, sizes)
        return Labelled(ref, entry, records, labels.fidelity)

    def _label(self, loaded: Loaded) -> LabelMap:
        wanted = any(FORMATS[name].top for name in self.writers)
        return self.labeller.label_prepared(loaded.prepared, TOP_CLASSES if wanted else 0)


def _read(path: Path) -> tuple[NDArray[np.uint8], Fingerprint]:
    """The pixels of a file and the fingerprint of what they were read from. Raises ImageError."""
    for _ in range(_ATTEMPTS):
        before = _stamp(path)
        failure: ImageError | None = None
        try:
            image = open_image(path)
            found = fingerprint(path)
        except ImageError as error:
            failure = error
        except OSError as error:
            failure = ImageError(path, reason_of(error))
        if _stamp(path) != before:
            continue  # a half of the old file and a half of the new one may well decode
        if failure is not None:
            raise failure
        return image, found
    raise ImageError(path, "it changes while it is read", "Label it again once it is complete.")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
