"""VisA's 2-class track: normal and defective images to learn from, as LightningModules of anomalib."""

from .base import TwoClassModule
from .classifier import Classifier
from .segmenter import Segmenter

__all__ = ["Classifier", "Segmenter", "TwoClassModule"]
