"""The command ``anomalib-spd``: stock anomalib's subcommands with the shelf loaded, and our own beside them."""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__

USAGE = """\
anomalib-spd {version}

usage: anomalib-spd COMMAND ...

commands of this package:
  pretrain    train a backbone to see small local differences
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
    from lightning.pytorch import LightningDataModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.loggers import CSVLogger

    from .pretraining import SPDPretraining

    class PretrainCLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_argument(
                "--ckpt_path",
                type=str | None,
                default="last",
                help="checkpoint to go on from: 'last' is this run's own, if there is one",
            )
            # one checkpoint a run, in a place that the next start of the same command finds
            parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
            parser.set_defaults({"checkpoint.filename": "last", "checkpoint.enable_version_counter": False})
            parser.link_arguments(
                "trainer.default_root_dir",
                "checkpoint.dirpath",
                compute_fn=lambda root: str(Path(root or ".") / "checkpoints"),
            )

        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = self.config.trainer
            if trainer.logger is None:
                # beside the checkpoints; Lightning's default depends on whether TensorBoard happens to be installed
                kwargs["logger"] = CSVLogger(trainer.default_root_dir or ".", name="log")
            return super().instantiate_trainer(**kwargs)

    for expected in (
        "LightningCLI's args parameter is intended",  # to be called from Python: we are that Python
        r'.*ckpt_path="last"\) is set, but there is no last checkpoint',  # the first start
        "Checkpoint directory .* exists and is not empty",  # every later one
        "You have overridden `on_after_batch_transfer` in `LightningModule`",  # scaling belongs to the method
    ):
        warnings.filterwarnings("ignore", message=expected)
    cli = PretrainCLI(
        SPDPretraining,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        parser_kwargs={"prog": "anomalib-spd pretrain"},
        run=False,
        args=args,
    )
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config.ckpt_path)
    return 0


def backbones(args: list[str]) -> int:
    """Manage the shelf: ``anomalib-spd backbones list``."""
    from .backbones.commands import run

    return run(args)


def benchmark(args: list[str]) -> int:
    """Measure a grid: ``anomalib-spd benchmark --config FILE``."""
    from .evaluation.benchmark_command import run

    return run(args)


def report(args: list[str]) -> int:
    """Tables and pictures of a grid: ``anomalib-spd report RESULTS``."""
    from .evaluation.report_command import run

    return run(args)
