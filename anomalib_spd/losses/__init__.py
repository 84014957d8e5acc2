"""Losses as pure functions: contrastive, SPot-the-Difference on pooled features, and on maps."""

from anomalib_spd.losses.contrastive import info_nce, negative_cosine, nt_xent
from anomalib_spd.losses.local import (
    anomaly_map,
    detect_with_memory,
    detection_loss,
    distillation,
    localization_loss,
    mean_square,
    memory_distance,
    patch_distance,
    patch_embedding,
)
from anomalib_spd.losses.spd import spd_loss, two_way_loss

__all__ = [
    "anomaly_map",
    "detect_with_memory",
    "detection_loss",
    "distillation",
    "info_nce",
    "localization_loss",
    "mean_square",
    "memory_distance",
    "negative_cosine",
    "nt_xent",
    "patch_distance",
    "patch_embedding",
    "spd_loss",
    "two_way_loss",
]
