"""Captions of drawn scenes: three granularities, of what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tinytips.world.captions import COLOURS, captions
from tinytips.world.painter import Colour, Part
from tinytips.world.scenes import Scene, Thing

EMPTY = np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), np.uint8)
RED, WHITE, BROWN, GREEN = COLOURS["red"], COLOURS["white"], COLOURS["brown"], COLOURS["green"]
SKY = (Part("sky", COLOURS["blue"]), Part("sun", COLOURS["yellow"]), Part("cloud", WHITE), Part("grass", GREEN))


def car(middle: float, colour: Colour = RED) -> Thing:
    return Thing("car", middle, (Part("car body", colour), Part("car wheel", COLOURS["black"])))


def scene(*things: Thing) -> Scene:
    return Scene(*EMPTY, things, SKY, "meadow")


PANDA = Thing("panda", 0.5, (Part("panda body", WHITE), Part("panda head", WHITE)))
TREE = Thing("tree", 0.9, (Part("tree trunk", BROWN), Part("tree crown", GREEN)))


@pytest.mark.parametrize(
    ("things", "medium", "sentences"),
    [
        ((PANDA,), "a panda {}", {"in the middle a panda with white body and white head"}),
        (
            (car(0.2), car(0.8), TREE),
            "two red cars and a green tree {}",
            {
                "on the left a red car with red body and black wheel",
                "on the right a red car with red body and black wheel",
                "on the right a green tree with brown trunk and green crown",
            },
        ),
    ],
)
def test_captions_say_what_was_drawn(things: tuple[Thing, ...], medium: str, sentences: set[str]) -> None:
    made = captions(scene(*things), np.random.default_rng(0))
    sky = "under a blue sky with a sun and a cloud"
    assert made.medium in {medium.format(f"{place} {sky}") for place in ("on a meadow", "on the grass")}
    around, *said = made.long.split("; ")
    assert around == "blue sky, yellow sun, white cloud and green grass"
    assert set(said) == sentences


def test_alt_texts_name_one_thing_in_many_ways() -> None:
    rng = np.random.default_rng(0)
    texts = {captions(scene(PANDA, TREE), rng).alt for _ in range(300)}
    assert len(texts) > 50
    assert not any("panda" in text and "tree" in text for text in texts)
    assert {text for text in texts if text.endswith("on a meadow")}
    assert {text for text in texts if text.endswith("on the grass")}
    assert any("green" in text for text in texts)
