"""Base of classifier and segmenter: length, optimizer, thresholds."""

from abc import abstractmethod
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataset, ImageBatch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn


class TwoClassNetwork(nn.Module):
    """Base of networks that return logits in training and anomalib's predictions otherwise.

    Shape:
        - images: float ``(B, 3, H, W)``, normalized by ImageNet's statistics
    """

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of a defect: ``(B,)`` for images, or ``(B, 1, H, W)`` for pixels."""

    @abstractmethod
    def predict(self, images: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the logits, and scores and maps computed from them: probabilities in ``[0, 1]``."""

    def forward(self, images: Tensor) -> Tensor | InferenceBatch:
        """Return logits in training, else predictions."""
        return self.logits(images) if self.training else self.predict(images)[1]


class TwoClassModule(AnomalibModule):
    """Base of models that learn from normal and defective images, by AdamW with a cosine schedule to 0.

    Scores and anomaly maps are probabilities: the threshold is 1/2, nothing needs normalization, and no validation images are
    needed.

    Source: SPD (ECCV 2022), 2-class experiments. Optimizer and length are ours; the paper does not give them.

    Args:
        learning_rate: at the start of the cosine.
        weight_decay: of AdamW; 0 is Adam.
        steps: of the optimizer; the length of the training, whatever the number of images.
        pre_processor: resizes and normalizes; ``True`` is anomalib's, 256 x 256.
        post_processor: none is needed; anomalib's fits its thresholds to validation images.
        evaluator: see anomalib's models.
        visualizer: see anomalib's models.

    Raises:
        ValueError: if length, rate or decay is out of range.
    """

    model: TwoClassNetwork

    def __init__(
        self,
        learning_rate: float,
        weight_decay: float,
        steps: int,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = False,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        if steps < 1 or learning_rate <= 0 or weight_decay < 0:
            raise ValueError(
                "`steps` and `learning_rate` are positive, `weight_decay` is positive or 0. Got "
                f"{steps}, {learning_rate} and {weight_decay}."
            )
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.steps = steps

    @abstractmethod
    def training_loss(self, batch: ImageBatch) -> Tensor:
        """Return the loss of a batch, a scalar, after random augmentation."""

    @abstractmethod
    def criterion(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Return the loss of the network's logits for a batch, a scalar."""

    def check_training_images(self, images: AnomalibDataset) -> None:
        """Check that there is something to learn from.

        Args:
            images: the training images.

        Raises:
            ValueError: a class has no image.
        """
        labels = images.samples.label_index
        normal, defective = int((labels == 0).sum()), int((labels == 1).sum())
        if not normal or not defective:
            raise ValueError(
                f"A 2-class model learns from normal and defective images. Got {normal} normal and {defective} defective "
                "ones: use a 2-class data module, such as anomalib_spd.twoclass.VisaTwoClass or TwoClass."
            )

    def on_fit_start(self) -> None:
        """Check the training images (a Lightning hook)."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined] # set by Lightning, missing in its annotations
        if data is not None:
            self.check_training_images(data.train_data)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Log and return the loss, a scalar."""
        loss = self.training_loss(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Log the loss of held-out training images, and return the batch with its predictions."""
        logits, predictions = self.model.predict(plain(batch.image))
        self.log("val_loss", self.criterion(logits, batch), prog_bar=True, on_epoch=True, batch_size=len(logits))
        batch.update(**predictions._asdict())
        return batch

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a cosine schedule to 0 over all steps."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments that anomalib's ``Engine`` passes to the trainer."""
        return {"max_steps": self.steps, "max_epochs": -1, "num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """One-class, the only trained type of anomalib: it has none for models that learn from defects."""
        return LearningType.ONE_CLASS


def labels_of(batch: ImageBatch) -> Tensor:
    """Return float ``(B,)``: 1 for defective images, else 0."""
    if batch.gt_label is None:
        raise ValueError("Labels are needed to learn from. Got images without: use a data module that has them.")
    return plain(batch.gt_label).float()


def masks_of(batch: ImageBatch) -> Tensor:
    """Return float ``(B, 1, H, W)``: 1 for defective pixels, else 0."""
    if batch.gt_mask is None:
        raise ValueError("Masks are needed to learn from. Got images without: use a data module that has them.")
    return plain(batch.gt_mask).float()[:, None]


def plain(tensor: Any) -> Tensor:
    """Return a tensor without torchvision's subclass, which Kornia does not take."""
    return torch.as_tensor(tensor).as_subclass(Tensor)
