"""Grids of backbones, detectors, categories and seeds, run through stock anomalib."""
