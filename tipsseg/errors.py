"""What can go wrong, as types that carry their facts.

    TipssegError                     message, hint, exit_code
    ├── UsageError                   a wrong option or argument (exit code 2)
    │   └── VocabularyError          path, line, class_index: class names, a vocabulary file or templates that cannot be used
    ├── InputError                   nothing to label, or two inputs for one output
    ├── ImageError                   path, reason: one image that cannot be read
    │   └── LabelIdError             a mask with ids that are no class
    ├── OutputError                  path, reason: a result that cannot be written
    │   └── OtherRunError            an output folder with labels of a run that was asked for something else
    ├── DeviceError                  device: a device or dtype that is not there
    ├── CheckpointError              path, tensor: files that are not a TIPSv2 model
    └── WeightsError                 weights that cannot be had
        ├── LockError                path: weights.lock is missing or malformed
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
    """Base of all expected errors. They can be pickled, fields and all.

    `message` says what happened and to what; `hint` (may be empty) says what to do; `exit_code` is what the command
    line exits with. `commands` (may be empty) are whole command lines that the hint speaks of.
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
        reason: the message without the place.
        path: the file; None where the names come from none.
        line: the line of the file, from 1; None where none is known.
        class_index: the place of the class among the classes, from 0; None where the fault is not one of a class.
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


class ImageError(TipssegError):
    """One image that cannot be read; the other images of a run go on."""

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class LabelIdError(ImageError):
    """A mask with ids that are no class of the vocabulary."""


class OutputError(TipssegError):
    """A result that cannot be written; `only_this` says that it is for its own name or place, so that others may be written."""

    def __init__(self, path: Path, reason: str, hint: str = "", *, only_this: bool = False) -> None:
        super().__init__(f"cannot write {path}: {reason}", hint)
        self.path = path
        self.reason = reason
        self.only_this = only_this


class OtherRunError(OutputError):
    """An output folder with labels of a run that was asked for something else."""


class DeviceError(TipssegError):
    """A device, or a dtype on it, that this machine does not have."""

    def __init__(self, device: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.device = device


class CheckpointError(TipssegError):
    """A folder whose files are not a TIPSv2 model; `tensor` names the first offending tensor, where there is one."""

    def __init__(self, path: Path, reason: str, hint: str = "", tensor: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason
        self.tensor = tensor


class WeightsError(TipssegError):
    """Weights that cannot be had."""


class LockError(WeightsError):
    """weights.lock is missing, unreadable or malformed."""

    def __init__(self, path: Path, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class DownloadError(WeightsError):
    """The hub did not deliver a file."""

    def __init__(self, repository: str, revision: str, file: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cannot get {file} of {repository} at revision {revision}: {reason}", hint)
        self.repository = repository
        self.revision = revision
        self.file = file
        self.reason = reason


class IntegrityError(WeightsError):
    """A file whose size or hash is not the pinned one; `what` is "size", "sha256" or "git-sha1"."""

    def __init__(self, path: Path, what: str, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"{path} is not the pinned file: {what} expected {expected}, got {got}", hint)
        self.path = path
        self.what = what
        self.expected = expected
        self.got = got
