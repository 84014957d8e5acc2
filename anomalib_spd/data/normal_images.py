"""Pre-training on the normal training images of any anomalib data module, and on no test image."""

import copy
from collections.abc import Sequence
from pathlib import Path

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.data.utils import LabelName
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset

from anomalib_spd.data.images import ImageBatches
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.files import first_few


class NormalImages(ImageBatches):
    """Batches of the normal training images of anomalib data modules, as bytes, all of class 0.

    Test images never take part: where an image of the wrapped module's test or validation set is among them, under this
    or another name, setup fails. So it does where that set is drawn from the training images at random without the
    module's ``seed``: a detector's set would be drawn anew, and hold images that were trained on here.

    The wrapped module says which images there are. Its batch sizes, workers and augmentations are not used: give them
    here. Anomalous training images, where it has some, are left out.

    Args:
        datamodule: the wrapped module, of images; or several.
        batch_size: images per step and device.
        side: images leave the loader as ``side x side``, pixels. The views are cut from these, so ``side`` is somewhat
            larger than they are.
        num_workers: processes that decode.
        stretch: resize both sides, as detectors do, instead of the short one, of which the middle is cut out.

    Raises:
        ValueError: where a value is out of range, or a data module is one of videos.
    """

    def __init__(
        self,
        datamodule: AnomalibDataModule | Sequence[AnomalibDataModule],
        batch_size: int = 32,
        side: int = 256,
        num_workers: int = 2,
        stretch: bool = False,
    ) -> None:
        super().__init__(batch_size, side, num_workers, stretch)
        self.datamodules = [datamodule] if isinstance(datamodule, AnomalibDataModule) else list(datamodule)
        for wrapped in self.datamodules:
            if isinstance(wrapped, AnomalibVideoDataModule):
                raise ValueError(f"{wrapped.name} reads videos, not images; extract frames, and give their folder")

    def prepare_data(self) -> None:
        """Prepare the data of the wrapped modules."""
        for wrapped in self.datamodules:
            wrapped.prepare_data()

    def list_images(self) -> tuple[ImageIndex, str]:
        """Take the normal training images of the wrapped modules.

        Raises:
            ValueError: where one has none, or an image is one of its test or validation set, or may become one.
        """
        images = [path for wrapped in self.datamodules for path in self._of(wrapped)]
        names = ", ".join(dict.fromkeys(str(wrapped.name) for wrapped in self.datamodules))
        return ImageIndex.of_files(images), f"The normal training set of {names}"

    def _of(self, wrapped: AnomalibDataModule) -> list[str]:
        # before anomalib splits: it drops normal test images where `test_split_mode` is none, but test images they are
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
        normal = samples.image_path[samples.label_index == LabelName.NORMAL].tolist()
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
        return [str(path) for path in normal]


def _files(part: AnomalibDataset) -> set[str]:
    # resolved, since two names may be links to one file
    return {str(Path(path).resolve()) for path in part.samples.image_path}
