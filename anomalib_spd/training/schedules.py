"""Learning rates over all steps of a run, as LightningModules return them from ``configure_optimizers``."""

import math

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


def cosine(trainer: Trainer, optimizer: torch.optim.Optimizer, warmup_epochs: int = 0) -> OptimizerLRScheduler:
    """Return an optimizer with a cosine to 0.

    Args:
        trainer: of the run.
        optimizer: parameter groups with ``constant`` keep their learning rate.
        warmup_epochs: before the cosine, in which the rate rises from 0 in equal steps.
    """
    steps = int(trainer.estimated_stepping_batches)
    epochs = trainer.max_epochs or 1
    warmup = min(steps - 1, steps * warmup_epochs // epochs) if epochs > 0 else 0

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    factors = [(lambda step: 1.0) if group.get("constant") else factor for group in optimizer.param_groups]
    return _every_step(optimizer, LambdaLR(optimizer, factors))


def one_cycle(trainer: Trainer, optimizer: torch.optim.Optimizer) -> OptimizerLRScheduler:
    """Return an optimizer with one cycle up to its learning rate and down to 0."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return _every_step(
        optimizer, OneCycleLR(optimizer, highest, total_steps=max(int(trainer.estimated_stepping_batches), 2))
    )


def _every_step(optimizer: torch.optim.Optimizer, schedule: LRScheduler) -> OptimizerLRScheduler:
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
