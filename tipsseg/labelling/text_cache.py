"""Text vectors on disk, so that a vocabulary goes through the text tower of a model once.

They are files in the folder `text` of a cache, named by all that decides them: the phrases and their templates, the files of the
model, versions, device and dtype. On a CPU all of it is known without torch, so that a run which finds its vectors does not import
it; only threads that a program gives torch by itself do not count. Each file begins with the sha256 of its name and its numbers: a
file that was damaged, or that stands under the name of another, is not used. They only save time: a file that cannot be read or
written costs the computing, no error.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import TipssegError
from tipsseg.util.files import atomic_write, json_bytes
from tipsseg.util.processor import processor_name
from tipsseg.vocabulary.vocabulary import Phrase
from tipsseg.weights.sources import file_hashes

#: So many vocabularies are kept: the ones that were used last.
_KEPT = 100

_SUFFIX = ".vectors"
_EARLIER_SUFFIX = ".npy"  # of earlier versions, which wrote no checksum
_NUMBERS = np.dtype("<f4")

#: How names of environment variables begin by which torch, or what it computes with, chooses instructions and threads.
_SETTINGS = ("ATEN_", "MKL_", "OMP_")

Vectors = NDArray[np.float32]


def remembered(cache: Path, backbone: Backbone, phrases: Sequence[Phrase], compute: Callable[[], Vectors]) -> Vectors:
    """The vectors of the phrases, [P, D] of unit length: from the cache, or computed and put there."""
    file = _file(cache, backbone, phrases)
    vectors = None if file is None else _read(file, (len(phrases), backbone.embed_dim))
    if vectors is None:
        vectors = compute()
        if file is not None:
            _write(file, vectors)
    return vectors


def _file(cache: Path, backbone: Backbone, phrases: Sequence[Phrase]) -> Path | None:
    """Return the file for these phrases, or None if the model's files or torch's version cannot be read."""
    with suppress(TipssegError, metadata.PackageNotFoundError):
        decides = {
            "versions": [__version__, metadata.version("torch"), np.__version__],
            "device": [platform.system(), platform.machine(), *_device(backbone)],
            "dtype": backbone.dtype_name,
            "model": file_hashes(backbone.folder),
            "phrases": [[phrase.text, list(phrase.templates)] for phrase in phrases],
        }
        return cache / "text" / f"{hashlib.sha256(json_bytes(decides)).hexdigest()[:40]}{_SUFFIX}"
    return None


def _device(backbone: Backbone) -> list[object]:
    """Return what of the device may decide how it rounds."""
    kind = backbone.device_name.partition(":")[0]
    if kind == "cuda":
        import torch

        return [kind, torch.cuda.get_device_name(backbone.device)]
    affinity = getattr(os, "sched_getaffinity", None)
    cores = os.cpu_count() if affinity is None else len(affinity(0))
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)}
    return [kind, processor_name(), cores, settings]


def _read(file: Path, shape: tuple[int, int]) -> Vectors | None:
    """The vectors of that shape in the file; None where it is not there, or not as it was written."""
    length = shape[0] * shape[1] * _NUMBERS.itemsize
    try:
        with file.open("rb") as opened:
            checksum, data = opened.read(hashlib.sha256().digest_size), opened.read(length)
            if len(data) != length or opened.read(1) or checksum != _checksum(file, data):
                return None
    except OSError:
        return None
    with suppress(OSError):
        file.touch()  # the files that were not used for longest are removed first
    return np.frombuffer(data, _NUMBERS).reshape(shape).astype(np.float32)


def _write(file: Path, vectors: Vectors) -> None:
    data = vectors.astype(_NUMBERS).tobytes()
    with suppress(TipssegError, OSError):
        atomic_write(file, _checksum(file, data) + data)
        there = [each for each in file.parent.iterdir() if each.suffix in (_SUFFIX, _EARLIER_SUFFIX)]
        kept = sorted(there, key=lambda each: each.stat().st_mtime, reverse=True)
        for each in kept[_KEPT:]:
            each.unlink()


def _checksum(file: Path, data: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + data).digest()
