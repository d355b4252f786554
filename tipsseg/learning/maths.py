"""Solve the convex problem of a fit: find class vectors that explain masks, with a prior at given vectors.

The logits of patches are resized to cells of half a patch, as labelling resizes them to pixels, and every cell is compared with the
shares of the classes in it. A fit to the shares of whole patches is worse: it learns the logits of mixed patches, at the expense of
small objects.

Shapes: P phrases, G groups of phrases (the classes and the background), h x w a patch grid, r x c its grid of cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipsseg.backbones.devices import lock_of
from tipsseg.labelling.sums import Values
from tipsseg.labelling.view import interpolation_weights
from tipsseg.types import WindowPlan

#: Cells along the side of a patch.
CELLS = 2

#: A fit stops when the loss per patch changes by less than this.
_TOLERANCE = 1e-5

#: Side of a piece in `draw_pieces`, in patches.
_PIECE = 8

#: Cells per matrix product.
_BATCH = 1 << 14

MaskTensor = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Features and ground truth of one window, or of a stack of N windows.

    Attributes:
        patches: [h, w, D] on the CPU, float16 if that is exact, else float32; [N, h, w, D] float32 for a stack.
        groups: [k] int64, the groups that occur.
        shares: [r, c, k] or [N, r, c, k] float32, the share of each of these groups in each cell. Ignored pixels do not count.
    """

    patches: Tensor
    groups: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Gaussian prior of the solution.

    Attributes:
        weights: [P, D] float32, mean of the weights, in logits: vectors / temperature.
        biases: [P] float32, mean of the biases, in logits.
        strength: [P] float32, precision of each row of weights. Infinity fixes the row.
        bias_strength: [P] float32, precision of the biases.
        moment: [D + 1, D + 1] float32, second moment of unlabelled patches (see `unlabelled.second_moment`). None: no such patches.
        moment_strength: [P] float32, precision, in patches, of the mean square difference between the logits of unlabelled patches
            and their logits by `weights`. Needs `moment`.
    """

    weights: Tensor
    biases: Tensor
    strength: Tensor
    bias_strength: Tensor
    moment: Tensor | None = None
    moment_strength: Tensor | None = None


def make_windows(patches: Tensor, plan: WindowPlan, mask: MaskTensor, groups: NDArray[np.int64]) -> list[Window]:
    """Cut a mask into the windows of its image, and pair them with the features.

    Args:
        patches: [B, h, w, D] float32, the features of the image.
        plan: Size and windows of the resized image.
        mask: [H, W] ids at the size of the image.
        groups: The group of each id of the mask; -1 for ignored pixels.

    Returns:
        The windows, without those whose pixels are all ignored.
    """
    height, width = plan.size
    # Sample at pixel centres, as labels are resized. Every cell has several pixels of the resized image.
    rows, columns = (
        np.minimum((np.arange(target) + 0.5) * source / target, source - 1).astype(np.int64)
        for source, target in zip(mask.shape, plan.size, strict=True)
    )
    resized = groups[mask[rows][:, columns]]  # [height, width]
    extent = (height, width) if plan.whole else (plan.side, plan.side)
    windows = []
    for features, (top, left) in zip(patches, plan.corners or ((0, 0),), strict=True):
        part = resized[top : top + extent[0], left : left + extent[1]]
        present = np.unique(part[part >= 0])
        if len(present):
            shape = (features.shape[0] * CELLS, features.shape[1] * CELLS)
            shares = np.stack([_cell_means(part == group, shape) for group in present], axis=-1)
            with lock_of(features.device):
                full = features.float().cpu()
            half = full.half()  # exact for features from a float16 store
            kept = half if torch.equal(half.float(), full) else full
            windows.append(Window(kept, torch.from_numpy(present), torch.from_numpy(shares)))
    return windows


def regroup(windows: Sequence[Window], groups: Tensor) -> list[Window]:
    """Return windows with other groups. Omit windows whose pixels are all ignored.

    Args:
        windows: The windows of an image.
        groups: [G] int64, the new group of each group; -1 for ignored pixels.
    """
    found = []
    for window in windows:
        moved = groups[window.groups]
        present = moved[moved >= 0].unique()
        if len(present):
            belongs = (moved[:, None] == present).float()  # [k, k']
            found.append(Window(window.patches, present, window.shares @ belongs))
    return found


def _cell_means(inside: NDArray[np.bool_], shape: tuple[int, int]) -> Values:
    """Return the share of True pixels in each cell of a grid: [H, W] -> [r, c]."""
    (height, width), (rows, columns) = inside.shape, shape
    cell = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    count = np.bincount(cell.ravel(), minlength=rows * columns)
    true = np.bincount(cell[inside], minlength=rows * columns)
    return (true / np.maximum(count, 1)).reshape(shape).astype(np.float32)


def draw_pieces(images: Sequence[Sequence[Window]], most: int) -> list[list[Window]]:
    """Draw a random sample of pieces of the windows, about `most` patches; return all windows if they have no more.

    Pieces with rare classes are drawn with higher probability. Shares are divided by the probability, so that the expected loss is
    the loss of all pieces. The random numbers are fixed.
    """
    total = sum(window.shares[..., 0].numel() for image in images for window in image) / CELLS**2
    if total <= most:
        return [list(image) for image in images]
    areas: dict[int, float] = {}
    for window in (part for image in images for part in image):
        for group, area in zip(window.groups.tolist(), window.shares.flatten(0, -2).sum(0).tolist(), strict=True):
            areas[group] = areas.get(group, 0.0) + area
    pieces = [[piece for window in image for piece in _pieces(window)] for image in images]
    # Divide half of the probability by area, and the other half equally among the classes.
    total_area, classes = sum(areas.values()), len(areas)
    scores = [
        sum(
            area * (1 / total_area + 1 / (classes * areas[group]))
            for group, area in zip(piece.groups.tolist(), piece.shares.flatten(0, -2).sum(0).tolist(), strict=True)
        )
        for image in pieces
        for piece in image
    ]
    size = total / len(scores)
    chances = np.minimum(np.array(scores) * (most / size / max(sum(scores), 1e-9)), 1.0)
    drawn = np.random.default_rng(0).random(len(chances)) < chances
    draws = iter(zip(drawn.tolist(), chances.tolist(), strict=True))
    return [
        [
            Window(piece.patches, piece.groups, piece.shares / chance)
            for piece, (is_drawn, chance) in zip(image, draws, strict=False)
            if is_drawn
        ]
        for image in pieces
    ]


def _pieces(window: Window) -> Iterator[Window]:
    """Cut a window into pieces with the groups that occur in them. Omit pieces whose pixels are all ignored."""
    height, width = window.patches.shape[:2]
    for top in range(0, height, _PIECE):
        for left in range(0, width, _PIECE):
            shares = window.shares[top * CELLS : (top + _PIECE) * CELLS, left * CELLS : (left + _PIECE) * CELLS]
            occurs = shares.flatten(0, -2).sum(0) > 0
            if occurs.any():
                patches = window.patches[top : top + _PIECE, left : left + _PIECE]
                yield Window(patches, window.groups[occurs], shares[..., occurs])


def solve(
    windows: Sequence[Window],
    group_of: Tensor,
    prior: Prior,
    balance: float,
    steps: int = 40,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise the cross entropy of the cells plus the distance from the prior, with L-BFGS.

    Args:
        windows: The training data.
        group_of: [P] int64, the group of each phrase. The probability of a group is the sum over its phrases.
        prior: The prior of the solution.
        balance: Weight of rare groups beyond their area, 0 to 1; see `group_weights`.
        steps: Limit on the number of iterations.
        start: Initial weights and biases. None: the prior's.

    Returns:
        Weights [P, D] and biases [P], in logits.
    """
    stacks = _stack(windows)
    weight_of = group_weights(stacks, int(group_of.max()) + 1, balance)
    members = torch.nn.functional.one_hot(group_of).float()  # [P, G]
    free = torch.isfinite(prior.strength)  # [P], False for phrases whose weights are fixed
    step = torch.zeros(int(free.sum()), prior.weights.shape[1] + 1)  # [F, D + 1], from the prior
    if start is not None:
        step[:, :-1], step[:, -1] = (start[0] - prior.weights)[free], (start[1] - prior.biases)[free]
    step.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [step],
        max_iter=steps,
        tolerance_change=_TOLERANCE * sum(window.patches[..., 0].numel() for window in stacks),
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def solution() -> tuple[Tensor, Tensor]:
        weights, biases = prior.weights.clone(), prior.biases.clone()
        weights[free] += step.detach()[:, :-1]
        biases[free] += step.detach()[:, -1]
        return weights, biases

    def loss() -> Tensor:
        """Return the loss of the step, and set its gradient."""
        optimizer.zero_grad()
        distance = 0.5 * (prior.strength[free, None] * step[:, :-1] ** 2).sum()
        distance = distance + 0.5 * (prior.bias_strength[free] * step[:, -1] ** 2).sum()
        if prior.moment is not None and prior.moment_strength is not None:
            distance = distance + 0.5 * (prior.moment_strength[free, None] * step * (step @ prior.moment)).sum()
        distance.backward()
        value = distance.detach()
        assert step.grad is not None
        weights, biases = solution()
        with torch.no_grad():
            for window in stacks:
                part, slope = _cross_entropy(window, weights, biases, members, weight_of)
                slope = slope.flatten(0, -2)[:, free]  # [N * h * w, F]
                step.grad[:, :-1] += slope.T @ window.patches.flatten(0, -2)
                step.grad[:, -1] += slope.sum(0)
                value += part
        return value

    if free.any():
        optimizer.step(loss)
    return solution()


def _stack(windows: Sequence[Window]) -> list[Window]:
    """Stack windows of equal shape in batches, because a small matrix product costs almost as much as a larger one."""
    by_shape: dict[torch.Size, list[Window]] = {}
    for window in windows:
        by_shape.setdefault(window.patches.shape, []).append(window)
    stacks = []
    for same_shape in by_shape.values():
        count = max(_BATCH // same_shape[0].shares[..., 0].numel(), 1)
        for start in range(0, len(same_shape), count):
            batch = same_shape[start : start + count]
            groups = torch.cat([window.groups for window in batch]).unique()
            shares = torch.zeros(len(batch), *batch[0].shares.shape[:2], len(groups))  # [N, r, c, k]
            for window, target in zip(batch, shares, strict=True):
                target[..., torch.searchsorted(groups, window.groups)] = window.shares
            stacks.append(Window(torch.stack([window.patches.float() for window in batch]), groups, shares))
    return stacks


def group_weights(windows: Sequence[Window], groups: int, balance: float) -> Tensor:
    """Return the weight of a cell of each group, [G]: (its share of all cells) ** -balance, scaled to mean 1 over cells."""
    total = torch.zeros(groups)
    for window in windows:
        total[window.groups] += window.shares.flatten(0, -2).sum(0)
    weights = torch.where(total > 0, (total.sum() / total.clamp(min=1e-6)) ** balance, 0.0)
    return weights * (total.sum() / (weights * total).sum())


def _cross_entropy(
    window: Window, weights: Tensor, biases: Tensor, members: Tensor, weight_of: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of a window, in patches, and its gradient with respect to the logits of the patches, [h, w, P]."""
    p = torch.softmax(cell_logits(window.patches, weights, biases), -1)  # [r, c, P]
    own = members[:, window.groups]  # [P, k]
    p_group = (p @ own).clamp(min=1e-30)  # [r, c, k]
    scaled = window.shares * (weight_of[window.groups] / CELLS**2)
    slope = p * (scaled.sum(-1, keepdim=True) - (scaled / p_group) @ own.T)
    down, across = (_resize_matrix(length) for length in window.patches.shape[-3:-1])
    return -(scaled * p_group.log()).sum(), torch.matmul(across.T, _multiply_rows(down.T, slope))


def cell_logits(patches: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Return the logits of the cells of a window: [h, w, D] and [P, D] -> [r, c, P]."""
    down, across = (_resize_matrix(length) for length in patches.shape[-3:-1])
    logits = patches.float() @ weights.T + biases  # [h, w, P]
    return torch.matmul(across, _multiply_rows(down, logits))


def _multiply_rows(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply along the rows: [n, m] and [..., m, w, P] -> [..., n, w, P]."""
    return (matrix @ values.flatten(-2)).unflatten(-1, values.shape[-2:])


@cache
def _resize_matrix(length: int) -> Tensor:
    """Return the bilinear resizing matrix from patches to cells along one axis, [length * CELLS, length]."""
    weights = interpolation_weights(length, length * CELLS)
    matrix = np.zeros((length * CELLS, length), np.float32)
    rows = np.arange(length * CELLS)
    np.add.at(matrix, (rows, weights.low), 1 - weights.weight)
    np.add.at(matrix, (rows, weights.high), weights.weight)
    return torch.from_numpy(matrix)


def confusion(
    windows: Sequence[Window], weights: Tensor, biases: Tensor, group_of: Tensor, groups: int
) -> NDArray[np.float64]:
    """Count cells by true group (rows) and group of the best phrase (columns), [G, G] in patches."""
    table = np.zeros((groups, groups))
    for window in windows:
        best = group_of[cell_logits(window.patches, weights, biases).argmax(-1)].flatten()  # [r * c]
        for index, group in enumerate(window.groups.tolist()):
            share = window.shares[..., index].flatten().double()
            table[group] += np.bincount(best.numpy(), share.numpy(), minlength=groups) / CELLS**2
    return table
