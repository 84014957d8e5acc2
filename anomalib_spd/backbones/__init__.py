"""The shelf: names to weights, as stock anomalib sees them."""

from anomalib_spd.backbones.averaging import average
from anomalib_spd.backbones.install import add, export, remove
from anomalib_spd.backbones.normalization import fold_input_statistics
from anomalib_spd.backbones.record import Backbone, Provenance
from anomalib_spd.backbones.registry import available, find, register, registry_folder

__all__ = [
    "Backbone",
    "Provenance",
    "add",
    "available",
    "average",
    "export",
    "find",
    "fold_input_statistics",
    "register",
    "registry_folder",
    "remove",
]
