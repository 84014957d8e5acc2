"""What local SPD trainings share: a frozen teacher, distillation, and local perturbations."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd import backbones
from anomalib_spd.augmentation.change_mask import change_mask
from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.backbones.loading import load
from anomalib_spd.losses import mean_square
from anomalib_spd.training.module import TrainingModule
from anomalib_spd.training.perturbation import Perturbation
from anomalib_spd.training.schedules import one_cycle


class LocalTerms(NamedTuple):
    """The terms of a local SPD loss, and what is logged beside them.

    Attributes:
        distillation: of each layer, ``(L,)``.
        spd: the SPD term, a scalar.
        ranking_accuracy: share of pairs of locations in the right order, a scalar in ``[0, 1]``.
        mean_square: of each of the encoder's layers, relative to the teacher's, ``(L,)``.
    """

    distillation: Tensor
    spd: Tensor
    ranking_accuracy: Tensor
    mean_square: Tensor


class LocalSPD(TrainingModule):
    r"""Trains the layers that detectors read by distillation plus ``eta`` times SPD of their locations.

    The distillation keeps the features :math:`f_l` of a layer at what the backbone, frozen, gives:
    :math:`\mathrm{mean}\,|f_l - t_l|^2 / E_l` with the mean square :math:`E_l` of the backbone's. With ``eta = 0`` it is alone,
    and with it what weight decay does in as many steps: the control.

    Batch norm stays in eval, and the first layers are not trained: what the layers behind the last of ``layers`` learned
    from them must go on to hold.

    A subclass gives ``default_augmentations``, ``views`` and ``compare``.

    Source: ours.

    Args:
        backbone: name in the registry or in timm.
        pretrained: start from the backbone's weights.
        layers: that detectors read, first to last; by default :func:`anomalib_spd.backbones.layers`.
        frozen: parts of the encoder that are not trained; by default all before the first of the layers.
        local_augmentations: transforms of images in ``[0, 1]`` that perturb them locally, Kornia's or any others, of which
            one is drawn for each perturbation; by default the method's own.
        num_perturbations: of each image.
        eta: weight of the SPD term.
        temperature: of the comparison of locations.
        learning_rate: the highest of one cycle.
        weight_decay: of AdamW.
        interpolation: how far the weights go from the backbone's to the trained ones after the last step, in ``(0, 1]``; 1: all the
            way. Halfway, most of what was gained stays and most of what was lost on other data returns. Source: Wortsman et al.,
            Robust fine-tuning of zero-shot models (CVPR 2022), section 3.

    Raises:
        ValueError: for arguments out of bounds, or a layer or part that the backbone does not have.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        layers: Sequence[str] | None = None,
        frozen: Sequence[str] | None = None,
        local_augmentations: Sequence[nn.Module] | None = None,
        num_perturbations: int = 3,
        eta: float = 1.0,
        temperature: float = 0.2,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        interpolation: float = 1.0,
    ) -> None:
        super().__init__()
        if eta < 0:
            raise ValueError(f"`eta` weighs the SPD term and is not negative. Got {eta}.")
        if not 0 < interpolation <= 1:
            raise ValueError(f"`interpolation` is above 0 and at most 1 (the trained weights). Got {interpolation}.")
        self.save_settings("saliency_cache")
        layers = backbones.layers(backbone) if layers is None else list(layers)
        self.eta, self.temperature = eta, temperature
        self.learning_rate, self.weight_decay, self.interpolation = learning_rate, weight_decay, interpolation
        self.reader = LayerReader(backbone, layers)
        self.encoder = load(backbone, pretrained).to(memory_format=torch.channels_last)
        frozen = self.reader.parts_before(self.encoder) if frozen is None else list(frozen)
        self.save_hyperparameters({"layers": layers, "frozen": frozen})
        self.reader.freeze_unused(self.encoder, frozen)
        self.teacher: Any = copy.deepcopy(self.encoder).requires_grad_(False)
        transforms = self.default_augmentations() if local_augmentations is None else local_augmentations
        self.perturbation = Perturbation(transforms, num_perturbations)

    @staticmethod
    @abstractmethod
    def default_augmentations() -> list[nn.Module]:
        """Return the method's own local augmentations."""

    @abstractmethod
    def compare(self, images: Tensor, labels: Tensor) -> LocalTerms:
        """Return the terms of the loss.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: of the images, ``(B,)``.
        """

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the networks, whose batch norm stays in eval."""
        super().train(mode)
        self.encoder.eval()
        self.teacher.eval()
        return self

    @torch.no_grad()
    def perturb(self, images: Tensor, saliency: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the images ``(B, 3, H, W)`` with perturbations, and the mask ``(B, 1, H, W)`` of what has visibly changed.

        Args:
            images: in ``[0, 1]``.
            saliency: maps ``(B, H, W)`` that guide the transforms which take them.
        """
        perturbed = self.perturbation(images, saliency)
        return perturbed, change_mask(images, perturbed)

    def features(self, network: Any, images: Tensor) -> list[Tensor]:
        """Return the maps ``(B, C, h, w)`` of the layers, of images ``(B, 3, H, W)`` in ``[0, 1]``."""
        return self.reader(network, self.normalize(images).to(self.dtype, memory_format=torch.channels_last))

    def teacher_mean_square(self, teacher_maps: list[Tensor]) -> Tensor:
        """Return the mean square of the teacher's layers that losses are relative to, ``(L,)``: here of the batch."""
        return mean_square(teacher_maps)

    def encoder_mean_square(self, maps: list[Tensor]) -> Tensor:
        """Return the mean square of the encoder's layers, ``(L,)``, to be logged."""
        return mean_square([each.detach() for each in maps])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log its terms, the ranking accuracy, and the layers' relative mean squares.

        Raises:
            ValueError: for a batch that the method cannot compare.
            FloatingPointError: where the loss is not finite; nothing is learned from that step.
        """
        terms = self.compare(*batch)
        distillation = terms.distillation.mean()
        loss = distillation + self.eta * terms.spd
        self.check_finite(loss, {"distillation": distillation, "SPD": terms.spd})
        self.log("loss", loss, prog_bar=True)
        self.log("loss_distillation", distillation)
        self.log("loss_spd", terms.spd, prog_bar=True)
        self.log("ranking_accuracy", terms.ranking_accuracy, prog_bar=True)
        for layer, distance, square in zip(self.reader.layers, terms.distillation, terms.mean_square, strict=True):
            self.log(f"distillation_{layer}", distance)
            self.log(f"mean_square_{layer}", square)
        return loss

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Interpolate the weights after the last step of the run, before the checkpoint (a Lightning hook)."""
        if self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            for trained, original in zip(self.encoder.parameters(), self.teacher.parameters(), strict=True):
                trained.lerp_(original, 1 - self.interpolation)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW in one cycle over all steps of the run."""
        weights = [each for each in self.encoder.parameters() if each.requires_grad]
        return one_cycle(
            self.trainer, torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay)
        )
