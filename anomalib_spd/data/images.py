"""Images for pre-training: a folder of pictures, or a list of them, with classes."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.sampler import ResumableSampler

logger = logging.getLogger(__name__)

#: a run stops where more than this share of its images cannot be read
FAULTY_SHARE = 0.01

#: faulty files that an error names
_NAMED = 20


def decode(file: Path | BinaryIO, side: int, stretch: bool = False) -> Tensor:
    """Read an image: the short side resized, the middle cut out.

    Args:
        file: path or open file.
        side: of what is returned, pixels.
        stretch: resize both sides instead, as detectors do.

    Returns:
        uint8 ``(3, side, side)`` in ``[0, 255]``.

    Raises:
        Exception: of nearly any kind, where the file is no image, damaged or truncated: that is how Pillow is.
    """
    with Image.open(file) as image:
        pixels = v2.functional.pil_to_tensor(image.convert("RGB"))
    resized: Tensor = v2.functional.resize(pixels, [side, side] if stretch else [side], antialias=True)
    cut: Tensor = v2.functional.center_crop(resized, [side, side])
    return cut


def stopped(count: int, share_of: str, names: Sequence[str]) -> OSError:
    """Make the error that stops a run with too many faulty files.

    Args:
        count: of faulty files.
        share_of: what they are more than the allowed share of.
        names: of them; the message has the first.
    """
    listed = "\n  ".join(names[:_NAMED])
    more = f"\n  and {count - _NAMED} more" if count > _NAMED else ""
    return OSError(
        f"{count} of {share_of} cannot be read as images, which is more than {FAULTY_SHARE:.0%}. Replace or remove "
        f"them:\n  {listed}{more}"
    )


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images with the numbers of their classes, as :meth:`ImageIndex.of` lists them.

    A file that cannot be read, or is truncated, is named once in the log, as a warning, and another image takes its place, of the
    same class if there is one, the same each time. Such files are counted over all worker processes of a loader (processes of a distributed
    training each count those that they meet); above 1 % of all, reading stops.

    Args:
        root: folder, text file with a list, or a list as such.
        side: images are returned as ``side x side``: the short side resized, the middle cut out, pixels.
        relative_to: folder to which a text file's paths are relative; by default its own.
        cache: folder of cached lists; by default the package's own.
        stretch: resize both sides instead, as detectors do.

    Attributes:
        files: paths, in alphabetical order or the text file's.

    Raises:
        FileNotFoundError: where there is no such folder or list, or no image in it.
        ValueError: where ``side`` is not positive, or a text file is not as it must be.
    """

    def __init__(
        self,
        root: Path | str | ImageIndex,
        side: int = 256,
        relative_to: Path | str | None = None,
        cache: Path | str | None = None,
        stretch: bool = False,
    ) -> None:
        if side < 1:
            raise ValueError(f"side must be at least 1 pixel, got {side}")
        self.files = root if isinstance(root, ImageIndex) else ImageIndex.of(root, relative_to, cache)
        self.side = side
        self.stretch = stretch
        # a byte for each file, in memory that worker processes share however they are started
        self._is_faulty = torch.zeros(len(self.files), dtype=torch.uint8).share_memory_()

    @property
    def classes(self) -> list[str]:
        """Names in the order of their numbers."""
        return list(self.files.classes)

    @property
    def labels(self) -> list[int]:
        """Number of each file's class."""
        labels: list[int] = self.files.labels.tolist()
        return labels

    @property
    def faulty(self) -> list[Path]:
        """The files that could not be read so far, by any worker process."""
        return [self.files[index] for index in self._is_faulty.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return uint8 ``(3, side, side)`` in ``[0, 255]`` and the class's number, of this image or one in its place.

        Raises:
            OSError: where more than 1 % of the files cannot be read; the message names them.
        """
        for number in self._in_order_for(index):
            try:
                return decode(self.files[number], self.side, self.stretch), int(self.files.labels[number])
            except Exception as error:  # Pillow raises nearly anything for damaged files
                self._note(number, error)
        raise AssertionError("where nothing can be read, more than 1 % cannot")

    def _in_order_for(self, index: int) -> Iterator[int]:
        """Yield an image, and what may take its place: others of its class, then any; by the index alone, so that runs can be repeated."""
        yield index
        order = np.random.default_rng(index)
        yield from map(int, order.permutation(np.flatnonzero(self.files.labels == self.files.labels[index])))
        yield from map(int, order.permutation(len(self)))

    def _note(self, index: int, error: Exception) -> None:
        if not self._is_faulty[index]:
            self._is_faulty[index] = 1
            path = self.files[index]
            logger.warning("%s cannot be read as an image (%s); another takes its place", path, error)
        count = int(self._is_faulty.count_nonzero())
        if count > FAULTY_SHARE * len(self):
            raise stopped(count, f"{len(self)} files", [str(path) for path in self.faulty]) from error


class ImageBatches(LightningDataModule):
    """Base of data modules with batches of images as bytes; augmentation happens on the device, in the training module.

    A subclass says which images (:meth:`list_images`).

    Args:
        batch_size: images per step and device.
        side: images leave the loader as ``side x side``, pixels. The views are cut from these, so ``side`` is somewhat
            larger than they are.
        num_workers: processes that decode.
        stretch: resize both sides, as detectors do, instead of the short one, of which the middle is cut out.

    Attributes:
        images: known when ``setup`` has returned.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, batch_size: int, side: int, num_workers: int, stretch: bool = False) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("side", side, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}")
        self.batch_size = batch_size
        self.side = side
        self.num_workers = num_workers
        self.stretch = stretch
        self.images: LabelledImages | None = None
        self._progress = {"seen": 0, "batches": 1}

    @abstractmethod
    def list_images(self) -> tuple[ImageIndex, str]:
        """Return the images, and their name in messages."""

    def setup(self, stage: str) -> None:
        """List the images.

        Raises:
            ValueError: where there are too few images.
            FileNotFoundError: where there is none.
        """
        index, name = self.list_images()
        self.check_number(index, name, self.trainer.world_size if self.trainer else 1)
        self.images = LabelledImages(index, self.side, stretch=self.stretch)

    def check_number(self, index: ImageIndex, name: str, processes: int) -> None:
        """Refuse too few images.

        Args:
            index: the images.
            name: of them, in messages.
            processes: that share them.

        Raises:
            ValueError: where there are fewer than two images, or fewer than a batch on each device.
        """
        if len(index) < 2:
            raise ValueError(f"{name} holds 1 image, but the methods compare images with others: give two or more.")
        if len(index) < self.batch_size * processes:
            where = f" on each of {processes} devices" if processes > 1 else ""
            raise ValueError(
                f"{name} holds {len(index)} images, fewer than a batch of {self.batch_size}{where}. "
                "Give a smaller --data.batch_size."
            )

    def sampler(self, images: LabelledImages, **where: Any) -> ResumableSampler:
        """Return the order of the images; a subclass may give another.

        Args:
            images: that are put in order.
            **where: see :class:`ResumableSampler`.
        """
        return ResumableSampler(images, **where)

    def state_dict(self) -> dict[str, Any]:
        """Return how far a checkpoint's run has come: batches seen, and batches an epoch."""
        if self.trainer is None:
            return {}
        return {"seen": self.trainer.fit_loop.total_batch_idx + 1, "batches": int(self.trainer.num_training_batches)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note how far the run had come that is gone on with."""
        self._progress = {**self._progress, **state_dict}

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return batches in the order of seed and epoch; the last, smaller one is dropped, for batch norm's sake.

        A run that goes on begins where it was, unless another number of batches make an epoch now: then with the epoch.
        """
        assert self.images is not None, "Lightning calls setup first"
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        epoch, batch = divmod(self._progress["seen"], self._progress["batches"])
        sampler = self.sampler(
            self.images, num_replicas=processes, rank=rank, seed=torch.initial_seed() % 2**32, epoch=epoch
        )
        if len(sampler) // self.batch_size == self._progress["batches"]:
            sampler.skip = batch * self.batch_size
        return DataLoader(
            self.images,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class ImageFolder(ImageBatches):
    """Batches of the images of a folder, or of a text file's list, as bytes.

    Files that cannot be read are replaced, see :class:`LabelledImages`.

    Args:
        root: folder of images, or text file with one path a line; see :meth:`ImageIndex.of`.
        batch_size: images per step and device.
        side: images leave the loader as ``side x side``, pixels. The views are cut from these, so ``side`` is somewhat
            larger than they are.
        num_workers: processes that decode.
        relative_to: folder to which a text file's paths are relative; by default its own.
        cache: folder of cached lists; by default ``.index`` in ``$ANOMALIB_SPD_HOME``, or the platform's for caches.

    Raises:
        ValueError: where a batch is larger than the folder, or a value is out of range.
        FileNotFoundError: where the folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 32,
        side: int = 256,
        num_workers: int = 2,
        relative_to: Path | str | None = None,
        cache: Path | str | None = None,
    ) -> None:
        super().__init__(batch_size, side, num_workers)
        self.root = root
        self.relative_to = relative_to
        self.cache = cache

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the folder, or read the list."""
        return ImageIndex.of(self.root, self.relative_to, self.cache), f"The image folder or list {self.root}"
