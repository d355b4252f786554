"""Prompt templates: sentences with a place, `{}`, for the phrase that goes to the text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tipsseg.errors import VocabularyError
from tipsseg.util.files import is_there
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.texts import check_text, content_lines, in_place, read_text

#: The templates of the published protocol (reference: the authors' zero-shot segmentation notebook).
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

#: The sets that have a name.
TEMPLATES: Mapping[str, tuple[str, ...]] = {"protocol": PROTOCOL_TEMPLATES, "plain": ("{}",)}


#: More templates would take the time of as many vocabularies.
MAX_TEMPLATES = 1000


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Check a list of templates, and trim them. Raises VocabularyError."""
    if isinstance(templates, str) or not isinstance(templates, Sequence):
        named = f"A vocabulary file may name a set: {', '.join(TEMPLATES)}."
        raise VocabularyError(f"templates must be a list of texts, not {quoted(templates)}", named)
    if not templates:
        raise VocabularyError("no templates", 'Give at least one, such as "a photo of a {}."')
    if len(templates) > MAX_TEMPLATES:
        raise VocabularyError(f"{len(templates)} templates are too many; the most is {MAX_TEMPLATES}")
    return tuple(check_template(template) for template in templates)


def check_template(template: object) -> str:
    """Check one template, and trim it. Raises VocabularyError unless it is a text with exactly one `{}`; see `check_text`."""
    template = check_text(template, "a template")
    count = template.count("{}")
    if count != 1:
        raise VocabularyError(
            f"the template {quoted(template)} has {f'{count} places' if count else 'no place'} for the phrase",
            "Mark one with {}, as in: a photo of a {}.",
        )
    return " ".join(template.split())


def find_templates(name: str) -> tuple[str, ...]:
    """Find templates by name: "protocol" or "plain", or the path of a file that has one template a line.

    Raises VocabularyError for a name that is neither, and for a line that is no template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not name or not is_there(path):
        raise VocabularyError(
            f"argument `templates`={quoted(name)} is no file and none of {', '.join(TEMPLATES)}",
            "A file has one template a line, such as: a photo of a {}.",
        )
    templates = []
    for line, template in content_lines(read_text(path, "a file of templates")):
        with in_place(path, line):
            templates.append(check_template(template))
    if not templates:
        raise VocabularyError("no templates", "Give one a line, such as: a photo of a {}.", path=path)
    return tuple(templates)
