"""Configuration files: found by name, merged, and filled from environment variables."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from anomalib_spd.spelling import did_you_mean

#: that a file may have, aliases counted as what they stand for
MOST_VALUES = 50_000
SHIPPED = Path(__file__).parent / "configs"


#: how a name is read; for helps
RULE = """\
--config takes the path of a file or the name of a recipe, with .yaml or without, in every command. A file that exists as
it is written wins over a recipe of this name. A recipe may name others as `config`: it changes what they say."""


def recipe_names() -> list[str]:
    """Return the names of the files that ship, such as ``benchmark/quick``."""
    return sorted(path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))


def shipped(name: str) -> Path:
    """Return the path of a file that ships.

    Args:
        name: such as ``benchmark/quick``, with ``.yaml`` or without.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    plain, names = name.removesuffix(".yaml"), recipe_names()
    if plain not in names:
        raise FileNotFoundError(
            f"no such file or recipe: {name}{did_you_mean(plain, names)}; 'anomalib-spd recipes list' has all recipes"
        )
    return SHIPPED / f"{plain}.yaml"


def find_config(name: str) -> Path:
    """Return the path of a configuration file.

    Args:
        name: a path, or the name of a file that ships with the package, such as ``benchmark/quick``. A file of this very
            name wins.

    Raises:
        FileNotFoundError: it is neither.
    """
    return Path(name) if Path(name).is_file() else shipped(name)


def name_config_files(args: Sequence[str]) -> list[str]:
    """Replace the names of recipes behind ``--config`` by their paths, for commands that read files by themselves.

    Args:
        args: what follows the command.

    Raises:
        FileNotFoundError: a name is that of no file and of no recipe.
    """
    named: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if named and named[-1] in ("-c", "--config"):
            named.append(str(find_config(arg)))
        elif option == "--config" and equals:
            named.append(f"--config={find_config(value)}")
        else:
            named.append(arg)
    return named


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


def _load(name: str) -> Any:
    """Return the content of a file, merged into that of the files that it names as ``config``."""
    path = find_config(name)
    _check_aliases(path)
    content: Any = OmegaConf.load(path)
    names = content.pop("config", []) if isinstance(content, DictConfig) else []
    return OmegaConf.merge(*map(_load, [names] if isinstance(names, str) else names), content)


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of values below a node, each as often as aliases repeat it."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # of a node that holds itself
        children = [] if node is None or isinstance(node, yaml.ScalarNode) else node.value
        flat = [part for each in children for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_size(each, known) for each in flat)
    return known[id(node)]


def load_config_files(
    names: Sequence[str], values: Mapping[str, Any] | None = None, *, resolve: bool = True
) -> dict[str, Any]:
    """Return the merged content of configuration files, and of those that they name as ``config``.

    Mappings are merged; any other value of a later file replaces that of an earlier one, and of those that it names.
    ``${oc.env:NAME}`` stands for the environment variable NAME, ``${KEY}`` for another value.

    Args:
        names: of the files, see :func:`find_config`.
        values: replace those of the files; a key may have dots (``{"trainer.max_steps": 60}``).
        resolve: fill in what stands for another value.

    Raises:
        ValueError: a file is missing, is not YAML, or names an environment variable that is not set.
    """
    where = ", ".join(names)
    try:
        config = OmegaConf.merge({}, *map(_load, names))
        for key, value in (values or {}).items():
            OmegaConf.update(config, key, value)
        content: Any = OmegaConf.to_container(config, resolve=resolve)
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
