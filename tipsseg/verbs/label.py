"""Label images into an output folder."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.errors import OtherRunError, UsageError, Words
from tipsseg.folder.outcome import FolderImage, summed
from tipsseg.options import MAX_PIXELS
from tipsseg.options import declared as opt
from tipsseg.options.fields import COMMAND, WHAT, Opt
from tipsseg.util.text import shell_word
from tipsseg.verbs.shared import Background, DryRun, Inputs, Named, Vocab

if TYPE_CHECKING:
    from tipsseg.folder.repeat import RepeatedRun
    from tipsseg.folder.spec import RunSpec
    from tipsseg.say import Verbosity
    from tipsseg.vocabulary.fitted import FittedVocabulary
    from tipsseg.vocabulary.vocabulary import Vocabulary

_EPILOG = """\b
Examples:
  tipsseg label photos/ --classes "panda,tree"
  tipsseg label photos/ -c "panda/head,panda/leg"         (parts inside a whole)
  tipsseg label a.jpg b.png -c sky -c "salt, pepper" -f png,yolo -o out
  tipsseg label photos/ -c panda --refine pamr --scales 1,1.75   (sharper edges)
  tipsseg label photos/ -c panda --regions masks/         (names SAM masks)
  find photos -name '*.jpg' | tipsseg label - -c "car,road"

\b
Masks are 8-bit index PNGs: 0 background, 1..N the classes in the order given,
255 below --min-confidence. Run the same command again to resume. If stdout is
not a terminal, the paths of written files are printed there.
Exit code: 0 success, 1 error or failed image, 2 wrong usage, 130/143 stopped.
"""


# fmt: off
_FromRun = Annotated[str | Path | None, Opt(flag="from", metavar="FILE|DIR", group=WHAT, rare=True, recorded=COMMAND,
    help="Repeat a run with the model, classes and options of its run.json; options on the command line override them.")]
# fmt: on


@verb("label", _EPILOG, prints="files", jsonl="Print one JSON object per image on stdout, instead of paths.")
def iter_label_folder(
    ask: Ask,
    images: Inputs,
    classes: Named = None,
    *,
    vocab: Vocab = None,
    background: Background = None,
    regions: opt.Regions = None,
    regions_only: opt.RegionsOnly = False,
    regions_margin: opt.RegionsMargin = 0.0,
    present: opt.Present = None,
    onto: opt.Onto = None,
    jobs: opt.Jobs = None,
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    model: opt.ModelName = "l14",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    batch_size: opt.BatchSize = None,
    use_cache: opt.UseCache = False,
    features: opt.Features = None,
    mode: opt.ViewMode = "slide",
    short_side: opt.ShortSide = None,
    min_confidence: opt.MinConfidence = 0.0,
    refine: opt.Refine = "none",
    scales: opt.Scales = (1.0,),
    stretch: opt.Stretch = None,
    output: opt.Output = Path("labels"),
    formats: opt.Formats = None,
    overwrite: opt.Overwrite = False,
    prune: opt.Prune = None,
    replace_edited: opt.ReplaceEdited = False,
    shard: opt.ShardOfRun = None,
    instances: opt.InstanceKind = None,
    min_area: opt.MinimumArea = None,
    simplify: opt.Simplify = None,
    names: opt.FileNames = "stem",
    val_fraction: opt.ValFraction = None,
    extra: opt.FormatOptions = None,
    sample: opt.Sample = None,
    every: opt.EveryFrame = None,
    bands: opt.Bands = None,
    ground_resolution: opt.GroundResolution = None,
    ray: opt.Ray = None,
    from_run: _FromRun = None,
    dry_run: DryRun = False,
    verbose: Verbosity = None,
) -> Generator[FolderImage, None, int | None]:
    """Label images and write masks, COCO annotations, overlays and more.

    Yield each image once its files are written.

        for image in tipsseg.iter_label_folder("photos/", ["car", "road"]):
            print(image.path, image.status)

    Images are labelled only while the results are consumed. The files for the whole run are written after the last result.

    Args:
        images: See `label_folder`.
        classes: See `label_folder`.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Yields:
        The images, in order.

    Raises:
        TipssegError: See `label_folder`. Wrong arguments raise before the first image.
    """
    from tipsseg.folder.find import choice_of
    from tipsseg.folder.folder import open_folder, peek_folder
    from tipsseg.folder.notes import Reporter
    from tipsseg.labelling.folder import find_to_label, label_spec, labelled_images, list_images
    from tipsseg.labelling.images import engine_maker, label_images
    from tipsseg.say import progress_for
    from tipsseg.vocabulary.asked import asked_vocabulary

    progress = progress_for(verbose)
    if dry_run and progress.jsonl:
        raise UsageError(Words("{dry_run} prints paths, but lines of JSON are records of labels"), "Use one of them.")
    choice, repeated = choice_of(ask.values), ask.repeated
    vocabulary, fitted = asked_vocabulary(classes, vocab, background) if repeated is None else _again(repeated, ask)
    spec = label_spec(
        ask.values,
        vocabulary,
        () if repeated is None else repeated.info.spec.new_classes,
        fitted=fitted,
        command=ask.command(without=_once(ask), otherwise=Path(output)),
    )
    make_engine = engine_maker(ask.values, listed=choice.entries is not None)
    with ExitStack() as stack:
        stack.enter_context(progress)
        stack.enter_context(_commands_to_paste(ask, spec))
        folder = stack.enter_context(peek_folder(spec) if dry_run else open_folder(spec))
        found = find_to_label(folder, choice, progress)
        for note in [] if repeated is None else repeated.notes(folder.info):
            progress.say(note)
        if dry_run:
            return _closing(list_images(folder, found, progress), stack.pop_all())
        reporter = Reporter(progress)
        results = label_images(folder, found, make_engine, reporter)
        return _closing(labelled_images(results, reporter), stack.pop_all())


def _closing(
    results: Generator[FolderImage, None, int | None], opened: ExitStack
) -> Generator[FolderImage, None, int | None]:
    with opened:
        return (yield from results)


def _again(repeated: RepeatedRun, ask: Ask) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary of a run to repeat, and its fit.

    Raise UsageError if classes are given too, or if fitted vectors of the run are missing.
    """
    from tipsseg.vocabulary.asked import read_fit

    vocabulary, vocab = repeated.info.spec.vocabulary, ask.values["vocab"]
    # A .fit file is named again.
    if ask.given & {"classes", "background"} or (vocab is not None and not vocabulary.fit):
        raise UsageError(
            Words("{from_run} repeats the classes of a run"),
            Words("Remove {classes}, {vocab} and {background}."),
        )
    if not vocabulary.fit:
        return vocabulary, None
    fitted = None if vocab is None else read_fit(Path(vocab))
    if fitted is None or fitted.vocabulary.fit != vocabulary.fit:
        name = vocabulary.source or "FIT"
        place = "are not in run.json" if vocab is None else f"are not in {vocab}"
        raise UsageError(
            f"the run of {repeated.path} used the fitted vectors of {name}, which {place}",
            Words("Name that file with {vocab} {name}", name=name),
        )
    return vocabulary, fitted


def _once(ask: Ask) -> frozenset[str]:
    """Return the options of this one command, which run.json does not record."""
    return frozenset(name for name, each in ask.options.items() if not each.about.recorded)


#: Options for the labels that are in a folder already.
_OF_FOLDER = frozenset({"output", "prune", "overwrite", "replace_edited"})


@contextmanager
def _commands_to_paste(ask: Ask, spec: RunSpec) -> Iterator[None]:
    """Add complete commands to the error for a folder with another run's labels."""
    try:
        yield
    except OtherRunError as error:
        if error.path != spec.output or spec.shard is not None:  # a feature folder, or a shard beside others
            raise
        if not (command := ask.command(without=_OF_FOLDER)):
            raise
        same, other = (shell_word(name) for name in (str(spec.output), f"{spec.output}-2"))
        ways = {"label into another folder": [f"{command} -o {other}"]}
        if error.corrected:
            ways = {
                "label into another folder, and import the corrections there": [
                    f"{command} -o {other}",
                    f"tipsseg correct {other} --from {same} --add-classes",
                ]
            }
        if error.fits:
            ways["start over in this one, and keep corrected masks"] = [f"{command} -o {same} --overwrite"]
        else:
            ways["discard the corrections"] = [f"{command} -o {same} --overwrite --replace-edited"]
        if error.features is not None:
            ways["use that run's features"] = [f"{command} -o {same} --features {shell_word(str(error.features))}"]
        hint = ", or ".join(ways)
        error.hint = f"{hint[0].upper()}{hint[1:]}:"
        error.commands = tuple(line for lines in ways.values() for line in lines)
        raise


def _read(output: Path, images: list[FolderImage]) -> Iterator[FolderImage]:
    from tipsseg.labelling.folder import read_labelled

    return read_labelled(output, images)


label_folder = summed(
    iter_label_folder,
    """Label images and write the labels to a folder, as `tipsseg label` does.

        tipsseg.label_folder("photos/", ["car", "road"], output="labels", min_confidence=0.5)

    Repeat the call to resume an interrupted run. Files edited by a person are kept.

    Args:
        images: Files, folders, archives, Parquet files, videos (with `every`) and URLs. Folders are searched recursively.
        classes: Class names, ClassSpecs, a dict that maps names to synonyms, a Vocabulary, or a fit (see `tipsseg.learn`).
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        A FolderSummary: iterate over it for the FolderImage of each image, with its files, classes and error. A bad image does
        not end the run.

    Raises:
        OtherRunError: The folder contains labels from a different model, or for different classes or options.
        TipssegError: The run cannot start or continue for another reason.
    """,
    _read,
)
