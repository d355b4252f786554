"""A weak model: an early checkpoint of the training of `tiny`, for measurements on a model that is far from perfect.

    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model

The first of the three runs in the card of `tiny`, with fewer scenes, steps and images a step. `--out` becomes a folder in the hub
layout, for `--model`. The seed is fixed; processors differ in how they round bfloat16, so the weights of two machines may differ a
little. It takes about five minutes on two free cores with instructions for bfloat16, some two for the scenes. What was broken off
goes on by the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tinytips import pretrain
from tinytips.recipe import dense

RECIPE = (
    "--size tiny --side 168 --patches none --dense --bfloat16 --batch-size 8 --learning-rate 1e-3 --seed 1 "
    "--steps 600 --scenes 2500"
)
#: What the recipe for lists was in tiny's first run.
LISTS = {"KIN_WEIGHT": 0.0, "CLOSED_SHARE": 0.35, "WHOLE_SHARE": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a weak model.")
    parser.add_argument("--work", type=Path, required=True, help="scenes and checkpoints of the training, 500 MB")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    options = parser.parse_args()
    for name, value in LISTS.items():
        setattr(dense, name, value)
    pretrain.main([*RECIPE.split(), "--work", str(options.work / "run"), "--out", str(options.out)])


if __name__ == "__main__":
    main()
