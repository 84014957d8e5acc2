"""Images for pre-training and adaptation, and the embedded sample."""

from anomalib_spd.data.categories import CategoryFolder, SyntheticParts
from anomalib_spd.data.defects import DefectFolder
from anomalib_spd.data.images import ImageFolder, LabelledImages
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.normal_images import NormalImages
from anomalib_spd.data.sample import Sample
from anomalib_spd.data.shards import ImageShards
from anomalib_spd.data.synthetic_validation import SyntheticValidation

__all__ = [
    "CategoryFolder",
    "DefectFolder",
    "ImageFolder",
    "ImageIndex",
    "ImageShards",
    "LabelledImages",
    "NormalImages",
    "Sample",
    "SyntheticParts",
    "SyntheticValidation",
]
