"""Cache text vectors on disk, so that a vocabulary is encoded only once per model.

The files are in the cache's `text` folder. Their names are hashes of everything that determines the vectors: the phrases and
templates, the model's files, versions, device and dtype. On a CPU, nothing here imports torch. If a file cannot be read or
written, the vectors are encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.backbones.protocol import Backbone
from tipsseg.errors import TipssegError
from tipsseg.util.files import atomic_path, processor_name
from tipsseg.util.json import json_bytes
from tipsseg.vocabulary.vocabulary import Phrase
from tipsseg.weights.sources import file_hashes

#: Maximum number of files in the cache; those written first are deleted.
_MOST_FILES = 100

Vectors = NDArray[np.float32]


def load_or_compute(
    cache: Path, backbone: Backbone, phrases: Sequence[Phrase], compute: Callable[[], Vectors]
) -> Vectors:
    """Return the unit vectors of the phrases, [P, D], from the cache, or compute and cache them."""
    key = {
        "versions": [__version__, metadata.version("torch"), np.__version__],
        "device": [processor_name(), backbone.device_name],  # others may round differently, and share the folder
        "dtype": backbone.dtype_name,
        "model": file_hashes(backbone.folder),
        "phrases": [[phrase.text, list(phrase.templates)] for phrase in phrases],
    }
    file = cache / "text" / f"{hashlib.sha256(json_bytes(key)).hexdigest()}.npy"
    with suppress(Exception):  # missing, or damaged in any way
        vectors: Vectors = np.load(file)
        return vectors
    vectors = compute()
    with suppress(TipssegError, OSError):
        with atomic_path(file) as temporary:
            np.save(temporary, vectors)
        for old in sorted(file.parent.glob("*.npy"), key=lambda path: path.stat().st_mtime)[:-_MOST_FILES]:
            old.unlink()
    return vectors
