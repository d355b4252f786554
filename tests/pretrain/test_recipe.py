"""One step of the recipe on a random network: what each choice computes, what learns, and what only follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytips.recipe.dense import Question, ask, dense_loss
from tinytips.recipe.heads import ProjectionHead
from tinytips.recipe.step import MASKED_SHARE, Batch, Parts, Pretraining, Recipe, random_mask
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.config import ModelConfig, TextConfig, VisionConfig

IMAGES, PATCHES, WIDTH = 3, 16, 24


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def pretraining(recipe: Recipe) -> Pretraining:
    vision = VisionConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, mlp_hidden_size=48, image_size=56
    )
    text = TextConfig(
        vocab_size=50, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    student = Tipsv2(ModelConfig(vision, text, 0.05))
    for parameter in student.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Pretraining(student, ProjectionHead(WIDTH, 32, 8, 40), recipe)


class Given:
    """What a step gets."""

    def __init__(self) -> None:
        self.images = torch.rand(IMAGES, 3, 56, 56)
        self.crops = torch.rand(2, IMAGES, 3, 28, 28)
        self.mask = random_mask(IMAGES, PATCHES, torch.Generator().manual_seed(1))
        self.alt, self.synthetic = (torch.randn(IMAGES, WIDTH, requires_grad=True) for _ in range(2))
        self.question: Question | None = None
        self.phrases: Tensor | None = None

    def step(self, module: Pretraining, share: float = 1.0) -> Parts:
        texts = self.alt, self.synthetic, self.question, self.phrases
        parts: Parts = module(Batch(self.images, self.crops, self.mask, *texts), share)
        return parts


CHOICES = {
    "contrastive": Recipe("none"),
    "ibot": Recipe("masked", teacher="full"),
    "ibot++": Recipe("all", teacher="full"),
    "head only": Recipe("all", teacher="head"),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_only_the_student_learns(choice: str) -> None:
    module, batch = pretraining(CHOICES[choice]), Given()
    batch.step(module).total.backward()
    distils = choice != "contrastive"
    learned = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith("teacher") for name in learned)
    assert ("head.prototypes" in learned) == distils
    assert ("student.vision_encoder.mask_token" in learned) == distils
    assert {"log_scale", "student.vision_encoder.cls_token", "student.vision_encoder.register_tokens"} <= learned
    assert batch.alt.grad is not None
    assert batch.synthetic.grad is not None


def test_the_losses_add_up_and_each_recipe_trains_its_own_patches() -> None:
    batch = Given()
    made = {}
    for patches in ("masked", "all"):
        torch.manual_seed(5)
        made[patches] = batch.step(pretraining(Recipe(patches))).numbers()
    of_all = MASKED_SHARE * made["all"]["masked"] + (1 - MASKED_SHARE) * made["all"]["visible"]
    for parts, patch in ((made["masked"], made["masked"]["masked"]), (made["all"], of_all)):
        assert parts["total"] == pytest.approx(parts["contrastive"] + parts["dino"] + 2 * patch, rel=1e-5)
    assert made["masked"]["masked"] == pytest.approx(made["all"]["masked"], rel=1e-5)


def test_a_dense_loss_comes_from_the_same_forward() -> None:
    """The dense loss adds to the total and leaves the other losses as they are."""
    batch, module = Given(), pretraining(Recipe(dense=True))
    plain = batch.step(module)
    assert plain.dense is None
    batch.question = ask(np.random.default_rng(1), np.random.default_rng(2).integers(1, 27, (IMAGES, 56, 56), np.uint8))
    batch.phrases = F.normalize(torch.randn(len(batch.question.phrases), WIDTH), dim=-1)
    parts = batch.step(module)
    assert parts.dense is not None
    values = module.student.vision_encoder.value_features(batch.images)
    torch.testing.assert_close(parts.dense, dense_loss(values, batch.phrases, batch.question, 0.04))
    torch.testing.assert_close(parts.total, plain.total + 5 * parts.dense)
    assert parts.numbers() == plain.numbers() | {"total": parts.total.item(), "dense": parts.dense.item()}


def test_a_head_only_teacher_uses_the_backbone_of_the_student() -> None:
    """Before any step both teachers are the student, so their losses are the same; afterwards they are not."""
    batch = Given()

    def losses(teacher: str, steps: int) -> Tensor:
        torch.manual_seed(5)
        module = pretraining(Recipe(teacher=teacher, momentum=0.9))
        optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
        for _ in range(steps):
            optimiser.zero_grad()
            batch.step(module).total.backward()
            optimiser.step()
            module.follow()
        return batch.step(module).total.detach()

    torch.testing.assert_close(losses("head", 0), losses("full", 0))
    assert (losses("head", 3) - losses("full", 3)).abs() > 1e-4


@pytest.mark.parametrize("teacher", ["head", "full"])
def test_averages_follow_slowly(teacher: str) -> None:
    module = pretraining(Recipe(teacher=teacher, momentum=0.9))
    pairs: list[tuple[nn.Module, nn.Module]] = [(module.teacher_head, module.head)]
    if module.teacher_backbone is not None:
        pairs.append((module.teacher_backbone, module.student.vision_encoder))
    assert len(pairs) == (2 if teacher == "full" else 1)
    with torch.no_grad():
        for parameter in [*module.head.parameters(), *module.student.parameters()]:
            parameter.add_(1)
    module.follow()
    for average, current in pairs:
        for mean, value in zip(average.parameters(), current.parameters(), strict=True):
            torch.testing.assert_close(mean, value - 0.9)  # a tenth of the way
            assert not mean.requires_grad


def test_masks_hide_three_quarters_of_each_image_anywhere() -> None:
    mask = random_mask(500, 64, torch.Generator().manual_seed(1))
    assert (mask.sum(1) == 48).all()
    assert (mask.float().mean(0) - 0.75).abs().max() < 0.1
    assert len({tuple(row) for row in mask.tolist()}) == 500
