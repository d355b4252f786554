"""Read vocabularies: presets, TOML files and plain text files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.util.files import path_exists
from tipsseg.util.printable import did_you_mean, quote
from tipsseg.vocabulary.fitted import is_fit
from tipsseg.vocabulary.plain_file import line_of_class, parse_lines
from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES
from tipsseg.vocabulary.texts import read_text
from tipsseg.vocabulary.toml_file import Content, parse_toml
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary

_FOLDER = resources.files("tipsseg") / "assets" / "vocabularies"


def preset_names() -> tuple[str, ...]:
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    )


def preset_summary(name: str) -> str:
    """Return a one-line description of a preset: the first comment of its file."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()


def read_vocabulary(
    source: str | Path,
    background: str | Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
) -> Vocabulary:
    """Read a vocabulary from a preset or a file.

    Args:
        source: A preset name, or a path. For a file that has the name of a preset, pass "./ade20k". Files that end in .toml are
            TOML; all others have one class per line.
        background: Replaces the background in the file; see `make_vocabulary`.
        templates: Replaces the templates in the file, but not those of individual classes; see `make_vocabulary`.

    Returns:
        The vocabulary. Its `source` is the name of the preset or file.

    Raises:
        VocabularyError: The file is not a valid vocabulary. The error states the path, and the line or class if known.
    """
    if not isinstance(source, str | Path):
        raise VocabularyError(f"a vocabulary must be a preset name or a path, not {quote(source)}")
    path = _locate(source)
    if is_fit(path):
        raise VocabularyError(
            "a fitted vocabulary, not a vocabulary file", "Read it with FittedVocabulary.load.", path=path
        )
    toml = path.suffix.lower() == ".toml"
    text = read_text(path, "a vocabulary file")
    content = parse_toml(path, text) if toml else Content(parse_lines(path, text))
    if not content.specs:
        hint = 'Add [[classes]] with a name, or a list: classes = ["panda leg", "tree"]'
        raise VocabularyError("the file has no classes", hint if toml else "Write one class per line.", path=path)
    if all(spec.negative for spec in content.specs):
        raise VocabularyError(
            "all classes in the file are negative", "Remove `negative` from the classes to label.", path=path
        )
    if background is None:
        background = "auto" if content.background is None else content.background
    if templates is None:
        templates = PROTOCOL_TEMPLATES if content.templates is None else content.templates
    preset = source in preset_names()
    try:
        return make_vocabulary(content.specs, background, templates, path.stem if preset else path.name)
    except VocabularyError as error:
        index = error.class_index
        raise VocabularyError(
            error.reason,
            error.hint,
            path=Path(source) if preset else path,
            line=None if toml or index is None else line_of_class(text, index),
            class_index=index,
        ) from error


def _locate(source: str | Path) -> Path:
    presets = preset_names()
    if isinstance(source, str) and source in presets:
        return Path(str(_FOLDER / f"{source}.toml"))
    path = Path(source)
    if not str(source) or not path_exists(path):
        guess = did_you_mean(str(source), presets) or "Check the path. "
        raise VocabularyError(
            f"the vocabulary {quote(str(source))} is neither a file nor a preset",
            f"{guess}The presets are: {', '.join(presets)}.",
        )
    return path
