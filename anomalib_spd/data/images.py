"""Batches of a folder's images, or of a list's, for pre-training."""

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomalib_spd.data.image_files import check_white, height_and_width, read_image, resize
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.run_settings import check_same_run
from anomalib_spd.data.sampler import ResumableSampler
from anomalib_spd.files import digest

logger = logging.getLogger(__name__)

#: a run stops if it cannot read more than this share of its images
MAX_UNREADABLE = 0.01


def decode(
    file: Path | BinaryIO, image_size: int | tuple[int, int], keep_aspect: bool = True, white: float | None = None
) -> Tensor:
    """Read an image at one size: resize until one side fits and crop the other one's center, or resize both sides.

    Args:
        file: path or open file.
        image_size: height and width, pixels; one number stands for both.
        keep_aspect: crop what is too long; False resizes both sides, as detectors do.
        white: see :func:`~anomalib_spd.data.image_files.read_image`.

    Returns:
        uint8 ``(3, height, width)`` in ``[0, 255]``.

    Raises:
        ValueError: if the image has no white and ``white`` is not given, or a size is none.
        Exception: of nearly any type, for a damaged or truncated file: Pillow's decoders differ.
    """
    return resize(read_image(file, white), image_size, keep_aspect)


def too_many_unreadable(count: int, total: str, names: Sequence[str], reason: Exception) -> OSError:
    """Return the error that stops a run; it lists the first 20 files.

    Args:
        count: number of unreadable files.
        total: what they are counted among, for the message.
        names: the unreadable files.
        reason: why the last one is unreadable.
    """
    listed = "\n  ".join(names[:20])
    more = f"\n  and {count - 20} more" if count > 20 else ""
    return OSError(
        f"{count} of {total} cannot be read as images, which is more than {MAX_UNREADABLE:.0%} (the last: {reason}). "
        f"Replace or remove them:\n  {listed}{more}"
    )


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images of one size with the numbers of their classes.

    An unreadable or truncated file is logged once, as a warning, and replaced by another image, of the same class if there is
    one; always by the same one. All worker processes of a loader count such files together (each process of a distributed
    training counts those that it meets); above 1 % of all files, reading stops.

    Args:
        root: index, or what :meth:`ImageIndex.of` reads as one.
        image_size: height and width of the images, pixels; one number stands for both.
        keep_aspect: crop what is too long; False resizes both sides, as detectors do.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Attributes:
        files: the :class:`ImageIndex`.

    Raises:
        FileNotFoundError: if the folder or list does not exist, or has no image.
        ValueError: if ``image_size`` is no positive number, or two, or a text file is malformed.
    """

    def __init__(
        self,
        root: Path | str | ImageIndex,
        image_size: int | tuple[int, int] = 256,
        keep_aspect: bool = True,
        white: float | None = None,
    ) -> None:
        check_white(white)
        self.files = root if isinstance(root, ImageIndex) else ImageIndex.of(root)
        self.image_size = height_and_width("image_size", image_size)
        self.keep_aspect = keep_aspect
        self.white = white
        # a byte for each file, in memory that worker processes share however they are started
        self._is_unreadable = torch.zeros(len(self.files), dtype=torch.uint8).share_memory_()

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of their numbers."""
        return self.files.classes

    @property
    def labels(self) -> list[int]:
        """Number of each file's class."""
        labels: list[int] = self.files.labels.tolist()
        return labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files' names, each with its folder's, and of their classes."""
        names = ("/".join(path.parts[-2:]) for path in self.files)
        return digest("\n".join(names), self.files.labels.tobytes())

    @property
    def unreadable(self) -> list[Path]:
        """The files that no worker process could read so far."""
        return [self.files[index] for index in self._is_unreadable.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return uint8 ``(3, height, width)`` in ``[0, 255]`` and the number of the class.

        Raises:
            OSError: if more than 1 % of the files cannot be read; the message lists them.
        """
        for number in self._candidates(index):
            try:
                return self.read(number)
            except Exception as error:  # Pillow raises nearly anything for damaged files
                self._record(number, error)
        raise AssertionError("if nothing can be read, more than 1 % cannot")

    def read(self, number: int) -> tuple[Tensor, int]:
        """Return an image and the number of its class without a replacement; subclasses may return more.

        Raises:
            Exception: of nearly any type, for a damaged or truncated file: Pillow's decoders differ.
        """
        image = decode(self.files[number], self.image_size, self.keep_aspect, self.white)
        return image, int(self.files.labels[number])

    def _candidates(self, index: int) -> Iterator[int]:
        """Yield an image and its replacements: others of its class, then any, in an order that depends on the index alone."""
        yield index
        order = np.random.default_rng(index)
        yield from map(int, order.permutation(np.flatnonzero(self.files.labels == self.files.labels[index])))
        yield from map(int, order.permutation(len(self)))

    def _record(self, index: int, error: Exception) -> None:
        if not self._is_unreadable[index]:
            self._is_unreadable[index] = 1
            logger.warning("%s cannot be read as an image (%s); another replaces it", self.files[index], error)
        count = int(self._is_unreadable.count_nonzero())
        if count > MAX_UNREADABLE * len(self):
            names = [str(path) for path in self.unreadable]
            raise too_many_unreadable(count, f"{len(self)} files", names, error) from error


class ImageBatches(LightningDataModule):
    """Base of data modules that give batches of uint8 images; the training module augments them on the device.

    A subclass lists the images (:meth:`list_images`).

    Args:
        batch_size: images per step and device.
        image_size: height and width of the images, pixels; one number stands for both. Training modules crop smaller views from
            them.
        num_workers: number of processes that decode.
        keep_aspect: crop what is too long; False resizes both sides, as detectors do.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Attributes:
        images: the :class:`LabelledImages`, set by ``setup``.

    Raises:
        ValueError: if a value is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        image_size: int | tuple[int, int],
        num_workers: int,
        keep_aspect: bool = True,
        white: float | None = None,
    ) -> None:
        super().__init__()
        check_white(white)
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size must be 1 or more, num_workers must not be negative, got {batch_size} and {num_workers}"
            )
        self.batch_size = batch_size
        self.image_size = height_and_width("image_size", image_size)
        self.num_workers = num_workers
        self.keep_aspect = keep_aspect
        self.white = white
        self.images: LabelledImages | None = None
        self._progress = {"seen": 0, "batches": 1}

    @abstractmethod
    def list_images(self) -> tuple[ImageIndex, str]:
        """Return the images, and their name for messages."""

    def setup(self, stage: str) -> None:
        """List the images.

        Raises:
            ValueError: if there are too few images.
            FileNotFoundError: if there is none.
        """
        index, name = self.list_images()
        self.check_number(index, name, self.trainer.world_size if self.trainer else 1)
        self.images = LabelledImages(index, self.image_size, self.keep_aspect, self.white)

    def check_number(self, index: ImageIndex, name: str, processes: int) -> None:
        """Check that there are enough images.

        Args:
            index: the images.
            name: their name for messages.
            processes: number of processes that share them.

        Raises:
            ValueError: if there are fewer than two images, or fewer than a batch per process.
        """
        if len(index) < 2:
            raise ValueError(f"{name} holds 1 image, but the methods compare images with others: give two or more.")
        if len(index) < self.batch_size * processes:
            where = f" on each of {processes} devices" if processes > 1 else ""
            raise ValueError(
                f"{name} holds {len(index)} images, fewer than a batch of {self.batch_size}{where}. "
                "Give a smaller --data.batch_size."
            )

    def sampler(self, images: LabelledImages, **settings: Any) -> ResumableSampler:
        """Return the sampler; subclasses may return another one.

        Args:
            images: the images to be ordered.
            **settings: the other arguments of :class:`ResumableSampler`.
        """
        return ResumableSampler(images, **settings)

    def settings(self) -> dict[str, Any]:
        """Return what batches are made of: a run resumes with no others."""
        assert self.images is not None, "Lightning calls setup first"
        height, width = self.image_size
        # plain numbers: a command line gives a class of its own, which a checkpoint cannot hold
        sizes = {"batch_size": int(self.batch_size), "image_size": height if height == width else self.image_size}
        return {"images": self.images.digest, **sizes, "white": None if self.white is None else float(self.white)}

    def state_dict(self) -> dict[str, Any]:
        """Return the progress for a checkpoint: batches seen, batches per epoch, and the settings of the batches."""
        if self.trainer is None:
            return {}
        seen, batches = self.trainer.fit_loop.total_batch_idx + 1, int(self.trainer.num_training_batches)
        return {"seen": seen, "batches": batches, "settings": self.settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the progress of a checkpoint.

        Raises:
            ValueError: if it is of a run with other images or batches.
        """
        check_same_run(state_dict.get("settings", {}), self.settings())
        self._progress = {"seen": state_dict["seen"], "batches": state_dict["batches"]}

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return shuffled batches; an incomplete last batch is dropped, for batch norm's sake.

        A resumed run begins at the next batch, or at the start of the epoch if the number of batches per epoch has changed.
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
    """Batches of a folder's images, or of those that a text file lists, as uint8.

    Unreadable files are replaced, see :class:`LabelledImages`.

    Args:
        root: folder of images, or text file with one path per line; see :meth:`ImageIndex.of`.
        batch_size: images per step and device.
        image_size: side of the square images, pixels. Training modules crop smaller views from them.
        num_workers: number of processes that decode.
        relative_to: folder to which a text file's paths are relative; by default its own.
        white: value of white of images with one channel of more than 8 bits, such as 4095 for cameras of 12 bits; by default
            65535 for 16 bits. See :func:`~anomalib_spd.data.image_files.read_image`.

    Raises:
        ValueError: if a batch is larger than the folder, or a value is out of range.
        FileNotFoundError: if the folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 32,
        image_size: int = 256,
        num_workers: int = 2,
        relative_to: Path | str | None = None,
        white: float | None = None,
    ) -> None:
        super().__init__(batch_size, image_size, num_workers, white=white)
        self.root = root
        self.relative_to = relative_to

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the folder, or read the text file."""
        return ImageIndex.of(self.root, self.relative_to), f"The image folder or list {self.root}"
