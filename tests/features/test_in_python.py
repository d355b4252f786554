"""Features in a few lines of Python: `encode_folder`, `Features.save` and `Features.load`, and labels of what they kept."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tipsseg
from tipsseg.errors import FeatureFileError, ImageError, OtherRunError, OutputError, UsageError
from tipsseg.options import FEATURE_DTYPES, FeatureDtype

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
SCENE = SCENES / "desert.png"
CLASSES = ["sand", "sky", "cactus"]

#: How far the numbers of a unit vector may be from what they were: half a step of the coarsest of them.
FAR: dict[FeatureDtype, float] = {"float32": 0, "float16": 2**-12, "int8": 1 / 254}


@pytest.fixture(scope="module")
def model() -> tipsseg.Model:
    return tipsseg.load("tiny", device="cpu")


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    folder = tmp_path / "imgs"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(SCENE, folder / "b.png")
    shutil.copy(SCENES / "sea.gif", folder / "sub")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.mark.parametrize("dtype", FEATURE_DTYPES)
def test_features_are_kept_and_read_again(model: tipsseg.Model, tmp_path: Path, dtype: FeatureDtype) -> None:
    features, path = model.encode(SCENE), tmp_path / "a.safetensors"
    features.save(path, dtype)
    again = tipsseg.Features.load(path)
    assert (again.size, again.plan) == (features.size, features.plan)
    for one, other in ((again.patches, features.patches), (again.class_tokens, features.class_tokens)):
        assert (one.dtype, one.shape) == (torch.float32, other.shape)
        assert (one - other).abs().max() <= FAR[dtype]
    labels, expected = (tipsseg.Labeller(model, CLASSES).label(each).labels for each in (again, SCENE))
    assert np.mean(labels != expected) <= {"float32": 0, "float16": 0.001, "int8": 0.005}[dtype]


def test_features_that_cannot_be_kept_or_read(model: tipsseg.Model, tmp_path: Path) -> None:
    features = model.encode(SCENE)
    with pytest.raises(UsageError, match="unknown feature dtype 'float8'"):
        features.save(tmp_path / "a", "float8")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError):
        features.save(SCENE / "a.safetensors")
    with pytest.raises(FeatureFileError, match="no such file"):
        tipsseg.Features.load(tmp_path / "a")
    with pytest.raises(FeatureFileError, match="its header has"):
        tipsseg.Features.load(SCENE)


def test_a_folder_is_encoded_once(imgs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "feats"
    run = tipsseg.encode_folder(imgs, store, model="tiny", device="cpu", feature_dtype="float32")
    assert repr(run) == f"FolderSummary({str(store)!r}: 2 encoded, 1 failed)"
    a, b, c = run
    assert [image.path for image in run] == [imgs / "a.png", imgs / "b.png", imgs / "sub/sea.gif"]
    assert (a.status, a.files, b.status, c.status) == ("failed", {}, "encoded", "encoded")
    assert isinstance(a.error, ImageError)
    with Image.open(b.path) as image:
        assert tipsseg.Features.load(b.files["1"]).size == image.size[::-1]
    (again,) = tipsseg.encode_folder([imgs / "b.png"], store, model="tiny", device="cpu")
    assert (again.status, again.files) == ("unchanged", b.files)
    labels = [
        result.classes
        for features in (None, store)
        for result in tipsseg.label_folder(
            imgs / "sub",
            CLASSES,
            model="tiny",
            device="cpu",
            output=tmp_path / f"out {features is None}",
            features=features,
        )
    ]
    assert len(labels) == 2
    assert labels[0] == labels[1] != {}
    assert tuple(capsys.readouterr()) == ("", "")


def test_a_part_of_a_folder(imgs: Path, tmp_path: Path) -> None:
    (imgs / "a.png").unlink()
    parts = [
        [image.path.name for image in tipsseg.encode_folder(imgs, tmp_path / "feats", model="tiny", shard=f"{part}/3")]
        for part in (1, 2, 3)
    ]
    assert sorted(chain.from_iterable(parts)) == ["b.png", "sea.gif"]
    assert len(tipsseg.encode_folder(imgs, tmp_path / "other", model="tiny", sample=1)) == 1


def test_wrong_arguments_are_raised_before_any_work(imgs: Path, tmp_path: Path) -> None:
    store = tmp_path / "feats"
    for wrong in ({"feature_dtype": "float8"}, {"shard": "3"}, {"mode": "all"}, {"jobs": 0}, {"sample": 0}):
        with pytest.raises(UsageError):
            tipsseg.encode_folder(imgs, store, model="tiny", **wrong)
    with pytest.raises(OutputError, match=r"it contains other files, for example a\.png"):
        tipsseg.encode_folder(imgs, imgs, model="tiny")
    assert not store.exists()
    tipsseg.encode_folder(imgs / "b.png", store, model="tiny")
    with pytest.raises(OtherRunError, match="the mode is slide, not whole"):
        tipsseg.encode_folder(imgs, store, model="tiny", mode="whole")
