"""Trains by the TIPSv2 recipe, on drawn scenes or on your own pictures with captions.

    python examples/pretrain/pretrain.py --work work --out model
    python examples/pretrain/pretrain.py --work work --out model --pictures photos.jsonl --start RELEASED_MODEL

`--patches`, `--captions` and `--teacher` switch the paper's ideas on and off, see recipe.py. A run that was broken off goes on from
its last checkpoint by the same command. `--out` becomes a folder in the hub layout, for `tipsseg label --model`. The log has a line
of JSON for every 50 steps: the losses' means, seconds a step (median) and the peak memory in MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from heads import ProjectionHead
from recipe import Parts, Pretraining, Recipe, random_mask
from store import Store, drawn, pictures
from torch import Tensor
from train import encode_texts, initialise, make_optimiser, set_rate, tiny_config, write_model
from views import Views, ahead, make_views
from vocabulary_file import train_tokenizer

from tipsseg.errors import TipssegError, UsageError
from tipsseg.model import checkpoint
from tipsseg.model.checkpoint import Tipsv2
from tipsseg.model.config import TOKENIZER_FILE
from tipsseg.model.tokenizer import Tokenizer

IMAGE_SIZE = 112
FIRST_SEED = 10_000_000  # of the scenes, apart from those of the evaluation
WARM_UP = 200
LOG_EVERY, SAVE_EVERY = 50, 250
#: Of the projection head, where the paper has 2048, 256 and 32768.
HIDDEN, BOTTLENECK, PROTOTYPES = 384, 64, 1024


def local_side(side: int) -> int:
    """The side of the local crops, in whole patches: three eighths of the whole one's, as the paper's 98 of 224 nearly are."""
    return side * 3 // 8 // 14 * 14


class Run:
    """What is trained, its optimiser, and how far it has come."""

    def __init__(self, work: Path, recipe: Recipe, steps: int, seed: int, rate: float, start: Path | None) -> None:
        work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.steps, self.seed, self.rate, self.done = steps, seed, rate, 0
        self._state = work / "state.pt"
        self.tokenizer_file = (start or work) / TOKENIZER_FILE
        if start is not None:
            student, self.tokenizer = checkpoint.load(start, torch.device("cpu"), torch.float32)
            student.requires_grad_(requires_grad=True)
        else:
            if not self.tokenizer_file.exists():
                train_tokenizer(self.tokenizer_file)
            self.tokenizer = Tokenizer(self.tokenizer_file, 64)
            student = Tipsv2(tiny_config(self.tokenizer.vocab_size, IMAGE_SIZE))
            initialise(student)
        width = student.config.vision.hidden_size
        self.module = Pretraining(student, ProjectionHead(width, HIDDEN, BOTTLENECK, PROTOTYPES), recipe)
        self._trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = make_optimiser(self._trained, rate)
        if self._state.exists():
            state = torch.load(self._state, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.done = state["done"]

    @property
    def side(self) -> int:
        """Of the whole crop, in pixels."""
        return self.module.student.config.vision.image_size

    def step(self, views: Views) -> Parts:
        """One update; the losses before it."""
        set_rate(self.optimiser, self.rate, self.done, self.steps, WARM_UP)
        count = len(views.whole)
        texts = encode_texts(self.module.student, self.tokenizer, [*views.alt, *views.synthetic])
        patches = self.module.student.config.vision.grid_size**2
        mask = random_mask(count, patches, torch.Generator().manual_seed(self.seed * 1_000_003 + self.done))
        parts: Parts = self.module(pixels(views.whole), pixels(views.crops), mask, texts[:count], texts[count:])
        self.optimiser.zero_grad(set_to_none=True)
        parts.total.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self.optimiser.step()
        self.module.follow()
        self.done += 1
        return parts

    def save(self) -> None:
        """The state to go on from; whole or not at all."""
        state = {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), "done": self.done}
        temporary = self._state.with_suffix(".new")
        torch.save(state, temporary)
        temporary.replace(self._state)

    def export(self, folder: Path) -> None:
        """Write the student in the hub layout."""
        write_model(folder, self.module.student, self.tokenizer_file)


def pixels(images: np.ndarray) -> Tensor:
    """[..., H, W, 3] uint8 -> [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(images).movedim(-1, -3).float() / 255


def train(run: Run, store: Store, batch_size: int, log: Path) -> None:
    """Take the steps that are left; a line in the log for every 50, a checkpoint for every 250."""
    local = local_side(run.side)
    recent: list[dict[str, float]] = []
    times: list[float] = []

    def make(step: int) -> Views:
        return make_views(store, (run.seed, step), batch_size, run.side, local, run.module.recipe.captions)

    for views in ahead(make, run.done, run.steps):
        began = time.perf_counter()
        parts = run.step(views)
        times.append(time.perf_counter() - began)
        recent.append(parts.numbers())
        if run.done % LOG_EVERY == 0 or run.done == run.steps:
            line: dict[str, float] = {"step": run.done}
            line |= {name: round(statistics.fmean(each[name] for each in recent), 4) for name in recent[0]}
            line["seconds_a_step"] = round(statistics.median(times), 4)
            line["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
            print(json.dumps(line), flush=True)
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            recent.clear()
            times.clear()
        if run.done % SAVE_EVERY == 0 or run.done == run.steps:
            run.save()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train by the TIPSv2 recipe.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="images made ready, checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--pictures", type=Path, help="JSON lines with image and captions, in place of drawn scenes")
    parser.add_argument("--start", type=Path, help="a model folder to start from, in the hub layout")
    parser.add_argument("--scenes", type=int, default=10_000, help="how many are drawn")
    parser.add_argument("--patches", default="all", choices=("none", "masked", "all"), help="none, iBOT or iBOT++")
    parser.add_argument("--captions", default="mixed", choices=("medium", "mixed"), help="of the second class token")
    parser.add_argument("--teacher", default="head", choices=("head", "full"), help="what of it is a moving average")
    parser.add_argument("--momentum", type=float, default=Recipe().momentum, help="of the moving averages")
    parser.add_argument("--steps", type=int, default=3000, help="in all")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its highest")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches and masks")
    options = parser.parse_args()
    try:
        remember(options)
        recipe = Recipe(options.patches, options.captions, options.teacher, options.momentum)
        run = Run(options.work, recipe, options.steps, options.seed, options.learning_rate, options.start)
        short = run.side * 3 // 2
        folder = options.work.parent / "images"
        store = (
            pictures(folder, options.pictures, short)
            if options.pictures
            else drawn(folder, options.scenes, FIRST_SEED, short)
        )
        train(run, store, options.batch_size, options.work / "log.jsonl")
        run.export(options.out)
    except TipssegError as error:
        parser.error(f"{error.message}. {error.hint}")


def remember(options: argparse.Namespace) -> None:
    """Keep what decides the run beside its checkpoints. Raises UsageError where they are those of another run."""
    decides = {name: str(value) for name, value in vars(options).items() if name not in ("work", "out")}
    file = options.work / "options.json"
    if file.exists() and (before := json.loads(file.read_text())) != decides:
        other = [f"--{name.replace('_', '-')}" for name in decides if decides[name] != before.get(name)]
        raise UsageError(f"{options.work} holds a run with other {', '.join(other)}", "Give it a --work of its own.")
    options.work.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(decides, indent=2) + "\n")


if __name__ == "__main__":
    main()
