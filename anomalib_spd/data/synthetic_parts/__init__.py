"""Pictures of parts and surfaces that nobody makes: textures, shapes, kinds, and the folder they are kept in."""

from anomalib_spd.data.synthetic_parts.folder import make_parts
from anomalib_spd.data.synthetic_parts.kinds import Kind

__all__ = ["Kind", "make_parts"]
