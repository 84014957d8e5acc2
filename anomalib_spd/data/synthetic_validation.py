"""A validation set without a real defect: held-out good images, some with defects that our transforms draw on them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from anomalib.data.utils import LabelName, ValSplitMode, read_image
from PIL import Image
from torch import Tensor, nn
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_spd.data.drawn_defects import FOREGROUND, LEAST_SIZE, DefectMixture, Drawn
from anomalib_spd.data.normal_images import normal_images
from anomalib_spd.data.ready import prepare
from anomalib_spd.files import digest, first_few

logger = logging.getLogger(__name__)

LEAST_IMAGES = 4


class DrawnDefects(AnomalibDataset):
    """Good images, some with a drawn defect; each is drawn when it is read, and the same each time.

    Args:
        normal: data set of the good images.
        defective: for each of its images whether a defect is drawn on it.
        mixture: draws the defects.
    """

    def __init__(self, normal: AnomalibDataset, defective: Sequence[bool], mixture: DefectMixture) -> None:
        super().__init__()
        samples = normal.samples.assign(
            label_index=[int(LabelName.ABNORMAL if each else LabelName.NORMAL) for each in defective], mask_path=""
        )
        self.samples = samples
        self.samples.attrs["task"] = "segmentation"
        self.mixture = mixture
        # -1 until an image has been drawn; in memory that worker processes share
        self._rejected = torch.full((len(samples),), -1, dtype=torch.int32).share_memory_()

    @property
    def recipe(self) -> str:
        """What the defects depend on besides the images."""
        return digest(repr(self.mixture))

    @property
    def rejected(self) -> int:
        """Number of draws so far that were rejected as they lay on the background, each image counted once."""
        return int(self._rejected.clamp(min=0).sum())

    def draw(self, index: int) -> Drawn:
        """Return a defective image of the file's size.

        Args:
            index: of an image with a defect.
        """
        path = Path(self.samples.iloc[index].image_path)
        drawn = self.mixture(torch.as_tensor(read_image(path, as_tensor=True)).as_subclass(Tensor), path.name)
        self._rejected[index] = drawn.rejected
        return drawn

    def __getitem__(self, index: int) -> ImageItem:
        sample = self.samples.iloc[index]
        if sample.label_index == LabelName.ABNORMAL:
            drawn = self.draw(index)
            image, mask = ImageTensor(drawn.image), Mask(drawn.mask)
        else:
            image = read_image(sample.image_path, as_tensor=True)
            mask = Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        if self.augmentations:
            image, mask = self.augmentations(image, mask)
        return ImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(sample.label_index)),
            image_path=sample.image_path,
            mask_path="",
        )

    def without_defects(self) -> "DrawnDefects":
        """Return the images that have a defect here, as they were before: none of these has chosen a threshold as a good image."""
        defective = self.samples.label_index == LabelName.ABNORMAL
        part: Any = self.subsample(defective.to_numpy().nonzero()[0].tolist())
        part.samples["label_index"] = int(LabelName.NORMAL)
        assert isinstance(part, DrawnDefects)
        return part


class SyntheticValidation(AnomalibDataModule):
    """A data module whose validation set needs no real defect: stock anomalib chooses the threshold on it as on any other.

    The wrapped module's normal training images are divided, by their names: most are trained on, ``holdout`` of them are the
    validation set, and ``fraction`` of these have a drawn defect with an exact mask. Files are read, and defects drawn, when they are
    needed; which and where depends on ``seed`` and the file's name alone. The test set is the wrapped module's, and setup fails if one
    of its images is a training image, under this or another name.

    Of the wrapped module, batch sizes, workers and augmentations count too. Its own validation set has no use: give it
    ``val_split_mode: none``, as another may take images from its test set.

    Source: ours. anomalib's ``val_split_mode: synthetic`` blends Perlin noise into half of the training images, anywhere.

    Args:
        datamodule: any image data module of anomalib's.
        defects: transforms that draw the defects, see :class:`~anomalib_spd.data.drawn_defects.DefectMixture`; by default
            :func:`~anomalib_spd.data.drawn_defects.default_defects`.
        weights: how often each is drawn, relative to the others; by default all alike.
        saliency: where defects may lie: ``"foreground"``, the name of a classifier whose LayerCAM maps say where, or None for
            anywhere; see :class:`~anomalib_spd.data.drawn_defects.DefectMixture`.
        fraction: share of the validation images that have a defect.
        holdout: share of the normal training images that are the validation set.
        seed: of all draws.

    Raises:
        ValueError: for a value out of range; in setup, for too few normal images, or images too small to draw on.
    """

    val_data: DrawnDefects

    def __init__(
        self,
        datamodule: AnomalibDataModule,
        defects: Sequence[nn.Module] | None = None,
        weights: Sequence[float] | None = None,
        saliency: str | None = FOREGROUND,
        fraction: float = 0.5,
        holdout: float = 0.3,
        seed: int = 0,
    ) -> None:
        for name, share in (("fraction", fraction), ("holdout", holdout)):
            if not 0 < share < 1:
                raise ValueError(
                    f"`{name}` is a share above 0 and below 1: a threshold lies between good and defective images. Got {share}."
                )
        super().__init__(
            train_batch_size=datamodule.train_batch_size,
            eval_batch_size=datamodule.eval_batch_size,
            num_workers=datamodule.num_workers,
            train_augmentations=datamodule.train_augmentations,
            val_augmentations=datamodule.val_augmentations,
            test_augmentations=datamodule.test_augmentations,
            val_split_mode=ValSplitMode.FROM_DIR,  # anomalib leaves it as `_setup` makes it
            seed=seed,
        )
        self.datamodule = datamodule
        self.mixture = DefectMixture(defects, weights, saliency, seed)
        self.fraction, self.holdout = fraction, holdout
        self.category = str(datamodule.category or "")

    @property
    def name(self) -> str:  # type: ignore[override] # a property in anomalib, an attribute in Lightning
        """Name of the wrapped module."""
        return str(self.datamodule.name)

    def prepare_data(self) -> None:
        """Prepare the wrapped module's data."""
        prepare(self.datamodule)

    def teardown(self, stage: str) -> None:
        """Log once how many draws were rejected (a Lightning hook)."""
        if stage == "fit" and hasattr(self, "val_data"):
            logger.info("%d drawn defects lay on the background and were drawn anew", self.val_data.rejected)

    def _setup(self, _stage: str | None = None) -> None:
        wrapped = self.datamodule
        normal = sorted(normal_images(wrapped), key=lambda path: (self._order(path), path))
        if len(normal) < LEAST_IMAGES:
            raise ValueError(
                f"{wrapped.name} has {len(normal)} normal training images, too few to hold some out for validation: give "
                f"{LEAST_IMAGES} or more"
            )
        held_out = normal[: min(max(2, round(self.holdout * len(normal))), len(normal) - 2)]
        number = min(max(1, round(self.fraction * len(held_out))), len(held_out) - 1)
        _check_sizes(held_out)
        defective, data = set(held_out[:number]), wrapped.train_data
        is_held_out = data.samples.image_path.isin(held_out).to_numpy()
        validation = data.subsample(is_held_out.nonzero()[0].tolist())
        is_defective = validation.samples.image_path.isin(defective).tolist()
        self.train_data = data.subsample((~is_held_out).nonzero()[0].tolist())
        self.val_data = DrawnDefects(validation, is_defective, self.mixture)
        self.test_data = wrapped.test_data

    def _create_test_split(self) -> None:
        """Leave the test set as it is: the wrapped module has made it."""

    def _order(self, path: str) -> str:
        return digest(f"{self.seed} {Path(path).name}")


def _check_sizes(paths: Sequence[str]) -> None:
    small = []
    for path in paths:
        with Image.open(path) as image:
            if min(image.size) < LEAST_SIZE:
                small.append(path)
    if small:
        raise ValueError(
            f"{len(small)} images are smaller than {LEAST_SIZE} pixels, too small to draw a defect on: {first_few(small)}"
        )
