"""A loss that the recipe has not: patches against phrases, on the ground-truth masks of drawn scenes. `tiny` is trained with it.

For each image a list of phrases is drawn as somebody might ask for them, and the right one of every pixel follows from the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tinytips.world.concepts import ABSENT_WORDS, CONCEPTS, LEAF_LIST, WHOLES, ancestors, leaf_ids
from tipsseg.vocabulary.phrases import GENERAL_BACKGROUND, PROTOCOL_TEMPLATES

#: Truth is compared on a grid of this side over an image.
SAMPLES = 56
ABSENT_PER_BATCH = 12
#: How much the choice among parts of one thing counts beside the choice among all that compete. A panda's front leg looks like its
#: hind leg, so it takes the whole animal to tell them apart, and their pixels are few.
KIN_WEIGHT = 3.0
#: How often everything is asked for, and how often all that is on one level: of each thing itself or its parts.
EVERYTHING_SHARE, CLOSED_SHARE = 0.1, 0.45
#: How often such a list names a thing and not its parts.
WHOLE_SHARE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of the images of one batch.

    phrases   the P texts, filled into templates
    listed    [B, P] bool: the phrases that compete in this image
    positive  [B, P, 27] bool: for each leaf id, the listed phrases that are right; where nothing is right or wrong, all are
    kin       [B, P, 27] bool: those, and the asked parts of the same thing: of a panda's front leg, its hind leg
    truth     [B, 56, 56] uint8 leaf ids
    """

    phrases: list[str]
    listed: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    kin: NDArray[np.bool_]
    truth: NDArray[np.uint8]


def ask(rng: np.random.Generator, truth: NDArray[np.uint8]) -> Question:
    """A question about images with truths [B, 56, 56]."""
    table = PhraseTable(rng)
    listed = np.zeros((len(truth), len(table.words)), bool)
    positive = np.zeros((*listed.shape, table.covers.shape[1]), bool)
    kin = positive.copy()
    for row, leaves in enumerate(truth):
        foreground, background = _draw_list(rng, table, np.unique(leaves))
        listed[row, foreground] = listed[row, background] = True
        right = table.positives(foreground, background)
        kin[row] = table.kin(foreground, right).T
        right[~right.any(1)] = listed[row]
        positive[row] = right.T
    return Question(table.phrases, listed, positive, kin | positive, truth)


def dense_loss(values: Tensor, phrases: Tensor, question: Question, temperature: float) -> Tensor:
    """-log of the probability that the phrases which are right get among those that compete, averaged over pixels.

    To it comes, by KIN_WEIGHT, the same among the parts of one thing alone, over the pixels where several are asked for.

    values [B, h, w, D], phrases [P, D]; cosines are upsampled before they are compared with the truth, as in labelling.
    A leaf counts in a batch by the square root of its area, so that a leg is heard beside the sky.
    """
    listed, positive, kin, truth = (
        torch.from_numpy(each).to(values.device)
        for each in (question.listed, question.positive, question.kin, question.truth)
    )
    # Only L phrases of each image go on, as many as the longest list has: most compete in few images.
    longest = int(listed.sum(1).max())
    chosen = listed.int().argsort(dim=1, descending=True, stable=True)[:, :longest]  # [B, L]
    listed = listed.gather(1, chosen)
    positive, kin = (each.gather(1, chosen[..., None].expand(-1, -1, each.shape[2])) for each in (positive, kin))
    cosine = torch.einsum("bhwd,bld->blhw", F.normalize(values, dim=-1), phrases[chosen])  # [B, L, h, w]
    cosine = F.interpolate(cosine, size=(SAMPLES, SAMPLES), mode="bilinear", align_corners=False)
    logits = (cosine / temperature).flatten(2)  # [B, L, S]
    truth = truth.flatten(1).long()  # [B, S]
    right, near = (each.gather(2, truth[:, None].expand(-1, longest, -1)) for each in (positive, kin))  # [B, L, S]
    of_all, of_near, of_right = (
        logits.masked_fill(~among, -torch.inf).logsumexp(1) for among in (listed[..., None], near, right)
    )  # [B, S]
    area = torch.bincount(truth.flatten(), minlength=positive.shape[2]).clamp(min=1)
    weight = area.float().rsqrt()[truth]  # [B, S]
    chosen_from = weight * (near & ~right).any(1)
    among_all = (weight * (of_all - of_right)).sum() / weight.sum()
    among_kin = (chosen_from * (of_near - of_right)).sum() / chosen_from.sum().clamp(min=1e-9)
    return among_all + KIN_WEIGHT * among_kin


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
        names = [c.name for c in CONCEPTS] + [meaning.get(word, "") for word in GENERAL_BACKGROUND] + [""] * len(absent)
        #: [P, 27] bool: which leaves a phrase covers
        self.covers = np.zeros((len(names), len(LEAF_LIST) + 1), bool)
        self.depth = np.zeros(len(names), int)
        #: [P] the concept of each phrase and that which it is a part of, "" where there is none
        self.names = np.array(names)
        self.parents = np.array([next(iter(ancestors(name)), "") if name else "" for name in names])
        for index, name in enumerate(names):
            if name:
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

    def kin(self, foreground: NDArray[np.int64], right: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[27, P] bool: `right`, and the other asked parts of the same thing: parts of it, or of what it is a part of."""
        near = right.copy()
        for leaf in range(1, right.shape[0]):
            meant = np.flatnonzero(right[leaf])
            things = {*self.names[meant], *self.parents[meant]} - {""}
            near[leaf, foreground[np.isin(self.parents[foreground], list(things))]] = True
        return near


def _draw_list(
    rng: np.random.Generator, table: PhraseTable, present: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What somebody might ask of one image: phrases, and the background words that compete with them."""
    nothing = np.zeros(0, np.int64)
    kind = rng.random()
    if kind < EVERYTHING_SHARE:
        return table.concepts, nothing
    if kind < EVERYTHING_SHARE + CLOSED_SHARE:
        whole = {w.name for w in WHOLES if rng.random() < WHOLE_SHARE}
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
