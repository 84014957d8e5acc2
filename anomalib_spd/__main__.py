"""Runs the command ``anomalib-spd`` as ``python -m anomalib_spd``."""

import sys

from anomalib_spd.cli.main import main

sys.exit(main())
