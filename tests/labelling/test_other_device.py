"""A device that is not the CPU: all of its work is done there, its labels are those of the CPU, and little waits for it.

No GPU is needed, see `other_device`. On a CUDA GPU tests/gpu does the same with the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_device import OtherDevice, other_device
from PIL import Image
from typer.testing import CliRunner

import tipsseg
from tipsseg import ClassSpec, Features, Labeller, LabelOptions, Model
from tipsseg.backbones.devices import choose_device, resolve_device
from tipsseg.cli.main import app
from tipsseg.errors import DeviceError
from tipsseg.labelling.features import Batches, round_features
from tipsseg.labelling.golden import draw_picture
from tipsseg.labelling.view import view_of
from tipsseg.options import Dtype, FeatureDtype

CLASSES = ["panda leg", "tree", "sky", "grass", "car", "house roof"]


@pytest.fixture(params=["cuda", "mps"])
def device(request: pytest.FixtureRequest) -> Iterator[OtherDevice]:
    with other_device(request.param) as device:
        yield device


def towers(width: int, heads: int, hidden: float, **vision: object) -> dict[str, object]:
    """Towers in the proportions of a released model: `hidden` channels of the MLPs for each channel."""
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": 2}
    text = {"vocab_size": 1200, "intermediate_size": round(hidden * width)}
    return {
        "model_type": "tipsv2",
        "temperature_init_value": 0.02,
        "vision_config": {**sizes, "image_size": 56, "mlp_ratio": hidden, **vision},
        "text_config": {**sizes, **text},
    }


TOWERS = {
    "so400m14": towers(144, 2, 4304 / 1152),
    "g14": towers(128, 2, 4, use_swiglu_ffn=True),
    "three heads": towers(42, 3, 4),
}


@pytest.fixture(params=[*TOWERS, "mlp", "swiglu", "tiny"])
def folder(request: pytest.FixtureRequest, make_checkpoint: Callable[[str, Mapping[str, object]], Path]) -> Path:
    if request.param in TOWERS:
        return make_checkpoint(request.param, TOWERS[request.param])
    checkpoint: Path = request.getfixturevalue(f"{request.param}_checkpoint")
    return checkpoint


def model_on(device: OtherDevice, folder: Path, batch_size: int = 3, dtype: Dtype = "float32") -> Model:
    return tipsseg.load(folder, device=device.device.type, dtype=dtype, batch_size=batch_size)


def on_cpu(features: Features) -> Features:
    finer = tuple(map(on_cpu, features.finer))
    return Features(features.size, features.plan, features.patches.cpu(), features.class_tokens.cpu(), finer)


# ---- labels, and what waits for the device ----

OPTIONS: dict[str, dict[str, Any]] = {
    "slide": {},
    "whole": {"mode": "whole"},
    "scales": {"scales": (0.75, 1, 1.75)},
    "minimum confidence": {"min_confidence": 0.3},
    "refined": {"refine": "pamr"},
    "scales, refined": {"refine": "pamr", "scales": (1, 1.75), "mode": "whole"},
}


@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_every_tower_gives_the_labels_of_the_cpu(folder: Path, device: OtherDevice, mode: Any) -> None:
    options = LabelOptions(mode=mode, short_side=70)
    image = draw_picture(60, 100)
    expected = Labeller(tipsseg.load(folder, device="cpu", dtype="float32"), CLASSES, options)
    labeller = Labeller(model_on(device, folder), CLASSES, options)
    assert labeller.vectors.device == device.device
    assert (labeller.label(image).labels == expected.label(image).labels).mean() > 0.99
    patches = labeller.model.encode(image, mode=mode).patches
    assert patches.device == device.device
    torch.testing.assert_close(patches.cpu(), expected.model.encode(image, mode=mode).patches, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_labels_are_those_of_the_cpu_and_wait_once_for_the_device(
    device: OtherDevice, mlp_checkpoint: Path, name: str
) -> None:
    options = LabelOptions(**OPTIONS[name])
    images = [np.roll(draw_picture(60, 100), step, 1) for step in (0, 9)]
    expected = list(Labeller(tipsseg.load(mlp_checkpoint, device="cpu"), CLASSES, options).label_many(images))
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES, options)
    labeller.label(images[0])  # brings what all images of this size need
    device.waits.clear()
    got = [labeller.label(image) for image in images]
    # For the labels; where they are refined, for the cosines before.
    assert len(device.waits) == len(images) * (2 if options.refine == "pamr" else 1), device.waits
    for one, other in zip(expected, got, strict=True):
        assert (one.labels == other.labels).mean() > 0.99
        np.testing.assert_allclose(other.confidence, one.confidence, atol=0.02)


def test_the_best_classes(device: OtherDevice, mlp_checkpoint: Path) -> None:
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES)
    host = Labeller(tipsseg.load(mlp_checkpoint, device="cpu", dtype="float32"), CLASSES)
    features, there = (each.model.encode(draw_picture(60, 100)) for each in (labeller, host))
    device.waits.clear()
    best = labeller.assign(labeller.score(features.scales, 3)).top
    expected = host.assign(host.score(there.scales, 3)).top
    assert best is not None
    assert expected is not None
    assert (best.ids == expected.ids).mean() > 0.99
    assert len(device.waits) == 1


# ---- batches, and memory that runs out ----


def test_windows_of_several_images_share_batches(device: OtherDevice, mlp_checkpoint: Path) -> None:
    labeller = Labeller(model_on(device, mlp_checkpoint, 4), CLASSES, LabelOptions(scales=(1, 1.75)))
    images = [draw_picture(*size) for size in ((60, 60), (60, 130), (56, 56))]
    alone = [labeller.label(image) for image in images]
    device.waits.clear()
    for one, other in zip(alone, labeller.label_many(images), strict=True):
        assert (one.labels == other.labels).all()
    assert len(device.waits) == len(images)


def test_a_batch_waits_for_more_images_while_the_device_computes(device: OtherDevice, mlp_checkpoint: Path) -> None:
    model = model_on(device, mlp_checkpoint, 4)
    prepared = view_of(model.backbone, LabelOptions()).prepare(Image.fromarray(draw_picture(56, 56)))
    batches = Batches[str](model.backbone)
    assert not batches.has_time()
    assert list(batches.add("a", prepared)) == []
    assert not batches.has_time()  # nothing was computed yet
    model.backbone.encode_windows(prepared.windows()).patches.square_()
    assert batches.has_time()
    torch.ones(1, device=device.device).cpu()  # waits for all of it
    assert not batches.has_time()
    assert [name for name, _ in batches.flush()] == ["a"]
    assert not batches.has_time()


def test_every_batch_is_the_same_operations_without_a_wait(folder: Path, device: OtherDevice) -> None:
    """What a captured graph needs: neither the pixels nor the number of windows decide what is computed."""
    backbone = model_on(device, folder, 4).backbone
    windows = [np.roll(draw_picture(56, 56), step, 1) for step in range(6)]
    backbone.encode_windows(windows[:4])  # allocates the buffers
    done = list[object]()
    device.waits.clear()
    for batch in (windows[:4], windows[4:6], [np.zeros_like(windows[0])] * 4):
        device.operations.clear()
        backbone.encode_windows(batch)
        done.append(list(device.operations))
    assert done[0]
    assert done[0] == done[1] == done[2]
    assert device.waits == []


def test_where_memory_runs_out_the_batch_is_halved(folder: Path, device: OtherDevice) -> None:
    windows = [np.roll(draw_picture(112, 112), step, 1) for step in range(11)]
    pair, backbone = (model_on(device, folder, size).backbone for size in (2, 8))
    told: list[int] = []
    backbone.on_less_memory = told.append
    device.largest = 0
    expected = pair.encode_windows(windows)
    device.holds = device.largest
    got = backbone.encode_windows(windows)
    assert (told, backbone.batch_size) == ([4, 2], 2)
    assert got.patches.device == device.device
    torch.testing.assert_close(got.patches.cpu(), expected.patches.cpu())
    torch.testing.assert_close(got.class_tokens.cpu(), expected.class_tokens.cpu())


@pytest.mark.parametrize(
    ("mode", "when", "message"),
    [
        ("slide", "encoding", "not enough memory on the device for one window"),
        ("whole", "encoding", "not enough memory on the device to encode 98 x 56 pixels in one piece"),
        ("slide", "scoring", "not enough memory on the device for the scores"),
    ],
)
def test_a_device_that_holds_too_little_is_an_error(
    device: OtherDevice, mlp_checkpoint: Path, mode: Any, when: str, message: str
) -> None:
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES, LabelOptions(mode=mode))
    image = draw_picture(60, 100)
    features = labeller.model.encode(image, mode=mode)
    device.holds = 1000
    with pytest.raises(DeviceError, match=message):
        labeller.label(image if when == "encoding" else features)


def test_scores_that_do_not_fit_go_on_in_smaller_tiles(device: OtherDevice, mlp_checkpoint: Path) -> None:
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES)
    image = draw_picture(600, 800)
    features = labeller.model.encode(image)
    device.largest = 0
    expected = labeller.label(features)
    device.holds = device.largest // 3
    got = labeller.label(features)
    assert (got.labels == expected.labels).mean() > 0.9999


@pytest.mark.parametrize("options", [{}, {"refine": "pamr"}], ids=["labels", "refined"])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_features_that_are_no_unit_vectors_are_an_error(
    device: OtherDevice, mlp_checkpoint: Path, options: Any, value: float
) -> None:
    """As a device leaves them whose work failed; any patch tells."""
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES, LabelOptions(**options))
    image = draw_picture(60, 100)
    features = labeller.model.encode(image)
    patches = features.patches.cpu()
    patches[0, 1, 2] = value
    features = replace(features, patches=patches.to(device.device))
    with pytest.raises(DeviceError, match="infinity, NaN or zeros"):
        labeller.label(features, guide=image)


def test_a_large_image_waits_four_times_and_not_while_it_is_scored(
    device: OtherDevice, mlp_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with parts and names, whose cosines stay on the device."""
    monkeypatch.setattr("tipsseg.labelling.labeller._MAX_ASYNC_PIXELS", 1000)
    monkeypatch.setattr("tipsseg.labelling.device_scores._BAND_PIXELS", 100)
    image = draw_picture(60, 100)
    names: list[str | ClassSpec] = ["panda", ClassSpec("leg", part_of="panda"), "tree"]
    cases: list[tuple[list[str | ClassSpec], list[str] | None, int]] = [
        ([*CLASSES], None, 4),
        (names, None, 8),
        ([*CLASSES], [CLASSES[0]], 4),
    ]
    for classes, chosen, most in cases:
        labeller = Labeller(model_on(device, mlp_checkpoint), classes)
        expected = Labeller(tipsseg.load(mlp_checkpoint, device="cpu"), classes).label(image, names=chosen)
        labeller.label(image, names=chosen)
        device.waits.clear()
        got = labeller.label(image, names=chosen)
        assert len(device.waits) <= most, device.waits
        assert (got.labels == expected.labels).mean() > 0.99


def test_auto_takes_a_device_that_works(device: OtherDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device() == (torch.device(device.device.type), "")
    ones = torch.ones

    def broken(*size: Any, **more: Any) -> torch.Tensor:
        if more.get("device") is not None:
            raise RuntimeError("no kernel image is available for execution on the device\nCompile with ...")
        return ones(*size, **more)

    monkeypatch.setattr(torch, "ones", broken)
    chosen, failed = choose_device()
    assert chosen == torch.device("cpu")
    assert failed.startswith(f"Device {device.device.type} does not work: no kernel image")
    assert "Compile" not in failed
    assert resolve_device(device.device.type).type == device.device.type  # a named one gets its own error


# ---- features and fits ----


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_features_go_to_a_file_and_back(
    device: OtherDevice, mlp_checkpoint: Path, tmp_path: Path, dtype: FeatureDtype
) -> None:
    labeller = Labeller(model_on(device, mlp_checkpoint), CLASSES)
    features = labeller.model.encode(draw_picture(60, 100))
    device.waits.clear()
    rounded = round_features(features, dtype)
    assert device.waits == []
    features.save(tmp_path / "a.safetensors", dtype)
    assert len(device.waits) == 1
    labeller.score(features.scales)
    again = Features.load(tmp_path / "a.safetensors", device.device)
    assert len(device.waits) == 1
    assert again.patches.device == device.device
    assert torch.equal(again.patches.cpu(), rounded.features.patches.cpu())
    assert (labeller.label(again).labels == labeller.label(features).labels).mean() > 0.98


def test_a_fit_is_that_of_the_same_features_on_the_cpu(device: OtherDevice, tiny_checkpoint: Path) -> None:
    options = LabelOptions(short_side=56)
    model = model_on(device, tiny_checkpoint)
    images = [np.roll(draw_picture(56, 70), step, 1) for step in (0, 20, 40)]
    features = [model.encode(image, short_side=56) for image in images]
    masks = [(1 + (image[..., 0] > 128) + (image[..., 1] > 128)).astype(np.uint8) for image in images[:2]]
    fitted = tipsseg.learn.fit(model, features[:2], masks, ["a", "b", "sky"], options, unlabelled=features[2:])
    cpu = tipsseg.load(tiny_checkpoint, device="cpu", dtype="float32")
    known = list(map(on_cpu, features))
    expected = tipsseg.learn.fit(cpu, known[:2], masks, ["a", "b", "sky"], options, unlabelled=known[2:])
    np.testing.assert_allclose(fitted.vectors, expected.vectors, atol=1e-4)
    np.testing.assert_allclose(fitted.biases, expected.biases, atol=1e-4)
    labels = Labeller(model, fitted, options).label(images[2]).labels
    assert (labels == Labeller(cpu, expected, options).label(images[2]).labels).mean() > 0.99


# ---- the command ----


def test_the_commands_of_the_loop(device: OtherDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(4)]
    for folder in ("imgs", "gt"):
        Path(folder).mkdir()
    for name, size in zip(names, [(56, 70), (56, 56), (56, 70), (60, 56)], strict=True):
        image = np.roll(draw_picture(*size), int(name[0]) * 7, 1)
        Image.fromarray(image).save(f"imgs/{name}")
        Image.fromarray(image[..., 0] // 128 + 1).save(f"gt/{name}")

    def run(command: str, *model: str, on: str = device.device.type) -> None:
        place = [] if command.startswith("correct") else ["--device", on]
        done = CliRunner().invoke(app, [*command.split(), *model, *place], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr

    model = ("-m", "tiny", "--short-side", "56", "--dtype", "float32")
    run("encode imgs -o feats", *model)
    run("label imgs -c tree,sky -f png,npz -o known --features feats", *model)
    run("label imgs -c tree,sky -o cpu", *model, on="cpu")
    for name in names:
        one, other = (np.asarray(Image.open(f"{folder}/masks/{name}")) for folder in ("known", "cpu"))
        assert (one == other).mean() > 0.98
    run("label imgs -c tree,sky -o fine --refine pamr", *model)
    run("label imgs -c a,b --background none -f png -o words", *model)
    run("correct words --from gt --accept")
    run("fit words -o a.fit")
    run("label imgs --vocab a.fit -o fitted", *model)
    run("doctor")
    assert sorted(set(device.unguarded)) == []


# ---- the judge: what a device refuses, and what waits for it ----
