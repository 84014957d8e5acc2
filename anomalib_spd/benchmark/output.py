"""Redirects the output of a process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Write all that this process prints to a file; file descriptors, as Lightning's logger keeps the stream of its start.

    Args:
        path: of the file.
    """
    streams = (sys.stdout, sys.stderr)
    before = [(number, os.dup(number)) for number in (1, 2)]
    with path.open("w") as log:
        for stream, (number, _) in zip(streams, before, strict=True):
            stream.flush()
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            for stream, (number, copy) in zip(streams, before, strict=True):
                stream.flush()
                os.dup2(copy, number)
                os.close(copy)
