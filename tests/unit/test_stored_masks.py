"""Archives that are damaged are told, whatever the damage."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tipsseg.stored_masks import UNREADABLE, read_arrays, what_is_wrong


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing:UserWarning")
def test_a_damaged_archive_is_unreadable_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, labels=np.arange(400).reshape(20, 20) % 7, scores=np.ones((2, 3), np.float16))
    data, generator = path.read_bytes(), random.Random(7)
    said = set()
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(generator.choice([1, 3])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            labels, scores = read_arrays(path, ("labels", "scores"))
        except UNREADABLE as error:
            said.add(what_is_wrong(error))
        else:
            assert labels.ndim >= 0
            assert scores.ndim >= 0
    assert len(said) > 10
    assert all(said)
