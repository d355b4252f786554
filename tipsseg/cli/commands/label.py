"""The `tipsseg label` command: label images into an output folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsseg.address import address_text
from tipsseg.cli import options as opt
from tipsseg.cli import stdin, values
from tipsseg.cli.parameters import command, is_given
from tipsseg.cli.wording import open_progress
from tipsseg.errors import OtherRunError, UsageError
from tipsseg.options import FileOptions, LabelOptions
from tipsseg.options.fields import WHAT, option
from tipsseg.options.run import (
    ComputeOptions,
    EngineOptions,
    ImageOptions,
    OntoOptions,
    OutputOptions,
    RasterOptions,
    RegionOptions,
)
from tipsseg.util.text import shell_line, shell_word

if TYPE_CHECKING:
    from tipsseg.cli.repeat import RepeatedRun
    from tipsseg.run.spec import RunSpec
    from tipsseg.vocabulary.fitted import FittedVocabulary
    from tipsseg.vocabulary.vocabulary import Vocabulary

EPILOG = """\b
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeating:
    # fmt: off
    from_run: Path | None = option(None, flag="from", metavar="FILE|DIR", group=WHAT, rare=True,
        help="Repeat a run with the model, classes and options of its run.json; options on the command line override them.")
    # fmt: on


def _options_of_earlier_run(values: Mapping[str, Any]) -> dict[str, object]:
    """Return an earlier run's values for absent options, with --from."""
    from tipsseg.cli.repeat import read_run_file

    path = values["from_run"]
    if path is None:
        return {}
    return read_run_file(path).options({name for name in values if is_given(values["context"], name)})


@command(EPILOG, defaults=_options_of_earlier_run)
def label(
    question: opt.Question,
    regions: RegionOptions,
    onto: OntoOptions,
    compute: ComputeOptions,
    options: LabelOptions,
    output: OutputOptions,
    files: FileOptions,
    images: ImageOptions,
    raster: RasterOptions,
    engine: EngineOptions,
    repeating: Repeating,
    printing: opt.Printing,
    paths: opt.PathArguments = None,
) -> int:
    """Label images and write masks, COCO annotations, overlays and more."""
    from tipsseg.cli.repeat import read_run_file
    from tipsseg.commands.label.folder import find_to_label, label_spec
    from tipsseg.commands.label.images import run_label
    from tipsseg.commands.label.listing import list_images
    from tipsseg.commands.label.ray import engine_maker
    from tipsseg.engine.notes import Reporter
    from tipsseg.run.folder import open_folder, peek_folder
    from tipsseg.run.inputs import Choice

    given = tuple(paths or ())
    _refuse_mistakes(given, question, output, printing)
    repeated = None if repeating.from_run is None else read_run_file(repeating.from_run)
    vocabulary, fitted = values.parse_question(question) if repeated is None else _again(repeated, question)
    spec = label_spec(
        vocabulary,
        compute,
        regions,
        images,
        output=output,
        onto=onto,
        options=options,
        new_classes=() if repeated is None else repeated.info.spec.new_classes,
        fitted=fitted,
        files=files,
        raster=raster,
        sources=tuple(map(address_text, given)),
        vocabulary_path=question.vocab,
    )
    make_engine = engine_maker(engine, spec)
    opened = peek_folder if printing.dry_run else open_folder
    with (
        open_progress(printing.quiet, results=printing.paths, null=printing.null) as progress,
        _commands_to_paste(spec),
        opened(spec) as folder,
    ):
        choice = Choice(**vars(images), images=stdin.images(given, printing.null))
        found = find_to_label(folder, choice, progress)
        for note in [] if repeated is None else repeated.notes(folder.info):
            progress.note(note)
        if printing.dry_run:
            return list_images(folder, found, progress)
        return run_label(folder, found, make_engine, Reporter(progress, jsonl=printing.jsonl)).failed


def _refuse_mistakes(
    paths: tuple[str, ...],
    question: opt.Question,
    output: OutputOptions,
    printing: opt.Printing,
) -> None:
    """Raise UsageError for arguments that cannot be combined, or that the shell split."""
    from tipsseg.run.inputs import require_paths

    values.refuse_split_lists(paths, question.classes, output.formats)
    require_paths(paths)
    printing.check(paths, "labels")


@contextmanager
def _commands_to_paste(spec: RunSpec) -> Iterator[None]:
    """Add complete commands to the error for a folder with another run's labels."""
    try:
        yield
    except OtherRunError as error:
        if error.path != spec.output or spec.shard is not None:  # a feature folder, or a shard beside others
            raise
        command = shell_line(["tipsseg", *_without_output(sys.argv[1:])])
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


#: Arguments for the labels that are in a folder already.
_OF_FOLDER = frozenset({"-o", "--output", "--prune", "--overwrite", "--replace-edited"})


def _without_output(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without the output folder, and without those for the labels in it."""
    others: list[str] = []
    skip = False
    for word in arguments:
        if not skip and word not in _OF_FOLDER and not word.startswith(("-o", "--output=", "--prune=")):
            others.append(word)
        skip = not skip and word in ("-o", "--output", "--prune")
    return others


def _again(repeated: RepeatedRun, question: opt.Question) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary of a run to repeat, and its fit.

    Raise UsageError if the command line has classes too, or if fitted vectors of the run are missing.
    """
    from tipsseg.vocabulary.asked import read_fit

    vocabulary, vocab = repeated.info.spec.vocabulary, question.vocab
    # --vocab names the .fit file again.
    if question.classes or question.background is not None or (vocab is not None and not vocabulary.fit):
        raise UsageError("--from repeats the classes of a run", "Remove --classes, --vocab and --background.")
    if not vocabulary.fit:
        return vocabulary, None
    fitted = None if vocab is None else read_fit(Path(vocab))
    if fitted is None or fitted.vocabulary.fit != vocabulary.fit:
        name = vocabulary.source or "FIT"
        place = "are not in run.json" if vocab is None else f"are not in {vocab}"
        raise UsageError(
            f"the run of {repeated.path} used the fitted vectors of {name}, which {place}",
            f"Name that file with --vocab {name}",
        )
    return vocabulary, fitted
