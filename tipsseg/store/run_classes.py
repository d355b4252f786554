"""What the label ids of a run mean, as its run.json says, and whether its classes.json says the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tipsseg.store.run_record import RUN_FILE
from tipsseg.types import BACKGROUND
from tipsseg.util.json_values import short, take


def run_names(record: object) -> dict[int, str]:
    """The names of the classes by id, 1..N, in the content of a run.json. Raises ValueError where they are none."""
    classes = take(take(record, "vocabulary", dict), "classes", list)
    named = [(take(each, "id", int), take(each, "name", str)) for each in classes]
    names = {label_id: name for label_id, name in named if label_id != BACKGROUND}  # those with 0 are negative
    if list(names) != list(range(1, len(names) + 1)):
        raise ValueError("the ids of the classes are not 1, 2, ...")
    return names


def class_faults(classes: Sequence[tuple[int, str]], names: Mapping[int, str]) -> Iterator[str]:
    """In which ways these ids and names are not those of the run."""
    if len(classes) != len(names):
        yield f"{len(classes)} classes, where {RUN_FILE} has {len(names)}"
        return
    for (label_id, name), (wanted_id, wanted) in zip(classes, names.items(), strict=True):
        if label_id != wanted_id:
            yield f"class {short(name)} has the id {label_id}, in {RUN_FILE} {wanted_id}"
        elif name != wanted:
            yield f"class {label_id} is {short(name)}, in {RUN_FILE} {short(wanted)}"
