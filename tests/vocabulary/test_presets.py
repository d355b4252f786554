from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from tipsseg.vocabulary.files import preset_names, preset_summary, read_vocabulary
from tipsseg.vocabulary.palette import colour, voc_colour


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a benchmark fixes: how many classes, and which id a class has; of the background, how many phrases.

    The digest is of all names in order; they agreed with the sources when it was taken.
    """

    classes: int
    ids: dict[int, str]
    digest: str
    background: int = 0


# Ids at both ends, and where orders that are in use part: things and stuff, VOC order and the alphabet, label ids and train ids.
VOC = {
    1: "aeroplane",
    4: "boat",
    5: "bottle",
    9: "chair",
    11: "dining table",
    15: "person",
    16: "potted plant",
    20: "tv monitor",
}
CONTEXT = {
    1: "aeroplane",
    2: "bag",
    4: "bedclothes",
    6: "bicycle",
    22: "curtain",
    37: "person",
    40: "potted plant",
    44: "shelves",
    50: "table",
    55: "tv monitor",
    59: "wood",
}
BENCHMARKS = {
    "ade20k": Benchmark(
        150,
        {
            1: "wall",
            8: "bed",
            13: "person",
            45: "chest of drawers",
            57: "pool table",
            76: "swivel chair",
            90: "television receiver",
            106: "conveyer belt",
            110: "swimming pool",
            137: "traffic light",
            150: "flag",
        },
        "f9dbd8a75a07",
    ),
    "cityscapes": Benchmark(
        19,
        {1: "road", 7: "traffic light", 8: "traffic sign", 12: "person", 14: "car", 17: "train", 19: "bicycle"},
        "5995d02d6c57",
    ),
    "coco-stuff": Benchmark(
        171,
        {
            1: "person",
            12: "stop sign",
            13: "parking meter",
            61: "dining table",
            80: "toothbrush",
            81: "banner",
            91: "ceiling",
            92: "tile ceiling",
            103: "marble floor",
            104: "floor",
            146: "sky",
            154: "table",
            160: "brick wall",
            162: "wall",
            169: "window blind",
            170: "window",
            171: "wood",
        },
        "471594712974",
    ),
    "pascal-context-59": Benchmark(59, CONTEXT, "40166cb0721d"),
    "pascal-context-60": Benchmark(59, CONTEXT, "40166cb0721d", background=1),
    "voc20": Benchmark(20, VOC, "1f7cfbcbbf2e"),
    "voc21": Benchmark(20, VOC, "1f7cfbcbbf2e", background=26),
}


def digest_of(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def test_every_preset_is_in_the_table() -> None:
    assert list(preset_names()) == sorted(BENCHMARKS)


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_ids_are_those_of_the_benchmark(preset: str) -> None:
    benchmark, vocabulary = BENCHMARKS[preset], read_vocabulary(preset)
    names = {entry.id: entry.name for entry in vocabulary.classes}
    assert list(names) == list(range(1, benchmark.classes + 1))
    assert {number: names[number] for number in benchmark.ids} == benchmark.ids
    assert digest_of(list(names.values())) == benchmark.digest
    assert len(vocabulary.background_texts) == benchmark.background
    assert not vocabulary.auto
    assert vocabulary.source == preset
    assert 0 < len(preset_summary(preset)) <= 50


#: Colours at both ends and where ids part, and a digest of all of them, which agreed with the sources when it was taken.
COLOURS = {
    "ade20k": ({1: (120, 120, 120), 2: (180, 120, 120), 13: (150, 5, 61), 150: (92, 0, 255)}, "ce475c915103"),
    "cityscapes": ({1: (128, 64, 128), 14: (0, 0, 142), 19: (119, 11, 32)}, "5af5a8d200c6"),
    "coco-stuff": ({1: (0, 192, 64), 27: (0, 0, 0), 80: (192, 160, 0), 171: (64, 64, 0)}, "788e8126c601"),
    "voc20": ({number: voc_colour(number) for number in range(1, 21)}, "575bc08db511"),
    "voc21": ({1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}, "575bc08db511"),
}


@pytest.mark.parametrize("preset", COLOURS)
def test_colours_are_those_of_the_benchmark(preset: str) -> None:
    some, digest = COLOURS[preset]
    colours = {entry.id: entry.colour for entry in read_vocabulary(preset).classes}
    assert {number: colours[number] for number in some} == some
    assert hashlib.sha256(bytes(value for each in colours.values() for value in each)).hexdigest()[:12] == digest


def test_other_presets_have_colours_of_ours() -> None:
    assert [entry.colour for entry in read_vocabulary("pascal-context-59").classes] == [colour(n) for n in range(1, 60)]


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_names_are_natural_text(preset: str) -> None:
    texts = [phrase.text for phrase in read_vocabulary(preset).phrases]
    assert [
        text for text in texts if text != " ".join(text.lower().split()) or not text.replace(" ", "").isalpha()
    ] == []


@pytest.mark.parametrize(
    ("with_background", "without"), [("voc21", "voc20"), ("pascal-context-60", "pascal-context-59")]
)
def test_background_is_beside_the_same_classes(with_background: str, without: str) -> None:
    assert read_vocabulary(with_background).specs == read_vocabulary(without).specs
