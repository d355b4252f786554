"""Text for a person has nothing in it that steers a terminal, and commands to paste are what they stand for."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import unicodedata

import pytest

from tipsseg.util.text import printable, printable_lines, shell_line, shell_word


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tree", "tree"),
        ("a b\\n'c' é ü 中文\u3000🐼‍", "a b\\n'c' é ü 中文\u3000🐼‍"),
        ("a\x1b[2J\x1b]0;title\x07", "a\\u001b[2J\\u001b]0;title\\u0007"),
        ("b.png\nError: forged", "b.png\\nError: forged"),
        ("a\r\tb", "a\\r\\tb"),
        ("\x00\x7f\x9b31m", "\\u0000\\u007f\\u009b31m"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("gnp.\u202egpj", "gnp.\\u202egpj"),
        ("\u2066\u200f\u061c", "\\u2066\\u200f\\u061c"),
        ("a\udcffb", "a\\udcffb"),
    ],
)
def test_one_line_for_a_person(text: str, line: str) -> None:
    assert printable(text) == line
    assert printable(line) == line
    assert printable_lines(f"{text}\nb\n") == "\n".join([*map(printable, text.split("\n")), "b", ""])


def test_no_control_character_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = printable(every)
    assert not {unicodedata.category(letter) for letter in left} & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(letter) for letter in left} & turning


@pytest.mark.parametrize("text", ["\x7f\x9b\u202e\u2028", "\ta\r", "ü"])
def test_json_and_toml_keep_their_values(text: str) -> None:
    line = printable(json.dumps(text, ensure_ascii=False))
    assert json.loads(line) == text
    assert tomllib.loads(f"a = {line}") == {"a": text}


@pytest.mark.parametrize(
    "word",
    [
        "a",
        "a b",
        "it's",
        "",
        "$HOME",
        "a\nb",
        "\x1b[31m",
        "it's\\\n\t'",
        "\udcff\udcfe.png",
        "é\x1b1",
        "\u202e",
        "\\x41\n",
        "\x9b",
    ],
    ids=ascii,
)
def test_a_command_to_paste_gives_the_words_back(word: str) -> None:
    line = shell_line(["printf", "%s", word])
    assert printable(line) == line
    ran = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert ran.stdout == os.fsencode(word)
    assert shell_word("plain/name.png") == "plain/name.png"
