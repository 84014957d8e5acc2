"""Images for pre-training, the embedded sample, and data with defects to train on."""

from anomalib_spd.data.categories import KindFolder, SyntheticParts
from anomalib_spd.data.images import ImageFolder, LabelledImages
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.normal_images import NormalImages
from anomalib_spd.data.sample.datamodule import Sample
from anomalib_spd.data.shards import ImageShards
from anomalib_spd.twoclass.data import TwoClass, TwoClassDataModule
from anomalib_spd.twoclass.visa import VisaTwoClass

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
