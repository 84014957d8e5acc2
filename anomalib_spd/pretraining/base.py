"""What every pre-training method with SPot-the-Difference shares: the views, the SPD term, one encoder pass, the schedule."""

from abc import abstractmethod
from typing import Any

import timm
import torch
import torch.nn.functional as F
from kornia.augmentation import Normalize
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from anomalib_spd.augmentation import RandomSmoothBlend, anchor_view, weak_view
from anomalib_spd.backbones.statistics import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.losses import spd_loss


class SPDPretraining(LightningModule):
    """Train an encoder by a method of its own plus ``eta`` times SPot-the-Difference.

    Every batch gives the method's views, an anchor, a positive and a negative. All go through the encoder in one pass,
    so that batch norm cannot tell the groups apart. With ``eta = 0`` the views are made and passed all the same, so that
    such a run differs from the one it controls in nothing but the gradient of the SPD term.

    A subclass gives ``method_views`` and ``method_loss``; the encoder's pooled features are what SPD compares, unless it
    overrides ``project``.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3. The paper's optimiser,
    schedule and length are not known; SGD with a cosine to 0 is what its baselines use.

    Args:
        backbone: name on the shelf or in timm, a CNN.
        pretrained: start from the backbone's weights, not from scratch.
        eta: weight of the SPD term; the paper's is 0.1.
        image_size: side of the views, pixels.
        learning_rate: at the start of the cosine, for the batch as it is.
        momentum: of SGD.
        weight_decay: on all weights.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]`` and int64 ``(B,)``.

    Checkpoint:
        the encoder's tensors are named ``encoder.*``; ``anomalib-spd backbones add`` reads them.
    """

    def __init__(
        self,
        backbone: str,
        pretrained: bool,
        eta: float,
        image_size: int,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        super().__init__()
        if eta < 0:
            msg = f"`eta` weighs the SPD term and is not negative. Got {eta}."
            raise ValueError(msg)
        self.save_hyperparameters()
        self.eta = eta
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.encoder: Any = timm.create_model(backbone, pretrained=pretrained).to(memory_format=torch.channels_last)
        self.anchor_view = anchor_view(image_size)
        self.weak_view = weak_view(image_size)
        self.smooth_blend = RandomSmoothBlend()
        # normalisation is the augmentations' last step: it is Kornia's too, and on the device
        self.normalize = Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))

    @abstractmethod
    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the method's own views ``(B, 3, size, size)`` of images ``(B, 3, H, W)``, all in ``[0, 1]``."""

    @abstractmethod
    def method_loss(self, features: list[Tensor], labels: Tensor) -> Tensor:
        """Return the method's loss, a scalar, of the encoder's features ``(B, D)`` of each of its views."""

    def project(self, features: Tensor) -> Tensor:
        """Return what SPD compares, ``(B, D')``, of the encoder's pooled features ``(B, D)``; here, themselves."""
        return features

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Scale images to ``[0, 1]`` on the device: they travel as bytes."""
        images, labels = batch
        return images.float() / 255, labels

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log its terms."""
        images, labels = batch
        with torch.no_grad():
            views = self.method_views(images)
            positive, negative = self.weak_view(images), self.smooth_blend(self.weak_view(images))
            inputs = self.normalize(torch.cat([*views, self.anchor_view(images), positive, negative]))
        features = self.encoder(inputs.contiguous(memory_format=torch.channels_last)).split(len(images))
        *method_features, f_a, f_p, f_n = features

        method_loss = self.method_loss(method_features, labels)
        difference_loss, sim_ap, sim_an = spd_loss(self.project(f_a), self.project(f_p), self.project(f_n))
        loss = method_loss + self.eta * difference_loss

        self.log("loss", loss, prog_bar=True)
        self.log(f"loss_{self.method}", method_loss)
        self.log("loss_spd", difference_loss, prog_bar=True)
        self.log("sim_ap", sim_ap)
        self.log("sim_an", sim_an)
        # collapse monitor: per-dimension spread of normalised features, healthy about 1 / sqrt(dim), 0 when collapsed
        self.log("feature_std", F.normalize(f_a.detach(), dim=1).std(0).mean())
        return loss

    @property
    def method(self) -> str:
        """Short name of the method, for logs."""
        return type(self).__name__.removesuffix("SPD").lower()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD with a cosine to 0 over all steps of the run."""
        optimizer = torch.optim.SGD(
            self.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a run with other settings.

        Raises:
            ValueError: where the checkpoint's settings are not those of this run.
        """
        try:
            folder = self.trainer.default_root_dir
        except RuntimeError:  # `load_from_checkpoint`, outside a run: settings are the caller's to change
            return
        before, now = dict(checkpoint.get("hyper_parameters", {})), dict(self.hparams)
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
