"""What the label ids of a run mean, as its run.json says."""

from __future__ import annotations

from tipsseg.types import BACKGROUND
from tipsseg.util.json_values import take


def run_names(record: object) -> dict[int, str]:
    """The names of the classes by id, 1..N, in the content of a run.json. Raises ValueError where they are none."""
    classes = take(take(record, "vocabulary", dict), "classes", list)
    named = [(take(each, "id", int), take(each, "name", str)) for each in classes]
    names = {label_id: name for label_id, name in named if label_id != BACKGROUND}  # those with 0 are negative
    if list(names) != list(range(1, len(names) + 1)):
        raise ValueError("the ids of the classes are not 1, 2, ...")
    return names
