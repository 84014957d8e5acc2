"""The shelf: names to weights, as stock anomalib sees them."""

from .catalog import Backbone, Provenance
from .shelf import available, find, register, shelf_folder
from .statistics import fold_input_statistics

__all__ = ["Backbone", "Provenance", "available", "find", "fold_input_statistics", "register", "shelf_folder"]
