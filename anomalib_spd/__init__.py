"""Backbones that are sensitive to small local differences, for every stock anomalib pipeline.

Importing the package registers the catalogue's and the user's own backbones with timm, where anomalib looks names up. That
imports torch, so the console script ``anomalib-spd`` leaves it to the commands that need names: ``--help`` answers at once.
"""

import sys
from pathlib import Path

from anomalib_spd.version import __version__

__all__ = ["__version__", "backbones"]

if Path(sys.argv[0]).stem != "anomalib-spd":
    from anomalib_spd import backbones
