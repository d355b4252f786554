"""On a GPU, CUDA or MPS: labels and scores are those of the CPU, nothing waits for them, and memory that runs out halves the batch.

Skipped where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from tipsseg import Features, Labeller, LabelOptions, label_folder, load, make_vocabulary
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.errors import DeviceError
from tipsseg.labelling.assign import LabelTable
from tipsseg.labelling.device_scores import DeviceLabels, DeviceScorer
from tipsseg.labelling.features import encode_prepared, round_features
from tipsseg.labelling.golden import draw_picture
from tipsseg.labelling.view import make_plan, view_of
from tipsseg.options import Dtype, FeatureDtype, Mode, Refinement
from tipsseg.types import LabelArray, WindowPlan, ignore_id, label_dtype

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason="there is no GPU"
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "mps")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA limits memory, and tells what waits")
CLASSES = ["panda", "tree", "house", "car", "sky", "grass"]


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("refine", ["none", "pamr", "pamr-guided"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_labels_agree_with_those_of_the_cpu(
    tiny_checkpoint: Path, mode: Mode, refine: Refinement, dtype: Dtype
) -> None:
    options = LabelOptions(mode=mode, refine=refine)
    image = draw_picture(480, 640)
    runs: tuple[tuple[str, Dtype], ...] = (("cpu", "float32"), (DEVICE.type, dtype))
    expected, got = (
        Labeller(load(tiny_checkpoint, device=device, dtype=kind), make_vocabulary(CLASSES), options)
        .label(image)
        .labels
        for device, kind in runs
    )
    assert (got == expected).mean() >= 0.99


@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_labels_do_not_depend_on_what_shares_the_batch(tiny_checkpoint: Path, dtype: str) -> None:
    backbone = Tipsv2Backbone(tiny_checkpoint, DEVICE.type, dtype, batch_size=4)
    rng = np.random.default_rng(1)
    windows = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(7)]
    together = backbone.encode_windows(windows)
    for number, window in enumerate(windows):
        alone = backbone.encode_windows([window])
        assert torch.equal(alone.patches[0], together.patches[number])
        assert torch.equal(alone.class_tokens[0], together.class_tokens[number])


@needs_cuda
def test_memory_that_runs_out_halves_the_batch(tiny_checkpoint: Path) -> None:
    backbone = Tipsv2Backbone(tiny_checkpoint, DEVICE.type, "float32", batch_size=4096)
    told: list[int] = []
    backbone.on_less_memory = told.append
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(0.9, 2e9 / total))
    try:
        window = np.zeros((224, 224, 3), np.uint8)
        features = backbone.encode_windows([window] * 4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert told
    assert backbone.batch_size < 4096
    assert torch.isfinite(features.patches).all()
    assert free


# ---- scores ----


def windows_of(groups: Sequence[int], size: tuple[int, int], mode: Mode) -> tuple[torch.Tensor, WindowPlan]:
    """Cosines [B, 16, 16, P] in which nothing that a patch says is said by the next, on the CPU."""
    plan = make_plan(size, 224, 224, 14, mode)
    shape = (len(plan.corners), 16, 16) if plan.corners else (1, 16, 16 * size[1] // size[0])
    values = np.random.default_rng(2).random((*shape, sum(groups)), np.float32) * 0.4 - 0.2
    return torch.from_numpy(values), plan


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize(
    ("groups", "least"),
    [
        pytest.param([1], 0.0, id="one class"),
        pytest.param([1] * 31, 0.0, id="31 classes"),
        pytest.param([1] * 31, 0.3, id="31 classes, minimum confidence"),
        pytest.param([3, 1, 1, 4, 2, 2, 25], 0.3, id="synonyms"),
        pytest.param([1] * 1000, 0.0, id="1000 classes in 16 bits"),
    ],
)
def test_scores_agree_with_those_of_the_cpu(groups: list[int], least: float, mode: Mode) -> None:
    """Both devices run the same code; other tests compare it with the protocol."""
    size = (300, 400)
    count = len(groups)
    ids = cast(LabelArray, np.arange(1, count + 1, dtype=label_dtype(count)))
    table = LabelTable(groups, ids, np.full(count + 1, least, np.float32), ignore_id(count))
    cosines, plan = windows_of(groups, size, mode)
    made = []
    for device in (torch.device("cpu"), DEVICE):
        done = (
            DeviceScorer(table, 0.05, device)
            .send([cosines.to(device)], [plan], size, torch.ones(1, 2, device=device), (16, 21), 3)
            .wait()
        )
        assert done is not None
        made.append(done)
    (expected, best), (got, top) = made
    assert (got.labels == expected.labels).mean() > 0.9999
    np.testing.assert_allclose(got.confidence, expected.confidence, rtol=2**-9)
    assert best is not None
    assert top is not None
    assert (top.ids == best.ids).mean() > 0.99
    fetched = DeviceScorer(table, 0.05, DEVICE).fetch([cosines.to(DEVICE)], [plan], size, nullcontext)
    assert (fetched.labels == got.labels).all()


@needs_cuda
def test_nothing_waits_for_the_device_before_labels_are_asked_for(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, device=str(DEVICE))
    labeller = Labeller(model, make_vocabulary(CLASSES))
    features = model.encode(draw_picture(480, 640))
    labeller.score(features.scales, 3)  # brings the weights of resizing there
    torch.cuda.set_sync_debug_mode("error")
    try:
        scored = labeller.score(features.scales, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(scored, DeviceLabels)
    assert labeller.assign(scored).labels.shape == (480, 640)


def test_values_that_are_no_numbers_are_an_error(tiny_checkpoint: Path) -> None:
    model = load(tiny_checkpoint, device=str(DEVICE))
    labeller = Labeller(model, make_vocabulary(CLASSES))
    features = model.encode(draw_picture(100, 120))
    broken = Features(features.size, features.plan, torch.full_like(features.patches, torch.nan), features.class_tokens)
    with pytest.raises(DeviceError, match="infinity, NaN or zeros"):
        labeller.label(broken)


@pytest.mark.parametrize("formats", [("png", "coco"), ("png", "npz")], ids=["labels", "best classes"])
def test_a_folder_has_the_labels_of_the_cpu(tiny_checkpoint: Path, tmp_path: Path, formats: tuple[str, ...]) -> None:
    (tmp_path / "imgs").mkdir()
    for number, size in enumerate([(480, 640), (300, 200), (480, 640), (224, 224), (90, 700)]):
        Image.fromarray(np.roll(draw_picture(*size), number, 2)).save(tmp_path / "imgs" / f"{number}.png")
    masks = []
    for name, device in (("a", "cpu"), ("b", str(DEVICE)), ("c", str(DEVICE))):
        done = label_folder(
            tmp_path / "imgs",
            CLASSES,
            output=tmp_path / name,
            formats=formats,
            model=tiny_checkpoint,
            device=device,
            dtype="float32",
        )
        assert done.count("labelled") == 5
        masks.append([path.read_bytes() for path in sorted((tmp_path / name / "masks").iterdir())])
    assert masks[1] == masks[2]
    for one, other in zip(masks[0], masks[1], strict=True):
        pixels = [np.asarray(Image.open(BytesIO(each))) for each in (one, other)]
        assert (pixels[0] == pixels[1]).mean() > 0.99


@needs_cuda
@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_nothing_waits_for_the_device_while_windows_are_encoded_and_kept(
    tiny_checkpoint: Path, dtype: FeatureDtype
) -> None:
    model = load(tiny_checkpoint, device=str(DEVICE))
    prepared = view_of(model.backbone, LabelOptions()).prepare(Image.fromarray(draw_picture(480, 640)))
    round_features(encode_prepared(model.backbone, prepared), dtype).record()  # memory is pinned the first time
    torch.cuda.set_sync_debug_mode("error")
    try:
        rounded = round_features(encode_prepared(model.backbone, prepared), dtype)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    rounded.record().to_float32()
