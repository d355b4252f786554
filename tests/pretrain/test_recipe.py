"""One step of the recipe on a random network: what each choice computes, what learns, and what only follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinytips.recipe import losses, step
from tinytips.recipe.dense import Question, ask, dense_loss
from tinytips.recipe.heads import ProjectionHead, follow
from tinytips.recipe.step import MASKED_SHARE, Batch, Parts, Pretraining, Recipe, random_mask
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.config import ModelConfig, TextConfig, VisionConfig
from tipsseg.backbones.tipsv2.vision import VisionTower

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


@pytest.mark.parametrize(
    ("choice", "of_student", "of_average"),
    [("contrastive", 1, 0), ("ibot", 3, 1), ("ibot++", 3, 1), ("head only", 3, 0)],
)
def test_how_often_the_backbones_run(choice: str, of_student: int, of_average: int) -> None:
    """The whole image once, for the captions and, where only the head is averaged, for the teacher too."""
    module = pretraining(CHOICES[choice])
    runs: list[nn.Module] = []
    for each in module.modules():
        if isinstance(each, VisionTower):
            each.patch_embed.register_forward_hook(lambda first, *_: runs.append(first))
    Given().step(module)
    assert runs.count(module.student.vision_encoder.patch_embed) == of_student
    average = module.teacher_backbone
    assert (0 if average is None else runs.count(average.patch_embed)) == of_average
    assert len(runs) == of_student + of_average


@pytest.mark.parametrize("choice", CHOICES)
def test_what_learns(choice: str) -> None:
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


def test_self_distillation_begins_with_a_share_of_its_weight() -> None:
    batch, module = Given(), pretraining(Recipe())
    parts = [batch.step(module, share) for share in (0.0, 0.25, 1.0)]
    torch.testing.assert_close(parts[0].total, parts[0].contrastive)
    rest = parts[2].total - parts[2].contrastive
    torch.testing.assert_close(parts[1].total, parts[1].contrastive + rest / 4)


def test_a_dense_loss_comes_from_the_same_forward() -> None:
    """It adds to the total, and changes nothing of the others."""
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


@pytest.mark.parametrize("choice", CHOICES)
def test_half_precision_is_of_the_networks_alone(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses get float32 and compute in it; they are near those of networks in float32, and what is learnt stays float32."""

    def watch(owner: object, name: str) -> None:
        plain = getattr(owner, name)

        def watched(*given: object) -> object:
            assert not torch.is_autocast_enabled("cpu")
            assert all(
                each.dtype == torch.float32 for each in given if isinstance(each, Tensor) and each.is_floating_point()
            )
            return plain(*given)

        monkeypatch.setattr(owner, name, watched)

    for name in ("contrastive", "teacher_targets", "self_distillation"):
        watch(losses, name)
    watch(step, "dense_loss")
    batch, module = Given(), pretraining(CHOICES[choice])
    batch.question = ask(np.random.default_rng(1), np.random.default_rng(2).integers(1, 27, (IMAGES, 56, 56), np.uint8))
    batch.phrases = F.normalize(torch.randn(len(batch.question.phrases), WIDTH), dim=-1)
    gradients, parts = [], []
    for bfloat16 in (False, True):
        module.autocasts = bfloat16
        module.zero_grad()
        made = batch.step(module)
        made.total.backward()
        assert all(getattr(made, name).dtype == torch.float32 for name in made.numbers())
        parts.append(made.numbers())
        gradients.append({name: each.grad for name, each in module.named_parameters() if each.grad is not None})
    assert parts[0] != parts[1]
    assert parts[0] == pytest.approx(parts[1], rel=0.02)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(each.dtype == torch.float32 for each in gradients[1].values())


def test_the_head_only_teacher_is_the_backbone_itself() -> None:
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


def test_a_teacher_that_says_the_same_of_everything_asks_for_nothing() -> None:
    """Centring takes away what is common to all images, so that no prototype can be the answer to all of them."""
    module, batch = pretraining(Recipe()), Given()
    batch.images[:] = 0.5
    classes, _ = module._targets(batch.images, module.student.vision_encoder(batch.images))
    torch.testing.assert_close(classes, torch.full((IMAGES, 40), 1 / 40), rtol=0, atol=1e-4)


def test_masks_hide_three_quarters_of_each_image_anywhere() -> None:
    mask = random_mask(500, 64, torch.Generator().manual_seed(1))
    assert (mask.sum(1) == 48).all()
    assert (mask.float().mean(0) - 0.75).abs().max() < 0.1
    assert len({tuple(row) for row in mask.tolist()}) == 500


def test_logits_are_cosines() -> None:
    head = ProjectionHead(WIDTH, 32, 8, 40)
    tokens = torch.randn(2, 5, WIDTH)
    assert head(tokens).shape == (2, 5, 40)
    assert head(tokens).abs().max() <= 1
    torch.testing.assert_close(head.mlp(tokens).norm(dim=-1) > 0, torch.ones(2, 5, dtype=torch.bool))


def test_an_average_of_something_that_stays_is_that() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    for _ in range(400):
        follow(one, two, 0.9)
    torch.testing.assert_close(one.weight, two.weight)
