"""Images for pre-training: a folder of pictures with classes."""

from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images below a folder, each with the number of its class.

    A picture in a sub-folder has the sub-folder's name as its class (``cat/1.jpg``); one that lies in the folder itself,
    its own name up to the first underscore, which in ImageNet's file names is the class (``n01440764_10026.JPEG``).
    Classes are numbered in alphabetical order.

    Args:
        root: the folder.
        side: images are returned as ``side x side``: the short side resized, the middle cut out, pixels.

    Attributes:
        files: paths in alphabetical order.
        classes: names in the order of their numbers.

    Raises:
        FileNotFoundError: where the folder does not exist or holds no image.
    """

    def __init__(self, root: Path | str, side: int = 256) -> None:
        self.root = Path(root)
        self.files = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in EXTENSIONS)
        if not self.files:
            reason = f"holds no image ({', '.join(sorted(EXTENSIONS))})" if self.root.is_dir() else "does not exist"
            msg = f"The image folder {self.root} {reason}. Give another with --data.root."
            raise FileNotFoundError(msg)
        names = [self._class_name(path) for path in self.files]
        self.classes = sorted(set(names))
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = [number[name] for name in names]
        self._resize = v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side)])

    def _class_name(self, path: Path) -> str:
        relative = path.relative_to(self.root)
        return relative.parts[0] if len(relative.parts) > 1 else relative.stem.split("_")[0]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return uint8 ``(3, side, side)`` in ``[0, 255]`` and the class's number.

        Raises:
            OSError: where the file is no readable image; the message names it.
        """
        path = self.files[index]
        try:
            with Image.open(path) as image:
                pixels = v2.functional.pil_to_tensor(image.convert("RGB"))
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some damaged files
            msg = f"{path} cannot be read as an image: {error}"
            raise OSError(msg) from error
        return self._resize(pixels), self.labels[index]


class ImageFolder(LightningDataModule):
    """Batches of labelled images as bytes; augmentation happens on the device, in the training module.

    Args:
        root: folder of images, see :class:`LabelledImages`.
        batch_size: images per step and device.
        side: images leave the loader as ``side x side``, pixels. The views are cut from these, so ``side`` is somewhat
            larger than they are.
        num_workers: processes that decode.

    Raises:
        ValueError: where a batch is larger than the folder.
        FileNotFoundError: where the folder does not exist or holds no image.
    """

    def __init__(self, root: Path | str, batch_size: int = 32, side: int = 256, num_workers: int = 2) -> None:
        super().__init__()
        self.root = root
        self.batch_size = batch_size
        self.side = side
        self.num_workers = num_workers
        self.images: LabelledImages | None = None

    def setup(self, stage: str) -> None:
        """List the images."""
        self.images = LabelledImages(self.root, self.side)
        if len(self.images) < self.batch_size:
            msg = (
                f"The image folder {self.root} holds {len(self.images)} images, fewer than a batch of {self.batch_size}. "
                "Give a smaller --data.batch_size."
            )
            raise ValueError(msg)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return shuffled batches; the last, smaller one is dropped, for batch norm's sake."""
        assert self.images is not None, "Lightning calls setup first"
        return DataLoader(
            self.images,
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
