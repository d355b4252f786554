"""The loss on truth masks, and the quick look at what was learnt."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tinytips.check import SCENES, Check, _phrases
from tinytips.data.scoring import to_list
from tinytips.recipe.dense import KIN_WEIGHT, SAMPLES, PhraseTable, Question, ask, dense_loss
from tinytips.recipe.network import SIZES, make_model
from tinytips.recipe.tokenizer import train_tokenizer
from tinytips.world.concepts import CONCEPTS, LEAF_ID, LEAF_LIST, WHOLE_LIST
from tipsseg.backbones.tipsv2.text import Tokenizer

#: Two phrases; leaf 1 is the first of them, leaf 2 the second, leaf 3 may be either.
POSITIVE = np.zeros((1, 2, 27), bool)
POSITIVE[0, 0, 1] = POSITIVE[0, 1, 2] = True
POSITIVE[0, :, 3] = True


def question(truth: np.ndarray, *, listed: tuple[bool, bool] = (True, True)) -> Question:
    return Question(["a", "b"], np.array([listed]), POSITIVE, POSITIVE, truth)


def loss(truth: np.ndarray, *, listed: tuple[bool, bool] = (True, True)) -> float:
    """Where every patch is the first phrase exactly: at temperature 1 its probability is e / (e + 1) of two."""
    values = torch.tensor([3.0, 0.0]).expand(1, 2, 2, 2)  # of any length
    return dense_loss(values, torch.eye(2), question(truth, listed=listed), 1.0).item()


RIGHT, WRONG = math.log(1 + math.exp(-1)), math.log(1 + math.e)


@pytest.mark.parametrize(("leaf", "expected"), [(1, RIGHT), (2, WRONG), (3, 0.0)])
def test_dense_loss_by_hand(leaf: int, expected: float) -> None:
    assert loss(np.full((1, SAMPLES, SAMPLES), leaf, np.uint8)) == pytest.approx(expected, abs=1e-6)


def test_lists_of_different_lengths() -> None:
    """Each image has its own list of competing phrases."""
    rng = np.random.default_rng(1)
    asked = ask(rng, rng.integers(1, len(LEAF_LIST) + 1, (4, SAMPLES, SAMPLES)).astype(np.uint8))
    assert len(set(asked.listed.sum(1))) > 1
    values, phrases = (
        torch.from_numpy(rng.normal(size=size)).float() for size in ((4, 4, 4, 8), (len(asked.phrases), 8))
    )
    phrases = F.normalize(phrases, dim=-1)
    cosines = F.interpolate(
        (F.normalize(values, dim=-1) @ phrases.T).permute(0, 3, 1, 2), (SAMPLES, SAMPLES), mode="bilinear"
    )
    odds = (cosines / 0.1).exp().numpy() * asked.listed[..., None, None]  # [B, P, 56, 56]
    right, near = (
        np.stack([each[:, truth] for each, truth in zip(of_leaves, asked.truth, strict=True)])
        for of_leaves in (asked.positive, asked.kin)
    )
    weight = np.bincount(asked.truth.ravel())[asked.truth] ** -0.5  # [B, 56, 56]
    of_kin = weight * (near.sum(1) > right.sum(1))
    assert 0 < (of_kin > 0).mean() < 1
    expected = -np.average(np.log((odds * right).sum(1) / odds.sum(1)), weights=weight)
    expected -= KIN_WEIGHT * np.average(np.log((odds * right).sum(1) / (odds * near).sum(1)), weights=of_kin)
    assert dense_loss(values, phrases, asked, 0.1).item() == pytest.approx(expected, rel=1e-4)


KIN = {
    "the other kind of leg": (
        "panda front leg", ["panda front leg", "panda hind leg", "tree trunk"], ["panda front leg", "panda hind leg"],
    ),
    "no part of anything": ("sky", ["sky", "cloud"], ["sky"]),
}  # fmt: skip


@pytest.mark.parametrize(("leaf", "asked", "expected"), KIN.values(), ids=KIN)
def test_kin_are_the_asked_parts_of_one_thing(leaf: str, asked: list[str], expected: list[str]) -> None:
    table = PhraseTable(np.random.default_rng(1))
    names = [concept.name for concept in CONCEPTS]
    foreground = np.array([names.index(name) for name in asked])
    right = table.positives(foreground, np.zeros(0, np.int64))
    found = table.kin(foreground, right)[LEAF_ID[leaf]]
    assert {names[index] for index in np.flatnonzero(found)} == set(expected)


def test_questions_have_an_answer_everywhere() -> None:
    truth = np.random.default_rng(1).integers(1, len(LEAF_LIST) + 1, (40, SAMPLES, SAMPLES)).astype(np.uint8)
    asked = ask(np.random.default_rng(2), truth)
    assert asked.listed.any(1).all()
    assert not (asked.kin & ~asked.listed[..., None]).any()
    assert (asked.kin >= asked.positive).all()
    assert asked.positive[:, :, 1:].any(1).all()
    again = ask(np.random.default_rng(2), truth)
    assert asked.phrases == again.phrases
    assert (asked.positive == again.positive).all()


class Oracle(torch.nn.Module):
    """Value features that are the vectors of the right names, at a quarter of the image's size."""

    def __init__(self, pixels: torch.Tensor, features: torch.Tensor) -> None:
        super().__init__()
        self.pixels, self.features = pixels, features

    def value_features(self, pixels: torch.Tensor) -> torch.Tensor:
        index = [int((self.pixels == each).flatten(1).all(1).nonzero()[0, 0]) for each in pixels]
        return self.features[index]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(path)
    return Tokenizer(path, 64)


@pytest.fixture(scope="module")
def check(shared_images: Path) -> Check:
    return Check(shared_images, 112)


@pytest.mark.slow
@pytest.mark.parametrize("names", [WHOLE_LIST, LEAF_LIST], ids=["whole", "parts"])
def test_the_check_scores_the_truth_high(names: tuple[str, ...], tokenizer: Tokenizer, check: Check) -> None:
    """A model that returns the truth scores high, and one that returns it upside down scores low."""
    model = make_model(SIZES["small"], tokenizer.vocab_size)
    vectors = F.normalize(_phrases(model, tokenizer, names).detach(), dim=-1)
    truths = torch.from_numpy(np.stack([to_list(truth, names)[::4, ::4] for truth in check._truths])).long() - 1
    kind = "whole" if names is WHOLE_LIST else "parts"
    model.vision_encoder = Oracle(check._pixels, vectors[truths])  # type: ignore[assignment]
    assert check(model, tokenizer)[kind] > 0.7
    model.vision_encoder = Oracle(check._pixels, vectors[truths.flip(1)])  # type: ignore[assignment]
    assert check(model, tokenizer)[kind] < 0.3
    assert len(truths) == SCENES
