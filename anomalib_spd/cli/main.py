"""The command ``anomalib-spd``: commands of this package, and stock anomalib's with our backbones registered.

Only what a command needs is imported: the console script answers ``--help`` and ``--version`` without importing torch.
"""

import argparse
import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from anomalib_spd.cli.short_help import SHORT_HELP
from anomalib_spd.cli.termination import Terminated, terminable
from anomalib_spd.cli.usage import OneLineParser
from anomalib_spd.config_files import RULE, name_config_files
from anomalib_spd.files import is_disk_full, one_line
from anomalib_spd.spelling import did_you_mean
from anomalib_spd.version import __version__

#: command -> its line in the help; ``anomalib_spd.cli.COMMAND`` has a function ``run(args) -> status``
COMMANDS = {
    "pretrain": "train a backbone to be sensitive to small local differences",
    "adapt": "adapt a backbone to the normal images of your parts: finetune with the recipe finetune/adapt",
    "finetune": "train a backbone on normal images by any of the recipes",
    "twoclass": "train and test a classifier or a segmenter on normal and defective images",
    "defects": "draw defects on good images, as thresholds are chosen on, and look at them",
    "backbones": "list, show, add, remove or export backbones",
    "benchmark": "measure a grid of backbones, detectors, categories and seeds",
    "deploy": "export a trained detector, and measure the files beside it",
    "report": "make tables and pictures of a grid's results",
    "saliency": "draw where backbones see that images are not like good ones",
    "recipes": "list, show or copy the configuration files that ship",
}
#: commands whose options are in a module of their own, ``anomalib_spd.cli.COMMAND_options``, which imports little
OPTIONS = ("backbones", "defects", "report", "saliency")
#: commands that train by Lightning, which handles SIGTERM itself
TRAININGS = ("pretrain", "adapt", "finetune", "twoclass")
#: what a user can mend: one line, no traceback
ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, or 1 after an error, which is one line. Wrong usage exits with 2.

    Args:
        args: what follows ``anomalib-spd``; by default those of the process. With ``--debug`` among them, errors are raised.

    Raises:
        SystemExit: after ``--help`` and ``--version`` with 0, after wrong usage with 2.
    """
    given = list(sys.argv[1:] if args is None else args)
    command, *rest = [each for each in given if each != "--debug"] or ["--help"]
    if command.startswith("-"):
        _parser().parse_args([command, *rest])
    is_help = command in COMMANDS and bool({"-h", "--help"} & {*rest})
    if is_help and command in SHORT_HELP:
        if "all" not in rest:
            print(SHORT_HELP[command], end="")
            raise SystemExit(0)
        rest = ["--help"]
    elif is_help and command in OPTIONS:
        import_module(f"anomalib_spd.cli.{command}_options").parser().parse_args(rest)
    # anomalib's and timm's warnings about their own parts mean nothing to who runs a command
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
    try:
        if command != "recipes":
            import_module("anomalib_spd.backbones")  # registers the names
        with terminable() if command in COMMANDS and command not in TRAININGS else nullcontext():
            return _run(command, rest)
    except ERRORS as error:
        if "--debug" in given:
            raise
        print("error:", _described(error), file=sys.stderr)
        return 1
    # trainings and grids that have begun say themselves how to go on
    except KeyboardInterrupt:
        return _interrupted(signal.SIGINT)
    except Terminated:
        return _interrupted(signal.SIGTERM)


def _interrupted(by: signal.Signals) -> int:
    print(f"Interrupted ({by.name}).", file=sys.stderr)
    return 128 + by


def _described(error: Exception) -> str:
    text = _with_similar_name(one_line(error)) or f"{type(error).__name__}, without a word; --debug shows where"
    return text + ". Make room and give the same command again" * (is_disk_full(error) and "Make room" not in text)


def _run(command: str, args: list[str]) -> int:
    if command == "adapt":
        command, args = "finetune", ["--config", "finetune/adapt", *args]
    if command in COMMANDS:
        run: Callable[[list[str]], int] = import_module(f"anomalib_spd.cli.{command}").run
        return run(args)
    stock: Any = import_module("anomalib.cli.cli").AnomalibCLI
    known = [*COMMANDS, *stock.subcommands(), *stock.anomalib_subcommands(), "install"]
    if command not in known:
        _parser().error(f"there is no command {command!r}{did_you_mean(command, known)}; there are: {', '.join(known)}")
    # not anomalib's configure_logger, which prints each line twice
    logging.basicConfig(format="%(asctime)s - %(name)s - %(levelname)s - %(message)s", level=logging.INFO)
    stock([command, *name_config_files(args)])
    return 0


def _with_similar_name(message: str) -> str:
    """Return a message without what jsonargparse puts around it, timm's of an unknown model with the name that may be meant."""
    unknown = re.search(r"Unknown model \((.*?)\)", message)
    if unknown is None:
        # the error of a data module's constructor in a stock command: jsonargparse adds that there might have been none
        own = re.search(
            r"AnomalibDataModule'>\] Errors: - Expected a <class 'NoneType'> - (.*?) Given value type: ", message
        )
        return own[1] if own else message
    models: Any = import_module("timm").list_models()
    name = unknown[1]
    return f"Unknown model ({name}): neither the registry nor timm has it{did_you_mean(name, models)}"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        "anomalib-spd",
        description="Backbones that are sensitive to small local differences, for stock anomalib.",
        epilog="Commands of stock anomalib (train, fit, validate, test, predict, export, ...) work as `anomalib COMMAND`, "
        f"with our backbones registered. Every command has its own --help, and those of trainings and grids --help all. {RULE}",
    )
    parser.add_argument("-V", "--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show where an error was raised; anywhere in a command")
    commands = parser.add_subparsers(title="commands of this package", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser
