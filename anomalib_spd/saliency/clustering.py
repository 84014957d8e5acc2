"""Batched k-means of scalars, by which pixels of a saliency map are grouped."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: candidate edges on either side of the present one that a refinement compares
_REACH = 8


class Clusters(NamedTuple):
    """Clusters of scalars, in ascending order of their values.

    Attributes:
        centers: float32 ``(B, k)``, ascending; the means of the clusters.
        boundaries: float32 ``(B, k - 1)``, ascending; the midpoints of neighboring centers. A value belongs to cluster
            ``j`` where ``boundaries[j - 1] < value <= boundaries[j]``.
    """

    centers: Tensor
    boundaries: Tensor

    def labels(self, values: Tensor) -> Tensor:
        """Return the cluster of each value, int64 ``(B, ...)`` in ``[0, k)``, of values ``(B, ...)``."""
        rows = values.flatten(1).to(self.boundaries.dtype)
        return torch.searchsorted(self.boundaries, rows.contiguous()).view(values.shape)

    def inertia(self, values: Tensor) -> Tensor:
        """Return the sum of squared distances to the centers, float64 ``(B,)``, of values ``(B, ...)``."""
        centers = self.centers.gather(1, self.labels(values).flatten(1)).double()
        return (values.flatten(1).double() - centers).square().sum(1)


def kmeans_1d(values: Tensor, k: int, levels: int = 4096) -> Clusters:
    """Cluster the values of each row into ``k``, without a random start (ours).

    Values are rounded to levels. In one dimension clusters are intervals, so a dynamic program over the cumulative sums of the
    histogram finds the best edges on a coarse grid, and then repeatedly the best edges near the present ones, with ever
    smaller steps. Where a row has fewer than ``k`` different values, some clusters are empty.

    Source: CutSwap cites Hartigan and Wong (1979), whose method works in any dimension and depends on its start.

    Args:
        values: floating ``(B, ...)``, finite.
        k: number of clusters.
        levels: number of levels from the least to the largest value; boundaries are off by about one.

    Returns:
        The centers and the boundaries between them.

    Raises:
        ValueError: for ``k < 1``, ``levels < 2``, or values that are not floating or not a batch.
        RuntimeError: for values that are not finite.
    """
    if k < 1 or levels < 2:
        raise ValueError(f"`k` is 1 or more and `levels` 2 or more. Got {k} and {levels}.")
    if values.dim() < 2 or not values.is_floating_point():
        raise ValueError(f"k-means takes floating values (B, ...). Got {values.dtype} {tuple(values.shape)}.")
    return cluster(count_levels(values, levels), k)


class Levels(NamedTuple):
    """The histogram of each row. An edge between clusters is the number of levels below it.

    Attributes:
        values: float64 (float32 on MPS) ``(B, M)``, ascending.
        counts: how often each level occurs, of the same dtype and shape.
    """

    values: Tensor
    counts: Tensor


def count_levels(values: Tensor, number: int) -> Levels:
    """Return the histogram of each row of floating ``(B, ...)`` at a number of levels from its minimum to its maximum."""
    rows = values.flatten(1).to(torch.promote_types(values.dtype, torch.float32))
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    assert_finite(low, high)
    width = (high - low) / (number - 1)
    # the nearest level, so that both ends, where many pixels of a saliency map lie, are exact
    index = (rows - low).mul_(torch.where(width > 0, 1 / width, 0.0)).add_(0.5).long().clamp_(max=number - 1)
    # cumulative sums need float64; MPS does not have it
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    counts = torch.zeros(len(rows), number, device=rows.device, dtype=wide)
    counts.scatter_add_(1, index, counts.new_ones(()).expand_as(index))
    return Levels(low + torch.arange(number, device=rows.device, dtype=wide) * width, counts)


def assert_finite(low: Tensor, high: Tensor) -> None:
    """Raise a RuntimeError where values of this range are not finite; on a GPU this does not synchronize."""
    # torch's public checks read values; Kornia uses this one too
    torch._assert_async(torch.isfinite(high - low).all(), "Values have to be finite. Got NaN or infinity.")


def cluster(levels: Levels, k: int) -> Clusters:
    """Return the ``k`` clusters of weighted values, see :func:`kmeans_1d`."""
    # sums of squares about the middle are small, and their differences precise
    middle = (levels.values[:, :1] + levels.values[:, -1:]) / 2
    values, counts, size = levels.values - middle, levels.counts, levels.values.shape[1]
    sums = F.pad(torch.stack([counts, counts * values, counts * values.square()]), (1, 0)).cumsum(-1)
    step = -(-size // 64)
    grid = torch.arange(0, size + step, step, device=sums.device).clamp_(max=size)
    edges = _best_edges(sums, grid.expand(len(values), k + 1, -1).clone())
    offsets = torch.arange(-_REACH, _REACH + 1, device=edges.device)
    while step > 1:
        # steps of a quarter of the reach let edges move on when their neighbors have
        step = -(-step // 4)
        for _ in range(2):
            edges = _best_edges(sums, (edges[..., None] + step * offsets).clamp(0, size))
    mass, moment, _ = _at(sums, edges).diff(dim=-1).unbind(0)
    # the center of an empty cluster is the value above it
    above = values.gather(1, edges[:, :-1].clamp(max=size - 1))
    centers = (middle + torch.where(mass > 0, moment / mass.clamp(min=1), above)).float()
    return Clusters(centers, (centers[:, 1:] + centers[:, :-1]) / 2)


def _at(sums: Tensor, edges: Tensor) -> Tensor:
    """Return the sums ``(3, B, ...)`` of ``(3, B, M + 1)`` at edges ``(B, ...)``."""
    return sums.gather(2, edges.flatten(1).expand(3, -1, -1)).view(3, *edges.shape)


def _best_edges(sums: Tensor, candidates: Tensor) -> Tensor:
    """Return the edges int64 ``(B, k + 1)`` of least inertia, each of its candidates ``(B, k + 1, R)``."""
    candidates[:, 0], candidates[:, -1] = 0, sums.shape[2] - 1
    at = _at(sums, candidates)
    # the inertia of each cluster, for each pair of its last and its first edge, (B, k, R, R); 0 for an empty one
    count, moment, square = at[:, :, 1:, :, None] - at[:, :, :-1, None]
    cost = square - moment.square() / count.clamp(min=1)
    cost = cost.masked_fill(candidates[:, :-1, None] > candidates[:, 1:, :, None], torch.inf)
    total, choices = cost[:, 0, :, 0], []
    for j in range(1, cost.shape[1]):
        total, choice = (total[:, None] + cost[:, j]).min(-1)
        choices.append(choice)
    # all candidates of the first and of the last edge are equal
    chosen = [torch.zeros_like(candidates[:, 0, :1])]
    for choice in reversed(choices):
        chosen.insert(0, choice.gather(1, chosen[0]))
    chosen.insert(0, torch.zeros_like(chosen[0]))
    return candidates.gather(2, torch.stack(chosen, 1))[..., 0]
