"""The model on its device: the same features whatever shares a batch, and going on where memory runs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from tipsseg import Features, Labeller, LabelOptions, Model, make_vocabulary
from tipsseg.backbones.devices import as_device_error
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.backbones.tipsv2.inference import TowerInference
from tipsseg.errors import DeviceError
from tipsseg.labelling.features import Batches, encode_prepared
from tipsseg.labelling.view import Prepared, view_of
from tipsseg.options import Mode
from tipsseg.types import WindowPlan


def backbone_of(folder: Path, batch_size: int) -> Tipsv2Backbone:
    """A backbone whose batches are as on a GPU."""
    backbone = Tipsv2Backbone(folder, "cpu", "float32")
    backbone.batch_size = batch_size
    return backbone


def windows(number: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (56, 56, 3), np.uint8) for _ in range(number)]


@pytest.fixture(params=["mlp", "swiglu"])
def folder(request: pytest.FixtureRequest, mlp_checkpoint: Path, swiglu_checkpoint: Path) -> Path:
    return {"mlp": mlp_checkpoint, "swiglu": swiglu_checkpoint}[request.param]


# ---- features ----


@pytest.mark.parametrize("size", [(56, 56), (56, 98), (28, 42)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_features_are_those_of_the_tower(folder: Path, size: tuple[int, int], dtype: str, tolerance: float) -> None:
    backbone = Tipsv2Backbone(folder, "cpu", dtype)
    tower = backbone.vision_encoder
    pixels = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1)).to(backbone.dtype)
    with torch.inference_mode():
        expected = tower.value_features(pixels)
        output = tower(pixels)
    expected_tokens = torch.cat([output.cls[:, None], output.registers], 1)
    for got, wanted in zip(TowerInference(tower)(pixels), (expected, expected_tokens), strict=True):
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


# ---- batches ----


def test_cosines_do_not_depend_on_how_many_windows_an_image_has(mlp_checkpoint: Path) -> None:
    backbone = backbone_of(mlp_checkpoint, 8)
    vectors = backbone.encode_text(["tree", "sky", "sea"], ["a {}"])
    encoded = backbone.encode_windows(windows(7))
    prepared = Prepared((56, 56), windows(1)[0], WindowPlan((56, 56), 56, ((0, 0),) * 7))
    together = Features(prepared.size, prepared.plan, encoded.patches, encoded.class_tokens).cosines(vectors)
    assert together.shape == (7, 4, 4, 3)
    torch.testing.assert_close(together, encoded.patches @ vectors.T)
    for number in range(7):
        one = slice(number, number + 1)
        alone = Features(prepared.size, prepared.plan, encoded.patches[one], encoded.class_tokens[one]).cosines(vectors)
        assert torch.equal(alone, together[one])


class Image:
    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared


def prepared(model: Model, image: NDArray[np.uint8], mode: Mode = "slide") -> Prepared:
    return view_of(model.backbone, LabelOptions(mode=mode, short_side=56)).prepare(PillowImage.fromarray(image))


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_images_leave_in_order_with_the_features_that_they_have_alone(
    mlp_checkpoint: Path, mode: Mode, batch_size: int
) -> None:
    model = Model(backbone_of(mlp_checkpoint, batch_size))
    rng = np.random.default_rng(4)
    sizes = [(60, 60), (60, 200), (300, 60), (56, 56), (60, 130)]
    images = [Image(prepared(model, rng.integers(0, 256, (*size, 3), np.uint8), mode)) for size in sizes]
    batches: Batches[Image] = Batches(model.backbone)
    seen: list[tuple[Image, Features]] = []
    for image in images:
        seen += batches.add(image, image.prepared)
    seen += batches.flush()
    assert [image for image, _ in seen] == images
    for image, features in seen:
        alone = encode_prepared(model.backbone, image.prepared)
        assert (features.size, features.plan) == (image.prepared.size, image.prepared.plan)
        assert torch.equal(features.patches, alone.patches)
        torch.testing.assert_close(features.class_tokens, alone.class_tokens, rtol=0, atol=1e-6)
    assert list(batches.flush()) == []


def test_values_that_are_no_numbers_are_an_error(mlp_checkpoint: Path) -> None:
    model = Model(Tipsv2Backbone(mlp_checkpoint, "cpu", "float16"))
    labeller = Labeller(model, make_vocabulary(["tree", "sky"], ()))
    features = model.encode(np.zeros((60, 60, 3), np.uint8))
    patches = features.patches.clone()
    patches[0, 1, 2, 0] = torch.nan
    with pytest.raises(DeviceError, match="infinity, NaN or zeros in float16 on cpu") as caught:
        labeller.label(Features(features.size, features.plan, patches, features.class_tokens))
    assert "dtype float32" in caught.value.hint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_whole_image_is_stretched_as_published(mlp_checkpoint: Path, dtype: str) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", dtype)
    image = np.random.default_rng(5).integers(0, 2, (60, 75, 3), np.uint8) * np.uint8(255)
    seen: list[Tensor] = []
    plain = backbone._tower

    class Watching(TowerInference):
        def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(pixels)
            return plain(pixels)

    backbone._tower = Watching(backbone.vision_encoder)
    backbone.encode_whole(image, (56, 70))
    expected = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None] / 255, size=(56, 70), mode="bicubic", align_corners=False
    )
    assert expected.min() < 0  # not clamped
    assert expected.max() > 1
    assert torch.equal(seen[0], expected.to(backbone.dtype))


def test_features_are_normalised_in_float32(mlp_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "bfloat16")
    features = backbone.encode_windows(windows(1))
    torch.testing.assert_close(features.patches.norm(dim=-1), torch.ones(1, 4, 4), rtol=0, atol=1e-6)
    torch.testing.assert_close(features.class_tokens.norm(dim=-1), torch.ones(1, 2), rtol=0, atol=1e-6)


def test_a_phrase_of_nothing_and_odd_phrases_have_vectors(mlp_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    assert torch.isfinite(backbone.encode_text([""], ["{}"])).all()
    assert torch.equal(backbone.encode_text(["tree"], ["a {} {x}"]), backbone.encode_text(["a tree {x}"], ["{}"]))
    assert torch.equal(
        backbone.encode_text(["tree"], ["a {} and {}"]), backbone.encode_text(["a tree and tree"], ["{}"])
    )


def test_templates_count_alike(mlp_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(mlp_checkpoint, "cpu", "float32")
    ways = [backbone.encode_text(["tree"], [way]) for way in ("a {}", "a photo of the {} there")]
    mean = F.normalize((ways[0] + ways[1]) / 2, dim=-1)
    torch.testing.assert_close(backbone.encode_text(["tree"], ["a {}", "a photo of the {} there"]), mean)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "MPS backend out of memory (MPS allocated: 8 GB)",
        "Invalid buffer size: 40.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_too_little_memory_has_many_words(text: str) -> None:
    with pytest.raises(DeviceError, match="not enough memory"), as_device_error(torch.device("cpu")):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="illegal"), as_device_error(torch.device("cpu")):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
