"""Write per-image files, and files for the whole run, to an output folder.

Formats encode the bytes. Files are written atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tipsseg.errors import ImageError, OutputError
from tipsseg.formats import FORMATS, file_path
from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.options import FileOptions
from tipsseg.regions.polygons import PolygonQuality
from tipsseg.store.ownership import MOVE, Former, Ownership, StagedFile
from tipsseg.store.state import State
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.printable import shell_word

#: Formats whose file for the whole run `tipsseg correct` can read.
_CORRECTABLE = frozenset({"coco", "coco-polygon", "label-studio"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext(RunFacts):
    """The facts that all images of a run share, and the folders of its files.

    Attributes:
        output: The output folder.
        state: The state folder, which holds the files for the whole run; it differs from the output folder for a shard.
        owner: Prefix of temporary file names if several processes write into the same folder; see `files.clean_up`.
    """

    output: Path
    state: Path
    owner: str = ""
    ownership: Ownership = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ownership", Ownership(self.output, self.owner))

    def with_files(self, files: FileOptions) -> RunContext:
        """Return the context with other file options, for the same folder."""
        other = replace(self, files=files)
        object.__setattr__(other, "ownership", self.ownership)
        return other

    def image_path(self, key: str, ref: ImageRef) -> Path | None:
        """Return the path of an image's file; None if the format has no per-image files."""
        place = file_path(key, ref.relative, self.files)
        return None if place is None else self.output / place


# ---- an image ----


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedImage:
    """The files of an image, by key.

    Attributes:
        staged: The per-image files under their temporary names, see `Ownership.put`.
        files: The per-image files, relative to the output folder.
        written: The fingerprints of these files.
        rows: The rows for the files for the whole run.
        polygon_quality: Agreement of the polygons with the labels.
    """

    staged: tuple[StagedFile, ...]
    files: Mapping[str, str]
    written: Mapping[str, Fingerprint]
    rows: Mapping[str, Rows] = field(default_factory=dict)
    polygon_quality: PolygonQuality = field(default_factory=lambda: PolygonQuality.from_ious(()))


def finish_image(
    image: ImageLabels, formats: Iterable[str], context: RunContext, kept: Collection[Path] = ()
) -> FinishedImage:
    """Write an image's files in these formats, except `kept` ones, under temporary names, and encode its rows.

    Safe in any thread or process.

    Raises:
        ImageError: A file cannot be written at its path.
        OutputError: The folder cannot be written.
    """
    forms = [FORMATS[name] for name in formats]
    # Encode all formats first: if one cannot encode the image, nothing is written.
    made = {key: (form, data) for form in forms for key, data in form.encode_files(image, context).items()}
    rows = {form.name: form.image_rows(image, context) for form in forms if form.has_rows}
    quality = PolygonQuality.from_ious([each.iou for each in image.objects])
    return replace(stage_files(image.ref, made, context, kept), rows=rows, polygon_quality=quality)


def stage_files(
    ref: ImageRef,
    made: Mapping[str, tuple[Format, bytes | Callable[[Path], None]]],
    context: RunContext,
    kept: Collection[Path] = (),
) -> FinishedImage:
    """Write the files of an image, except `kept` ones, under temporary names: all of them, or none.

    `made` has the format of each file by key, and its content or a function that writes it. Raise as `finish_image` does.
    """
    staged: list[StagedFile] = []
    files: dict[str, str] = {}
    written: dict[str, Fingerprint] = {}
    try:
        for key, (form, data) in made.items():
            path = context.image_path(key, ref)
            assert path is not None
            if path in kept:
                continue
            link = form.link_path(ref.relative, context.files)
            link_path = None if link is None else context.output / link
            file, written[key] = context.ownership.stage(form.name, path, data, link_path)
            staged.append(file)
            files[key] = printable_path(path.relative_to(context.output))
    except BaseException as error:
        for file in staged:
            file.discard()
        if isinstance(error, OutputError) and error.only_this:
            raise ImageError(ref.path, error.message, error.hint) from error
        raise
    return FinishedImage(staged=tuple(staged), files=files, written=written)


def put_in_place(ref: ImageRef, staged: Sequence[StagedFile], context: RunContext, former: Former) -> None:
    """Move an image's files into place.

    Raises:
        ImageError: Another file is in the way.
        OutputError: The folder cannot be written.
    """
    try:
        context.ownership.put(ref, staged, former)
    except OutputError as error:
        if error.only_this:
            raise ImageError(ref.path, error.message, error.hint) from error
        raise


# ---- a run ----


@dataclass(frozen=True, slots=True)
class RunFile:
    """A format's file for the whole run.

    Attributes:
        form: The format.
        name: The name of the file, one of `Format.files`.
        context: The context of the run.
    """

    form: Format
    name: str
    context: RunContext

    @property
    def path(self) -> Path:
        return self.context.state / self.name

    def refuse_changed(self) -> None:
        """Raise OutputError if the file exists, and tipsseg did not write its content."""
        hint = MOVE
        if self.form.name in _CORRECTABLE and self.context.state == self.context.output:
            output, path = shell_word(str(self.context.output)), shell_word(str(self.path))
            hint += f" To keep corrections in it, first run: tipsseg correct {output} --from {path}"
        self.context.ownership.refuse_changed(self.path, hint)

    @property
    def has_rows(self) -> bool:
        """Return True if the file consists of rows and can be read back."""
        return self.form.has_rows and self.name == self.form.files[0]

    def write(self, images: Sequence[str], rows: Callable[[str], Rows] = lambda _: ()) -> None:
        """Write the file atomically.

        Args:
            images: The names of the images, in the order of the file.
            rows: A function that returns an image's rows; it may be called twice per image.

        Raises:
            OutputError: The file cannot be written, or tipsseg did not write the existing one.
        """
        with self.context.ownership.replacing(self.path) as temporary, temporary.open("wb") as target:
            target.writelines(self.form.run_file(self.name, self.context, images, rows))


def write_run_files(name: str, context: RunContext, state: State, *, rewrite: bool = False) -> None:
    """Write a format's files for the whole run. Skip a file of rows unless rows changed, it is missing, or `rewrite` is True.

    Raises:
        OutputError: A file cannot be written.
    """
    for file in run_files(name, context):
        if not file.has_rows:
            file.write(state.holding(name))
        elif rewrite or name in state.stale or not file.path.exists():
            file.write(state.with_rows(name), lambda image: state.rows(name, image) or ())
    state.mark_fresh(name)


def run_files(name: str, context: RunContext) -> tuple[RunFile, ...]:
    """Return a format's files for the whole run."""
    return tuple(RunFile(FORMATS[name], file, context) for file in FORMATS[name].files)


def rows_file(name: str, context: RunContext) -> RunFile | None:
    """Return the file of a format that consists of rows; None if the format has none."""
    return next((file for file in run_files(name, context) if file.has_rows), None)
