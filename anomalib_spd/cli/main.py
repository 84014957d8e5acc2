"""The command ``anomalib-spd``: commands of this package, and stock anomalib's with our backbones registered.

Only what a command needs is imported: the console script answers ``--help`` and ``--version`` without importing torch.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from anomalib_spd.version import __version__

#: command -> its line in the help; ``anomalib_spd.cli.COMMAND`` has a function ``run(args) -> status``
COMMANDS = {
    "pretrain": "train a backbone to be sensitive to small local differences",
    "finetune": "adapt a backbone to normal images, with patches moved (CutSwap, CutPaste)",
    "twoclass": "train and test a classifier or a segmenter on normal and defective images",
    "backbones": "list, show, add, remove or export backbones",
    "benchmark": "measure a grid of backbones, detectors, categories and seeds",
    "report": "make tables and pictures of a grid's results",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        args: what follows ``anomalib-spd``; by default those of the process.

    Raises:
        SystemExit: after ``--help`` and ``--version`` with 0, after wrong usage with 2.
    """
    command, *rest = list(sys.argv[1:] if args is None else args) or ["--help"]
    if command.startswith("-"):
        _parser().parse_args([command, *rest])
    # anomalib's and timm's warnings about their own parts mean nothing to who runs a command
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
    import_module("anomalib_spd.backbones")  # registers the names
    if command in COMMANDS:
        status: int = import_module(f"anomalib_spd.cli.{command}").run(rest)
        return status
    import_module("anomalib.loggers").configure_logger()
    import_module("anomalib.cli.cli").AnomalibCLI([command, *rest])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "anomalib-spd",
        description="Backbones that are sensitive to small local differences, for stock anomalib.",
        epilog="Commands of stock anomalib (train, fit, validate, test, predict, export, ...) work as `anomalib COMMAND`, "
        "with our backbones registered. Every command has its own --help.",
    )
    parser.add_argument("-V", "--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands of this package", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser
