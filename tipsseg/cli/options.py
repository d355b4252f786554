"""Options that several commands have, and what their values stand for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tipsseg.cli import completion
from tipsseg.cli.help import FILES, IMAGES, MODEL, WHAT
from tipsseg.cli.mistakes import refuse_picture, refuse_semicolons
from tipsseg.errors import UsageError, VocabularyError
from tipsseg.formats import FORMATS
from tipsseg.options import (
    DTYPE_NAMES,
    INSTANCES,
    MODES,
    NAMES,
    PNG_MODES,
    REFINEMENTS,
    FileOptions,
    LabelOptions,
    parse_min_area,
)
from tipsseg.util.files import is_file

if TYPE_CHECKING:
    from tipsseg.runs.inputs import Found
    from tipsseg.runs.progress import Progress
    from tipsseg.store.spec import ModelRequest
    from tipsseg.vocabulary.vocabulary import Vocabulary

#: What is written where nothing is said of it.
DEFAULT_FORMATS = ("png", "coco")

FORMAT_HELP = f"One or more, with commas: {', '.join(FORMATS)}."

#: Names of classes in the first line of a run.
_NAMES_SHOWN = 20

EMPTY_PATH = "Is it of a variable that is not set? The current folder is . (a dot)."


def path_of(option: str) -> Callable[[str | Path], Path]:
    """What makes a path of the value of an option or argument; it raises UsageError where that is empty."""

    def parse(value: str | Path) -> Path:
        if isinstance(value, str) and not value:
            # pathlib takes it for the current folder.
            raise UsageError(f"the path of {option} is empty", EMPTY_PATH)
        return Path(value)

    return parse


Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        "-c",
        metavar="NAMES",
        is_eager=True,
        rich_help_panel=WHAT,
        help='What to label: "panda leg,tree". A name with a comma: repeat -c, once for each name.',
    ),
]
Vocab = Annotated[
    str | None,
    typer.Option(
        "--vocab",
        "-v",
        metavar="FILE|PRESET",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=completion.presets,
        help="A vocabulary file (.toml, or text with one class a line), or a preset: tipsseg vocab list.",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=completion.one_of("protocol", "plain"),
        help="Prompt templates: protocol, plain, or a file with one a line.  [default: the vocabulary's, or protocol]",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        is_eager=True,
        rich_help_panel=WHAT,
        autocompletion=completion.one_of("auto", "none"),
        help='Phrases that compete and are written as 0: auto (general stuff), none, or a list such as "sky,wall".  '
        "[default: the vocabulary's, or auto]",
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        metavar="0..1", rich_help_panel=WHAT, help="Pixels below this confidence are written as 255, ignored."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="ID|DIR",
        rich_help_panel=MODEL,
        autocompletion=completion.models,
        help="l14, b14, so400m14, g14, tiny, or a folder in the hub layout.",
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        metavar="|".join(MODES),
        rich_help_panel=MODEL,
        autocompletion=completion.one_of(*MODES),
        help=f"{MODES[0]}: overlapping windows; {MODES[1]}: the image at once.",
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=MODEL,
        help="Resize the shorter side to this many pixels.  [default: the model's own size]",
    ),
]
Refine = Annotated[
    str,
    typer.Option(
        metavar="|".join(REFINEMENTS),
        rich_help_panel=MODEL,
        autocompletion=completion.one_of(*REFINEMENTS),
        help="Let edges follow the image's colours.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=MODEL,
        autocompletion=completion.one_of("auto", "cpu", "cuda", "mps"),
        help="auto (cuda, then mps, then cpu), cpu, cuda, cuda:N, mps.",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="DTYPE",
        rich_help_panel=MODEL,
        autocompletion=completion.one_of(*DTYPE_NAMES),
        help=f"{', '.join(DTYPE_NAMES)}.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(metavar="N", rich_help_panel=MODEL, help="Windows that a GPU takes at once; a CPU takes one."),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAMES",
        rich_help_panel=FILES,
        autocompletion=completion.formats,
        help=f"{FORMAT_HELP}  [default: {','.join(DEFAULT_FORMATS)}]",
    ),
]
Instances = Annotated[
    str,
    typer.Option(
        metavar="|".join(INSTANCES),
        rich_help_panel=FILES,
        autocompletion=completion.one_of(*INSTANCES),
        help="What formats that list objects take for one: component (a connected region), class (all of a class).",
    ),
]
MinArea = Annotated[
    str,
    typer.Option(
        metavar="AREA",
        rich_help_panel=FILES,
        help='Smaller objects are left out of formats that list objects: pixels, or percent of the image such as "0.1%".',
    ),
]
Simplify = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        rich_help_panel=FILES,
        help="Polygons with fewer corners, to be edited by hand: up to this far off.  [default: they keep to their pixels]",
    ),
]
ValFraction = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        rich_help_panel=FILES,
        help="YOLO: this share of the images (0 to 1) for validation, chosen by their names.  "
        "[default: as in the folder, or 0]",
    ),
]
Names = Annotated[
    str,
    typer.Option(
        metavar="|".join(NAMES),
        rich_help_panel=FILES,
        autocompletion=completion.one_of(*NAMES),
        help="Names of the files of an image a.jpg: stem, as in a.png; full, as in a.jpg.png, where a.png is an image too.",
    ),
]
PngMode = Annotated[
    str,
    typer.Option(
        metavar="|".join(PNG_MODES),
        rich_help_panel=FILES,
        autocompletion=completion.one_of(*PNG_MODES),
        help="Masks as grey values (L), or with a palette (P) for tools that want it.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=IMAGES,
        help="Threads that decode images, and make labels and files.  [default: up to 4]",
    ),
]
Threads = Annotated[int | None, typer.Option("--jobs", metavar="N", help="Threads.  [default: up to 4]")]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="N",
        rich_help_panel=IMAGES,
        help="Larger images are refused, as they may be meant to fill the memory.",
    ),
]
Null = Annotated[
    bool,
    typer.Option("--null", "-0", rich_help_panel=IMAGES, help="The list on stdin is separated by NUL, not lines."),
]
NullResults = Annotated[
    bool,
    typer.Option("--null", "-0", help="Paths on stdout end with NUL, not lines: names may have line ends in them."),
]
NullBoth = Annotated[
    bool,
    typer.Option(
        "--null",
        "-0",
        rich_help_panel=IMAGES,
        help="A list on stdin is separated by NUL, not lines; so are the paths on stdout.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", parser=path_of("--images"), help="Where the images are now.  [default: where they were]"
    ),
]
Folder = Annotated[
    Path, typer.Argument(metavar="OUT", parser=path_of("the folder"), help="The output folder of tipsseg label.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]


def parse_vocabulary(
    classes: Sequence[str] | None, vocab: str | None, templates: str | None, background: str | None
) -> Vocabulary:
    """What --classes or --vocab, --templates and --background ask for. Raises VocabularyError and UsageError."""
    from tipsseg.vocabulary.files import read_vocabulary
    from tipsseg.vocabulary.templates import PROTOCOL_TEMPLATES, find_templates
    from tipsseg.vocabulary.vocabulary import make_vocabulary, parse_background, split_names

    if classes and vocab is not None:
        raise UsageError("--classes and --vocab both say what to label", "Give one of them.")
    for value in classes or ():
        if Path(value).suffix in (".txt", ".csv", ".json", ".toml", ".names") and is_file(Path(value)):
            raise UsageError(f"--classes takes names, and {value} is a file", f"Give it as --vocab {value}")
    if background is not None and Path(background).suffix.lower() in (".txt", ".toml"):
        raise UsageError(
            f"--background takes phrases, and {background} is the name of a file",
            "Put the phrases into the vocabulary file, as `background`, or name them: --background sky,wall",
        )
    if not classes and vocab is None:
        raise VocabularyError("no classes given", 'Name what to label, for example: --classes "panda leg,tree"')
    refuse_semicolons(classes or ())
    prompts = None if templates is None else find_templates(templates)
    stuff = None if background is None else parse_background(background)
    if vocab is not None:
        return read_vocabulary(vocab, stuff, prompts)
    names = split_names(classes or ())
    for number, name in enumerate(names, start=1):
        if not name.strip(" _"):
            raise VocabularyError(
                f"class {number} of {len(names)} is empty",
                "Remove the extra comma. If a name has a comma in it, repeat the option, once for each name: "
                '-c "salt, pepper" -c tree',
            )
    return make_vocabulary(
        names,
        "auto" if stuff is None else stuff,
        PROTOCOL_TEMPLATES if prompts is None else prompts,
    )


def model_request(
    vocabulary: Vocabulary,
    options: LabelOptions,
    *,
    model: str,
    device: str,
    dtype: str,
    batch_size: int,
    jobs: int | None,
    quiet: bool,
    max_pixels: int,
) -> ModelRequest:
    """The options of the model as one record."""
    from tipsseg.store.spec import ModelRequest

    return ModelRequest(model, vocabulary, options, device, dtype, batch_size, threads(jobs), quiet, max_pixels)


def file_options(
    instances: str, min_area: str, png_mode: str, simplify: float | None, val_fraction: float | None, names: str
) -> FileOptions:
    """The values of the options on how labels become files, as one record. Raises UsageError."""
    return FileOptions(instances, parse_min_area(min_area), png_mode, simplify, val_fraction, names)


def threads(jobs: int | None) -> int:
    """The value of --jobs, or what stands for it. Raises UsageError for less than 1."""
    if jobs is None:
        return min(os.cpu_count() or 1, 4)
    if jobs < 1:
        raise UsageError(f"--jobs {jobs} is too small; the least is 1")
    return jobs


def split_formats(values: Sequence[str] | None) -> tuple[str, ...]:
    """The names in the values of --format, or what stands for them."""
    if not values:
        return DEFAULT_FORMATS
    return tuple(name.strip() for value in values for name in value.split(","))


def find_images(paths: Sequence[str], null: bool, output: Path | None, apart: Path | None = None) -> Found:
    """The images that the arguments name: paths, or - for a list on stdin; see `inputs.find` for the folders that are left out."""
    from tipsseg.runs import inputs

    if from_stdin(paths):
        return inputs.from_list(stdin_entries(null), output=output, apart=apart)
    return inputs.find([Path(path) for path in paths], output=output, apart=apart)


def from_stdin(paths: Sequence[str]) -> bool:
    """Whether the arguments ask for a list on stdin. Raises UsageError for what cannot be meant."""
    if list(paths) == ["-"]:
        return True
    if "" in paths:
        raise UsageError("the path of an image is empty", EMPTY_PATH)
    if "-" in paths:
        raise UsageError("- stands for a list on stdin and cannot be mixed with other paths")
    urls = [path for path in paths if "://" in path]
    if urls:
        raise UsageError(f"{urls[0]} is an address, not a path", "Download the image first.")
    return False


def note_vocabulary(progress: Progress, classes: Sequence[str] | None, vocabulary: Vocabulary) -> None:
    """What is looked for, as the first line of a run; and notes on what was made of the names."""
    progress.head(classes_line(vocabulary))
    with_comma = [entry.name for entry in vocabulary.classes if "," in entry.name]
    if with_comma and vocabulary.source and not vocabulary.source.lower().endswith(".toml"):
        progress.note(f"{vocabulary.source} has one class a line, commas and all, such as {with_comma[0]!r}.")
    if classes and len(classes) > 1 and any("," in value for value in classes):
        progress.note("--classes was given several times, so each value is one class, commas and all.")


def classes_line(vocabulary: Vocabulary) -> str:
    """The names of the classes in a line, as many as a person reads."""
    from tipsseg.util.printable import counted

    names = [entry.name for entry in vocabulary.classes]
    shown = [f'"{name}"' if "," in name else name for name in names[:_NAMES_SHOWN]]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    source = f" of {vocabulary.source}" if vocabulary.source else ""
    return f"{counted(len(names), 'class', 'classes')}{source}: {', '.join(shown)}{more}."


def note_inputs(progress: Progress, found: Found) -> None:
    """Notes on what was found."""
    if found.skipped:
        progress.note(f"Skipped in the folders, as no images by their extensions: {found.skipped}.")
        for hint in found.skipped.hints:
            progress.note(hint)
    if found.outputs:
        progress.note(f"Not searched, as a place of outputs: {', '.join(map(str, found.outputs))}.")


def stdin_entries(null: bool) -> Iterator[bytes]:
    """The entries of the list on stdin, each as soon as it is there; the first is waited for.

    Raises UsageError, now or later, for an empty list and one that is separated by something else.
    """
    entries = split_entries(_stdin_blocks(), null)
    first = next((entry for entry in entries if entry.strip()), None)
    if first is None:
        raise UsageError("the list on stdin is empty")
    return chain([first], entries)


def split_entries(blocks: Iterable[bytes], null: bool) -> Iterator[bytes]:
    """The entries of a list that comes in blocks, separated by NUL or by lines. Raises UsageError where it is the other one."""
    separator = b"\0" if null else b"\n"
    rest, separated = b"", False
    for block in blocks:
        if not null and b"\0" in block:
            raise UsageError("the list on stdin is separated by NUL", "Add -0.")
        *whole, rest = (rest + block).split(separator)
        separated = separated or bool(whole)
        yield from whole
    if null and not separated and b"\n" in rest.rstrip():
        raise UsageError("the list on stdin has lines and no NUL", "Leave out -0.")
    if rest:
        yield rest


def _stdin_blocks() -> Iterator[bytes]:
    if sys.stdin is None:
        return
    try:
        # Past Python's buffer: a block comes as soon as there is one, and a thread that waits for it holds no lock.
        stream: Any = FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):  # stdin is no file, as under a test runner
        stream = sys.stdin.buffer
    first = True
    while block := stream.read(1 << 16):
        if first:
            refuse_picture(block)
        first = False
        yield block
