"""Read the scores that `tipsseg eval -o` wrote into the output folder of a run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError
from tipsseg.run.entry import Entry
from tipsseg.runs.evaluate.run import CSV_FILE, IMAGES_FILE, SCORES_FILE
from tipsseg.util.files import describe_error, open_regular, read_regular
from tipsseg.util.json_values import parse, take


def read_truth_scores(folder: Path) -> Mapping[str, object] | None:
    """Read the scores in eval.json and the matrix in confusion.csv, or return None if eval.json is missing.

    Returns:
        `mean_iou` and `pixel_accuracy`, 0..1 or None; `classes` with name and IoU; `columns`, the names of predicted classes;
        `counts`, a row of pixel counts for each truth class.
    """
    if not os.path.lexists(folder / SCORES_FILE):
        return None
    try:
        record = parse(read_regular(folder / SCORES_FILE))
        text = read_regular(folder / CSV_FILE).decode("utf-8")
        if take(record, "tool", str) != "tipsseg":
            raise ValueError("written by another tool")
        header, *rows = csv.reader(io.StringIO(text))
        classes = [
            {"name": take(entry, "name", str), "iou": _score(entry, "iou")} for entry in take(record, "classes", list)
        ]
        counts = [[int(number) for number in row[1:]] for row in rows]
        if len(counts) != len(classes) or any(len(row) != len(header) - 1 for row in counts):
            raise ValueError(f"{CSV_FILE} has different classes")
    except (OSError, ValueError) as error:
        raise _invalid_scores(folder / SCORES_FILE, error) from error
    columns = [str(entry["name"]) for entry in classes] + ["no label"] * (len(header) - 1 - len(classes))
    return {
        "mean_iou": _score(record, "mean_iou"),
        "pixel_accuracy": _score(record, "pixel_accuracy"),
        "classes": classes,
        "columns": columns,
        "counts": counts,
    }


def read_image_accuracies(folder: Path) -> dict[str, float]:
    """Read the pixel accuracy of each scored image, 0..1, keyed by the name of the image or of its mask.

    Images without scored pixels are left out. The result is empty if the file is missing.
    """
    path = folder / IMAGES_FILE
    if not os.path.lexists(path):
        return {}
    accuracies = {}
    try:
        with open_regular(path) as file:
            for line in file:
                record = parse(line)
                pixels, right = take(record, "pixels", int), take(record, "right", int)
                if not 0 <= right <= pixels:
                    raise ValueError(f"{right} of {pixels} pixels are correct")
                if pixels:
                    accuracies[take(record, "image", str)] = round(right / pixels, 4)
    except (OSError, ValueError) as error:
        raise _invalid_scores(path, error) from error
    return accuracies


def accuracy_of(entry: Entry, accuracies: Mapping[str, float]) -> float | None:
    # Masks are named after their images, with or without the suffix.
    names = (entry.image, str(PurePosixPath(entry.image).with_suffix(".png")), f"{entry.image}.png")
    return next((accuracies[name] for name in names if name in accuracies), None)


def _invalid_scores(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a result of tipsseg eval: {describe_error(error)}", "Run the evaluation again.")


def _score(record: Mapping[str, object], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"`{key}` is not a score")
    return float(value)  # type: ignore[arg-type]
