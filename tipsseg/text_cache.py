"""Text vectors on disk, so that a vocabulary goes through the text tower of a model once.

They are files in the folder `text` of tipsseg's cache, named by all that decides them: the phrases and their templates, the files
of the model, versions, device and dtype. They only save time: one that cannot be read or written costs the computing, no error.
"""

from __future__ import annotations

import hashlib
import io
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tipsseg import __version__
from tipsseg.encode import Encoder
from tipsseg.errors import TipssegError
from tipsseg.files import atomic_write, json_bytes
from tipsseg.loading import file_hashes
from tipsseg.own_cache import cache_folder
from tipsseg.vocabulary import Phrase

#: So many vocabularies are kept, those that were used last.
_KEPT = 100

Vectors = NDArray[np.float32]


def remembered(encoder: Encoder, phrases: Sequence[Phrase], compute: Callable[[], Vectors]) -> Vectors:
    """The vectors of the phrases, [P, D] of unit length: from the cache, or computed and put there."""
    file = _file(encoder, phrases)
    vectors = None if file is None else _read(file, (len(phrases), encoder.width))
    if vectors is None:
        vectors = compute()
        if file is not None:
            _write(file, vectors)
    return vectors


def _file(encoder: Encoder, phrases: Sequence[Phrase]) -> Path | None:
    """The file for them; None where none can be named."""
    device = encoder.device
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    with suppress(TipssegError, RuntimeError):
        decides = {
            "versions": [__version__, torch.__version__, np.__version__],
            "device": [platform.system(), platform.machine(), device.type, on, torch.get_num_threads()],
            "dtype": encoder.dtype_name,
            "model": file_hashes(encoder.folder),
            "phrases": [[phrase.text, list(phrase.templates)] for phrase in phrases],
        }
        return cache_folder() / "text" / f"{hashlib.sha256(json_bytes(decides)).hexdigest()[:40]}.npy"
    return None


def _read(file: Path, shape: tuple[int, int]) -> Vectors | None:
    try:
        with file.open("rb") as opened:
            vectors = np.load(opened, allow_pickle=False)
    except Exception:  # damaged files raise many kinds
        return None
    fits = isinstance(vectors, np.ndarray) and vectors.shape == shape
    if not fits or vectors.dtype != np.float32 or not np.allclose((vectors**2).sum(1), 1, atol=1e-3):
        return None
    with suppress(OSError):
        file.touch()  # so that it is told from those that nobody uses
    return vectors


def _write(file: Path, vectors: Vectors) -> None:
    data = io.BytesIO()
    np.save(data, vectors, allow_pickle=False)
    with suppress(TipssegError, OSError):
        atomic_write(file, data.getvalue())
        kept = sorted(file.parent.glob("*.npy"), key=lambda each: each.stat().st_mtime, reverse=True)
        for each in kept[_KEPT:]:
            each.unlink()
