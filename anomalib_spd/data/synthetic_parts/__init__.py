"""Images of synthetic parts and surfaces: textures, shapes, part categories, and the folder that holds the images."""

from anomalib_spd.data.synthetic_parts.folder import make_parts
from anomalib_spd.data.synthetic_parts.part_category import PartCategory

__all__ = ["PartCategory", "make_parts"]
