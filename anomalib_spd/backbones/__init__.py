"""The shelf: names to weights, as stock anomalib sees them."""

from .averaging import average
from .catalog import Backbone, Provenance
from .manage import add, export, remove
from .shelf import available, find, register, shelf_folder
from .statistics import fold_input_statistics

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
