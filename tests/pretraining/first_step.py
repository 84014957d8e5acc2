"""What two processes and one must agree on: a first step without chance, in float64."""

from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from anomalib_spd.local import LocalSPD


class FirstStep(Callback):
    """Takes chance out of the views and the batch out of batch norm, and keeps the gradients of the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        for each in pl_module.modules():
            # torch synchronises batch norm on GPUs alone
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                each.eval()

        def views(module: LightningModule, images: Tensor) -> list[Tensor]:
            own = {"SimSiamSPD": 2, "SimCLRSPD": 2, "MoCoSPD": 1, "SupervisedSPD": 1}[type(module).__name__]
            return [_turned(images, times) for times in range(own + 3)]

        if isinstance(pl_module, LocalSPD):  # its views come with a mask of what differs
            return
        pl_module.views = MethodType(views, pl_module)
        if hasattr(pl_module, "moco_view"):
            pl_module.moco_view.forward = lambda images: _turned(images, 2)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = {name: each.grad.clone() for name, each in pl_module.named_parameters() if each.grad is not None}
        torch.save(gradients, Path(trainer.default_root_dir) / f"gradients_{trainer.global_rank}.pt")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        state = {"loss": outputs["loss"], "queue": getattr(pl_module, "queue", torch.zeros(0))}
        torch.save(state, Path(trainer.default_root_dir) / f"state_{trainer.global_rank}.pt")


def _turned(images: Tensor, times: int) -> Tensor:
    """Another view each time, the same of the same image."""
    return torch.rot90(images[..., :32, :32].double(), times % 4, (-2, -1)) * (1 - times / 10)
