"""Which pixels are defective? A U-Net, or its like, with a backbone for an encoder."""

from typing import Any

import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.data.utils.tiler import Tiler
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from kornia.augmentation import AugmentationSequential, RandomCrop, RandomHorizontalFlip
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from anomalib_spd.twoclass.base import TwoClassModule, TwoClassNetwork, masks_of, plain

# every encoder halves five times, and decoders double as often
STRIDE = 32


class SegmenterNetwork(TwoClassNetwork):
    """An architecture of segmentation-models-pytorch on a timm encoder, for images of any size.

    Args:
        backbone: name on the shelf or in timm.
        pretrained: start from the backbone's weights, not from scratch; the decoder always does.
        architecture: name in segmentation-models-pytorch.
        architecture_args: its options, such as ``decoder_channels``.
        tile: side of the square tiles, pixels, in which larger images pass; they overlap by half, and where they do
            the mean counts. Without it images pass whole.

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is missing.
        ValueError: unknown architecture, or a tile that is no multiple of 32.
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
        tiles = tiler.tile(_grown(images, max(height, self.tile), max(width, self.tile)))
        # as many at a time as there are images: the memory that a batch of tile-sized images takes
        logits = torch.cat([self._whole(some) for some in tiles.split(len(images))])
        return tiler.untile(logits)[..., :height, :width]

    def judge(self, images: Tensor) -> tuple[Tensor, InferenceBatch]:
        """Return the logits, anomaly maps and masks ``(B, 1, H, W)``; an image scores as its worst pixel, ``(B,)``."""
        logits = self.logits(images)
        anomaly_map = logits.sigmoid()
        score = anomaly_map.amax(dim=(1, 2, 3))
        return logits, InferenceBatch(
            pred_score=score, pred_label=score > 0.5, anomaly_map=anomaly_map, pred_mask=anomaly_map > 0.5
        )

    def _whole(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        grown = _grown(images, -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)
        logits: Tensor = self.network(grown.contiguous(memory_format=torch.channels_last))
        return logits[..., :height, :width]


class Segmenter(TwoClassModule):
    """Segmentation of defects: VisA's 2-class track, pixel level.

    Training images are flipped horizontally, and nothing else is done to them but for the crop of ``tile``.

    Source: SPD (ECCV 2022) with its authors' words on batch (8), images (about 800 px), architecture (U-Net), loss (focal)
    and augmentation.

    Args:
        backbone: name on the shelf or in timm.
        pretrained: start from the backbone's weights.
        architecture: name in segmentation-models-pytorch: ``unet``, ``unetplusplus``, ``fpn``, ``deeplabv3plus``, ...
        architecture_args: its options, such as ``decoder_channels``.
        tile: side of square tiles, pixels: such crops are learnt from, and images are segmented tile by tile, so that
            they need not be shrunk. Without it, images pass whole.
        focal_alpha: weight of defective pixels in the focal loss, of the others 1 minus it; -1 weighs them alike. Ours.
        focal_gamma: exponent of the focal loss. Ours.
        learning_rate: see :class:`TwoClassModule`, as are all that follow.
        weight_decay: of AdamW.
        steps: of the optimiser.
        pre_processor: resizes and normalises.
        post_processor: none is needed.
        evaluator: as anomalib's models take it.
        visualizer: likewise.

    Raises:
        ModuleNotFoundError: segmentation-models-pytorch is missing.
        ValueError: unknown architecture, an invalid tile, and what :class:`TwoClassModule` refuses.
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
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = False,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(learning_rate, weight_decay, steps, pre_processor, post_processor, evaluator, visualizer)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.model = SegmenterNetwork(backbone, pretrained, architecture, architecture_args, tile)
        crop = [RandomCrop((tile, tile), pad_if_needed=True)] if tile else []
        self.augment = AugmentationSequential(RandomHorizontalFlip(p=0.5), *crop, data_keys=["input", "mask"])

    def training_loss(self, batch: ImageBatch) -> Tensor:
        """Return the loss of randomly flipped, and with tiles cropped, images."""
        images, masks = self.augment(plain(batch.image), masks_of(batch))
        return self._focal(self.model.logits(images), masks)

    def criterion(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Return the loss of logits ``(B, 1, H, W)``."""
        return self._focal(logits, masks_of(batch))

    def _focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        loss: Tensor = sigmoid_focal_loss(logits, masks, self.focal_alpha, self.focal_gamma, reduction="mean")
        return loss


def _grown(images: Tensor, height: int, width: int) -> Tensor:
    """Return images with their last row and column repeated as often as is missing."""
    missing = (0, width - images.shape[-1], 0, height - images.shape[-2])
    return F.pad(images, missing, mode="replicate") if any(missing) else images
