"""Batches of the normal training images of anomalib data modules, never of a test image."""

import copy
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.data.utils import LabelName
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from torch import Tensor

from anomalib_spd.data.images import ImageBatches, decode
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.ready import prepare
from anomalib_spd.files import content_digests, digest, first_few

logger = logging.getLogger(__name__)

LEAST_HELD_OUT, MOST_HELD_OUT = 5, 40


class NormalImages(ImageBatches):
    """Batches of the normal training images of anomalib data modules, as uint8, all of class 0.

    Setup fails if one of the images is also in a wrapped module's test or validation set, under this or another name. It
    also fails if that set is drawn from the training images at random without the module's ``seed``: a detector would draw it
    anew, and test on images that were trained on here. A checkpoint of other images cannot be resumed.

    Of the wrapped modules only the list of images counts. Their batch sizes, workers and augmentations have no effect: give
    them here. Anomalous training images are left out.

    Args:
        datamodule: image data module, or several.
        batch_size: images per step and device.
        image_size: side of the square images, pixels. Training modules crop smaller views from them.
        num_workers: number of processes that decode.
        keep_aspect: resize the short side and crop the center; False resizes both sides, as detectors do.
        holdout: share of the images that no batch has, at least 5 and at most 40 of them, by their contents; see
            :meth:`held_out`.
        shrink_batches: reduce ``batch_size`` to the number of images, down to 1, instead of failing if there are fewer.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Raises:
        ValueError: if a value is out of range, or a data module is one of videos.
    """

    _held_out: ImageIndex | None = None

    def __init__(
        self,
        datamodule: AnomalibDataModule | Sequence[AnomalibDataModule],
        batch_size: int = 32,
        image_size: int = 256,
        num_workers: int = 2,
        keep_aspect: bool = True,
        shrink_batches: bool = False,
        white: float | None = None,
        holdout: float = 0.0,
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is a share of the images, 0 or more and below 1. Got {holdout}")
        super().__init__(batch_size, image_size, num_workers, keep_aspect, white)
        self.datamodules = [datamodule] if isinstance(datamodule, AnomalibDataModule) else list(datamodule)
        self.shrink_batches, self.holdout = shrink_batches, holdout
        for wrapped in self.datamodules:
            if isinstance(wrapped, AnomalibVideoDataModule):
                raise ValueError(f"{wrapped.name} reads videos, not images; extract frames, and give their folder")

    @property
    def title(self) -> str:
        """Names of the data modules with their categories, for messages."""
        names = (" ".join(filter(None, (each.name, getattr(each, "category", "")))) for each in self.datamodules)
        return ", ".join(names)

    def prepare_data(self) -> None:
        """Prepare the data of the wrapped modules."""
        for wrapped in self.datamodules:
            prepare(wrapped)

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the normal training images of the wrapped modules.

        Raises:
            ValueError: if a module has none, or if one is or may become an image of its test or validation set.
        """
        images = [path for wrapped in self.datamodules for path in normal_images(wrapped)]
        names = ", ".join(dict.fromkeys(str(wrapped.name) for wrapped in self.datamodules))
        name = f"The normal training set of {names}"
        if self.holdout:
            number = min(max(LEAST_HELD_OUT, round(self.holdout * len(images))), MOST_HELD_OUT)
            if len(images) < 2 * number:
                raise ValueError(
                    f"{name} holds {len(images)} images, too few to hold out {number}: give more, or --holdout 0"
                )
            shas = content_digests(Path(path) for path in images)
            held_out = set(sorted(images, key=lambda path: shas[Path(path)])[:number])
            self._held_out = ImageIndex.of_files(path for path in images if path in held_out)
            images = [path for path in images if path not in held_out]
        return ImageIndex.of_files(images), name

    def held_out(self) -> Tensor:
        """Return the images that no batch has, as batches have theirs, uint8 ``(N, 3, image_size, image_size)``."""
        assert self._held_out is not None, "with a holdout, after setup"
        return torch.stack([decode(path, self.image_size, self.keep_aspect, self.white) for path in self._held_out])

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
            ValueError: if there are fewer images than a batch per process, or with ``shrink_batches`` than processes.
        """
        if not self.shrink_batches:
            super().check_number(index, name, processes)
        elif len(index) < processes:
            raise ValueError(f"{name} holds {len(index)} images, fewer than {processes} devices. Give fewer devices.")
        elif len(index) < self.batch_size * processes:
            self.batch_size = len(index) // processes
            logger.warning("%s holds %d images: the batch size is %d", name, len(index), self.batch_size)

    def settings(self) -> dict[str, Any]:
        """Return what batches are made of; the images by their contents."""
        return {**super().settings(), "images": self._digest}

    def _digest_of_images(self) -> str:
        """Return the SHA-256 of title, names and contents of the images, wherever their folder lies."""
        assert self.images is not None, "Lightning calls setup first"
        paths = [path.absolute() for path in self.images.files]
        folder = os.path.commonpath([path.parent for path in paths])
        files = sorted(f"{sha} {path.relative_to(folder).as_posix()}" for path, sha in content_digests(paths).items())
        return digest("\n".join([self.title, *files]))


def normal_images(wrapped: AnomalibDataModule) -> list[str]:
    """Set a data module up, and return the paths of its normal training images.

    Args:
        wrapped: the data module.

    Raises:
        ValueError: if it has none, or if one is or may become an image of its test or validation set.
    """
    # a copy before anomalib splits: it drops normal test images if `test_split_mode` is none, but test images they are
    before = copy.copy(wrapped)
    try:
        before._setup()
        wrapped.setup()
    except RuntimeError as error:  # anomalib's, of a folder without images
        raise ValueError(f"{wrapped.name}: {error}") from error
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
