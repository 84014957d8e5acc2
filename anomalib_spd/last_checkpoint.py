"""The checkpoint that a run goes on from."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, but what is due at an epoch's last step is saved at the end of that epoch.

    Between the two Lightning has counted the step, but not the epoch. A run that goes on from there counts its epochs wrong,
    and if it is stopped at such a place again, passes an epoch twice.
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
