"""What there is to say of the images of a run, beside their labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from tipsseg.labelling.windows import LONGEST_ASPECT
from tipsseg.regions.quality import PolygonQuality
from tipsseg.runs.format_notes import note_polygon_quality
from tipsseg.runs.progress import Progress
from tipsseg.store.results import Labelled
from tipsseg.util.printable import counted
from tipsseg.weights import fetching as weights
from tipsseg.weights.sources import ModelSource

#: The model that was trained on drawn scenes alone.
_DRAWN = "tiny"


class ImageNotes:
    """Looks at each labelled image of a run."""

    def __init__(self, model: Mapping[str, object], progress: Progress) -> None:
        """`model` as `ModelSource.facts` gives it."""
        self._progress = progress
        self._fidelity = PolygonQuality()
        self._squeezed = 0
        self._first_squeezed = ""
        self._beyond = model.get("sha256") == ModelSource(_DRAWN, weights.get_model(_DRAWN)).facts()["sha256"]

    def take(self, labelled: Labelled) -> None:
        """One more image is labelled."""
        self._fidelity += labelled.fidelity
        if labelled.squeezed:
            self._squeezed += 1
            self._first_squeezed = self._first_squeezed or labelled.ref.name
        if self._beyond and labelled.entry.fingerprint.sha256 not in example_hashes():
            self._beyond = False  # said once
            self._progress.note(
                f"The model {_DRAWN} knows drawn scenes only, such as those of examples/scenes. Do not trust its labels of "
                "photographs; use --model l14."
            )

    def end(self) -> None:
        """All images are done."""
        note_polygon_quality(self._progress, self._fidelity)
        if self._squeezed:
            more = f" and {counted(self._squeezed - 1, 'more image')}" if self._squeezed > 1 else ""
            self._progress.note(
                f"{self._first_squeezed}{more}: more than {LONGEST_ASPECT} times as long as wide, and narrow. The model saw the "
                "long side squeezed, which may cost accuracy. Cut such images into pieces."
            )


@cache
def example_hashes() -> frozenset[str]:
    """The sha256 of each picture in examples/scenes, which are what the model tiny is shown with."""
    text = (resources.files("tipsseg") / "assets" / "examples.sha256").read_text(encoding="utf-8")
    return frozenset(line.split()[0] for line in text.splitlines())
