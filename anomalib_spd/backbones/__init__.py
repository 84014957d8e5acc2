"""Backbones: names that stock anomalib takes, and the weights behind them. Importing this package registers them with timm."""

from anomalib_spd.backbones.feature_layers import layers
from anomalib_spd.backbones.install import add, export, remove
from anomalib_spd.backbones.normalization import fold_input_statistics
from anomalib_spd.backbones.record import Backbone, Provenance
from anomalib_spd.backbones.registry import available, find, register, registry_folder

__all__ = [
    "Backbone",
    "Provenance",
    "add",
    "available",
    "export",
    "find",
    "fold_input_statistics",
    "layers",
    "register",
    "registry_folder",
    "remove",
]

register()
