"""Choose the prior of each class by cross-validation over images, and fit.

A class gets one of three: its text vector unchanged, a fit with a prior at the text vector, or, for a word that the text tower does
not know, a fit from masks alone with a weak prior at zero. Images without masks protect the fit from overfitting to unusual images
with masks, see `unlabelled`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.fitting.maths import Prior, Window, confusion, draw_pieces, solve
from tipsseg.fitting.unlabelled import compare, second_moment
from tipsseg.vocabulary.fitted import ClassFit

#: Candidate precisions, in patches, of the prior at the text vector, for weights and bias.
_STRONG = (10.0, 3.0)
#: The same if the masks lack more than this share of the classes. Nothing shows where the missing classes are, so the others
#: would spread there.
_STRONGER, _LACKING = (30.0,), 0.25
#: Candidate precisions of the prior at zero, for a class that is fitted to masks alone.
_WEAK = (0.3, 0.03)
#: Precision of the bias of such a class, relative to that of its weights.
_WEAK_BIAS = 1 / 3
#: `Prior.moment_strength` of a class with a text prior, if the text is at least twice as unsure in images with masks as in those
#: without. It decreases to 0 if the text is equally unsure in both.
_MOMENT_STRENGTH = 50.0
#: Exponent of `group_weights` if all classes are fitted to masks alone; in proportion for fewer of them.
_BALANCE = 0.5
#: A class gives up its text if the text's IoU is below this share of the IoU of masks alone, or below this IoU.
_SHARE, _UNKNOWN = 0.5, 0.1
#: Maximum number of folds in cross-validation.
_FOLDS = 5
#: Maximum number of patches in a fit of cross-validation, and in the final fit.
_FOLD_PATCHES, _PATCHES = 1 << 12, 1 << 14
#: Iterations of the rough fit that detects unknown words.
_ROUGH_STEPS = 12
#: Maximum number of settings in cross-validation: masks alone, then those in `_choose_settings`.
_CANDIDATES = 1 + len(_WEAK) + len(_STRONG) - 1 + 1

#: Called after each solved problem with the number solved so far, and the maximum number to solve.
OnSolved = Callable[[int, int], None]

Ious = NDArray[np.float64]
Groups = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _FitSettings:
    """Priors of the groups.

    Attributes:
        weak: [G], True for groups that are fitted to masks alone.
        fixed: [G], True for groups that keep their text vector.
        strong_strength: Precision at text vectors, see `_STRONG` and `_STRONGER`.
        weak_strength: Precision for masks alone, see `_WEAK`.
    """

    weak: Groups
    fixed: Groups
    strong_strength: float
    weak_strength: float = _WEAK[0]


@dataclass(slots=True, eq=False)
class _Problem:
    """A fit of groups to images.

    Attributes:
        images: Windows of each image.
        group_of: [P] int64, group of each phrase.
        text: [P, D], text vectors in logits.
        groups: G.
        on_solved: See `OnSolved`.
        moment: Second moment of unlabelled patches, see `Prior`; None without such patches.
        moment_strength: Precision of the logits of these patches.
        fold_solutions: Last solution of each fold, the starting point of the next fit.
        solved: Number of solved problems.
    """

    images: Sequence[Sequence[Window]]
    group_of: Tensor
    text: Tensor
    groups: int
    on_solved: OnSolved
    moment: Tensor | None = None
    moment_strength: float = 0.0
    fold_solutions: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    solved: int = 0

    @property
    def folds(self) -> int:
        return min(len(self.images), _FOLDS)

    def cross_validate(self, settings: _FitSettings, steps: int = 40) -> Ious:
        """Return the IoU of each group if every image is labelled with a fit to the other folds."""
        folds = self.folds
        total = np.zeros((self.groups, self.groups))
        for fold in range(folds):
            training = [image for number, image in enumerate(self.images) if number % folds != fold]
            held_out = [window for image in self.images[fold::folds] for window in image]
            sample = draw_pieces(training, _FOLD_PATCHES)
            solution = self._fit(sample, settings, steps, self.fold_solutions.get(fold))
            self.fold_solutions[fold] = solution
            total += confusion(held_out, *solution, self.group_of)
        return ious(total)

    def fit(self, settings: _FitSettings) -> tuple[Tensor, Tensor]:
        return self._fit(draw_pieces(self.images, _PATCHES), settings, 40, None)

    def _fit(
        self,
        images: Sequence[Sequence[Window]],
        settings: _FitSettings,
        steps: int,
        start: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        is_weak, is_fixed = (torch.from_numpy(groups)[self.group_of] for groups in (settings.weak, settings.fixed))
        strength = torch.where(is_weak, settings.weak_strength, settings.strong_strength)
        bias_strength = torch.where(is_weak, settings.weak_strength * _WEAK_BIAS, settings.strong_strength)
        strength[is_fixed] = torch.inf
        moment_strength = torch.where(is_weak, 0.0, self.moment_strength)
        weights = torch.where(is_weak[:, None], 0.0, self.text)
        prior = Prior(weights, strength, bias_strength, self.moment, moment_strength)
        windows = [window for image in images for window in image]
        fitted = settings.weak.sum() + (~settings.weak & ~settings.fixed).sum()
        balance = _BALANCE * settings.weak.sum() / max(fitted, 1)
        solution = solve(windows, self.group_of, prior, float(balance), steps, start)
        self.solved += 1
        self.on_solved(self.solved, _CANDIDATES * self.folds + 1)
        return solution


def choose_and_fit(
    images: Sequence[Sequence[Window]],
    group_of: Tensor,
    text: Tensor,
    names: Sequence[str],
    unlabelled: Tensor | None,
    on_solved: OnSolved,
) -> tuple[Tensor, Tensor, tuple[ClassFit, ...]]:
    """Choose the prior of each class, fit, and score the fit.

    Args:
        images: Windows of each image.
        group_of: [P] int64, the group of each phrase.
        text: [P, D], the text vectors in logits.
        names: The names of the groups.
        unlabelled: [n, D] float32, patches of images without masks; None if there are none.
        on_solved: See `OnSolved`.

    Returns:
        Weights [P, D] and biases [P] in logits, and the scores of the groups that have phrases.
    """
    problem = _Problem(images, group_of, text, len(names), on_solved)
    windows = [window for image in images for window in image]
    counts = np.zeros(len(names), np.int64)
    for image in images:
        counts[torch.cat([window.groups for window in image]).unique().numpy()] += 1
    present = counts > 0
    unknown = np.ones(len(names), np.bool_)
    if unlabelled is not None:
        comparison = compare(windows, unlabelled, text, group_of, len(names))
        unknown = ~comparison.known
        problem.moment = second_moment(unlabelled)
        problem.moment_strength = _MOMENT_STRENGTH * min(max(comparison.unsure - 1, 0), 1)
    text_ious = ious(confusion(windows, text, torch.zeros(len(text)), group_of))
    has_phrases = set(group_of.tolist())
    strengths = _STRONGER if present.sum() < (1 - _LACKING) * len(has_phrases) else _STRONG
    if len(images) == 1:
        settings, fit_ious = _FitSettings(present & unknown & (text_ious < _UNKNOWN), ~present, strengths[0]), None
    else:
        settings, fit_ious = _choose_settings(problem, present, unknown, text_ious, strengths)
    weights, biases = problem.fit(settings)
    scores = tuple(
        ClassFit(
            name,
            int(counts[group]),
            float(text_ious[group]) if present[group] else None,
            float(fit_ious[group]) if fit_ious is not None and present[group] else None,
            "text" if settings.fixed[group] else "masks" if settings.weak[group] else "text and masks",
        )
        for group, name in enumerate(names)
        if group in has_phrases
    )
    return weights, biases, scores


def _choose_settings(
    problem: _Problem, present: Groups, unknown: Groups, text_ious: Ious, strengths: Sequence[float]
) -> tuple[_FitSettings, Ious]:
    """Choose settings by cross-validation, and return them with their IoUs. Only `unknown` groups may give up their text."""
    first = strengths[0]
    mask_ious = problem.cross_validate(_FitSettings(present, ~present, first), _ROUGH_STEPS)
    weak = present & unknown & (text_ious < np.maximum(_SHARE * mask_ious, _UNKNOWN))
    best, best_ious = _best_settings(
        problem, [_FitSettings(weak, ~present, first, strength) for strength in _WEAK[: 2 if weak.any() else 1]], weak
    )
    if (present & ~weak).any():
        others = [_FitSettings(weak, ~present, strength, best.weak_strength) for strength in strengths[1:]]
        best, best_ious = _best_settings(problem, [best, *others], present, best_ious)
    worse = present & ~weak & (best_ious < text_ious)
    if worse.any():
        best = _FitSettings(weak, best.fixed | worse, best.strong_strength, best.weak_strength)
        best_ious = problem.cross_validate(best)
    return best, best_ious


def _best_settings(
    problem: _Problem, candidates: Sequence[_FitSettings], groups: Groups, first_ious: Ious | None = None
) -> tuple[_FitSettings, Ious]:
    """Return the candidate with the highest mean IoU over `groups`, and its IoUs; `first_ious` are the first one's, if known."""
    best = candidates[0]
    best_ious = problem.cross_validate(best) if first_ious is None else first_ious
    for settings in candidates[1:]:
        other_ious = problem.cross_validate(settings)
        if other_ious[groups].mean() > best_ious[groups].mean():
            best, best_ious = settings, other_ious
    return best, best_ious


def ious(table: NDArray[np.float64]) -> Ious:
    """Return the IoU of each group of a confusion matrix [G, G]; 0 for a group that does not occur."""
    both = np.diag(table)
    return both / np.maximum(table.sum(0) + table.sum(1) - both, 1e-9)
