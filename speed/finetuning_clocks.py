"""Clocks of fine-tuning: of its steps, and of what they consist of."""

import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from pretraining import synchronise
from torch import Tensor

LOADER = "waiting for the loader, transfer"
SALIENCY, COLOURS, PATCH, SCAR = "saliency, kept from before", "colours", "swap or paste", "scar"
FORWARD, BACKWARD, REST = "normalisation, encoder and head forward", "backward", "optimiser, logging"
NEGATIVES = (SALIENCY, COLOURS, PATCH, SCAR)


@dataclass(frozen=True)
class Turn:
    """What was timed: seconds a batch, and how many of them it was waited for."""

    seconds: float
    waiting: float


class Stopwatch(Callback):
    """Times the steps of a training that follow the first ones, and what they wait for."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.steps: list[dict[str, float]] = []
        self._laps: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, part: str, *_: Any) -> None:
        """End a part."""
        synchronise()
        now = time.perf_counter()
        self._laps[part] += now - self._last
        self._last = now

    def on_train_batch_start(self, *_: Any) -> None:
        """End the waiting (a Lightning hook)."""
        self.lap(LOADER)

    def on_train_batch_end(self, *_: Any) -> None:
        """End the step (a Lightning hook)."""
        self.lap(REST)
        self.steps.append(dict(self._laps))
        self._laps.clear()

    def timed(self) -> list[dict[str, float]]:
        """Return the seconds of each step's parts."""
        return self.steps[self.warm_up :]

    def turn(self) -> Turn:
        """Return the seconds of a step."""
        steps = self.timed()
        return Turn(sum(sum(each.values()) for each in steps) / len(steps), sum(s[LOADER] for s in steps) / len(steps))


class Parts(Stopwatch):
    """Times the parts of our steps too."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time what has no hook of Lightning's (a Lightning hook)."""
        model: Any = pl_module
        views = model.views

        def watched(images: Tensor) -> list[Tensor]:
            self.lap(REST)  # what Lightning does before
            made: list[Tensor] = views(images)
            return made

        model.views = watched
        self._hooks = [
            model.color_jitter.register_forward_pre_hook(partial(self.lap, SALIENCY)),
            *(
                module.register_forward_hook(partial(self.lap, part))
                for module, part in (
                    (model.color_jitter, COLOURS),
                    *zip(model.local_augmentations, (PATCH, SCAR), strict=True),
                )
            ),
        ]

    def on_before_backward(self, *_: Any) -> None:
        """End the forward pass (a Lightning hook)."""
        self.lap(FORWARD)

    def on_after_backward(self, *_: Any) -> None:
        """End the backward pass (a Lightning hook)."""
        self.lap(BACKWARD)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks away (a Lightning hook)."""
        for hook in self._hooks:
            hook.remove()
        del pl_module.views
