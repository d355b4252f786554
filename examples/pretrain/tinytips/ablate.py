"""The paper's ablation in miniature: one idea after the other, each on the same budget, with several seeds.

    python -m tinytips.ablate --work work --steps 1500 --seeds 1,2

Each run is `tinytips.pretrain` in a process of its own. It is scored on held-out scenes by `evaluate` (mean IoU of the list of
whole things, by value features), `retrieval`, `probe` and `prototypes`. What is there is not done again: an ablation that was
broken off goes on by the same command. Writes results.json into the work folder, and prints tables in Markdown. `tinytips.plot`
draws the curves. Two runs go on at once, each with half of the cores, which is faster than one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tinytips.arguments import stoppable
from tinytips.check import Check
from tinytips.data.store import drawn, stored_short
from tinytips.pretrain import BOTTLENECK, FIRST_SEED, HIDDEN, PROTOTYPES
from tinytips.recipe.heads import ProjectionHead
from tinytips.recipe.network import SIZES, make_config
from tinytips.recipe.step import Recipe, kept_parameters
from tinytips.world.concepts import WHOLE_LIST
from tipsseg.backbones.tipsv2.vision import VisionTower

#: The folder that holds this package, for the processes of the runs.
PACKAGES = Path(__file__).parents[1]

#: One idea more in each. Whatever trains no patches has no teacher.
ARMS: dict[str, Recipe] = {
    "contrastive only": Recipe("none", "medium", "full"),
    "+ DINO and iBOT": Recipe("masked", "medium", "full"),
    "+ iBOT++ in place of iBOT": Recipe("all", "medium", "full"),
    "+ captions of three granularities": Recipe("all", "mixed", "full"),
    "+ head-only EMA": Recipe("all", "mixed", "head"),
    "for comparison: contrastive and ground-truth masks": Recipe("none", "mixed", "full", dense=True),
}
AT_ONCE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train and score the arms of the ablation.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="images, checkpoints, logs and results")
    parser.add_argument("--steps", type=int, default=1500, help="of each run")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its highest")
    parser.add_argument("--scenes", type=int, default=10_000, help="to train on")
    parser.add_argument("--held-out", type=int, default=200, help="scenes to score on")
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors that have it; slower on others")
    parser.add_argument("--seeds", default="1,2", help="with commas")
    options = parser.parse_args(arguments)
    side = SIZES["small"].side
    drawn(options.work / "images", options.scenes, FIRST_SEED, stored_short(side))
    Check(options.work / "images", side)
    # Seed by seed, so that there is a whole ablation early.
    runs = [(name, int(seed)) for seed in options.seeds.split(",") for name in ARMS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda run: one_run(options, *run), runs))
    results = {name: [run for (of, _), run in zip(runs, made, strict=True) if of == name] for name in ARMS}
    (options.work / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


def one_run(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train and score, or read what was scored before."""
    recipe = ARMS[name]
    folder = options.work / f"{list(ARMS).index(name)}-{seed}"
    wanted: dict[str, object] = {
        "patches": recipe.patches,
        "captions": recipe.captions,
        "teacher": recipe.teacher,
        "momentum": recipe.momentum,
        "steps": options.steps,
        "batch-size": options.batch_size,
        "scenes": options.scenes,
        "learning-rate": options.learning_rate,
        "seed": seed,
    }
    wanted |= {flag: None for flag, on in {"dense": recipe.dense, "bfloat16": options.bfloat16}.items() if on}
    # Of a run that is done this makes nothing new, but it refuses one with other options.
    run("pretrain", {"work": folder, "out": folder / "model", **wanted})
    held_out: dict[str, object] = {"model": folder / "model", "scenes": options.held_out}
    segmentation = folder / f"segmentation-{options.held_out}.json"
    if not segmentation.exists():
        run("evaluate", {**held_out, "grid": 8, "json": segmentation})
    found = {}
    looks: dict[str, dict[str, object]] = {"retrieval": held_out, "probe": held_out}
    if recipe.distils:
        looks["prototypes"] = {"run": folder, "scenes": options.held_out}
    for command, what in looks.items():
        file = folder / f"{command}-{options.held_out}.json"
        if not file.exists():
            file.write_text(run(command, {**what, "work": options.work}))
        found[command] = json.loads(file.read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    whole = json.loads(segmentation.read_text())["every thing whole"]
    return {
        "miou": whole["mean"],
        "iou": whole["iou"],
        "recall": found["retrieval"],
        "probe": found["probe"]["miou"],
        "prototypes": found.get("prototypes"),
        "log": log,
    }


def run(name: str, options: dict[str, object]) -> str:
    """What a command of this package prints."""
    words = [
        word for option, value in options.items() for word in (f"--{option}", *([] if value is None else [str(value)]))
    ]
    print(name, *words, file=sys.stderr)
    threads = max((os.cpu_count() or 1) // AT_ONCE, 1)
    path = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    command = [sys.executable, "-m", f"tinytips.{name}", *words]
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if ran.returncode:
        raise SystemExit(ran.returncode)  # it has said why
    return ran.stdout


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """What was learnt, and what it took: means over the seeds, and for the score that matters the value of each seed."""
    config = make_config(SIZES["small"], 1200).vision
    backbone, head = VisionTower(config), ProjectionHead(config.hidden_size, HIDDEN, BOTTLENECK, PROTOTYPES)
    learnt = [
        "",
        f"mean IoU, {len(WHOLE_LIST)} things",
        "per seed",
        "R@1, medium captions",
        "R@1, long captions",
        "linear probe, mean IoU",
        "masked patches, loss",
        "visible patches, loss",
        "prototypes used",
        "prototype purity",
    ]
    took = ["", "seconds per step", "peak MB", "trained parameters, millions", "stored parameters with EMA, millions"]
    learnt_rows, took_rows = [learnt, ["---"] * len(learnt)], [took, ["---"] * len(took)]
    for name, runs in results.items():
        recipe = ARMS[name]
        last = [each["log"][-1] for each in runs]
        row = [name, f"{fmean([each['miou'] for each in runs]):.3f}", ", ".join(f"{each['miou']:.3f}" for each in runs)]
        row += [f"{_recall(runs, 'medium'):.3f}", f"{_recall(runs, 'long'):.3f}"]
        row += [f"{fmean([each['probe'] for each in runs]):.3f}"]
        trained = kept = sum(each.numel() for each in backbone.parameters())
        if not recipe.distils:
            row += [""] * 4
        else:
            trained += sum(each.numel() for each in head.parameters())
            kept = kept_parameters(backbone, head, recipe.teacher)
            row += [f"{fmean([line[patches] for line in last]):.2f}" for patches in ("masked", "visible")]
            row += [f"{fmean([each['prototypes']['in use'] for each in runs]):.0f}"]
            row += [f"{fmean([each['prototypes']['purity'] for each in runs]):.2f}"]
        learnt_rows.append(row)
        times = [line["seconds_a_step"] for each in runs for line in each["log"]]
        memory = fmean([line["peak_mb"] for line in last])
        took_rows.append([name, f"{median(times):.2f}", f"{memory:.0f}", f"{trained / 1e6:.2f}", f"{kept / 1e6:.2f}"])
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in rows) for rows in (learnt_rows, took_rows))


def _recall(runs: list[dict[str, Any]], captions: str) -> float:
    """R@1, the mean of both ways and of all seeds."""
    return fmean([run["recall"][f"{captions}, {way}"] for run in runs for way in ("image to text", "text to image")])


if __name__ == "__main__":
    stoppable(main)
