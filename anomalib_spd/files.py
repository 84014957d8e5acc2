"""Where what can be computed again is kept."""

import os
from pathlib import Path

import platformdirs

from anomalib_spd.backbones.registry import HOME_VARIABLE


def cache_folder(kind: str) -> Path:
    """Return the folder of a cache: ``.KIND`` in ``$ANOMALIB_SPD_HOME``, or ``KIND`` in the platform's folder for caches.

    Args:
        kind: of what is kept, such as ``"index"``.
    """
    home = os.environ.get(HOME_VARIABLE)
    # with a dot, since the shelf lies there too, and takes other folders for backbones
    return Path(home).expanduser() / f".{kind}" if home else platformdirs.user_cache_path("anomalib_spd", False) / kind
