"""A small data set that is drawn, not downloaded: the images of the demo and of the tests."""

from anomalib_spd.data.sample.datamodule import Sample

__all__ = ["Sample"]
