"""Configuration files: found by name, merged, and filled from environment variables."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

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
        config = OmegaConf.merge({}, *(OmegaConf.load(find_config(name)) for name in names))
        for key, value in (values or {}).items():
            OmegaConf.update(config, key, value)
        content: Any = OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"{where}: {first_line}: set it, as in NAME=VALUE anomalib-spd ...") from None
    except (OSError, YAMLError, OmegaConfBaseException) as error:
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
