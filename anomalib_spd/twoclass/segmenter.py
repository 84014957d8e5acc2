"""Segmentation of defects, by a U-Net or another architecture with a backbone as its encoder."""

from typing import Any

import torch
import torch.nn.functional as F
from anomalib.data import AnomalibDataset, ImageBatch, InferenceBatch
from anomalib.data.utils.tiler import Tiler
from kornia.augmentation import AugmentationSequential, RandomCrop, RandomHorizontalFlip
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from anomalib_spd.backbones.loading import named_weights
from anomalib_spd.twoclass.base import TwoClassModule, TwoClassNetwork, masks_of, plain
from anomalib_spd.twoclass.checks import check_masks

# every encoder halves its input five times, and decoders double it as often
STRIDE = 32


class SegmenterNetwork(TwoClassNetwork):
    """An architecture of segmentation-models-pytorch on a timm encoder, for images of any size.

    Args:
        backbone: registered name, or timm's.
        pretrained: start from the backbone's weights, not from scratch, as the decoder does.
        architecture: name in segmentation-models-pytorch.
        architecture_args: its options, such as ``decoder_channels``.
        tile: height and width of the tiles, pixels, into which larger images are cut; they overlap by half, and overlaps
            are averaged. Without it images pass whole.

    Raises:
        ModuleNotFoundError: if segmentation-models-pytorch is missing.
        ValueError: for an unknown architecture, or a tile that is no multiple of 32.
    """

    def __init__(
        self,
        backbone: str,
        pretrained: bool = True,
        architecture: str = "unet",
        architecture_args: dict[str, Any] | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        try:
            import segmentation_models_pytorch as smp
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Segmenters are built by segmentation-models-pytorch: pip install 'anomalib_spd[twoclass]'"
            ) from None
        if architecture.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
            known = ", ".join(smp.MODEL_ARCHITECTURES_MAPPING)
            raise ValueError(f"segmentation-models-pytorch has no architecture {architecture!r}. It has: {known}.")
        if tile is not None and (tile < STRIDE or tile % STRIDE):
            raise ValueError(f"`tile` is a multiple of {STRIDE} pixels. Got {tile}.")
        self.tile = tile
        with named_weights(backbone):
            network: Any = smp.create_model(
                architecture,
                encoder_name=f"tu-{backbone}",
                encoder_weights=True if pretrained else None,
                classes=1,
                **(architecture_args or {}),
            )
        self.network = network.to(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, 1, H, W)`` of defective pixels."""
        if self.tile is None or self.training or max(images.shape[-2:]) <= self.tile:
            return self._whole(images)
        height, width = images.shape[-2:]
        tiler = Tiler(self.tile, self.tile // 2)
        tiles = tiler.tile(_pad(images, max(height, self.tile), max(width, self.tile)))
        # batches of tiles: the memory of a batch of tile-sized images
        logits = torch.cat([self._whole(some) for some in tiles.split(len(images))])
        return tiler.untile(logits)[..., :height, :width]

    def predict(self, images: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the logits, anomaly maps and masks ``(B, 1, H, W)``; an image has the score of its worst pixel, ``(B,)``."""
        logits = self.logits(images)
        anomaly_map = logits.sigmoid()
        score = anomaly_map.amax(dim=(1, 2, 3))
        return logits, InferenceBatch(
            pred_score=score, pred_label=score > 0.5, anomaly_map=anomaly_map, pred_mask=anomaly_map > 0.5
        )

    def _whole(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = _pad(images, -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        logits: Tensor = self.network(padded.contiguous(memory_format=torch.channels_last))
        return logits[..., :height, :width]


class Segmenter(TwoClassModule):
    """Segmentation of defects: VisA's 2-class track, pixel level.

    Training images are flipped horizontally, cropped if there is a ``tile``, and not augmented otherwise.

    Source: SPD (ECCV 2022), and its authors on batch (8), images (about 800 px), architecture (U-Net), loss (focal) and
    augmentation.

    Args:
        backbone: registered name, or timm's.
        pretrained: start from the backbone's weights.
        architecture: name in segmentation-models-pytorch: ``unet``, ``unetplusplus``, ``fpn``, ``deeplabv3plus``, ...
        architecture_args: its options, such as ``decoder_channels``.
        tile: height and width of tiles, pixels: the model trains on such crops and segments images tile by tile, so that
            they need not be shrunk. Without it, images pass whole.
        focal_alpha: weight of defective pixels in the focal loss, 1 minus that of the others; -1 for equal weights. Ours.
        focal_gamma: exponent of the focal loss. Ours.
        learning_rate: at the start of the cosine.
        weight_decay: of AdamW.
        steps: of the optimizer.
        **kwargs: the other arguments of :class:`TwoClassModule`.

    Raises:
        ModuleNotFoundError: if segmentation-models-pytorch is missing.
        ValueError: for an unknown architecture, an invalid tile, or a value out of range.
    """

    model: SegmenterNetwork

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_spd",
        pretrained: bool = True,
        architecture: str = "unet",
        architecture_args: dict[str, Any] | None = None,
        tile: int | None = None,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        steps: int = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, steps, **kwargs)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.model = SegmenterNetwork(backbone, pretrained, architecture, architecture_args, tile)
        crop = [RandomCrop((tile, tile), pad_if_needed=True)] if tile else []
        self.augment = AugmentationSequential(RandomHorizontalFlip(p=0.5), *crop, data_keys=["input", "mask"])

    def check_training_images(self, images: AnomalibDataset) -> None:
        """Check that there is something to learn from.

        Raises:
            ValueError: a class has no image, or the mask of an anomalous image no defective pixel.
        """
        super().check_training_images(images)
        check_masks(images, "training set")

    def training_loss(self, batch: ImageBatch) -> Tensor:
        """Return the loss of randomly flipped and, with ``tile``, cropped images."""
        images, masks = self.augment(plain(batch.image), masks_of(batch))
        return self._focal(self.model.logits(images), masks)

    def criterion(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Return the loss of logits ``(B, 1, H, W)``."""
        return self._focal(logits, masks_of(batch))

    def _focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        loss: Tensor = sigmoid_focal_loss(logits, masks, self.focal_alpha, self.focal_gamma, reduction="mean")
        return loss


def _pad(images: Tensor, height: int, width: int) -> Tensor:
    """Return images padded at the bottom and right by repeating the last row and column."""
    missing = (0, width - images.shape[-1], 0, height - images.shape[-2])
    return F.pad(images, missing, mode="replicate") if any(missing) else images
