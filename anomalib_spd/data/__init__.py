"""Images for pre-training, the embedded sample, and data with defects to train on."""

from .images import ImageFolder, LabelledImages
from .sample import Sample
from .two_class import TwoClass, TwoClassDataModule
from .visa import VisaTwoClass

__all__ = ["ImageFolder", "LabelledImages", "Sample", "TwoClass", "TwoClassDataModule", "VisaTwoClass"]
