"""Ends a command by SIGTERM as Ctrl-C does: what it has begun is undone on the way out."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """The process was asked to end; not an ``Exception``, which a cell of a grid would record."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise :class:`Terminated` where the process gets SIGTERM; signals can be handled in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> None:
    raise Terminated
