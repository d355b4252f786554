"""Draws scenes with exact ground-truth masks: seeded, varied in place, sky, ground, things, clutter and light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinytips.world.painter import Colour, Painter, Part
from tinytips.world.shapes import ellipse, pick, quad, vary
from tinytips.world.things import (
    draw_balloon,
    draw_boat,
    draw_car,
    draw_fish,
    draw_flower,
    draw_house,
    draw_panda,
    draw_rock,
    draw_tree,
    draw_umbrella,
)


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
