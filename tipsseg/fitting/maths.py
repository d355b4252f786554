"""Solve the convex problem of a fit: class vectors, drawn towards given ones, that explain masks.

The fit is to what labels are made from: the logits of patches are resized to cells of half a patch, as labelling resizes them to
pixels, and each cell is compared with the shares of the classes in it. A fit to the shares of whole patches is worse: it learns
logits of mixed patches, and small things lose.

Shapes: P phrases, G groups of them (the classes, and the background), h x w a patch grid, r x c the grid of its cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.windows import interpolation_weights
from tipsseg.types import WindowPlan

#: Cells along the side of a patch.
CELLS = 2

#: A fit ends where the loss, as a share of the patches, changes by less.
_TOLERANCE = 1e-5

#: The side of the pieces that windows are cut into where not all of them are taken, in patches.
_PIECE = 8

#: So many cells are computed at once.
_TOGETHER = 1 << 14

Mask = NDArray[np.uint8] | NDArray[np.uint16]
#: The matrix that resizes each length, [length * CELLS, length].
Resizings = Mapping[int, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The features of one window, and the truth about them.

    Attributes:
        patches: [h, w, D] on the CPU, float16 where that loses nothing, else float32; of several windows together [N, h, w, D]
            float32.
        groups: [k] int64, the groups that have pixels in it.
        shares: [r, c, k] or [N, r, c, k] float32, the share of each of these groups in each cell; pixels that do not count are in
            no share.
    """

    patches: Tensor
    groups: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """The vectors that the solution is drawn towards, and how strongly.

    Attributes:
        weights: [P, D] float32, in logits: the vectors / temperature.
        strength: [P] float32, the precision of the Gaussian prior of each row of weights; infinity: the row stays.
        bias_strength: [P] float32, that of the bias, which is drawn towards 0.
        moment: [D + 1, D + 1] float32, the second moment of patches with a 1 behind each, see `unlabelled.second_moment`. None:
            no patches are known but those that are learnt from.
        moment_strength: [P] float32, how strongly the logits of these patches are drawn towards those by `weights` alone: the
            precision, in patches, of the prior of their mean square difference. Of no use without a moment.
    """

    weights: Tensor
    strength: Tensor
    bias_strength: Tensor
    moment: Tensor | None = None
    moment_strength: Tensor | None = None


def windows_of(patches: Tensor, plan: WindowPlan, mask: Mask, groups: NDArray[np.int64]) -> list[Window]:
    """Cut a mask as an image was cut.

    Args:
        patches: [B, h, w, D] float32, the features of the image.
        plan: How the image was resized and cut into windows.
        mask: [H, W] ids at the size of the image.
        groups: The group of each id; -1: its pixels do not count. Ids beyond do not occur.

    Returns:
        The windows that have pixels that count.
    """
    height, width = plan.size
    # Pixel centres, as labels are resized; every cell has several pixels of the working size.
    rows, columns = (
        np.minimum((np.arange(to) + 0.5) * given / to, given - 1).astype(np.int64)
        for given, to in zip(mask.shape, plan.size, strict=True)
    )
    seen = groups[mask[rows][:, columns]]  # [height, width]
    extent = (height, width) if plan.whole else (plan.side, plan.side)
    windows = []
    for each, (top, left) in zip(patches, plan.corners or ((0, 0),), strict=True):
        part = seen[top : top + extent[0], left : left + extent[1]]
        present = np.unique(part[part >= 0])
        if len(present):
            shape = (each.shape[0] * CELLS, each.shape[1] * CELLS)
            shares = np.stack([_cell_means(part == group, shape) for group in present], axis=-1)
            windows.append(Window(_in_half(each.float().cpu()), torch.from_numpy(present), torch.from_numpy(shares)))
    return windows


def _in_half(patches: Tensor) -> Tensor:
    """Return the numbers in half the memory, where they come from a store of such; else as they are."""
    half = patches.half()
    return half if torch.equal(half.float(), patches) else patches


def _cell_means(inside: NDArray[np.bool_], shape: tuple[int, int]) -> Values:
    """Return the share of True in each cell of a grid: [H, W] -> [r, c]."""
    (height, width), (rows, columns) = inside.shape, shape
    cell = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    count = np.bincount(cell.ravel(), minlength=rows * columns)
    true = np.bincount(cell[inside], minlength=rows * columns)
    return (true / np.maximum(count, 1)).reshape(shape).astype(np.float32)


def _together(windows: Sequence[Window]) -> list[Window]:
    """Stack windows of one shape, several at a time: a small product costs hardly less than a larger one."""
    by_shape: dict[torch.Size, list[Window]] = {}
    for window in windows:
        by_shape.setdefault(window.patches.shape, []).append(window)
    joined = []
    for same in by_shape.values():
        count = max(_TOGETHER // same[0].shares[..., 0].numel(), 1)
        for start in range(0, len(same), count):
            part = same[start : start + count]
            groups = torch.cat([window.groups for window in part]).unique()
            shares = torch.zeros(len(part), *part[0].shares.shape[:2], len(groups))  # [N, r, c, k]
            for each, target in zip(part, shares, strict=True):
                target[..., torch.searchsorted(groups, each.groups)] = each.shares
            joined.append(Window(torch.stack([window.patches.float() for window in part]), groups, shares))
    return joined


def group_weights(windows: Sequence[Window], groups: int, balance: float) -> Tensor:
    """Return the weight of a cell of each group, [G]: its share of all cells to the power of -balance, 1 in the mean over cells."""
    total = torch.zeros(groups)
    for window in windows:
        total[window.groups] += window.shares.flatten(0, -2).sum(0)
    weights = torch.where(total > 0, (total.sum() / total.clamp(min=1e-6)) ** balance, 0.0)
    return weights * (total.sum() / (weights * total).sum())


def thinned(images: Sequence[Sequence[Window]], most: int) -> list[list[Window]]:
    """Draw pieces of windows at random that stand for all of them; take all if they have no more than about `most` patches.

    Pieces with classes that are rare are drawn more often, and what is drawn weighs as much more as it was left out more often, so
    that the loss is that of all pieces in the mean. The same windows give the same pieces.
    """
    total = sum(window.shares[..., 0].numel() for image in images for window in image) / CELLS**2
    if total <= most:
        return [list(image) for image in images]
    areas: dict[int, float] = {}
    for window in (part for image in images for part in image):
        for group, area in zip(window.groups.tolist(), window.shares.flatten(0, -2).sum(0).tolist(), strict=True):
            areas[group] = areas.get(group, 0.0) + area
    pieces = [[piece for window in image for piece in _pieces(window)] for image in images]
    # Half of them by their area, half so that all classes come to the same.
    everything, kinds = sum(areas.values()), len(areas)
    worth = [
        sum(
            area * (1 / everything + 1 / (kinds * areas[group]))
            for group, area in zip(each.groups.tolist(), each.shares.flatten(0, -2).sum(0).tolist(), strict=True)
        )
        for image in pieces
        for each in image
    ]
    size = total / len(worth)
    chances = np.minimum(np.array(worth) * (most / size / max(sum(worth), 1e-9)), 1.0)
    drawn = np.random.default_rng(0).random(len(chances)) < chances
    every = iter(zip(drawn.tolist(), chances.tolist(), strict=True))
    return [
        [
            Window(each.patches, each.groups, each.shares / chance)
            for each, (taken, chance) in zip(image, every, strict=False)
            if taken
        ]
        for image in pieces
    ]


def _pieces(window: Window) -> Iterator[Window]:
    """Cut a window into pieces, each with the classes that are in it; leave out pieces in which nothing counts."""
    height, width = window.patches.shape[:2]
    for top in range(0, height, _PIECE):
        for left in range(0, width, _PIECE):
            shares = window.shares[top * CELLS : (top + _PIECE) * CELLS, left * CELLS : (left + _PIECE) * CELLS]
            there = shares.flatten(0, -2).sum(0) > 0
            if there.any():
                patches = window.patches[top : top + _PIECE, left : left + _PIECE]
                yield Window(patches, window.groups[there], shares[..., there])


def solve(
    windows: Sequence[Window],
    group_of: Tensor,
    prior: Prior,
    balance: float,
    steps: int = 40,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise the cross entropy of the cells' shares, and the distance from the prior.

    Args:
        windows: What is learnt from.
        group_of: [P] int64, the group of each phrase; the probability of a group is the sum over its phrases.
        prior: What the solution is drawn towards.
        balance: How much more than by its area a rare group counts, from 0 to 1; see `group_weights`.
        steps: At most so many steps are made.
        start: Weights and biases to begin with; None: those of the prior.

    Returns:
        Weights [P, D] and biases [P], in logits.
    """
    windows = _together(windows)
    weight_of = group_weights(windows, int(group_of.max()) + 1, balance)
    members = torch.nn.functional.one_hot(group_of).float()  # [P, G]
    free = torch.isfinite(prior.strength)
    strength, bias_strength = prior.strength[free, None], prior.bias_strength[free]
    held = None if prior.moment_strength is None else prior.moment_strength[free, None]
    resizings = {length: _resizing(length) for window in windows for length in window.patches.shape[-3:-1]}
    step = torch.zeros(int(free.sum()), prior.weights.shape[1] + 1)
    if start is not None:
        step[:, :-1], step[:, -1] = (start[0] - prior.weights)[free], start[1][free]
    step.requires_grad_()
    patches = sum(window.patches[..., 0].numel() for window in windows)

    def loss() -> Tensor:
        moved, biases = step[:, :-1], step[:, -1]
        total = 0.5 * (strength * moved**2).sum() + 0.5 * (bias_strength * biases**2).sum()
        if prior.moment is not None and held is not None:
            total = total + 0.5 * (held * step * (step @ prior.moment)).sum()
        total.backward()
        value = total.detach()
        with torch.no_grad():
            weights, all_biases = prior.weights.clone(), torch.zeros(len(free))
            weights[free] += moved
            all_biases[free] = biases
            assert step.grad is not None
            for window in windows:
                part, slope = _cross_entropy(window, weights, all_biases, members, weight_of, resizings)
                flat = window.patches.flatten(0, -2)
                slope = slope.flatten(0, -2)[:, free]  # [N * h * w, F]
                step.grad[:, :-1] += slope.T @ flat
                step.grad[:, -1] += slope.sum(0)
                value += part
        return value

    optimizer = torch.optim.LBFGS(
        [step], max_iter=steps, tolerance_change=_TOLERANCE * patches, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        return loss()

    if free.any():
        optimizer.step(closure)
    result = step.detach()
    weights, biases = prior.weights.clone(), torch.zeros(len(free))
    weights[free] += result[:, :-1]
    biases[free] = result[:, -1]
    return weights, biases


def _cross_entropy(
    window: Window, weights: Tensor, biases: Tensor, members: Tensor, weight_of: Tensor, resizings: Resizings
) -> tuple[Tensor, Tensor]:
    """Return the loss of a window in patches, and its gradient by the logits of the patches, [h, w, P]."""
    p = torch.softmax(cell_logits(window.patches, weights, biases, resizings), -1)  # [r, c, P]
    own = members[:, window.groups]  # [P, k]
    p_group = (p @ own).clamp(min=1e-30)  # [r, c, k]
    scaled = window.shares * (weight_of[window.groups] / CELLS**2)
    slope = p * (scaled.sum(-1, keepdim=True) - (scaled / p_group) @ own.T)
    down, across = (resizings[length] for length in window.patches.shape[-3:-1])
    return -(scaled * p_group.log()).sum(), torch.matmul(across.T, _down(down.T, slope))


def cell_logits(patches: Tensor, weights: Tensor, biases: Tensor, resizings: Resizings | None = None) -> Tensor:
    """Return the logits of the cells of a window: [h, w, D] and [P, D] -> [r, c, P]."""
    height, width = patches.shape[-3:-1]
    resizings = resizings or {length: _resizing(length) for length in (height, width)}
    logits = patches.float() @ weights.T + biases  # [h, w, P]
    return torch.matmul(resizings[width], _down(resizings[height], logits))


def _down(matrix: Tensor, values: Tensor) -> Tensor:
    """[n, m] and [..., m, w, P] -> [..., n, w, P]."""
    return (matrix @ values.flatten(-2)).unflatten(-1, values.shape[-2:])


def _resizing(length: int) -> Tensor:
    """Return the bilinear resizing from patches to cells along one axis as a matrix, [length * CELLS, length]."""
    weights = interpolation_weights(length, length * CELLS)
    matrix = np.zeros((length * CELLS, length), np.float32)
    rows = np.arange(length * CELLS)
    np.add.at(matrix, (rows, weights.low), 1 - weights.weight)
    np.add.at(matrix, (rows, weights.high), weights.weight)
    return torch.from_numpy(matrix)


def confusion(windows: Sequence[Window], weights: Tensor, biases: Tensor, group_of: Tensor) -> NDArray[np.float64]:
    """Count cells by their group and by the group of the best phrase, [G, G] in patches."""
    groups = int(group_of.max()) + 1
    table = np.zeros((groups, groups))
    for window in windows:
        best = group_of[cell_logits(window.patches, weights, biases).argmax(-1)].flatten()  # [r * c]
        for index, group in enumerate(window.groups.tolist()):
            share = window.shares[..., index].flatten().double()
            table[group] += np.bincount(best.numpy(), share.numpy(), minlength=groups) / CELLS**2
    return table
