"""What every training of this package shares: a seed for each step, bytes to floats, the schedule, what it refuses."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from anomalib_spd.files import digest
from anomalib_spd.training.views_callback import ViewsPicture


class TrainingModule(LightningModule):
    """A training that can be stopped at any step and goes on bit for bit, and that shows what it compares.

    A subclass gives ``views``, and calls ``save_hyperparameters``.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]`` and int64 ``(B,)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seed = 0

    @abstractmethod
    def views(self, images: Tensor) -> list[Tensor]:
        """Return what is compared, each ``(B, 3, h, w)``, of images ``(B, 3, H, W)``, all in ``[0, 1]``."""

    def configure_callbacks(self) -> list[Callback]:
        """Return what writes a picture of the views."""
        return [ViewsPicture()]

    def on_fit_start(self) -> None:
        """Note the run's seed (a Lightning hook)."""
        self._seed = torch.initial_seed()

    def on_train_start(self) -> None:
        """Refuse to go on with one cycle of another length (a Lightning hook): torch's own refusal comes at the last step.

        Raises:
            ValueError: where the checkpoint's cycle has not this run's steps.
        """
        schedule: Any = self.lr_schedulers()
        steps = int(self.trainer.estimated_stepping_batches)
        if isinstance(schedule, torch.optim.lr_scheduler.OneCycleLR) and schedule.total_steps != max(steps, 2):
            msg = (
                f"The checkpoint in {self.trainer.default_root_dir} belongs to one cycle of {schedule.total_steps} steps, this "
                f"run has {steps}. Give this run its own folder with --trainer.default_root_dir."
            )
            raise ValueError(msg)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step by run, process and place (a Lightning hook): a run that goes on draws what it would have drawn."""
        del batch
        place = f"{self._seed}:{self.global_rank}:{self.current_epoch}:{batch_idx}"
        torch.manual_seed(int(digest(place)[:16], 16) >> 1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate of the first group of parameters (a Lightning hook)."""
        self.log("learning_rate", optimizer.param_groups[0]["lr"])

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Scale images to ``[0, 1]`` on the device: they travel as bytes."""
        images, labels = batch
        return images.float() / 255, labels

    def check_finite(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Refuse to learn from a loss that is not a number.

        Args:
            loss: scalar.
            terms: of it, for the message.

        Raises:
            FloatingPointError: where the loss is not finite.
        """
        if not loss.isfinite():
            parts = ", ".join(f"{name}: {value.item():.3g}" for name, value in terms.items())
            raise FloatingPointError(
                f"The loss is {loss.item()} ({parts}). The last checkpoint is of before: go on from it with a smaller "
                "learning rate, in a folder of its own, or with --trainer.precision 32-true."
            )

    def scheduled(self, optimizer: torch.optim.Optimizer, warmup_epochs: int = 0) -> OptimizerLRScheduler:
        """Return an optimiser with a cosine to 0 over all steps of the run.

        Args:
            optimizer: groups of its parameters with ``constant`` keep their learning rate.
            warmup_epochs: before the cosine, in which the rate rises from 0 in equal steps.
        """
        steps = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs or 1
        warmup = min(steps - 1, steps * warmup_epochs // epochs) if epochs > 0 else 0

        def cosine(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

        factors = [(lambda step: 1.0) if group.get("constant") else cosine for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def one_cycle(self, optimizer: torch.optim.Optimizer) -> OptimizerLRScheduler:
        """Return an optimiser with one cycle up to its learning rate and down to 0 over all steps of the run."""
        steps = int(self.trainer.estimated_stepping_batches)
        highest = [group["lr"] for group in optimizer.param_groups]
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=max(steps, 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a run with other settings.

        Raises:
            ValueError: where the checkpoint's settings are not those of this run.
        """
        try:
            folder = self.trainer.default_root_dir
        except RuntimeError:  # `load_from_checkpoint`, outside a run: settings are the caller's to change
            return
        # a run from before a setting was there had its default
        defaults = {name: each.default for name, each in inspect.signature(type(self)).parameters.items()}
        before, now = {**defaults, **checkpoint.get("hyper_parameters", {})}, dict(self.hparams)
        changed = {
            key: (before.get(key), value)
            for key, value in now.items()
            if not key.startswith("_") and before.get(key) != value
        }
        if changed:
            settings = ", ".join(f"{key}: {was!r} then, {value!r} now" for key, (was, value) in changed.items())
            msg = (
                f"The checkpoint in {folder} belongs to a run with other settings ({settings}). "
                "Give this run its own folder with --trainer.default_root_dir."
            )
            raise ValueError(msg)
