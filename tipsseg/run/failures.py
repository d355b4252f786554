"""The images that failed. errors.jsonl has a line for each, and exists only if there are any."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.images.sources.access import exists
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder, json_bytes
from tipsseg.util.json_values import parse
from tipsseg.util.record_paths import actual_name, actual_path, is_inside

ERRORS_FILE = "errors.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that cannot be labelled, or a folder that cannot be listed.

    Attributes:
        image: The name of the image.
        path: The path of the image or folder.
        reason: Why it failed.
        hint: Advice to the user.
    """

    image: str
    path: str
    reason: str
    hint: str

    @classmethod
    def of(cls, ref: ImageRef, error: ImageError) -> Failure:
        return cls(image=ref.name, path=ref.address, reason=error.reason, hint=error.hint)

    @property
    def ref(self) -> ImageRef:
        """Return the image to retry."""
        return ImageRef(actual_path(Path(), self.path), PurePosixPath(actual_name(self.image)))

    @property
    def may_last(self) -> bool:
        """Return True if the failure may persist: the path exists and is not a folder that can be listed now."""
        path = self.ref.path
        if is_folder(path):
            return not os.access(path, os.R_OK | os.X_OK)
        return path.exists() or exists(path)

    def line(self) -> bytes:
        return json_bytes(asdict(self))


def read_failure(line: bytes) -> Failure | None:
    """Parse a line; return None if it is invalid or its name leads outside the output folder."""
    try:
        record = parse(line)
        image, path = record["image"], record["path"]
        if is_inside(actual_name(image)) and "\0" not in path:
            return Failure(
                image=image, path=path, reason=str(record.get("reason", "")), hint=str(record.get("hint", ""))
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
