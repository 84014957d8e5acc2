"""Imports what every process of a grid needs, see :class:`~anomalib_spd.benchmark.runners.Processes`."""

import warnings
from importlib import import_module

# anomalib's import of its own parts
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
for name in ("anomalib.data", "anomalib.models", "anomalib_spd.benchmark.cell", "anomalib_spd.cli.finetune"):
    import_module(name)
