"""Compare file names as the output folder's file system does, find inputs that would share one, and keep a resumed run's names."""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath

from tipsseg.address import address_text, is_url
from tipsseg.errors import InputError, Words
from tipsseg.folder.cache import Cache
from tipsseg.formats import FORMATS
from tipsseg.formats.base import PartsFormat, output_name
from tipsseg.images.access import absolute as absolute_path
from tipsseg.images.access import exists, matches, name_below
from tipsseg.options import NAMES
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, Fingerprint, actual_name, actual_path, is_alive, is_folder

#: A function that maps names of the same file to the same key.
NameKey = Callable[[str], str]

#: The key of a numbered file of an image.
_NUMBERED = re.compile(r"(.+)-\d+\.png")

_PROBE = re.compile(re.escape(TEMPORARY_PREFIX) + r"([0-9]{1,20})-[0-9a-f]{16}-.{1,2}")

_ALIKE = (
    " The output folder's file system does not distinguish names that differ only in case or in the Unicode form of an "
    "accent."
)


def exact(name: str) -> str:
    """Return the key for a file system that distinguishes all names."""
    return name


def without_case(name: str) -> str:
    """Return the key for a file system that ignores case. It may equate too many names, never too few."""
    return name.casefold()


def without_form(name: str) -> str:
    """Return the key for a file system that ignores the Unicode form of accented letters: one or two characters."""
    return unicodedata.normalize("NFD", name)


def without_case_and_form(name: str) -> str:
    """Return the key for a file system that ignores case and Unicode form."""
    # Normalised twice, as in Unicode's canonical caseless matching: case folding may undo the first normalisation.
    return without_form(without_case(without_form(name)))


def name_key(folder: Path) -> NameKey:
    """Return the key function for names in `folder`, or in its nearest existing parent.

    It probes with hidden files and removes them at once; the next call removes the files of a killed process. If they cannot be
    written, it returns `exact`.
    """
    place = next((each for each in (folder, *folder.absolute().parents) if is_folder(each)), Path())
    _remove_left(place)
    keys = {
        (False, False): exact,
        (True, False): without_case,
        (False, True): without_form,
        (True, True): without_case_and_form,
    }
    return keys[_is_one(place, "A", "a"), _is_one(place, "\u00e9", "e\u0301")]


class OutputNames:
    """The per-image file names in use: relative paths without suffix, and their folders. Memory grows by two strings per image."""

    def __init__(self, key: NameKey, names: str, formats: Iterable[str]) -> None:
        """Set up for the file system's key function, the value of `FileOptions.names`, and the formats."""
        self.key = key
        self._names = names
        forms = [FORMATS[name] for name in formats]
        self._suffixes = tuple(dict.fromkeys(form.suffix for form in forms if form.folder is not None))
        self._numbers = any(isinstance(form, PartsFormat) and form.numbers_files for form in forms)
        self._owners: dict[str, str] = {}  # key of an output without suffix -> path of its image
        self._folders: set[str] = set()
        self._numbered: dict[str, str] = {}  # key of an output -> folder with the name of one of its numbered files

    @property
    def hint(self) -> str:
        """Return the hint for two images that would share a file."""
        keep: str = Words(
            " Or set {names}=full, in a new output folder if this one has labels: the files of all images "
            "then keep the image suffix, as in a.jpg.png."
        )
        full = "" if self._names == NAMES[1] else keep
        alike = "" if self.key is exact else _ALIKE
        return "Rename one of the two images, or label them in two runs with separate output folders." + full + alike

    def take(self, ref: ImageRef) -> str:
        """Reserve the file names of an image.

        Returns a description of the conflict if another image uses a name, otherwise "".
        """
        if not self._suffixes:
            return ""
        image = PurePosixPath(ref.name)
        name = output_name(image, self._names)
        stem = self.key(str(name))
        if stem in self._owners:
            return f"{self._owners[stem]} and {ref.address} would share one output, {name}"
        taken = next((f"{name}{ending}" for ending in self._suffixes if stem + ending in self._folders), None)
        if taken := taken or self._numbered.get(stem):
            return f"the output of {ref.address} would have the name of the folder {taken}"
        folders: list[str] = []
        for folder in image.parents[:-1]:  # the last is "."
            key = self.key(str(folder))
            if key in self._folders:
                break
            stems = [key.removesuffix(ending) for ending in self._suffixes if key.endswith(ending)]
            if self._numbers and (numbered := _NUMBERED.fullmatch(key)):
                stems.append(numbered[1])
                self._numbered[numbered[1]] = str(folder)
            if owner := next((self._owners[own] for own in stems if own in self._owners), None):
                return f"the output of {owner} would have the name of the folder {folder} of {ref.address}"
            folders.append(key)
        self._folders.update(folders)
        self._owners[stem] = ref.address
        return ""


def refuse_shared(folder: Path, names: str, formats: Iterable[str], images: Iterable[str]) -> None:
    """Raise InputError if two images of a folder would share a file in these formats; `names` is `FileOptions.names`."""
    taken = OutputNames(name_key(folder), names, formats)
    for image in images:
        if reason := taken.take(ImageRef(Path(image), PurePosixPath(image))):
            raise InputError(f"{folder}: {reason}", taken.hint)


class RunNames:
    """Name images as the resumed run did, even if the new command's names would be relative to another folder.

    Attributes:
        root: The folder that names in the run are relative to; None before the first label or for images of several folders.
    """

    def __init__(self, cache: Cache | None = None, image_root: str | None = None) -> None:
        """Set up for the record of the resumed run, with its image root; None if no run is resumed."""
        self._cache = cache
        self.root = None if image_root is None else actual_path(Path(), image_root)

    def find(self, path: Path, name: PurePosixPath) -> PurePosixPath:
        """Return the name of an image in the run: the recorded name, or the path relative to the root. Otherwise return `name`.

        Images are recognised by their path or, if folders were moved, by the end of the path and the content.
        """
        if self._cache is None:
            return name
        absolute = absolute_path(path)
        if self.root is not None and (below := name_below(path, self.root)) is not None:
            return below
        names, images = self._recorded
        if (recorded := names.get(printable_path(absolute))) is not None:
            return PurePosixPath(recorded if absolute.as_posix().endswith(recorded) else actual_name(recorded))
        if self.root is not None and not is_url(absolute):
            real, root = Path(os.path.realpath(absolute.parent), absolute.name), os.path.realpath(self.root)
            if real.is_relative_to(root):
                return PurePosixPath(*real.relative_to(root).parts)
        if printable_path(name) in images:  # opening the folder compares the two images
            return name
        ends = (PurePosixPath(*absolute.parts[start:]) for start in range(1, len(absolute.parts)))
        return next((end for end in ends if _was_moved(images.get(printable_path(end)), absolute)), name)

    def named(self, ref: ImageRef) -> ImageRef:
        """Return an image with its name in the run (see `find`)."""
        return ImageRef(ref.path, self.find(ref.path, ref.relative))

    def check(self, refs: Iterable[ImageRef], output: Path) -> None:
        """Raise InputError if an image has a different name in the run."""
        for ref in refs:
            if (known := self.named(ref)) != ref:
                where = "" if self.root is None else f", or label the folder {address_text(self.root)}"
                raise InputError(
                    f"{ref.address} is already labelled as {known.name} in {output}, and would be labelled again as {ref.name}",
                    Words("Choose another output folder with {output}{where}.", where=where),
                )

    @cached_property
    def _recorded(self) -> tuple[dict[str, str], dict[str, tuple[str, Fingerprint]]]:
        """Return the labelled images' names by path, and their paths and fingerprints by name."""
        entries = () if self._cache is None else self._cache.entries()
        images = {each.image: (each.path, each.input) for each in entries}
        return {path: image for image, (path, _) in images.items()}, images


def _was_moved(image: tuple[str, Fingerprint] | None, path: Path) -> bool:
    """Return True if a labelled image was moved to `path`."""
    if image is None:
        return False
    before, content = image
    return not exists(actual_path(Path(), before)) and matches(content, path)


def _is_one(folder: Path, name: str, other: str) -> bool:
    """Return True if both names refer to the same file in `folder`."""
    start = f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}-"
    path = folder / (start + name)
    try:
        path.touch(exist_ok=False)
        return (folder / (start + other)).exists()
    except (OSError, ValueError):  # ValueError: a name that the system cannot encode
        return False
    finally:
        with suppress(OSError, ValueError):
            path.unlink()


def _remove_left(folder: Path) -> None:
    """Remove probe files that killed processes left in a folder, which need not be an output folder."""
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208  names are enough
            found = _PROBE.fullmatch(name)
            if found is not None and not is_alive(int(found[1])):
                with suppress(OSError):
                    Path(folder, name).unlink()
