"""Vocabulary files: what they say, what is wrong with them and where, and that a written file reads back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipsseg.errors import VocabularyError
from tipsseg.types import Colour
from tipsseg.vocabulary.files import read_vocabulary, vocabulary_toml
from tipsseg.vocabulary.palette import colour
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, PROTOCOL_TEMPLATES
from tipsseg.vocabulary.vocabulary import ClassSpec, make_vocabulary

Stored = Callable[[str], bytes]

# How one text may be stored.
STORED: dict[str, Stored] = {
    "LF": lambda text: text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "lone CR": lambda text: text.replace("\n", "\r").encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "byte order mark and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
}
each_storage = pytest.mark.parametrize("stored", STORED.values(), ids=STORED)

KEYS = "The keys are: classes, background, templates."
CLASS_KEYS = (
    "The keys are: name, synonyms, colour, min_confidence, supercategory, templates, negative, part_of, phrase, thing."
)
SAME = "The model does not distinguish names that differ only in case, spacing or slashes."
A_NAME = "Remove it, or give it a name."
MARK_ONE = "For example: a photo of a {}."
WRITTEN = 'Put texts in quotes, as in name = "tree"; end lists with "]"; set every key once.'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


def saved(folder: Path, data: str | bytes, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# ---- what a TOML file says ----

ALL_KEYS = """\
# a comment
background = ["sky", "stone_wall"]  # another
templates = [
    "a {}",  # of several lines
    " the  {}.",
]

[[classes]]
name = "panda_leg"
synonyms = ["leg of a panda", '''paw # 1''']
colour = "#E639ff"
min_confidence = 0.5
supercategory = "panda"
templates = ["a photo of a {}."]

[[classes]]
name = \"\"\"
bamboo\"\"\"
negative = true

# a comment
[[classes]]
name = "tree # 2"
colour = [230, 0, 255]
min_confidence = 1

[[classes]]
name = "sea"
negative = false
"""


@each_storage
def test_a_vocabulary_file_with_all_keys(stored: Stored, folder: Path) -> None:
    path = saved(folder, stored(ALL_KEYS))
    vocabulary = read_vocabulary(path)
    assert vocabulary.specs == (
        ClassSpec(
            "panda leg",
            ("leg of a panda", "paw # 1"),
            (230, 57, 255),
            0.5,
            "panda",
            ("a photo of a {}.",),
            negative=False,
        ),
        ClassSpec("bamboo", negative=True),
        ClassSpec("tree # 2", colour=(230, 0, 255), min_confidence=1.0),
        ClassSpec("sea"),
    )
    assert [(c.id, c.name, c.colour) for c in vocabulary.classes] == [
        (1, "panda leg", (230, 57, 255)),
        (2, "tree # 2", (230, 0, 255)),
        (3, "sea", colour(3)),
    ]
    common = ("a {}", "the {}.")
    assert [(phrase.text, phrase.label_id, phrase.templates) for phrase in vocabulary.phrases] == [
        ("panda leg", 1, ("a photo of a {}.",)),
        ("leg of a panda", 1, ("a photo of a {}.",)),
        ("paw # 1", 1, ("a photo of a {}.",)),
        ("tree # 2", 2, common),
        ("sea", 3, common),
        ("bamboo", 0, common),
        ("sky", 0, common),
        ("stone wall", 0, common),
    ]
    assert (vocabulary.background, vocabulary.templates) == (("sky", "stone wall"), common)
    assert (vocabulary.auto, vocabulary.source) == (False, "mine.toml")


@pytest.mark.parametrize(
    ("text", "background", "templates", "auto"),
    [
        ('classes = ["a"]', GENERAL_BACKGROUND, PROTOCOL_TEMPLATES, True),
        ('background = "auto"\ntemplates = "protocol"\nclasses = ["a"]', GENERAL_BACKGROUND, PROTOCOL_TEMPLATES, True),
        ('background = "none"\ntemplates = "plain"\nclasses = ["a"]', (), ("{}",), False),
        ('background = []\ntemplates = ["{}"]\nclasses = ["a"]', (), ("{}",), False),
        ('background = ["auto"]\nclasses = ["a"]', ("auto",), PROTOCOL_TEMPLATES, False),
    ],
)
def test_background_and_templates_of_a_file(
    text: str, background: tuple[str, ...], templates: tuple[str, ...], auto: bool, folder: Path
) -> None:
    vocabulary = read_vocabulary(saved(folder, text))
    assert (vocabulary.background, vocabulary.templates, vocabulary.auto) == (background, templates, auto)


def test_arguments_replace_what_the_file_says_but_for_single_classes(folder: Path) -> None:
    path = saved(folder, ALL_KEYS)
    both = read_vocabulary(path, "none", ["my {}"])
    assert (both.background, both.templates, both.auto) == ((), ("my {}",), False)
    assert {phrase.text: phrase.templates for phrase in both.phrases} == {
        **dict.fromkeys(("panda leg", "leg of a panda", "paw # 1"), ("a photo of a {}.",)),
        **dict.fromkeys(("tree # 2", "sea", "bamboo"), ("my {}",)),
    }
    own = read_vocabulary(path)
    assert both.specs == own.specs
    auto = read_vocabulary(path, "auto")
    assert auto.background == tuple(text for text in GENERAL_BACKGROUND if text != "sea")
    assert (auto.auto, auto.templates) == (True, own.templates)
    listed = read_vocabulary(path, background=["floor"])
    assert (listed.background, listed.auto) == (("floor",), False)
    assert read_vocabulary(path, templates=["{}"]).background == own.background
    assert read_vocabulary(path, []).background == ()


def test_templates_of_a_class_may_be_a_set_with_a_name(folder: Path) -> None:
    path = saved(
        folder,
        'templates = ["my {}"]\nclasses = [{ name = "a", templates = "protocol" }, { name = "b", templates = "plain" }, "c"]',
    )
    vocabulary = read_vocabulary(path, "none")
    assert [entry.templates for entry in vocabulary.specs] == [PROTOCOL_TEMPLATES, ("{}",), None]
    assert [phrase.templates for phrase in vocabulary.phrases] == [PROTOCOL_TEMPLATES, ("{}",), ("my {}",)]


def test_names_and_tables_may_be_mixed(folder: Path) -> None:
    path = saved(folder, 'classes = ["a_b", { name = "c", synonyms = ["d"] }, { name = "e", negative = true }, "f"]')
    assert read_vocabulary(path).specs == (
        ClassSpec("a b"),
        ClassSpec("c", ("d",)),
        ClassSpec("e", negative=True),
        ClassSpec("f"),
    )


# ---- text files ----


@each_storage
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tree\nsky", ["tree", "sky"]),
        ("tree\nsky\n\n", ["tree", "sky"]),
        ("\n\n  panda_leg \n\t\n stone   wall\n", ["panda leg", "stone wall"]),
        ("# trees\ntree\n  # skies\n#sky\n#\nsea", ["tree", "sea"]),
        ("tree # of any kind\nsky\t#\tblue\nsea #", ["tree", "sky", "sea"]),
        ("item #5\nC# code\n#5\n#1 fan #2 # really # yes\ntree#\n# # #", ["item #5", "C# code", "tree#"]),
        ("tree # oak, elm,\n", ["tree"]),
        ("tree , big\n , sky\n", ["tree , big", ", sky"]),
        ("1,000 dollars\n7 dwarfs\n3D print\n2.5 litres\n", ["1,000 dollars", "7 dwarfs", "3D print", "2.5 litres"]),
        ("salt, pepper\n\"quoted\"\n'a'\\n", ["salt, pepper", '"quoted"', "'a'\\n"]),
        ("Größe\n熊猫\n", ["Größe", "熊猫"]),
        ("classes\n[classes]\nclasses = all\n", ["classes", "[classes]", "classes = all"]),
    ],
)
def test_a_text_file_has_one_class_a_line(stored: Stored, text: str, names: list[str], folder: Path) -> None:
    vocabulary = read_vocabulary(saved(folder, stored(text), "mine.txt"))
    assert vocabulary.specs == tuple(ClassSpec(name) for name in names)
    assert [entry.id for entry in vocabulary.classes] == list(range(1, len(names) + 1))
    assert (vocabulary.background, vocabulary.auto) == (make_vocabulary(names).background, True)
    assert (vocabulary.templates, vocabulary.source) == (PROTOCOL_TEMPLATES, "mine.txt")


# ---- presets ----


def test_a_preset_is_named_and_a_file_of_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "tree\n", "ade20k")
    monkeypatch.chdir(tmp_path)
    preset = read_vocabulary("ade20k")
    assert (len(preset.classes), preset.source) == (150, "ade20k")
    for path in ("./ade20k", Path("ade20k"), tmp_path / "ade20k", str(tmp_path / "ade20k")):
        mine = read_vocabulary(path)
        assert (mine.specs, mine.source) == ((ClassSpec("tree"),), "ade20k")


def test_background_and_templates_of_a_preset_may_be_replaced() -> None:
    vocabulary = read_vocabulary("voc20", ["sky"], ["{}"])
    assert (vocabulary.background, vocabulary.templates, vocabulary.source) == (("sky",), ("{}",), "voc20")
    assert vocabulary.specs == read_vocabulary("voc20").specs


# ---- what is wrong, and where ----


@dataclass(frozen=True, slots=True)
class Fault:
    """A file and what is said of it. ▶ stands before the line that is named, where one is; `number` is the class that is named."""

    text: str
    reason: str
    hint: str = ""
    background: str | Sequence[str] | None = None
    templates: Sequence[str] | None = None
    number: int | None = None


def table(lines: str) -> str:
    """A second class with these lines, among others."""
    return (
        f'# pandas\n\n[[classes]]\nname = "panda"\n\n[[classes]]  # the second\n{lines}\n\n[[classes]]\nname = "sea"\n'
    )


NO_CLASSES = (
    "the file has no classes to label",
    'Add [[classes]] with a name, or a list: classes = ["panda leg", "tree"]',
)
NEGATIVE = (
    "'tree' is negative: it must not have a colour, a minimum confidence, a supercategory or a whole",
    "Remove these values, or remove `negative`.",
)
RGB = 'Use [red, green, blue] or "#rrggbb".'
NAMED_SETS = "A vocabulary file can also name a set: protocol, plain."
ABOVE = "Move it above the first [[classes]], where it applies to all classes."

FAULTS = {
    # syntax
    "broken value": Fault('classes = ["a"]\nbackground = none\n', "not TOML: Invalid value (at line 2, column 14)", WRITTEN),
    "key twice": Fault(
        'classes = ["a"]\nclasses = ["b"]\n', "not TOML: Cannot overwrite a value (at line 2, column 16)", WRITTEN
    ),
    # the file as a whole
    "empty": Fault("", *NO_CLASSES),
    "only negatives": Fault('[[classes]]\nname = "a"\nnegative = true\n', *NO_CLASSES),
    "unknown key": Fault(
        'classes = ["a"]\n\nclases = ["b"]\n', "unknown key `clases`", f"Did you mean 'classes'? {KEYS}"
    ),
    "classes is a table": Fault(
        '[classes]\nname = "tree"\n', "`classes` must be a list", 'For example: classes = ["panda leg", "tree"]'
    ),
    # background
    **{
        f"background {written}": Fault(
            f'# 1\nbackground = {written}\nclasses = ["a"]', f"background must be 'auto', 'none' or a list, not {shown}", ""
        )
        for written, shown in (('"Auto"', "'Auto'"), ("true", "True"), ("{ sky = 1 }", "{'sky': 1}"))
    },
    # templates
    "templates word": Fault(
        'classes = ["a"]\ntemplates = "protocoll"\n', "templates must be a list of strings, not 'protocoll'", NAMED_SETS
    ),
    "template without a place": Fault(
        '#\ntemplates = [\n"{}",\n"a photo",\n]\nclasses = ["a"]\n',
        "the template 'a photo' must contain {} once, not 0 times", MARK_ONE,
    ),
    # keys of a class, in tables
    "class without a name": Fault(
        table("negative = true"), "a class has no name", 'For example: name = "tree"', number=2
    ),
    "unknown key of a class": Fault(
        table('name = "tree"\ncolor = "#ff0000"'), "unknown key `color` of 'tree'",
        f"Did you mean 'colour'? {CLASS_KEYS}", number=2,
    ),
    "background below a class": Fault(
        table('name = "tree"\n\nbackground = "none"'), "unknown key `background` of 'tree'", ABOVE, number=2
    ),
    **{
        f"name {written}": Fault(
            table(f"negative = false\nname{written}"), f"the name of class 2 must be a string, not {shown}", number=2
        )
        for written, shown in ((" = 7", "7"), (' = [\n"tree"\n]', "['tree']"), ('.en = "tree"', "{'en': 'tree'}"))
    },
    **{
        f"empty name {written}": Fault(table(f"name = {written}"), "class 2 of 3 is empty", A_NAME, number=2)
        for written in ('""', '" _ "', '"\u00a0"', '"""\n\n \n"""')
    },
    "synonyms text": Fault(
        table('name = "tree"\nsynonyms = "oak"'), "synonyms of 'tree' must be a list of strings, not 'oak'", number=2
    ),
    "confidence nan": Fault(
        table('min_confidence = nan\nname = "tree"'), "the minimum confidence of 'tree' must be between 0 and 1, not nan",
        number=2,
    ),
    "templates of a class, text": Fault(
        table('name = "tree"\ntemplates = "Plain"'), "'tree': templates must be a list of strings, not 'Plain'",
        NAMED_SETS, number=2,
    ),
    **{
        f"colour {written}": Fault(
            table(f'name = "tree"\ncolour = {written}'),
            f"the colour of 'tree' must be three numbers from 0 to 255, not {shown}",
            RGB,
            number=2,
        )
        for written, shown in (
            ('"red"', "'red'"),
            ('"#12345"', "'#12345'"),
            ('"#12345g"', "'#12345g'"),
            ("[1, 2]", "[1, 2]"),
            ("[1, 2, 3, 4]", "[1, 2, 3, 4]"),
            ("[1, 2, 256]", "[1, 2, 256]"),
            ("[-1, 2, 3]", "[-1, 2, 3]"),
            ("[1, 2.0, 3]", "[1, 2.0, 3]"),
            ("7", "7"),
            ("{ r = 1 }", "{'r': 1}"),
        )
    },
    "negative with colour": Fault(table('name = "tree"\nnegative = true\ncolour = "#000000"'), *NEGATIVE, number=2),
    # names that are given twice: the line is that of the second class
    "name twice": Fault(
        '[[classes]]\nname = "sea"\n[[classes]]\nname = "tree"\n\n[[classes]]\n# again\nname = "Tree"\n',
        "duplicate class 'Tree': numbers 2 and 3", SAME, number=3,
    ),
    # the same in lists
    "list: number": Fault(
        'classes = [\n  "a", "b",\n  # a comment, [1, 2]\n\n  "c", 5,\n  "d",\n]\n',
        "a class must be a string or a table, not 5", 'For example: { name = "tree" }', number=4,
    ),
    "list: name twice": Fault(
        'templates = [\n"{}",\n]\nclasses = [\n"a",\n"b", "c",\n# B\n"d", "B",\n"e",\n]\n',
        "duplicate class 'B': numbers 2 and 5", SAME, number=5,
    ),
}  # fmt: skip


def check_fault(path: Path, fault: Fault) -> None:
    line = fault.text.count("\n", 0, fault.text.index("▶")) + 1 if "▶" in fault.text else None
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path, fault.background, fault.templates)
    error = caught.value
    place = f"{path}:{line}: " if line else f"{path}: "
    if fault.number is not None and line is None:
        place += f"class {fault.number}: "
    assert (error.message, error.hint) == (place + fault.reason, fault.hint)
    index = None if fault.number is None else fault.number - 1
    assert (error.path, error.line, error.class_index, error.exit_code) == (path, line, index, 2)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faults_of_toml(fault: Fault, folder: Path) -> None:
    check_fault(saved(folder, fault.text.replace("▶", "")), fault)


@each_storage
@pytest.mark.parametrize("name", ["confidence nan", "list: name twice"])
def test_faults_of_toml_however_it_is_stored(name: str, stored: Stored, folder: Path) -> None:
    fault = FAULTS[name]
    check_fault(saved(folder, stored(fault.text.replace("▶", ""))), fault)


LOOKS_LIKE_TOML = (
    "this looks like TOML, in a file with one class per line",
    "Rename the file to end in .toml.",
)
COMMA_AT_END = (
    "a comma at the end of the line, in a file with one class per line",
    "Write one class per line, without commas.",
)
TAB = (
    "a tab in the line, in a file with one class per line",
    "Remove columns of numbers. Ids follow the order of the lines.",
)
BETWEEN = (
    "a comma between two names, in a file with one class per line",
    "Write one class per line. If a class name contains a comma, use a .toml file.",
)
NUMBERS = (
    "a number before the name, in a file with one class per line",
    "Remove the numbers. Ids follow the order of the lines, from 1.",
)
YAML = ("this looks like YAML, in a file with one class per line", "Write one class per line, and nothing else.")
ONE_LINE = ("the only line contains commas, but each line is one class", "Write one class per line.")

TEXT_FAULTS = {
    "empty": Fault("", "the file has no classes to label", "Write one per line."),
    "twice": Fault(
        "# a\ntree\n\nsky # tree\n▶Tree # sky\nsea", "duplicate class 'Tree': numbers 1 and 3", SAME,
        number=3,
    ),
    "blank": Fault("tree\n\n▶_\nsky", "class 2 of 3 is empty", A_NAME, number=2),
    "TOML tables": Fault('# mine\nbackground = "none"\n\n▶[[classes]]\nname = "a"\n', *LOOKS_LIKE_TOML),
    "comma at the end": Fault("tree\n# sky,\n▶sky,\nsea,", *COMMA_AT_END),
    "a comma between names": Fault("sky\n▶tree,person\nsea", *BETWEEN),
    "numbers": Fault("# mine\n▶0: tree\n1: sky\n", *NUMBERS),
    "a list of YAML": Fault("▶- tree\n- sky\n", *YAML),
    "tab": Fault("tree\n\tsky\t\n▶sea\t3 # blue\n", *TAB),
    "all in one line": Fault("# mine\n\n▶tree, sky, sea\n", *ONE_LINE),
}  # fmt: skip


@pytest.mark.parametrize("fault", TEXT_FAULTS.values(), ids=TEXT_FAULTS)
def test_faults_of_text_files(fault: Fault, folder: Path) -> None:
    check_fault(saved(folder, fault.text.replace("▶", ""), "mine.txt"), fault)


@pytest.mark.parametrize(
    "name", ["a.json", "a.jsonl", "a.yaml", "a.yml", "a.csv", "a.tsv", "a.xml", "A.JSON", "mine.txt.Csv"]
)
def test_files_of_other_kinds_are_refused_whatever_is_in_them(name: str, folder: Path) -> None:
    path = saved(folder, "tree\nsky\n", name)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    error = caught.value
    assert error.message == f"{path}: unsupported file type {path.suffix}"
    assert error.hint == "Write one class per line into a .txt file, or a .toml file: see `tipsseg vocab show voc20`."
    assert (error.path, error.line) == (path, None)


@pytest.mark.parametrize("name", ["mine", "mine.names", "my.csv.txt", "mine.v2", "csv", ".json"])
def test_other_names_are_those_of_text_files(name: str, folder: Path) -> None:
    assert read_vocabulary(saved(folder, "tree\nsky\n", name)).specs == (ClassSpec("tree"), ClassSpec("sky"))


UTF8 = "Save the file as UTF-8."
NUL = "a NUL character: the file is not text"


@pytest.mark.parametrize("name", ["mine.txt", "mine.toml"])
@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        pytest.param("tree\nGröße\n".encode("latin-1"), 2, "not UTF-8 text", id="Latin-1"),
        pytest.param(b"\xef\xbb\xbfa\n\xff\n", 2, "not UTF-8 text", id="after a byte order mark"),
        pytest.param(b"a\r\nb\r\n\r\nc\xff\r\n\xff", 4, "not UTF-8 text", id="CRLF"),
        pytest.param("tree\nsky\n".encode("utf-16"), 1, "not UTF-8 text", id="UTF-16 with byte order mark"),
        pytest.param("tree\nsky\n".encode("utf-16-le"), 1, NUL, id="UTF-16 without"),
        pytest.param(b"a\nb\n\n c\0\nd\0", 4, NUL, id="NUL"),
    ],
)
def test_text_that_is_not_utf8_is_refused(name: str, data: bytes, line: int, reason: str, folder: Path) -> None:
    path = saved(folder, data, name)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    error = caught.value
    assert (error.message, error.hint) == (f"{path}:{line}: {reason}", UTF8)
    assert (error.path, error.line) == (path, line)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (PermissionError(13, "Permission denied"), "no read permission"),
        (FileNotFoundError(2, "No such file"), "no such file"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read(
    raised: OSError, reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, mode: str) -> bytes:
        raise raised

    path = saved(folder, "tree", "mine.txt")
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(VocabularyError) as caught:
        read_vocabulary(path)
    assert (caught.value.message, caught.value.hint) == (f"{path}: {reason}", "")


# ---- one fault among any number of classes ----

# A class as a table in one line, and what is said of it.
# ---- what is written reads back ----

TREE = ClassSpec("tree")


def test_a_vocabulary_is_written_as_toml() -> None:
    vocabulary = make_vocabulary(
        [
            TREE,
            ClassSpec("panda_leg", ("paw",), (230, 57, 10), 0.0, "panda", ("a {}", "the {}")),
            ClassSpec('the "other"', negative=True),
        ],
        ["sky", "stone wall"],
        ["my {}"],
    )
    assert vocabulary_toml(vocabulary) == (
        'background = ["sky", "stone wall"]\n'
        'templates = ["my {}"]\n'
        "\n"
        "[[classes]]\n"
        'name = "tree"\n'
        "\n"
        "[[classes]]\n"
        'name = "panda leg"\n'
        'synonyms = ["paw"]\n'
        'colour = "#e6390a"\n'
        "min_confidence = 0.0\n"
        'supercategory = "panda"\n'
        'templates = ["a {}", "the {}"]\n'
        "\n"
        "[[classes]]\n"
        'name = "the \\"other\\""\n'
        "negative = true\n"
    )


@pytest.mark.parametrize(
    ("background", "templates", "head"),
    [
        ("auto", PROTOCOL_TEMPLATES, 'background = "auto"\ntemplates = "protocol"\n'),
        ("none", ["{}"], 'background = "none"\ntemplates = "plain"\n'),
        ([], PROTOCOL_TEMPLATES[:1], 'background = "none"\ntemplates = ["itap of a {}."]\n'),
    ],
)
def test_words_stand_for_what_they_name(background: str | list[str], templates: Sequence[str], head: str) -> None:
    assert vocabulary_toml(make_vocabulary([TREE], background, templates)).startswith(head + "\n[[classes]]\n")


def test_a_resolved_background_is_written_out() -> None:
    resolved = make_vocabulary([TREE]).drop_background({"wood"})
    assert vocabulary_toml(resolved).startswith('background = ["sky", "wall", "grass", ')


def cleaned(text: str) -> str:
    return " ".join(text.replace("_", " ").split())


AWKWARD = [
    '"', "'", '"""', "'''", "\\", "\\n", "\\u0041", "#", " # ", "[[classes]]", "]", "{}", "=", ",", "\t", "\n", "\u2028", "\u202e",
    "\u00ad", "\u200b", "\ufeff", "é", "熊猫", "🐼", "\U0010ffff",
]  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
TEXT = st.one_of(
    st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(LETTERS, max_size=3)), min_size=1, max_size=4).map("".join),
    st.text(LETTERS),
)
NAME_TEXT = TEXT.map(cleaned).filter(bool)
TEMPLATE = st.tuples(TEXT, TEXT).map("{}".join).map(lambda text: " ".join(text.split()))
TEMPLATE_LISTS = st.lists(TEMPLATE.filter(lambda text: text.count("{}") == 1), min_size=1, max_size=3)
BYTE = st.integers(0, 255)
COLOURS: st.SearchStrategy[Colour] = st.tuples(BYTE, BYTE, BYTE)


@st.composite
def specs(draw: st.DrawFn, names: list[str]) -> ClassSpec:
    negative = draw(st.booleans())
    name, *synonyms = names
    templates = draw(st.none() | TEMPLATE_LISTS.map(tuple))
    if negative:
        return ClassSpec(name, tuple(synonyms), templates=templates, negative=True)
    confidence = draw(st.none() | st.floats(0, 1) | st.sampled_from([0.0, 1.0]))
    return ClassSpec(name, tuple(synonyms), draw(st.none() | COLOURS), confidence, draw(TEXT.map(cleaned)), templates)


@settings(max_examples=200)
@given(data=st.data())
def test_a_written_vocabulary_reads_back(data: st.DataObject, folder: Path) -> None:
    names = data.draw(st.lists(NAME_TEXT, min_size=1, max_size=12, unique_by=str.lower))
    cuts = data.draw(st.lists(st.integers(1, len(names)), max_size=4).map(lambda each: sorted({0, *each})))
    groups = [names[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(names)], strict=True) if start < stop]
    background: str | list[str] = data.draw(st.sampled_from(["auto", "none", "list"]))
    if background == "list":
        background = groups.pop() if len(groups) > 1 else []
    made = [data.draw(specs(group)) for group in groups]
    if all(entry.negative for entry in made):
        made[0] = ClassSpec(made[0].name, made[0].synonyms)
    vocabulary = make_vocabulary(made, background, data.draw(TEMPLATE_LISTS | st.sampled_from([PROTOCOL_TEMPLATES])))
    if data.draw(st.booleans()):
        vocabulary = vocabulary.drop_background(set(vocabulary.background[::2]))
    path = saved(folder, vocabulary_toml(vocabulary), "written.toml")
    assert read_vocabulary(path) == replace(vocabulary, source="written.toml")
    assert vocabulary_toml(read_vocabulary(path)) == vocabulary_toml(vocabulary)
