"""Measures zero-shot segmentation on held-out drawn scenes, through the commands `tipsseg label` and `tipsseg eval`.

    python -m tinytips.evaluate --model tiny --scenes 200

Prints IoU per class of three lists of classes (see `world/concepts.py`). Beside each stands the best that a labelling could reach
with one label per cell of the model's grid over the short side. Then comes what an open question does to pixels that are neither.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tinytips.arguments import positive
from tinytips.data.scoring import FIRST_SEED, GRID, SIZES, Labels, grid_best, iou, to_list
from tinytips.world.concepts import CLOSED_LIST, LEAF_LIST, WHOLE_LIST
from tinytips.world.scenes import draw_scene

LISTS = {
    "closed list, panda and house and car and boat in parts": CLOSED_LIST,
    "every thing whole": WHOLE_LIST,
    "every part apart": LEAF_LIST,
}


def draw(folder: Path, count: int) -> list[Labels]:
    """Save the scenes as 0000.png, 0001.png, ... and return their truths."""
    truths = []
    for index in range(count):
        scene = draw_scene(FIRST_SEED + index, *SIZES[index % len(SIZES)])
        Image.fromarray(scene.image).save(folder / f"{index:04d}.png")
        truths.append(scene.truth)
    return truths


def score(
    images: Path, work: Path, model: str, classes: Sequence[str], background: str, truths: Sequence[Labels]
) -> tuple[dict[str, float], list[Labels]]:
    """IoU of each class and of "background" as `tipsseg eval` tells it, NaN where it does not occur; and the labels it makes."""
    truth = work / "truth"
    truth.mkdir(parents=True)
    for index, each in enumerate(truths):
        Image.fromarray(each).save(truth / f"{index:04d}.png")
    names = [word for name in classes for word in ("-c", name)]
    out = str(work / "out")
    label = ["label", str(images), "--model", model, *names, "--background", background, "--format", "png", "-o", out]
    for arguments in (label, ["eval", out, "--gt", str(truth), "--json"]):
        command = [sys.executable, "-m", "tipsseg", *arguments, "--quiet"]
        ran = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if ran.returncode:
            raise SystemExit(ran.returncode)  # it has said why
    said = json.loads(ran.stdout)
    found = {each["name"]: float("nan") if each["iou"] is None else each["iou"] for each in said["classes"]}
    return found, [np.asarray(Image.open(path)) for path in sorted((work / "out" / "masks").glob("*.png"))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Evaluate a model on held-out drawn scenes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="as of tipsseg --model")
    parser.add_argument("--scenes", type=positive, default=200, help="how many")
    parser.add_argument(
        "--grid", type=positive, default=GRID, help="patches along the short side of the model's window"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args(arguments)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        images = work / "images"
        images.mkdir()
        leaves = draw(images, options.scenes)
        for number, (title, classes) in enumerate(LISTS.items()):
            truths = [to_list(truth, classes) for truth in leaves]
            found, _ = score(images, work / f"list{number}", options.model, classes, "none", truths)
            got = [found[name] for name in classes]
            best = iou(truths, [grid_best(truth, options.grid) for truth in truths], len(classes))[1:]
            print(f"\n{title}: mean IoU {np.nanmean(got):.3f} (best on the grid {np.nanmean(best):.3f})\n")
            print("| class | IoU | best on the grid |\n|---|---|---|")
            for name, value, bound in zip(classes, got, best, strict=True):
                print(f"| {name} | {value:.3f} | {bound:.3f} |")
            results[title] = {
                "mean": float(np.nanmean(got)),
                "grid": float(np.nanmean(best)),
                "iou": {name: float(value) for name, value in zip(classes, got, strict=True)},
            }
        results["open"] = report_open_question(images, work / "open", options.model, leaves)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def report_open_question(images: Path, out: Path, model: str, leaves: Sequence[Labels]) -> dict[str, float]:
    """Two classes, the rest left to the background phrases: IoU, and the area given to a class that is not in the image."""
    classes = ("panda leg", "tree")
    truths = [to_list(truth, classes) for truth in leaves]
    numbers, guesses = score(images, out, model, classes, "auto", truths)
    print(f'\n--classes "{",".join(classes)}" --background auto\n')
    print("| class | IoU | false area where it is absent |\n|---|---|---|")
    for number, name in enumerate(classes, start=1):
        areas = [float((g == number).mean()) for t, g in zip(truths, guesses, strict=True) if not (t == number).any()]
        numbers[f"{name}, false area"] = float(np.mean(areas))
        print(f"| {name} | {numbers[name]:.3f} | {100 * np.mean(areas):.2f} % of the image |")
    return numbers


if __name__ == "__main__":
    main()
