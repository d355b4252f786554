from __future__ import annotations

import pytest

from tipsseg.background import GENERAL_BACKGROUND
from tipsseg.errors import VocabularyError
from tipsseg.vocabulary import make_vocabulary, parse_background, split_names


def test_classes_keep_their_order_and_are_numbered_from_1() -> None:
    vocabulary = make_vocabulary(["  panda leg ", "Tree", "chest_of_drawers", "salt,  pepper"], "none")
    assert [(c.id, c.name) for c in vocabulary.classes] == [
        (1, "panda leg"),
        (2, "Tree"),
        (3, "chest of drawers"),
        (4, "salt, pepper"),
    ]
    assert len({c.colour for c in vocabulary.classes}) == 4
    assert vocabulary.phrases == ("panda leg", "Tree", "chest of drawers", "salt, pepper")
    assert vocabulary.label_ids == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["a,b"], ("a", "b")),
        (["a"], ("a",)),
        (["a, b ,c"], ("a", " b ", "c")),
        (["salt, pepper", "tree"], ("salt, pepper", "tree")),
        ([], ()),
        (["a\nb, c\r\nd\n"], ("a", "b", " c\r", "d")),
    ],
)
def test_one_value_is_split_at_commas_and_several_are_not(values: list[str], names: tuple[str, ...]) -> None:
    assert split_names(values) == names


@pytest.mark.parametrize("name", ["tree", "Tree", "trees", "TREES"])
def test_auto_background_leaves_out_what_the_classes_name(name: str) -> None:
    vocabulary = make_vocabulary([name, "panda"])
    assert vocabulary.background == tuple(phrase for phrase in GENERAL_BACKGROUND if phrase != "tree")
    assert vocabulary.label_ids == (1, 2) + (0,) * len(vocabulary.background)


def test_background_may_be_a_list() -> None:
    assert make_vocabulary(["a"], parse_background("sky, stone_wall")).background == ("sky", "stone wall")
    assert make_vocabulary(["a"], parse_background("none")).background == ()
    assert make_vocabulary(["a"], parse_background("auto")).background == GENERAL_BACKGROUND
    assert make_vocabulary(["a"], parse_background(" None")).background == ()
    assert make_vocabulary(["a"], parse_background("AUTO")).background == GENERAL_BACKGROUND


def test_a_string_is_no_list_of_names() -> None:
    with pytest.raises(VocabularyError, match="classes must be a list of names, not a string"):
        make_vocabulary("tree")


@pytest.mark.parametrize(
    ("classes", "background", "message"),
    [
        ([], "auto", "no classes given"),
        (["a", "", "b"], "auto", "class 2 of 3 is empty"),
        (["a", " _ "], "auto", "class 2 of 2 is empty"),
        (["a", "b", "A"], "auto", "class 'A' is given twice, as number 1 and number 3"),
        (["panda leg", "panda_ leg"], "auto", "class 'panda leg' is given twice"),
        (["a"], ["sky", ""], "background phrase 2 of 2 is empty"),
        (["a"], ["sky", "sky"], "background phrase 'sky' is given twice"),
        (["Sky"], ["sky"], "'sky' is both a class and a background phrase"),
        (["a"], "some", "neither 'auto' nor 'none'"),
        ([f"c{n}" for n in range(65535)], "none", "more than a 16-bit mask can hold"),
    ],
)
def test_unusable_names_are_refused(classes: list[str], background: str | list[str], message: str) -> None:
    with pytest.raises(VocabularyError, match=message) as caught:
        make_vocabulary(classes, background)
    assert caught.value.exit_code == 2
