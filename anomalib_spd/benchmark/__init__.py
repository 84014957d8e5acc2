"""Grids of backbones, detectors, categories and seeds, run through stock anomalib."""

from anomalib_spd.benchmark.measure import measure

__all__ = ["measure"]
