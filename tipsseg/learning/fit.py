"""Fit class vectors to the masks of a few images, with a prior for each class that is chosen by cross-validation over images.

A class gets one of three: its text vector unchanged, a fit with a prior at the text vector, or, for a word that the text tower does
not know, a fit from masks alone with a weak prior at zero. What does not gain in cross-validation keeps its text. Images without
masks protect the fit from overfitting to unusual images with masks, and show the classes that these lack (see `unlabelled`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.workers import limit_torch_threads
from tipsseg.errors import InputError, UsageError
from tipsseg.labelling.classifier import Classifier, make_classifier
from tipsseg.labelling.features import Features
from tipsseg.labelling.model import Model
from tipsseg.labelling.view import View, view_of
from tipsseg.learning.maths import MaskTensor, Prior, Window, confusion, draw_pieces, make_windows, regroup, solve
from tipsseg.learning.unlabelled import compare, find_examples, sample_patches, second_moment
from tipsseg.options.records import LabelOptions
from tipsseg.regions.objects import ancestors
from tipsseg.types import BACKGROUND, ignore_id
from tipsseg.util.text import quote
from tipsseg.vocabulary.fitted import ClassFit, FittedVocabulary, VectorSource
from tipsseg.vocabulary.vocabulary import ClassSpec, Contest, Vocabulary, make_vocabulary
from tipsseg.weights.sources import file_hashes, find_model_id


def fit(
    model: Model,
    features: Sequence[Features],
    masks: Sequence[MaskTensor],
    vocabulary: Vocabulary | Sequence[str | ClassSpec],
    options: LabelOptions | None = None,
    *,
    unlabelled: Sequence[Features] = (),
    cache: Path | None = None,
) -> FittedVocabulary:
    """Fit class vectors to the masks of a few images.

    Classes without pixels in the masks keep their text vectors. The result is deterministic on the same machine.

    If the images with masks were not drawn at random, also pass features of about 30 images without masks, drawn at random from all
    images that the fit is for. They keep the fit from overfitting to unusual images, for example those that `rank` lists first.

    Args:
        model: The model that encoded the images.
        features: The features of each image, from `Model.encode`.
        masks: The mask of each image, [H, W] uint8 or uint16 at the image's size: 0 background, 1..N the classes by id, 255 ignored
            (65535 with more than 254 classes). Without background phrases in the vocabulary, 0 is ignored too.
        vocabulary: Names of classes, `ClassSpec`s, or a `Vocabulary`, as for `Labeller`.
        options: The options that the features were encoded with. None: the published protocol.
        unlabelled: Features of images without masks, encoded with the same options.
        cache: Cache folder for text vectors. None: no cache.

    Returns:
        The fitted vocabulary. `Labeller` accepts it as a vocabulary.

    Raises:
        UsageError: An argument has a wrong type, the numbers of features and masks differ, or the features were encoded with
            other options.
        InputError: A mask has a wrong size or an unknown id, or all pixels are ignored.
        VocabularyError: The classes are invalid.
    """
    if not isinstance(model, Model):
        raise UsageError(f"the model must come from tipsseg.load, not {quote(model)}")
    options = options or LabelOptions()
    view = view_of(model.backbone, LabelOptions(mode=options.mode, short_side=options.short_side))
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = make_vocabulary(vocabulary)
    classifier = make_classifier(model.backbone, replace(vocabulary, fit=""), cache)
    _check_pairs(model, view, features, masks, len(vocabulary.classes))
    for number, other in enumerate(unlabelled, start=1):
        _check_features(model, view, other, f"unlabelled features {number}")
    groups = groups_by_id(classifier.vocabulary)
    images = [
        make_windows(image.patches, image.plan, mask, groups) for image, mask in zip(features, masks, strict=True)
    ]
    others = [sample_patches(other.patches) for other in unlabelled]
    return fit_windows(model, view, classifier, images, others, lambda done, most: None)


def groups_by_id(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the group of each mask id, for `make_windows`; -1 for ignored pixels."""
    classes = len(vocabulary.classes)
    groups = np.full(np.iinfo(np.uint16).max + 1, -1, np.int64)
    groups[1 : classes + 1] = np.arange(1, classes + 1)
    if vocabulary.background_texts:
        groups[BACKGROUND] = BACKGROUND
    return groups


def fit_windows(
    model: Model,
    view: View,
    classifier: Classifier,
    images: Sequence[Sequence[Window]],
    unlabelled: Sequence[Tensor],
    on_solved: OnSolved,
) -> FittedVocabulary:
    """Learn class vectors from the windows of images with masks (see `make_windows`), and from patches of images without masks.

    Wholes are learned from the pixels of their parts too, and parts inside their wholes: one fit for each contest.

    `on_solved` is called after each solved problem (see `OnSolved`).

    Raises:
        InputError: All pixels are ignored.
    """
    vocabulary, temperature = classifier.vocabulary, model.backbone.temperature
    names = ["", *(entry.name for entry in vocabulary.classes)]
    images = [windows for windows in images if windows]
    if not images:
        raise InputError("the masks contain no labelled pixels", "Pass masks with pixels of the classes.")
    others = torch.cat(list(unlabelled)) if unlabelled else None
    levels = classifier.levels(0, temperature)
    solved: list[tuple[Tensor, Tensor]] = []
    scores: dict[int, ClassFit] = {}
    # Sums depend on the number of threads, and small differences grow from iteration to iteration. A single thread makes the result
    # independent of the machine's number of cores.
    with limit_torch_threads(1):
        for number, (level, contest) in enumerate(zip(levels, vocabulary.contests, strict=True)):
            text = torch.from_numpy(classifier.vectors[slice(None) if level.phrases is None else level.phrases])
            handicaps = torch.zeros(len(text)) if level.biases is None else torch.from_numpy(level.biases)
            group_of = torch.tensor([phrase.label_id for phrase in contest.phrases])
            contestants = _contestants(vocabulary, contest)
            own = [regroup(windows, contestants) for windows in images]
            if contest.whole:  # an image whose whole has no parts does not say where they are
                own = [
                    windows
                    for windows in own
                    if {each for w in windows for each in w.groups.tolist()} - {contest.whole}
                ]
            weights, biases, found = choose_and_fit(
                [windows for windows in own if windows],
                group_of,
                text / temperature,
                handicaps / temperature,
                names,
                None if contest.whole else others,  # patches of other things say nothing about parts
                partial(_tell_solved, on_solved, number, len(levels)),
            )
            kept = (weights == text / temperature).all(1) & (biases == handicaps / temperature)
            weights = torch.where(kept[:, None], text, weights * temperature)  # exactly the text where it is kept
            solved.append((weights, torch.where(kept, handicaps, biases * temperature)))
            scores |= {group: score for group, score in found.items() if group != contest.whole or not group}
    weights, biases = (torch.cat(part) for part in zip(*solved, strict=True))
    hashes = file_hashes(model.backbone.folder)
    return FittedVocabulary(
        vocabulary,
        weights.numpy(),
        biases.numpy(),
        temperature,
        hashes,
        find_model_id(model.backbone.folder, hashes),
        view.mode,
        view.base,
        tuple(scores[group] for group in sorted(scores)),
    )


def _tell_solved(on_solved: OnSolved, before: int, contests: int, done: int, most: int) -> None:
    on_solved(before * most + done, contests * most)


def _contestants(vocabulary: Vocabulary, contest: Contest) -> Tensor:
    """Return for each label id the id that stands for it in a contest, [N + 1]; -1 for none."""
    groups, whole = torch.full((len(vocabulary.classes) + 1,), -1), contest.whole
    if any(phrase.label_id == whole for phrase in contest.phrases):
        groups[whole] = whole
    for chain in ancestors(vocabulary.classes):
        if not whole:
            groups[chain[-1]] = chain[0]
        elif whole in chain[:-1]:
            groups[chain[-1]] = chain[chain.index(whole) + 1]
    return groups


def _check_pairs(
    model: Model,
    view: View,
    features: Sequence[Features],
    masks: Sequence[MaskTensor],
    classes: int,
) -> None:
    if len(features) != len(masks):
        raise UsageError(f"got {len(features)} features but {len(masks)} masks", "Pass one mask per image.")
    for number, (image, mask) in enumerate(zip(features, masks, strict=True), start=1):
        _check_features(model, view, image, f"features {number}")
        if not isinstance(mask, np.ndarray) or mask.dtype not in (np.uint8, np.uint16):
            raise UsageError(f"mask {number} must be an array of uint8 or uint16, not {quote(mask)}")
        if mask.shape != image.size:
            shape, (height, width) = " x ".join(map(str, mask.shape)), image.size
            raise InputError(f"mask {number} is {shape}, but its image is {height} x {width} (height x width) pixels")
        unknown = [value for value in np.unique(mask).tolist() if value > classes and value != ignore_id(classes)]
        if unknown:
            raise InputError(
                f"mask {number} has id {unknown[0]}, but the vocabulary has {classes} classes",
                f"Valid ids are 0..{classes}, and {ignore_id(classes)} for ignored pixels.",
            )


def _check_features(model: Model, view: View, features: Features, name: str) -> None:
    if not isinstance(features, Features):
        raise UsageError(f"{name} must come from Model.encode, not {quote(features)}")
    if features.patches.shape[-1] != model.backbone.embed_dim or (features.plan,) != view.plans(features.size):
        raise UsageError(
            f"{name} were encoded with a different model, mode or short side",
            "Encode the image with this model, and with the mode and short side of the fit's options.",
        )


#: Candidate precisions, in patches, of the prior at the text vector, for weights and bias.
_STRONG = (10.0, 3.0)
#: The same if the masks lack more than this share of the classes. Nothing shows where the missing classes are, so the others
#: would spread there.
_STRONGER, _LACKING = (30.0,), 0.25
#: Candidate precisions of the prior at zero, for a class that is fitted to masks alone.
_WEAK = (0.3, 0.03)
#: Precision of the bias of such a class, relative to the precision of its weights.
_WEAK_BIAS = 1 / 3
#: `Prior.moment_strength` of a class with a text prior, if the text is at least twice as unsure in images with masks as in those
#: without. It decreases to 0 if the text is equally unsure in both.
_MOMENT_STRENGTH = 50.0
#: Exponent of `group_weights` if all classes are fitted to masks alone; in proportion for fewer of them.
_BALANCE = 0.5
#: A class in two images or more gives up its text if the IoU of the text is below this, or below this share of the IoU of masks
#: alone.
_SHARE, _UNKNOWN = 0.8, 0.1
#: How often classes that are worse than their text are given it back, and the others are fitted again.
_ROUNDS = 3
#: Maximum number of folds in cross-validation.
_FOLDS = 5
#: Maximum number of patches in a fit of cross-validation, and in the final fit.
_FOLD_PATCHES, _PATCHES = 1 << 12, 1 << 14
#: Iterations of the rough fit that detects unknown words.
_ROUGH_STEPS = 12
#: Maximum number of settings in cross-validation: masks alone, then those in `_choose_settings`.
_CANDIDATES = 1 + len(_WEAK) + len(_STRONG) - 1 + _ROUNDS

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
        strong_strength: Precision at text vectors (see `_STRONG` and `_STRONGER`).
        weak_strength: Precision for masks alone (see `_WEAK`).
    """

    weak: Groups
    fixed: Groups
    strong_strength: float
    weak_strength: float = _WEAK[0]

    def without(self, groups: Groups) -> _FitSettings:
        """Return settings in which these groups keep their text vector."""
        return replace(self, weak=self.weak & ~groups, fixed=self.fixed | groups)


@dataclass(slots=True, eq=False)
class _Problem:
    """A fit of groups to images.

    Attributes:
        images: Windows of each image.
        group_of: [P] int64, group of each phrase.
        text: [P, D], text vectors in logits.
        handicaps: [P], their biases in logits.
        groups: G.
        on_solved: See `OnSolved`.
        moment: Second moment of unlabelled patches (see `Prior`); None without such patches.
        moment_strength: Precision of the logits of these patches.
        examples: Patches of classes that the masks lack (see `unlabelled.find_examples`).
        fold_solutions: Last solution of each fold, the starting point of the next fit.
        solved: Number of solved problems.
    """

    images: Sequence[Sequence[Window]]
    group_of: Tensor
    text: Tensor
    handicaps: Tensor
    groups: int
    on_solved: OnSolved
    moment: Tensor | None = None
    moment_strength: float = 0.0
    examples: Sequence[Window] = ()
    fold_solutions: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    solved: int = 0

    def cross_validate(self, settings: _FitSettings, steps: int = 40) -> Ious:
        """Return the IoU of each group if every image is labelled with a fit to the other folds."""
        folds = min(len(self.images), _FOLDS)
        total = np.zeros((self.groups, self.groups))
        for fold in range(folds):
            training = [image for number, image in enumerate(self.images) if number % folds != fold]
            held_out = [window for image in self.images[fold::folds] for window in image]
            sample = draw_pieces(training, _FOLD_PATCHES)
            solution = self.fit(sample, settings, steps, self.fold_solutions.get(fold))
            self.fold_solutions[fold] = solution
            total += confusion(held_out, *solution, self.group_of, self.groups)
        return ious(total)

    def fit(
        self,
        images: Sequence[Sequence[Window]],
        settings: _FitSettings,
        steps: int = 40,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return weights and biases for images (see `solve`)."""
        is_weak, is_fixed = (torch.from_numpy(groups)[self.group_of] for groups in (settings.weak, settings.fixed))
        if settings.weak.any():  # a background phrase may mean what a word now means
            is_fixed &= self.group_of != BACKGROUND
        strength = torch.where(is_weak, settings.weak_strength, settings.strong_strength)
        bias_strength = torch.where(is_weak, settings.weak_strength * _WEAK_BIAS, settings.strong_strength)
        strength[is_fixed] = torch.inf
        moment_strength = torch.where(is_weak, 0.0, self.moment_strength)
        weights = torch.where(is_weak[:, None], 0.0, self.text)
        biases = torch.where(is_weak, 0.0, self.handicaps)
        prior = Prior(weights, biases, strength, bias_strength, self.moment, moment_strength)
        windows = [*(window for image in images for window in image), *self.examples]
        fitted = settings.weak.sum() + (~settings.weak & ~settings.fixed).sum()
        balance = _BALANCE * settings.weak.sum() / max(fitted, 1)
        solution = solve(windows, self.group_of, prior, float(balance), steps, start)
        self.solved += 1
        self.on_solved(self.solved, _CANDIDATES * min(len(self.images), _FOLDS) + 1)
        return solution


def choose_and_fit(
    images: Sequence[Sequence[Window]],
    group_of: Tensor,
    text: Tensor,
    handicaps: Tensor,
    names: Sequence[str],
    unlabelled: Tensor | None,
    on_solved: OnSolved,
) -> tuple[Tensor, Tensor, dict[int, ClassFit]]:
    """Choose the prior of each class, fit, and score the fit.

    Args:
        images: Windows of each image.
        group_of: [P] int64, the group of each phrase.
        text: [P, D], the text vectors in logits.
        handicaps: [P], their biases in logits.
        names: The names of the groups.
        unlabelled: [n, D] float32, patches of images without masks; None if there are none.
        on_solved: See `OnSolved`.

    Returns:
        Weights [P, D] and biases [P] in logits, and the scores of the groups that have phrases. Without images, the text's.
    """
    has_phrases = set(group_of.tolist())
    if not images:
        return text, handicaps, {group: ClassFit(names[group], 0, None, None, "text") for group in has_phrases}
    problem = _Problem(images, group_of, text, handicaps, len(names), on_solved)
    windows = [window for image in images for window in image]
    counts = np.zeros(len(names), np.int64)
    for image in images:
        counts[torch.cat([window.groups for window in image]).unique().numpy()] += 1
    present = counts > 0
    unknown = counts > 1
    if unlabelled is not None:
        comparison = compare(windows, unlabelled, text, group_of, len(names))
        unknown &= ~comparison.known
        problem.examples = find_examples(windows, unlabelled, text, handicaps, group_of)
        problem.moment = second_moment(unlabelled)
        problem.moment_strength = _MOMENT_STRENGTH * min(max(comparison.unsure - 1, 0), 1)
    text_ious = ious(confusion(windows, text, handicaps, group_of, len(names)))
    strengths = _STRONGER if present.sum() < (1 - _LACKING) * len(has_phrases) else _STRONG
    if len(images) == 1:
        settings, fit_ious = _FitSettings(present & unknown & (text_ious < _UNKNOWN), ~present, strengths[0]), None
    else:
        settings, fit_ious = _choose_settings(problem, present, unknown, text_ious, strengths)
    weights, biases = problem.fit(draw_pieces(images, _PATCHES), settings)
    scores = {
        group: ClassFit(
            name,
            int(counts[group]),
            float(text_ious[group]) if present[group] else None,
            float(fit_ious[group]) if fit_ious is not None and present[group] else None,
            _source(settings, group),
        )
        for group, name in enumerate(names)
        if group in has_phrases
    }
    return weights, biases, scores


def _source(settings: _FitSettings, group: int) -> VectorSource:
    if settings.fixed[group] and not (group == BACKGROUND and settings.weak.any()):
        return "text"
    return "masks" if settings.weak[group] else "text and masks"


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
    for _ in range(_ROUNDS):
        worse = present & ~best.fixed & (best_ious <= text_ious)
        if not worse.any():
            return best, best_ious
        best = best.without(worse)
        best_ious = problem.cross_validate(best)
    return best.without(present & (best_ious <= text_ious)), best_ious


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
