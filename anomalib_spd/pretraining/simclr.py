"""SimCLR with SPot-the-Difference."""

from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import Lars
from torch import Tensor

from anomalib_spd.augmentation import simclr_view
from anomalib_spd.losses import nt_xent
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.training.heads import mlp, pooled_width
from anomalib_spd.training.schedules import cosine


class SimCLRSPD(SPDPretraining):
    """SimCLR, plus ``eta`` times SPD on the projections.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (ICML 2020), with the
    three-layer projector and the learning rate (0.075 times the square root of the batch) of its repository. SPD's
    negatives are not among SimCLR's.

    Args:
        projection: width of the projections; the paper's is 128.
        hidden: width of the projector's hidden layers; the repository's is 2048 for a ResNet-50.
        temperature: tau; the repository's is 0.1.
        warmup_epochs: in which the learning rate rises; the paper's are 10 of 100 and more.
        image_size: height and width of the views, pixels.
        learning_rate: at the start of the cosine.
        **settings: see :class:`SPDPretraining`; the momentum is of LARS.
    """

    def __init__(
        self,
        projection: int = 128,
        hidden: int = 2048,
        temperature: float = 0.1,
        warmup_epochs: int = 10,
        image_size: int = 224,
        learning_rate: float = 1.2,
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, learning_rate=learning_rate, **settings)
        self.encoder.reset_classifier(0)
        self.projector = mlp([pooled_width(self.encoder), hidden, hidden, projection], last_norm=True)
        self.temperature = temperature
        self.warmup_epochs = warmup_epochs
        self.simclr_view = simclr_view(image_size)

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return two strong views."""
        return [self.simclr_view(images), self.simclr_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return NT-Xent over the views of all ranks."""
        z_1, z_2 = (self.gather_across_ranks(each) for each in z)
        return nt_xent(z_1, z_2, self.temperature)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return LARS, warmed up, with a cosine to 0; biases and norms neither decay nor adapt, as in the repository."""
        matrices = [each for each in self.parameters() if each.ndim > 1]
        vectors = [each for each in self.parameters() if each.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        lars = Lars(groups, lr=self.learning_rate, momentum=self.momentum)
        return cosine(self.trainer, lars, self.warmup_epochs)
