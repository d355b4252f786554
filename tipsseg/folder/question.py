"""Compare the question of a run with the questions of its folder and of its other shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tipsseg.errors import OtherRunError, Words
from tipsseg.folder.entry import Entry
from tipsseg.folder.spec import VERSION_OF, RunInfo, question_facts, with_classes
from tipsseg.options.fields import text_of
from tipsseg.types import ignore_id
from tipsseg.util.text import join_first

#: What a folder knows of its model.
MODEL_FACTS = ("model", "dtype", "image_root")


def question_differences(one: RunInfo, other: RunInfo) -> list[tuple[str, str, str]]:
    """Return the differences between the questions of two runs: the name of an option, and its values."""
    first, second = question_facts(one), question_facts(other)
    return [
        (name, *_both(name, one, other, first.get(name), second.get(name)))
        for name in first | second
        if first.get(name) != second.get(name)
        and not (
            name.startswith(VERSION_OF) and None in (first.get(name), second.get(name))
        )  # the option itself differs
    ]


def differences_text(one: RunInfo, other: RunInfo, between: str = " -> ") -> str:
    """Return the differences between the questions of two runs as text; "" if there are none."""
    return "; ".join(f"{name} {old}{between}{new}" for name, old, new in question_differences(one, other))


def _both(name: str, one: RunInfo, other: RunInfo, first: object, second: object) -> tuple[str, str]:
    """Return two values of an option for a message."""
    if name == "model":
        texts = str(one.model["id"]), str(other.model["id"])
        return texts if texts[0] != texts[1] else (texts[0], f"{texts[1]} with other files")
    if name == "classes":
        old, new = ([spec.name for spec in info.spec.vocabulary.specs] for info in (one, other))
        return ("as they were", "with other settings") if old == new else (join_first(old, 5), join_first(new, 5))
    if name in ("background", "auto"):
        asked = [info.spec.vocabulary for info in (one, other)]
        first, second = ("auto" if each.auto else ",".join(each.background) or "none" for each in asked)
    if name == "features":
        specs = (one.spec, other.spec)
        first, second = (f"stored in {each.labelled_in}" if each.features else "none stored" for each in specs)
    if None in (first, second) and isinstance(first or second, dict):  # options of one kind of picture alone
        return ("no", "yes") if first is None else ("yes", "no")
    return value_text(first), value_text(second)


def value_text(value: object) -> str:
    """Return the value of an option for a message."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(each)}" for key, each in value.items() if each) or "none"
    if value is None or value is False or value in ("", ()):
        return "none"
    return "on" if value is True else text_of(value)


def other_question(before: RunInfo, info: RunInfo) -> OtherRunError | None:
    """Return the error if a run answers another question than the labels in its folder; else None."""
    if not (found := question_differences(before, info)):
        return None
    text = differences_text(before, info)
    return OtherRunError(
        info.spec.output,
        f"its labels were made with other settings: {text}",
        Words(
            "Choose another output folder with {output}, or start over in this one with {overwrite}, which "
            "keeps corrected masks."
        ),
        features=before.spec.features if [name for name, _, _ in found] == ["features"] else None,
    )


def refuse_other_ids(before: RunInfo, info: RunInfo, entries: Iterable[Entry]) -> None:
    """Raise OtherRunError if a corrected mask of `entries` would be kept although its ids would mean other classes."""
    old, new = before.names, info.names
    lost = next((label_id for label_id in old if new.get(label_id) != old[label_id]), None)
    one, other = ((each.files.names, each.mask_format) for each in (before.spec, info.spec))
    what = "its ids would mean other classes"
    if lost is not None:
        what += f": {lost} was {old[lost]}, and would be {new.get(lost, 'unused')}"
    elif one != other:
        what = "its file would have another name"
    elif ignore_id(len(old)) == ignore_id(len(new)):
        return
    if info.spec.replace_edited:
        return
    for entry in entries:
        if entry.corrected:
            raise OtherRunError(
                info.spec.output,
                f"the mask of {entry.image} was corrected, and {what}",
                Words(
                    "Choose another output folder with {output}, and import the corrections there by class name. To "
                    "discard them, use {overwrite} and {replace_edited}. Classes may be added after the existing "
                    "ones."
                ),
                fits=False,
            )


def with_classes_of(before: RunInfo, info: RunInfo) -> RunInfo:
    """Return a run with the classes that `tipsseg correct` added to its folder, and with its colours where none are given."""
    names = list(before.names.values())
    if before.added and [*info.names.values(), *before.added] == names:
        info = with_classes(info, before.added)
    vocabulary, known = info.spec.vocabulary, before.spec.vocabulary.specs
    if [spec.name for spec in known] != [spec.name for spec in vocabulary.specs]:
        return info
    specs = tuple(
        replace(spec, colour=spec.colour or old.colour, supercategory=spec.supercategory or old.supercategory)
        for spec, old in zip(vocabulary.specs, known, strict=True)
    )
    if specs == tuple(vocabulary.specs):
        return info
    return with_classes(replace(info, spec=replace(info.spec, vocabulary=replace(vocabulary, specs=specs))), ())


def merged_info(info: RunInfo, before: RunInfo) -> RunInfo:
    """Return a run with what its folder knows of the model, and with its formats and file options for those not given."""
    formats = tuple(dict.fromkeys((*before.spec.formats, *info.spec.formats)))
    used = before.vocabulary or before.spec.vocabulary
    return replace(
        info,
        spec=info.spec.changed(formats=formats, files=info.spec.files.kept(before.spec.files)),
        vocabulary=replace(info.spec.vocabulary, background=used.background, auto=False),
        **{name: getattr(before, name) for name in (*MODEL_FACTS, "device", "batch_size", "started", "added")},
    )
