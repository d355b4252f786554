"""Cache text vectors on disk, so that a vocabulary is encoded only once per model.

The files are in the cache's `text` folder. Their names are hashes of everything that determines the vectors: the phrases and
templates, the model's files, versions, device and dtype. On a CPU the name is computed without importing torch; it ignores
torch's number of threads if a program sets that itself. If a file cannot be read or written, the vectors are encoded again.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import TipssegError
from tipsseg.util.files import atomic_path, json_bytes
from tipsseg.util.processor import processor_name
from tipsseg.vocabulary.vocabulary import Phrase
from tipsseg.weights.sources import file_hashes

#: Maximum number of files in the cache; the least recently used are deleted first.
_MOST_FILES = 100

_SUFFIX = ".npy"

#: Prefixes of environment variables that control the instructions and threads of torch and its libraries.
_SETTINGS = ("ATEN_", "MKL_", "OMP_")

Vectors = NDArray[np.float32]


def load_or_compute(
    cache: Path, backbone: Backbone, phrases: Sequence[Phrase], compute: Callable[[], Vectors]
) -> Vectors:
    """Return the unit vectors of the phrases, [P, D], from the cache, or compute and cache them."""
    file = _file(cache, backbone, phrases)
    if file is None:
        return compute()
    with suppress(OSError, EOFError, ValueError):  # missing or damaged
        vectors = np.load(file, allow_pickle=False)
        if vectors.shape == (len(phrases), backbone.embed_dim) and vectors.dtype == np.float32:
            file.touch()  # marks the file as recently used
            return cast(Vectors, vectors)
    vectors = compute()
    with suppress(TipssegError, OSError):
        with atomic_path(file) as temporary:
            np.save(temporary, vectors)
        files = sorted(file.parent.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[_MOST_FILES:]:
            path.unlink()
    return vectors


def _file(cache: Path, backbone: Backbone, phrases: Sequence[Phrase]) -> Path | None:
    """Return the cache file for these phrases; None if the model's files or torch's version cannot be read."""
    with suppress(TipssegError, metadata.PackageNotFoundError):
        key = {
            "versions": [__version__, metadata.version("torch"), np.__version__],
            "device": [platform.system(), platform.machine(), *_device(backbone)],
            "dtype": backbone.dtype_name,
            "model": file_hashes(backbone.folder),
            "phrases": [[phrase.text, list(phrase.templates)] for phrase in phrases],
        }
        return cache / "text" / f"{hashlib.sha256(json_bytes(key)).hexdigest()[:40]}{_SUFFIX}"
    return None


def _device(backbone: Backbone) -> list[object]:
    """Return properties of the device that may affect rounding."""
    kind = backbone.device_name.partition(":")[0]
    if kind == "cuda":
        import torch

        return [kind, torch.cuda.get_device_name(backbone.device)]
    affinity = getattr(os, "sched_getaffinity", None)
    cores = os.cpu_count() if affinity is None else len(affinity(0))
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)}
    return [kind, processor_name(), cores, settings]
