"""Backbones that see small local differences, for every stock anomalib pipeline.

Importing the package puts the catalogue and the user's own shelf on timm's shelf, where anomalib looks names up.
"""

from anomalib_spd import backbones
from anomalib_spd.version import __version__

backbones.register()

__all__ = ["__version__", "backbones"]
