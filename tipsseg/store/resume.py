"""What an earlier run left in an output folder, and what of it a run can go on from."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, OtherRunError, OutputError
from tipsseg.formats import FORMATS, index_masks
from tipsseg.formats.classes_file import CLASSES_FILE
from tipsseg.store import spec as specs
from tipsseg.store.failures import ERRORS_FILE
from tipsseg.store.lock import finish_command, is_begun, is_unfinished
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, input_path
from tipsseg.store.results import Failed, Left, Unchanged, edited_formats, image_paths, in_place
from tipsseg.store.run_record import (
    RUN_FILE,
    difference_texts,
    find_run,
    of_same_phrases,
    read_run,
    refuse_other_record,
)
from tipsseg.store.shards import shards_in, state_folders
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.store.stored_image import suffices
from tipsseg.store.writing import RunContext, rows_file
from tipsseg.types import ImageRef, ignore_id
from tipsseg.util.files import is_folder
from tipsseg.util.fingerprint import fingerprint
from tipsseg.util.ownership import MOVE, Former
from tipsseg.util.printable import shell_word
from tipsseg.util.record_paths import actual_path

_ANOTHER_FOLDER = "Choose another output folder with argument `output`"
_START_OVER = f"{_ANOTHER_FOLDER}, or start over in this one with argument `overwrite`."
_LABEL_ALL = f"{_ANOTHER_FOLDER}, or label all images of this one in one run."
_OTHER_INPUT = (
    f"{_ANOTHER_FOLDER}. Or give all folders in one command and a new output folder: the names begin at their common parent then. "
    "Where the image was moved and changed, start over with argument `overwrite`."
)
_PUT_BACK = "Put it back; or label the image again with argument `replace_edited`, which gives the correction up."
_MOVE_OR_REPLACE = (
    "Move the file away; or label the image again with argument `replace_edited`, which replaces the file."
)


class ResumeState:
    """What an earlier run left.

    Attributes:
        before: What its run.json says; None where there is no run.json.
        state: Its images.
        outdated: Formats that held images which have been labelled otherwise since.
        lost: How many images run.json counts that are not there.
        kept: Files of a run before it that were changed by hand, and that no record has since the folder was started over.
        files: How labels become files, with the `val_fraction` that the folder has where none was asked for.
    """

    def __init__(self, info: RunInfo, context: RunContext, state: State) -> None:
        """Open the records.

        Args:
            info: The run that goes on from them.
            context: What its writers have to know of it.
            state: What the folder has of it.

        Raises:
            OutputError: Where records cannot be read or are not by this program, or where the folder has the records of a whole run
                and this run is a shard, or the other way round.
        """
        self._spec = info.spec
        self._info = info
        self._context = context  # its options follow, once run.json is read
        self._digest = info.digest
        self.state = state
        self._refuse_neighbours()
        self.before = before = self._read_run()
        fraction = info.spec.files.val_fraction
        if fraction is None:
            fraction = 0.0 if before is None or info.spec.overwrite else before.spec.files.val_fraction or 0.0
        self.files = replace(info.spec.files, val_fraction=fraction)
        self._context = context = context.with_files(self.files)
        context.ownership.load({} if before is None else before.files, self.state)
        self.lost = 0 if before is None else max(0, before.images - len(self.state))
        self.outdated: set[str] = set()
        self._owners: dict[Path, str] | None = None  # of files, made when one is in the way
        kept = () if before is None else before.kept
        self.kept = frozenset(actual_path(context.output, place) for place in kept)

    def settle(self, info: RunInfo) -> None:
        """Take the same run, whose dtype is known by now."""
        self._info = info
        self._digest = info.digest

    @property
    def of_the_same(self) -> bool:
        """Whether it was asked for the same labels."""
        return self.before is not None and self.before.digest == self._digest

    @property
    def mixed(self) -> bool:
        """Whether it left labels that this run would not give."""
        return bool(self.state.others(self._digest))

    @property
    def lacks_formats(self) -> bool:
        """Whether it has ended, can be converted, and left images that are not in all formats of this run."""
        spec = self._spec
        if not self.of_the_same or self.incomplete or not spec.resume or spec.shard is not None:
            return False
        if not (spec.output / CLASSES_FILE).is_file():  # a conversion needs it, and a run writes it again
            return False
        return any(not set(spec.formats) <= set(each) for each in self.state.formats()) or bool(self.lost_rows())

    def lost_rows(self) -> list[tuple[Path, int]]:
        """Return the files of rows of this run, of images whose rows are not there any more, with the number of these images."""
        state = self.state
        rows = [file for name in self._spec.formats if (file := rows_file(name, self._context)) is not None]
        lost = [len(state.holding(file.form.name)) - len(state.with_rows(file.form.name)) for file in rows]
        return [(file.path, number) for file, number in zip(rows, lost, strict=True) if number]

    @property
    def incomplete(self) -> bool:
        """Whether its records may lack what it did; then files may be there that no record has."""
        return self.before is not None and (
            self.before.ended is None or self.incomplete_for_good or self.state.broken_off
        )

    @property
    def incomplete_for_good(self) -> bool:
        """Whether records of images were lost: nobody can say which files they had."""
        return bool(self.lost or self.state.unreadable or (self.before is not None and self.before.lost))

    def item(self, ref: ImageRef) -> Left:
        """The image; or its result, where it needs no labelling. Any thread may call it."""
        context = self._context
        entry = self.state.get(ref.name)
        reason = self._in_the_way(ref, entry)
        if reason:
            return Failed(ref, ImageError(ref.path, *reason))
        if entry is None:
            return ref
        edited = edited_formats(entry, ref, context)
        if edited and not self._spec.replace_edited:
            return Unchanged(
                ref, entry, edited, self._lacking(entry, ref, edited), not entry.fingerprint.matches(ref.path)
            )
        gone = None if edited or entry.corrected is None or self._spec.replace_edited else self._gone_mask(entry, ref)
        if gone is not None:
            return Failed(ref, ImageError(gone, "it was corrected by hand, and is gone", _PUT_BACK))
        if self._spec.resume and not edited and self._is_done(entry, ref):
            return Unchanged(ref, entry)
        return ref

    def former(self, ref: ImageRef) -> Former:
        """Return what the files of an image may be before this run replaces them."""
        context, entry = self._context, self.state.get(ref.name)
        former = Former() if entry is None else entry.former
        if not self._spec.replace_edited:
            return former
        paths = [path for path in image_paths(context, ref, self._spec.formats).values() if path in self.kept]
        if entry is not None:
            paths += image_paths(context, ref, edited_formats(entry, ref, context)).values()
        return replace(former, replaceable=former.replaceable | context.ownership.as_they_are(paths))

    def refuse_in_the_way(self, refs: Iterable[ImageRef | Failed]) -> None:
        """Raise OutputError where the folder has labels of other images under names of these, or files that no record has.

        An earlier run whose records are incomplete may have left such files; whether it did is known when the image is labelled.
        """
        images = (ref for ref in refs if isinstance(ref, ImageRef) and not (self.kept and self._paths(ref) & self.kept))
        found = [(ref, reason) for ref in images if (reason := self._in_the_way(ref, None))]
        if found and self._spec.overwrite:  # files of other images, by names of the same stem, are removed
            ours = {actual_path(self._context.output, file) for file in self.state.files()}
            found = [(ref, reason) for ref, reason in found if not self._paths(ref) <= ours]
        if found:
            ref, (reason_of_it, hint) = found[0]
            more = f" (and {len(found) - 1} more such images)" if len(found) > 1 else ""
            raise OutputError(self._context.output, f"{ref.path}: {reason_of_it}{more}", hint)

    def refuse_convertible(self, refs: Iterable[ImageRef | Failed]) -> None:
        """Raise OutputError if an image lacks nothing but formats that `tipsseg convert` can write from its labels.

        To be asked if the folder `lacks_formats`; `refs` are the images of this run.
        """
        state, output = self.state, self._spec.output
        lacking = {ref.name: self._new_formats(ref.name) for ref in refs if ref.name in state}
        formats = {name for names in lacking.values() for name in names}
        for entry in state.entries() if formats else ():
            formats = {name for name in formats if name in entry.formats or _follows(name, entry, entry.formats)}
        images = (ref for ref in refs if isinstance(ref, ImageRef) and lacking.get(ref.name))
        if any(formats.issuperset(lacking[ref.name]) and self._is_done_otherwise(ref) for ref in images):
            begun = () if self.before is None else self.before.converting
            names = ",".join(name for name in FORMATS if name in formats.union(begun))
            raise OutputError(
                output,
                f"images in it are labelled already, and lack only {names}",
                f"Write it from their labels, without the model: tipsseg convert {shell_word(str(output))} --format {names}",
            )

    def _new_formats(self, image: str) -> tuple[str, ...]:
        """Return the formats of this run that an image is not in, by the records or by the rows of the whole run."""
        held = self.state.formats_of(image)
        return tuple(
            name
            for name in self._spec.formats
            if name not in held or (FORMATS[name].has_rows and not self.state.has_rows(name, image))
        )

    def _is_done_otherwise(self, ref: ImageRef) -> bool:
        """Return whether an image needs no labelling but for formats that follow from its files."""
        entry, new = self.state.get(ref.name), self._new_formats(ref.name)
        if entry is None or not self._is_done(entry, ref, but=new):
            return False
        held = [name for name in entry.formats if in_place(name, entry, ref, self._context, self.state)]
        return all(_follows(name, entry, held) for name in new)

    def with_other_formats(self, entry: ManifestEntry) -> ManifestEntry:
        """The entry of an image that was labelled just now, with other formats of an earlier entry for the same labels.

        Formats of other labels are no more the image's; `outdated` has them.
        """
        before = self.state.get(entry.image)
        if before is None:
            return entry
        same = before.digest == entry.digest and entry.fingerprint.same_content(before.fingerprint)
        if not same or before.corrected is not None:
            self.outdated |= set(before.formats) - set(entry.formats)
            return entry
        output = self._context.output
        others = {name: file for name, file in before.files.items() if name not in entry.formats}
        gone = {name for name, file in others.items() if not before.written[name].holds(actual_path(output, file))}
        kept = [name for name in before.formats if name not in entry.formats and name not in gone]
        return replace(
            entry,
            formats=(*entry.formats, *kept),
            files={**entry.files, **{name: others[name] for name in kept if name in others}},
            written={**entry.written, **{name: before.written[name] for name in kept if name in others}},
        )

    def refuse_other_ids(self, refs: Iterable[ImageRef | Failed]) -> None:
        """Raise OtherRunError where it, or another shard, has labels of another model or vocabulary.

        The ids mean the same under other colours, supercategories and minimum confidences; but all shards have the same. `refs` are
        the images of this run, as far as they are known.
        """
        output = self._context.output
        pairs = [
            (shard, self._info)
            for state in state_folders(output)
            if state != self._context.state and (shard := find_run(state)) is not None
        ]
        if self.before is not None and (len(self.state) or self.lost):
            pairs.insert(0, (of_same_phrases(self.before), of_same_phrases(self._info)))
        for pair in pairs:
            if other := difference_texts(*pair):
                names = {each.name for each in refs}
                covered = all(entry.image in names for entry in self.state.entries())
                hint = _START_OVER if covered else f"{_ANOTHER_FOLDER}."
                said = f"it holds labels of another run: {'; '.join(other)}"
                raise OtherRunError(output, said, hint, covered=covered)

    def refuse_other_classes(self) -> None:
        """Raise OutputError where a mask that a person corrected would stay, and ids in it would be of other classes."""
        if self.before is None:
            return
        old, new = self.before.names, self._info.names
        lost = next((each for each in old if new.get(each) != old[each]), None)
        if lost is None and ignore_id(len(old)) == ignore_id(len(new)):
            return
        masks = set(index_masks())
        for entry in self.state.entries():
            ref = ImageRef(Path(entry.path), PurePosixPath(entry.image))
            if masks & set(edited_formats(entry, ref, self._context)):
                now = "" if lost is None else f": {lost} is {new.get(lost, 'no class')} now, and was {old[lost]}"
                raise OutputError(
                    self._context.output,
                    f"the mask of {entry.image} was corrected, and its ids would be of other classes{now}",
                    f"{_ANOTHER_FOLDER}, or give the corrections up with argument `replace_edited`. "
                    "Further classes may follow those that there are.",
                )

    def refuse_mixture(self, covered: Container[str]) -> None:
        """Raise OutputError where labels would stay that were made with other options.

        `covered` are the names of the images of this run.
        """
        before = self.before
        left = [image for image in self.state.others(self._digest) if image not in covered]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            entry = self.state.get(left[0])
            run = before if entry is not None and before is not None and before.digest == entry.digest else None
            alone = run is not None and specs.other_options(run, self._info)[0] == [specs.kept_features(run.spec)]
            raise OtherRunError(
                self._context.output,
                f"it holds the labels of {left[0]}{more}, made with other options{self._how_made(run)}",
                _LABEL_ALL,
                features=run.spec.features if run is not None and alone and self._spec.features is None else None,
            )

    def start_over(self, kept: Collection[Path]) -> None:
        """Take the folder as a new one, but for files that were changed by hand, and are kept."""
        self.before, self.lost, self.kept = None, 0, frozenset(kept)
        self._context.ownership.load({}, self.state)

    def _how_made(self, run: RunInfo | None) -> str:
        """The command of the run that gave an image its labels, and which options are others now."""
        found = [] if run is None else self._differences(run)
        command = "" if run is None or run.noted is None else f" ({run.noted.command})"
        return "; ".join([f"{command}, and this run does not label these again", *found])

    def _differences(self, run: RunInfo) -> list[str]:
        """What of an earlier run is not as it is now, in words."""
        if run.noted is not None and run.noted.labels_version != specs.LABELS_VERSION:
            return ["these are of another version of the labels"]
        theirs, ours = specs.other_options(run, self._info)
        found = [f"these have {', '.join(theirs)}, and this run has {', '.join(ours)}"] if theirs else []
        if difference_texts(run, self._info):
            found.append("colours, supercategories or minimum confidences of classes are others")
        return found

    def _lacking(self, entry: ManifestEntry, ref: ImageRef, edited: Container[str]) -> tuple[str, ...]:
        """The formats of this run that an image is not in, but for files that were edited."""
        asked, context = self._spec.formats, self._context
        return tuple(
            name for name in asked if name not in edited and not in_place(name, entry, ref, context, self.state)
        )

    def _gone_mask(self, entry: ManifestEntry, ref: ImageRef) -> Path | None:
        """A mask of an image that is not there any more."""
        paths = image_paths(self._context, ref, [name for name in index_masks() if name in entry.files]).values()
        return next((path for path in paths if not os.path.lexists(path)), None)

    def _is_done(self, entry: ManifestEntry, ref: ImageRef, but: Container[str] = ()) -> bool:
        """Whether it is the same input, with the same digest, and all files are in place, as they were written.

        Files of the formats `but` may be missing.
        """
        context = self._context
        formats = [name for name in self._spec.formats if name not in but]
        return (
            entry.digest == self._digest
            and entry.corrected is None
            and all(in_place(name, entry, ref, context, self.state) for name in formats)
            and entry.fingerprint.matches(ref.path)
        )

    def _in_the_way(self, ref: ImageRef, entry: ManifestEntry | None) -> tuple[str, str] | None:
        """Why an image cannot have its names in the folder, and what to do; None where it can. `entry` is read where it is None."""
        if not self._spec.overwrite and self.state.is_elsewhere(ref.name, input_path(ref)):
            entry = entry or self.state.get(ref.name)
            if entry is not None and _is_other(entry, ref.path):
                return f"the folder has labels of another image of that name, {entry.path}", _OTHER_INPUT
        context = self._context
        new = [name for name in self._spec.formats if name not in self.state.formats_of(ref.name)]
        for path in image_paths(context, ref, new).values():
            if self.incomplete and path not in self.kept:
                continue
            # A folder is in no danger: no file can replace it. The image fails by itself.
            if os.path.lexists(path) and not is_folder(path) and not context.ownership.is_pending(path):
                return self._what_is_there(path)
        return None

    def _what_is_there(self, path: Path) -> tuple[str, str] | None:
        """What a file in the way is, and what to do; None where it may be replaced."""
        output = self._context.output
        if path in self.kept:
            if self._spec.replace_edited:
                return None
            return f"{path} was changed by hand, and was kept when the folder was started over", _MOVE_OR_REPLACE
        if self._owners is None:
            self._owners = {
                actual_path(output, file): each.path for each in self.state.entries() for file in each.files.values()
            }
        if path in self._owners:
            return (
                f"{path} has the labels of another image, {self._owners[path]}",
                f"{_OTHER_INPUT} Or give argument `names`=full.",
            )
        return f"{path} is there, and is not what tipsseg wrote for this image", MOVE

    def _paths(self, ref: ImageRef) -> set[Path]:
        """The per-image files of an image that are there."""
        paths = image_paths(self._context, ref, self._spec.formats).values()
        return {path for path in paths if os.path.lexists(path)}

    def _read_run(self) -> RunInfo | None:
        """What run.json says. Raises OutputError for records that are not by this program, or of another version."""
        state = self._context.state
        refuse_other_record(state)
        if not os.path.lexists(state / RUN_FILE):
            for name in (MANIFEST_FILE, ERRORS_FILE):
                if os.path.lexists(state / name) and not self.state.broken_off:
                    raise OutputError(state / name, f"it is there without a {RUN_FILE} that tells whose it is", MOVE)
            return None
        try:
            return read_run(state)
        except (OSError, ValueError) as error:
            raise OutputError(
                state,
                f"its {RUN_FILE} is not as this version of tipsseg writes it: {error}",
                f"{_ANOTHER_FOLDER}.",
            ) from error

    def _refuse_neighbours(self) -> None:
        output, shard = self._context.output, self._spec.shard
        if is_unfinished(output):
            raise OutputError(
                output,
                "a merge into it has not ended",
                f"{_ANOTHER_FOLDER}, or finish it first: {finish_command(output)}",
            )
        others = [each for each in shards_in(output) if shard is None or each.count != shard.count]
        if others:
            raise OutputError(
                output,
                f"it holds {others[0].folder}, a part of a run in shards",
                f"{_ANOTHER_FOLDER}, or join its shards: tipsseg merge {output} -o {output}",
            )
        if shard is not None and (output / MANIFEST_FILE).exists() and not is_begun(output):
            raise OutputError(
                output,
                "it holds a whole run, and this is a shard",
                f"{_ANOTHER_FOLDER}, and join both then with tipsseg merge.",
            )


def _follows(name: str, entry: ManifestEntry, held: Collection[str]) -> bool:
    """Return whether an image in the formats `held` can be written in format `name` byte for byte."""
    return suffices(name, held) and not (entry.objects is None and FORMATS[name].scores_objects)


def _is_other(entry: ManifestEntry, path: Path) -> bool:
    """Whether a file has not the content that an entry was labelled from; what cannot be read is told in its turn."""
    try:
        if path.stat().st_size != entry.fingerprint.size:
            return True
        return not fingerprint(path).same_content(entry.fingerprint)
    except (OSError, ValueError):
        return False
