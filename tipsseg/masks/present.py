"""Read what is in each image, for `tipsseg label --present`: from the folders of the images, or from a file.

* "folders": the nearest folder above an image named like a class, as in ImageFolder data sets
* a CSV file with the columns `image` and `names` (separated by ";" or ","), or `image` and `caption`
* JSON lines with the same keys, `names` as a list or as in CSV

A folder tells the one class of an image, so the others are surely not there. Files forget names, so the others have a handicap.

Without `names`, and without a class in the caption, nothing is known of an image. No names, as an empty text, means no class.

`file_name` also stands for `image`, and `text` for `caption`. The names in a caption are the phrases of the classes that occur in
it, also with a plural "s" or "es". An image may have several lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from tipsseg.errors import ImageError, InputError, VocabularyError, Words
from tipsseg.formats.records import image_errors
from tipsseg.formats.source import LIST_MAX, Source
from tipsseg.masks.names import SourceNames
from tipsseg.types import ImageRef
from tipsseg.util.files import path_exists
from tipsseg.util.json import parse
from tipsseg.util.text import fold, shorten
from tipsseg.vocabulary.vocabulary import Present, Vocabulary

#: The value of the option that stands for the folders of the images.
FOLDERS = Path("folders")

_SEPARATORS = re.compile(r"[;,]")


class PresentNames:
    """The classes that may be in each image. Thread-safe.

    Attributes:
        names: Finds the entry of an image in a file; None for the folders of the images.
    """

    def __init__(self, source: Path, vocabulary: Vocabulary) -> None:
        """Read the names of all images.

        Args:
            source: FOLDERS, or a file.
            vocabulary: The classes of the run.

        Raises:
            InputError, ImageError: The file cannot be read, or has a name that is not a class.
        """
        self._source, self._vocabulary = source, vocabulary
        self.names: SourceNames | None = None
        self._entries: dict[str, frozenset[int] | None] = {}
        if source == FOLDERS:
            self._classes = {
                fold(text): entry.id for entry in vocabulary.classes for text in (entry.name, *entry.phrases)
            }
        else:
            if not path_exists(source):
                raise InputError(f"{source}: no such file", 'Pass the word "folders", or a .csv or .jsonl file.')
            self._entries = _read_entries(source, vocabulary)
            self.names = SourceNames(self._entries)

    def find(self, ref: ImageRef) -> Present | None:
        """Return the classes that are in an image; None if nothing is known. A folder tells them surely, a file does not.

        Raises:
            ImageError: Several entries match, or the image has no names, which leaves nothing to choose from.
        """
        if self.names is None:
            found = self._of_folder(ref)
        else:
            try:
                found = self._entries.get(self.names.find(ref) or "")
            except ImageError as error:
                raise ImageError(ref.path, error.reason, f"Write more of its path in {self._source}.") from None
        if found is not None and not found and not self._vocabulary.has_background:
            raise ImageError(
                ref.path,
                "no class is listed for it, and the vocabulary has no background",
                Words("Set {background}=auto."),
            )
        return None if found is None else Present(found, surely=self.names is None or not found)

    def _of_folder(self, ref: ImageRef) -> frozenset[int] | None:
        # Folders above the given one may have any name.
        for folder, _ in zip(ref.path.absolute().parents, ref.relative.parents, strict=False):
            if (found := self._classes.get(fold(folder.name))) is not None:
                return self._vocabulary.with_relatives([found])
        return None

    def expect(self, refs: Sequence[ImageRef]) -> tuple[list[str], int]:
        """Compare the images of the run with the names.

        Return the images without names, and the number of entries without an image.
        """
        used = 0 if self.names is None else self.names.expect(refs)
        unnamed = list[str]()
        for ref in refs:
            with suppress(ImageError):  # an error of the image
                if self.find(ref) is None:
                    unnamed.append(ref.name)
        return unnamed, len(self._entries) - used


def _read_entries(path: Path, vocabulary: Vocabulary) -> dict[str, frozenset[int] | None]:
    """Return the label ids of each image in a file, None if unknown. Raise InputError, or ImageError with the line."""
    found: dict[str, set[int]] = defaultdict(set)
    phrases = [(entry.id, "|".join(re.escape(fold(each)) for each in entry.phrases)) for entry in vocabulary.classes]
    captions = [(number, re.compile(rf"(?<!\w)(?:{own})(?:e?s)?(?!\w)")) for number, own in phrases]
    unknown: list[tuple[int, VocabularyError]] = []
    said = set[str]()  # the images of which something is known
    find = cache(lambda name: vocabulary.find_classes([name]))  # an error is not kept
    with_relatives = cache(vocabulary.with_relatives)
    for number, record in _records(path):
        with image_errors(path, f"line {number}"):
            image, names, caption = _parse_record(record)
            own = found[image]
            if names is not None:
                said.add(image)
            for name in names or ():
                try:
                    own |= find(name)
                except VocabularyError as error:
                    unknown.append((number, error))
            if caption := fold(caption):
                own.update(label_id for label_id, pattern in captions if pattern.search(caption))
            if own:
                said.add(image)
    if unknown:
        (number, first), *others = unknown
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"{path}: line {number}: " + first.reason + more, first.hint)
    if not found:
        raise InputError(f"{path}: no images are listed", "Write a line for each image: image,names")
    return {image: with_relatives(frozenset(ids)) if image in said else None for image, ids in found.items()}


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the records of a file, each with the number of its last line."""
    with Source(path) as source:
        name = source.names[0] if len(source.names) == 1 else ""
        if Path(name).suffix.lower() == ".jsonl":
            for number, line in source.lines(name):
                with image_errors(path, f"line {number}"):
                    record = parse(line.encode())
                    if not isinstance(record, dict):
                        raise ValueError("not a JSON object")
                yield number, record
        elif Path(name).suffix.lower() == ".csv":
            with image_errors(path):
                text = source.read(name, LIST_MAX).decode("utf-8-sig")
            yield from _csv_records(path, text)
        else:
            raise InputError(
                f"{path}: neither a CSV file nor JSON lines",
                'Pass a .csv or .jsonl file with `image` and `names`, or the word "folders".',
            )


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        if not {"image", "file_name"} & {*rows.fieldnames}:
            raise ImageError(path, "no column `image`", "Write the columns in the first line: image,names")
        for row in rows:
            if None in row:  # the key of values beyond the columns
                hint = "Separate names by ;, or put them in quotes, and captions too."
                raise ImageError(path, f"line {rows.line_num}: more values than columns", hint)
            yield rows.line_num, row
    except csv.Error as error:
        raise ImageError(path, f"line {rows.line_num}: not CSV: {error}") from error


def _parse_record(record: Mapping[str, object]) -> tuple[str, list[str] | None, str]:
    """Return the image, the names or None, and the caption of a record. Raise ValueError for missing or wrong values."""
    image = record.get("image") or record.get("file_name")
    names, caption = record.get("names"), record.get("caption") or record.get("text") or ""
    if not isinstance(image, str):
        raise ValueError("it has no `image`")
    if names is None and not ({"caption", "text"} & record.keys()):
        raise ValueError(f"{shorten(image)} has neither `names` nor a `caption`")
    if isinstance(names, str):
        names = _SEPARATORS.split(names)
    if (
        not isinstance(caption, str)
        or not isinstance(names, list | None)
        or not all(isinstance(each, str) for each in names or ())
    ):
        raise ValueError("`names` must be a list of strings, and `caption` a string")
    return image, None if names is None else [name for name in names if name.strip()], caption
