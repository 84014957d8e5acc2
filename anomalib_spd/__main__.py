"""``python -m anomalib_spd`` is the command ``anomalib-spd``."""

import sys

from anomalib_spd.cli.main import main

sys.exit(main())
