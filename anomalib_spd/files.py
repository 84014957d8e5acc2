"""Where what can be computed again is kept."""

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

HOME_VARIABLE = "ANOMALIB_SPD_HOME"


def cache_folder(kind: str) -> Path:
    """Return the folder of a cache: ``.KIND`` in ``$ANOMALIB_SPD_HOME``, or ``KIND`` in the platform's folder for caches.

    Args:
        kind: of what is kept, such as ``"index"``.
    """
    home = os.environ.get(HOME_VARIABLE)
    # with a dot, since the shelf lies there too, and takes other folders for backbones
    return Path(home).expanduser() / f".{kind}" if home else platformdirs.user_cache_path("anomalib_spd", False) / kind


def first_few(paths: Sequence[str]) -> str:
    """Return the first three of some paths, for messages."""
    return ", ".join(paths[:3]) + (" ..." if len(paths) > 3 else "")
