"""Batches of images of one category each, optionally with images of anything beside them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from anomalib_spd.data.images import ImageFolder, LabelledImages
from anomalib_spd.data.index import REPLAY_OPTION, ImageIndex, check_exists
from anomalib_spd.data.sampler import ResumableSampler
from anomalib_spd.data.synthetic_parts import make_parts


class CategorySampler(ResumableSampler):
    """Yields group after group: ``size`` items of one category, then ``background`` items without a category.

    Every epoch groups and shuffles all items anew. Items of a category that do not fill a group rest in that epoch; a category
    with fewer items than a group never comes. Items without a category repeat as often as needed.

    Args:
        labels: category of each item; negative for items without one.
        size: items of a category per group.
        background: items without a category per group.
        **settings: the other arguments of :class:`ResumableSampler`; ``skip`` is a multiple of a group's length.
    """

    def __init__(self, labels: Sequence[int], size: int, background: int, **settings: Any) -> None:
        categories = np.asarray(labels)
        by_category = (np.flatnonzero(categories == each) for each in np.unique(categories[categories >= 0]))
        self.groups = [(items, part) for items in by_category for part in range(len(items) // size)]
        self.without_category = np.flatnonzero(categories < 0)
        self.size, self.background = size, background
        super().__init__(self.groups, **settings)

    def __iter__(self) -> Iterator[Any]:
        others = np.random.default_rng((self.seed, self.epoch)).permutation(self.without_category)
        first = self.skip // (self.size + self.background)
        for step, number in enumerate(islice(DistributedSampler.__iter__(self), first, None), first):
            items, part = self.groups[number]
            shuffled = np.random.default_rng((self.seed, self.epoch, int(items[0]))).permutation(items)
            yield from shuffled[part * self.size : (part + 1) * self.size].tolist()
            start = (step * self.num_replicas + self.rank) * self.background
            yield from (int(others[(start + each) % len(others)]) for each in range(self.background))

    def __len__(self) -> int:
        return super().__len__() * (self.size + self.background)


class CategoryFolder(ImageFolder):
    """Batches of one category each, from a folder with a sub-folder of images per category.

    All images show good parts, or surfaces without a defect. Replay images, of anything and with the label -1, may follow the
    parts in each batch: with them a training keeps what the backbone knew. A file that cannot be read is replaced by another
    of its category, see :class:`LabelledImages`.

    Args:
        root: folder with a sub-folder per category, or text file with ``path<tab>category`` per line; see
            :meth:`ImageIndex.of`.
        batch_size: images of a category per step and device.
        replay_images: folder of images of anything, or text file with one path per line.
        replay_per_batch: replay images per step and device, beside the others.
        **settings: the other arguments of :class:`ImageFolder`.

    Raises:
        ValueError: if no category has as many images as a batch takes, or a value is out of range.
        FileNotFoundError: if a folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 8,
        replay_images: Path | str | None = None,
        replay_per_batch: int = 4,
        **settings: Any,
    ) -> None:
        if batch_size < 1 or replay_per_batch < 0:
            raise ValueError(
                "batch_size must be 1 or more, replay_per_batch must not be negative, got "
                f"{batch_size} and {replay_per_batch}"
            )
        self.replay_images = replay_images
        self.replay_per_batch = replay_per_batch if replay_images is not None else 0
        super().__init__(root, batch_size + self.replay_per_batch, **settings)

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the folders.

        Raises:
            ValueError: if no category has as many images as a batch takes.
        """
        index, name = super().list_images()
        size = self.batch_size - self.replay_per_batch
        most = int(np.bincount(index.labels).max())
        if most < size:
            raise ValueError(
                f"{name} holds {len(index)} images of {len(index.classes)} categories, at most {most} of one, but a batch takes "
                f"{size} of one category. Give a folder with a sub-folder of images per category, or a smaller --data.batch_size."
            )
        if self.replay_per_batch:
            index = index.with_background(ImageIndex.of(self.replay_images or "", option=REPLAY_OPTION))
        return index, name

    def sampler(self, images: LabelledImages, **settings: Any) -> ResumableSampler:
        """Return a :class:`CategorySampler`."""
        background = self.replay_per_batch
        return CategorySampler(images.labels, self.batch_size - background, background, **settings)


class SyntheticParts(CategoryFolder):
    """Batches of synthetic parts and surfaces of one category each; the images are made once, in minutes, if missing.

    Source: ours, see :class:`~anomalib_spd.data.synthetic_parts.PartCategory`.

    Args:
        root: folder of the images, ``ROOT/CATEGORY/NUMBER.jpg``.
        categories: number of categories of parts and surfaces.
        images_per_category: number of images of each.
        seed: of all categories.
        batch_size: images of a category per step and device.
        replay_images: folder of images of anything, or text file with one path per line; see :class:`CategoryFolder`.
        replay_per_batch: replay images per step and device, beside the others.
        num_workers: number of processes that decode.

    Raises:
        ValueError: if a batch takes more images than a category has, or a value is out of range.
        FileNotFoundError: if the replay images are missing.
        FileExistsError: if the folder holds other images.
    """

    def __init__(
        self,
        root: Path | str = "./datasets/synthetic_parts",
        categories: int = 400,
        images_per_category: int = 8,
        seed: int = 0,
        batch_size: int = 8,
        replay_images: Path | str | None = None,
        replay_per_batch: int = 4,
        num_workers: int = 1,
    ) -> None:
        super().__init__(root, batch_size, replay_images, replay_per_batch, image_size=256, num_workers=num_workers)
        self.categories, self.images_per_category, self.seed = categories, images_per_category, seed

    def prepare_data(self) -> None:
        """Make the images if they are missing (a hook of Lightning, called in one process)."""
        if self.replay_per_batch:
            check_exists(Path(self.replay_images or ""), REPLAY_OPTION)  # before minutes of work
        make_parts(self.root, self.categories, self.images_per_category, self.seed)
