"""Pre-training methods with SPot-the-Difference on pooled features, as LightningModules."""

from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.pretraining.moco import MoCoSPD
from anomalib_spd.pretraining.simclr import SimCLRSPD
from anomalib_spd.pretraining.simsiam import SimSiamSPD
from anomalib_spd.pretraining.supervised import SupervisedSPD

__all__ = ["MoCoSPD", "SPDPretraining", "SimCLRSPD", "SimSiamSPD", "SupervisedSPD"]
