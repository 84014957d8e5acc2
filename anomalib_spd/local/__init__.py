"""SPot-the-Difference on the maps that detectors read (ours): dense, across images, and adapted to a category."""

from anomalib_spd.local.base import LocalSPD
from anomalib_spd.local.category import CategoryAdaptation
from anomalib_spd.local.cross_image import CrossImageSPD
from anomalib_spd.local.dense import DenseSPD

__all__ = ["CategoryAdaptation", "CrossImageSPD", "DenseSPD", "LocalSPD"]
