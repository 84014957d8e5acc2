"""``python -m anomalib_spd`` is the command ``anomalib-spd``."""

import sys

from .cli import main

sys.exit(main())
