"""Captions of drawn scenes, in the three granularities that TIPSv2 is trained with.

TIPSv2 (arXiv 2604.12012) has a web page's alt-text, a medium caption (PaliGemma's) and a long one (Gemini's). Here all three are
made from what was drawn. Many scenes have the same things, so captions tell them apart by colours, counts and places.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from tinytips.world.concepts import CONCEPTS
from tinytips.world.painter import Colour
from tinytips.world.scenes import Scene, Thing

#: What colours are called: the nearest of these.
COLOURS = {
    "red": (190, 45, 45),
    "orange": (235, 135, 45),
    "yellow": (240, 200, 70),
    "green": (70, 130, 60),
    "olive": (140, 150, 75),
    "blue": (60, 100, 170),
    "light blue": (145, 180, 215),
    "purple": (150, 80, 180),
    "pink": (215, 80, 140),
    "brown": (110, 75, 50),
    "beige": (215, 190, 150),
    "white": (238, 236, 230),
    "grey": (130, 130, 132),
    "dark grey": (80, 80, 85),
    "black": (36, 34, 36),
}

#: What is said of a place; one names what things stand on or by.
_PLACES = {
    "meadow": ("on a meadow", "on the grass"),
    "beach": ("on a beach", "on the sand"),
    "lake": ("by a lake", "by the water"),
    "street": ("on a street", "by a road"),
    "desert": ("in a desert", "on the sand"),
    "sea": ("on the sea", "on the water"),
}
_IN_THE_SKY = ("sun", "mountain", "cloud")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_JUNK = ("", "", "", "photo of ", "picture of ", "IMG 2041 ", "my ", "stock image: ", "DSC0077 ")
#: The leaf whose colour is that of the thing.
_COAT = {"tree": "tree crown", "house": "house wall", "car": "car body", "boat": "boat hull", "panda": ""}
_WORDINGS = {concept.name: concept.wordings for concept in CONCEPTS}


@dataclass(frozen=True, slots=True)
class Captions:
    """Of one scene.

    alt     one noun phrase, careless, as in a web page
    medium  the things, with counts and colours, the place, and the sky
    long    what is around the things, then the things one by one with places, parts and colours
    """

    alt: str
    medium: str
    long: str


def captions(scene: Scene, rng: np.random.Generator) -> Captions:
    """Captions of a scene; `rng` chooses words."""
    return Captions(_alt(scene, rng), _medium(scene, rng), _long(scene, rng))


def colour_name(colour: Colour) -> str:
    """The nearest of COLOURS, by the distance in red, green and blue."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], colour, strict=True)))


def _alt(scene: Scene, rng: np.random.Generator) -> str:
    names = [thing.name for thing in scene.things] or [part.leaf for part in scene.ground]
    name = names[rng.integers(len(names))]
    wording = _WORDINGS[name][rng.integers(len(_WORDINGS[name]))]
    if scene.things and rng.random() < 0.5:
        coats = [coat for thing in scene.things if thing.name == name and (coat := _coat(thing))]
        wording = f"{coats[0]} {wording}" if coats else wording
    where = f" {_where(scene, rng)}" if rng.random() < 0.3 else ""
    return f"{_JUNK[rng.integers(len(_JUNK))]}{wording}{where}"


def _medium(scene: Scene, rng: np.random.Generator) -> str:
    kinds = Counter(_named(thing) for thing in scene.things)
    things = [_a(name) if count == 1 else f"{_NUMBERS[count]} {name}s" for name, count in kinds.items()]
    sky = [part for part in scene.ground if part.leaf in _IN_THE_SKY]
    above = "".join(f" under {_a(colour_name(part.colour))} sky" for part in scene.ground if part.leaf == "sky")
    with_it = f" with {_joined([_a(part.leaf) for part in sky])}" if sky else ""
    return f"{_joined(things) or 'nothing'} {_where(scene, rng)}{above}{with_it}"


def _long(scene: Scene, rng: np.random.Generator) -> str:
    sentences = [_joined([f"{colour_name(part.colour)} {part.leaf}" for part in scene.ground])]
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[index]
        parts = [f"{colour_name(part.colour)} {_bare(part.leaf, thing.name)}" for part in thing.parts]
        of_parts = f" with {_joined(parts)}" if len(parts) > 1 else ""
        sentences.append(f"{_side(thing.middle)} {_a(_named(thing))}{of_parts}")
    return "; ".join(sentences)


def _where(scene: Scene, rng: np.random.Generator) -> str:
    places = _PLACES[scene.place]
    return places[rng.integers(len(places))]


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _named(thing: Thing) -> str:
    coat = _coat(thing)
    return f"{coat} {thing.name}" if coat else thing.name


def _coat(thing: Thing) -> str:
    leaf = _COAT.get(thing.name, thing.name)
    return next((colour_name(part.colour) for part in thing.parts if part.leaf == leaf), "")


def _bare(leaf: str, thing: str) -> str:
    return leaf.removeprefix(f"{thing} ")


def _side(middle: float) -> str:
    return "on the left" if middle < 1 / 3 else "on the right" if middle > 2 / 3 else "in the middle"


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
