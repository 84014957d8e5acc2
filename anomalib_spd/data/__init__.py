"""Images for pre-training, the embedded sample, and data with defects to train on."""

from .images import ImageFolder, LabelledImages
from .index import ImageIndex
from .kind_folder import KindFolder, SyntheticParts
from .normal_images import NormalImages
from .sample import Sample
from .shards import ImageShards
from .two_class import TwoClass, TwoClassDataModule
from .visa import VisaTwoClass

__all__ = [
    "ImageFolder",
    "ImageIndex",
    "ImageShards",
    "KindFolder",
    "LabelledImages",
    "NormalImages",
    "Sample",
    "SyntheticParts",
    "TwoClass",
    "TwoClassDataModule",
    "VisaTwoClass",
]
