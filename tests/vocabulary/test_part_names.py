"""Classes that are parts of others: their names, ids and phrases, and what competes with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tipsseg import ClassSpec, make_vocabulary
from tipsseg.errors import VocabularyError
from tipsseg.vocabulary.files import read_vocabulary, vocabulary_toml


def test_a_slash_names_a_part_and_its_whole() -> None:
    made = make_vocabulary(["panda/head", "panda / hind_leg", "tree"], "none")
    assert [(each.id, each.name, each.part_of, each.phrases) for each in made.classes] == [
        (1, "panda/head", 4, ("panda head",)),
        (2, "panda/hind leg", 4, ("panda hind leg",)),
        (3, "tree", 0, ("tree",)),
        (4, "panda", 0, ("panda",)),
    ]
    assert [each.supercategory for each in made.classes] == ["panda", "panda", "tree", "panda"]


def test_wholes_that_are_not_named_come_last_outermost_first() -> None:
    made = make_vocabulary(["panda/leg/hind", "dog/head", "dog"], "none")
    assert [each.name for each in made.classes] == ["panda/leg/hind", "dog/head", "dog", "panda", "panda/leg"]
    assert [each.part_of for each in made.classes] == [5, 3, 0, 0, 4]


def test_a_list_without_parts_is_one_contest_of_all_phrases() -> None:
    made = make_vocabulary(["tree", ClassSpec("bamboo", negative=True), ClassSpec("panda", ("bear",))], ["sky"])
    (contest,) = made.contests
    assert (contest.whole, contest.phrases) == (0, made.phrases)


def test_parts_compete_inside_their_whole() -> None:
    made = make_vocabulary(["panda/head", "panda/leg/hind", "tree"], ["sky"])
    contests = {
        each.whole: [(phrase.text, phrase.label_id, phrase.handicap) for phrase in each.phrases]
        for each in made.contests
    }
    assert contests == {
        0: [
            *(("tree", 3, False), ("panda", 4, False), ("panda head", 4, True), ("panda leg", 4, True)),
            *(("panda leg hind", 4, True), ("sky", 0, False)),
        ],
        4: [
            *(("panda head", 1, False), ("panda leg", 5, False), ("panda leg hind", 5, True)),
            *(("sky", 4, False), ("panda", 4, True)),
        ],
        5: [("panda leg hind", 2, False), ("sky", 5, False), ("panda leg", 5, True)],
    }


def test_names_of_specs_are_literal() -> None:
    made = make_vocabulary([ClassSpec("and/or"), ClassSpec("ear", part_of="panda", phrase="ear of a panda")], "none")
    assert [(each.name, each.part_of, each.phrases[0]) for each in made.classes] == [
        ("and/or", 0, "and/or"),
        ("ear", 3, "ear of a panda"),
        ("panda", 0, "panda"),
    ]


@pytest.mark.parametrize(
    ("classes", "part"),
    [
        (["panda//head"], "'panda//head' has an empty name before or after a slash"),
        (["/head"], "empty name"),
        (["panda head", "panda/head"], "'panda head' belongs to two classes, 'panda head' and 'panda/head'"),
        (["panda/head", "Panda/Head"], "duplicate class 'Panda/Head': numbers 1 and 2"),
        (
            [ClassSpec("a", part_of="b"), ClassSpec("b", part_of="a")],
            "'a' is a part of itself: a is a part of b is a part of a",
        ),
        ([ClassSpec("leaf", part_of="bamboo"), ClassSpec("bamboo", negative=True)], "'bamboo', which is negative"),
        ([ClassSpec("leaf", part_of="tree", negative=True)], "'leaf' is negative: it must not have"),
    ],
)
def test_parts_that_cannot_be(classes: list[str | ClassSpec], part: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        make_vocabulary(classes)
    assert part in caught.value.message


def test_text_files_have_paths_and_toml_files_name_the_whole(tmp_path: Path) -> None:
    text, toml = tmp_path / "v.txt", tmp_path / "v.toml"
    text.write_text("panda/head\ntree\n")
    made = read_vocabulary(text)
    assert [each.name for each in made.classes] == ["panda/head", "tree", "panda"]
    toml.write_text(vocabulary_toml(made))
    again = read_vocabulary(toml)
    assert (again.specs, again.classes) == (made.specs, made.classes)
    text.write_text("tree\npanda/\n")
    with pytest.raises(VocabularyError, match=r"v.txt:2: 'panda/' has an empty name"):
        read_vocabulary(text)


def test_unnamed_wholes_count_towards_the_ids_of_8_bits() -> None:
    made = make_vocabulary([f"thing {number}/part" for number in range(127)], "none")
    assert len(made.classes) == 254
    assert len(make_vocabulary([*(f"thing {number}/part" for number in range(127)), "tree"], "none").classes) == 255


def test_classes_are_found_by_name_and_phrase() -> None:
    made = make_vocabulary([ClassSpec("tree", ("oak",)), "panda/hind leg"], "none")
    assert made.find_classes(["Oak", "panda_hind_leg", "panda"]) == {1, 2, 3}
    assert made.with_relatives([2]) == made.with_relatives([3]) == {2, 3}
    with pytest.raises(VocabularyError, match="'tre' is not a class") as caught:
        made.find_classes(["tre"])
    assert caught.value.hint is not None
    assert "Did you mean 'tree'?" in caught.value.hint
