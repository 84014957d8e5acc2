"""The version, alone in its file so that building the wheel needs no torch."""

__version__ = "0.1.0"
