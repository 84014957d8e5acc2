"""Pre-training methods with SPot-the-Difference, as LightningModules."""

from .base import SPDPretraining
from .dense import DenseSPD
from .memory import MemorySPD
from .moco import MoCoSPD
from .parts import PartsSPD
from .simclr import SimCLRSPD
from .simsiam import SimSiamSPD
from .supervised import SupervisedSPD

__all__ = ["DenseSPD", "MemorySPD", "MoCoSPD", "PartsSPD", "SPDPretraining", "SimCLRSPD", "SimSiamSPD", "SupervisedSPD"]
