"""Class names and background -> what competes for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tipsseg.errors import VocabularyError
from tipsseg.types import Colour
from tipsseg.vocabulary.palette import colour
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, PROTOCOL_TEMPLATES
from tipsseg.vocabulary.vocabulary import (
    MAX_CLASSES,
    ClassSpec,
    Phrase,
    make_vocabulary,
    parse_background,
    split_phrases,
)

SAME = "The model does not distinguish names that differ only in case, spacing or slashes."
A_NAME = "Remove it, or give it a name."


def test_classes_keep_their_order_and_are_numbered_from_1() -> None:
    vocabulary = make_vocabulary(["  panda leg ", "Tree", "chest_of_drawers", "salt,  pepper"], "none")
    names = ["panda leg", "Tree", "chest of drawers", "salt, pepper"]
    assert [(c.id, c.name, c.supercategory) for c in vocabulary.classes] == [
        (number, name, name) for number, name in enumerate(names, start=1)
    ]
    assert [c.colour for c in vocabulary.classes] == [colour(number) for number in (1, 2, 3, 4)]
    assert vocabulary.phrases == tuple(
        Phrase(name, number, PROTOCOL_TEMPLATES) for number, name in enumerate(names, start=1)
    )
    assert (vocabulary.background, vocabulary.background_texts) == ((), ())
    assert (vocabulary.auto, vocabulary.source) == (False, "")


def test_specs_say_more() -> None:
    own: Colour = (0, 0, 0)
    vocabulary = make_vocabulary(
        [
            ClassSpec("not _me", ("  nor  me",), negative=True),
            ClassSpec("panda_leg", ("paw", " leg of  a panda"), own, 0, " big  animal ", ("  my {}",)),
            "tree",
            ClassSpec("bamboo", negative=True, templates=("some {}",)),
            ClassSpec("sea", min_confidence=1),
        ],
        ["sky"],
        ["a {}", "{}"],
        "mine.toml",
    )
    assert [(c.id, c.name, c.colour, c.synonyms, c.supercategory, c.min_confidence) for c in vocabulary.classes] == [
        (1, "panda leg", own, ("paw", "leg of a panda"), "big animal", 0),
        (2, "tree", colour(2), (), "tree", None),
        (3, "sea", colour(3), (), "sea", 1),
    ]
    common = ("a {}", "{}")
    assert vocabulary.phrases == (
        Phrase("panda leg", 1, ("my {}",)),
        Phrase("paw", 1, ("my {}",)),
        Phrase("leg of a panda", 1, ("my {}",)),
        Phrase("tree", 2, common),
        Phrase("sea", 3, common),
        Phrase("not me", 0, common),
        Phrase("nor me", 0, common),
        Phrase("bamboo", 0, ("some {}",)),
        Phrase("sky", 0, common),
    )
    assert vocabulary.background_texts == ("not me", "nor me", "bamboo", "sky")
    assert vocabulary.background == ("sky",)
    assert [entry.name for entry in vocabulary.specs] == ["not me", "panda leg", "tree", "bamboo", "sea"]
    assert vocabulary.specs[1].texts == ("panda leg", "paw", "leg of a panda")
    assert (vocabulary.templates, vocabulary.auto, vocabulary.source) == (common, False, "mine.toml")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["a,b"], ("a", "b")),
        (["a"], ("a",)),
        (["a, b ,c"], ("a", " b ", "c")),
        (["a,,b"], ("a", "", "b")),
        (["a,"], ("a", "")),
        ([""], ("",)),
        (["salt, pepper", "tree"], ("salt, pepper", "tree")),
        ([], ()),
        (["a\nb, c\r\nd\n"], ("a", "b", " c\r", "d")),
        (["\r\na\n\nb\n"], ("a", "", "b")),
    ],
)
def test_one_value_is_split_at_commas_and_several_are_not(values: list[str], names: tuple[str, ...]) -> None:
    assert split_phrases(values) == names


# ---- background ----


@pytest.mark.parametrize(
    ("classes", "left_out"),
    [
        pytest.param(["panda"], [], id="nothing"),
        pytest.param(["tree", "panda"], ["tree"], id="the same word"),
        pytest.param(["Tree"], ["tree"], id="case"),
        pytest.param(["TREES"], ["tree"], id="plural"),
        pytest.param(["the_sky"], ["sky"], id="article"),
        pytest.param(["tree trunk", "skyline", "shelves"], [], id="another thing"),
        pytest.param([ClassSpec("lake", ("sea", "rivers"))], ["sea", "river"], id="synonyms"),
        pytest.param(["panda", ClassSpec("walls", ("fence",), negative=True)], ["wall", "fence"], id="negative"),
        pytest.param(list(GENERAL_BACKGROUND), list(GENERAL_BACKGROUND), id="all"),
    ],
)
def test_auto_background_leaves_out_what_the_classes_name(classes: list[str | ClassSpec], left_out: list[str]) -> None:
    vocabulary = make_vocabulary(classes)
    assert vocabulary.background == tuple(phrase for phrase in GENERAL_BACKGROUND if phrase not in left_out)
    assert vocabulary.phrases[len(vocabulary.phrases) - len(vocabulary.background) :] == tuple(
        Phrase(text, 0, PROTOCOL_TEMPLATES) for text in vocabulary.background
    )
    assert vocabulary.auto


def test_resolved_drops_phrases_of_the_background_alone() -> None:
    vocabulary = make_vocabulary(["pond", ClassSpec("sea", negative=True)], "auto", ["{}"], "a.txt")
    resolved = vocabulary.drop_background({"river", "pond", "sea", "no such phrase"})
    assert resolved.background == tuple(text for text in GENERAL_BACKGROUND if text not in ("sea", "river"))
    assert (vocabulary.auto, resolved.auto) == (True, False)
    for part in ("specs", "classes", "templates", "source"):
        assert getattr(resolved, part) == getattr(vocabulary, part)
    assert vocabulary.drop_background(()).background == vocabulary.background


@pytest.mark.parametrize(
    ("value", "parsed", "phrases", "auto"),
    [
        ("auto", "auto", GENERAL_BACKGROUND, True),
        ("AUTO ", "auto", GENERAL_BACKGROUND, True),
        ("none", "none", (), False),
        (" None", "none", (), False),
        ("sky, stone_wall", ("sky", " stone_wall"), ("sky", "stone wall"), False),
        ("Sky", ("Sky",), ("Sky",), False),
        ("none, auto", ("none", " auto"), ("none", "auto"), False),
        ("autos, none of it", ("autos", " none of it"), ("autos", "none of it"), False),
        ("auot, sky", ("auot", " sky"), ("auot", "sky"), False),
        ("bone", ("bone",), ("bone",), False),
        ("moon", ("moon",), ("moon",), False),
        ("noon", ("noon",), ("noon",), False),
        ("aunt", ("aunt",), ("aunt",), False),
    ],
)
def test_background_option(value: str, parsed: str | tuple[str, ...], phrases: tuple[str, ...], auto: bool) -> None:
    assert parse_background(value) == parsed
    vocabulary = make_vocabulary(["a"], parse_background(value))
    assert (vocabulary.background, vocabulary.auto) == (phrases, auto)


def test_an_empty_list_is_no_background() -> None:
    assert make_vocabulary(["a"], []) == make_vocabulary(["a"], "none")


# ---- what is refused ----


@dataclass(frozen=True, slots=True)
class Refused:
    """Arguments of make_vocabulary, and what the error says; `index` is that of the class at fault, from 0."""

    classes: Sequence[str | ClassSpec]
    message: str
    hint: str = ""
    index: int | None = None
    background: str | Sequence[str] = "auto"
    templates: Sequence[str] = PROTOCOL_TEMPLATES


NO_CLASSES = Refused([], "no classes given", 'Pass at least one, for example: ["panda leg", "tree"]')
NEGATIVE = (
    "'a b' is negative: it must not have a colour, a minimum confidence, a supercategory or a whole",
    "Remove these values, or remove `negative`.",
    1,
)
MARK_ONE = "For example: a photo of a {}."

REFUSED = {
    "a string": Refused(
        "tree", "classes must be a list of names (ids follow its order), not 'tree'", 'For example: ["panda leg", "tree"]',
    ),
    "no classes": NO_CLASSES,
    "empty": Refused(["a", "", "b"], "class 2 of 3 is empty", A_NAME, 1),
    "empty synonym": Refused(["b", ClassSpec("a_b", ("c", " _"))], "a synonym of 'a b' is empty", "", 1),
    "twice": Refused(["a", "b", "A"], "duplicate class 'A': numbers 1 and 3", SAME, 2),
    "twice, synonym of another": Refused(
        [ClassSpec("a", ("b",)), "c", ClassSpec("d", ("e", "_B"))], "'B' belongs to two classes, 'a' and 'd'", SAME, 2
    ),
    "twice, name and synonym of another": Refused(
        [ClassSpec("a", ("b",)), "b"], "'b' belongs to two classes, 'a' and 'b'", SAME, 1
    ),
    "twice, class and negative": Refused(
        ["a", ClassSpec("A", negative=True)], "duplicate class 'A': numbers 1 and 2", SAME, 1
    ),
    "synonym twice": Refused(["a", ClassSpec("b", ("c", "C"))], "'b' has duplicate names: b, c, C", SAME, 1),
    "confidence above 1": Refused(
        ["b", ClassSpec("a_", min_confidence=1.01)], "the minimum confidence of 'a' must be between 0 and 1, not 1.01", "", 1
    ),
    "confidence that is no number": Refused(
        [ClassSpec("a", min_confidence=float("nan"))], "the minimum confidence of 'a' must be between 0 and 1, not nan", "", 0
    ),
    "colour beyond 255": Refused(
        ["b", ClassSpec("a", colour=(0, 256, 0))], "the colour of 'a' must be three numbers from 0 to 255, not (0, 256, 0)",
        'Use [red, green, blue] or "#rrggbb".', 1,
    ),
    "negative with colour": Refused(["c", ClassSpec("a_b", colour=(0, 0, 0), negative=True)], *NEGATIVE),
    "own template": Refused(
        ["c", ClassSpec("a_b", templates=("{}", "a"))], "'a b': the template 'a' must contain {} once, not 0 times", MARK_ONE,
        1,
    ),
    "no own templates": Refused(
        [ClassSpec("a", templates=())], "'a': no templates", 'Add at least one, such as "a photo of a {}."', 0
    ),
    "empty background phrase": Refused(
        ["a"], "background phrase 2 of 3 is empty",
        "Remove it. For no background, use 'none'.", background=["sky", "_", "sea"],
    ),
    "background twice": Refused(
        ["a"], "duplicate background phrase 'SKY'", SAME, background=["sky", "sea", " SKY"]
    ),
    "background that is a class": Refused(
        ["Stone wall"], "'stone wall' is both a class and a background phrase", "Remove it from one of the lists.",
        background=["sky", "stone_wall"],
    ),
    "too many": Refused(
        [f"c{number}" for number in range(65535)], "65535 classes; the limit of 16-bit masks is 65534"
    ),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_wrong_vocabularies_are_refused(refused: Refused) -> None:
    with pytest.raises(VocabularyError) as caught:
        make_vocabulary(refused.classes, refused.background, refused.templates)
    error = caught.value
    assert (error.message, error.hint) == (refused.message, refused.hint)
    assert error.class_index == refused.index
    assert (error.path, error.line, error.exit_code) == (None, None, 2)


def test_as_many_classes_as_a_mask_can_hold_beside_negatives() -> None:
    names = [f"c{number}" for number in range(MAX_CLASSES)]
    vocabulary = make_vocabulary([ClassSpec("n", negative=True), *names], "none")
    assert (len(vocabulary.classes), vocabulary.classes[-1].id) == (65534, 65534)


@pytest.mark.parametrize("confidence", [0, 0.0, 0.5, 1, 1.0])
def test_confidence_may_be_at_either_end(confidence: float) -> None:
    assert make_vocabulary([ClassSpec("a", min_confidence=confidence)]).classes[0].min_confidence == confidence
