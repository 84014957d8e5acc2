"""The base of all trainings: a seed for each step, images from bytes to floats, and what a run refuses."""

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from kornia.augmentation import Normalize
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from anomalib_spd.augmentation.swap import SwapAugmentation
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.data.run_settings import check_same_run
from anomalib_spd.saliency import SaliencyCache
from anomalib_spd.training.checkpoint import ADVICE
from anomalib_spd.training.views_callback import ViewsPicture


class TrainingModule(LightningModule, ABC):
    """Trains an ``encoder``, can be stopped at any step, and resumes bit for bit.

    A subclass calls :meth:`save_settings`, sets ``encoder``, and gives ``views``, ``training_step`` and
    ``configure_optimizers``.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]`` and int64 ``(B,)``.

    Checkpoint:
        the encoder's tensors are named ``encoder.*``; ``anomalib-spd backbones add`` reads them.
    """

    encoder: Any

    def __init__(self) -> None:
        super().__init__()
        self._seed = 0
        self._swaps: list[tuple[Tensor, Tensor]] = []
        self._watched: list[RemovableHandle] = []
        self._resumed: dict[str, Any] = {}
        #: gives maps of a classifier, where they guide transforms
        self.saliency: SaliencyCache | None = None
        # the last step of augmentation, on the device as the others
        self.normalize = Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))

    @abstractmethod
    def views(self, images: Tensor) -> list[Tensor]:
        """Return what is compared, each ``(B, 3, h, w)``, of images ``(B, 3, H, W)``, all in ``[0, 1]``."""

    @abstractmethod
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch whose images are in ``[0, 1]``, a scalar."""

    @abstractmethod
    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, and the schedule of its learning rate over all steps of the run."""

    def save_settings(self, *ignore: str) -> None:
        """Save the constructor's arguments in checkpoints; a constructor calls this.

        Transforms that were given as objects are saved as text: a checkpoint holds nothing that has to be unpickled.

        Args:
            *ignore: names of arguments that do not belong to a run.
        """
        frame = inspect.currentframe()
        self.save_hyperparameters(ignore=ignore, frame=frame.f_back if frame else None)
        as_text = {
            name: [repr(each) for each in value]
            for name, value in self.hparams.items()
            if isinstance(value, list | tuple) and any(isinstance(each, nn.Module) for each in value)
        }
        # as jsonargparse does where it builds the training: the name of the method in the backbone's record
        made_by_hand = (
            {}
            if "_class_path" in self.hparams
            else {"_class_path": f"{type(self).__module__}.{type(self).__qualname__}"}
        )
        self.save_hyperparameters(as_text | made_by_hand)

    def configure_callbacks(self) -> list[Callback]:
        """Return what writes a picture of the views."""
        return [ViewsPicture()]

    def on_fit_start(self) -> None:
        """Remember the run's seed, and move the classifier to the images' device (a Lightning hook).

        Raises:
            ValueError: for weights of 16 bits with the range of half precision, in which losses overflow.
        """
        if getattr(self.trainer, "precision", None) == "16-true":
            raise ValueError("In --trainer.precision 16-true losses overflow: give 16-mixed, bf16-true or bf16-mixed")
        self._seed = torch.initial_seed()
        if self.saliency is not None:
            self.saliency.cam.model.to(self.device)
        for module in self.modules():
            if isinstance(module, SwapAugmentation):
                self._watched.append(module.register_forward_hook(self._note_swaps))

    def _note_swaps(self, swap: nn.Module, *_: Any) -> None:
        """Note how large and how far apart the patches of a call are."""
        if isinstance(swap, SwapAugmentation):
            self._swaps.append(swap.last_swaps())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the mean area and distance of the step's swaps (a Lightning hook), see :meth:`SwapAugmentation.last_swaps`."""
        del outputs, batch, batch_idx
        if any(len(area) for area, _ in self._swaps):
            for name, values in zip(("area", "distance"), zip(*self._swaps, strict=True), strict=True):
                self.log(f"swap_{name}", torch.cat(values).mean())

    def on_fit_end(self) -> None:
        """Look at swaps no longer (a Lightning hook)."""
        while self._watched:
            self._watched.pop().remove()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the length of the run, which its schedule has been made for (a Lightning hook)."""
        checkpoint["run"] = {"steps": self.trainer.estimated_stepping_batches}

    def on_train_start(self) -> None:
        """Refuse to resume a run of another length, with a schedule that began as another one's (a Lightning hook).

        Raises:
            ValueError: where the checkpoint's run has not this run's steps.
        """
        check_same_run(self._resumed, {"steps": self.trainer.estimated_stepping_batches})

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step by run, rank, epoch and batch (a Lightning hook): a resumed run draws what it would have drawn."""
        del batch
        step = f"{self._seed}:{self.global_rank}:{self.current_epoch}:{batch_idx}"
        self._swaps = []  # of the views' picture
        torch.manual_seed(int.from_bytes(hashlib.sha256(step.encode()).digest()[:8]) >> 1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate of the first group of parameters (a Lightning hook)."""
        self.log("learning_rate", optimizer.param_groups[0]["lr"])

    def on_after_batch_transfer(self, batch: Sequence[Tensor], dataloader_idx: int) -> tuple[Tensor, ...]:
        """Scale images to ``[0, 1]`` on the device (a Lightning hook): they are transferred as bytes."""
        images, *others = batch
        return images.float() / 255, *others

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
                f"The loss is {loss.item()} ({parts}). The last checkpoint, if there is one, is of before. {ADVICE}"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a run with other settings (a Lightning hook).

        Raises:
            ValueError: where the checkpoint's settings are not those of this run.
        """
        try:
            _ = self.trainer
        except RuntimeError:  # `load_from_checkpoint`, outside a run: settings may be changed
            return
        self._resumed = checkpoint.get("run", {})
        now = {key: value for key, value in self.hparams.items() if not key.startswith("_")}
        before = checkpoint.get("hyper_parameters", {})
        check_same_run({key: before.get(key) for key in now}, now)
