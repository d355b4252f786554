"""Errors that callers can expect. All of them are TipssegErrors.

    TipssegError                     message, hint, exit_code
    ├── UsageError                   wrong option or argument (exit code 2)
    │   └── VocabularyError          path, line, class_index: invalid class names, vocabulary file or templates
    ├── InputError                   invalid inputs: nothing to label, or two inputs for one output
    │   ├── NoImagesError            folders or a list without images
    │   ├── RecordError              path, reason: unusable records of an output folder
    │   └── OtherSchemaError         output folder with the records of another version
    ├── FileError                    path, reason: unreadable file
    │   ├── ImageError               unreadable image
    │   │   └── LabelIdError         mask with ids that do not belong to a class
    │   ├── FeatureFileError         unreadable feature file
    │   └── CheckpointError          tensor: files that are not a model of a known architecture
    ├── OutputError                  path, reason: result that cannot be written
    │   └── OtherRunError            folder with labels or features of a run with other settings
    ├── PluginError                  plugin, place: plugin of somebody else that cannot be loaded
    ├── DeviceError                  device: unavailable device or dtype, or a failed computation
    └── WeightsError                 weights that cannot be found, downloaded or read
        ├── LockError                a FileError too: missing or malformed weights.lock
        ├── DownloadError            repository, revision, file: failed download
        └── IntegrityError           path, what, expected, got: file that differs from its pin

Messages that name options are `Words`: "`max_pixels`=0 is too small". The command line prints them as `Error:` and `Hint:` lines,
with flags in place of keywords. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Self

from tipsseg.address import address_text, without_secrets

#: Returns the name of an option as a reader writes it.
NameOf = Callable[[str], str]


class Words(str):
    """A text that names options by placeholders, as in "{min_confidence} must be at most 1, not {value}".

    A placeholder without a value names an option. As a str, the text is for readers of Python. What users wrote, and other Words,
    are values.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, **values: object) -> Self:
        """Return the text of a template with these values."""
        self = super().__new__(cls, _filled(template, values, _keyword))
        self.template, self.values = template, values
        return self

    def __add__(self, other: str, /) -> Words:
        return Words("{first}{second}", first=self, second=other)

    def __radd__(self, other: str, /) -> Words:
        return Words("{first}{second}", first=other, second=self)

    def __getnewargs_ex__(self) -> tuple[tuple[str], Mapping[str, Any]]:
        return (self.template,), self.values


def named(option: str) -> Words:
    """Return the name of an option."""
    return Words(f"{{{option}}}")


def worded(text: str, name_of: NameOf) -> str:
    """Return a text with the names of options that `name_of` returns."""
    return _filled(text.template, text.values, name_of) if isinstance(text, Words) else text


def _filled(template: str, values: Mapping[str, Any], name_of: NameOf) -> str:
    parts = []
    for text, field, _, _ in Formatter().parse(template):
        parts.append(text)
        if field is not None and field in values:
            value = values[field]
            parts.append(worded(value, name_of) if isinstance(value, str) else str(value))
        elif field is not None:
            parts.append(name_of(field))
    return without_secrets("".join(parts))


def _keyword(option: str) -> str:
    return f"`{option}`"


class TipssegError(Exception):
    """Base class of all expected errors. Pickling keeps all attributes. A traceback shows the hint and the commands.

    Attributes:
        message: The fault, with the file, option or value at fault.
        hint: A remedy; may be empty.
        exit_code: The exit code of the command line.
        commands: Command lines that the hint quotes; may be empty.
        result: What was computed before the error; None if there is nothing.
    """

    exit_code = 1
    commands: tuple[str, ...] = ()
    result: object = None

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = _clean(message), _clean(hint)
        super().__init__(self.message)

    @property
    def with_hint(self) -> str:
        """Return the message, and the hint in parentheses."""
        return self.message + (" (" + self.hint + ")" if self.hint else "")

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in ("hint", "commands"):
            super().__setattr__("__notes__", [text for text in (self.hint, *self.commands) if text])

    def __reduce__(self) -> tuple[object, ...]:
        # By default pickle calls a subclass with the message alone.
        return _restore_error, (type(self), self.args, vars(self))


def _clean(text: str) -> str:
    return text if isinstance(text, Words) else without_secrets(text)


def _restore_error(
    kind: type[TipssegError], arguments: tuple[object, ...], fields: Mapping[str, object]
) -> TipssegError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(fields)
    return error


class UsageError(TipssegError):
    """Wrong option or argument."""

    exit_code = 2


class VocabularyError(UsageError):
    """Invalid class names, vocabulary file or prompt templates.

    Attributes:
        reason: The message without its location.
        path: The vocabulary file, or None.
        line: The line of the file, from 1, or None.
        class_index: The index of the class among the classes, from 0, or None.
    """

    def __init__(
        self,
        reason: str,
        hint: str = "",
        *,
        path: Path | None = None,
        line: int | None = None,
        class_index: int | None = None,
    ) -> None:
        place = ""
        if path is not None:
            place = f"{path}: " if line is None else f"{path}:{line}: "
            if line is None and class_index is not None:
                place += f"class {class_index + 1}: "
        super().__init__(place + reason, hint)
        self.reason = reason
        self.path = path
        self.line = line
        self.class_index = class_index


class InputError(TipssegError):
    """Invalid inputs: nothing to label, or two inputs for one output."""


class NoImagesError(InputError):
    """Folders or a list without images."""


class RecordError(InputError):
    """Folder that is not an output folder, or whose records are damaged or incomplete.

    Attributes:
        path: The folder or the record.
        reason: The message without the path.
    """

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: " + reason, hint)
        self.path = path
        self.reason = reason


class OtherSchemaError(InputError):
    """Output folder with the records of another version of tipsseg."""

    def __init__(self, folder: Path, command: str = "") -> None:
        """`command` is the command line that labels the same images into a new folder, if known."""
        hint = "Label the images into a new folder, and take the corrected masks of this one into it:"
        super().__init__(
            f"{folder}: its records are from another version of tipsseg, which this one does not read", hint
        )
        new = shlex.quote(f"{folder}-2")
        self.commands = (
            command or f"tipsseg label IMAGES --classes CLASSES -o {new}",
            f"tipsseg correct {new} --from {shlex.quote(str(folder / 'masks'))}",
        )


class FileError(TipssegError):
    """Unreadable file.

    Attributes:
        path: The file.
        reason: The message without the path.
    """

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(address_text(path) + ": " + reason, hint)
        self.path = path
        self.reason = reason


class ImageError(FileError):
    """Unreadable image. A run skips it and continues."""


class LabelIdError(ImageError):
    """Mask with ids that do not belong to a class."""


class FeatureFileError(FileError):
    """Unreadable feature file."""


class OutputError(TipssegError):
    """Result that cannot be written.

    Attributes:
        path: The file or the folder.
        reason: The message without the path.
        only_this: True if only this file is at fault, because of its name or location, and others can be written.
    """

    def __init__(self, path: Path, reason: str, hint: str = "", *, only_this: bool = False) -> None:
        super().__init__(f"cannot write {address_text(path)}: " + reason, hint)
        self.path = path
        self.reason = reason
        self.only_this = only_this


class OtherRunError(OutputError):
    """Folder with labels or features of a run with other settings.

    Attributes:
        features: The feature folder of the other run, if it is the only difference.
        corrected: The number of its images that a person corrected.
        fits: True if corrected masks mean the same in a run that starts over in the folder.
    """

    def __init__(
        self, path: Path, reason: str, hint: str = "", *, features: Path | None = None, fits: bool = True
    ) -> None:
        super().__init__(path, reason, hint)
        self.features, self.corrected, self.fits = features, 0, fits


class PluginError(TipssegError):
    """Plugin of somebody else that cannot be loaded.

    Attributes:
        plugin: The kind and the name of what it brings, such as "format toy".
        place: The module and the attribute.
    """

    def __init__(self, plugin: str, place: str, reason: str) -> None:
        self.plugin, self.place = plugin, place
        package = place.partition(":")[0].partition(".")[0]
        super().__init__(
            f"the {plugin} ({place}) cannot be loaded: {reason}", f"Update the package {package}, or uninstall it."
        )


class DeviceError(TipssegError):
    """Unavailable device or dtype, or a computation that failed on the device.

    Attributes:
        device: The name of the device.
    """

    def __init__(self, device: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.device = device


class CheckpointError(FileError):
    """Folder whose files are not a model of a known architecture.

    Attributes:
        tensor: The name of the first tensor at fault, or None.
    """

    def __init__(self, path: Path, reason: str, hint: str = "", tensor: str | None = None) -> None:
        super().__init__(path, reason, hint)
        self.tensor = tensor


class WeightsError(TipssegError):
    """Weights that cannot be found, downloaded or read."""


class LockError(WeightsError, FileError):
    """Missing, unreadable or malformed weights.lock."""


class DownloadError(WeightsError):
    """Failed download of a file from the hub.

    Attributes:
        repository: The repository on the hub.
        revision: The pinned revision.
        file: The name of the file.
        reason: The message without the file.
    """

    def __init__(self, repository: str, revision: str, file: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cannot get {file} of {repository} at revision {revision}: " + reason, hint)
        self.repository = repository
        self.revision = revision
        self.file = file
        self.reason = reason


class IntegrityError(WeightsError):
    """File whose hash differs from its pin.

    Attributes:
        path: The file.
        what: "sha256" or "git-sha1".
        expected: The pinned value.
        got: The file's value.
    """

    def __init__(self, path: Path, what: str, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"{path} is not the pinned file: {what} expected {expected}, got {got}", hint)
        self.path = path
        self.what = what
        self.expected = expected
        self.got = got
