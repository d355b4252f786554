"""What the teacher's answers for patches mean: how many prototypes it uses, and whether each stands for one kind of thing.

    python -m tinytips.prototypes --run work/run --work work

`in use` is the perplexity of the mean answer: of 256 prototypes as many as that share the patches of held-out scenes. `an answer`
is that of a single one: 1 is certain. `purity` is the share of patches that belong to the kind of thing that is most frequent among
the patches of their prototype, and `one for all` what it would be if all patches had the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tinytips.arguments import positive, told
from tinytips.data.held_out import held_out, middles, patch_labels
from tinytips.data.store import Store
from tinytips.pretrain import Run, load_run
from tinytips.recipe.losses import teacher_targets
from tinytips.recipe.step import TEACHER_TEMPERATURE


@torch.inference_mode()
def answers(run: Run, store: Store) -> Tensor:
    """The teacher's targets of all patches of the images' middles, [N, h * w, K]."""
    module = run.module
    backbone = module.teacher_backbone or module.student.vision_encoder
    patches = [backbone(each).patches.flatten(1, 2) for each in middles(store, backbone.config).split(20)]
    return teacher_targets(module.teacher_head(torch.cat(patches)), TEACHER_TEMPERATURE)


def describe(targets: Tensor, labels: Tensor) -> dict[str, float]:
    """What targets [N, K] say of patches with labels [N]; see above."""
    counts = torch.zeros(targets.shape[1], int(labels.max()) + 1)
    counts.index_put_((targets.argmax(1), labels), torch.ones(len(labels)), accumulate=True)
    return {
        "in use": _entropy(targets.mean(0)).exp().item(),
        "an answer": _entropy(targets).mean().exp().item(),
        "purity": (counts.amax(1).sum() / len(labels)).item(),
        "one for all": (counts.sum(0).max() / len(labels)).item(),
    }


def _entropy(shares: Tensor) -> Tensor:
    return -torch.special.xlogy(shares, shares).sum(-1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Look at the prototypes of a run.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the --work of tinytips.pretrain")
    parser.add_argument("--work", type=Path, required=True, help="where scenes are kept")
    parser.add_argument("--scenes", type=positive, default=200, help="how many")
    options = parser.parse_args(arguments)
    with told(parser):
        run = load_run(options.run)
    if not run.plan.recipe.distils:
        parser.error(f"{options.run} has no teacher: it was trained with --patches none")
    config = run.module.student.config.vision
    store = held_out(options.work, options.scenes, config)
    labels = patch_labels(store, config.grid_size)
    found = describe(answers(run, store).flatten(0, 1), torch.from_numpy(labels).flatten().long())
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
