"""Trains by the TIPSv2 recipe, on drawn scenes or on your own pictures with captions.

    python -m tinytips.pretrain --work work/run --out model
    python -m tinytips.pretrain --work work/run --out model --pictures photos.jsonl --start RELEASED_MODEL

`--patches`, `--captions` and `--teacher` switch the paper's ideas on and off (see `recipe/step.py`). `--dense` adds a loss on the
ground-truth masks of drawn scenes. A run that was broken off goes on from its last log line by the same command. `--out` becomes a
folder in the hub layout, for `tipsseg label --model`. The log has a line of JSON for every 50 steps: the losses' means, seconds per
step (median) and the most memory in MB that was held at the end of a forward. With drawn scenes, every fifth line has mean IoU on a
few held-out ones.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tinytips.arguments import positive, stoppable, told
from tinytips.check import Check
from tinytips.data.store import Store, drawn, pictures, stored_short
from tinytips.data.views import Views, ahead, local_side, make_views
from tinytips.recipe.heads import ProjectionHead
from tinytips.recipe.network import MAX_TOKENS, PATCH, SIZES, encode_texts, make_model, write_model
from tinytips.recipe.step import Batch, Parts, Pretraining, Recipe, random_mask
from tinytips.recipe.tokenizer import train_tokenizer
from tipsseg.backbones.devices import resolve_device
from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.text import Tokenizer
from tipsseg.errors import InputError, UsageError
from tipsseg.weights.lock import TOKENIZER_FILE

FIRST_SEED = 10_000_000  # of the scenes, apart from those of the evaluation
WARM_UP = 200
#: Self-distillation begins when captions have made tokens differ, and gets its whole weight slowly. A teacher that says the same of
#: all tokens teaches the student, which is its backbone, to do so too.
DISTIL_FROM, DISTIL_WHOLLY = 200, 400
LOG_EVERY, LOOK_EVERY = 50, 250
OPTIONS_FILE = "options.json"
#: Of the projection head, where the paper has 2048, 256 and 32768.
HIDDEN, BOTTLENECK, PROTOTYPES = 384, 64, 256


def distil_share(step: int) -> float:
    """How much of its weight self-distillation has in a step, in [0, 1]."""
    return min(max((step - DISTIL_FROM) / (DISTIL_WHOLLY - DISTIL_FROM), 0.0), 1.0)


def make_optimiser(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    """AdamW; biases, gains and tokens do not decay."""
    trained = list(parameters)
    decayed, others = ([each for each in trained if (each.ndim > 1) is matrix] for matrix in (True, False))
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )


def set_rate(optimiser: torch.optim.Optimizer, highest: float, step: int, steps: int) -> None:
    """The learning rate of a step: a linear rise, then half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = highest * min((step + 1) / WARM_UP, 1.0) * (0.01 + 0.99 * cosine)


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides a run, beside its images.

    steps, seed, rate  the updates in all, of weights and batches and masks, the learning rate at its highest
    start              a model folder to begin with; None for a new model of `size`, see SIZES
    side               of the whole crops, in pixels; None for that of the model. Positions are interpolated.
    bfloat16           matrix products of the networks in half precision; what is learnt, and the losses, stay float32
    device             its name, as of `tipsseg --device`; that may change over a break
    """

    recipe: Recipe
    steps: int
    seed: int = 1
    rate: float = 1e-3
    start: Path | None = None
    size: str = "small"
    side: int | None = None
    bfloat16: bool = False
    device: str = "cpu"


class Run:
    """What is trained, its optimiser, and how far it has come."""

    def __init__(self, work: Path, plan: Plan) -> None:
        work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.done = plan, resolve_device(plan.device), 0
        self.peak_mb = 0.0
        self._state = work / "state.pt"
        self.tokenizer_file = (plan.start or work) / TOKENIZER_FILE
        if plan.start is not None:
            student, self.tokenizer = checkpoint.load_tipsv2(plan.start, torch.device("cpu"), torch.float32)
            student.requires_grad_(requires_grad=True)
        else:
            if not self.tokenizer_file.exists():
                train_tokenizer(self.tokenizer_file)
            self.tokenizer = Tokenizer(self.tokenizer_file, MAX_TOKENS)
            student = make_model(SIZES[plan.size], self.tokenizer.vocab_size)
        width = student.config.vision.hidden_size
        head = ProjectionHead(width, HIDDEN, BOTTLENECK, PROTOTYPES)
        self.module = Pretraining(student, head, plan.recipe, bfloat16=plan.bfloat16).to(self.device)
        self._trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = make_optimiser(self._trained, plan.rate)
        if self._state.exists():
            state = torch.load(self._state, self.device, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.done = state["done"]

    @property
    def side(self) -> int:
        """Of the whole crop, in pixels."""
        return self.plan.side or self.module.student.config.vision.image_size

    def step(self, views: Views) -> Parts:
        """One update; the losses before it."""
        set_rate(self.optimiser, self.plan.rate, self.done, self.plan.steps)
        parts: Parts = self.module(self._batch(views), distil_share(self.done))
        self.peak_mb = max(self.peak_mb, memory_mb())
        self.optimiser.zero_grad(set_to_none=True)
        parts.total.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self.optimiser.step()
        self.module.follow()
        self.done += 1
        return parts

    def _batch(self, views: Views) -> Batch:
        def encode(texts: list[str]) -> Tensor:
            with self.module.autocast():
                return encode_texts(self.module.student, self.tokenizer, texts)

        patches = (self.side // PATCH) ** 2
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.done)
        mask = random_mask(len(views.whole), patches, generator).to(self.device)
        phrases = encode(views.question.phrases) if views.question else None
        # One by one, as alt-texts are short and would be padded to the length of a long caption.
        alt, synthetic = encode(views.alt), encode(views.synthetic)
        images, crops = (pixels(each).to(self.device) for each in (views.whole, views.crops))
        return Batch(images, crops, mask, alt, synthetic, views.question, phrases)

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


def memory_mb() -> float:
    """The memory of this process in MB, without the mapped images; where the system does not tell, the most so far, with them."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6


def train(run: Run, store: Store, batch_size: int, log: Path, check: Check | None) -> None:
    """Take the steps that are left; a line in the log and a checkpoint for every 50, a look for every 250."""
    recent: list[dict[str, float]] = []
    times: list[float] = []

    def make(step: int) -> Views:
        return make_views(store, (run.plan.seed, step), batch_size, run.side, run.plan.recipe)

    for views in ahead(make, run.done, run.plan.steps):
        began = time.perf_counter()
        parts = run.step(views)
        times.append(time.perf_counter() - began)
        recent.append(parts.numbers())
        ends = run.done == run.plan.steps
        if run.done % LOG_EVERY == 0 or ends:
            line: dict[str, float] = {"step": run.done}
            line |= {name: round(statistics.fmean(each[name] for each in recent), 4) for name in recent[0]}
            line["seconds_a_step"] = round(statistics.median(times), 4)
            line["peak_mb"] = round(run.peak_mb)
            if (run.done % LOOK_EVERY == 0 or ends) and check is not None:
                line |= {
                    f"miou_{name}": round(value, 4) for name, value in check(run.module.student, run.tokenizer).items()
                }
            run.save()
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            recent.clear()
            times.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train by the TIPSv2 recipe.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="images made ready, checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--pictures", type=Path, help="JSON lines with image and captions, in place of drawn scenes")
    parser.add_argument("--start", type=Path, help="a model folder to start from, in the hub layout")
    parser.add_argument("--scenes", type=positive, default=10_000, help="how many are drawn")
    parser.add_argument("--patches", default="all", choices=("none", "masked", "all"), help="none, iBOT or iBOT++")
    parser.add_argument("--captions", default="mixed", choices=("medium", "mixed"), help="of the second class token")
    parser.add_argument("--teacher", default="head", choices=("head", "full"), help="what of it is a moving average")
    parser.add_argument("--dense", action="store_true", help="also train on ground-truth masks; not the paper's")
    parser.add_argument("--size", default="small", choices=SIZES, help="of the model that starts over")
    parser.add_argument("--momentum", type=float, default=Recipe().momentum, help="of the moving averages")
    parser.add_argument("--steps", type=positive, default=3000, help="in all")
    parser.add_argument("--batch-size", type=positive, default=64, help="images a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its highest")
    parser.add_argument("--seed", type=int, default=1, help="of weights, batches and masks")
    parser.add_argument("--side", type=positive, help="of the images, in pixels; the model's own where it is not given")
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors that have it; slower on others")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, or auto for the best that there is")
    options = parser.parse_args(arguments)
    with told(parser):
        if options.dense and options.pictures:
            raise UsageError("--dense needs ground-truth masks, and --pictures has none", "Leave one of them out.")
        if options.side and (options.side % PATCH or local_side(options.side) == 0):
            raise UsageError(
                f"--side {options.side} is no multiple of {PATCH}, the side of a patch, from 42 on", "Try 168."
            )
        remember(options)
        run = Run(options.work, plan_of(options))
        if run.done:
            print(f"{options.work}: {run.done} of {run.plan.steps} steps are done", file=sys.stderr)
        short = stored_short(run.side)
        folder = options.work.parent / "images"
        store = (
            pictures(folder, options.pictures, short)
            if options.pictures
            else drawn(folder, options.scenes, FIRST_SEED, short)
        )
        check = None if options.pictures else Check(folder, run.side)
        train(run, store, options.batch_size, options.work / "log.jsonl", check)
        run.export(options.out)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options of the command line ask for."""
    recipe = Recipe(options.patches, options.captions, options.teacher, options.momentum, options.dense)
    start = Path(options.start) if options.start else None
    return Plan(
        recipe=recipe,
        steps=options.steps,
        seed=options.seed,
        rate=options.learning_rate,
        start=start,
        size=options.size,
        side=options.side,
        bfloat16=options.bfloat16,
        device=options.device,
    )


def load_run(work: Path) -> Run:
    """A run at its last checkpoint, as `remember` kept its options. Raises InputError where there is none."""
    try:
        options = json.loads((work / OPTIONS_FILE).read_text())
    except OSError as error:
        raise InputError(
            f"{work}: no run of tinytips.pretrain: {error}", "Name the folder that was its --work."
        ) from error
    return Run(work, plan_of(argparse.Namespace(**options, device="cpu")))


def remember(options: argparse.Namespace) -> None:
    """Keep what decides the run beside its checkpoints. Raises UsageError where they are those of another run."""
    decides = {name: value for name, value in vars(options).items() if name not in ("work", "out", "device")}
    decides |= {name: str(value) for name, value in decides.items() if isinstance(value, Path)}
    file = options.work / OPTIONS_FILE
    if file.exists() and (before := json.loads(file.read_text())) != decides:
        other = [f"--{name.replace('_', '-')}" for name in decides if decides[name] != before.get(name)]
        raise UsageError(f"{options.work} holds a run with other {', '.join(other)}", "Give it a --work of its own.")
    options.work.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(decides, indent=2) + "\n")


if __name__ == "__main__":
    stoppable(main)
