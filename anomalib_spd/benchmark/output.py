"""Where the output of a process goes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send all that this process prints to a file: Lightning's logger holds on to the stream that it started with.

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
