"""Fine-tuning of a backbone on normal images, into which changes are made: CutPaste, CutSwap, and ours on a memory."""

from anomalib_spd.data.normal_batches import NormalBatches
from anomalib_spd.finetuning.patch_classification import PatchClassification
from anomalib_spd.local.category import MemoryLocalization

__all__ = ["MemoryLocalization", "NormalBatches", "PatchClassification"]
