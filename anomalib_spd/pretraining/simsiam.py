"""SimSiam with SPot-the-Difference."""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from anomalib_spd.augmentation import simsiam_view
from anomalib_spd.losses import negative_cosine
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.training.heads import mlp, pooled_width
from anomalib_spd.training.schedules import cosine


class SimSiamSPD(SPDPretraining):
    """SimSiam, plus ``eta`` times SPD on the projections.

    Source: Chen & He, Exploring Simple Siamese Representation Learning (CVPR 2021), section 3 and appendix A: its authors'
    heads, loss and schedule. That SPD compares projections is the SPD paper's; that its views pass no predictor, and that
    gradients flow into all of them, are ours: the paper does not say (``stop_gradient`` is the other way).

    Departures: both views and those of SPD pass the encoder and the projector together, where SimSiam passes each view by
    itself, so that batch norm cannot distinguish the groups.

    Args:
        projection: width of the projections; the paper's is 2048.
        bottleneck: width of the predictor's hidden layer; the paper's is 512.
        image_size: height and width of the views, pixels.
        learning_rate: at the start of the cosine; the paper's is 0.05 for a batch of 256, in proportion; the predictor's
            stays constant.
        **settings: see :class:`SPDPretraining`.
    """

    def __init__(
        self,
        projection: int = 2048,
        bottleneck: int = 512,
        image_size: int = 224,
        learning_rate: float = 0.05,
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, learning_rate=learning_rate, **settings)
        self.encoder.reset_classifier(0)
        self.projector = mlp([pooled_width(self.encoder), projection, projection, projection], last_norm=True)
        self.predictor = mlp([projection, bottleneck, projection])
        self.simsiam_view = simsiam_view(image_size)

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return two strong views."""
        return [self.simsiam_view(images), self.simsiam_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the negative cosine of each view's prediction and the other's projection."""
        z_1, z_2 = z
        p_1, p_2 = self.predictor(z_1), self.predictor(z_2)
        return (negative_cosine(p_1, z_2) + negative_cosine(p_2, z_1)) / 2

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD with a cosine to 0, but for the predictor, which keeps its learning rate."""
        groups: list[dict[str, Any]] = [
            {"params": [*self.encoder.parameters(), *self.projector.parameters()]},
            {"params": [*self.predictor.parameters()], "constant": True},
        ]
        sgd = torch.optim.SGD(groups, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        return cosine(self.trainer, sgd)
