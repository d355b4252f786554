"""The task of `encode` for one image: from features to files."""

from __future__ import annotations

from collections.abc import Sequence

from tipsseg.features.file import FeatureHeader
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.run.results import Encoded
from tipsseg.runs.engine.loading import LoadedModel


class EncodeTask:
    """Store image features; read only the headers of features that are already stored.

    Attributes:
        source: Computes and stores features.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        assert loaded.store is not None
        self.source: FeatureSource[FeatureHeader] = FeatureSource(
            loaded.model.backbone,
            loaded.view,
            loaded.store,
            FeatureFiles.find_header,
            max_pixels=loaded.info.spec.max_pixels,
        )
        self._files = [loaded.store.at(side) for side in loaded.view.short_sides]

    def score(self, scales: Sequence[object]) -> None:
        """Do nothing: encoding has no classes."""

    def finish(self, loaded: Loaded[FeatureHeader], scored: None) -> Encoded:
        """Return the stored files of an image. Thread-safe."""
        made = loaded.missing is not None
        headers = list(self.source.find_stored(loaded.sha256)[0].values()) if made else loaded.stored
        file, *finer = [files.path(loaded.sha256) for files in self._files]
        return Encoded(
            ref=loaded.ref,
            file=file,
            size=headers[0].size,
            windows=sum(header.patches[0] for header in headers),
            bytes=sum(header.bytes for header in headers),
            made=made,
            damaged=loaded.damaged,
            finer=tuple(finer),
            remarks=loaded.picture.remarks if made else (),
        )
