"""What labels the images of a run: this process, or others."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tipsseg.images.decoding import limit_pixels
from tipsseg.store.results import ImageResult, Item
from tipsseg.store.spec import Job
from tipsseg.types import ImageRef, LabelMap
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import file_hashes


@dataclass(frozen=True, slots=True)
class Started:
    """What the engine and the model came to.

    sha256      of the files of the model, by name
    vocabulary  with its background resolved
    dropped     background phrases that were left out, each with the phrase of a class that it means the same as
    """

    device: str
    dtype: str
    sha256: Mapping[str, str]
    vocabulary: Vocabulary
    dropped: Mapping[str, str]


class Engine(Protocol):
    """Labels images and writes their own files."""

    def start(self) -> Started:
        """Get the model ready; call it once, before `outcomes`. Raises TipssegError."""

    def batch_size(self) -> int | None:
        """How many windows make a batch, after batches were halved for want of memory; None where that is not known."""

    def outcomes(self, items: Iterable[Item]) -> Generator[ImageResult, None, None]:
        """What becomes of each image, in the order of `items`. Raises TipssegError for what ends the run."""


class LocalEngine:
    """Labels images in this process."""

    def __init__(
        self,
        job: Job,
        inspect: Callable[[ImageRef, LabelMap], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """How to label, and who wants to know:

        inspect  sees each image's labels before anything is written, in one of several threads, and may raise ImageError
        note     is told what a user may want to change
        """
        self._job = job
        self._inspect = inspect
        self._note = note

    def start(self) -> Started:
        """Load the model, see Engine."""
        from tipsseg.backbones.tipsv2.encoder import Encoder
        from tipsseg.labelling.labeller import Labeller
        from tipsseg.runs.work import ImageTask

        job, asked = self._job, self._job.request.model
        limit_pixels(asked.max_pixels)
        asked.check_device(job.decides.dtype)  # before any download
        model = job.source.fetch(quiet=asked.quiet)
        encoder = Encoder(model, asked.device, job.decides.dtype, asked.batch_size)
        if (note := self._note) is not None:
            encoder.on_less_memory = lambda size: note(
                f"Not enough memory on {encoder.device}: {size} windows at once from here on (--batch-size {size})."
            )
        labeller = Labeller(encoder, asked.vocabulary, asked.options)
        self._work = ImageTask(
            labeller,
            job.request.formats,
            job.context,
            job.decides.settle(encoder.dtype_name).digest,
            self._inspect,
        )
        self._encoder = encoder
        return Started(
            str(encoder.device), encoder.dtype_name, file_hashes(model), labeller.vocabulary, labeller.dropped
        )

    def batch_size(self) -> int | None:
        """That of the model, see Engine."""
        return self._encoder.batch_size

    def outcomes(self, items: Iterable[Item]) -> Generator[ImageResult, None, None]:
        """Label the images, see Engine."""
        from tipsseg.runs.pipeline import label_images

        return label_images(items, self._work, self._job.request.model.jobs)
