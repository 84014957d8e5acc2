"""Writes a picture of the views that a run compares."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchvision.utils import save_image

COUNT = 8


class ViewsPicture(Callback):
    """Writes ``views.png`` in the run's folder before its first step.

    A column is an image, a row a view: in pre-training the method's own, then SPD's anchor, positive and negative; in local
    SPD the image and its perturbed form; in patch classification the positive, then its negatives. The run's random state
    does not change.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Write the picture (a Lightning hook)."""
        del batch_idx
        # a trainer without a logger, or of a trial, leaves no files
        is_trial: Any = trainer.fast_dev_run  # type: ignore[attr-defined] # of which Lightning hides the type
        if trainer.global_step or not trainer.is_global_zero or not trainer.loggers or is_trial:
            return
        images = batch[0][:COUNT]
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            views = torch.cat(pl_module.views(images))  # type: ignore[operator] # of TrainingModule, whose callback this is
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_image(views.float().cpu(), folder / "views.png", nrow=len(images))
