"""Pre-training methods with SPot-the-Difference, as LightningModules."""

from .base import SPDPretraining
from .supervised import SupervisedSPD

__all__ = ["SPDPretraining", "SupervisedSPD"]
