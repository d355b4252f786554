"""Outlines and colours that things are drawn with. Points are (x, y) in the painter's units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinytips.world.painter import Colour, Points


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
