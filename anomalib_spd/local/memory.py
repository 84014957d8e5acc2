"""SPot-the-Difference of an image's locations and those of other images, as PatchCore compares them."""

import torch
from torch import Tensor

from anomalib_spd.local.base import LocalSPD, LocalTerms
from anomalib_spd.losses import detect_with_memory, distillation, patch_embedding


def compare_with_memory(
    training: LocalSPD,
    memory: Tensor,
    query: Tensor,
    memory_size: int,
    saliency: Tensor | None = None,
    replay_images: Tensor | None = None,
    masks: Tensor | None = None,
) -> LocalTerms:
    """Detect perturbations of query images by a memory of other images.

    Locations of the memory are embedded as PatchCore embeds them, and the distance of every location of the perturbed
    queries to the nearest of them is mapped as PatchCore maps it. Perturbed locations are to be farther than false alarms,
    see :func:`~anomalib_spd.losses.local.detection_loss`. The distillation is of the memory and the replay images.

    Source: ours.

    Args:
        training: gives networks and perturbations.
        memory: images ``(M, 3, H, W)`` in ``[0, 1]``.
        query: images to be perturbed, ``(B, 3, H, W)``.
        memory_size: locations in the memory, drawn at random; all of them where there are no more.
        saliency: maps ``(B, H, W)`` that guide the perturbations.
        replay_images: other images ``(R, 3, H, W)``, of the distillation alone; mean squares are of them, where there are
            some.
        masks: 1 where a query image has a defect, else 0, ``(B, 1, H, W)``; these queries are not perturbed.
    """
    perturbed, mask = training.perturb(query, saliency) if masks is None else (query, masks)
    replayed = 0 if replay_images is None else len(replay_images)
    originals = memory if replay_images is None else torch.cat([replay_images, memory])
    with torch.no_grad():
        teacher_maps = training.features(training.teacher, originals)
        teacher_mean_square = training.teacher_mean_square(teacher_maps)
    maps = training.features(training.encoder, torch.cat([originals, perturbed]))
    from_teacher = distillation([each[: len(originals)] for each in maps], teacher_maps, teacher_mean_square)
    compared = maps if replay_images is None else [each[replayed:] for each in maps]
    # the loss is of ratios, but for the constant that keeps distances from 0
    embeddings = patch_embedding(compared) / teacher_mean_square.sum().sqrt()
    of_memory, of_query = embeddings.tensor_split([len(memory)])
    return LocalTerms(
        from_teacher,
        *detect_with_memory(of_memory, of_query, mask, memory_size, training.temperature),
        training.encoder_mean_square([each[: replayed or len(memory)] for each in maps]) / teacher_mean_square,
    )


def check_memory(memory: int) -> None:
    """Check a number of locations.

    Raises:
        ValueError: where it is below 1.
    """
    if memory < 1:
        raise ValueError(f"`memory` is at least 1. Got {memory}.")
