"""`tipsseg vocab` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running import Command

from tipsseg.vocabulary.files import preset_names, read_vocabulary

PRESETS = "ade20k, cityscapes, coco-stuff, pascal-context-59, pascal-context-60, voc20, voc21"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_vocab_list(command: Command) -> None:
    ran = command("vocab", "list")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "ade20k                150 classes               ADE20K, the scene parsing benchmark\n"
        "cityscapes             19 classes               Cityscapes, the evaluated classes\n"
        "coco-stuff            171 classes               COCO-Stuff 164k, things and stuff\n"
        "pascal-context-59      59 classes               PASCAL Context, the 59 frequent classes\n"
        "pascal-context-60      59 classes + background  PASCAL Context, all other pixels as background\n"
        "voc20                  20 classes               PASCAL VOC 2012, objects only\n"
        "voc21                  20 classes + background  PASCAL VOC 2012, all other pixels as background\n"
    )


@pytest.mark.parametrize("name", preset_names())
def test_a_shown_preset_reads_back(command: Command, name: str) -> None:
    ran = command("vocab", "show", name)
    assert (ran.code, ran.err) == (0, "")
    Path("mine.toml").write_text(ran.out, encoding="utf-8")
    preset, mine = read_vocabulary(name), read_vocabulary("mine.toml")
    assert mine.specs == preset.specs
    assert mine.phrases == preset.phrases
    assert (mine.background, mine.auto, mine.templates) == (preset.background, preset.auto, preset.templates)
    assert command("vocab", "check", "mine.toml").out == command("vocab", "check", name).out.replace(name, "mine.toml")
    assert command("vocab", "show", "mine.toml").out == ran.out


def test_show_with_another_background_and_other_templates(command: Command) -> None:
    Path("few.txt").write_text("tree\npanda # of both kinds\n")
    Path("prompts.txt").write_text("a drawing of a {}.\n")
    ran = command("vocab", "show", "few.txt", "--background", "sky, wall", "--templates", "prompts.txt")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        'background = ["sky", "wall"]\ntemplates = ["a drawing of a {}."]\n\n'
        '[[classes]]\nname = "tree"\n\n[[classes]]\nname = "panda"\n'
    )
    assert command("vocab", "show", "few.txt", "--background", "none", "--templates", "plain").out.startswith(
        'background = "none"\ntemplates = "plain"\n'
    )
    assert command("vocab", "show", "few.txt").out.startswith('background = "auto"\ntemplates = "protocol"\n')


FULL = """\
background = ["sky"]
templates = "plain"

[[classes]]
name = "panda leg"
synonyms = ["paw"]
colour = "#e63946"
min_confidence = 0.5
supercategory = "panda"
templates = ["a photo of a {}."]

[[classes]]
name = "Bärenöhrchen"

[[classes]]
name = "bamboo"
negative = true
"""


FULL_CHECKED = """\
full.toml: ok, 2 classes, 3 phrases, 1 negative, background 1 phrase, 1 template
    1  panda leg  (paw)
    2  Bärenöhrchen
"""


@pytest.mark.parametrize(
    ("name", "content", "out"),
    [
        ("one.txt", "tree\n", "one.txt: ok, 1 class, 1 phrase, background auto, 9 templates\n    1  tree\n"),
        (
            "two.txt",
            "# mine\n\ntree\nsky #, blue\nitem #5\n",
            "two.txt: ok, 3 classes, 3 phrases, background auto, 9 templates\n    1  tree\n    2  sky #, blue\n    3  item #5\n",
        ),
        ("full.toml", FULL, FULL_CHECKED),
        (
            "none.toml",
            'background = "none"\nclasses = ["tree"]\n',
            "none.toml: ok, 1 class, 1 phrase, background none, 9 templates\n    1  tree\n",
        ),
        (
            "negative.toml",
            'background = "none"\n[[classes]]\nname = "sky"\nnegative = true\n'
            '[[classes]]\nname = "cat"\nsynonyms = ["tom", "tabby"]\n',
            "negative.toml: ok, 1 class, 3 phrases, 1 negative, background none, 9 templates\n    1  cat  (tom, tabby)\n",
        ),
        (
            "slip.toml",
            'classes = ["panda", {name = "leg", part_of = "pnada"}, {name = "head", part_of = "panda"}, '
            '{name = "trunk", synonyms = ["bole"], part_of = "tree"}]',
            "slip.toml: ok, 6 classes, 7 phrases, background auto, 9 templates\n    1  panda\n    2  leg  part of pnada\n"
            "    3  head  part of panda\n    4  trunk  (bole)  part of tree\n"
            "    5  pnada  a whole that is not listed  Did you mean 'panda'?\n    6  tree  a whole that is not listed\n",
        ),
    ],
)
def test_check_says_what_is_in_a_file(command: Command, name: str, content: str, out: str) -> None:
    Path(name).write_text(content, encoding="utf-8")
    ran = command("vocab", "check", name)
    assert (ran.code, ran.err, ran.out) == (0, "", out)


# name: (file, content, the point of stderr)
FAULTS = {
    "syntax": ("v.toml", 'classes = ["tree", "sky"\n\n[[more]]\n', "v.toml: not TOML: Unclosed array (at line 3, column 1)"),
    "unknown key": (
        "v.toml", 'classes = [\n  "tree",\n  { nam = "sky" },\n]\n',
        "v.toml: class 2: unknown key `nam`\nHint: Did you mean 'name'?",
    ),
    "twice": ("v.txt", "# of mine\ntree\n\nTree\n", "v.txt:4: duplicate class 'Tree': numbers 1 and 2\n"),
    "TOML in text": ("v.txt", '\n[[classes]]\nname = "tree"\n', "v.txt:2: this looks like TOML"),
    "a misspelt preset": ("ade2k", None, f"neither a file nor a preset\nHint: Did you mean 'ade20k'? The presets are: {PRESETS}"),
    "no file": ("my/words.toml", None, "'my/words.toml' is neither a file nor a preset\nHint: Check the path."),
    "a folder": (".", None, ". is a folder, not a vocabulary file\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
@pytest.mark.parametrize("verb", ["check", "show"])
def test_a_fault_is_named_with_file_and_place(command: Command, verb: str, case: str) -> None:
    name, content, message = FAULTS[case]
    if content is not None:
        Path(name).write_text(content, encoding="utf-8")
    ran = command("vocab", verb, name)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (["show"], "\nError: Missing argument 'NAME'.\n"),
        (["chek", "voc20"], "\nError: No such command 'chek'. Did you mean 'check'?\n"),
        (["check", "voc20", "voc21"], " (voc21)\n"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], end: str) -> None:
    ran = command("vocab", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith(end)


@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "error", "out"),
    [
        ("show full.toml", "", 0, "", FULL),
        ("show full.toml", ">/dev/full", 1, "Error: cannot write standard output: no space left on the device", ""),
        ("check full.toml", "", 0, "", FULL_CHECKED),
        ("check full.toml", ">/dev/full", 1, "Error: cannot write standard output: no space left on the device", ""),
        ("check v.toml", "", 2, "Error: v.toml: not TOML: ", ""),
    ],
)
def test_a_real_process_in_a_terminal_of_little_letters(
    arguments: str, redirection: str, code: int, error: str, out: str
) -> None:
    Path("full.toml").write_text(FULL, encoding="utf-8")
    Path("v.toml").write_text("classes = [}\n")
    line = f"PYTHONIOENCODING=ascii '{sys.executable}' -W error -m tipsseg vocab {arguments} {redirection}"
    ran = subprocess.run(line, shell=True, capture_output=True)
    assert (ran.returncode, ran.stderr.decode().startswith(error)) == (code, True), ran.stderr
    assert b"Traceback" not in ran.stderr
    assert ran.stdout.decode("utf-8") == out


RIVALS = {
    "tree/trunk,trunk": '"trunk" takes the pixels of "tree/trunk". Leave it out',
    "panda/front leg,panda/hind leg,leg": '"leg" takes the pixels of "panda/front leg", "panda/hind leg". Leave it out',
    "street/car,car/wheel": '"car" takes the pixels of "street/car". Write "street/car/wheel", without "car/wheel".',
    "panda/leg,panda/front leg,panda/hind leg": '"panda/leg" takes the pixels of "panda/front leg", "panda/hind leg". Write '
    '"panda/leg/front leg,panda/leg/hind leg" instead.',
}


@pytest.mark.parametrize("names", RIVALS)
def test_lists_that_defeat_themselves_are_noted(command: Command, names: str) -> None:
    Path("imgs").mkdir()
    Path("list.txt").write_text(names.replace(",", "\n") + "\n")
    for ran in (
        command("vocab", "check", "list.txt"),
        command("label", "imgs", "-c", names, "-m", "tiny", "--dry-run"),
        command("label", "imgs", "--vocab", "list.txt", "-m", "tiny", "--dry-run"),
    ):
        assert RIVALS[names] in ran.err


def test_classes_of_a_toml_file_that_compete_get_a_whole(command: Command) -> None:
    parts = "".join(f'[[classes]]\nname = "panda {each}"\npart_of = "panda"\n' for each in ("leg", "front leg"))
    Path("list.toml").write_text(parts)
    assert 'Set part_of = "panda leg" for "panda front leg".' in command("vocab", "check", "list.toml").err


@pytest.mark.parametrize(
    "names",
    [
        "panda/leg/front leg,panda/leg/hind leg",
        "panda/panda",
        "panda/head,bear/head",
        "tree/trunk,elephant/trunk",
        "tree,car",
    ],
)
def test_other_lists_are_not_noted(command: Command, names: str) -> None:
    Path("imgs").mkdir()
    assert "takes the pixels" not in command("label", "imgs", "-c", names, "-m", "tiny", "--dry-run").err


def test_notes_on_lists_are_at_most_three(command: Command) -> None:
    parts = ("head", "leg", "tail", "ear", "eye")
    Path("list.txt").write_text("\n".join([*parts, *(f"panda/{part}" for part in parts)]) + "\n")
    assert command("vocab", "check", "list.txt").err.count("takes the pixels of") == 3
