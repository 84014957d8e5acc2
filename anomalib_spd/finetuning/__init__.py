"""Fine-tuning of a backbone on normal images, of which patches are moved: CutPaste and CutSwap."""

from .normal_batches import NormalBatches
from .patch_classification import PatchClassification

__all__ = ["NormalBatches", "PatchClassification"]
