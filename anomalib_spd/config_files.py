"""Configuration files: found by name, merged, and filled from environment variables."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

#: that a file may have, aliases counted as what they stand for
MOST_VALUES = 50_000
SHIPPED = Path(__file__).parent / "configs"


def find_config(name: str) -> Path:
    """Return the path of a configuration file.

    Args:
        name: a path, or the name of a file that ships with the package, such as ``benchmark/quick.yaml``.

    Raises:
        FileNotFoundError: it is neither.
    """
    for path in (Path(name), SHIPPED / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no such file: {name}; files that ship with the package are in {SHIPPED}")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ValueError: it is not YAML, or its aliases repeat too many values.
    """
    try:
        _check_aliases(path)
        return yaml.safe_load(path.read_bytes())
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _check_aliases(path: Path) -> None:
    """Check that a YAML file is not endless: aliases of aliases multiply, and one may stand for what it is in."""
    if _size(yaml.compose(path.read_bytes(), yaml.SafeLoader), {}) > MOST_VALUES:
        raise ValueError(f"its aliases repeat more than {MOST_VALUES} values: write out what it needs")


def _load(path: Path) -> Any:
    _check_aliases(path)
    return OmegaConf.load(path)


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of values below a node, each as often as aliases repeat it."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # of a node that holds itself
        children = [] if node is None or isinstance(node, yaml.ScalarNode) else node.value
        flat = [part for each in children for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_size(each, known) for each in flat)
    return known[id(node)]


def load_config_files(names: Sequence[str], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the merged content of configuration files.

    Mappings are merged; any other value of a later file replaces that of an earlier one. ``${oc.env:NAME}`` stands for the
    environment variable NAME.

    Args:
        names: of the files, see :func:`find_config`.
        values: replace those of the files; a key may have dots (``{"trainer.max_steps": 60}``).

    Raises:
        ValueError: a file is missing, is not YAML, or names an environment variable that is not set.
    """
    where = ", ".join(names)
    try:
        config = OmegaConf.merge({}, *(_load(find_config(name)) for name in names))
        for key, value in (values or {}).items():
            OmegaConf.update(config, key, value)
        content: Any = OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"{where}: {first_line}: set it, as in NAME=VALUE anomalib-spd ...") from None
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None
    return dict(content)


def merge_config_files(args: Sequence[str]) -> list[str]:
    """Replace the ``--config`` options of a command line by one that holds the merged content of the files.

    Options of the command line replace what files say.

    Args:
        args: what follows the command.

    Raises:
        SystemExit: a file cannot be read, see :func:`load_config_files`.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    options, others = parser.parse_known_args(list(args))
    if not options.config:
        return others
    try:
        return [f"--config={json.dumps(load_config_files(options.config))}", *others]
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
