"""VisA's 2-class track: data modules and models that learn from normal and defective images."""

from anomalib_spd.twoclass.base import TwoClassModule
from anomalib_spd.twoclass.classifier import Classifier
from anomalib_spd.twoclass.data import TwoClass, TwoClassDataModule
from anomalib_spd.twoclass.segmenter import Segmenter
from anomalib_spd.twoclass.visa import VisaTwoClass

__all__ = ["Classifier", "Segmenter", "TwoClass", "TwoClassDataModule", "TwoClassModule", "VisaTwoClass"]
