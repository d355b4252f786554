"""Compare names in an output folder as its file system does, find inputs that would share one, and resume the names of a run."""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.errors import InputError, OutputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import output_name
from tipsseg.options import NAMES
from tipsseg.store.manifest import MANIFEST_FILE
from tipsseg.store.run_record import find_run
from tipsseg.store.state import State
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import TEMPORARY_PREFIX, is_folder
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.record_paths import actual_name, actual_path

#: Names with the same key are one file.
NameKey = Callable[[str], str]

_PROBE = re.compile(re.escape(TEMPORARY_PREFIX) + r"([0-9]{1,20})-[0-9a-f]{16}-.{1,2}")

_ALIKE = (
    " Where they differ in case alone, or in how an accent is spelled: the file system of the output folder takes such "
    "names for one."
)


def exact(name: str) -> str:
    """Return the key of a name if only equal names are one file."""
    return name


def without_case(name: str) -> str:
    """Return the key of a name if upper and lower case are one; it may equate too many names, but not too few."""
    return name.casefold()


def without_form(name: str) -> str:
    """Return the key of a name if an accented letter of one character equals one of two characters."""
    return unicodedata.normalize("NFD", name)


def without_case_and_form(name: str) -> str:
    """Return the key of a name if both differences are ignored."""
    # Normalised twice, as in Unicode's canonical caseless matching: folding case may undo the first.
    return without_form(without_case(without_form(name)))


def name_key(folder: Path) -> NameKey:
    """Return the key function for names in `folder`, or in its nearest existing parent.

    Probe with two hidden files, which are removed at once. If a process is killed meanwhile, the next call removes the file that it
    left. If the files cannot be written, return `exact`.
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
    """The used names of per-image files: relative paths without their suffix, and their folders. Memory: two texts per image."""

    def __init__(self, key: NameKey, names: str, formats: Iterable[str]) -> None:
        """Take the key function of the file system, the naming of files (see FileOptions), and the formats."""
        self.key = key
        self._names = names
        self._suffixes = tuple(
            dict.fromkeys(FORMATS[name].suffix for name in formats if FORMATS[name].folder is not None)
        )
        self._owners: dict[str, str] = {}  # the key of an output, without its suffix -> the path of its image
        self._folders: set[str] = set()

    @property
    def hint(self) -> str:
        """Return the hint if two images would have one file."""
        full = (
            ""
            if self._names == NAMES[1]
            else " Or keep the suffixes of the images in the names of the files, with argument `names`=full."
        )
        alike = "" if self.key is exact else _ALIKE
        return f"Rename one of the two, or label them in two runs with an output folder each.{full}{alike}"

    def take(self, ref: ImageRef) -> str:
        """Use the names of an image, unless one of them is used already.

        Returns which name is used, and by which image; "" on success, and if no format has a per-image file.
        """
        if not self._suffixes:
            return ""
        image = PurePosixPath(ref.name)
        name = output_name(image, self._names)
        stem = self.key(str(name))
        if stem in self._owners:
            return f"{self._owners[stem]} and {ref.path} would share one output, {name}"
        for ending in self._suffixes:
            if stem + ending in self._folders:
                return f"the output of {ref.path} would have the name of the folder {name}{ending}"
        folders: list[str] = []
        for folder in image.parents[:-1]:  # the last is "."
            key = self.key(str(folder))
            if key in self._folders:
                break
            for ending in self._suffixes:
                if key.endswith(ending) and (owner := self._owners.get(key.removesuffix(ending))):
                    return f"the output of {owner} would have the name of the folder {folder} of {ref.path}"
            folders.append(key)
        self._folders.update(folders)
        self._owners[stem] = str(ref.path)
        return ""


class RunNames:
    """Names images as the resumed run named them, even if a later command would begin the names at another folder.

    Attributes:
        root: The folder that the names in the run begin at; None if nothing is labelled yet, or for images of several folders.
    """

    def __init__(self, state: Path | None) -> None:
        """Read run.json in a state folder; None if no run is resumed."""
        self._state = state if state is not None and os.path.lexists(state / MANIFEST_FILE) else None
        before = None if self._state is None else find_run(self._state)
        noted = None if before is None else before.image_root
        self.root = None if noted is None else actual_path(Path(), noted)

    def find(self, path: Path, name: PurePosixPath) -> PurePosixPath:
        """Return the recorded name of an image in the run, or the name relative to its root; else `name`.

        Images are recognised by their path, or, if the folders were moved, by the end of their path and their content.
        """
        if self._state is None:
            return name
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  Path.resolve follows links
        if self.root is not None and absolute.is_relative_to(self.root):
            return _posix(absolute.relative_to(self.root))
        names, images = self._recorded
        if (recorded := names.get(printable_path(absolute))) is not None:
            return PurePosixPath(recorded if absolute.as_posix().endswith(recorded) else actual_name(recorded))
        if self.root is not None:
            real, root = Path(os.path.realpath(absolute.parent), absolute.name), os.path.realpath(self.root)
            if real.is_relative_to(root):
                return _posix(real.relative_to(root))
        if printable_path(name) in images:  # compared with that image when the folder is opened
            return name
        ends = (_posix(PurePath(*absolute.parts[start:])) for start in range(1, len(absolute.parts)))
        return next((end for end in ends if _was_moved(images.get(printable_path(end)), absolute)), name)

    def named(self, ref: ImageRef) -> ImageRef:
        """Return an image with its name in the run, see `find`."""
        return replace(ref, relative=self.find(ref.path, ref.relative))

    def check(self, refs: Iterable[ImageRef], output: Path) -> None:
        """Raise InputError for an image that has another name in the run of an output folder."""
        for ref in refs:
            if (known := self.named(ref)) != ref:
                where = "" if self.root is None else f", or label the folder that its names begin at, {self.root}"
                raise InputError(
                    f"{ref.path} is {known.name} in {output}, and would be labelled again as {ref.name}",
                    f"Choose another output folder with argument `output`{where}.",
                )

    @cached_property
    def _recorded(self) -> tuple[dict[str, str], dict[str, tuple[str, Fingerprint]]]:
        """Return the names of the labelled images by path, and their paths and contents by name."""
        images: dict[str, tuple[str, Fingerprint]] = {}
        if self._state is not None:
            with suppress(OutputError), closing(State(self._state)) as records:  # reported when the folder is opened
                images = {each.image: (each.path, each.fingerprint) for each in records.entries()}
        return {path: image for image, (path, _) in images.items()}, images


def _posix(path: PurePath) -> PurePosixPath:
    return PurePosixPath(*path.parts)


def _was_moved(image: tuple[str, Fingerprint] | None, path: Path) -> bool:
    """Return True if a file is a labelled image that was moved."""
    if image is None:
        return False
    before, content = image
    return not os.path.lexists(actual_path(Path(), before)) and content.matches(path)


def _is_one(folder: Path, name: str, other: str) -> bool:
    """Return True if a file in `folder` can be opened by both names."""
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
    """Remove the probes that killed processes left in a folder, which need not be an output folder."""
    if os.name != "posix":  # elsewhere the signal 0 ends the process
        return
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208  names are enough
            found = _PROBE.fullmatch(name)
            if found is not None and not _is_alive(int(found[1])):
                with suppress(OSError):
                    Path(folder, name).unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
