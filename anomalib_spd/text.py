"""Text for people: names that a misspelt one may stand for, and text of others without control characters."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return for example ``", did you mean 'bottle'?"``, or nothing where no known name is similar."""
    similar = get_close_matches(name, list(known), 1)
    return f", did you mean {similar[0]!r}?" if similar else ""


def printable(text: str) -> str:
    """Return text on one line, without what a terminal or a table would obey instead of showing it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
