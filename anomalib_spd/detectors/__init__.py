"""Stock detectors with the same results in less time, or on any backbone, and their pre-processing."""

from anomalib_spd.detectors.cfa import Cfa
from anomalib_spd.detectors.fastflow import Fastflow
from anomalib_spd.detectors.k_center_greedy import KCenterGreedy
from anomalib_spd.detectors.patchcore import FastPatchcore
from anomalib_spd.detectors.uflow import Uflow

__all__ = ["Cfa", "FastPatchcore", "Fastflow", "KCenterGreedy", "Uflow"]
