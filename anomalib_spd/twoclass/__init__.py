"""VisA's 2-class track: normal and defective images to learn from, as LightningModules of anomalib."""

from anomalib_spd.twoclass.base import TwoClassModule
from anomalib_spd.twoclass.classifier import Classifier
from anomalib_spd.twoclass.segmenter import Segmenter

__all__ = ["Classifier", "Segmenter", "TwoClassModule"]
