"""What is done to one image of `encode`, from its features to their files."""

from __future__ import annotations

from collections.abc import Sequence

from tipsseg.features.file import FeatureHeader
from tipsseg.features.folder import FeatureFiles
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.runs.engine.loading import LoadedModel
from tipsseg.store.results import Encoded


class EncodeTask:
    """Keeps the features of images; of those that the store has it reads the headers alone.

    Attributes:
        source: Makes the features, and keeps them.
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
        """Nothing is asked of the features."""

    def finish(self, loaded: Loaded[FeatureHeader], scored: None) -> Encoded:
        """Say what the store has now; several threads may call this."""
        made = loaded.missing is not None
        headers = list(self.source.find_stored(loaded.sha256)[0].values()) if made else loaded.stored
        file, *finer = [files.path(loaded.sha256) for files in self._files]
        return Encoded(
            ref=loaded.ref,
            file=file,
            size=headers[0].size,
            windows=sum(each.patches[0] for each in headers),
            bytes=sum(each.bytes for each in headers),
            made=made,
            damaged=loaded.damaged,
            finer=tuple(finer),
            remarks=loaded.picture.remarks if made else (),
        )
