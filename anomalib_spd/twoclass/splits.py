"""The rule of every draw and split: the order of a hash of the images' names.

It depends on the names and one number alone: not on the order in which a file system lists them, nor on a machine, nor
on the random generator of some version of a library. Source: ours; the paper does not say which images it drew.
"""

from collections.abc import Sequence

from anomalib_spd.files import digest


def ranked(paths: Sequence[str], number: int) -> list[str]:
    """Order paths by the SHA-256 of ``"<number>:<path>"`` (UTF-8, hexadecimal), ascending.

    The first k of the list are the draw of k with that number, so a draw of 5 is the beginning of the draw of 10.

    Args:
        paths: of images, relative to the folder of their set, with ``/`` between the parts.
        number: of the draw or split; each gives another order.

    Returns:
        The same paths.
    """
    return sorted(paths, key=lambda path: digest(f"{number}:{path}"))


def divided(paths: Sequence[str], fraction: float, number: int) -> tuple[list[str], list[str]]:
    """Divide paths in two: the first ``round(fraction * len(paths))`` of :func:`ranked`, and the rest.

    Args:
        paths: as of :func:`ranked`.
        fraction: of the first part, in ``[0, 1]``.
        number: of the split.

    Returns:
        The two parts, each ranked.
    """
    order = ranked(paths, number)
    size = round(fraction * len(order))
    return order[:size], order[size:]
