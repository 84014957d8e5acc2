"""Configuration files: found by name, merged, and filled from environment variables."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

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


def merge_config_files(args: Sequence[str]) -> list[str]:
    """Replace the ``--config`` options of a command line by one that holds their merged content.

    Mappings are merged; any other value of a later file replaces that of an earlier one. In a file, ``${oc.env:NAME}``
    stands for the environment variable NAME. Options of the command line replace what files say.

    Args:
        args: what follows the command.

    Raises:
        SystemExit: a file is missing, is not YAML, or names an environment variable that is not set.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    options, others = parser.parse_known_args(list(args))
    if not options.config:
        return others
    try:
        merged = OmegaConf.merge(*(OmegaConf.load(find_config(name)) for name in options.config))
        content = OmegaConf.to_container(merged, resolve=True)
    except InterpolationResolutionError as error:
        first_line = str(error).splitlines()[0]
        hint = "set it, as in NAME=VALUE anomalib-spd ..."
        raise SystemExit(f"error: {', '.join(options.config)}: {first_line}: {hint}") from None
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise SystemExit(f"error: {', '.join(options.config)}: {' '.join(str(error).split())}") from None
    return [f"--config={json.dumps(content)}", *others]
