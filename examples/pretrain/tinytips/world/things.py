"""Draws the things of the world. Each stands with its foot at (x, y), in the painter's units, and has a size near 1."""

from __future__ import annotations

import numpy as np

from tinytips.world.painter import Colour, Painter
from tinytips.world.shapes import blob, ellipse, limb, pick, quad, vary


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
