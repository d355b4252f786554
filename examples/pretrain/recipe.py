"""The TIPSv2 recipe (arXiv 2604.12012): from a batch of images and captions to one loss, and what follows the student.

    I        ─ student ─► CLS1, CLS2 ─► contrastive, with the captions          the one unmasked forward; with `teacher="head"`
                    └───► CLS1, patches ─ head's average ─► targets             the teacher is this same forward, without gradient
    I masked ─ student ─► patches ─ head ─► iBOT (masked ones) or iBOT++ (all)
    I_1..I_M ─ student ─► CLS1    ─ head ─► DINO

With `teacher="full"` the targets come from an average of the backbone too, by a forward of its own.

What nobody reports is chosen here as in DINO: the temperatures, the momenta, and one head for class tokens and patches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import losses
import torch
from heads import ProjectionHead, follow
from torch import Tensor, nn

from tipsseg.model.checkpoint import Tipsv2
from tipsseg.model.vision import VisionOutput

STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.05
CENTRE_MOMENTUM = 0.9
DINO_WEIGHT, PATCH_WEIGHT = 1.0, 2.0
MASKED_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which ideas take part, so that an ablation can tell them apart.

    patches   "none": contrastive loss alone; "masked": with DINO and iBOT; "all": with DINO and iBOT++
    captions  of CLS2: "medium", or "mixed": medium or long, at random. CLS1 always has the alt-text.
    teacher   "full": averages of backbone and head; "head": the current backbone and an average of the head
    momentum  of the averages
    """

    patches: str = "all"
    captions: str = "mixed"
    teacher: str = "head"
    momentum: float = 0.994


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The losses of one step, scalars; `masked` and `visible` are the patch loss on those patches alone, whichever is trained."""

    contrastive: Tensor
    dino: Tensor
    masked: Tensor
    visible: Tensor
    total: Tensor

    def numbers(self) -> dict[str, float]:
        """By name."""
        return {name: getattr(self, name).item() for name in self.__slots__}


class Pretraining(nn.Module):
    """Student, heads and teacher."""

    class_centre: Tensor
    patch_centre: Tensor

    def __init__(self, student: Tipsv2, head: ProjectionHead, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.student = student
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.head = head
        self.teacher_head = _frozen(head)
        self.teacher_backbone = _frozen(student.vision_encoder) if recipe.teacher == "full" else None
        prototypes = head.prototypes.shape[0]
        self.register_buffer("class_centre", torch.zeros(prototypes))
        self.register_buffer("patch_centre", torch.zeros(prototypes))

    def forward(self, images: Tensor, crops: Tensor, mask: Tensor, alt: Tensor, synthetic: Tensor) -> Parts:
        """The losses of a batch.

        images          [B, 3, H, W] in [0, 1]
        crops           [M, B, 3, h, w], local crops of the images
        mask            [B, N] bool, the patches that the student does not see
        alt, synthetic  [B, D], text vectors of the captions for CLS1 and CLS2
        """
        whole: VisionOutput = self.student.vision_encoder(images)
        scale = self.log_scale.exp().clamp(max=100)
        contrastive = (
            losses.contrastive(whole.cls, alt, scale) + losses.contrastive(whole.registers[:, 0], synthetic, scale)
        ) / 2
        if self.recipe.patches == "none":
            nothing = contrastive.new_zeros(())
            return Parts(contrastive, nothing, nothing, nothing, contrastive)
        class_targets, patch_targets = self._targets(images, whole)
        masked: VisionOutput = self.student.vision_encoder(images, mask)
        student_patches = self.head(masked.patches.flatten(1, 2))  # [B, N, K]
        of_masked = losses.ibot(student_patches, patch_targets, mask, STUDENT_TEMPERATURE)
        of_visible = losses.ibot(student_patches, patch_targets, ~mask, STUDENT_TEMPERATURE)
        count = crops.shape[0]
        local = self.student.vision_encoder(crops.flatten(0, 1)).cls.unflatten(0, (count, -1))  # [M, B, D]
        dino = losses.dino(self.head(local), class_targets, STUDENT_TEMPERATURE)
        of_all = losses.ibot_plus_plus(student_patches, patch_targets, STUDENT_TEMPERATURE)
        patch = of_all if self.recipe.patches == "all" else of_masked
        total = contrastive + DINO_WEIGHT * dino + PATCH_WEIGHT * patch
        return Parts(contrastive, dino, of_masked, of_visible, total)

    @torch.no_grad()
    def _targets(self, images: Tensor, whole: VisionOutput) -> tuple[Tensor, Tensor]:
        """What the teacher makes of the whole image: of the class token [B, K], and of the patches [B, N, K]; moves the centres."""
        seen = whole if self.teacher_backbone is None else self.teacher_backbone(images)
        class_logits, patch_logits = self.teacher_head(seen.cls), self.teacher_head(seen.patches.flatten(1, 2))
        class_targets = losses.teacher_targets(class_logits, self.class_centre, TEACHER_TEMPERATURE)
        patch_targets = losses.teacher_targets(patch_logits, self.patch_centre, TEACHER_TEMPERATURE)
        self.class_centre = losses.moved_centre(self.class_centre, class_logits, CENTRE_MOMENTUM)
        self.patch_centre = losses.moved_centre(self.patch_centre, patch_logits, CENTRE_MOMENTUM)
        return class_targets, patch_targets

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


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(requires_grad=False)
