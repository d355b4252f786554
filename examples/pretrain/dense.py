"""A loss that the recipe has not: patches against phrases, on the truth masks of drawn scenes. `tiny` is trained with it.

For each image a list of phrases is drawn as somebody might ask for them, and the right one of every pixel follows from the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from world import ABSENT_WORDS, CONCEPTS, LEAF_LIST, WHOLES, ancestors, leaf_ids

from tipsseg.background import GENERAL_BACKGROUND
from tipsseg.templates import PROTOCOL_TEMPLATES

#: Truth is compared on a grid of this side over an image.
SAMPLES = 56
ABSENT_PER_BATCH = 12


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of the images of one batch.

    phrases   the P texts, filled into templates
    listed    [B, P] bool: the phrases that compete in this image
    positive  [B, P, 27] bool: for each leaf id, the listed phrases that are right; where nothing is right or wrong, all are
    truth     [B, 56, 56] uint8 leaf ids
    """

    phrases: list[str]
    listed: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    truth: NDArray[np.uint8]


def ask(rng: np.random.Generator, truth: NDArray[np.uint8]) -> Question:
    """A question about images with truths [B, 56, 56]."""
    table = PhraseTable(rng)
    listed = np.zeros((len(truth), len(table.words)), bool)
    positive = np.zeros((*listed.shape, table.covers.shape[1]), bool)
    for row, leaves in enumerate(truth):
        foreground, background = _draw_list(rng, table, np.unique(leaves))
        listed[row, foreground] = listed[row, background] = True
        right = table.positives(foreground, background)
        right[~right.any(1)] = listed[row]
        positive[row] = right.T
    return Question(table.phrases, listed, positive, truth)


def dense_loss(values: Tensor, phrases: Tensor, question: Question, temperature: float) -> Tensor:
    """-log of the probability that the phrases which are right get among those that compete, averaged over pixels.

    values [B, h, w, D], phrases [P, D]; cosines are upsampled before they are compared with the truth, as in labelling.
    A leaf counts in a batch by the square root of its area, so that a leg is heard beside the sky.
    """
    listed, positive, truth = (
        torch.from_numpy(each).to(values.device) for each in (question.listed, question.positive, question.truth)
    )
    # Only L phrases of each image go on, as many as the longest list has: most compete in few images.
    longest = int(listed.sum(1).max())
    chosen = listed.int().argsort(dim=1, descending=True, stable=True)[:, :longest]  # [B, L]
    listed, positive = listed.gather(1, chosen), positive.gather(1, chosen[..., None].expand(-1, -1, positive.shape[2]))
    cosine = torch.einsum("bhwd,bld->blhw", F.normalize(values, dim=-1), phrases[chosen])  # [B, L, h, w]
    cosine = F.interpolate(cosine, size=(SAMPLES, SAMPLES), mode="bilinear", align_corners=False)
    logits = (cosine / temperature).flatten(2)  # [B, L, S]
    logits = logits.masked_fill(~listed[..., None], -torch.inf)
    truth = truth.flatten(1).long()  # [B, S]
    right = positive.gather(2, truth[:, None].expand(-1, longest, -1))  # [B, L, S]
    surprise = logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)  # [B, S]
    area = torch.bincount(truth.flatten(), minlength=positive.shape[2]).clamp(min=1)
    weight = area.float().rsqrt()[truth]  # [B, S]
    return (weight * surprise).sum() / weight.sum()


class PhraseTable:
    """The phrases of one step: all concepts in one wording each, the background words, and some absent words."""

    def __init__(self, rng: np.random.Generator) -> None:
        words = [c.name if rng.random() < 0.5 else c.wordings[rng.integers(len(c.wordings))] for c in CONCEPTS]
        absent = [ABSENT_WORDS[k] for k in rng.choice(len(ABSENT_WORDS), ABSENT_PER_BATCH, replace=False)]
        self.words = [*words, *GENERAL_BACKGROUND, *absent]
        self.phrases = [
            PROTOCOL_TEMPLATES[rng.integers(len(PROTOCOL_TEMPLATES))].format(word) if rng.random() < 0.75 else word
            for word in self.words
        ]
        concepts = len(CONCEPTS)
        self.concepts = np.arange(concepts)
        self.background = np.arange(concepts, concepts + len(GENERAL_BACKGROUND))
        self.absent = np.arange(concepts + len(GENERAL_BACKGROUND), len(self.words))
        meaning = {wording: c.name for c in CONCEPTS for wording in c.wordings}
        names = [c.name for c in CONCEPTS] + [meaning.get(word) for word in GENERAL_BACKGROUND] + [None] * len(absent)
        #: [P, 27] bool: which leaves a phrase covers
        self.covers = np.zeros((len(names), len(LEAF_LIST) + 1), bool)
        self.depth = np.zeros(len(names), int)
        for index, name in enumerate(names):
            if name is not None:
                self.covers[index, list(leaf_ids(name))] = True
                self.depth[index] = 3 if name in LEAF_LIST else len(ancestors(name)) + 1

    def positives(self, foreground: NDArray[np.int64], background: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[27, P] bool: the right answers for each leaf, given what competes.

        The most specific of the asked phrases wins; else background words of that meaning; else the background words that
        mean nothing in this world.
        """
        right = np.zeros((self.covers.shape[1], len(self.words)), bool)
        neutral = background[~self.covers[background].any(1)]
        for leaf in range(1, right.shape[0]):
            asked = foreground[self.covers[foreground, leaf]]
            if asked.size:
                right[leaf, asked[self.depth[asked] == self.depth[asked].max()]] = True
            else:
                meant = background[self.covers[background, leaf]]
                right[leaf, meant if meant.size else neutral] = True
        return right


def _draw_list(
    rng: np.random.Generator, table: PhraseTable, present: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What somebody might ask of one image: phrases, and the background words that compete with them."""
    nothing = np.zeros(0, np.int64)
    kind = rng.random()
    if kind < 0.1:
        return table.concepts, nothing
    if kind < 0.45:
        whole = {w.name for w in WHOLES if rng.random() < 0.5}
        kept = [
            index
            for index, concept in enumerate(CONCEPTS)
            if not whole.intersection(ancestors(concept.name)) and (concept.name in LEAF_LIST or concept.name in whole)
        ]
        return np.array(kept), nothing
    visible = np.flatnonzero(table.covers[table.concepts][:, present].any(1))
    asked = set(rng.choice(visible, size=min(int(rng.integers(0, 4)), visible.size), replace=False).tolist())
    asked |= set(rng.choice(table.concepts, size=rng.integers(0 if asked else 1, 4), replace=False).tolist())
    absent = rng.choice(table.absent, size=rng.integers(0, 3), replace=False)
    words = {table.words[index] for index in asked}
    background = np.array([index for index in table.background if table.words[index] not in words])
    if rng.random() < 0.3:
        background = background[rng.random(background.size) < 0.7]
    return np.concatenate([np.array(sorted(asked)), absent]), background
