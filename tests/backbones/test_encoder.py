"""The model on its device: the same features whatever shares a batch, and going on where memory runs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tipsseg import Encoder, Labeller, LabelOptions, make_vocabulary
from tipsseg.backbones.tipsv2.inference import ValueFeatures
from tipsseg.errors import DeviceError, UsageError
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.prepare import Prepared


def encoder_of(folder: Path, batch_size: int) -> Encoder:
    """An encoder whose batches are as on a GPU."""
    encoder = Encoder(folder, "cpu", "float32")
    encoder.batch_size = batch_size
    return encoder


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
    encoder = Encoder(folder, "cpu", dtype)
    tower = encoder.model.vision_encoder
    pixels = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1)).to(encoder.dtype)
    with torch.inference_mode():
        expected = tower.value_features(pixels)
    got = ValueFeatures(tower)(pixels)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_memory_is_used_again_and_nothing_of_it_is_given_out(folder: Path) -> None:
    features = ValueFeatures(Encoder(folder, "cpu", "float32").model.vision_encoder)
    one, two = (torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    first = features(one)
    kept = first.clone()
    features(two)
    features(two[:1, :, :28, :28])
    assert torch.equal(first, kept)
    assert torch.equal(features(one), kept)


# ---- batches ----


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_cosines_do_not_depend_on_what_shares_the_batch(folder: Path, batch_size: int) -> None:
    encoder = encoder_of(folder, batch_size)
    vectors = encoder.encode_text(["tree", "sky"], ["a {}"])
    cut = windows(7)
    together = encoder.window_cosines(cut, vectors)
    assert together.shape == (7, 4, 4, 2)
    for number, window in enumerate(cut):
        assert torch.equal(encoder.window_cosines([window], vectors)[0], together[number])


def test_a_cpu_takes_one_window_at_a_time(mlp_checkpoint: Path) -> None:
    assert Encoder(mlp_checkpoint, "cpu", "float32", batch_size=8).batch_size == 1


class Image:
    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_images_leave_in_order_with_the_cosines_that_they_have_alone(
    mlp_checkpoint: Path, mode: str, batch_size: int
) -> None:
    labeller = Labeller(
        encoder_of(mlp_checkpoint, batch_size), make_vocabulary(["tree", "sky"], ()), LabelOptions(mode=mode)
    )
    rng = np.random.default_rng(4)
    sizes = [(60, 60), (60, 200), (300, 60), (56, 56), (60, 130)]
    images = [Image(labeller.prepare(rng.integers(0, 256, (*size, 3), np.uint8))) for size in sizes]
    batches: Batches[Image] = Batches(labeller)
    seen: list[tuple[Image, Tensor]] = []
    for image in images:
        seen += batches.add(image)
    seen += batches.flush()
    assert [image for image, _ in seen] == images
    for image, cosines in seen:
        assert torch.equal(cosines, labeller.encode(image.prepared))
    assert list(batches.flush()) == []


def test_windows_of_several_images_share_a_batch(mlp_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = Encoder.window_cosines

    def counting(self: Encoder, cut: list[NDArray[np.uint8]], vectors: Tensor) -> Tensor:
        sizes.append(len(cut))
        return plain(self, cut, vectors)

    monkeypatch.setattr(Encoder, "window_cosines", counting)
    labeller = Labeller(encoder_of(mlp_checkpoint, 4), make_vocabulary(["tree", "sky"], ()))
    image = Image(labeller.prepare(np.zeros((60, 90, 3), np.uint8)))
    assert len(image.prepared.plan.corners) == 2
    batches: Batches[Image] = Batches(labeller)
    assert [len(list(batches.add(image))) for _ in range(5)] == [0, 2, 0, 2, 0]
    assert len(list(batches.flush())) == 1
    assert sizes == [4, 4, 2]


# ---- memory ----


class Full:
    """A device whose memory holds so many windows."""

    def __init__(self, encoder: Encoder, holds: int, message: str = "CUDA out of memory. Tried to allocate") -> None:
        self.batches: list[int] = []
        plain = encoder._features

        class Features(ValueFeatures):
            def __call__(inner, pixels: Tensor) -> Tensor:  # noqa: N805
                self.batches.append(len(pixels))
                if len(pixels) > holds:
                    raise RuntimeError(message)
                return plain(pixels)

        encoder._features = Features(encoder.model.vision_encoder)


def test_where_memory_runs_out_the_batch_is_halved_and_the_work_goes_on(mlp_checkpoint: Path) -> None:
    encoder = encoder_of(mlp_checkpoint, 8)
    vectors = encoder.encode_text(["tree", "sky"], ["a {}"])
    cut = windows(11)
    expected = encoder.window_cosines(cut, vectors)
    told: list[int] = []
    encoder.on_less_memory = told.append
    full = Full(encoder, 3)
    torch.testing.assert_close(encoder.window_cosines(cut, vectors), expected)
    assert told == [4, 2]
    assert full.batches == [8, 4, *[2] * 6]
    assert encoder.batch_size == 2


def test_a_device_that_does_not_hold_one_window_is_an_error(mlp_checkpoint: Path) -> None:
    encoder = encoder_of(mlp_checkpoint, 4)
    vectors = encoder.encode_text(["tree"], ["a {}"])
    Full(encoder, 0)
    with pytest.raises(DeviceError, match="not enough memory on the device for one window") as caught:
        encoder.window_cosines(windows(2), vectors)
    assert "device cpu" in caught.value.hint


@pytest.mark.parametrize(
    "message", ["MPS backend out of memory (MPS allocated: 1 GB)", "DefaultCPUAllocator: can't allocate memory"]
)
def test_a_device_that_does_not_hold_an_image_as_a_whole_is_an_error(mlp_checkpoint: Path, message: str) -> None:
    labeller = Labeller(
        Encoder(mlp_checkpoint, "cpu", "float32"), make_vocabulary(["tree"]), LabelOptions(mode="whole")
    )
    Full(labeller.encoder, 0, message)
    with pytest.raises(DeviceError, match="for an image of 112 x 56 pixels as a whole") as caught:
        labeller.label(np.zeros((60, 120, 3), np.uint8))
    assert "a smaller short side" in caught.value.hint


def test_other_faults_of_a_device_are_not_taken_for_want_of_memory(mlp_checkpoint: Path) -> None:
    encoder = encoder_of(mlp_checkpoint, 4)
    vectors = encoder.encode_text(["tree"], ["a {}"])
    Full(encoder, 0, "CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder.window_cosines(windows(2), vectors)
    assert encoder.batch_size == 4


def test_images_that_are_complete_are_out_before_a_later_batch_fails(mlp_checkpoint: Path) -> None:
    labeller = Labeller(encoder_of(mlp_checkpoint, 4), make_vocabulary(["tree", "sky"], ()))
    first, second = (Image(labeller.prepare(np.zeros((60, width, 3), np.uint8))) for width in (130, 500))
    batches: Batches[Image] = Batches(labeller)
    assert list(batches.add(first)) == []
    plain, calls = labeller.encoder._features, []

    class Broken(ValueFeatures):
        def __call__(self, pixels: Tensor) -> Tensor:
            calls.append(len(pixels))
            if len(calls) > 1:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return plain(pixels)

    labeller.encoder._features = Broken(labeller.encoder.model.vision_encoder)
    ready = batches.add(second)
    assert next(ready)[0] is first
    with pytest.raises(RuntimeError, match="illegal memory access"):
        next(ready)


def test_values_that_are_no_numbers_are_an_error(mlp_checkpoint: Path) -> None:
    labeller = Labeller(Encoder(mlp_checkpoint, "cpu", "float16"), make_vocabulary(["tree", "sky"], ()))
    prepared = labeller.prepare(np.zeros((60, 60, 3), np.uint8))
    cosines = labeller.encode(prepared).clone()
    cosines[0, 1, 2, 0] = torch.nan
    with pytest.raises(DeviceError, match="no numbers in float16 on cpu") as caught:
        labeller.label_encoded(prepared, cosines)
    assert "dtype float32" in caught.value.hint


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_one_thread_at_a_time_computes(mlp_checkpoint: Path, mode: str) -> None:
    labeller = Labeller(
        Encoder(mlp_checkpoint, "cpu", "float32"), make_vocabulary(["tree", "sky"], ()), LabelOptions(mode=mode)
    )
    encoder = labeller.encoder
    held: list[bool] = []
    plain = encoder._features

    class Watching(ValueFeatures):
        def __call__(self, pixels: Tensor) -> Tensor:
            held.append(encoder.at_work.locked())
            return plain(pixels)

    encoder._features = Watching(encoder.model.vision_encoder)
    labeller.encode(labeller.prepare(np.zeros((60, 60, 3), np.uint8)))
    assert held
    assert all(held)


def test_memory_is_given_back_before_less_is_tried(mlp_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(mlp_checkpoint, 4)
    vectors = encoder.encode_text(["tree"], ["a {}"])
    done: list[str] = []
    Full(encoder, 2)
    monkeypatch.setattr(type(encoder._features), "forget", lambda _: done.append("forgotten"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    encoder.window_cosines(windows(2), vectors)
    assert done == ["forgotten", "emptied"]


def test_the_room_is_given_back(mlp_checkpoint: Path) -> None:
    features = ValueFeatures(Encoder(mlp_checkpoint, "cpu", "float32").model.vision_encoder)
    features(torch.zeros(1, 3, 56, 56))
    assert features._room
    features.forget()
    assert not features._room


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_whole_image_is_stretched_as_published(mlp_checkpoint: Path, dtype: str) -> None:
    encoder = Encoder(mlp_checkpoint, "cpu", dtype)
    vectors = encoder.encode_text(["tree", "sky"], ["a {}"])
    image = np.random.default_rng(5).integers(0, 2, (60, 75, 3), np.uint8) * np.uint8(255)
    seen: list[Tensor] = []
    plain = encoder._features

    class Watching(ValueFeatures):
        def __call__(self, pixels: Tensor) -> Tensor:
            seen.append(pixels)
            return plain(pixels)

    encoder._features = Watching(encoder.model.vision_encoder)
    encoder.whole_cosines(image, (56, 70), vectors)
    expected = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None] / 255, size=(56, 70), mode="bicubic", align_corners=False
    )
    assert expected.min() < 0  # not clamped
    assert expected.max() > 1
    assert torch.equal(seen[0], expected.to(encoder.dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_pixels_are_scaled_before_they_are_rounded(mlp_checkpoint: Path, dtype: str) -> None:
    encoder = Encoder(mlp_checkpoint, "cpu", dtype)
    image = np.arange(56 * 56 * 3, dtype=np.uint8).reshape(1, 56, 56, 3)
    expected = (torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255).to(encoder.dtype)
    assert torch.equal(encoder._to_pixels(image), expected)


def test_cosines_are_of_features_that_are_normalised_in_float32(mlp_checkpoint: Path) -> None:
    encoder = Encoder(mlp_checkpoint, "cpu", "bfloat16")
    (cosines,) = encoder.window_cosines(windows(1), torch.eye(encoder.width))  # the features themselves
    torch.testing.assert_close(cosines.norm(dim=-1), torch.ones(4, 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("asked", "name"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_the_dtype_is_told_by_its_own_name(mlp_checkpoint: Path, asked: str, name: str) -> None:
    assert Encoder(mlp_checkpoint, "cpu", asked).dtype_name == name


def test_a_batch_of_none_is_refused(mlp_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="batch size must be a whole number from 1 on, not 0"):
        Encoder(mlp_checkpoint, "cpu", "float32", batch_size=0)


def test_a_phrase_of_nothing_and_odd_phrases_have_vectors(mlp_checkpoint: Path) -> None:
    encoder = Encoder(mlp_checkpoint, "cpu", "float32")
    assert torch.isfinite(encoder.encode_text([""], ["{}"])).all()
    assert torch.equal(encoder.encode_text(["tree"], ["a {} {x}"]), encoder.encode_text(["a tree {x}"], ["{}"]))
    assert torch.equal(encoder.encode_text(["tree"], ["a {} and {}"]), encoder.encode_text(["a tree and tree"], ["{}"]))


def test_templates_count_alike(mlp_checkpoint: Path) -> None:
    encoder = Encoder(mlp_checkpoint, "cpu", "float32")
    ways = [encoder.encode_text(["tree"], [way]) for way in ("a {}", "a photo of the {} there")]
    mean = F.normalize((ways[0] + ways[1]) / 2, dim=-1)
    torch.testing.assert_close(encoder.encode_text(["tree"], ["a {}", "a photo of the {} there"]), mean)
