"""Names that a misspelt one may stand for."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return for example ``", did you mean 'bottle'?"``, or nothing where no known name is similar."""
    similar = get_close_matches(name, list(known), 1)
    return f", did you mean {similar[0]!r}?" if similar else ""
