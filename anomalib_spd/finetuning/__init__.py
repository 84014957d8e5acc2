"""Fine-tuning of a backbone on normal images, into which changes are made: CutPaste, CutSwap, and ours on a memory."""

from .memory_localization import MemoryLocalization
from .normal_batches import NormalBatches
from .patch_classification import PatchClassification

__all__ = ["MemoryLocalization", "NormalBatches", "PatchClassification"]
