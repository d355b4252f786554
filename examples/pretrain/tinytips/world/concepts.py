"""The words of the drawn world: its concepts, how they are part of each other, and how people call them.

Every pixel of a scene belongs to exactly one leaf. A concept that has parts covers the pixels of all its leaves, so "tree"
is crown and trunk, and "panda leg" is both kinds of leg and itself a part of "panda".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that can be asked for; `wordings` are phrases for it, the first is its name."""

    wordings: tuple[str, ...]
    parent: str | None = None

    @property
    def name(self) -> str:
        return self.wordings[0]


#: The leaves, in the order of their ids in ground-truth masks: 1, 2, 3, ...
LEAVES: tuple[Concept, ...] = (
    Concept(("sky", "blue sky", "the sky", "heaven")),
    Concept(("cloud", "white cloud", "clouds", "a cloud in the sky")),
    Concept(("sun", "the sun", "sun disc", "shining sun")),
    Concept(("mountain", "hill", "mountains", "mountain peak", "rocky mountain")),
    Concept(("grass", "lawn", "meadow", "green grass", "grassland")),
    Concept(("sand", "beach", "sandy ground", "dune", "desert sand")),
    Concept(("water", "sea", "river", "lake", "ocean")),
    Concept(("road", "street", "asphalt", "asphalt road")),
    Concept(("tree crown", "treetop", "foliage", "leaves of a tree", "crown of a tree"), "tree"),
    Concept(("tree trunk", "trunk", "trunk of a tree", "tree stem"), "tree"),
    Concept(("panda head", "head of a panda", "panda face", "panda's head"), "panda"),
    Concept(("panda body", "body of a panda", "panda belly", "panda's body", "panda torso"), "panda"),
    Concept(
        ("panda front leg", "front leg of a panda", "panda's front leg", "panda arm", "panda foreleg"), "panda leg"
    ),
    Concept(("panda hind leg", "hind leg of a panda", "panda's hind leg", "panda back leg"), "panda leg"),
    Concept(("house wall", "wall of a house", "facade", "house front"), "house"),
    Concept(("house roof", "roof", "roof of a house", "rooftop"), "house"),
    Concept(("house door", "door", "door of a house", "front door"), "house"),
    Concept(("car body", "body of a car", "car chassis", "bodywork"), "car"),
    Concept(("car wheel", "wheel", "wheel of a car", "tyre", "car tyre"), "car"),
    Concept(("boat hull", "hull", "hull of a boat", "ship hull"), "boat"),
    Concept(("boat sail", "sail", "sail of a boat", "white sail"), "boat"),
    Concept(("fish", "a swimming fish", "big fish", "goldfish")),
    Concept(("balloon", "hot air balloon", "air balloon")),
    Concept(("rock", "stone", "boulder", "big stone")),
    Concept(("flower", "blossom", "flower with petals", "daisy")),
    Concept(("umbrella", "parasol", "beach umbrella", "sunshade")),
)

#: Concepts made of leaves.
WHOLES: tuple[Concept, ...] = (
    Concept(("tree", "trees", "a whole tree", "oak", "fir tree")),
    Concept(("panda", "panda bear", "giant panda", "a whole panda")),
    Concept(("panda leg", "panda legs", "leg of a panda", "panda's leg", "legs of a panda"), "panda"),
    Concept(("house", "cottage", "home", "small house")),
    Concept(("car", "automobile", "motor car", "passenger car")),
    Concept(("boat", "sailing boat", "sailboat", "ship")),
)

CONCEPTS: tuple[Concept, ...] = LEAVES + WHOLES

#: id in a truth mask -> name; 0 does not occur in a drawn scene.
LEAF_ID: dict[str, int] = {leaf.name: index for index, leaf in enumerate(LEAVES, start=1)}

_BY_NAME = {concept.name: concept for concept in CONCEPTS}

#: What evaluation calls the closed list: no two overlap, together they cover every pixel.
CLOSED_LIST: tuple[str, ...] = (
    *(leaf.name for leaf in LEAVES[:8]),
    "tree",
    "panda head",
    "panda body",
    "panda leg",
    "house wall",
    "house roof",
    "house door",
    "car body",
    "car wheel",
    "boat hull",
    "boat sail",
    *(leaf.name for leaf in LEAVES[21:]),
)

#: The same world with every thing whole, and with every part apart.
WHOLE_LIST: tuple[str, ...] = (
    *(leaf.name for leaf in LEAVES if leaf.parent is None),
    *(whole.name for whole in WHOLES if whole.parent is None),
)
LEAF_LIST: tuple[str, ...] = tuple(leaf.name for leaf in LEAVES)

#: Things that people may ask for and that are never drawn: the model has met them as words without pixels.
ABSENT_WORDS: tuple[str, ...] = tuple(
    """
    person, man, woman, child, face, hand, dog, cat, horse, cow, sheep, elephant, bear, zebra, giraffe, bird, duck, chicken,
    lion, tiger, monkey, rabbit, mouse, frog, snake, turtle, whale, shark, insect, butterfly, bee, spider, bicycle, motorcycle,
    bus, truck, train, aeroplane, tractor, tram, helicopter, rocket, traffic light, traffic sign, stop sign, parking meter,
    bench, chair, armchair, sofa, table, cupboard, wardrobe, drawer, mirror, picture, painting, poster, book, clock, vase,
    bottle, cup, glass, plate, bowl, fork, knife, spoon, apple, banana, orange, pear, bread, cake, pizza, sandwich, cheese,
    carrot, tomato, potato, egg, laptop, keyboard, computer, screen, television, telephone, camera, radio, printer, oven,
    refrigerator, microwave, sink, toilet, bathtub, shower, towel, pillow, blanket, carpet, bag, backpack, suitcase, hat, cap,
    shirt, trousers, dress, shoe, sock, glove, tie, coat, glasses, ball, football, racket, skateboard, surfboard, ski, kite,
    guitar, piano, drum, violin, bridge, tower, castle, church, skyscraper, tunnel, airport, station, pier, lighthouse, barn,
    tent, fountain, statue, flag, ladder, rope, box, barrel, basket, bucket, hammer, saw, screwdriver, pencil, paper,
    scissors, key, coin, snow, ice, fire, smoke, rainbow, moon, star, lightning, leaf, bush, hedge, cactus, palm, mushroom,
    corn, wheat, field, forest, path, sidewalk, railway, pavement, tile, brick, concrete, metal, plastic, fabric, panda tail,
    dog leg, cat head, horse leg, bus wheel, truck wheel, bicycle wheel, church door, ship anchor, car window, car door
    """.replace("\n", " ").split(",")
)
ABSENT_WORDS = tuple(" ".join(word.split()) for word in ABSENT_WORDS)


def ancestors(name: str) -> tuple[str, ...]:
    """The concepts that `name` is a part of, nearest first."""
    chain = []
    parent = _BY_NAME[name].parent
    while parent is not None:
        chain.append(parent)
        parent = _BY_NAME[parent].parent
    return tuple(chain)


def leaf_ids(name: str) -> tuple[int, ...]:
    """The truth ids of the leaves that the concept `name` covers."""
    return tuple(LEAF_ID[leaf.name] for leaf in LEAVES if leaf.name == name or name in ancestors(leaf.name))
