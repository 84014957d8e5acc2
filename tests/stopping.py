"""A training that is cut short."""

import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Stopping(Callback):
    """Ends the process' work after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step >= self.step:
            raise RuntimeError("power cut")


class Killing(Callback):
    """Sends the process a signal after so many steps."""

    def __init__(self, step: int, signal: int) -> None:
        self.step = step
        self.signal = signal

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signal)


class Filling(Callback):
    """Leaves the process no room for large files after so many steps, as a full disk does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            import resource  # Windows has none

            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
