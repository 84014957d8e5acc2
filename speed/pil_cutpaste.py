"""CutPaste training as in its public re-implementations: Pillow makes three inputs of each image, one at a time."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from PIL import Image
from pil_reference import cut_paste
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter, Compose, Normalize, ToTensor

from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.training.heads import mlp

WAYS = 3


class PerImageCutPaste(LightningModule):
    """A classifier of images, images with a pasted patch, and images with a scar; network and optimizer are ours.

    Args:
        backbone: name in timm or in the registry.
        channels_last: memory layout of the network and its inputs, as ours; otherwise PyTorch's default.
    """

    def __init__(self, backbone: str, channels_last: bool = False) -> None:
        super().__init__()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder: Any = timm.create_model(backbone, num_classes=0)
        self.encoder = self.encoder.to(memory_format=self.layout)
        self.head = mlp([self.encoder.num_features, 512, 128, WAYS])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of normalized images, patches and scars, ``(B, 3, H, W)`` each."""
        inputs = torch.cat(batch).contiguous(memory_format=self.layout)
        labels = torch.arange(WAYS, device=self.device).repeat_interleave(len(batch[0]))
        return F.cross_entropy(self.head(self.encoder(inputs)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return our optimizer."""
        return torch.optim.SGD(self.parameters(), 0.03, 0.9, weight_decay=3e-5)


class Pictures(Dataset[list[Tensor]]):
    """An image in slightly other colors, a copy with a patch pasted and one with a scar, normalized.

    Args:
        files: paths of the images.
        image_size: side of the images, pixels; the aspect is not kept.
        in_memory: read and resize the images once, here, as some re-implementations do.
    """

    def __init__(self, files: Sequence[Path], image_size: int, in_memory: bool = False) -> None:
        self.files = files
        self.image_size = image_size
        self.jitter = ColorJitter(0.1, 0.1, 0.1, 0.1)
        self.to_tensor = Compose([ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
        self.cached = [self._open(index) for index in range(len(files))] if in_memory else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = self.jitter(self.cached[index] if self.cached else self._open(index))
        return [self.to_tensor(each) for each in (image, cut_paste(image.copy()), self._cut_paste_scar(image.copy()))]

    def _open(self, index: int) -> Image.Image:
        with Image.open(self.files[index]) as image:
            return image.convert("RGB").resize((self.image_size, self.image_size))

    def _cut_paste_scar(self, image: Image.Image) -> Image.Image:
        """Paste a jittered, turned strip of the image elsewhere."""
        width, length = (round(random.uniform(*span) / 256 * self.image_size) for span in ((2, 16), (10, 25)))
        x, y = random.randint(0, self.image_size - width), random.randint(0, self.image_size - length)
        strip = self.jitter(image.crop((x, y, x + width, y + length))).convert("RGBA")
        strip = strip.rotate(random.uniform(-45, 45), expand=True)
        location = random.randint(0, self.image_size - strip.width), random.randint(0, self.image_size - strip.height)
        image.paste(strip.convert("RGB"), location, mask=strip.getchannel("A"))
        return image


def pil_loader(
    files: Sequence[Path], image_size: int, batch: int, workers: int, in_memory: bool = False
) -> DataLoader[Any]:
    """Return batches of :class:`Pictures`, made in the loader's workers."""
    return DataLoader(
        Pictures(files, image_size, in_memory),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
