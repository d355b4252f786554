"""Label images into a folder: `tipsseg label` as functions, which show a bar alone by default."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from tipsseg.address import suffix_of
from tipsseg.errors import UsageError
from tipsseg.folder.entry import Entry
from tipsseg.folder.find import Choice, Images, find_images
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.notes import Reporter, note_vocabulary
from tipsseg.folder.outcome import FolderImage, Status
from tipsseg.folder.read import open_run
from tipsseg.folder.results import ImageResult, Labelled
from tipsseg.folder.spec import RunSpec
from tipsseg.formats import FORMATS
from tipsseg.formats.blocks import BlockFormat, BlockMask
from tipsseg.images.access import is_plain
from tipsseg.masks.labels import join_classes
from tipsseg.options import DEFAULT_FORMATS
from tipsseg.plugins import load_plugin, names
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import shell_word
from tipsseg.vocabulary.vocabulary import Vocabulary

#: The number of images of which the preferred format is looked at.
_LOOKED_AT = 20


def labelled_images(
    results: Generator[ImageResult, None, None], reporter: Reporter
) -> Generator[FolderImage, None, int]:
    """Yield the images of a run, and return the number of failures; an interruption says how far the run came."""
    try:
        with closing(results):
            for result in results:
                if isinstance(result, Failed):
                    yield FolderImage(path=result.ref.path, name=result.ref.name, status="failed", error=result.error)
                else:
                    status: Status = "labelled" if isinstance(result, Labelled) else "unchanged"
                    yield FolderImage(
                        path=result.ref.path,
                        name=result.ref.name,
                        status=status,
                        files=result.files,
                        classes=_shares(result.entry),
                    )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(reporter.interruption())
        raise
    return reporter.counts.failed


def read_labelled(output: Path, images: list[FolderImage]) -> Iterator[FolderImage]:
    """Read labelled images from their output folder. Raise RecordError if its records are missing or damaged."""
    if all(image.status in ("planned", "failed") for image in images):  # there may be no folder
        yield from images
        return
    with open_run(output, ended=False, blocks=True) as run:
        for image in images:
            found = run.image(image.name) if image.error is None and image.name in run else None
            yield image if found is None else replace(image, files=found.files(), classes=_shares(found.entry))


def _shares(entry: Entry) -> dict[str, float]:
    """Return the share of the pixels of each class in an image."""
    facts = entry.mask
    return {name: facts.counts[each] / prod(facts.size) for each, name in facts.names.items()}


def label_spec(
    values: Mapping[str, Any], vocabulary: Vocabulary, new_classes: Sequence[str] = (), **more: Any
) -> RunSpec:
    """Return the settings of a labelling run, and check them.

    Args:
        values: The values of options. Without formats, the formats of the folder apply, or the default formats.
        vocabulary: The classes. With existing labels, theirs come first.
        new_classes: The classes to add to the existing labels; empty for the classes of `vocabulary`.
        more: Other fields of RunSpec.

    Raises:
        TipssegError: See `RunSpec.check`, or the existing labels cannot be read.
    """
    onto, formats = values["onto"], values["formats"]
    if onto is not None and not new_classes:
        vocabulary, new_classes = join_classes(onto, vocabulary)
    if formats == ():
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    more |= {"formats": formats or DEFAULT_FORMATS, "formats_given": formats is not None}
    return RunSpec.of(values, vocabulary=vocabulary, new_classes=tuple(new_classes), **more)


def find_to_label(folder: OutputFolder, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run (see `find_images`).

    A new run labels in blocks if a plugin prefers that for its images, and the user chose nothing that excludes it. Note what the
    formats of other runs do not store.
    """
    spec = folder.info.spec
    note_vocabulary(spec.vocabulary, progress)
    images = find_images(spec, choice, progress, folder)
    refs, known = [ref for ref in images.known if isinstance(ref, ImageRef)], {*names("suffix")}
    able = [ref for ref in refs if suffix_of(ref.path)[1:] in known and is_plain(ref.path)]
    preferred = ((ref, load_plugin("suffix", suffix_of(ref.path)[1:])(ref.path)) for ref in able[:_LOOKED_AT])
    first, form = next(((ref, FORMATS[name]) for ref, name in preferred if name), (None, None))
    stored = any(isinstance(FORMATS[name], BlockFormat) for name in spec.formats)
    if first is None or stored or not isinstance(form, BlockMask):
        return images
    name, claim, mask, chosen = first.name, form.claim, form.name, ", ".join(spec.formats)
    if not spec.formats_given and folder.is_new and len(able) == len(refs):
        in_blocks = replace(spec, formats=(mask,))
        try:
            in_blocks.check_formats()
        except UsageError as error:
            progress.note("blocks_refused", name=name, claim=claim, message=error.message, hint=error.hint)
            return images
        progress.note("labelled_in_blocks", name=name, claim=claim, mask=mask, chosen=chosen)
        folder.change(replace(folder.info, spec=in_blocks))
        return images
    folder_word = shell_word(str(spec.output))
    progress.note("blocks_lost", name=name, claim=claim, mask=mask, chosen=chosen, folder=folder_word)
    return images
