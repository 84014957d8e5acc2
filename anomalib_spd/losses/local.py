"""Losses on the maps that detectors read, as pure functions. Source: ours, where nothing else is said."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

#: added to squared distances, as the root has no slope at 0
_LEAST_SQUARE = 1e-6


def mean_square(maps: Sequence[Tensor]) -> Tensor:
    r"""Return the mean square :math:`\mathrm{mean}\,|f_l|^2` of each layer's features, ``(L,)``.

    Args:
        maps: of each layer ``(B, C, h, w)``, floating.
    """
    return torch.stack([each.square().sum(1).mean() for each in maps])


def distillation(maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], teacher_mean_square: Tensor) -> Tensor:
    r"""Return how far each layer is from the teacher's, relative to the teacher's mean square.

    :math:`\mathrm{mean}\,|f_l - t_l|^2 / E_l` with the mean square :math:`E_l = \mathrm{mean}\,|t_l|^2`.

    Args:
        maps: of each layer ``(B, C, h, w)``, floating.
        teacher_maps: of the same shapes.
        teacher_mean_square: of the teacher's layers, ``(L,)``, positive.

    Returns:
        ``(L,)``, not negative.
    """
    return mean_square([each - target for each, target in zip(maps, teacher_maps, strict=True)]) / teacher_mean_square


def patch_embedding(maps: Sequence[Tensor]) -> Tensor:
    """Return PatchCore's embedding of locations: means of 3 x 3, enlarged to the first layer's size, concatenated.

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
    """Return PatchCore's anomaly map: distances ``(B, h, w)``, enlarged to ``(B, *size)`` and smoothed.

    Departure from anomalib, which enlarges to the nearest location: here bilinearly.
    """
    at_pixels = F.interpolate(distances[:, None], size=list(size), mode="bilinear")
    return gaussian_blur2d(at_pixels, (33, 33), (4.0, 4.0)).squeeze(1)


def patch_distance(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    r"""Return the anomaly map of negatives, whose memory is the same location of their positive.

    PatchCore's embedding is compared with the nearest of the positive's 3 x 3 locations around, so that a small shift
    costs nothing.

    Args:
        maps: of each layer ``(2 * B, C, h, w)``, floating, the positives first; the first layer has the largest.
        size: height and width of the images, pixels.

    Returns:
        the distances ``(B, *size)``, positive.
    """
    positive, negative = patch_embedding(maps).chunk(2)
    height, width = positive.shape[-2:]
    around = F.pad(positive, (1, 1, 1, 1), mode="replicate")
    squares = [
        (negative - around[:, :, y : y + height, x : x + width]).square().sum(1) for y in range(3) for x in range(3)
    ]
    return anomaly_map((torch.stack(squares).amin(0) + _LEAST_SQUARE).sqrt(), size)


def memory_distance(query: Tensor, memory: Tensor, size: Sequence[int]) -> Tensor:
    r"""Return PatchCore's anomaly map of query images, by a memory through which gradients flow.

    Args:
        query: embeddings ``(B, D, h, w)``, floating, see :func:`patch_embedding`.
        memory: embeddings of other images' locations, ``(M, D)``.
        size: height and width of the images, pixels.

    Returns:
        the distances to the nearest of the memory ``(B, *size)``, positive.
    """
    embeddings = query.movedim(1, -1)
    with torch.no_grad():
        nearest = torch.cdist(embeddings.flatten(0, 2), memory).argmin(1)
    squares = (embeddings - memory[nearest].view_as(embeddings)).square().sum(-1)
    return anomaly_map((squares + _LEAST_SQUARE).sqrt(), size)


def localization_loss(
    distance: Tensor, mask: Tensor, temperature: float, rim: int = 12, pairs: int = 256
) -> tuple[Tensor, Tensor]:
    r"""Rank the perturbed locations of an image above its unperturbed ones (dense SPot-the-Difference).

    :math:`L = \tau\,\mathrm{mean}_{i, j} \log(1 + \exp((\log d_j - \log d_i) / \tau))` over perturbed locations i and
    unperturbed locations j of the same image, drawn at random, half of the latter from the rim of the perturbation, where
    most of what PatchCore's maps get wrong lies. Only ratios of distances count, not the scale of the features.

    Args:
        distance: of each pixel, ``(B, H, W)``, positive.
        mask: 1 where a pixel is perturbed, else 0, ``(B, 1, H, W)``. Images without a perturbed or without an unperturbed
            pixel are left out.
        temperature: tau, positive.
        rim: width of the rim in both directions, pixels.
        pairs: perturbed, and unperturbed, locations drawn from each image.

    Returns:
        the loss, not negative, and the ranking accuracy, the share of pairs in the right order, in ``[0, 1]``; both scalars.
    """
    near, unperturbed = (_dilate(mask, rim) - mask).flatten(1), (1 - mask).flatten(1)
    both = (mask.flatten(1).sum(1) > 0) & (unperturbed.sum(1) > 0)
    if not both.any():
        return distance.sum() * 0, distance.new_ones(())
    logs, near, unperturbed = distance.log().flatten(1)[both], near[both], unperturbed[both]
    weights = unperturbed / unperturbed.sum(1, keepdim=True) + near / near.sum(1, keepdim=True).clamp(min=1)
    pixels = [torch.multinomial(each, pairs, replacement=True) for each in (mask.flatten(1)[both], weights)]
    d_perturbed, d_unperturbed = (logs.gather(1, each) for each in pixels)
    margins = d_unperturbed[:, None] - d_perturbed[:, :, None]
    return F.softplus(margins / temperature).mean() * temperature, (margins < 0).to(margins.dtype).mean()


def detection_loss(
    distance: Tensor, mask: Tensor, temperature: float, hardest: float = 0.05, rim: int = 12, pairs: int = 256
) -> tuple[Tensor, Tensor]:
    r"""Rank perturbed locations above the hardest unperturbed ones, a detector's false alarms.

    As :func:`localization_loss`, but half of the unperturbed locations are drawn from the farthest of **all** images of the
    batch, away from any perturbation; the other half from the rim of a perturbation of the same image.

    Args:
        distance: of each pixel to the memory, ``(B, H, W)``, positive.
        mask: 1 where a pixel is perturbed, else 0, ``(B, 1, H, W)``. Images without a perturbed pixel are left out.
        temperature: tau, positive.
        hardest: share of an image's pixels, its farthest unperturbed ones, from which false alarms are drawn.
        rim: width of the rim in both directions, pixels.
        pairs: perturbed, and unperturbed, locations drawn from each image.

    Returns:
        the loss, not negative, and the ranking accuracy, the share of pairs with false alarms in the right order, in
        ``[0, 1]``; both scalars.
    """
    dilated = _dilate(mask, rim).flatten(1)
    mask, logs = mask.flatten(1), distance.log().flatten(1)
    near = dilated - mask
    alarms = logs.masked_fill(dilated != 0, -torch.inf).topk(max(1, int(hardest * logs.shape[1]))).values.flatten()
    used = (mask.sum(1) > 0) & (near.sum(1) > 0)
    if not (used.any() and alarms.isfinite().any()):
        return distance.sum() * 0, distance.new_ones(())
    perturbed, beside = (
        logs[used].gather(1, torch.multinomial(each[used], pairs, replacement=True)) for each in (mask, near)
    )
    drawn = torch.multinomial(alarms.isfinite().to(logs.dtype), pairs * len(perturbed), replacement=True)
    false_alarms = alarms[drawn].view(len(perturbed), pairs)
    margins = torch.stack([each[:, None] - perturbed[:, :, None] for each in (false_alarms, beside)])
    return F.softplus(margins / temperature).mean() * temperature, (margins[0] < 0).to(margins.dtype).mean()


def detect_with_memory(
    memory: Tensor, query: Tensor, mask: Tensor, memory_size: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the detection loss of perturbed images by a memory of other images, as PatchCore has one.

    Args:
        memory: embeddings of the memory's images ``(M, D, h, w)``, see :func:`patch_embedding`.
        query: of the perturbed images, ``(B, D, h, w)``.
        mask: 1 where a pixel is perturbed, else 0, ``(B, 1, H, W)``.
        memory_size: locations in the memory, drawn at random; all of them where there are no more.
        temperature: tau, positive.

    Returns:
        see :func:`detection_loss`.
    """
    embeddings = memory.movedim(1, -1).flatten(0, 2)
    drawn = embeddings[torch.randperm(len(embeddings), device=embeddings.device)[:memory_size]]
    return detection_loss(memory_distance(query, drawn, mask.shape[-2:]), mask, temperature)


def _dilate(mask: Tensor, by: int) -> Tensor:
    """Return a mask ``(B, 1, H, W)`` grown by pixels in both directions, one after the other: a square window is slower."""
    window = 2 * by + 1
    return F.max_pool2d(F.max_pool2d(mask, (window, 1), 1, (by, 0)), (1, window), 1, (0, by))
