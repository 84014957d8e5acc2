"""Pace and progress of a training: images per second, lines of progress, time left."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

#: steps that the pace is measured over
WINDOW = 50


class Pace(Callback):
    """Measures a training's pace over its last steps, including what is between them: reading, checkpoints, probes.

    Logs ``images_per_second`` of all processes together, and ``images``, the number that they have seen since the first start
    of the run (their batches have one size); a progress bar shows the first, and ``minutes_left``.

    Lightning's ``ThroughputMonitor`` logs nothing before its window is full, and starts from 0 when a run resumes.

    Args:
        clock: gives seconds.

    Attributes:
        images: seen since the first start of the run, by all processes.
        images_per_second: of all processes.
        seconds_left: to the end of the training; infinite where no end is known.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.images = 0
        self.images_per_second = math.nan
        self.seconds_left = math.inf
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores (a Lightning hook)."""
        return {"images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what a checkpoint stores (a Lightning hook)."""
        self.images = state_dict["images"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock (a Lightning hook)."""
        self._marks.clear()
        self._marks.append((self._clock(), self.images))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure and log (a Lightning hook)."""
        # pairs of images and labels, or a batch of anomalib
        self.images += len(batch[0] if isinstance(batch, list | tuple) else batch) * trainer.world_size
        self._marks.append((self._clock(), self.images))
        (start, before), (end, after) = self._marks[0], self._marks[-1]
        seconds = max(end - start, 1e-9)
        self.images_per_second = (after - before) / seconds
        self.seconds_left = _batches_left(trainer, batch_idx) * seconds / (len(self._marks) - 1)
        pl_module.log("images_per_second", self.images_per_second, prog_bar=True)
        pl_module.log("images", float(self.images))
        if math.isfinite(self.seconds_left):
            pl_module.log("minutes_left", self.seconds_left / 60, prog_bar=True, logger=False)


class ProgressLines(ProgressBar):
    """Prints lines instead of a bar, for logs and other outputs that are no terminal.

    There is a line every so many steps, and at the end of each epoch and of the training.

    Args:
        pace: of the same training, before this one among its callbacks.
        every_n_steps: between two lines.
    """

    def __init__(self, pace: Pace, every_n_steps: int = 50) -> None:
        super().__init__()
        self.pace = pace
        self.every_n_steps = every_n_steps
        self.is_enabled = True

    def disable(self) -> None:
        """Stop printing (a Lightning hook)."""
        self.is_enabled = False

    def enable(self) -> None:
        """Print again (a Lightning hook)."""
        self.is_enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print unbuffered: a log is read while it grows."""
        print(*args, **{"flush": True, **kwargs})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if one is due (a Lightning hook)."""
        step, steps = batch_idx + 1, trainer.num_training_batches
        is_last = step == steps or _batches_left(trainer, batch_idx) == 0
        if not self.is_enabled or (step % self.every_n_steps and not is_last):
            return
        parts = [f"{self.pace.images_per_second:.{0 if self.pace.images_per_second >= 10 else 1}f} images/s"]
        if isinstance(outputs, Mapping) and "loss" in outputs:
            parts.insert(0, f"loss {torch.as_tensor(outputs['loss']).item():.4g}")
        if math.isfinite(self.pace.seconds_left):
            parts.append(f"{timedelta(seconds=round(self.pace.seconds_left))} left")
        every = _all_steps(trainer, batch_idx)
        of = f"/{every}" if every else ""
        self.print(f"{_epoch(trainer)}, step {trainer.global_step}{of}: {', '.join(parts)}")


class ProgressSteps(TQDMProgressBar):
    """A bar of all steps of a training.

    Lightning's own bars begin anew in each epoch, and one of them counts epochs to -2 where a training ends by its steps.
    """

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Name the epoch, and count on, where Lightning's would begin anew (a Lightning hook)."""
        bar = self.train_progress_bar
        bar.n, bar.total = trainer.global_step, _all_steps(trainer, -1)
        bar.set_description(_epoch(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step (a Lightning hook)."""
        self.train_progress_bar.total = _all_steps(trainer, batch_idx)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)


def _epoch(trainer: Trainer) -> str:
    of = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{of}"


def _all_steps(trainer: Trainer, batch_idx: int) -> int | None:
    """Return the steps of the whole training; None where it has no end."""
    left = _batches_left(trainer, batch_idx)
    return trainer.global_step + math.ceil(left / trainer.accumulate_grad_batches) if math.isfinite(left) else None


def _batches_left(trainer: Trainer, batch_idx: int) -> float:
    """Return the batches of a process to the end of the training, after this one; infinite where it has no end."""
    left = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        left = (trainer.max_epochs - trainer.current_epoch) * trainer.num_training_batches - (batch_idx + 1)
    if trainer.max_steps >= 0:
        left = min(left, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    return max(left, 0)
