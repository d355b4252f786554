"""weights.lock: the file in this repository, its round trip, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tipsseg.errors import CheckpointError, LockError, UsageError
from tipsseg.types import LockedFile, ModelSpec
from tipsseg.weights.lock import find_lock, get_model, read_lock, write_lock
from tipsseg.weights.sources import find_model

SHA = "0123456789abcdef" * 4
REVISION = "0123456789" * 4

HUB = f"""
[models.demo]
repository = "owner/demo"
revision = "{REVISION}"
licence = "Apache-2.0"
parameters = 12
files = [
    {{ name = "config.json" }},
    {{ name = "model.safetensors", size = 3, sha256 = "{SHA}" }},
    {{ name = "tokenizer.model", size = 0 }},
]
"""
EMBEDDED = f"""
[models.small]
embedded = "assets/small"
licence = "Apache-2.0"
parameters = 1
files = [
    {{ name = "config.json", size = 1, sha256 = "{SHA}" }},
    {{ name = "model.safetensors", size = 2, sha256 = "{SHA}" }},
    {{ name = "tokenizer.model", size = 3, sha256 = "{SHA}" }},
]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "weights.lock"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_released_models_are_pinned_as_published() -> None:
    models = read_lock()
    published = {
        "b14": ("google/tipsv2-b14", "23cfc936f39a74b5ae272149f703e3941b190529", 195_948_288),
        "l14": ("google/tipsv2-l14", "3001ef12a69340be4a946cc4e2799ac5eb697818", 487_941_120),
        "so400m14": ("google/tipsv2-so400m14", "582b2c6814afea7eb6a64ccc2ce3a4b5af1036a0", 861_726_816),
        "g14": ("google/tipsv2-g14", "9b6d9f098466347ec47856eb281c69641b50899d", 1_525_085_696),
    }
    for key, (repository, revision, parameters) in published.items():
        model = models[key]
        assert (model.repository, model.revision, model.parameters) == (repository, revision, parameters)
        assert model.licence == "Apache-2.0"
        assert [file.name for file in model.files] == ["config.json", "model.safetensors", "tokenizer.model"]


def test_the_lock_of_this_repository_is_as_it_is_written(tmp_path: Path) -> None:
    write_lock(tmp_path / "lock", read_lock())
    assert find_lock().read_bytes() == (tmp_path / "lock").read_bytes()


def test_reads_both_kinds_of_model_in_order(tmp_path: Path) -> None:
    models = read_lock(written(tmp_path, HUB + EMBEDDED))
    assert list(models) == ["demo", "small"]
    assert models["demo"] == ModelSpec(
        id="demo",
        licence="Apache-2.0",
        parameters=12,
        files=(LockedFile("config.json"), LockedFile("model.safetensors", 3, SHA), LockedFile("tokenizer.model", 0)),
        repository="owner/demo",
        revision=REVISION,
    )
    assert (models["small"].embedded, models["small"].repository) == ("assets/small", None)


WRONG = {
    "not toml": ("[models", "Expected ']'"),
    "unknown key": (HUB.replace("parameters", "size = 3\nparameters"), "models.demo: has the keys"),
    "model id": (HUB.replace("models.demo", "models.Demo"), "models.Demo: a model id"),
    "no config.json": (HUB.replace("config.json", "preprocessor.json"), "models.demo.files: does not list config.json"),
    "pickle": (HUB.replace("tokenizer.model", "model.bin"), "models.demo.files[2].name: must be the name of a file"),
    "outside": (HUB.replace("tokenizer.model", "../tokenizer.model"), "models.demo.files[2].name: must be"),
    "other drive": (HUB.replace("tokenizer.model", "C:tokenizer.model"), "models.demo.files[2].name: must be"),
    "hidden": (HUB.replace("tokenizer.model", ".tokenizer.model"), "models.demo.files[2].name: must be"),
    "branch": (HUB.replace(REVISION, "main"), "models.demo.revision: must be a full commit hash"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_lock_names_file_model_and_key(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    path = written(tmp_path, text)
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_lock_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="No such file"):
        read_lock(tmp_path / "weights.lock")
    (tmp_path / "latin").write_bytes(b"# \xff")
    with pytest.raises(LockError, match="utf-8"):
        read_lock(tmp_path / "latin")


@pytest.mark.parametrize("name", ["l14", "google/tipsv2-l14", "Google/TIPSv2-L14"])
def test_a_model_by_its_id_or_its_repository(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_model(name).id == "l14"
    assert find_model(name) == find_model("l14")
    # As ever, a folder that is there is that folder.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google" / "tipsv2-l14").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"google/tipsv2-l14/config\.json: no such file"):
        find_model("google/tipsv2-l14")


def test_an_unknown_model_is_told_with_those_that_are_known() -> None:
    assert get_model("l14").repository == "google/tipsv2-l14"
    for close in ("tipsv2-l14", "google/tipsv2-l1"):
        with pytest.raises(UsageError) as caught:
            get_model(close)
        assert "Did you mean 'l14'?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        get_model("./nowhere")
    assert "Did you mean" not in caught.value.hint
    assert "path of its folder" in caught.value.hint
