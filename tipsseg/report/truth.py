"""The scores of a run against truth, where `tipsseg eval -o` wrote them into its output folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.runs.evaluate import CSV_FILE, SCORES_FILE
from tipsseg.util.files import read_regular, reason_of
from tipsseg.util.json_values import parse, take


def read_truth_scores(folder: Path) -> Mapping[str, object] | None:
    """The scores in eval.json and the matrix in confusion.csv; None where there is no eval.json.

    Returns:
        `mean_iou` and `pixel_accuracy`, 0..1 or None; `classes`: name and IoU of each; `columns`: the names of what was predicted;
        `counts`: a row of pixels for each class of the truth.

    Raises:
        InputError: Where one of the files is not as it was written.
    """
    if not os.path.lexists(folder / SCORES_FILE):
        return None
    try:
        record = parse(read_regular(folder / SCORES_FILE))
        text = read_regular(folder / CSV_FILE).decode("utf-8")
        if take(record, "tool", str) != "tipsseg":
            raise ValueError("of another tool")
        header, *rows = csv.reader(io.StringIO(text))
        classes = [
            {"name": take(each, "name", str), "iou": _score(each, "iou")} for each in take(record, "classes", list)
        ]
        counts = [[int(number) for number in row[1:]] for row in rows]
        if len(counts) != len(classes) or any(len(row) != len(header) - 1 for row in counts):
            raise ValueError(f"{CSV_FILE} is not of these classes")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / SCORES_FILE}: not as tipsseg eval writes it: {reason_of(error)}", "Run the evaluation again."
        ) from error
    columns = [str(each["name"]) for each in classes] + ["no label"] * (len(header) - 1 - len(classes))
    return {
        "mean_iou": _score(record, "mean_iou"),
        "pixel_accuracy": _score(record, "pixel_accuracy"),
        "classes": classes,
        "columns": columns,
        "counts": counts,
    }


def _score(record: Mapping[str, object], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"`{key}` is no score")
    return float(value)  # type: ignore[arg-type]
