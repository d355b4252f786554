"""Make a drawn scene harder and more like a photograph.

Every surface gets a texture from a photograph, by its brightness or with its colours. Small objects are added, and large ones in
front; then haze, a colour cast, blur, noise and JPEG compression. The truth of added objects is 0.

The photographs are part of the package scikit-image, for example brick, grass and gravel:

    pip install scikit-image

Nothing is downloaded, and no code of that package runs. Equal seeds and photographs give equal pixels, except for JPEG, which
depends on the version of OpenCV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinytips.world.concepts import LEAF_LIST
from tinytips.world.shapes import ellipse, quad

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Photographs of scikit-image 0.26: three textures, and pictures whose crops serve as such.
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PICTURES = ("coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")

#: Surfaces that one of the textures is a photograph of; half of the time they get it.
_NATURAL = {
    "grass": "grass.png",
    "tree crown": "grass.png",
    "sand": "gravel.png",
    "road": "gravel.png",
    "rock": "gravel.png",
    "mountain": "gravel.png",
    "house wall": "brick.png",
    "house roof": "brick.png",
}


@dataclass(frozen=True, slots=True, eq=False)
class Hardness:
    """How far everything goes; each number is the most that may be drawn.

    Attributes:
        texture: Standard deviation that a texture adds to a surface, in grey levels.
        colours: Share of a photograph's own colours in a surface, where it has any.
        clutter: How many small things lie about.
        occluders: How many large things stand in front.
        haze: The optical depth at the horizon.
        tint: How far gains of the three channels, and gamma, go from 1.
        blur: In pixels at a short side of 448.
        noise: In grey levels.
        quality: Of JPEG, the lowest and the highest.
    """

    texture: float = 22
    colours: float = 0.3
    clutter: int = 12
    occluders: int = 3
    haze: float = 0.7
    tint: float = 0.18
    blur: float = 2.0
    noise: float = 8
    quality: tuple[int, int] = (15, 60)


def harden(image: Bytes, leaves: Bytes, seed: int, hardness: Hardness | None = None) -> tuple[Bytes, Bytes]:
    """Return the image [H, W, 3] and its truth [H, W]: leaf ids, and 0 for added objects."""
    rng = np.random.default_rng([seed, 7])
    hardness = hardness or Hardness()
    pixels, truth = image.astype(np.float32), leaves.copy()
    _fill(rng, pixels, truth, hardness)
    _clutter(rng, pixels, truth, hardness)
    _occlude(rng, pixels, truth, hardness)
    pixels = _haze(rng, pixels, hardness)
    pixels = _tint(rng, pixels, hardness)
    pixels = _blur(rng, pixels, hardness)
    pixels += rng.normal(0, rng.uniform(1, hardness.noise), truth.shape).astype(np.float32)[..., None]
    return _jpeg(np.clip(np.round(pixels), 0, 255).astype(np.uint8), int(rng.integers(*hardness.quality))), truth


@cache
def photographs() -> Mapping[str, Floats]:
    """Return photographs by name, [h, w, 3] RGB."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The harder world takes its photographs from a package: pip install scikit-image")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    found = {}
    for name in (*TEXTURES, *PICTURES):
        read = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if read is None:
            raise SystemExit(f"{folder / name}: no photograph. scikit-image 0.26 has it.")
        found[name] = np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.float32)
    return found


def _crop(rng: np.random.Generator, name: str, size: tuple[int, int]) -> Floats:
    """Cut a random piece of a photograph, scaled and rotated, and continued by mirrored copies if it is too small."""
    photograph = photographs()[name]
    scale = rng.uniform(0.4, 1.2) * max(min(size) / 300, 0.5)
    photograph = np.rot90(photograph, int(rng.integers(4)))
    resized = np.asarray(cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.float32)
    missing = [max(wanted - length, 0) for wanted, length in zip(size, resized.shape, strict=False)]
    resized = np.pad(resized, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")
    top, left = (int(rng.integers(length - wanted + 1)) for wanted, length in zip(size, resized.shape, strict=False))
    return resized[top : top + size[0], left : left + size[1]]


def _fill(rng: np.random.Generator, pixels: Floats, truth: Bytes, hardness: Hardness) -> None:
    """Give every surface a texture."""
    for leaf, name in enumerate(LEAF_LIST, start=1):
        inside = truth == leaf
        if not inside.any():
            continue
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        here = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        natural = name in _NATURAL and rng.random() < 0.5
        photograph = _NATURAL[name] if natural else str(rng.choice((*TEXTURES, *PICTURES)))
        chosen = inside[here]
        crop = _crop(rng, photograph, chosen.shape)
        grey = crop.mean(2)
        grey = (grey - grey[chosen].mean()) / max(float(grey[chosen].std()), 1.0)
        surface = pixels[here]
        if rng.random() < 0.5:
            share = np.float32(rng.uniform(0, hardness.colours))
            surface[chosen] = (1 - share) * surface[chosen] + share * crop[chosen]
        surface[chosen] += (grey[chosen] * np.float32(rng.uniform(0.25, 1) * hardness.texture))[:, None]


def _clutter(rng: np.random.Generator, pixels: Floats, truth: Bytes, hardness: Hardness) -> None:
    """Add small objects: sticks, stones and scraps."""
    unit = min(truth.shape) / 224
    for _ in range(int(rng.integers(hardness.clutter // 3, hardness.clutter + 1))):
        x, y = rng.uniform(0, truth.shape[1]), rng.uniform(0.3, 1) * truth.shape[0]
        size = rng.uniform(3, 11) * unit
        match rng.integers(3):
            case 0:
                angle, long = rng.uniform(0, np.pi), size * rng.uniform(1.5, 4)
                along, across = (np.array((np.cos(a), np.sin(a))) for a in (angle, angle + np.pi / 2))
                ends = (-along * long - across * size / 4, along * long - across * size / 4)
                corners = np.array([*ends, *(-end for end in ends)])
                outline = corners + np.array((x, y))
            case 1:
                outline = ellipse(x, y, size, size * rng.uniform(0.5, 1))
            case _:
                angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
                outline = np.stack([x + size * np.cos(angles), y + size * np.sin(angles)], 1)
        _paste(rng, pixels, truth, outline, 0)


def _occlude(rng: np.random.Generator, pixels: Floats, truth: Bytes, hardness: Hardness) -> None:
    """Add large objects in front: posts, and blurred shapes at the edges."""
    height, width = truth.shape
    unit = min(truth.shape) / 224
    for _ in range(int(rng.integers(0, hardness.occluders + 1))):
        if rng.random() < 0.5:
            left, wide = rng.uniform(0, width), rng.uniform(4, 11) * unit
            outline = quad(left, rng.uniform(-0.2, 0.4) * height, left + wide, height + 2)
        else:
            side = rng.integers(3)  # left, right, below
            x = (0, width, rng.uniform(0, width))[side]
            y = height if side == 2 else rng.uniform(0.2, 1) * height
            outline = ellipse(x, y, rng.uniform(15, 40) * unit, rng.uniform(15, 40) * unit)
        _paste(rng, pixels, truth, outline, rng.uniform(0, 2) * unit)


def _paste(rng: np.random.Generator, pixels: Floats, truth: Bytes, outline: NDArray[np.float64], blur: float) -> None:
    """Put a piece of a photograph, in a colour of its own, over the pixels within an outline."""
    cover = np.zeros(truth.shape, np.uint8)
    cv2.fillPoly(cover, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    share = cover.astype(np.float32)
    if blur > 0.3:
        share = np.asarray(cv2.GaussianBlur(share, (0, 0), blur), np.float32)
    inside = share > 0
    if not inside.any():
        return
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    here = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    crop = _crop(rng, str(rng.choice((*TEXTURES, *PICTURES))), share[here].shape)
    colour = rng.uniform(30, 225, 3).astype(np.float32)
    own = np.float32(rng.uniform(0.2, 0.8))
    surface = own * crop + (1 - own) * colour
    pixels[here] += share[here][..., None] * (surface - pixels[here])
    truth[here][share[here] >= 0.5] = 0


def _haze(rng: np.random.Generator, pixels: Floats, hardness: Hardness) -> Floats:
    """Blend the upper part, which is far away, with the colour of the air."""
    depth = np.clip(np.linspace(1.4, 0, len(pixels), dtype=np.float32), 0, 1)[:, None, None]
    seen = np.exp(-depth * np.float32(rng.uniform(0, hardness.haze)))
    air = np.float32(rng.uniform(170, 235)) + rng.uniform(-12, 12, 3).astype(np.float32)
    return np.asarray(pixels * seen + air * (1 - seen), np.float32)


def _tint(rng: np.random.Generator, pixels: Floats, hardness: Hardness) -> Floats:
    """Change the light and the camera: gains, gamma, saturation."""
    gains = 1 + rng.uniform(-hardness.tint, hardness.tint, 3).astype(np.float32)
    gamma = np.float32(np.exp(rng.uniform(-hardness.tint, hardness.tint) * 1.4))
    saturation = np.float32(rng.uniform(0.35, 1.25))
    lit = np.clip(pixels * gains, 0, 255)
    lit = 255 * (lit / 255) ** gamma
    grey = lit.mean(2, keepdims=True)
    return np.asarray(grey + saturation * (lit - grey), np.float32)


def _blur(rng: np.random.Generator, pixels: Floats, hardness: Hardness) -> Floats:
    """Blur the image, like a camera out of focus or in motion."""
    unit = min(pixels.shape[:2]) / 448
    amount = rng.uniform(0.2, hardness.blur) * unit
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(amount, 0.2)), np.float32)
    length = 2 * max(round(amount * 2), 1) + 1
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array((np.cos(angle), np.sin(angle))) * (length // 2)
    ends = [tuple(np.round(length // 2 + sign * reach).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.float32)


def _jpeg(image: Bytes, quality: int) -> Bytes:
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
