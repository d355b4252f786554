"""Draws the curves of an ablation: zero-shot mean IoU of its arms, and the patch loss on masked and on visible patches.

python -m tinytips.plot --results work/results.json --out work/curves.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinytips.ablate import ARMS
from tinytips.recipe.step import Recipe

#: Apart from each other for people who see no red or no green, too.
COLOURS = ("#7f7f7f", "#d55e00", "#0072b2", "#009e73", "#cc79a7")

Runs = dict[str, list[dict[str, Any]]]


def curve(runs: list[dict[str, Any]], key: str) -> tuple[list[int], list[list[float]]]:
    """The steps at which all runs say `key`, and what each run says then."""
    said = [{line["step"]: line[key] for line in run["log"] if key in line} for run in runs]
    steps = sorted(set.intersection(*(set(each) for each in said)))
    return steps, [[each[step] for step in steps] for each in said]


def draw(axes: Axes, runs: list[dict[str, Any]], key: str, style: dict[str, Any], label: str) -> None:
    """The mean of the runs, and each of them in faint."""
    steps, values = curve(runs, key)
    for each in values:
        axes.plot(steps, each, linewidth=0.8, alpha=0.3, color=style["color"], linestyle=style.get("linestyle", "-"))
    axes.plot(steps, [sum(each) / len(each) for each in zip(*values, strict=True)], label=label, **style)


def plot(results: Runs, out: Path) -> None:
    """Write the picture; its format follows from the name."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    # That with ground-truth masks is ten times as high: beside it the others would be one line. It stands in the table.
    arms = [(name, recipe) for name, recipe in ARMS.items() if not recipe.dense]
    for colour, (name, _) in zip(COLOURS, arms, strict=True):
        draw(left, results[name], "miou_whole", {"color": colour, "linewidth": 2}, name)
    left.set(xlabel="step", ylabel="mean IoU", title="Zero-shot segmentation of whole things, value features")
    for colour, (name, recipe) in zip(COLOURS, arms, strict=True):
        if recipe.distils and (recipe.captions, recipe.teacher) == ("medium", "full"):
            for key, line in (("masked", "-"), ("visible", ":")):
                style = {"color": colour, "linewidth": 2, "linestyle": line}
                draw(right, results[name], key, style, f"{_loss(recipe)}: {key} patches")
    right.set(xlabel="step", ylabel="cross-entropy", title="Patch loss on masked and on visible patches")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=110)


def _loss(recipe: Recipe) -> str:
    return {"masked": "iBOT", "all": "iBOT++"}[recipe.patches]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the curves of an ablation.")
    parser.add_argument(
        "--results", type=Path, required=True, help="what tinytips.ablate writes: results.json of its work folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    options = parser.parse_args(arguments)
    if not options.results.exists():
        parser.error(f"there is no {options.results}: tinytips.ablate writes it when all its runs are done")
    try:
        results = json.loads(options.results.read_text())
    except (OSError, ValueError) as error:
        parser.error(f"{options.results} is not what tinytips.ablate writes: {error}")
    if not isinstance(results, dict) or not set(ARMS) <= set(results):
        parser.error(f"{options.results} is not what tinytips.ablate writes")
    plot(results, options.out)


if __name__ == "__main__":
    main()
