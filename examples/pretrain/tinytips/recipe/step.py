"""The TIPSv2 recipe (arXiv 2604.12012): from a batch of images and captions to one loss, and what follows the student.

    I        ─ student ─► CLS1, CLS2 ─► contrastive, with the captions          the one unmasked forward; with `teacher="head"`
                    └───► CLS1, patches ─ head's average ─► targets             the teacher is this same forward, without gradient
    I masked ─ student ─► patches ─ head ─► iBOT (masked ones) or iBOT++ (all)
    I_1..I_M ─ student ─► CLS1    ─ head ─► DINO

With `teacher="full"` the targets come from an average of the backbone too, by a forward of its own.

What nobody reports is chosen here: temperatures and momenta as in DINO, and one head for class tokens and patches. The centre is
the mean of the batch. DINO's, an average over batches, lags behind a teacher that is the student itself: all losses went to ln K.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from tinytips.recipe import losses
from tinytips.recipe.dense import Question, dense_loss
from tinytips.recipe.heads import ProjectionHead, follow
from tinytips.recipe.network import TEMPERATURE
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.vision import VisionOutput, VisionTower

STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.05
DINO_WEIGHT, PATCH_WEIGHT, DENSE_WEIGHT = 1.0, 2.0, 5.0
MASKED_SHARE = 0.75


_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which ideas take part, so that an ablation can tell them apart.

    patches   "none": contrastive loss alone; "masked": with DINO and iBOT; "all": with DINO and iBOT++
    captions  of CLS2: "medium", or "mixed": medium or long, at random. CLS1 always has the alt-text.
    teacher   "full": averages of backbone and head; "head": the current backbone and an average of the head
    momentum  of the averages
    dense     also a loss on ground-truth masks, which is not the paper's
    """

    patches: str = "all"
    captions: str = "mixed"
    teacher: str = "head"
    momentum: float = 0.994
    dense: bool = False

    @property
    def distils(self) -> bool:
        """Whether there is self-distillation, and so a teacher."""
        return self.patches != "none"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What the losses of one step need.

    images    [B, 3, H, W] in [0, 1]
    crops     [M, B, 3, h, w], local crops of the images
    mask      [B, N] bool, the patches that the student does not see
    alt       [B, D], text vectors of the captions for CLS1
    medium    [B, D], of those for CLS2, medium or long
    question  about the images, where there is a dense loss
    phrases   [P, D], text vectors of the question's phrases
    """

    images: Tensor
    crops: Tensor
    mask: Tensor
    alt: Tensor
    medium: Tensor
    question: Question | None = None
    phrases: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The losses of one step, scalars, None where the recipe has them not.

    `masked` and `visible` are the patch loss on those patches alone, whichever is trained.
    """

    total: Tensor
    contrastive: Tensor
    dino: Tensor | None = None
    masked: Tensor | None = None
    visible: Tensor | None = None
    dense: Tensor | None = None

    def numbers(self) -> dict[str, float]:
        """By name."""
        return {name: loss.item() for name in self.__slots__ if (loss := getattr(self, name)) is not None}


class Pretraining(nn.Module):
    """Student, heads and teacher."""

    def __init__(self, student: Tipsv2, head: ProjectionHead, recipe: Recipe, *, bfloat16: bool = False) -> None:
        super().__init__()
        self.recipe = recipe
        self.autocasts = bfloat16
        self.student = student
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.head = head
        self.teacher_head = _frozen(head)
        self.teacher_backbone = _frozen(student.vision_encoder) if recipe.teacher == "full" else None

    def forward(self, batch: Batch, share: float) -> Parts:
        """The losses of a batch; `share` in [0, 1] of the weights of self-distillation."""
        tower: VisionTower = self.student.vision_encoder
        with self.autocast():
            hidden = tower.last_block_input(batch.images)  # [B, 2 + N, D]
            whole = tower.output_of(hidden, batch.images)
        scale = self.log_scale.exp().clamp(max=100)
        contrastive = (
            losses.contrastive(whole.cls, batch.alt, scale)
            + losses.contrastive(whole.registers[:, 0], batch.medium, scale)
        ) / 2
        total, dense = contrastive, None
        if batch.question is not None and batch.phrases is not None:
            with self.autocast():
                values = tower.values_of(hidden, batch.images)
            dense = dense_loss(values, batch.phrases, batch.question, TEMPERATURE)
            total = total + DENSE_WEIGHT * dense
        if not self.recipe.distils:
            return Parts(total, contrastive, dense=dense)
        class_targets, patch_targets = self._targets(batch.images, whole)
        with self.autocast():
            masked: VisionOutput = tower(batch.images, batch.mask)
            student_patches = self.head(masked.patches.flatten(1, 2)).float()  # [B, N, K]
            count = batch.crops.shape[0]
            local = tower(batch.crops.flatten(0, 1)).cls.unflatten(0, (count, -1))  # [M, B, D]
            student_classes = self.head(local).float()  # [M, B, K]
        distances = losses.self_distillation(student_patches, patch_targets, STUDENT_TEMPERATURE)  # [B, N]
        of_masked, of_visible = losses.ibot(distances, batch.mask), losses.ibot(distances, ~batch.mask)
        dino = losses.dino(student_classes, class_targets, STUDENT_TEMPERATURE)
        patch = losses.ibot_plus_plus(distances) if self.recipe.patches == "all" else of_masked
        total = total + share * (DINO_WEIGHT * dino + PATCH_WEIGHT * patch)
        return Parts(total, contrastive, dino, of_masked, of_visible, dense)

    def autocast(self) -> torch.autocast:
        """What the networks run in: matrix products in bfloat16, where that is asked for. Losses are computed outside of it."""
        return torch.autocast(self.log_scale.device.type, torch.bfloat16, enabled=self.autocasts)

    @torch.no_grad()
    def _targets(self, images: Tensor, whole: VisionOutput) -> tuple[Tensor, Tensor]:
        """What the teacher makes of the whole image: of the class token [B, K], and of the patches [B, N, K]."""
        with self.autocast():
            seen = whole if self.teacher_backbone is None else self.teacher_backbone(images)
            logits = [self.teacher_head(each).float() for each in (seen.cls, seen.patches.flatten(1, 2))]
        classes, patches = (losses.teacher_targets(each, TEACHER_TEMPERATURE) for each in logits)
        return classes, patches

    def follow(self) -> None:
        """Move the teacher after a step of the optimiser."""
        follow(self.teacher_head, self.head, self.recipe.momentum)
        if self.teacher_backbone is not None:
            follow(self.teacher_backbone, self.student.vision_encoder, self.recipe.momentum)


def kept_parameters(backbone: nn.Module, head: nn.Module, teacher: str) -> int:
    """How many parameters self-distillation keeps: those of the student's backbone and head, and those of the averages."""
    trained, projected = (sum(each.numel() for each in module.parameters()) for module in (backbone, head))
    return trained + projected + projected + (trained if teacher == "full" else 0)


def random_mask(images: int, patches: int, generator: torch.Generator) -> Tensor:
    """[B, N] bool: 75 % of the patches of each image, anywhere."""
    order = torch.rand(images, patches, generator=generator).argsort(1).argsort(1)
    return order < round(MASKED_SHARE * patches)


def _frozen(module: _Module) -> _Module:
    return copy.deepcopy(module).requires_grad_(requires_grad=False)
