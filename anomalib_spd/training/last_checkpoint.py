"""The checkpoint that a run goes on from."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, but what is due at an epoch's last step is saved at the end of that epoch.

    Between the two Lightning has counted the step, but not the epoch. A run that goes on from there counts its epochs wrong,
    and if it is stopped at such a place again, passes an epoch twice. And what is saved at an epoch's end says so: of its own,
    Lightning would count the epoch (in runs with ``max_steps``, an empty one too) and the step in its logs once more.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if it is time to and the epoch goes on (a Lightning hook)."""
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is time to or was at the last step (a Lightning hook)."""
        super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_train_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the epoch that is over (a Lightning hook)."""
        loop = checkpoint.get("loops", {}).get("fit_loop")  # none in one of weights only
        if loop is not None and loop["epoch_loop.batch_progress"]["is_last_batch"]:
            for count in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
                count["completed"] = count["processed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch, if the checkpoint is one of an epoch's end (a Lightning hook)."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.fit_loop.epoch_loop.restarting = False
