"""Choose what each class is made from, and how strongly it is drawn there.

For each class one of three is taken: its text vector as it is, a vector that is drawn towards it, or, for words that the text tower
does not know, a vector that is drawn towards nothing. Leaving images out decides that, and the strengths. Images without masks
keep the fit from serving images badly that are unlike those with masks, see `unlabelled`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.fitting.maths import Prior, Window, confusion, solve, thinned
from tipsseg.fitting.unlabelled import compare, second_moment
from tipsseg.vocabulary.fitted import ClassFit

#: Precisions of the prior of a class that the text helps with, in patches; its bias is held as strongly. One is chosen.
_STRONG = (10.0, 3.0)
#: The same where the masks lack more than this share of the classes: nothing tells the others where these are, and they would
#: spread into them.
_STRONGER, _LACKING = (30.0,), 0.25
#: The same of a class that is learnt from masks alone.
_WEAK = (0.3, 0.03)
#: How strongly the bias of a class without its text is held, as a share of how its vector is.
_WEAK_BIAS = 1 / 3
#: How strongly the logits of a class that the text helps with are held in images without masks, see `Prior.moment_strength`, where
#: the text is at least twice as unsure in those with masks. It is less where these are more like the others.
_HELD = 50.0
#: How much more than by their area rare classes count where no class has its text; with half of the classes half of that.
_BALANCE = 0.5
#: A class leaves its text where that finds less than this share of the IoU of masks alone, or less than this IoU at all.
_SHARE, _UNKNOWN = 0.5, 0.1
#: More images are left out several at a time.
_FOLDS = 5
#: Of more patches some are taken: for a fit without some images, and for the last one.
_PATCHES_LEFT_OUT, _PATCHES = 1 << 12, 1 << 14
#: Steps of a fit that only tells which words are unknown.
_ROUGH = 12
#: How many kinds of fits are tried at most: one of masks alone, and then what `_chosen` tries.
_KINDS = 1 + len(_WEAK) + len(_STRONG) - 1 + 1

#: Is told how many solutions are found, and how many will be at most: a fit takes some, and each some time.
Step = Callable[[int, int], None]

Ious = NDArray[np.float64]
Groups = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """The source of each group, and its strength.

    Attributes:
        weak: [G], whether without its text.
        kept: [G], whether its text stays as it is.
        strong_strength: See `_STRONG` and `_STRONGER`.
        weak_strength: See `_WEAK`.
    """

    weak: Groups
    kept: Groups
    strong_strength: float
    weak_strength: float = _WEAK[0]


@dataclass(slots=True, eq=False)
class _Problem:
    """Images, and what is fitted to them.

    Attributes:
        images: The windows of each image.
        group_of: [P] int64, the group of each phrase.
        text: [P, D], the text vectors in logits.
        groups: G.
        step: See `Step`.
        moment: Of patches of images without masks, see `Prior`; None where there are none.
        held: How strongly the logits of these are held.
        found: The vectors of each fold by the last fit: the next one, of another kind, begins there.
        solutions: How many are found.
    """

    images: Sequence[Sequence[Window]]
    group_of: Tensor
    text: Tensor
    groups: int
    step: Step
    moment: Tensor | None = None
    held: float = 0.0
    found: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    solutions: int = 0

    @property
    def folds(self) -> int:
        """The number of fits that leave images out, each others."""
        return min(len(self.images), _FOLDS)

    def left_out(self, kind: _Kind, steps: int = 40) -> Ious:
        """Return the IoU of each group, with each image labelled by a fit without it."""
        folds = self.folds
        total = np.zeros((self.groups, self.groups))
        for fold in range(folds):
            rest = [image for number, image in enumerate(self.images) if number % folds != fold]
            out = [window for image in self.images[fold::folds] for window in image]
            self.found[fold] = self._fit(thinned(rest, _PATCHES_LEFT_OUT), kind, steps, self.found.get(fold))
            total += confusion(out, *self.found[fold], self.group_of)
        return ious(total)

    def fit(self, kind: _Kind) -> tuple[Tensor, Tensor]:
        return self._fit(thinned(self.images, _PATCHES), kind, 40, None)

    def _fit(
        self, images: Sequence[Sequence[Window]], kind: _Kind, steps: int, start: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        is_weak, is_kept = (torch.from_numpy(groups)[self.group_of] for groups in (kind.weak, kind.kept))
        strength = torch.where(is_weak, kind.weak_strength, kind.strong_strength)
        bias_strength = torch.where(is_weak, kind.weak_strength * _WEAK_BIAS, kind.strong_strength)
        strength[is_kept] = torch.inf
        held = torch.where(is_weak, 0.0, self.held)
        prior = Prior(torch.where(is_weak[:, None], 0.0, self.text), strength, bias_strength, self.moment, held)
        windows = [window for image in images for window in image]
        learnt = kind.weak.sum() + (~kind.weak & ~kind.kept).sum()
        balance = _BALANCE * kind.weak.sum() / max(learnt, 1)
        found = solve(windows, self.group_of, prior, float(balance), steps, start)
        self.solutions += 1
        self.step(self.solutions, _KINDS * self.folds + 1)
        return found


def choose_and_fit(
    images: Sequence[Sequence[Window]],
    group_of: Tensor,
    text: Tensor,
    names: Sequence[str],
    unlabelled: Tensor | None,
    step: Step,
) -> tuple[Tensor, Tensor, tuple[ClassFit, ...]]:
    """Choose what each class is made from, fit, and score.

    Args:
        images: What the windows of each image teach.
        group_of: [P] int64, the group of each phrase.
        text: [P, D], the text vectors in logits.
        names: Of the groups.
        unlabelled: [n, D] float32, patches of images without masks; None: none are known.
        step: See `Step`.

    Returns:
        Weights [P, D] and biases [P] in logits, and the scores of the groups that have phrases.
    """
    problem = _Problem(images, group_of, text, len(names), step)
    everything = [window for image in images for window in image]
    counts = np.zeros(len(names), np.int64)
    for image in images:
        counts[torch.cat([window.groups for window in image]).unique().numpy()] += 1
    present = counts > 0
    unknown = np.ones(len(names), np.bool_)
    if unlabelled is not None:
        compared = compare(everything, unlabelled, text, group_of, len(names))
        unknown = ~compared.known
        problem.moment, problem.held = second_moment(unlabelled), _HELD * min(max(compared.unsure - 1, 0), 1)
    by_text = ious(confusion(everything, text, torch.zeros(len(text)), group_of))
    has_phrases = set(group_of.tolist())
    strengths = _STRONGER if present.sum() < (1 - _LACKING) * len(has_phrases) else _STRONG
    if len(images) == 1:
        kind, found = _Kind(present & unknown & (by_text < _UNKNOWN), ~present, strengths[0]), None
    else:
        kind, found = _chosen(problem, present, unknown, by_text, strengths)
    weights, biases = problem.fit(kind)
    scores = tuple(
        ClassFit(
            name,
            int(counts[group]),
            float(by_text[group]) if present[group] else None,
            float(found[group]) if found is not None and present[group] else None,
            "text" if kind.kept[group] else "masks" if kind.weak[group] else "text and masks",
        )
        for group, name in enumerate(names)
        if group in has_phrases
    )
    return weights, biases, scores


def _chosen(
    problem: _Problem, present: Groups, unknown: Groups, by_text: Ious, strengths: Sequence[float]
) -> tuple[_Kind, Ious]:
    """Choose what each group is made from, and return the IoUs in images left out; groups that are known keep their text."""
    first = strengths[0]
    alone = problem.left_out(_Kind(present, ~present, first), _ROUGH)
    weak = present & unknown & (by_text < np.maximum(_SHARE * alone, _UNKNOWN))
    best, found = _best(
        problem, [_Kind(weak, ~present, first, strength) for strength in _WEAK[: 2 if weak.any() else 1]], weak
    )
    if (present & ~weak).any():
        others = [_Kind(weak, ~present, strength, best.weak_strength) for strength in strengths[1:]]
        best, found = _best(problem, [best, *others], present, found)
    worse = present & ~weak & (found < by_text)
    if worse.any():
        best = _Kind(weak, best.kept | worse, best.strong_strength, best.weak_strength)
        found = problem.left_out(best)
    return best, found


def _best(problem: _Problem, kinds: Sequence[_Kind], judged: Groups, known: Ious | None = None) -> tuple[_Kind, Ious]:
    """Return the kind with the highest mean IoU of the judged groups, and its IoUs; `known` are those of the first kind."""
    best = kinds[0]
    found = problem.left_out(best) if known is None else known
    for kind in kinds[1:]:
        tried = problem.left_out(kind)
        if tried[judged].mean() > found[judged].mean():
            best, found = kind, tried
    return best, found


def ious(table: NDArray[np.float64]) -> Ious:
    """Return the IoUs of a confusion [G, G]; 0 for a group that does not occur."""
    both = np.diag(table)
    return both / np.maximum(table.sum(0) + table.sum(1) - both, 1e-9)
