"""The losses of the recipe, on cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tinytips.recipe import losses

LOG2 = math.log(2)


def test_contrastive_of_two_pairs_by_hand() -> None:
    images, texts = torch.eye(2), torch.eye(2)
    scale = torch.tensor(math.log(3.0))  # exp of the logits: 3 for its own, 1 for the other
    assert losses.contrastive(images, texts, scale).item() == pytest.approx(math.log(4 / 3))
    assert losses.contrastive(images, texts.flip(0), scale).item() == pytest.approx(math.log(4))


def test_targets_are_centred_and_sharpened() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [-math.log(3.0), 0.0]]) + torch.tensor(
        [7.0, -2.0]
    )  # about a common centre
    torch.testing.assert_close(losses.teacher_targets(logits, 1.0), torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    torch.testing.assert_close(losses.teacher_targets(logits, 0.5), torch.tensor([[0.9, 0.1], [0.1, 0.9]]))


def test_self_distillation_by_hand() -> None:
    student = torch.tensor([[math.log(3.0), 0.0]])
    targets = torch.tensor([[0.5, 0.5]])
    expected = -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))
    assert losses.self_distillation(student, targets, 1.0).tolist() == pytest.approx([expected])
    sharp = -(0.5 * math.log(0.9) + 0.5 * math.log(0.1))
    assert losses.self_distillation(student, targets, 0.5).tolist() == pytest.approx([sharp])


#: One image of three patches: the student is right on the first, wrong on the second, undecided on the third.
STUDENT = torch.tensor([[[math.log(3.0), 0.0], [math.log(3.0), 0.0], [0.0, 0.0]]])
TARGETS = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
EACH = (math.log(4 / 3), math.log(4), LOG2)
DISTANCES = losses.self_distillation(STUDENT, TARGETS, 1.0)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ((True, False, False), EACH[0]),
        ((False, True, True), (EACH[1] + EACH[2]) / 2),
        ((True, True, True), sum(EACH) / 3),
    ],
)
def test_ibot_is_of_masked_patches(mask: tuple[bool, ...], expected: float) -> None:
    assert losses.ibot(DISTANCES, torch.tensor([mask])).item() == pytest.approx(expected)


def test_ibot_plus_plus_is_of_all_patches() -> None:
    assert losses.ibot_plus_plus(DISTANCES).item() == pytest.approx(sum(EACH) / 3)


def test_dino_is_the_mean_over_crops_and_images() -> None:
    student = STUDENT[0, :, None]  # three crops of one image
    targets = torch.tensor([[1.0, 0.0]])
    assert losses.dino(student, targets, 1.0).item() == pytest.approx((EACH[0] + EACH[0] + EACH[2]) / 3)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    targets = losses.teacher_targets(teacher, 0.1)
    losses.ibot_plus_plus(losses.self_distillation(student, targets, 0.1)).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert (student.grad != 0).any(-1).all()
