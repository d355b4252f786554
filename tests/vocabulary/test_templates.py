"""Templates: the named sets, checks, and files with one template a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tipsseg.errors import VocabularyError
from tipsseg.vocabulary.phrases import PROTOCOL_TEMPLATES, check_templates, find_templates

MARK_ONE = "For example: a photo of a {}."


def test_protocol_has_nine_templates_and_plain_the_phrase_alone() -> None:
    assert find_templates("protocol") == PROTOCOL_TEMPLATES
    assert len(set(PROTOCOL_TEMPLATES)) == 9
    assert find_templates("plain") == ("{}",)
    assert check_templates(PROTOCOL_TEMPLATES) == PROTOCOL_TEMPLATES


def test_templates_are_trimmed_and_stay_in_order() -> None:
    assert check_templates(["  a photo\tof  a {}. ", "{}", "a {0} {}"]) == ("a photo of a {}.", "{}", "a {0} {}")


@pytest.mark.parametrize(
    ("templates", "message", "hint"),
    [
        (
            "a {}",
            "templates must be a list of strings, not 'a {}'",
            "A vocabulary file can also name a set: protocol, plain.",
        ),
        ([], "no templates", 'Add at least one, such as "a photo of a {}."'),
        (["{}", "a photo"], "the template 'a photo' must contain {} once, not 0 times", MARK_ONE),
        (["{} and {}"], "the template '{} and {}' must contain {} once, not 2 times", MARK_ONE),
        (["{}{}{}"], "the template '{}{}{}' must contain {} once, not 3 times", MARK_ONE),
        (["{ }"], "the template '{ }' must contain {} once, not 0 times", MARK_ONE),
        ([""], "the template '' must contain {} once, not 0 times", MARK_ONE),
        ([7], "a template must be a string, not 7", ""),
        ([None], "a template must be a string, not None", ""),
    ],
)
def test_wrong_templates_are_refused(templates: Sequence[str], message: str, hint: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        check_templates(templates)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert (caught.value.exit_code, caught.value.path, caught.value.line) == (2, None, None)


@pytest.mark.parametrize(
    ("content", "templates"),
    [
        pytest.param(b"a {}\n{}", ("a {}", "{}"), id="no line end at the end"),
        pytest.param(b"\xef\xbb\xbfa {}\r\n\r\n  b\t {}  \r\n", ("a {}", "b {}"), id="byte order mark and CRLF"),
        pytest.param(b"a {}\rb {}\r", ("a {}", "b {}"), id="lone CR"),
        pytest.param(b"# mine\n  # {} {}\na {} # the usual\n#{}\nthe #1 {}\n", ("a {}", "the #1 {}"), id="comments"),
        pytest.param("ein Foto, größer als {}".encode(), ("ein Foto, größer als {}",), id="not ASCII"),
    ],
)
def test_file_has_one_template_a_line(content: bytes, templates: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes(content)
    assert find_templates(str(path)) == templates


@pytest.mark.parametrize(
    ("content", "place", "reason", "hint"),
    [
        pytest.param(b"", "", "no templates", "Write one per line, such as: a photo of a {}.", id="empty"),
        pytest.param(b"\n # {}\n", "", "no templates", "Write one per line, such as: a photo of a {}.", id="all comments"),
        pytest.param(
            b"# a\r\n{}\r\n\r\na photo\r\n", ":4", "the template 'a photo' must contain {} once, not 0 times", MARK_ONE,
            id="no place",
        ),
        pytest.param(b"{} {}\n", ":1", "the template '{} {}' must contain {} once, not 2 times", MARK_ONE, id="two places"),
        pytest.param(b"{}\n\xe4 {}\n", ":2", "not UTF-8 text", "Save the file as UTF-8.", id="Latin-1"),
    ],
)  # fmt: skip
def test_faults_in_a_file_name_the_line(content: bytes, place: str, reason: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_bytes(content)
    with pytest.raises(VocabularyError) as caught:
        find_templates(str(path))
    assert (caught.value.message, caught.value.hint) == (f"{path}{place}: {reason}", hint)
    assert (caught.value.path, caught.value.line) == (path, int(place[1:]) if place else None)


@pytest.mark.parametrize("name", ["Protocol", "missing.txt", "a photo of a {}", "a photo of a {}." * 40])
def test_a_name_that_is_neither_set_nor_file(name: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        find_templates(name)
    shown = repr(name) if len(name) < 80 else f"{name!r:.77}..."
    assert caught.value.message == f"`templates`={shown} is neither a file nor one of protocol, plain"
    assert caught.value.hint == "A file has one template per line, such as: a photo of a {}."


def test_a_file_with_the_name_of_a_set_is_given_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("my {}")
    monkeypatch.chdir(tmp_path)
    assert find_templates("plain") == ("{}",)
    assert find_templates("./plain") == ("my {}",)
