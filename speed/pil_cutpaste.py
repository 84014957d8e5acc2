"""CutPaste as its public re-implementations train it: three pictures made of each by Pillow, one image at a time."""

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
    """Told apart are images as they are, with a patch pasted, and with a scar: network and optimiser are ours.

    Args:
        backbone: name in timm, ours included.
        channels_last: the layout of the network and its inputs, as ours; else PyTorch's.
    """

    def __init__(self, backbone: str, channels_last: bool = False) -> None:
        super().__init__()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.encoder: Any = timm.create_model(backbone, num_classes=0)
        self.encoder = self.encoder.to(memory_format=self.layout)
        self.head = mlp([self.encoder.num_features, 512, 128, WAYS])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of normalised images, patches and scars, ``(B, 3, H, W)`` each."""
        inputs = torch.cat(batch).contiguous(memory_format=self.layout)
        labels = torch.arange(WAYS, device=self.device).repeat_interleave(len(batch[0]))
        return F.cross_entropy(self.head(self.encoder(inputs)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of ours."""
        return torch.optim.SGD(self.parameters(), 0.03, 0.9, weight_decay=3e-5)


class Pictures(Dataset[list[Tensor]]):
    """An image in slightly other colors, a copy with a patch pasted and one with a scar, normalised.

    Args:
        files: of the images.
        side: they are stretched to, pixels.
        in_memory: read and resize them once, here, as some re-implementations do.
    """

    def __init__(self, files: Sequence[Path], side: int, in_memory: bool = False) -> None:
        self.files = files
        self.side = side
        self.jitter = ColorJitter(0.1, 0.1, 0.1, 0.1)
        self.to_tensor = Compose([ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
        self.kept = [self._open(index) for index in range(len(files))] if in_memory else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Tensor]:
        image = self.jitter(self.kept[index] if self.kept else self._open(index))
        return [self.to_tensor(each) for each in (image, cut_paste(image.copy()), self._cut_paste_scar(image.copy()))]

    def _open(self, index: int) -> Image.Image:
        with Image.open(self.files[index]) as image:
            return image.convert("RGB").resize((self.side, self.side))

    def _cut_paste_scar(self, image: Image.Image) -> Image.Image:
        """Paste a jittered, turned strip of the image elsewhere."""
        width, length = (round(random.uniform(*span) / 256 * self.side) for span in ((2, 16), (10, 25)))
        x, y = random.randint(0, self.side - width), random.randint(0, self.side - length)
        strip = self.jitter(image.crop((x, y, x + width, y + length))).convert("RGBA")
        strip = strip.rotate(random.uniform(-45, 45), expand=True)
        place = random.randint(0, self.side - strip.width), random.randint(0, self.side - strip.height)
        image.paste(strip.convert("RGB"), place, mask=strip.getchannel("A"))
        return image


def pil_loader(files: Sequence[Path], side: int, batch: int, workers: int, in_memory: bool = False) -> DataLoader[Any]:
    """Return batches of :class:`Pictures`, made in the loader's processes."""
    return DataLoader(
        Pictures(files, side, in_memory),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
