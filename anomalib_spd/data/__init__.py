"""Images for pre-training, and the embedded sample."""

from .images import ImageFolder, LabelledImages

__all__ = ["ImageFolder", "LabelledImages"]
