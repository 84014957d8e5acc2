"""Imports what every process of a grid needs (see :class:`~anomalib_spd.benchmark.runners.Processes`)."""

import warnings
from importlib import import_module

# warnings of anomalib about its own imports
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
for name in ("anomalib.data", "anomalib.models", "anomalib_spd.benchmark.run"):
    import_module(name)
