"""Pins the embedded model in weights.lock: parameter count, and size and sha256 of its files as they are now.

python -m tinytips.pin_tiny
"""

from __future__ import annotations

import hashlib

from safetensors import safe_open

from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights.lock import TIPSV2_FILES, find_lock, read_lock, write_lock

FOLDER = "assets/tiny"


def main() -> None:
    folder = find_lock().parent / "tipsseg" / FOLDER
    files = []
    for name in TIPSV2_FILES:
        data = (folder / name).read_bytes()
        files.append(LockedFile(name, len(data), hashlib.sha256(data).hexdigest()))
    with safe_open(folder / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118 (it has no __iter__)
    path = find_lock()
    write_lock(
        path, {**read_lock(path), "tiny": ModelSpec("tiny", "Apache-2.0", parameters, tuple(files), embedded=FOLDER)}
    )
    print(f"{path}: tiny has {parameters:,} parameters in {sum(file.size or 0 for file in files):,} bytes")


if __name__ == "__main__":
    main()
