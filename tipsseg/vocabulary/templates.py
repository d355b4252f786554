"""Prompt templates: sentences for the text tower, with the placeholder `{}` for the phrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.util.files import path_exists
from tipsseg.util.printable import quote
from tipsseg.vocabulary.texts import check_text, content_lines, locate_errors, read_text

#: The templates of the published protocol, from the authors' zero-shot segmentation notebook.
PROTOCOL_TEMPLATES: tuple[str, ...] = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)

#: The template sets by name.
TEMPLATES: Mapping[str, tuple[str, ...]] = {"protocol": PROTOCOL_TEMPLATES, "plain": ("{}",)}

#: The time to encode a vocabulary is proportional to the number of templates.
MAX_TEMPLATES = 1000


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Return trimmed templates. Raises VocabularyError unless each is valid."""
    if isinstance(templates, str) or not isinstance(templates, Sequence):
        hint = f"A vocabulary file can also name a set: {', '.join(TEMPLATES)}."
        raise VocabularyError(f"templates must be a list of strings, not {quote(templates)}", hint)
    if not templates:
        raise VocabularyError("no templates", 'Add at least one, such as "a photo of a {}."')
    if len(templates) > MAX_TEMPLATES:
        raise VocabularyError(f"{len(templates)} templates; the limit is {MAX_TEMPLATES}")
    return tuple(check_template(template) for template in templates)


def check_template(template: object) -> str:
    """Return a trimmed template. Raises VocabularyError unless it is a valid text with exactly one `{}`; see `check_text`."""
    template = check_text(template, "a template")
    count = template.count("{}")
    if count != 1:
        raise VocabularyError(
            f"the template {quote(template)} must contain {{}} once, not {count} times",
            "For example: a photo of a {}.",
        )
    return " ".join(template.split())


def find_templates(name: str) -> tuple[str, ...]:
    """Return the template set "protocol" or "plain", or the templates of a file with one per line. Raises VocabularyError."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not name or not path_exists(path):
        raise VocabularyError(
            f"argument `templates`={quote(name)} is neither a file nor one of {', '.join(TEMPLATES)}",
            "A file has one template per line, such as: a photo of a {}.",
        )
    templates = []
    for line, template in content_lines(read_text(path, "a template file")):
        with locate_errors(path, line):
            templates.append(check_template(template))
    if not templates:
        raise VocabularyError("no templates", "Write one per line, such as: a photo of a {}.", path=path)
    return tuple(templates)
