"""Lightning's command line as the trainings of this package use it."""

import errno
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from anomalib_spd.training.checkpoint_io import WholeCheckpointIO
from anomalib_spd.training.last_checkpoint import LastCheckpoint
from anomalib_spd.training.progress import Pace, ProgressLines

#: a disk, a quota, or what a process may write, is used up
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

EXPECTED_WARNINGS = (
    "LightningCLI's args parameter is intended",  # to be called from Python: we are that Python
    r'.*ckpt_path="last"\) is set, but there is no last checkpoint',  # the first start
    "Checkpoint directory .* exists and is not empty",  # every later one
    "Total length of `list` across ranks is zero",  # there is no validation set
    "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler goes on there
    "Your `IterableDataset` has `__len__` defined",  # of ImageShards, and it is right
    r"Found \d+ module\(s\) in eval mode at the start of training",  # batch norm of dense SPD stays so
    "You have overridden `on_after_batch_transfer` in `LightningModule`",  # scaling belongs to the method
)


class TrainingCLI(LightningCLI):
    """Parses a training's file and options, and builds model, data and trainer.

    One checkpoint a run, ``checkpoints/last.ckpt`` in the trainer's folder, which the next start of the same command goes
    on from; logs beside it, as a table and, where TensorBoard is installed, for it.

    Args:
        command: of ``anomalib-spd``.
        model_class: what ``model.class_path`` is to be.
        data_class: what ``data.class_path`` is to be.
        args: what follows the command.
    """

    def __init__(
        self,
        command: str,
        model_class: type[LightningModule],
        data_class: type[LightningDataModule],
        args: Sequence[str],
    ) -> None:
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        super().__init__(
            model_class,
            data_class,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            parser_kwargs={"prog": f"anomalib-spd {command}"},
            run=False,
            args=list(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint (a hook of ``LightningCLI``)."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default="last",
            help="checkpoint to go on from: 'last' is this run's own, if there is one",
        )
        # one checkpoint a run, in a place that the next start of the same command finds
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.filename": "last", "checkpoint.enable_version_counter": False})
        self.link_folder(parser)

    def link_folder(self, parser: LightningArgumentParser) -> None:
        """Put checkpoints into the run's folder.

        Args:
            parser: of the command line.
        """
        parser.link_arguments(
            "trainer.default_root_dir",
            "checkpoint.dirpath",
            compute_fn=lambda root: str(Path(root or ".") / "checkpoints"),
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer what every training has (a hook of ``LightningCLI``).

        That is: loggers, where the user named none; its pace in them; lines of progress, where there is no terminal for
        a bar; checkpoints that are whole.
        """
        trainer = self.config.trainer
        callbacks = [*_listed(kwargs.pop("callbacks", self.config_init.trainer.callbacks)), pace := Pace()]
        wants_bar = trainer.enable_progress_bar is not False and not trainer.barebones
        if wants_bar and not sys.stdout.isatty() and not any(isinstance(each, ProgressBar) for each in callbacks):
            callbacks.append(ProgressLines(pace))
        plugins = _listed(self.config_init.trainer.plugins)
        if not any(isinstance(each, CheckpointIO) for each in plugins):
            plugins.append(WholeCheckpointIO())
        if trainer.logger is None:
            # beside the checkpoints, one folder a start
            folder = trainer.default_root_dir or "."
            table = CSVLogger(folder, name="log")
            loggers: list[Logger] = [table]
            if find_spec("tensorboard"):
                loggers.append(TensorBoardLogger(folder, name="log", version=table.version, default_hp_metric=False))
            kwargs["logger"] = loggers
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    def fit(self) -> None:
        """Train to the end, from the checkpoint if there is one, and leave the last step's weights in it.

        Raises:
            SystemExit: with 143, where SIGTERM ended the training; the same command goes on from the last checkpoint.
            OSError: where the disk is full; the last checkpoint is whole.
        """
        last = Path(self.config.checkpoint.dirpath) / "last.ckpt"
        try:
            self._fit(last)
        except SIGTERMException:  # by itself it ends the process as if all had gone well
            raise SystemExit(128 + signal.SIGTERM) from None
        except OSError as error:
            if error.errno not in FULL:
                raise
            on = f"goes on from {last}, which is whole" if last.is_file() else "begins anew, there is no checkpoint yet"
            msg = f"The disk is full ({error.strerror}). Make room and give the same command again: it {on}."
            raise OSError(error.errno, msg) from error

    def _fit(self, last: Path) -> None:
        trainer: Any = self.trainer
        trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, weights_only=True)
        if trainer.fast_dev_run:
            return
        # the end may lie between two checkpoints; one process looks, as all of them have to save
        is_old = not last.is_file() or torch.load(last, weights_only=True)["global_step"] < trainer.global_step
        if trainer.strategy.broadcast(is_old):
            trainer.save_checkpoint(last, weights_only=False)


def leave_processes() -> None:
    """Leave the group of processes of a distributed training that is done; without one nothing happens.

    Lightning does not. Where gloo's threads outlive Python, the process is aborted, and a training that went well ends as if
    it had failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _listed(one_or_more: Any) -> list[Any]:
    """Return as a list what a trainer also takes as one, or not at all."""
    if one_or_more is None:
        return []
    return list(one_or_more) if isinstance(one_or_more, list | tuple) else [one_or_more]
