"""The shelf: names to weights, as stock anomalib sees them."""

from anomalib_spd.backbones.averaging import average
from anomalib_spd.backbones.catalog import Backbone, Provenance
from anomalib_spd.backbones.manage import add, export, remove
from anomalib_spd.backbones.shelf import available, find, register, shelf_folder
from anomalib_spd.backbones.statistics import fold_input_statistics

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
    "remove",
    "shelf_folder",
]
