"""The command ``anomalib-spd``: stock anomalib's subcommands with the shelf loaded, and our own beside them."""

import sys
import warnings
from collections.abc import Callable, Sequence

from anomalib_spd import __version__

USAGE = """\
anomalib-spd {version}

usage: anomalib-spd COMMAND ...

commands of this package:
  pretrain    train a backbone to see small local differences
  finetune    adapt a backbone to normal images, of which patches are moved (CutSwap, CutPaste)
  twoclass    train and test a classifier or a segmenter on normal and defective images
  backbones   list, show, add, remove or export the backbones on the shelf
  benchmark   measure a grid of backbones, detectors, categories and seeds
  report      tables and pictures of a grid's results

commands of stock anomalib, with the shelf loaded:
  train, fit, validate, test, predict, export, ...

Every command has its own --help.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        args: what follows ``anomalib-spd``; by default those of the process.
    """
    command, *rest = list(sys.argv[1:] if args is None else args) or ["--help"]
    if command in {"-h", "--help"}:
        print(USAGE.format(version=__version__))
        return 0
    if command == "--version":
        print(__version__)
        return 0
    own: dict[str, Callable[[list[str]], int]] = {
        "pretrain": pretrain,
        "finetune": finetune,
        "twoclass": twoclass,
        "backbones": backbones,
        "benchmark": benchmark,
        "report": report,
    }
    if command in own:
        # anomalib's import of its own parts, of no use to who runs a command
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
        return own[command](rest)
    from anomalib.cli.cli import AnomalibCLI
    from anomalib.loggers import configure_logger

    configure_logger()
    AnomalibCLI([command, *rest])
    return 0


def pretrain(args: list[str]) -> int:
    """Train a backbone: ``anomalib-spd pretrain --config FILE``."""
    from anomalib_spd.cli.pretrain import run

    return run(args)


def finetune(args: list[str]) -> int:
    """Adapt a backbone to normal images: ``anomalib-spd finetune --config FILE --data DATA --name NAME``."""
    from anomalib_spd.cli.finetune import run

    return run(args)


def twoclass(args: list[str]) -> int:
    """Train and test a model on normal and defective images: ``anomalib-spd twoclass --config FILE``."""
    from anomalib_spd.cli.twoclass import run

    return run(args)


def backbones(args: list[str]) -> int:
    """Manage the shelf: ``anomalib-spd backbones list``."""
    from anomalib_spd.cli.backbones import run

    return run(args)


def benchmark(args: list[str]) -> int:
    """Measure a grid: ``anomalib-spd benchmark --config FILE``."""
    from anomalib_spd.cli.benchmark import run

    return run(args)


def report(args: list[str]) -> int:
    """Tables and pictures of a grid: ``anomalib-spd report RESULTS``."""
    from anomalib_spd.cli.report import run

    return run(args)
