"""What a CPU does many times faster by an extension in C; where that cannot serve, torch does the same."""

from anomalib_spd.native.calls import Argument, call, serves, switched_off

__all__ = ["Argument", "call", "serves", "switched_off"]
