"""Backbones that see small local differences, for every stock anomalib pipeline.

Importing the package puts the catalogue and the user's own shelf on timm's shelf, where anomalib looks names up.
"""

from . import backbones
from .version import __version__

backbones.register()

__all__ = ["__version__", "backbones"]
