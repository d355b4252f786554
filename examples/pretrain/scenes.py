"""Draws scenes with exact truth masks: seeded, varied in pose, size, colour, texture, clutter and light.

Geometry is in units of 1/224 of the image's shorter side, so that a part that is 28 units wide spans two patches of the
embedded model, whatever the size of the picture. Points are (x, y), as OpenCV wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from world import LEAF_ID

Points = NDArray[np.float64]
Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that was painted: its leaf, and the colour that most of it has."""

    leaf: str
    colour: Colour


@dataclass(frozen=True, slots=True)
class Thing:
    """A whole object: what it is called, where its foot stands in shares of the width, and its parts in the order of painting."""

    name: str
    middle: float
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and what is in it.

    image   [H, W, 3] uint8 RGB
    truth   [H, W] uint8 leaf ids
    things  the whole objects, back to front
    ground  the sky, what is in it, and what things stand on
    place   "meadow", "beach", "lake", "street", "desert" or "sea"
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    things: tuple[Thing, ...]
    ground: tuple[Part, ...]
    place: str


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


# -- shapes ---------------------------------------------------------------------------------------------------------------


def ellipse(
    x: float, y: float, rx: float, ry: float, tilt: float = 0.0, start: float = 0.0, stop: float = 360.0
) -> Points:
    """Points of an ellipse, or of a sector's arc, around (x, y); angles in degrees, `tilt` turns clockwise."""
    angles = np.radians(np.linspace(start, stop, 40))
    px, py = rx * np.cos(angles), ry * np.sin(angles)
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    return np.stack([x + c * px - s * py, y + s * px + c * py], axis=1)


def quad(x0: float, y0: float, x1: float, y1: float) -> Points:
    """An upright rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def limb(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A thick line with round ends."""
    angle = np.degrees(np.arctan2(y1 - y0, x1 - x0))
    radius = width / 2
    return np.concatenate(
        [
            ellipse(x0, y0, radius, radius, angle, 90, 270),
            ellipse(x1, y1, radius, radius, angle, -90, 90),
        ]
    )


def blob(rng: np.random.Generator, x: float, y: float, rx: float, ry: float, roughness: float) -> Points:
    """An irregular round shape."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 1 + roughness * np.interp(
        angles, np.linspace(0, 2 * np.pi, 9), np.append(values := rng.uniform(-1, 1, 8), values[0])
    )
    return np.stack([x + rx * radius * np.cos(angles), y + ry * radius * np.sin(angles)], axis=1)


def vary(rng: np.random.Generator, colour: Sequence[float], amount: float = 18) -> Colour:
    """A colour near `colour`: brightness and each channel moved by at most `amount`."""
    moved = np.clip(np.asarray(colour) + rng.uniform(-amount, amount) + rng.uniform(-amount / 2, amount / 2, 3), 0, 255)
    return float(moved[0]), float(moved[1]), float(moved[2])


def pick(rng: np.random.Generator, *choices: Sequence[float]) -> Colour:
    """One of the colours, varied."""
    return vary(rng, choices[rng.integers(len(choices))])


# -- things: each stands with its foot at (x, y) and reports how much room it takes ---------------------------------------------


def draw_tree(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    height = size * rng.uniform(105, 165)
    trunk_width = size * rng.uniform(20, 32)
    trunk_height = height * rng.uniform(0.38, 0.52)
    bark = pick(rng, (105, 72, 45), (82, 60, 44), (150, 140, 128))
    lean = rng.uniform(-0.08, 0.08) * trunk_height
    half = trunk_width / 2
    trunk = [(x - half * 1.15, y), (x + half * 1.15, y), (x + half * 0.85 + lean, y - trunk_height)]
    trunk.append((x - half * 0.85 + lean, y - trunk_height))
    p.fill(np.array(trunk), "tree trunk", bark, "vertical", rng.uniform(8, 18))
    leaves = pick(rng, (48, 110, 42), (70, 135, 55), (35, 90, 60), (188, 110, 40), (120, 140, 50))
    top, base = y - height, y - trunk_height * 0.82
    x += lean
    spread = size * rng.uniform(34, 52)
    if rng.random() < 0.4:
        tiers = int(rng.integers(2, 4))
        for tier in range(tiers):
            low = base - (base - top) * tier / tiers * 0.9
            high = low - (base - top) * (1.15 / tiers + 0.12)
            reach = spread * (1 - 0.22 * tier)
            tip = max(high, top)
            p.fill(np.array([(x - reach, low), (x + reach, low), (x, tip)]), "tree crown", leaves, "leafy", 12, 0.2)
    else:
        middle, radius = (top + base) / 2, (base - top) / 2
        p.fill(blob(rng, x, middle, spread, radius, 0.12), "tree crown", leaves, "leafy", 14, 0.25)
        for _ in range(int(rng.integers(2, 5))):
            dx, dy = rng.uniform(-0.6, 0.6) * spread, rng.uniform(-0.5, 0.4) * radius
            part = blob(rng, x + dx, middle + dy, spread * 0.55, radius * 0.6, 0.15)
            p.fill(part, "tree crown", vary(rng, leaves, 10), "leafy", 14, 0.2)


def draw_panda(p: Painter, x: float, y: float, size: float) -> None:
    if p.rng.random() < 0.3:
        _sitting_panda(p, x, y, size)
    else:
        _standing_panda(p, x, y, size)


def _fur(rng: np.random.Generator) -> tuple[Colour, Colour]:
    return vary(rng, (232, 230, 222), 14), vary(rng, (34, 32, 34), 12)


def _standing_panda(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    length = size * rng.uniform(100, 150)
    way = 1 if rng.random() < 0.5 else -1  # +1 looks to the right
    white, black = _fur(rng)
    leg_width, leg_height = length * rng.uniform(0.19, 0.23), length * rng.uniform(0.27, 0.36)
    body_y = y - leg_height - length * 0.14
    stride = length * rng.uniform(-0.07, 0.07)

    def leg(offset: float, swing: float, leaf: str, colour: Colour) -> None:
        hip = x + way * offset
        foot = hip + way * swing
        p.fill(limb(hip, body_y + length * 0.05, foot, y - leg_width / 2, leg_width), leaf, colour, "fine", 5)
        p.fill(
            ellipse(foot + way * leg_width * 0.15, y - leg_width * 0.25, leg_width * 0.62, leg_width * 0.28),
            leaf,
            colour,
        )

    far = vary(rng, black, 6)
    leg(length * 0.33, -stride - length * 0.03, "panda front leg", far)
    leg(-length * 0.33, stride + length * 0.03, "panda hind leg", far)
    p.fill(
        ellipse(x, body_y, length * 0.46, length * rng.uniform(0.23, 0.27), way * -4),
        "panda body",
        white,
        "fine",
        5,
        0.2,
    )
    leg(length * 0.26, stride, "panda front leg", black)
    leg(-length * 0.3, -stride, "panda hind leg", black)
    nod = rng.uniform(-0.1, 0.12)
    _panda_head(
        p, x + way * length * 0.5, body_y - length * (0.1 - nod), length * rng.uniform(0.19, 0.23), way, white, black
    )


def _sitting_panda(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    height = size * rng.uniform(105, 145)
    white, black = _fur(rng)
    width = height * rng.uniform(0.3, 0.35)
    p.fill(ellipse(x, y - height * 0.34, width, height * 0.34), "panda body", white, "fine", 5, 0.2)
    for side in (-1, 1):
        knee = x + side * width * rng.uniform(0.95, 1.2)
        hip = x + side * width * 0.5
        p.fill(limb(hip, y - height * 0.13, knee, y - height * 0.09, height * 0.18), "panda hind leg", black, "fine", 5)
        shoulder = x + side * width * 0.72
        hand = x + side * width * rng.uniform(0.75, 1.35)
        arm = limb(shoulder, y - height * 0.56, hand, y - height * rng.uniform(0.28, 0.36), height * 0.17)
        p.fill(arm, "panda front leg", black, "fine", 5)
    _panda_head(p, x, y - height * 0.78, height * rng.uniform(0.19, 0.22), 0, white, black)


def _panda_head(p: Painter, x: float, y: float, radius: float, way: int, white: Colour, black: Colour) -> None:
    for side in (-1, 1):
        p.fill(ellipse(x + side * radius * 0.75, y - radius * 0.8, radius * 0.36, radius * 0.36), "panda head", black)
    p.fill(ellipse(x, y, radius * 1.1, radius), "panda head", white, "fine", 4, 0.12)
    turn = way * radius * 0.3
    for side in (-1, 1):
        eye_x = x + turn + side * radius * 0.42
        p.fill(ellipse(eye_x, y - radius * 0.08, radius * 0.2, radius * 0.28, side * 25), "panda head", black)
    p.fill(ellipse(x + turn * 1.4, y + radius * 0.4, radius * 0.18, radius * 0.12), "panda head", black)


def draw_house(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    half = size * rng.uniform(42, 68)
    wall = size * rng.uniform(52, 78)
    roof = size * rng.uniform(34, 58)
    eaves = half * rng.uniform(1.08, 1.25)
    plaster = pick(rng, (214, 196, 160), (190, 90, 70), (220, 220, 215), (160, 180, 200), (225, 200, 110))
    tiles = pick(rng, (150, 60, 45), (95, 70, 60), (85, 90, 105), (60, 60, 62))
    if rng.random() < 0.5:
        chimney = x + rng.choice((-1, 1)) * half * 0.55
        p.fill(
            quad(chimney - 9 * size, y - wall - roof * 1.02, chimney + 9 * size, y - wall),
            "house roof",
            vary(rng, tiles),
        )
    p.fill(quad(x - half, y - wall, x + half, y), "house wall", plaster, rng.choice(["fine", "horizontal"]), 7, 0.1)
    ridge = half * rng.choice((0.0, 0.55))
    top = y - wall - roof
    gable = [(x - eaves, y - wall + 3), (x - ridge, top), (x + ridge, top), (x + eaves, y - wall + 3)]
    p.fill(np.array(gable), "house roof", tiles, "horizontal", 9, -0.1)
    door = size * rng.uniform(13, 18)
    door_x = x + rng.uniform(-0.5, 0.5) * half
    wood = pick(rng, (110, 60, 35), (40, 80, 120), (150, 30, 35), (45, 90, 60))
    p.fill(quad(door_x - door, y - wall * 0.66, door_x + door, y), "house door", wood, "vertical", 6)
    p.fill(ellipse(door_x + door * 0.6, y - wall * 0.32, 1.8 * size, 1.8 * size), "house door", (225, 200, 90))


def draw_car(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    length = size * rng.uniform(105, 150)
    way = 1 if rng.random() < 0.5 else -1
    wheel = length * rng.uniform(0.135, 0.165)
    paint = pick(rng, (190, 35, 35), (40, 80, 170), (230, 190, 50), (60, 130, 80), (200, 200, 205), (225, 120, 40))
    sill, belt = y - wheel * 0.75, y - wheel * 0.75 - length * rng.uniform(0.17, 0.21)
    roof = belt - length * rng.uniform(0.13, 0.19)
    cabin = [(-0.34, belt), (-0.22, roof), (0.1, roof), (0.26, belt)]
    p.fill(np.array([(x + way * dx * length, dy) for dx, dy in cabin]), "car body", paint, "fine", 4)
    glass = [(-0.27, belt), (-0.19, roof + length * 0.025), (0.08, roof + length * 0.025), (0.19, belt)]
    window = np.array([(x + way * dx * length, dy) for dx, dy in glass])
    p.fill(window, "car body", pick(rng, (60, 75, 90), (150, 180, 200)), "fine", 3)
    hood = [(-0.5, sill), (-0.5, belt + 2), (-0.35, belt), (0.28, belt), (0.48, belt + length * 0.06), (0.5, sill)]
    p.fill(np.array([(x + way * dx * length, dy) for dx, dy in hood]), "car body", paint, "fine", 4, 0.2)
    p.fill(
        ellipse(x + way * length * 0.46, belt + length * 0.1, length * 0.025, length * 0.03),
        "car body",
        (250, 240, 190),
    )
    rubber, rim = vary(rng, (38, 38, 40), 10), pick(rng, (170, 170, 175), (120, 120, 125))
    for dx in (-0.29, 0.29):
        p.fill(ellipse(x + dx * length, y - wheel, wheel, wheel), "car wheel", rubber, "fine", 4)
        p.fill(ellipse(x + dx * length, y - wheel, wheel * 0.5, wheel * 0.5), "car wheel", rim, "fine", 4)


def draw_boat(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    half = size * rng.uniform(44, 70)
    depth = size * rng.uniform(26, 36)
    way = 1 if rng.random() < 0.5 else -1
    paint = pick(rng, (140, 80, 45), (175, 40, 45), (35, 65, 120), (230, 228, 220))
    sail_height = size * rng.uniform(66, 100)
    canvas = pick(rng, (238, 236, 226), (230, 190, 120), (200, 70, 60), (170, 200, 220))
    deck = y - depth
    mast = x + way * half * rng.uniform(-0.15, 0.1)
    p.fill(quad(mast - 2.5 * size, deck - sail_height - 4 * size, mast + 2.5 * size, deck), "boat hull", (95, 70, 50))
    lift = 5 * size
    rear = [
        (mast - way * 3 * size, deck - sail_height),
        (mast - way * half * 0.95, deck - lift),
        (mast - way * 3 * size, deck - lift),
    ]
    p.fill(np.array(rear), "boat sail", canvas, "blotch", 5)
    if rng.random() < 0.7:
        high = deck - sail_height * 0.85
        front = [
            (mast + way * 3 * size, high),
            (mast + way * half * 0.85, deck - lift),
            (mast + way * 3 * size, deck - lift),
        ]
        p.fill(np.array(front), "boat sail", vary(rng, canvas, 8), "blotch", 5)
    keel = [(x - half, deck), (x + half, deck), (x + half * 0.72, y), (x - half * 0.72, y)]
    p.fill(np.array(keel), "boat hull", paint, "horizontal", 7, 0.2)


def draw_fish(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    length = size * rng.uniform(66, 105)
    way = 1 if rng.random() < 0.5 else -1
    ry = length * rng.uniform(0.21, 0.3)
    y -= ry * 1.2
    scales = pick(rng, (240, 130, 40), (225, 80, 70), (240, 205, 70), (200, 90, 170), (235, 235, 230))
    fin = vary(rng, scales, 30)
    spread = ry * rng.uniform(0.8, 1.1)
    tail = [(x - way * length * 0.28, y), (x - way * length * 0.58, y - spread), (x - way * length * 0.58, y + spread)]
    p.fill(np.array(tail), "fish", fin, "vertical", 6)
    p.fill(np.array([(x - way * length * 0.15, y), (x, y - ry * 1.5), (x + way * length * 0.2, y)]), "fish", fin)
    p.fill(ellipse(x, y, length * 0.42, ry), "fish", scales, "leafy", 8, 0.15)
    p.fill(ellipse(x + way * length * 0.26, y - ry * 0.25, length * 0.05, length * 0.05), "fish", (245, 245, 245))
    p.fill(ellipse(x + way * length * 0.27, y - ry * 0.25, length * 0.025, length * 0.025), "fish", (20, 20, 20))


def draw_balloon(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    radius = size * rng.uniform(26, 42)
    y -= radius * 1.6
    one = pick(rng, (220, 50, 50), (240, 180, 40), (60, 90, 190), (140, 60, 160))
    two = pick(rng, (245, 240, 225), (250, 215, 90), (90, 170, 190))
    ropes = [
        (x - radius * 0.7, y + radius * 0.75),
        (x + radius * 0.7, y + radius * 0.75),
        (x + 8 * size, y + radius * 1.3),
    ]
    ropes.append((x - 8 * size, y + radius * 1.3))
    p.fill(np.array(ropes), "balloon", vary(rng, one, 25))
    p.fill(quad(x - 9 * size, y + radius * 1.25, x + 9 * size, y + radius * 1.6), "balloon", (125, 85, 50))
    p.fill(ellipse(x, y, radius, radius * 1.06), "balloon", one, "fine", 4, 0.15)
    for share in (0.66, 0.28):
        p.fill(ellipse(x, y, radius * share, radius * 1.06), "balloon", two if share > 0.5 else one, "fine", 4, 0.15)


def draw_rock(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    rx, ry = size * rng.uniform(26, 46), size * rng.uniform(20, 32)
    grey = pick(rng, (120, 118, 112), (95, 92, 95), (150, 140, 125))
    outline = blob(rng, x, y - ry * 0.85, rx, ry, 0.18)
    outline[:, 1] = np.minimum(outline[:, 1], y)
    p.fill(outline, "rock", grey, "blotch", 14, 0.3)


def draw_flower(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    stem, radius = size * rng.uniform(42, 66), size * rng.uniform(20, 30)
    green = vary(rng, (60, 130, 50))
    p.fill(limb(x, y, x, y - stem, 6 * size), "flower", green)
    p.fill(ellipse(x + 11 * size, y - stem * 0.35, 12 * size, 5 * size, -30), "flower", green)
    petal = pick(rng, (240, 240, 240), (225, 60, 110), (150, 80, 190), (250, 200, 50), (220, 50, 45))
    petals = int(rng.integers(5, 9))
    turn = rng.uniform(0, 360)
    for k in range(petals):
        angle = np.radians(turn + 360 * k / petals)
        px, py = x + np.cos(angle) * radius * 0.62, y - stem + np.sin(angle) * radius * 0.62
        p.fill(ellipse(px, py, radius * 0.5, radius * 0.36, np.degrees(angle)), "flower", vary(rng, petal, 8))
    p.fill(
        ellipse(x, y - stem, radius * 0.36, radius * 0.36),
        "flower",
        pick(rng, (245, 200, 40), (120, 70, 30)),
        "leafy",
        8,
    )


def draw_umbrella(p: Painter, x: float, y: float, size: float) -> None:
    rng = p.rng
    pole, rx = size * rng.uniform(62, 90), size * rng.uniform(40, 58)
    ry = rx * rng.uniform(0.55, 0.8)
    lean = rng.uniform(-0.15, 0.15) * pole
    p.fill(limb(x, y, x + lean, y - pole, 6 * size), "umbrella", pick(rng, (230, 225, 215), (120, 85, 55)))
    one = pick(rng, (225, 60, 60), (50, 110, 190), (60, 150, 90), (240, 150, 50))
    two = pick(rng, (245, 243, 235), (250, 220, 90))
    top = y - pole + ry * 0.35
    p.fill(ellipse(x + lean, top, rx, ry, 0, 180, 360), "umbrella", one, "fine", 4)
    for share in (0.68, 0.28):
        p.fill(ellipse(x + lean, top, rx * share, ry, 0, 180, 360), "umbrella", two if share > 0.5 else one, "fine", 4)


# -- places ---------------------------------------------------------------------------------------------------------------

_PLACES = {"meadow": 0.28, "beach": 0.16, "lake": 0.16, "street": 0.18, "desert": 0.12, "sea": 0.10}
_SKIES = ((120, 175, 230), (90, 140, 215), (170, 195, 215), (235, 180, 130), (60, 75, 120), (150, 150, 165))

# thing -> (how it is drawn, where it may stand, room on either side in units)
_THINGS: dict[str, tuple[Callable[[Painter, float, float, float], None], str, float]] = {
    "tree": (draw_tree, "land", 46),
    "panda": (draw_panda, "land", 66),
    "house": (draw_house, "land", 64),
    "car": (draw_car, "land", 66),
    "rock": (draw_rock, "land", 40),
    "flower": (draw_flower, "land", 28),
    "umbrella": (draw_umbrella, "land", 48),
    "boat": (draw_boat, "water", 60),
    "fish": (draw_fish, "water", 50),
    "balloon": (draw_balloon, "air", 40),
}


def draw_scene(seed: int, height: int, width: int) -> Scene:
    """One scene. The same seed and size give the same pixels."""
    rng = np.random.default_rng(seed)
    p = Painter(rng, height, width)
    place = str(rng.choice(list(_PLACES), p=list(_PLACES.values())))
    horizon = p.height * rng.uniform(0.3, 0.55)
    _draw_sky(p, horizon)
    land, water = _draw_ground(p, place, horizon)
    ground = p.parts()
    things = _choose_things(rng, place, p.width)
    taken: dict[str, list[tuple[float, float]]] = {"land": [], "water": [], "air": []}
    placed = []
    for name in things:
        draw, where, room = _THINGS[name]
        size = float(rng.uniform(0.8, 1.15))
        if where == "air":
            y = horizon * rng.uniform(0.75, 1.05)
        elif where == "water":
            y = rng.uniform(water[0] + 0.35 * (water[1] - water[0]), water[1])
        else:
            y = rng.uniform(max(land[0] + 8, land[0] + 0.3 * (land[1] - land[0])), land[1] - 2)
        x = _find_room(rng, taken[where], room * size, p.width)
        if x is None:
            continue
        taken[where].append((x - room * size, x + room * size))
        placed.append((y, name, draw, x, size))
    # What stands lower in the picture is nearer, and hides what is behind it.
    drawn = []
    for y, name, draw, x, size in sorted(placed, key=lambda item: item[0]):
        if _THINGS[name][1] == "land":
            _draw_shadow(p, x, y, size * _THINGS[name][2])
        draw(p, x, y, size)
        drawn.append(Thing(name, x / p.width, p.parts()))
    return Scene(p.finish(), p.truth, tuple(drawn), ground, place)


def _choose_things(rng: np.random.Generator, place: str, width: float) -> list[str]:
    likely = {
        "meadow": ("tree", "tree", "panda", "panda", "panda", "house", "rock", "flower", "balloon"),
        "beach": ("umbrella", "umbrella", "boat", "fish", "car", "panda", "panda", "rock", "tree", "balloon"),
        "lake": ("boat", "fish", "tree", "tree", "house", "panda", "panda", "flower", "rock", "balloon"),
        "street": ("car", "car", "house", "tree", "tree", "panda", "panda", "flower", "balloon", "umbrella"),
        "desert": ("rock", "car", "tree", "tree", "panda", "panda", "umbrella", "balloon", "house", "flower"),
        "sea": ("boat", "boat", "fish", "fish", "balloon", "rock"),
    }[place]
    count = int(rng.integers(2, 5)) + (1 if width > 290 else 0)
    return [likely[k] for k in rng.choice(len(likely), size=min(count, len(likely)), replace=False)]


def _find_room(
    rng: np.random.Generator, taken: Sequence[tuple[float, float]], room: float, width: float
) -> float | None:
    """A place on the ground line whose overlap with its neighbours is small, or None."""
    for _ in range(12):
        x = float(rng.uniform(room * 0.45, max(width - room * 0.45, room * 0.5)))
        overlap = max((min(x + room, b) - max(x - room, a) for a, b in taken), default=0.0)
        if overlap < room * 0.55:
            return x
    return None


def _draw_sky(p: Painter, horizon: float) -> None:
    rng = p.rng
    blue = pick(rng, *_SKIES)
    p.fill(quad(-2, -2, p.width + 2, horizon + 6), "sky", blue, "blotch", rng.uniform(1, 5), rng.uniform(-0.25, 0.15))
    if rng.random() < 0.35:
        radius = rng.uniform(15, 24)
        x, y = rng.uniform(20, p.width - 20), rng.uniform(20, max(horizon * 0.55, 24))
        p.fill(
            ellipse(x, y, radius, radius), "sun", pick(rng, (255, 225, 90), (250, 160, 60), (255, 245, 190)), "fine", 2
        )
    if rng.random() < 0.5:
        stone = pick(rng, (110, 115, 130), (95, 85, 80), (130, 140, 150), (80, 100, 95))
        for _ in range(int(rng.integers(1, 4))):
            x, half, peak = rng.uniform(0, p.width), rng.uniform(60, 120), rng.uniform(45, 85)
            shoulder = rng.uniform(0.3, 0.6)
            ridge = [(x - half, horizon + 6), (x - half * shoulder, horizon - peak * 0.6), (x, horizon - peak)]
            ridge += [(x + half * 0.5, horizon - peak * 0.45), (x + half, horizon + 6)]
            p.fill(np.array(ridge), "mountain", vary(rng, stone, 8), "blotch", 9, -0.1)
    for _ in range(int(rng.choice((0, 1, 2), p=(0.45, 0.35, 0.2)))):
        white = vary(rng, (240, 240, 242), 12)
        x, y = rng.uniform(10, p.width - 10), rng.uniform(14, max(horizon * 0.6, 20))
        for _ in range(4):
            dx, dy = rng.uniform(-24, 24), rng.uniform(-6, 6)
            p.fill(ellipse(x + dx, y + dy, rng.uniform(16, 28), rng.uniform(10, 16)), "cloud", white, "blotch", 4)


def _draw_ground(p: Painter, place: str, horizon: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Paint the ground; the bands (top, bottom) in which things stand on land and on water."""
    rng = p.rng
    bottom = p.height
    middle = horizon + (bottom - horizon) * rng.uniform(0.42, 0.6)
    wave = rng.uniform(0, 7)

    def band(leaf: str, top: float) -> None:
        colour, texture, strength = _surface(rng, leaf)
        xs = np.linspace(-2, p.width + 2, 30)
        edge = top + wave * np.sin(xs / rng.uniform(25, 60) + rng.uniform(0, 6))
        outline = np.concatenate([np.stack([xs, edge], 1), [(p.width + 2, bottom + 2), (-2, bottom + 2)]])
        p.fill(outline, leaf, colour, texture, strength, rng.uniform(-0.1, 0.15))

    if place == "meadow":
        band("grass", horizon)
        if rng.random() < 0.25:
            _draw_path(p, horizon)
        return (horizon, bottom), (horizon, bottom)
    if place == "desert":
        band("sand", horizon)
        return (horizon, bottom), (horizon, bottom)
    if place == "sea":
        band("water", horizon)
        return (bottom - 6, bottom + 4), (horizon, bottom)
    if place == "street":
        band(str(rng.choice(("grass", "sand"), p=(0.8, 0.2))), horizon)
        band("road", middle)
        dash = vary(rng, (225, 220, 200))
        y = middle + (bottom - middle) * 0.55
        for x in np.arange(rng.uniform(-20, 0), p.width, 42):
            p.fill(quad(x, y, x + 20, y + 4), None, dash, "fine", 4)
        return (middle - 8, bottom), (horizon, bottom)
    band("water", horizon)
    band("sand" if place == "beach" else "grass", middle)
    return (middle, bottom), (horizon, middle)


def _draw_path(p: Painter, horizon: float) -> None:
    """A road that runs from the horizon to the viewer."""
    rng = p.rng
    far, near = rng.uniform(0.2, 0.8) * p.width, rng.uniform(0.1, 0.9) * p.width
    colour, texture, strength = _surface(rng, "road")
    path = [(far - 8, horizon + 4), (far + 8, horizon + 4), (near + 48, p.height + 2), (near - 48, p.height + 2)]
    p.fill(np.array(path), "road", colour, texture, strength)


def _surface(rng: np.random.Generator, leaf: str) -> tuple[Colour, str, float]:
    return {
        "grass": (
            pick(rng, (90, 150, 60), (120, 160, 70), (70, 120, 55), (150, 155, 75)),
            "vertical",
            rng.uniform(7, 16),
        ),
        "sand": (pick(rng, (222, 200, 150), (205, 175, 125), (235, 220, 185)), "fine", rng.uniform(5, 12)),
        "water": (
            pick(rng, (50, 110, 160), (70, 140, 170), (40, 85, 120), (90, 150, 150)),
            "horizontal",
            rng.uniform(7, 15),
        ),
        "road": (pick(rng, (95, 95, 98), (120, 118, 115), (75, 75, 80)), "fine", rng.uniform(4, 9)),
    }[leaf]


def _draw_shadow(p: Painter, x: float, y: float, room: float) -> None:
    """A soft-edged darkening of the ground at a thing's foot; part of the ground in the truth."""
    height, width = p.truth.shape
    mask = np.zeros((height, width), np.uint8)
    outline = ellipse(x + p.rng.uniform(-8, 8), y + 1, room * 0.85, room * 0.12) * p.scale
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    p.image[mask.astype(bool)] *= np.float32(p.rng.uniform(0.55, 0.9))
