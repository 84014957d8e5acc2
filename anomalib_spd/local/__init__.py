"""SPot-the-Difference on the maps that detectors read (ours): dense, cross-image, and category adaptation."""

from anomalib_spd.local.category import CategoryAdaptation
from anomalib_spd.local.cross_image import CrossImageSPD
from anomalib_spd.local.dense import DenseSPD
from anomalib_spd.local.memory import MemorySPD

__all__ = ["CategoryAdaptation", "CrossImageSPD", "DenseSPD", "MemorySPD"]
