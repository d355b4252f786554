"""Train a weak model, an early checkpoint of `tiny`, for measurements on an imperfect model.

    PYTHONPATH=examples/pretrain python tests/benchmarks/weak.py --work /tmp/weak --out /tmp/weak/model

This is the first of the three training runs in the model card of `tiny`, with fewer scenes, steps and images per step. `--out`
becomes a folder in the hub layout, for `--model`. The seed is fixed, but processors round bfloat16 differently, so the weights may
differ slightly between machines. It takes about five minutes on two free cores with bfloat16 instructions, two of them for the
scenes. Run the same command again to continue an interrupted run.
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
