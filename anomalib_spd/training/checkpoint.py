"""Checkpoints: written whole or not at all, and only where a run resumes bit for bit."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from anomalib_spd.files import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, but the file takes its name only when it is whole and on the disk.

    Lightning writes to the folder of temporary files and moves from there. Between two file systems a move is a copy over
    the previous checkpoint, of which a full disk or a kill leaves half. Here the previous checkpoint stays until the new
    one replaces it in one step.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save a checkpoint (a Lightning hook).

        Args:
            checkpoint: what ``torch.save`` takes.
            path: its file; a URL is left to Lightning.
            storage_options: see Lightning.

        Raises:
            OSError: where the file cannot be written; the previous one stays.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # in memory first: torch's own writer reports a full disk as an unexpected position in a file
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(Path(path), remove_stale=True) as file:
            file.write(content.getbuffer())


class LastCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, but what is due at an epoch's last step is saved at the end of that epoch.

    Between the two, Lightning has counted the step but not the epoch: a run that resumes there counts its epochs wrong, and
    repeats an epoch where it is stopped there again. A checkpoint of an epoch's end is marked as such; otherwise Lightning
    would count the epoch (in runs with ``max_steps`` an empty one too) and the step in its logs twice.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due and the epoch is not over (a Lightning hook)."""
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a checkpoint is due, or was at the last step (a Lightning hook)."""
        super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_train_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mark a finished epoch as completed (a Lightning hook)."""
        loop = checkpoint.get("loops", {}).get("fit_loop")  # a checkpoint of weights alone has none
        if loop is not None and loop["epoch_loop.batch_progress"]["is_last_batch"]:
            for count in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
                count["completed"] = count["processed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new epoch where the checkpoint is of an epoch's end (a Lightning hook)."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.fit_loop.epoch_loop.restarting = False
