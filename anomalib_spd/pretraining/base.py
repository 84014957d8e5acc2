"""The base of pre-training with SPot-the-Difference: the views, the SPD term, one encoder pass."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomSmoothBlend, anchor_view, weak_view
from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.backbones.loading import load
from anomalib_spd.backbones.transformers import check_image_size
from anomalib_spd.losses import spd_loss
from anomalib_spd.training.module import TrainingModule
from anomalib_spd.training.perturbation import Perturbation
from anomalib_spd.training.schedules import cosine

#: collapse is reported below this share of the healthy standard deviation of projections
COLLAPSED = 0.05


class SPDPretraining(TrainingModule):
    """Trains an encoder by a method of its own plus ``eta`` times SPot-the-Difference on pooled features.

    Every batch gives the method's views, an anchor, a positive and a negative. All pass the encoder together, so that batch
    norm cannot distinguish the groups. With ``eta = 0`` the views are made and passed all the same: such a control differs in
    nothing but the gradient of the SPD term.

    A subclass gives ``method_views`` and ``method_loss``. It sets ``projector``, whose outputs SPD compares; by default they
    are the encoder's pooled features.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3. The paper does not say
    optimizer, schedule and length; SGD with a cosine to 0 is what its baselines use.

    Args:
        backbone: name in the registry or in timm.
        pretrained: start from the backbone's weights, not from scratch.
        local_augmentations: transforms of images in ``[0, 1]`` that perturb them locally, Kornia's or any others, of which
            each step draws one for the negatives; by default SmoothBlend, the paper's.
        eta: weight of the SPD term; the paper's is 0.1. With 0 the method alone is trained on as many views: the control of equal
            length, not the paper's baseline, which is trained without SPD's views.
        shared_weak_view: make the negative of the positive, so that both are one weak view and differ in the perturbation alone
            (ours). By default they are two draws, whose difference is larger than the perturbation's.
        stop_gradient: let no gradient of the SPD term flow into the anchors (the paper does not say; by default it flows).
        image_size: height and width of the views, pixels.
        learning_rate: at the start of the cosine, for the batch as it is.
        momentum: of SGD.
        weight_decay: of all weights.

    Raises:
        ValueError: for arguments out of bounds.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        local_augmentations: Sequence[nn.Module] | None = None,
        eta: float = 0.1,
        shared_weak_view: bool = False,
        stop_gradient: bool = False,
        image_size: int = 224,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        if eta < 0:
            raise ValueError(f"`eta` weighs the SPD term and is not negative. Got {eta}.")
        self.save_settings()
        self.eta, self.shared_weak_view, self.stop_gradient = eta, shared_weak_view, stop_gradient
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        check_layers(backbone, ())  # else no detector could read what is trained
        self.encoder = load(backbone, pretrained).to(memory_format=torch.channels_last)
        check_image_size(self.encoder, image_size)
        self.projector: nn.Module = nn.Identity()
        self.anchor_view = anchor_view(image_size)
        self.weak_view = weak_view(image_size)
        self.perturbation = Perturbation([RandomSmoothBlend()] if local_augmentations is None else local_augmentations)
        self._has_warned = False

    @abstractmethod
    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the method's own views ``(B, 3, size, size)`` of images ``(B, 3, H, W)``, all in ``[0, 1]``."""

    @abstractmethod
    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the method's loss, a scalar.

        Args:
            z: projections ``(B, D)`` of each of the method's views.
            images: that the views are of, ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: of the images, ``(B,)``.
        """

    def difference_loss(self, z_a: Tensor, z_p: Tensor, z_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the SPD term, and the mean similarities of anchors to positives and to negatives; all scalars.

        Args:
            z_a: projections of the anchors, ``(B, D)``.
            z_p: of the positives.
            z_n: of the negatives.
        """
        return spd_loss(z_a, z_p, z_n, self.stop_gradient)

    @torch.no_grad()
    def views(self, images: Tensor) -> list[Tensor]:
        """Return all views of images ``(B, 3, H, W)``: the method's, anchor, positive and negative, all in ``[0, 1]``."""
        method_views = self.method_views(images)
        positive = self.weak_view(images)
        negative = self.perturbation(positive if self.shared_weak_view else self.weak_view(images))
        return [*method_views, self.anchor_view(images), positive, negative]

    def encode(self, encoder: nn.Module, views: list[Tensor]) -> Tensor:
        """Return the pooled features ``(V * B, D)`` of V views, in one pass."""
        inputs = self.normalize(torch.cat(views)).to(self.dtype, memory_format=torch.channels_last)
        features: Tensor = encoder(inputs)
        return features

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log its terms, the similarities, and the spread of projections, ``z_std``.

        Raises:
            FloatingPointError: where the loss is not finite; nothing is learned from that step.
        """
        images, labels = batch
        # the projector's batch norm cannot distinguish the groups either
        z = self.projector(self.encode(self.encoder, self.views(images)))
        *z_method, z_a, z_p, z_n = z.split(len(images))
        method_loss = self.method_loss(z_method, images, labels)
        difference_loss, sim_ap, sim_an = self.difference_loss(z_a, z_p, z_n)
        loss = method_loss + self.eta * difference_loss
        self.check_finite(loss, {self.method: method_loss, "SPD": difference_loss})
        self.log("loss", loss, prog_bar=True)
        self.log(f"loss_{self.method}", method_loss)
        self.log("loss_spd", difference_loss, prog_bar=True)
        self.log("sim_ap", sim_ap)
        self.log("sim_an", sim_an)
        self.log("z_std", self._standard_deviation(z_a.detach()))
        return loss

    def _standard_deviation(self, z: Tensor) -> Tensor:
        """Return the standard deviation of unit vectors ``(B, D)``: healthy is about 1 / sqrt(D), 0 is a collapse."""
        std = F.normalize(z, dim=1).std(0, correction=0).mean()
        if not self._has_warned and len(z) > 1 and std * z.shape[1] ** 0.5 < COLLAPSED:
            self._has_warned = True
            rank_zero_warn(
                f"All images have nearly the same projection (standard deviation {std:.1e}, healthy is about "
                f"{z.shape[1] ** -0.5:.1e}): the training has collapsed. Start again with a smaller learning rate, a larger "
                "batch, or a smaller eta."
            )
        return std

    def gather_across_ranks(self, z: Tensor) -> Tensor:
        """Return the ``(B, D)`` of all ranks, ``(P * B, D)``; gradients flow back to the rank they come from."""
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
        sgd = torch.optim.SGD(self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        return cosine(self.trainer, sgd)
