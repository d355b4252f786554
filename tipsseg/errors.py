"""Errors, as types that carry their facts.

    TipssegError                     message, hint, exit_code
    ├── UsageError                   a wrong option or argument (exit code 2)
    │   └── VocabularyError          path, line, class_index: class names, a vocabulary file or templates that cannot be used
    ├── InputError                   nothing to label, or two inputs for one output
    │   └── RecordError              path, reason: an output folder whose records cannot be used
    ├── FileError                    path, reason: a file that cannot be read
    │   ├── ImageError               one image that cannot be read
    │   │   └── LabelIdError         a mask with ids that are no class
    │   ├── FeatureFileError         a file of features that cannot be read
    │   └── CheckpointError          tensor: files that are not a TIPSv2 model
    ├── OutputError                  path, reason: a result that cannot be written
    │   └── OtherRunError            a folder with labels or features of a run that was asked for something else
    ├── DeviceError                  device: a device or dtype that is not there
    └── WeightsError                 weights that cannot be found, downloaded or read
        ├── LockError                a FileError too: weights.lock is missing or malformed
        ├── DownloadError            repository, revision, file: the hub did not deliver
        └── IntegrityError           path, what, expected, got: a file that is not what was pinned

Library code raises these. Their texts name arguments, as in "argument `max_pixels`=0 is too small". The command line prints them in
one place as `Error:` and `Hint:` lines, with its options in place of arguments. Anything else that is raised is a bug and keeps
its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class TipssegError(Exception):
    """Base of all expected errors. They can be pickled with all their attributes.

    Attributes:
        message: What happened, and to what.
        hint: What to do; may be empty.
        exit_code: The exit code of the command line.
        commands: Whole command lines that the hint speaks of; may be empty.
    """

    exit_code = 1
    commands: tuple[str, ...] = ()

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # By itself pickle would call a subclass with the message alone.
        return _remade, (type(self), self.args, vars(self))


def _remade(kind: type[TipssegError], arguments: tuple[object, ...], fields: Mapping[str, object]) -> TipssegError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(fields)
    return error


class UsageError(TipssegError):
    """A wrong option or argument."""

    exit_code = 2


class VocabularyError(UsageError):
    """Class names, a vocabulary file or prompt templates that cannot be used.

    Attributes:
        reason: The message without the place.
        path: The file. None: the names do not come from a file.
        line: The line of the file, from 1. None: not known.
        class_index: The place of the class among the classes, from 0. None: no class is at fault.
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
        super().__init__(f"{place}{reason}", hint)
        self.reason = reason
        self.path = path
        self.line = line
        self.class_index = class_index


class InputError(TipssegError):
    """The inputs as a whole cannot be labelled."""


class RecordError(InputError):
    """An output folder that cannot be used: for what it is, or for a record in it that is not as a run leaves it.

    Attributes:
        path: The folder or the record.
        reason: The message without the path.
    """

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class FileError(TipssegError):
    """A file that cannot be read.

    Attributes:
        path: The file.
        reason: The message without the path.
    """

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class ImageError(FileError):
    """One image that cannot be read; a run goes on with its other images."""


class LabelIdError(ImageError):
    """A mask with ids that are no class of the vocabulary."""


class FeatureFileError(FileError):
    """A file of features that cannot be read."""


class OutputError(TipssegError):
    """A result that cannot be written.

    Attributes:
        path: The file or the folder.
        reason: The message without the path.
        only_this: Whether the name or the place of this one file is at fault; other files can be written then.
    """

    def __init__(self, path: Path, reason: str, hint: str = "", *, only_this: bool = False) -> None:
        super().__init__(f"cannot write {path}: {reason}", hint)
        self.path = path
        self.reason = reason
        self.only_this = only_this


class OtherRunError(OutputError):
    """A folder with labels or features of a run that was asked for something else.

    Attributes:
        covered: Whether the run labels all images of the folder, so that no labels are lost if it starts over.
        features: The folder of the features that the other run labelled by, if they alone make the difference.
    """

    def __init__(
        self, path: Path, reason: str, hint: str = "", *, covered: bool = False, features: Path | None = None
    ) -> None:
        super().__init__(path, reason, hint)
        self.covered = covered
        self.features = features


class DeviceError(TipssegError):
    """A device, or a dtype on it, that this machine does not have.

    Attributes:
        device: The name of the device.
    """

    def __init__(self, device: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.device = device


class CheckpointError(FileError):
    """A folder whose files are not a TIPSv2 model.

    Attributes:
        tensor: The name of the first tensor at fault. None: no tensor is at fault.
    """

    def __init__(self, path: Path, reason: str, hint: str = "", tensor: str | None = None) -> None:
        super().__init__(path, reason, hint)
        self.tensor = tensor


class WeightsError(TipssegError):
    """Weights that cannot be found, downloaded or read."""


class LockError(WeightsError, FileError):
    """weights.lock is missing, unreadable or malformed."""


class DownloadError(WeightsError):
    """The hub did not deliver a file.

    Attributes:
        repository: The repository on the hub.
        revision: The pinned revision.
        file: The name of the file.
        reason: The message without the file.
    """

    def __init__(self, repository: str, revision: str, file: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cannot get {file} of {repository} at revision {revision}: {reason}", hint)
        self.repository = repository
        self.revision = revision
        self.file = file
        self.reason = reason


class IntegrityError(WeightsError):
    """A file whose size or hash is not the pinned one.

    Attributes:
        path: The file.
        what: "size", "sha256" or "git-sha1".
        expected: The pinned value.
        got: The value that was found.
    """

    def __init__(self, path: Path, what: str, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"{path} is not the pinned file: {what} expected {expected}, got {got}", hint)
        self.path = path
        self.what = what
        self.expected = expected
        self.got = got
