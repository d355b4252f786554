"""A painter that keeps the truth: every textured polygon changes the image and its mask together.

Geometry is in units of 1/224 of the image's shorter side. A part that is 28 units wide spans two patches of the embedded model,
whatever the size of the image. Points are (x, y), as OpenCV wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from tinytips.world.concepts import LEAF_ID

Points = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that was painted: its leaf, and the colour that most of it has."""

    leaf: str
    colour: Colour


@cache
def _textures() -> dict[str, NDArray[np.float32]]:
    """Tiles of zero-mean noise, about one standard deviation in size, that surfaces are modulated with."""
    rng = np.random.default_rng(20260412)
    white = rng.standard_normal((1024, 1024)).astype(np.float32)
    tiles = {
        "fine": cv2.GaussianBlur(white, (0, 0), 0.7),
        "blotch": cv2.GaussianBlur(white, (0, 0), 7),
        "horizontal": cv2.GaussianBlur(white, (0, 0), sigmaX=14, sigmaY=1.2),
        "vertical": cv2.GaussianBlur(white, (0, 0), sigmaX=1.0, sigmaY=6),
        "leafy": cv2.GaussianBlur(white, (0, 0), 2.5),
    }
    return {name: tile / tile.std() for name, tile in tiles.items()}


class Painter:
    """An image and its truth, painted together: what is drawn later hides what was there."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.scale = min(height, width) / 224
        self.height = height / self.scale
        self.width = width / self.scale
        self.image = np.zeros((height, width, 3), np.float32)
        self.truth = np.zeros((height, width), np.uint8)
        self._shapes: dict[str, list[tuple[int, Colour]]] = {}

    def parts(self) -> tuple[Part, ...]:
        """What was painted since this was asked last."""
        parts = tuple(Part(leaf, _most(shapes)) for leaf, shapes in self._shapes.items())
        self._shapes = {}
        return parts

    def fill(
        self,
        points: Points,
        leaf: str | None,
        colour: Colour,
        texture: str = "fine",
        strength: float = 6.0,
        shade: float = 0.0,
    ) -> None:
        """Fill a polygon with a textured colour; `leaf` None paints decoration that leaves the truth as it is.

        `shade` darkens the polygon towards its lower edge by that share.
        """
        pixels = np.asarray(points, np.float64) * self.scale
        left, top = np.maximum(np.floor(pixels.min(0)).astype(int) - 1, 0)
        right = min(int(np.ceil(pixels[:, 0].max())) + 2, self.truth.shape[1])
        bottom = min(int(np.ceil(pixels[:, 1].max())) + 2, self.truth.shape[0])
        if right <= left or bottom <= top:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [np.round((pixels - (left, top)) * 16).astype(np.int32)], 1, shift=4)
        inside = mask.astype(bool)
        tile = _textures()[texture]
        dy, dx = self.rng.integers(0, tile.shape[0], 2)
        noise = np.take(
            np.take(tile, np.arange(dy, dy + mask.shape[0]), axis=0, mode="wrap"),
            np.arange(dx, dx + mask.shape[1]),
            axis=1,
            mode="wrap",
        )
        gain = 1 - shade * np.linspace(0, 1, mask.shape[0], dtype=np.float32)[:, None]
        surface = np.asarray(colour, np.float32) * gain[..., None] + (noise * strength)[..., None]
        self.image[top:bottom, left:right][inside] = surface[inside]
        if leaf is not None:
            self.truth[top:bottom, left:right][inside] = LEAF_ID[leaf]
            self._shapes.setdefault(leaf, []).append((int(np.count_nonzero(mask)), colour))

    def finish(self) -> NDArray[np.uint8]:
        """Light falling in from a side, a colour cast, a little blur and sensor noise; [H, W, 3] uint8."""
        rng = self.rng
        height, width = self.truth.shape
        angle, amount = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle) * amount)
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle) * amount)
        light = (1 + rows + columns) * np.float32(rng.uniform(0.72, 1.12))
        cast = rng.uniform(0.93, 1.07, 3).astype(np.float32)
        image = self.image * light[..., None] * cast
        blur = float(rng.uniform(0.3, 0.9)) * max(self.scale / 2, 0.5)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.float32)
        tile = _textures()["fine"]
        dy, dx = rng.integers(0, tile.shape[0], 2)
        noise = np.take(
            np.take(tile, np.arange(dy, dy + height), axis=0, mode="wrap"),
            np.arange(dx, dx + width),
            axis=1,
            mode="wrap",
        )
        image = image + (noise * np.float32(rng.uniform(0.5, 4)))[..., None]
        return np.clip(np.round(image), 0, 255).astype(np.uint8)


def _most(shapes: Sequence[tuple[int, Colour]]) -> Colour:
    """The colour that most of the shapes have, by area, be it not quite the same."""

    def area(of: Colour) -> int:
        return sum(size for size, colour in shapes if np.linalg.norm(np.subtract(of, colour)) < 40)

    return max((colour for _, colour in shapes), key=area)
