"""Images for pre-training, and the embedded sample."""

from .images import ImageFolder, LabelledImages
from .sample import Sample

__all__ = ["ImageFolder", "LabelledImages", "Sample"]
