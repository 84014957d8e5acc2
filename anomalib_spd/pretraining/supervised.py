"""Supervised pre-training with SPot-the-Difference."""

import torch.nn.functional as F
from torch import Tensor, nn

from anomalib_spd.augmentation import supervised_view

from .base import SPDPretraining


class SupervisedSPD(SPDPretraining):
    """Classification by cross-entropy, plus ``eta`` times SPD on the encoder's pooled features.

    Departures from the SPD paper (section 3): there the supervised arm learns a second, two-way classification of
    perturbed against not, here it compares anchor, positive and negative by the cosine as the paper's self-supervised
    arms do; supervised training has no projection head, so it is the pooled features that are compared.

    Args:
        num_classes: of the data. The backbone's own classifier is kept where it has as many, else it starts anew.
        backbone: see :class:`SPDPretraining`, as are all that follow.
        pretrained: start from the backbone's weights.
        eta: weight of the SPD term.
        image_size: side of the views, pixels.
        learning_rate: at the start of the cosine.
        momentum: of SGD.
        weight_decay: on all weights.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        eta: float = 0.1,
        image_size: int = 224,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(backbone, pretrained, eta, image_size, learning_rate, momentum, weight_decay)
        classifier = self.encoder.get_classifier()
        self.encoder.reset_classifier(0)
        if not isinstance(classifier, nn.Linear) or classifier.out_features != num_classes:
            classifier = nn.Linear(self.encoder.num_features, num_classes)
        self.head = classifier
        self.supervised_view = supervised_view(image_size)

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the one view that is classified."""
        return [self.supervised_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the classified view."""
        (view,) = z
        return F.cross_entropy(self.head(view), labels)
