"""A small data set that is drawn, not downloaded: the demo's and the tests' images."""

from anomalib_spd.data.sample.datamodule import Sample

__all__ = ["Sample"]
