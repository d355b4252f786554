"""What `tipsseg tune` does, for programs."""

from __future__ import annotations

from pathlib import Path

from tipsseg.options import MAX_PIXELS, Dtype, check_whole_number, thread_count
from tipsseg.runs.fit.masked import edited_masks
from tipsseg.runs.library import progress_for
from tipsseg.runs.tune.run import Tuning, check_wish, spec_of_tuning, tune_run
from tipsseg.store.spec import RunSpec
from tipsseg.vocabulary.fitted import FittedVocabulary


def tune_folder(
    output: str | Path,
    precision: float | None = 0.95,
    *,
    temperature: bool = False,
    fitted: FittedVocabulary | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    jobs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    use_cache: bool = False,
    features: str | Path | None = None,
    verbose: bool = False,
) -> Tuning:
    """Choose the minimum confidence of each class by the masks of a run that a person edited, as `tipsseg tune` does.

        tuning = tipsseg.tune_folder("labels", precision=0.95)
        print(tuning.table())
        tuning.save("farm.toml")

    Args:
        output: The output folder of `label_folder`.
        precision: The share of the pixels of each class that are to be right, 0..1. None: no minimum confidences are chosen.
        temperature: Whether the temperature of the softmax is fitted first, so that confidences are as often right as they say.
        fitted: The fitted vocabulary that the run was made with, if it was.
        images: See `fit_folder`, as for the rest.
        device: Where the model runs.
        dtype: The dtype that the model computes in. "auto": that of the run.
        batch_size: Windows that a GPU takes at once.
        jobs: Threads.
        max_pixels: Images of more pixels are refused.
        use_cache: Whether the user's cache keeps what saves time the next time.
        features: The folder of a feature store.
        verbose: Whether notes, progress and faults go to stderr.

    Returns:
        What came of it: the `vocabulary` with its minimum confidences, `fitted`, the same with the temperature where that was
        fitted, the `thresholds` of the classes, the `calibration`, `table()`, `record()` and `save()`.

    Raises:
        UsageError: Nothing is asked for; or the run was made with a fitted vocabulary that is not given.
        InputError: Fewer than three masks were edited, or two for a temperature alone, or it is no folder of a run that has ended.
        TipssegError: For what else ends the run.
    """
    check_whole_number("argument `max_pixels`", max_pixels)
    check_wish(precision, temperature=temperature)
    edited = edited_masks(Path(output), None if images is None else Path(images), max_pixels)
    asked = edited.run.info.spec
    wish = RunSpec(
        asked.model,
        asked.vocabulary,
        formats=(),
        output=Path(),
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        jobs=thread_count(jobs),
        max_pixels=max_pixels,
        resume=False,
        use_cache=use_cache,
        features=None if features is None else Path(features),
    )
    spec = spec_of_tuning(edited, wish, fitted)
    spec.check()
    with progress_for(verbose) as progress:
        return tune_run(spec, edited, precision, progress, temperature=temperature, quiet=True)
