"""Sampling of anchors: pixels of the salient part of a saliency map."""

import math
from typing import Literal

import torch
from torch import Tensor

from anomalib_spd.saliency.clustering import assert_finite, cluster, count_levels

ClusterChoice = Literal["max", "min", "random"]

#: levels that a map is rounded to before it is clustered
_LEVELS = 256
#: approximate number of pixels that k-means uses
_MAX_CLUSTERED = 128 * 128
#: pixels that are salient where the cluster has too few
_FALLBACK = 300


def salient_mask(saliency: Tensor, clusters: int, choice: ClusterChoice, draw: Tensor) -> Tensor:
    """Cluster saliency maps by value, and return the pixels of one cluster of each.

    Source: CutSwap, "Anchor selection": k-means with k = 4, the cluster of the largest center; the other choices are
    its ablations. Departure: k-means uses 256 levels, and every n-th row and column of a map of more than about
    128 x 128 pixels; saliency maps are enlarged from fewer. All of a flat map is salient; where a cluster has fewer
    than 2 pixels, the 300 most salient are taken (ours).

    Args:
        saliency: floating ``(B, H, W)``, finite.
        clusters: number of clusters.
        choice: cluster by its center.
        draw: float ``(B,)`` in ``[0, 1)``, selects the random cluster.

    Returns:
        bool ``(B, H, W)``, true for 2 pixels at least.

    Raises:
        RuntimeError: for maps that are not finite.
    """
    # all pixels, though k-means uses a part of them
    assert_finite(saliency.amin((1, 2)), saliency.amax((1, 2)))
    height, width = saliency.shape[-2:]
    stride = max(1, round(math.sqrt(height * width / _MAX_CLUSTERED)))
    levels = count_levels(saliency[:, ::stride, ::stride], _LEVELS)
    values, counts = levels.values, levels.counts
    low, high = values[:, :1], values[:, -1:]
    # the cluster of each level; where a map has fewer values than clusters, some clusters are empty
    label = torch.searchsorted(cluster(levels, clusters).boundaries.to(values.dtype), values)
    if choice == "random":
        number = torch.arange(clusters, device=values.device)[:, None]
        filled = ((label[:, None] == number) & (counts[:, None] > 0)).any(2).cumsum(1)
        chosen = torch.searchsorted(filled, (draw[:, None] * filled[:, -1:]).long(), right=True)
    else:
        chosen = label[:, -1:] if choice == "max" else label[:, :1]
    member = (label == chosen) & (counts > 0)
    # a little more than half the distance of levels, as that is rounded as well
    margin = 0.501 * (high - low) / (_LEVELS - 1)
    above = torch.where(member, values, torch.inf).amin(1, keepdim=True) - margin
    up_to = torch.where(member, values, -torch.inf).amax(1, keepdim=True) + margin
    # values beyond those that k-means used belong to the outermost clusters
    above = torch.where(chosen == label[:, :1], -torch.inf, above)
    up_to = torch.where(chosen == label[:, -1:], torch.inf, up_to)

    few = (counts * member).sum(1, keepdim=True) < 2
    # the highest level from which upwards the sampled pixels represent enough pixels
    from_top = counts.flip(1).cumsum(1).flip(1) * stride**2
    enough = (from_top >= min(_FALLBACK, height * width)).sum(1, keepdim=True) - 1
    top = values.gather(1, enough.clamp(min=0)) - margin
    flat = high == low
    above = torch.where(flat, -torch.inf, torch.where(few, top, above))
    maps = saliency.to(torch.promote_types(saliency.dtype, torch.float32))
    inside = maps > above[..., None].to(maps.dtype)
    if choice == "max":
        return inside
    up_to = torch.where(flat | few, torch.inf, up_to)
    return inside & (maps <= up_to[..., None].to(maps.dtype))


def sample_inside(inside: Tensor, draws: Tensor) -> Tensor:
    """Sample pixels uniformly from masks.

    Args:
        inside: bool ``(B, H, W)``, true for 1 pixel at least.
        draws: float ``(B, T, 2)`` in ``[0, 1)``.

    Returns:
        Rows and columns, int64 ``(B, T, 2)``.
    """
    # a row by its share of the pixels, then a pixel of the row
    per_row = inside.view(torch.uint8).sum(2, dtype=torch.int32)
    up_to_row = per_row.cumsum(1, dtype=torch.int32)
    row = torch.searchsorted(up_to_row, _to_index(draws[..., 0], up_to_row[:, -1:]), right=True)
    row = row.clamp_(max=inside.shape[1] - 1)
    number = _to_index(draws[..., 1], per_row.gather(1, row))
    members = inside.gather(1, row[..., None].expand(-1, -1, inside.shape[2])).cumsum(2, dtype=torch.int32)
    column = torch.searchsorted(members, number[..., None], right=True)[..., 0]
    return torch.stack([row, column.clamp_(max=inside.shape[2] - 1)], 2)


def _to_index(draw: Tensor, number: Tensor) -> Tensor:
    """Return int32 in ``[0, number)`` for draws in ``[0, 1)``; a product next to ``number`` may be rounded up to it."""
    return torch.minimum((draw * number).to(torch.int32), number - 1)


def sample_top(saliency: Tensor, number: int, draws: Tensor) -> Tensor:
    """Sample pixels uniformly from the most salient ones: CutSwap's ablation "saliency sorting".

    Args:
        saliency: floating ``(B, H, W)``.
        number: number of most salient pixels.
        draws: float ``(B, T, 2)`` in ``[0, 1)``; only the first of each pair is used.

    Returns:
        Rows and columns, int64 ``(B, T, 2)``.

    Raises:
        RuntimeError: for maps that are not finite.
    """
    assert_finite(saliency.amin((1, 2)), saliency.amax((1, 2)))
    height, width = saliency.shape[1:]
    number = min(number, height * width)
    top = saliency.flatten(1).topk(number, dim=1).indices
    pixel = top.gather(1, (draws[..., 0] * number).long().clamp_(max=number - 1))
    return torch.stack([pixel.div(width, rounding_mode="floor"), pixel % width], 2)
