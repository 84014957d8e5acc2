"""k-means of scalars, batched: which pixels of a saliency map belong together."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: places to either side of an edge that a refinement tries
_REACH = 8
NOT_FINITE = "Values are to be finite. Got NaN or infinity."


class Clusters(NamedTuple):
    """Clusters of scalars, from the smallest values to the largest.

    Attributes:
        centers: float32 ``(B, k)``, ascending; the means of the clusters.
        boundaries: float32 ``(B, k - 1)``, ascending; half way between neighbouring centers. A value belongs to cluster
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


def kmeans_1d(values: Tensor, k: int, bins: int | None = None) -> Clusters:
    """Cluster the values of each row into ``k``, with no random start (ours).

    On a line clusters are intervals, so the best clustering can be searched for instead of hoped for: a dynamic program
    over cumulative sums of the sorted values finds the best whose edges lie on a coarse grid, and again with ever finer
    steps around those of the best few. Where a row has fewer than ``k`` different values, clusters are left empty.

    Source: CutSwap cites Hartigan and Wong (1979), whose method serves any dimension and depends on its start.

    Args:
        values: floating ``(B, ...)``, finite.
        k: number of clusters.
        bins: round values to so many levels first, instead of sorting them: many times faster, and boundaries are
            right to about one level.

    Returns:
        the centers and the boundaries between them.

    Raises:
        ValueError: for ``k < 1``, ``bins < 2``, or values that are not floating or not a batch.
        RuntimeError: for values that are not finite.
    """
    if k < 1 or (bins is not None and bins < 2):
        msg = f"`k`, a number of clusters, is 1 or more and `bins` 2 or more. Got {k} and {bins}."
        raise ValueError(msg)
    if values.dim() < 2 or not values.is_floating_point():
        msg = f"k-means takes floating values (B, ...). Got {values.dtype} {tuple(values.shape)}."
        raise ValueError(msg)
    return cluster(sort_values(values) if bins is None else count_levels(values, bins), k)


class Levels(NamedTuple):
    """Values of each row in ascending order, how often each occurs, and how to search them for clusters.

    Attributes:
        values: float64 (on MPS float32) ``(B, M)``, ascending.
        counts: of the same dtype and shape.
        grid: edges between values that the search begins with, int64 ``(B, E)``, ascending from 0 to M.
        step: a refinement looks so many values to either side of an edge, at the most.
        starts: how many of the best clusterings on the grid are refined.
        sweeps: how often each refinement is repeated.
    """

    values: Tensor
    counts: Tensor
    grid: Tensor
    step: int
    starts: int
    sweeps: int


def sort_values(values: Tensor) -> Levels:
    """Return all values of each row of floating ``(B, ...)``, each counted once."""
    rows, low, high = _rows(values)
    ascending = _sorted(rows).to(_wide(rows))
    size, device = ascending.shape[1], ascending.device
    # quantiles see where most values are, even steps where the few are, and powers of 2 how few they are
    share = torch.linspace(0, 1, 65, device=device, dtype=ascending.dtype)
    powers = 2 ** torch.arange((size - 1).bit_length(), device=device)
    fixed = torch.cat([(share * size).long(), powers, size - powers]).expand(len(rows), -1)
    steps = torch.searchsorted(ascending, low + (high - low) * share[1:-1])
    grid = torch.cat([fixed, steps], 1).sort(1).values
    return Levels(ascending, torch.ones_like(ascending), grid, -(-size // 64), starts=12, sweeps=2)


def _sorted(rows: Tensor) -> Tensor:
    """Return the values of each row ``(B, N)`` in ascending order."""
    in_memory = type(rows) is Tensor and rows.device.type == "cpu" and not rows.requires_grad
    if in_memory and not torch.compiler.is_compiling():
        # by vectors: some ten times as fast as torch, which finds the order as well
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(1).values


def count_levels(values: Tensor, bins: int) -> Levels:
    """Round the values of each row of floating ``(B, ...)`` to one of ``bins`` levels between its ends."""
    rows, low, high = _rows(values)
    width = (high - low) / (bins - 1)
    # to the nearest level, so that both ends, where many pixels of a saliency map lie, are represented exactly
    index = (rows - low).mul_(torch.where(width > 0, 1 / width, 0.0)).add_(0.5).long().clamp_(max=bins - 1)
    counts = torch.zeros(len(rows), bins, device=rows.device, dtype=_wide(rows))
    counts.scatter_add_(1, index, counts.new_ones(()).expand_as(index))
    levels = low + torch.arange(bins, device=rows.device, dtype=counts.dtype) * width
    # what is gained by rounding is not to be lost to a search beyond its precision
    step = -(-bins // 64)
    grid = torch.arange(0, bins + step, step, device=rows.device).clamp_(max=bins).expand(len(rows), -1)
    return Levels(levels, counts, grid, step, starts=1, sweeps=1)


def _rows(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows ``(B, N)``, in float32 at least, and their ends ``(B, 1)``."""
    rows = values.flatten(1)
    rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    assert_finite(low, high)
    return rows, low, high


def assert_finite(low: Tensor, high: Tensor) -> None:
    """Raise a RuntimeError where values with these ends are not finite; on a GPU, without waiting for it."""
    # torch's public checks read no values; Kornia uses this one too
    torch._assert_async(torch.isfinite(high - low).all(), NOT_FINITE)


def _wide(values: Tensor) -> torch.dtype:
    # sums in float32 would not do; MPS has nothing wider
    return torch.float32 if values.device.type == "mps" else torch.float64


def cluster(levels: Levels, k: int) -> Clusters:
    """Return the ``k`` clusters of what levels count, see :func:`kmeans_1d`."""
    # sums of squares are small, and their differences precise, where values count from the middle
    middle = (levels.values[:, :1] + levels.values[:, -1:]) / 2
    centers = (middle + _search(levels._replace(values=levels.values - middle), k)).float()
    return Clusters(centers, (centers[:, 1:] + centers[:, :-1]) / 2)


def _search(levels: Levels, k: int) -> Tensor:
    """Return the centers ``(B, k)`` of the best clustering that is found. An edge is the number of levels below it."""
    values, counts = levels.values, levels.counts
    moments = torch.stack([counts, counts * values, counts * values.square()])
    sums = F.pad(moments, (1, 0)).cumsum(-1)
    edges, step = _coarse_edges(sums, levels, k), levels.step
    while step > 1:
        step = -(-step // _REACH)
        for _ in range(levels.sweeps):
            edges = _edges_near(sums, edges, step)
    start, end = _at(sums, edges[..., :-1]), _at(sums, edges[..., 1:])
    best = _inertia(start, end).sum(-1).argmin(1)[:, None, None].expand(-1, 1, k)
    mass, moment, _ = (end - start).unbind(0)
    # where nobody is, the first level above stands in
    above = _at(values[None], edges[..., :-1].clamp(max=values.shape[1] - 1))[0]
    centers = torch.where(mass > 0, moment / mass.clamp(min=1), above)
    return centers.gather(1, best)[:, 0]


def _at(sums: Tensor, edges: Tensor) -> Tensor:
    """Return what ``(S, B, M)`` holds at indices ``(B, ...)``, as ``(S, B, ...)``."""
    index = edges.flatten(1).expand(len(sums), -1, -1)
    return sums.gather(2, index).view(len(sums), *edges.shape)


def _inertia(start: Tensor, end: Tensor) -> Tensor:
    """Return the inertia of one cluster between cumulative sums ``(3, ...)``; an empty one costs nothing."""
    count, moment, square = (end - start).unbind(0)
    return square - moment.square() / count.clamp(min=1)


def _coarse_edges(sums: Tensor, levels: Levels, k: int) -> Tensor:
    """Return the edges int64 ``(B, starts, k + 1)`` of the best clusterings whose edges lie on a coarse grid.

    They differ in the last inner edge: what follows may lead to different optima of nearly the same inertia.
    """
    grid, batch = levels.grid, len(levels.grid)
    at_grid = _at(sums, grid)
    # of a cluster from edge a to edge b, (B, b, a)
    cost = _inertia(at_grid[:, :, None, :], at_grid[:, :, :, None])
    backwards = torch.ones(cost.shape[1:], dtype=torch.bool, device=cost.device).triu(1)
    cost = cost.masked_fill(backwards, torch.inf)
    total, choices = cost[:, :, 0], []
    for _ in range(k - 2):
        total, choice = (total[:, None, :] + cost).min(-1)
        choices.append(choice)
    chosen = [torch.full((batch, levels.starts), grid.shape[1] - 1, device=grid.device)]
    if k > 1:
        total = total + cost[:, -1]
        # the best edge, and the bottoms of the other valleys
        fenced = F.pad(total, (1, 1), value=torch.inf)
        bottom = (total <= fenced[:, :-2]) & (total <= fenced[:, 2:])
        chosen.insert(0, total.masked_fill(~bottom, torch.inf).topk(levels.starts, dim=1, largest=False).indices)
    for choice in reversed(choices):
        chosen.insert(0, choice.gather(1, chosen[0]))
    chosen.insert(0, torch.zeros_like(chosen[0]))
    return grid.gather(1, torch.stack(chosen, -1).flatten(1)).view(batch, levels.starts, k + 1)


def _edges_near(sums: Tensor, edges: Tensor, step: int) -> Tensor:
    """Return the best edges int64 ``(B, S, k + 1)``, each a few steps at most from those given."""
    size = sums.shape[2] - 1
    offsets = step * torch.arange(-_REACH, _REACH + 1, device=edges.device)
    near = (edges[..., None] + offsets).clamp(0, size)
    near[:, :, 0], near[:, :, -1] = 0, size
    at_near = _at(sums, near)
    # of each cluster, from any edge a to any edge b near its own, (B, S, k, b, a)
    cost = _inertia(at_near[:, :, :, :-1, None, :], at_near[:, :, :, 1:, :, None])
    backwards = near[:, :, :-1, None, :] > near[:, :, 1:, :, None]
    cost = cost.masked_fill(backwards, torch.inf)
    total, choices = cost[:, :, 0, :, 0], []
    for j in range(1, cost.shape[2]):
        total, choice = (total[:, :, None, :] + cost[:, :, j]).min(-1)
        choices.append(choice)
    # all places at the ends are the same
    chosen = [torch.zeros_like(edges[:, :, :1])]
    for choice in reversed(choices):
        chosen.insert(0, choice.gather(2, chosen[0]))
    chosen.insert(0, torch.zeros_like(edges[:, :, :1]))
    return near.gather(3, torch.stack(chosen, 2))[..., 0]
