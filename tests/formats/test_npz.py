"""Archives that are damaged are told, whatever the damage."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tipsseg.errors import ImageError
from tipsseg.formats.npz import read_array


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
            arrays = [read_array(path, (name,), 1 << 20)[1] for name in ("labels", "scores")]
        except (ImageError, OSError, ValueError) as error:
            said.add(str(error))
        else:
            assert all(array.ndim >= 0 for array in arrays)
    assert len(said) > 10
    assert all(said)


def test_an_archive_whose_header_does_not_end(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3"
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="EOF in multi-line statement"):
        read_array(path, ("labels",), 1 << 20)


def test_an_error_without_a_text_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    np.savez(tmp_path / "a.npz", labels=np.zeros(3))
    monkeypatch.setattr(np, "load", full)
    with pytest.raises(ValueError, match=r"MemoryError$"):
        read_array(tmp_path / "a.npz", ("labels",), 1 << 20)


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", labels=np.zeros((9000, 9000), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    assert read_array(tmp_path / "a.npz", ("labels",), 1 << 27)[1].shape == (9000, 9000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match=r"^unpacks to 81,000,\d+ bytes; the limit is 67,108,912$"):
        read_array(tmp_path / "a.npz", ("labels",), 67_108_912)
