"""Exported detectors: that they score like the trained one, and how fast they are."""

from anomalib_spd.deploy.run import deploy

__all__ = ["deploy"]
