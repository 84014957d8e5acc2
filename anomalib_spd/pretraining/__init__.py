"""Pre-training methods with SPot-the-Difference, as LightningModules."""

from anomalib_spd.local.cross_image import PartsSPD
from anomalib_spd.local.dense import DenseSPD
from anomalib_spd.local.memory import MemorySPD
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.pretraining.moco import MoCoSPD
from anomalib_spd.pretraining.simclr import SimCLRSPD
from anomalib_spd.pretraining.simsiam import SimSiamSPD
from anomalib_spd.pretraining.supervised import SupervisedSPD

__all__ = ["DenseSPD", "MemorySPD", "MoCoSPD", "PartsSPD", "SPDPretraining", "SimCLRSPD", "SimSiamSPD", "SupervisedSPD"]
