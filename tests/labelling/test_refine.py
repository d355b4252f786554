from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tipsseg.labelling import refine
from tipsseg.labelling.refine import pamr


def random_maps(count: int, size: tuple[int, int], seed: int = 1) -> torch.Tensor:
    return torch.rand((count, *size), generator=torch.Generator().manual_seed(seed))


def random_image(size: tuple[int, int], seed: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def two_halves(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A dark and a light half with some noise, and where the light one is."""
    light = np.broadcast_to(np.arange(size[1]) >= size[1] // 2, size)
    noise = np.random.default_rng(3).integers(-5, 6, (*size, 3))
    return (np.where(light[..., None], 180, 60) + noise).astype(np.uint8), light


def straightforward(
    maps: NDArray[np.float32], image: NDArray[np.uint8], dilations: tuple[int, ...], iterations: int
) -> NDArray[np.float64]:
    """The published formulas, pixel by pixel."""
    height, width = image.shape[:2]
    pixels, current = image.astype(np.float64), maps.astype(np.float64)
    steps = [(d * y, d * x) for d in dilations for y, x in product((-1, 0, 1), repeat=2) if (y, x) != (0, 0)]
    for _ in range(iterations):
        result = np.empty_like(current)
        for y, x in product(range(height), range(width)):
            near = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in steps]
            colours = np.array([pixels[place] for place in near])  # [N, 3]
            sigma = colours.std(0, ddof=1)
            sigma[sigma == 0] = np.inf
            score = np.exp((-np.abs(colours - pixels[y, x]) / (0.1 * sigma)).mean(1))
            result[:, y, x] = sum(w * current[:, a, b] for w, (a, b) in zip(score / score.sum(), near, strict=True))
        current = result
    return current


@pytest.mark.parametrize(("dilations", "iterations"), [((1,), 1), ((2,), 3), ((1, 3), 2), ((8, 16), 2)])
def test_refinement_follows_the_published_formulas(
    monkeypatch: pytest.MonkeyPatch, dilations: tuple[int, ...], iterations: int
) -> None:
    monkeypatch.setattr(refine, "_DILATIONS", dilations)
    monkeypatch.setattr(refine, "_ITERATIONS", iterations)
    maps, image = random_maps(2, (9, 12)), random_image((9, 12))
    image[5:, 6:, 0] = 77  # here and there a channel without any spread
    expected = straightforward(maps.numpy(), image, dilations, iterations)
    np.testing.assert_allclose(pamr(maps, image).numpy(), expected, atol=1e-5)
    assert np.abs(expected - maps.numpy()).max() > 0.1


@pytest.mark.parametrize("pixels", [200, 400, 800], ids=["mostly margins", "small tiles", "large tiles"])
@pytest.mark.parametrize("size", [(17, 50), (50, 17), (31, 31), (1, 200)])
def test_tiles_do_not_change_values(monkeypatch: pytest.MonkeyPatch, pixels: int, size: tuple[int, int]) -> None:
    maps, image = random_maps(3, size), random_image(size)
    monkeypatch.setattr(refine, "_DILATIONS", (1, 3))
    monkeypatch.setattr(refine, "_ITERATIONS", 2)
    whole = pamr(maps, image)
    monkeypatch.setattr(refine, "_TILE_PIXELS", pixels)
    tiles = list(refine._tiles(size, 6))
    assert (len(tiles) > 1) == (pixels < size[0] * size[1])
    np.testing.assert_allclose(pamr(maps, image).numpy(), whole.numpy(), atol=1e-6)


@pytest.mark.parametrize("margin", [0, 20, 160, 240])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (4000, 1), (1000, 4000), (4000, 1000), (3000, 3500), (3500, 3000)]
)
def test_tiles_are_bounded_and_cover_the_image_once(height: int, width: int, margin: int) -> None:
    covered = np.zeros((height, width), np.uint8)
    for cores, outer, _ in refine._tiles((height, width), margin):
        sides = [part.stop - part.start for part in outer]
        assert sides[0] * sides[1] <= refine._TILE_PIXELS
        covered[cores] += 1
        for core, around, length in zip(cores, outer, (height, width), strict=True):
            assert around.start == max(core.start - margin, 0)
            assert around.stop == min(core.stop + margin, length)
    assert (covered == 1).all()


CASES = {
    "one row": (1, 60),
    "one column": (60, 1),
    "one pixel": (1, 1),
    "smaller than a dilation": (5, 7),
    "no maps": (20, 20),
}


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "noisy"])
@pytest.mark.parametrize("case", CASES)
def test_odd_images(case: str, plain: bool) -> None:
    size = CASES[case]
    image = np.full((*size, 3), 200, np.uint8) if plain else random_image(size)
    maps = random_maps(0 if case == "no maps" else 2, size)
    refined = pamr(maps, image)
    assert refined.shape == maps.shape
    assert refined.dtype == torch.float32
    assert refined.isfinite().all()
    assert ((refined >= 0) & (refined <= 1 + 1e-6)).all()


def test_labels_move_to_the_edge() -> None:
    image, light = two_halves((64, 96))
    ramp = np.clip((np.arange(96) - 32) / 16, 0, 1).astype(np.float32)  # its middle is 8 pixels too far to the left
    maps = torch.from_numpy(np.stack([np.tile(1 - ramp, (64, 1)), np.tile(ramp, (64, 1))]))
    wrong_before = ((maps[1] > 0.5).numpy() != light).mean()
    wrong = ((pamr(maps, image)[1] > 0.5).numpy() != light).mean()
    assert wrong_before > 0.07
    assert wrong < 0.005
