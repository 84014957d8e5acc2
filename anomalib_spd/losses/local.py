"""Losses on the maps that detectors read, as pure functions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor


def distillation(maps: Sequence[Tensor], taught: Sequence[Tensor], energies: Tensor) -> Tensor:
    r"""Return how far the layers of a network are from its teacher's, each in units of the teacher's energy.

    :math:`\mathrm{mean}\,|f_l - t_l|^2 / E_l` with the mean square :math:`E_l = \mathrm{mean}\,|t_l|^2`.

    Source: ours.

    Args:
        maps: of each layer ``(B, C, h, w)``, floating.
        taught: the teacher's, of the same shapes.
        energies: of the teacher's layers, ``(L,)``, positive.

    Returns:
        ``(L,)``, not negative.
    """
    squares = [(each - target).square().sum(1).mean() for each, target in zip(maps, taught, strict=True)]
    return torch.stack(squares) / energies


def patch_embedding(maps: Sequence[Tensor]) -> Tensor:
    """Return PatchCore's embedding of places: means of 3 x 3, enlarged to the first layer's size, joined.

    Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection (CVPR 2022), section 3, and anomalib's code.

    Args:
        maps: of each layer ``(B, C, h, w)``, floating; the first layer has the largest.

    Returns:
        ``(B, D, h, w)`` of the first layer's height and width, D the sum of the layers' channels.
    """
    pooled = [F.avg_pool2d(each, 3, 1, 1) for each in maps]
    size = pooled[0].shape[-2:]
    return torch.cat([F.interpolate(each, size=size, mode="bilinear") for each in pooled], dim=1)


def anomaly_map(distances: Tensor, size: Sequence[int]) -> Tensor:
    """Return PatchCore's anomaly map: distances of places ``(B, h, w)``, enlarged to ``(B, *size)`` and smoothed.

    Departure from anomalib, which enlarges each place to a square: here in a straight line from place to place.
    """
    at_pixels = F.interpolate(distances[:, None], size=list(size), mode="bilinear")
    return gaussian_blur2d(at_pixels, (33, 33), (4.0, 4.0)).squeeze(1)


def patch_distance(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    r"""Return how far each place of negatives is from its own of positives, as PatchCore would map it.

    PatchCore's embedding is taken, its distance to the nearest of the 3 x 3 places of the positive, so that a small shift is
    none, and that is made an anomaly map as PatchCore makes its own.

    Source: ours.

    Args:
        maps: of each layer ``(2 * B, C, h, w)``, floating, the positives first; the first layer has the largest.
        size: of the images, height and width in pixels.

    Returns:
        the distances ``(B, *size)``, positive.
    """
    positive, negative = patch_embedding(maps).chunk(2)
    height, width = positive.shape[-2:]
    around = F.pad(positive, (1, 1, 1, 1), mode="replicate")
    squares = [
        (negative - around[:, :, y : y + height, x : x + width]).square().sum(1) for y in range(3) for x in range(3)
    ]
    # the root has no slope at 0
    return anomaly_map((torch.stack(squares).amin(0) + 1e-6).sqrt(), size)


def memory_distance(embedding: Tensor, memory: Tensor, size: Sequence[int]) -> Tensor:
    r"""Return how far each place is from the nearest of a memory, as PatchCore would map it.

    Source: ours. PatchCore's anomaly map, of a memory through which gradients flow.

    Args:
        embedding: of the places ``(B, D, h, w)``, floating, see :func:`patch_embedding`.
        memory: embeddings of places of other images, ``(M, D)``.
        size: of the images, height and width in pixels.

    Returns:
        the distances ``(B, *size)``, positive.
    """
    places = embedding.movedim(1, -1)
    with torch.no_grad():
        nearest = torch.cdist(places.flatten(0, 2), memory).argmin(1)
    squares = (places - memory[nearest].view_as(places)).square().sum(-1)
    # the root has no slope at 0
    return anomaly_map((squares + 1e-6).sqrt(), size)


def localization_loss(
    distance: Tensor, changed: Tensor, temperature: float, beside: int = 12, pairs: int = 256
) -> tuple[Tensor, Tensor]:
    r"""Dense SPot-the-Difference: of each image, changed places are to be farther from the positive than unchanged ones.

    :math:`L = \tau\,\mathrm{mean}_{i, j} \log(1 + \exp((\log d_j - \log d_i) / \tau))` over changed places i and unchanged
    places j of the same image, drawn at random, half of the latter within a few pixels of a change: what PatchCore takes
    for anomalous there is most of what its maps have wrong. Only ratios of distances count, no scale of the features.

    Source: ours.

    Args:
        distance: of each pixel, ``(B, H, W)``, positive.
        changed: 1 where a pixel was changed, else 0, ``(B, 1, H, W)``. Images without a change, or without any unchanged
            place, count for nothing.
        temperature: tau, positive.
        beside: pixels; what is this near to a change, in both directions, is beside it.
        pairs: number of places of each kind that are drawn of each image.

    Returns:
        the loss, not negative, and the share of pairs that are in order, in ``[0, 1]``; both scalars.
    """
    grown = _grown(changed, beside)
    near, unchanged = (grown - changed).flatten(1), (1 - changed).flatten(1)
    both = (changed.flatten(1).sum(1) > 0) & (unchanged.sum(1) > 0)
    if not both.any():
        return distance.sum() * 0, distance.new_ones(())
    logs, near, unchanged = distance.log().flatten(1)[both], near[both], unchanged[both]
    weights = unchanged / unchanged.sum(1, keepdim=True) + near / near.sum(1, keepdim=True).clamp(min=1)
    places = [torch.multinomial(each, pairs, replacement=True) for each in (changed.flatten(1)[both], weights)]
    d_changed, d_unchanged = (logs.gather(1, each) for each in places)
    margins = d_unchanged[:, None] - d_changed[:, :, None]
    return F.softplus(margins / temperature).mean() * temperature, (margins < 0).to(margins.dtype).mean()


def _grown(mask: Tensor, by: int) -> Tensor:
    """Return a mask ``(B, 1, H, W)`` grown by some pixels in both directions, one after the other: a square is too slow."""
    side = 2 * by + 1
    return F.max_pool2d(F.max_pool2d(mask, (side, 1), 1, (by, 0)), (1, side), 1, (0, by))


def detection_loss(
    distance: Tensor, changed: Tensor, temperature: float, hardest: float = 0.05, beside: int = 12, pairs: int = 256
) -> tuple[Tensor, Tensor]:
    r"""Draw what would be a detector's mistakes below what it is to find.

    As :func:`localization_loss`, of changed places against unchanged ones, but half of these are drawn from the farthest of
    **all** images of the batch, away from any change: they are the false alarms that a changed place has to stand out from.
    The other half lies within a few pixels of a change of the same image.

    Source: ours.

    Args:
        distance: of each pixel from what is normal, ``(B, H, W)``, positive.
        changed: 1 where a pixel was changed, else 0, ``(B, 1, H, W)``. Images without a change count for nothing.
        temperature: tau, positive.
        hardest: share of an image's pixels, its farthest unchanged ones, that false alarms are drawn from.
        beside: pixels; what is this near to a change, in both directions, is beside it.
        pairs: number of places of each kind that are drawn of each image.

    Returns:
        the loss, not negative, and the share of pairs with false alarms that are in order, in ``[0, 1]``; both scalars.
    """
    grown = _grown(changed, beside).flatten(1)
    changed, logs = changed.flatten(1), distance.log().flatten(1)
    near, far = grown - changed, grown == 0
    alarms = logs.masked_fill(~far, -torch.inf).topk(max(1, int(hardest * logs.shape[1]))).values.flatten()
    counts = (changed.sum(1) > 0) & (near.sum(1) > 0)
    if not (counts.any() and alarms.isfinite().any()):
        return distance.sum() * 0, distance.new_ones(())
    found, rim = (
        logs[counts].gather(1, torch.multinomial(each[counts], pairs, replacement=True)) for each in (changed, near)
    )
    drawn = torch.multinomial(alarms.isfinite().to(logs.dtype), pairs * len(found), replacement=True)
    false = alarms[drawn].view(len(found), pairs)
    margins = torch.stack([each[:, None] - found[:, :, None] for each in (false, rim)])
    return F.softplus(margins / temperature).mean() * temperature, (margins[0] < 0).to(margins.dtype).mean()


def detect_with_memory(
    normal: Tensor, shown: Tensor, changed: Tensor, places: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return what a detector in small gets wrong: one that remembers other images and looks for changes.

    Source: ours; see :func:`memory_distance` and :func:`detection_loss`.

    Args:
        normal: embeddings of the remembered images, ``(M, D, h, w)``, see :func:`patch_embedding`.
        shown: of the images with changes, ``(B, D, h, w)``.
        changed: 1 where a pixel was changed, else 0, ``(B, 1, H, W)``.
        places: that are kept of the remembered images, drawn at random; all, where there are no more.
        temperature: of the comparison.

    Returns:
        the loss, not negative, and the share of pairs with false alarms that are in order, in ``[0, 1]``; both scalars.
    """
    remembered = normal.movedim(1, -1).flatten(0, 2)
    memory = remembered[torch.randperm(len(remembered), device=remembered.device)[:places]]
    return detection_loss(memory_distance(shown, memory, changed.shape[-2:]), changed, temperature)
