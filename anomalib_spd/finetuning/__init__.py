"""Fine-tuning of a backbone on normal images by the CutSwap paper's method."""

from anomalib_spd.finetuning.patch_classification import PatchClassification

__all__ = ["PatchClassification"]
