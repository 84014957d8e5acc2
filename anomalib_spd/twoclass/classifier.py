"""Classification of images as normal or defective, by a fine-tuned backbone."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch, InferenceBatch
from kornia.augmentation import RandomHorizontalFlip
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from anomalib_spd.backbones.loading import load
from anomalib_spd.twoclass.base import TwoClassModule, TwoClassNetwork, labels_of, plain


class ClassifierNetwork(TwoClassNetwork):
    """A timm model with one logit, and for CNNs a map of the logit's parts.

    The anomaly map is the head's logit for each location alone, divided by the number of locations. With average pooling and a
    linear head these parts add up to the image's logit: the class activation map of Zhou et al. (CVPR 2016). It is learned from
    the labels of images alone, and coarse. Transformers have no map.

    Args:
        backbone: registered name, or timm's.
        pretrained: start from the backbone's weights, not from scratch.
    """

    def __init__(self, backbone: str, pretrained: bool = True) -> None:
        super().__init__()
        encoder: Any = load(backbone, pretrained, num_classes=1)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        #: whether there are anomaly maps
        self.localizes = self._has_maps()

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(B,)`` of a defect."""
        return self._head(self._features(images))

    def predict(self, images: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the logits, scores ``(B,)`` and, for CNNs, anomaly maps ``(B, 1, H, W)``."""
        features = self._features(images)
        logits = self._head(features)
        score = logits.sigmoid()
        anomaly_map = None
        if self.localizes:
            batch, _, height, width = features.shape
            locations = features.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None]
            # undivided, the logits of locations are in the tens, and all become 1
            parts = self._head(locations).view(batch, 1, height, width) / (height * width)
            anomaly_map = F.interpolate(parts, images.shape[-2:], mode="bilinear").sigmoid()
        return logits, InferenceBatch(pred_score=score, pred_label=score > 0.5, anomaly_map=anomaly_map)

    @torch.no_grad()
    def _has_maps(self) -> bool:
        self.encoder.eval()
        features = self._features(torch.zeros(1, *self.encoder.pretrained_cfg["input_size"]))
        self.encoder.train()
        return features.ndim == 4 and features.shape[1] == self.encoder.num_features

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder.forward_features(images.contiguous(memory_format=torch.channels_last))
        return features

    def _head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.encoder.forward_head(features)
        return logits.squeeze(1)


class Classifier(TwoClassModule):
    """Binary classification of images: VisA's 2-class track, image level.

    Training images are flipped horizontally and not augmented otherwise: anything else may look like a defect, or hide one
    (SPD's authors).

    Args:
        backbone: registered name, or timm's.
        pretrained: start from the backbone's weights.
        loss: ``weighted`` is cross-entropy in which all defective images together weigh as much as all normal ones; ``focal``
            is the focal loss (gamma 2, alpha 1/4) of Lin et al. Ours: the paper does not say.
        learning_rate: at the start of the cosine.
        weight_decay: of AdamW.
        steps: of the optimizer.
        **kwargs: the other arguments of :class:`TwoClassModule`.

    Raises:
        ValueError: for an unknown loss or a value out of range.
    """

    model: ClassifierNetwork

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_spd",
        pretrained: bool = True,
        loss: Literal["weighted", "focal"] = "weighted",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        steps: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, steps, **kwargs)
        if loss not in ("weighted", "focal"):
            raise ValueError(f"`loss` is 'weighted' or 'focal'. Got {loss!r}.")
        self.loss_name = loss
        self.model = ClassifierNetwork(backbone, pretrained)
        self.flip = RandomHorizontalFlip(p=0.5)
        self.defect_weight: Tensor
        self.register_buffer("defect_weight", torch.ones(()))

    @property
    def localizes(self) -> bool:
        """Whether there are anomaly maps."""
        return self.model.localizes

    def on_fit_start(self) -> None:
        """Check the training images, and weigh defective ones by the number of each class (a Lightning hook)."""
        super().on_fit_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined] # set by Lightning, missing in its annotations
        labels = data.train_data.samples.label_index
        if not getattr(data, "balanced", False):  # else the sampler balances the classes
            self.defect_weight.fill_(int((labels == 0).sum()) / int((labels == 1).sum()))

    def training_loss(self, batch: ImageBatch) -> Tensor:
        """Return the loss of randomly flipped images."""
        return self.criterion(self.model.logits(self.flip(plain(batch.image))), batch)

    def criterion(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Return the loss of logits ``(B,)``."""
        labels = labels_of(batch)
        if self.loss_name == "focal":
            loss: Tensor = sigmoid_focal_loss(logits, labels, reduction="mean")
            return loss
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=self.defect_weight)
