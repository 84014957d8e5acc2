"""Batches of the normal training images of anomalib data modules, never of a test image."""

import copy
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.data.utils import LabelName
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from torch import Tensor

from anomalib_spd.data.defects import DefectSampler
from anomalib_spd.data.images import ImageBatches, LabelledImages, decode
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.ready import listing, prepare
from anomalib_spd.data.sampler import ResumableSampler
from anomalib_spd.files import content_digests, digest, first_few

logger = logging.getLogger(__name__)

LEAST_HELD_OUT, MOST_HELD_OUT = 5, 40


class HeldOut(NamedTuple):
    """The images of a data module, without those that were held out, and these; as batches have theirs.

    Attributes:
        title: of the data module.
        training: uint8 ``(M, 3, height, width)``.
        held_out: uint8 ``(N, 3, height, width)``.
    """

    title: str
    training: Tensor
    held_out: Tensor


class NormalImages(ImageBatches):
    """Batches of the normal training images of anomalib data modules, as uint8; the class is the data module's number.

    Setup fails if one of the images is also in a wrapped module's test or validation set, under this or another name. It
    also fails if that set is drawn from the training images at random without the module's ``seed``: a detector would draw it
    anew, and test on images that were trained on here. A checkpoint of other images cannot be resumed.

    Of the wrapped modules only the list of images counts. Their batch sizes, workers and augmentations have no effect: give
    them here. Anomalous training images are left out.

    Args:
        datamodule: image data module, or several.
        batch_size: images per step and device.
        image_size: height and width of the images, pixels; one number stands for both. Training modules may crop smaller views
            from them.
        num_workers: number of processes that decode.
        keep_aspect: crop what is too long; False resizes both sides, as detectors do.
        holdout: share of the images of each data module that no batch has, at least 5 and at most 40 of them, by their
            contents; see :meth:`held_out`.
        shrink_batches: reduce ``batch_size`` to the number of images, down to 1, instead of failing if there are fewer.
        by_category: have images of one data module in each batch, of all of them equally often, for trainings that compare the
            images of a batch.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Raises:
        ValueError: if a value is out of range, or a data module is one of videos.
    """

    _held_out: ImageIndex

    def __init__(
        self,
        datamodule: AnomalibDataModule | Sequence[AnomalibDataModule],
        batch_size: int = 32,
        image_size: int | tuple[int, int] = 256,
        num_workers: int = 2,
        keep_aspect: bool = True,
        shrink_batches: bool = False,
        white: float | None = None,
        holdout: float = 0.0,
        by_category: bool = False,
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is a share of the images, 0 or more and below 1. Got {holdout}")
        super().__init__(batch_size, image_size, num_workers, keep_aspect, white)
        self.datamodules = [datamodule] if isinstance(datamodule, AnomalibDataModule) else list(datamodule)
        self.shrink_batches, self.holdout = shrink_batches, holdout
        self.by_category = by_category and len(self.datamodules) > 1
        for wrapped in self.datamodules:
            if isinstance(wrapped, AnomalibVideoDataModule):
                raise ValueError(f"{wrapped.name} reads videos, not images; extract frames, and give their folder")

    @property
    def titles(self) -> list[str]:
        """Name of each data module with its category, for messages."""
        return [" ".join(filter(None, (each.name, getattr(each, "category", "")))) for each in self.datamodules]

    @property
    def title(self) -> str:
        """Names of the data modules with their categories, for messages."""
        return ", ".join(self.titles)

    def prepare_data(self) -> None:
        """Prepare the data of the wrapped modules."""
        for wrapped in self.datamodules:
            prepare(wrapped)

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the normal training images of the wrapped modules.

        Raises:
            ValueError: if a module has none, or if one is or may become an image of its test or validation set.
        """
        images = [normal_images(wrapped) for wrapped in self.datamodules]
        name = f"The normal training set of {', '.join(dict.fromkeys(str(each.name) for each in self.datamodules))}"
        if self.holdout:
            held_out = [self._hold_out(paths, title) for paths, title in zip(images, self.titles, strict=True)]
            self._held_out = _index(held_out)
            images = [
                [path for path in paths if path not in others] for paths, others in zip(images, held_out, strict=True)
            ]
        return _index(images), name

    def _hold_out(self, images: list[str], title: str) -> list[str]:
        """Return those of a data module's images that no batch has."""
        number = min(max(LEAST_HELD_OUT, round(self.holdout * len(images))), MOST_HELD_OUT)
        if len(images) < 2 * number:
            raise ValueError(
                f"The normal training set of {title} holds {len(images)} images, too few to hold out {number}: give more, "
                "or --holdout 0"
            )
        shas = content_digests(Path(path) for path in images)
        of_contents = set(sorted(images, key=lambda path: shas[Path(path)])[:number])
        return [path for path in images if path in of_contents]

    def held_out(self, most: int) -> Iterator[HeldOut]:
        """Yield each data module's images that no batch has, where there is a ``holdout``; after setup.

        Args:
            most: of its other images, at most.
        """
        assert self.images is not None, "Lightning calls setup first"
        for number, title in enumerate(self.titles):
            training = np.flatnonzero(self.images.files.labels == number)[:most].tolist()
            held_out = np.flatnonzero(self._held_out.labels == number).tolist()
            yield HeldOut(
                title,
                torch.stack([self.images[each][0] for each in training]),
                torch.stack(
                    [decode(self._held_out[each], self.image_size, self.keep_aspect, self.white) for each in held_out]
                ),
            )

    def setup(self, stage: str) -> None:
        """List the images, and read them once, so that a checkpoint tells on which it was trained (a Lightning hook)."""
        super().setup(stage)
        self._digest = self._digest_of_images()

    def check_number(self, index: ImageIndex, name: str, processes: int) -> None:
        """Check that there are enough images, or reduce the batches.

        Args:
            index: the images.
            name: their name for messages.
            processes: number of processes that share them.

        Raises:
            ValueError: if there are fewer images than a batch per process, or of a category than a batch of one; with
                ``shrink_batches``, fewer than processes.
        """
        if not self.shrink_batches:
            super().check_number(index, name, processes)
        elif len(index) < processes:
            raise ValueError(f"{name} holds {len(index)} images, fewer than {processes} devices. Give fewer devices.")
        most = len(index) // processes
        if self.by_category:
            most = min(most, int(np.bincount(index.labels).min()))
        if most < self.batch_size:
            of_one = f", and {most} of one category" if self.by_category else ""
            if not self.shrink_batches:
                raise ValueError(f"{name} holds {len(index)} images{of_one}; give a batch_size of {most} or less")
            self.batch_size = most
            logger.warning("%s holds %d images%s: the batch size is %d", name, len(index), of_one, most)

    def sampler(self, images: LabelledImages, **settings: Any) -> ResumableSampler:
        """Return the sampler; ``by_category``, one that draws a category for each batch, all equally often."""
        if not self.by_category:
            return super().sampler(images, **settings)
        batches = len(images) // (self.batch_size * settings["num_replicas"])
        labels = [2 * label for label in images.labels]  # good images, see the sampler
        return DefectSampler(labels, [1] * len(self.datamodules), batches, self.batch_size, 0, 0, **settings)

    def settings(self) -> dict[str, Any]:
        """Return what batches are made of; the images by their contents."""
        return {**super().settings(), "images": self._digest, "by_category": self.by_category}

    def _digest_of_images(self) -> str:
        """Return the SHA-256 of title, names and contents of the images, wherever their folder lies."""
        assert self.images is not None, "Lightning calls setup first"
        paths = [path.absolute() for path in self.images.files]
        folder = os.path.commonpath([path.parent for path in paths])
        files = sorted(f"{sha} {path.relative_to(folder).as_posix()}" for path, sha in content_digests(paths).items())
        return digest("\n".join([self.title, *files]))


def _index(images: Sequence[Sequence[str]]) -> ImageIndex:
    """Return an index of the images of each data module, labelled with its number."""
    labels = [number for number, paths in enumerate(images) for _ in paths]
    return ImageIndex.of_files([path for paths in images for path in paths], labels)


def normal_images(wrapped: AnomalibDataModule) -> list[str]:
    """Set a data module up, and return the paths of its normal training images.

    Args:
        wrapped: the data module.

    Raises:
        ValueError: if it has none, or if one is or may become an image of its test or validation set.
    """
    # a copy before anomalib splits: it drops normal test images if `test_split_mode` is none, but test images they are
    before = copy.copy(wrapped)
    with listing(wrapped):
        before._setup()
        wrapped.setup()
    others = [wrapped.test_data, *([wrapped.val_data] if hasattr(wrapped, "val_data") else [])]
    if any(isinstance(part, SyntheticAnomalyDataset) for part in (wrapped.train_data, *others)):
        raise ValueError(
            f"{wrapped.name} makes synthetic anomalies of its images; "
            "give it test_split_mode: from_dir and val_split_mode: none"
        )
    held_out = {path for part in (before.test_data, *others) for path in _files(part)}
    samples = wrapped.train_data.samples
    normal = [str(path) for path in samples.image_path[samples.label_index == LabelName.NORMAL]]
    if both := [path for path in normal if str(Path(path).resolve()) in held_out]:
        raise ValueError(
            f"{len(both)} normal training images of {wrapped.name} are test or validation images too: {first_few(both)}. "
            "Correct its splits."
        )
    if wrapped.seed is None and (drawn := sorted(held_out & _files(before.train_data))):
        raise ValueError(
            f"{wrapped.name} draws {len(drawn)} test or validation images from its training images without a seed, "
            f"so that they are others each time: {first_few(drawn)}. Give it a seed, here and where a detector is tested."
        )
    if not normal:
        raise ValueError(f"{wrapped.name} has no normal training image; choose another category or split")
    return normal


def _files(part: AnomalibDataset) -> set[str]:
    # resolved, since two names may be links to one file
    return {str(Path(path).resolve()) for path in part.samples.image_path}
