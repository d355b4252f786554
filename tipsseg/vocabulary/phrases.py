"""Phrases: checks of user text, prompt templates, and the phrases of the background "auto".

A template is a sentence for the text tower, with the placeholder `{}` for the phrase. A background phrase that is a synonym of a
class would take pixels from that class. `drop_equal_words` compares the words; `match_synonyms` compares text embeddings, which
also finds that "ocean" and "sea" are synonyms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import VocabularyError, Words
from tipsseg.util.files import describe_error, path_exists
from tipsseg.util.text import control_character, is_utf8, quote

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
    """Return trimmed templates. Raise VocabularyError unless each is valid."""
    if isinstance(templates, str) or not isinstance(templates, Sequence):
        hint = f"A vocabulary file can also name a set: {', '.join(TEMPLATES)}."
        raise VocabularyError(f"templates must be a list of strings, not {quote(templates)}", hint)
    if not templates:
        raise VocabularyError("no templates", 'Add at least one, such as "a photo of a {}."')
    if len(templates) > MAX_TEMPLATES:
        raise VocabularyError(f"{len(templates)} templates; the limit is {MAX_TEMPLATES}")
    return tuple(check_template(template) for template in templates)


def check_template(template: object) -> str:
    """Return a trimmed template. Raise VocabularyError unless it is a valid text with exactly one `{}`; see `check_text`."""
    template = check_text(template, "a template")
    count = template.count("{}")
    if count != 1:
        raise VocabularyError(
            f"the template {quote(template)} must contain {{}} once, not {count} times",
            "For example: a photo of a {}.",
        )
    return " ".join(template.split())


def find_templates(name: str) -> tuple[str, ...]:
    """Return the template set "protocol" or "plain", or the templates of a file with one per line.

    Raise VocabularyError if that fails.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not name or not path_exists(path):
        raise VocabularyError(
            Words(
                "{templates}={name} is neither a file nor one of {known}",
                name=quote(name),
                known=", ".join(TEMPLATES),
            ),
            "A file has one template per line, such as: a photo of a {}.",
        )
    templates = []
    for line, template in content_lines(read_text(path, "a template file")):
        with locate_errors(path, line):
            templates.append(check_template(template))
    if not templates:
        raise VocabularyError("no templates", "Write one per line, such as: a photo of a {}.", path=path)
    return tuple(templates)


#: The background phrases of "auto". They compete with the classes, and their pixels are written as 0.
GENERAL_BACKGROUND: tuple[str, ...] = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sand", "desk", "bed", "building",
    "cloud", "lamp", "door", "window", "ceiling", "shelf", "curtain", "stair", "floor", "hill", "rail", "fence",
)  # fmt: skip

#: The synonyms in GENERAL_BACKGROUND. All other pairs have different meanings.
_SYNONYMS = (("tree", "wood"), ("sea", "river"), ("mountain", "hill"))

#: The maximum fraction of pairs with different meanings that may reach the threshold.
_FALSE_RATE = 0.05

_ARTICLE = re.compile(r"^(a|an|the|some) ")


def drop_equal_words(phrases: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Drop phrases that equal a name. Ignores case, a leading article, and a plural "s" or "es"."""
    normalized = {_normalize(name) for name in names}
    kept = []
    for phrase in phrases:
        text = _normalize(phrase)
        if normalized.isdisjoint((text, f"{text}s", f"{text}es", text.removesuffix("s"), text.removesuffix("es"))):
            kept.append(phrase)
    return tuple(kept)


def synonym_threshold(vectors: NDArray[np.float32]) -> float:
    """Return the lowest cosine at which two texts count as synonyms.

    Typical cosines differ between models, so the threshold is calibrated on the model's own text tower. GENERAL_BACKGROUND has 3
    pairs of synonyms (tree and wood, sea and river, mountain and hill) and about 300 pairs with different meanings. The threshold
    is the lowest cosine of a pair of synonyms, or the 95th percentile of the other pairs if that is higher. A low threshold is
    safe, because the two errors are not equally bad: dropping a phrase by mistake leaves two dozen other background phrases, but
    keeping a synonym loses half of its class.

    `vectors` are the unit text embeddings of GENERAL_BACKGROUND in order, [25, D] float32.
    """
    cosines = vectors @ vectors.T  # [25, 25]
    number = {phrase: index for index, phrase in enumerate(GENERAL_BACKGROUND)}
    synonyms = [(number[one], number[other]) for one, other in _SYNONYMS]
    different = np.triu(np.ones(cosines.shape, bool), k=1)
    for pair in synonyms:
        different[pair] = False
    loosest = min(float(cosines[pair]) for pair in synonyms)
    return max(loosest, float(np.quantile(cosines[different], 1 - _FALSE_RATE)))


def match_synonyms(classes: NDArray[np.float32], background: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Match background phrases with class phrases that are synonyms.

    Args:
        classes: [P, D] float32, unit text embeddings of the class phrases.
        background: [B, D] float32, unit text embeddings of the background phrases.
        threshold: The cosine from `synonym_threshold`.

    Returns:
        [B], the index of the closest class phrase for each background phrase; -1 if its cosine is below the threshold.
    """
    cosines = background @ classes.T  # [B, P]
    closest = cosines.argmax(1)
    return np.where(cosines.max(1) >= threshold, closest, -1)


def _normalize(phrase: str) -> str:
    return _ARTICLE.sub("", " ".join(phrase.lower().split()))


_BLANKS = str.maketrans(dict.fromkeys("\t\n\r\v\f", " "))

#: The size limit of a file in bytes. The largest vocabulary for 16-bit masks has about this size.
_MAX_BYTES = 8_000_000

#: The maximum length of a phrase in characters, far above the maximum input of the text towers.
MAX_TEXT = 1000

#: "#" starts a comment at the beginning of a line or between blanks: "item #5" is a name.
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$|^\s*#.*$")


def read_text(path: Path, what: str) -> str:
    """Read a small UTF-8 file, with or without a byte order mark, and convert line ends to "\\n".

    `what` describes the file in messages, such as "a vocabulary file". Raise VocabularyError if the file cannot be read, is too
    large or is not text.
    """
    try:
        with path.open("rb") as file:  # may be an endless pipe
            data = file.read(_MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise VocabularyError(f"{path} is a folder, not {what}") from error
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{path}: {describe_error(error)}") from error
    if len(data) > _MAX_BYTES:
        raise VocabularyError(f"{path}: larger than {_MAX_BYTES // 1_000_000} MB, the limit of {what}")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise VocabularyError("not UTF-8 text", "Save the file as UTF-8.", path=path, line=line) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise VocabularyError("a NUL character: the file is not text", "Save the file as UTF-8.", path=path, line=line)
    return text


def check_text(text: object, what: str) -> str:
    """Trim a phrase or a template, and replace tabs and line ends with spaces.

    `what` describes the text in messages, such as "a synonym". Raise VocabularyError for invalid text. Control characters are
    invalid: the model does not know them, and they break files and terminals.
    """
    if not isinstance(text, str):
        raise VocabularyError(f"{what} must be a string, not {quote(text)}")
    text = text.translate(_BLANKS).strip(" ")
    if len(text) > MAX_TEXT:
        raise VocabularyError(f"{what} has {len(text)} characters; the limit is {MAX_TEXT}: {quote(text)}")
    if not is_utf8(text):
        raise VocabularyError(f"{what} is not UTF-8 text: {quote(text)}", "Use a UTF-8 terminal or file.")
    if character := control_character(text):
        raise VocabularyError(
            f"{what} contains the control character {character}: {quote(text)}", "Remove that character."
        )
    return text


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the non-blank lines, trimmed and without comments, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        content = _COMMENT.sub("", line).strip()
        if content:
            yield number, content


@contextmanager
def locate_errors(path: Path | None = None, line: int | None = None, class_index: int | None = None) -> Iterator[None]:
    """Add path, line and class index to a VocabularyError that the block raises."""
    try:
        yield
    except VocabularyError as error:
        index = error.class_index if class_index is None else class_index
        raise VocabularyError(
            error.reason, error.hint, path=path or error.path, line=line or error.line, class_index=index
        ) from None
