"""Pictures of parts and surfaces that nobody makes: textures, shapes, kinds, and the folder they are kept in."""

from .folder import make_parts
from .kinds import Kind

__all__ = ["Kind", "make_parts"]
