"""Batches of pictures of one kind of part each, with some photographs of anything beside them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from anomalib_spd.data.images import ImageFolder, LabelledImages
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.sampler import ResumableSampler
from anomalib_spd.data.synthetic_parts import make_parts


class KindSampler(ResumableSampler):
    """Gives group after group: so many items of one kind, then so many of those that are of none.

    Each epoch groups and orders all anew. Of a kind, what does not fill a group has a rest in that epoch; a kind with fewer items than
    a group never comes. Items of no kind come round as often as it takes.

    Args:
        labels: the kind of each item; of those that are of none it is negative.
        size: items of a kind in a group.
        others: items of no kind in a group.
        **where: see :class:`ResumableSampler`; ``skip`` is a multiple of a group's items.
    """

    def __init__(self, labels: Sequence[int], size: int, others: int, **where: Any) -> None:
        kinds = np.asarray(labels)
        of_kinds = (np.flatnonzero(kinds == kind) for kind in np.unique(kinds[kinds >= 0]))
        self.groups = [(items, piece) for items in of_kinds for piece in range(len(items) // size)]
        self.strangers = np.flatnonzero(kinds < 0)
        self.size, self.others = size, others
        super().__init__(self.groups, **where)  # type: ignore[arg-type] # anything that has a length

    def __iter__(self) -> Iterator[Any]:
        strangers = np.random.default_rng((self.seed, self.epoch)).permutation(self.strangers)
        first = self.skip // (self.size + self.others)
        for place, number in enumerate(islice(DistributedSampler.__iter__(self), first, None), first):
            items, piece = self.groups[number]
            shuffled = np.random.default_rng((self.seed, self.epoch, int(items[0]))).permutation(items)
            yield from shuffled[piece * self.size : (piece + 1) * self.size].tolist()
            place_of_all = place * self.num_replicas + self.rank
            yield from (
                int(strangers[(place_of_all * self.others + each) % len(strangers)]) for each in range(self.others)
            )

    def __len__(self) -> int:
        return super().__len__() * (self.size + self.others)


class CategoryFolder(ImageFolder):
    """Batches of the images of a folder of folders, one for each kind of part; a batch is of one kind.

    All are good parts, or surfaces without a defect. Photographs of anything may come with each batch, behind its parts and with the
    label -1: what a backbone knows of the world is kept by them. A file that cannot be read is replaced by another of its kind, see
    :class:`LabelledImages`.

    Args:
        root: folder with a folder for each kind, or text file with ``path kind`` a line; see :meth:`ImageIndex.of`.
        batch_size: images of a kind per step and device.
        photographs: folder of images, or text file with one path a line.
        photographs_a_batch: photographs per step and device, beside the others.
        **settings: see :class:`ImageFolder`.

    Raises:
        ValueError: where no kind has as many images as a batch, or a value is out of range.
        FileNotFoundError: where a folder does not exist or holds no image.
    """

    def __init__(
        self,
        root: Path | str,
        batch_size: int = 8,
        photographs: Path | str | None = None,
        photographs_a_batch: int = 4,
        **settings: Any,
    ) -> None:
        if batch_size < 1 or photographs_a_batch < 0:
            raise ValueError(
                "batch_size must be 1 or more, photographs_a_batch must not be negative, got "
                f"{batch_size} and {photographs_a_batch}"
            )
        self.photographs = photographs
        self.photographs_a_batch = photographs_a_batch if photographs is not None else 0
        super().__init__(root, batch_size + self.photographs_a_batch, **settings)

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the folders.

        Raises:
            ValueError: where no kind has as many images as a batch takes.
        """
        index, name = super().list_images()
        size = self.batch_size - self.photographs_a_batch
        most = int(np.bincount(index.labels).max())
        if most < size:
            raise ValueError(
                f"{name} holds {len(index)} images of {len(index.classes)} kinds, at most {most} of one, but a batch takes {size} of one "
                "kind. Give a folder with a folder of images for each kind, or a smaller --data.batch_size."
            )
        if self.photographs_a_batch:
            index = index.with_others(ImageIndex.of(self.photographs or "", cache=self.cache))
        return index, name

    def sampler(self, images: LabelledImages, **where: Any) -> ResumableSampler:
        """Return the order of the images."""
        others = self.photographs_a_batch
        return KindSampler(images.labels, self.batch_size - others, others, **where)


class SyntheticParts(CategoryFolder):
    """Batches of pictures of synthetic parts and surfaces; a batch is of one kind. Made when missing, once, in minutes.

    Source: ours, see :class:`~anomalib_spd.data.synthetic_parts.Kind`.

    Args:
        root: folder of the pictures, ``ROOT/KIND/NUMBER.jpg``.
        kinds: of parts and surfaces.
        pictures: of each kind.
        seed: of all kinds.
        batch_size: pictures of a kind per step and device.
        photographs: folder of other images, or text file with one path a line; see :class:`CategoryFolder`.
        photographs_a_batch: per step and device, beside the pictures.
        num_workers: processes that decode.

    Raises:
        ValueError: where a batch takes more pictures than a kind has, or a value is out of range.
        FileNotFoundError: where the photographs are missing.
        FileExistsError: where the folder is there, but holds other pictures.
    """

    def __init__(
        self,
        root: Path | str = "./datasets/synthetic_parts",
        kinds: int = 400,
        pictures: int = 8,
        seed: int = 0,
        batch_size: int = 8,
        photographs: Path | str | None = None,
        photographs_a_batch: int = 4,
        num_workers: int = 1,
    ) -> None:
        super().__init__(root, batch_size, photographs, photographs_a_batch, side=256, num_workers=num_workers)
        self.kinds, self.pictures, self.seed = kinds, pictures, seed

    def prepare_data(self) -> None:
        """Make the folder if it is missing (a Lightning hook, called in one process)."""
        make_parts(self.root, self.kinds, self.pictures, self.seed)
