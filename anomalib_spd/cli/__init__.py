"""The command ``anomalib-spd``, one file a command."""
