"""What became of one image of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tipsseg.errors import ImageError
from tipsseg.formats.base import Rows
from tipsseg.regions.quality import PolygonQuality
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import ImageRef


@dataclass(frozen=True, slots=True)
class Labelled:
    """It was labelled; its own files are in place.

    records   for the files of the whole run, by format
    polygon_quality  how well the polygons fit that were made of its labels
    squeezed  whether the model saw it shorter than it is, see `windows.working_size`
    """

    ref: ImageRef
    entry: ManifestEntry
    rows: Mapping[str, Rows]
    polygon_quality: PolygonQuality
    squeezed: bool = False


@dataclass(frozen=True, slots=True)
class Unchanged:
    """It was labelled before, and nothing that matters has changed since; or its labels were edited, and are kept.

    edited       the formats whose files were edited
    lacking      formats that were asked for, and that an edited image is not in
    other_input  whether the image of edited labels was changed since
    """

    ref: ImageRef
    entry: ManifestEntry
    edited: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    other_input: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be labelled; a folder may stand here for what is in it."""

    ref: ImageRef
    error: ImageError

    @property
    def name(self) -> str:
        """Of the image."""
        return self.ref.name


ImageResult = Labelled | Unchanged | Failed

#: An image to be labelled, or one of which it is known already what became of it.
Item = ImageRef | Unchanged | Failed
