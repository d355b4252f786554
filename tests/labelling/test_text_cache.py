"""Text vectors that are kept on disk: the same numbers, once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tipsseg import Labeller, load, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.labelling import classifier
from tipsseg.options import Dtype
from tipsseg.vocabulary.vocabulary import Vocabulary

CLASSES = ("panda leg", "tree", "sky")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of the vectors in the cache that `Computed` uses."""
    return tmp_path / "cache" / "text"


@pytest.fixture
def model(mlp_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mlp_checkpoint, tmp_path / "model"))


class Computed:
    """How many phrases went through the text tower."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phrases = 0
        self._cache = cache
        plain = Tipsv2Backbone.encode_text

        def counting(encoder: Tipsv2Backbone, phrases: list[str], templates: list[str]) -> torch.Tensor:
            self.phrases += len(phrases)
            return plain(encoder, phrases, templates)

        monkeypatch.setattr(Tipsv2Backbone, "encode_text", counting)

    def of(self, model: Path, vocabulary: Vocabulary, dtype: Dtype = "float32") -> tuple[int, torch.Tensor]:
        """Of a labeller made again: how many now, and its vectors."""
        self.phrases = 0
        vectors = Labeller(load(model, device="cpu", dtype=dtype), vocabulary, cache=self._cache).vectors
        return self.phrases, vectors


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computed:
    return Computed(tmp_path / "cache", monkeypatch)


@pytest.mark.parametrize(("background", "phrases"), [("auto", 3 + 25), ((), 3)])
def test_a_vocabulary_goes_through_the_model_once(
    cache: Path, model: Path, computed: Computed, background: str | tuple[str, ...], phrases: int
) -> None:
    vocabulary = make_vocabulary(CLASSES, background)
    number, expected = computed.of(model, vocabulary)
    assert number == phrases
    again, vectors = computed.of(model, vocabulary)
    assert again == 0
    assert torch.equal(vectors, expected)
    assert list(cache.iterdir())


def test_long_vocabularies_are_encoded_in_parts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory holds the texts of a part."""
    vocabulary, sizes = make_vocabulary(CLASSES), list[int]()
    whole = Labeller(load(model, device="cpu"), vocabulary).vectors
    encode = Tipsv2Backbone.encode_text

    def spy(encoder: Tipsv2Backbone, phrases: list[str], templates: list[str]) -> torch.Tensor:
        sizes.append(len(phrases))
        return encode(encoder, phrases, templates)

    monkeypatch.setattr(Tipsv2Backbone, "encode_text", spy)
    monkeypatch.setattr(classifier, "_AT_ONCE", 10)
    torch.testing.assert_close(Labeller(load(model, device="cpu"), vocabulary).vectors, whole)
    assert sizes == [10, 10, 8]


def other_weights(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (model / "model.safetensors").write_bytes(data)


def nothing(model: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "classes", "templates", "dtype"),
    [
        (other_weights, CLASSES, ("a {}",), "float32"),
        (nothing, ("panda leg", "tree", "sea"), ("a {}",), "float32"),
        (nothing, ("tree", "panda leg", "sky"), ("a {}",), "float32"),
        (nothing, CLASSES, ("the {}",), "float32"),
        (nothing, CLASSES, ("a {}",), "bfloat16"),
    ],
    ids=["weights", "phrases", "order", "templates", "dtype"],
)
def test_the_cache_depends_on_model_phrases_and_templates(
    cache: Path,
    model: Path,
    computed: Computed,
    change: Callable[[Path], None],
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    dtype: Dtype,
) -> None:
    computed.of(model, make_vocabulary(CLASSES, (), ("a {}",)))
    change(model)
    assert computed.of(model, make_vocabulary(classes, (), templates), dtype)[0] == 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-4],
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_vectors_are_computed_again(cache: Path, model: Path, computed: Computed, case: str) -> None:
    vocabulary = make_vocabulary(CLASSES, ())
    _, expected = computed.of(model, vocabulary)
    (file,) = cache.iterdir()
    file.write_bytes(DAMAGES[case](file.read_bytes()))
    number, vectors = computed.of(model, vocabulary)
    assert number == 3
    assert torch.equal(vectors, expected)
    assert computed.of(model, vocabulary)[0] == 0


def test_vectors_are_computed_without_a_writable_cache(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Computed(Path("/dev/null/cache"), monkeypatch)
    for _ in range(2):
        assert computed.of(model, make_vocabulary(CLASSES, ()))[0] == 3


def test_texts_do_not_depend_on_longer_ones(mlp_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    alone = backbone.encode_text(["tree"], ["a {}"])
    together = backbone.encode_text(["tree", "a house with a roof and many windows", ""], ["a {}"])
    torch.testing.assert_close(alone, together[:1], rtol=0, atol=1e-6)


def test_nothing_is_written_unless_a_cache_is_given(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "cache"))
    expected = Labeller(load(model, device="cpu"), make_vocabulary(CLASSES)).vectors
    assert not (tmp_path / "cache").exists()
    kept = Labeller(load(model, device="cpu"), make_vocabulary(CLASSES), cache=tmp_path / "own").vectors
    assert torch.equal(kept, expected)
    assert list((tmp_path / "own/text").iterdir())
    assert not (tmp_path / "cache").exists()


def test_the_cache_keeps_the_newest_hundred_files(cache: Path, model: Path, computed: Computed) -> None:
    cache.mkdir(parents=True)
    for number in range(120):
        (cache / f"{number}.npy").touch()
        os.utime(cache / f"{number}.npy", (0, 0))
    computed.of(model, make_vocabulary(CLASSES, ()))
    assert len(list(cache.iterdir())) == 100
    assert computed.of(model, make_vocabulary(CLASSES, ()))[0] == 0
