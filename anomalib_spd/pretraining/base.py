"""What every pre-training method with SPot-the-Difference shares: the views, the SPD term, one encoder pass."""

from abc import abstractmethod
from typing import Any

import timm
import torch
import torch.nn.functional as F
from kornia.augmentation import Normalize
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomSmoothBlend, anchor_view, weak_view
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.losses import spd_loss
from anomalib_spd.training.module import TrainingModule

#: share of the healthy spread of projections
COLLAPSED = 0.05


class SPDPretraining(TrainingModule):
    """Train an encoder by a method of its own plus ``eta`` times SPot-the-Difference.

    Every batch gives the method's views, an anchor, a positive and a negative. All go through the encoder in one pass,
    so that batch norm cannot tell the groups apart. With ``eta = 0`` the views are made and passed all the same, so that
    such a run differs from the one it controls in nothing but the gradient of the SPD term.

    A subclass gives ``method_views`` and ``method_loss``. It sets ``projector``, of which SPD compares the outputs too; by
    default they are the encoder's pooled features themselves. One that compares something else gives ``views`` and
    ``losses``.

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
        self.projector: nn.Module = nn.Identity()
        self.anchor_view = anchor_view(image_size)
        self.weak_view = weak_view(image_size)
        self.smooth_blend = RandomSmoothBlend()
        self._warned = False
        # normalisation is the augmentations' last step: it is Kornia's too, and on the device
        self.normalize = Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))

    @abstractmethod
    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the method's own views ``(B, 3, size, size)`` of images ``(B, 3, H, W)``, all in ``[0, 1]``."""

    @abstractmethod
    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the method's loss, a scalar.

        Args:
            z: projections ``(B, D)`` of each of the method's views.
            images: that the views were made of, ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: of the images, ``(B,)``.
        """

    def difference_loss(self, z_a: Tensor, z_p: Tensor, z_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the SPD term, and the mean similarities of anchors to positives and to negatives; all scalars.

        Args:
            z_a: projections of the anchors, ``(B, D)``.
            z_p: of the positives.
            z_n: of the negatives.
        """
        return spd_loss(z_a, z_p, z_n)

    def views(self, images: Tensor) -> list[Tensor]:
        """Return all views of images ``(B, 3, H, W)``: the method's, anchor, positive and negative, all in ``[0, 1]``."""
        with torch.no_grad():
            method_views = self.method_views(images)
            positive, negative = self.weak_view(images), self.smooth_blend(self.weak_view(images))
            return [*method_views, self.anchor_view(images), positive, negative]

    def encode(self, encoder: nn.Module, views: list[Tensor]) -> Tensor:
        """Return the pooled features ``(V * B, D)`` of V views, in one pass."""
        inputs = self.normalize(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        features: Tensor = encoder(inputs)
        return features

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the method's loss, the SPD term, both scalars, and what else is logged.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: of the images, ``(B,)``.
        """
        # the projector's batch norm cannot tell the groups apart either
        z = self.projector(self.encode(self.encoder, self.views(images)))
        *z_method, z_a, z_p, z_n = z.split(len(images))
        method_loss = self.method_loss(z_method, images, labels)
        difference_loss, sim_ap, sim_an = self.difference_loss(z_a, z_p, z_n)
        return method_loss, difference_loss, {"sim_ap": sim_ap, "sim_an": sim_an, "z_std": self._spread(z_a.detach())}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log its terms.

        Raises:
            FloatingPointError: where the loss is not finite; nothing is learnt from that step.
        """
        images, labels = batch
        method_loss, difference_loss, logged = self.losses(images, labels)
        loss = method_loss + self.eta * difference_loss
        self.check_finite(loss, {self.method: method_loss, "SPD": difference_loss})
        self.log("loss", loss, prog_bar=True)
        self.log(f"loss_{self.method}", method_loss)
        self.log("loss_spd", difference_loss, prog_bar=True)
        for name, value in logged.items():
            self.log(name, value)
        return loss

    def _spread(self, z: Tensor) -> Tensor:
        """Collapse monitor: standard deviation of normalised ``(B, D)``, healthy about 1 / sqrt(D), 0 when collapsed."""
        std = F.normalize(z, dim=1).std(0, correction=0).mean()
        if not self._warned and len(z) > 1 and std * z.shape[1] ** 0.5 < COLLAPSED:
            self._warned = True
            rank_zero_warn(
                f"All images have nearly the same projection (standard deviation {std:.1e}, healthy is about "
                f"{z.shape[1] ** -0.5:.1e}): the training has collapsed. Start again with a smaller learning rate, a larger "
                "batch, or a smaller eta."
            )
        return std

    def of_all_processes(self, z: Tensor) -> Tensor:
        """Return the ``(B, D)`` of all processes, ``(P * B, D)``; gradients flow back to the process they come from."""
        if self.trainer.world_size == 1:
            return z
        gathered: Any = self.all_gather(z, sync_grads=True)
        return torch.cat([*gathered])

    @property
    def method(self) -> str:
        """Short name of the method, for logs."""
        return type(self).__name__.removesuffix("SPD").lower()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD with a cosine to 0 over all steps of the run."""
        return self.scheduled(
            torch.optim.SGD(
                self.parameters(), lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
            )
        )
