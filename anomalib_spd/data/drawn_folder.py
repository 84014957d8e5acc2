"""Folders of images that are drawn once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalib_spd.files import atomic_folder


@contextmanager
def drawn_folder(folder: Path, content: str) -> Iterator[Path]:
    """Make a folder of drawn images, see :func:`~anomalib_spd.files.atomic_folder`; of two processes at once the first wins.

    Args:
        folder: the folder to make; it takes its name in one step, so an existing folder is complete.
        content: what it holds, for messages.

    Yields:
        The folder to fill.

    Raises:
        OSError: if the folder cannot be written; the message names it.
    """
    try:
        with atomic_folder(folder) as made:
            yield made
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            # given its number, OSError becomes the fitting subclass, such as PermissionError
            message = f"cannot write {content} ({error.strerror or error}); choose another root for it"
            raise OSError(error.errno, message, str(folder)) from error
