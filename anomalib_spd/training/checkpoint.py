"""Checkpoints: written whole or not at all, and only where a run resumes bit for bit."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from anomalib_spd.files import atomic_write, first_few

#: to who trains weights that diverge: the learning rate belongs to a run, which resumes with no other
ADVICE = (
    "Train anew with a smaller learning rate, in a folder of its own (--trainer.default_root_dir), or resume with "
    "--trainer.precision 32-true."
)


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
            FloatingPointError: for weights that are not finite; the previous file stays.
        """
        _check_finite(checkpoint.get("state_dict", {}), path)
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # in memory first: torch's own writer reports a full disk as an unexpected position in a file
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(Path(path), remove_stale=True) as file:
            file.write(content.getbuffer())


def _check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse to save the weights of a training that has diverged: its last loss may have been finite."""
    spoiled = [name for name, each in state.items() if each.is_floating_point() and not each.isfinite().all()]
    if spoiled:
        raise FloatingPointError(
            f"The training has diverged: {first_few(spoiled)} are not finite. {path} is not written; if there was one, it is of "
            f"before. {ADVICE}"
        )


class LastCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, but what is due at an epoch's or the run's last step is saved at the end of that epoch.

    A training may change its weights there, after its last step (``interpolation``). Between the two, Lightning has counted the
    step but not the epoch: a run that resumes there counts its epochs wrong, and repeats an epoch where it is stopped there again.
    A checkpoint of an epoch's end is marked as such; otherwise Lightning
    would count the epoch (in runs with ``max_steps`` an empty one too) and the step in its logs twice.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a checkpoint is due, and neither the epoch nor the run is over (a Lightning hook)."""
        if not trainer.is_last_batch and trainer.global_step < trainer.estimated_stepping_batches:
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
