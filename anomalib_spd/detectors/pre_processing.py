"""Pre-processing for stock anomalib detectors, configured by plain numbers, with a check of the layers."""

from typing import Any

from anomalib.pre_processing import PreProcessor
from lightning.pytorch import LightningModule, Trainer
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize, Transform

from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.backbones.transformers import build_empty, check_image_size
from anomalib_spd.data.image_files import height_and_width


class BackbonePreProcessor(PreProcessor):
    """Resizes, center-crops and normalizes images, and checks that the backbone has the layers that the detector reads.

    Stock anomalib drops a layer that the backbone does not have, with a line in the log, and reads the others; here that
    is an error, before anything is trained. In YAML, size and crop are two numbers each instead of a spelled-out transform.
    A YAML file that names this class makes the stock ``anomalib`` command import this package, which registers its
    backbones.

    Args:
        image_size: height and width that images are resized to, pixels; one number stands for both.
        center_crop_size: height and width of the crop, pixels; by default images are not cropped.

    Raises:
        ValueError: where a size is no positive number, or two, or the crop is larger than the image.
    """

    def __init__(
        self, image_size: int | tuple[int, int] = (256, 256), center_crop_size: int | tuple[int, int] | None = None
    ) -> None:
        size = height_and_width("image_size", image_size)
        crop: list[Transform] = []
        if center_crop_size is not None:
            cropped = height_and_width("center_crop_size", center_crop_size)
            if cropped[0] > size[0] or cropped[1] > size[1]:
                raise ValueError(f"A center crop of {cropped} does not fit into an image of {size}.")
            crop = [CenterCrop(cropped)]
        self.image_size = cropped if crop else size
        super().__init__(
            Compose([Resize(size, antialias=True), *crop, Normalize(mean=[*IMAGENET_MEAN], std=[*IMAGENET_STD])])
        )

    def __reduce__(self) -> tuple[type[PreProcessor], tuple[Transform | None]]:
        """Pickle as stock anomalib's class: a model that anomalib exports by ``torch.save`` must not need this package."""
        return PreProcessor, (self.transform,)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the detector's layers, and the size of images, against its backbone (a Lightning hook).

        Raises:
            ValueError: for a layer that the backbone does not have, for layers out of order, and for images that are not of whole
                patches.
        """
        del trainer, stage
        hparams: dict[str, Any] = dict(pl_module.hparams)
        backbone, layers = hparams.get("backbone"), hparams.get("layers") or hparams.get("layer")
        if isinstance(backbone, str) and layers:
            check_layers(backbone, [layers] if isinstance(layers, str) else list(layers))
            check_image_size(build_empty(backbone), *self.image_size)
