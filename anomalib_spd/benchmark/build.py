"""Builds what a configuration names: its ``class_path`` with its ``init_args``."""

import inspect
from argparse import ArgumentError
from functools import cache
from pydoc import locate
from typing import Any

from jsonargparse import ArgumentParser, Namespace

Config = dict[str, Any]


def build(base: type, config: Config) -> Any:
    """Return an instance of a subclass of ``base``.

    Args:
        base: class of Lightning's or anomalib's.
        config: ``class_path`` and ``init_args``.

    Raises:
        ValueError: see :func:`check`; constructors raise their own errors.
    """
    parser, parsed = _parse(base, config)
    return parser.instantiate_classes(parsed).it


def check(base: type, config: Config) -> Namespace:
    """Check a configuration against its class, and return all arguments, defaults too; nothing is built.

    Args:
        base: class of Lightning's or anomalib's.
        config: ``class_path`` and ``init_args``.

    Raises:
        ValueError: the path is not that of a subclass of ``base``, or an argument is unknown, missing, or of another type.
    """
    _, parsed = _parse(base, config)
    arguments: Namespace = parsed.it
    return arguments


@cache
def _parser(named: type) -> ArgumentParser:
    # not as a subclass of a base class: then errors list all that might be in its place
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(named, "it", fail_untyped=False)
    return parser


def _parse(base: type, config: Config) -> tuple[ArgumentParser, Namespace]:
    path = config.get("class_path")
    named: Any = locate(str(path))
    is_one = inspect.isclass(named) and issubclass(named, base)
    if not is_one:
        raise ValueError(f"{path!r} is not the import path of a subclass of {base.__name__}")
    parser = _parser(named)
    try:
        return parser, parser.parse_object({"it": config.get("init_args", {})})
    except ArgumentError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
