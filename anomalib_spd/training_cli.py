"""Lightning's command line as the trainings of this package use it."""

import signal
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

EXPECTED_WARNINGS = (
    "LightningCLI's args parameter is intended",  # to be called from Python: we are that Python
    r'.*ckpt_path="last"\) is set, but there is no last checkpoint',  # the first start
    "Checkpoint directory .* exists and is not empty",  # every later one
    "Total length of `list` across ranks is zero",  # there is no validation set
    "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler goes on there
    "Your `IterableDataset` has `__len__` defined",  # of ImageShards, and it is right
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
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.filename": "last", "checkpoint.enable_version_counter": False})
        parser.link_arguments(
            "trainer.default_root_dir",
            "checkpoint.dirpath",
            compute_fn=lambda root: str(Path(root or ".") / "checkpoints"),
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer its loggers, where the user named none (a hook of ``LightningCLI``)."""
        trainer = self.config.trainer
        if trainer.logger is None:
            # beside the checkpoints, one folder a start
            folder = trainer.default_root_dir or "."
            table = CSVLogger(folder, name="log")
            loggers: list[Logger] = [table]
            if find_spec("tensorboard"):
                loggers.append(TensorBoardLogger(folder, name="log", version=table.version, default_hp_metric=False))
            kwargs["logger"] = loggers
        return super().instantiate_trainer(**kwargs)

    def fit(self) -> None:
        """Train to the end, from the checkpoint if there is one, and leave the last step's weights in it.

        Raises:
            SystemExit: with 143, where SIGTERM ended the training; the same command goes on from the last checkpoint.
        """
        trainer: Any = self.trainer
        try:
            trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, weights_only=True)
        except SIGTERMException:  # by itself it ends the process as if all had gone well
            raise SystemExit(128 + signal.SIGTERM) from None
        if trainer.fast_dev_run:
            return
        last = Path(self.config.checkpoint.dirpath) / "last.ckpt"
        # the end may lie between two checkpoints
        if not last.is_file() or torch.load(last, weights_only=True)["global_step"] < trainer.global_step:
            trainer.save_checkpoint(last, weights_only=False)
