"""Backbones that are sensitive to small local differences, for every stock anomalib pipeline.

Importing the package registers the catalogue's and the user's own backbones with timm, where anomalib looks names up. That
imports torch, so the console script ``anomalib-spd`` leaves it to the commands that need names: ``--help`` answers at once.
``adapt`` and ``pretrain`` are imported when they are used, as they need anomalib.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_spd.version import __version__

if TYPE_CHECKING:
    from anomalib_spd.finetuning.adapt import adapt
    from anomalib_spd.pretraining.run import pretrain

__all__ = ["__version__", "adapt", "backbones", "pretrain"]

#: name -> the module that has it
_LATE = {"adapt": "anomalib_spd.finetuning.adapt", "pretrain": "anomalib_spd.pretraining.run"}

if Path(sys.argv[0]).stem != "anomalib-spd":
    from anomalib_spd import backbones


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
