"""Draws and splits by a hash of the images' names.

They depend on the names and one number alone: not on a file system's order, a machine, or the random generator of a library's
version. Source: ours; the paper does not say which images it drew.
"""

import hashlib
from collections.abc import Sequence


def hash_order(paths: Sequence[str], number: int) -> list[str]:
    """Sort paths by the SHA-256 of ``"<number>:<path>"`` (UTF-8, hexadecimal), ascending.

    The first k paths are draw ``number`` of k images, so a draw of 5 is the beginning of the draw of 10.

    Args:
        paths: of images, relative to the folder of their set, with ``/`` between the parts.
        number: of the draw or split; each gives another order.
    """
    return sorted(paths, key=lambda path: hashlib.sha256(f"{number}:{path}".encode()).hexdigest())


def hash_split(paths: Sequence[str], fraction: float, number: int) -> tuple[list[str], list[str]]:
    """Split paths into the first ``round(fraction * len(paths))`` of :func:`hash_order`, and the rest.

    Args:
        paths: see :func:`hash_order`.
        fraction: size of the first part, in ``[0, 1]``.
        number: of the split.
    """
    order = hash_order(paths, number)
    size = round(fraction * len(order))
    return order[:size], order[size:]
