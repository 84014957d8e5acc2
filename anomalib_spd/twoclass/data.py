"""The protocols of VisA's 2-class track, which train on normal and anomalous images, over any anomalib image data module."""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, TestSplitMode, ValSplitMode
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from lightning.pytorch.utilities.types import EVAL_DATALOADERS, TRAIN_DATALOADERS
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from anomalib_spd.data.ready import listing, prepare
from anomalib_spd.files import first_few
from anomalib_spd.twoclass.checks import CLASSES, check_classes, check_images
from anomalib_spd.twoclass.splits import hash_order, hash_split

logger = logging.getLogger(__name__)


class TwoClassDataModule(AnomalibDataModule):
    """Base of data modules that train on normal and anomalous images with masks.

    A subclass gives the training pool and the test set (:meth:`_pools`). Test images never choose a model: there is no
    validation set, or one taken from the training images.

    Args:
        shots: number of normal and of anomalous images to train on, the first of each class in the training pool by
            :func:`~anomalib_spd.twoclass.splits.hash_order`; by default all.
        draw: number of the draw; no effect without ``shots``.
        normal_only: leave out the anomalous training images after the draw, for detectors that learn from normal images
            alone; the test set is the same.
        balanced: draw training images with replacement, equally often from both classes; otherwise every image comes once per
            epoch. Ours: SPD's authors call imbalance the difficulty of this track, and give no remedy.
        train_batch_size: images per training batch.
        eval_batch_size: images per validation or test batch.
        num_workers: worker processes per loader.
        val_split_mode: ``"none"`` or ``"from_train"``.
        val_split_ratio: share of the training images, of each class, that become the validation set.
        **kwargs: augmentations of images and masks, and the ``seed`` of the validation set's random choice (torch's generator
            without it), as for every ``AnomalibDataModule``.

    Attributes:
        root: the folder to which names of images are relative; ``_pools`` sets it.

    Raises:
        ValueError: for a value out of range.
    """

    root: Path

    def __init__(
        self,
        shots: int | None = None,
        draw: int = 0,
        normal_only: bool = False,
        balanced: bool = False,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int = 8,
        val_split_mode: ValSplitMode | str = "none",
        val_split_ratio: float = 0.2,
        **kwargs: Any,
    ) -> None:
        if shots is not None and shots < 1:
            raise ValueError(f"shots is the number of images of each class, at least 1, or None for all; got {shots}")
        if draw < 0:
            raise ValueError(f"draw must be 0 or more, got {draw}")
        if val_split_mode not in ("none", "from_train"):
            raise ValueError(
                f"val_split_mode must be 'none' or 'from_train', got {str(val_split_mode)!r}: "
                "neither test images nor synthetic ones may choose a model"
            )
        if not 0 < val_split_ratio < 1:
            raise ValueError(f"val_split_ratio must lie between 0 and 1, got {val_split_ratio}")
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            test_split_mode=TestSplitMode.FROM_DIR,  # by default anomalib drops the normal test images
            **kwargs,
        )
        self.shots = shots
        self.draw = draw
        self.normal_only = normal_only
        self.balanced = balanced
        #: names of the drawn images of both classes, sorted, also with ``normal_only``; empty without ``shots``
        self.drawn: list[str] = []

    @abstractmethod
    def _pools(self) -> tuple[AnomalibDataset, AnomalibDataset]:
        """Return the training pool and the test set; set ``root``."""

    def setup(self, stage: str | None = None) -> None:
        """Build all data sets, once: later calls leave them unchanged.

        Args:
            stage: as Lightning names it; no effect.

        Raises:
            ValueError: a class has no image, or fewer than ``shots``; an anomalous image has no mask, or one of another
                size; a training image is a test image.
            FileNotFoundError: an image or mask does not exist.
        """
        super().setup(stage)
        # anomalib sets it in a trainer's calls only; another call would draw a validation set without seed anew
        self._is_setup = True

    def _setup(self, _stage: str | None = None) -> None:
        train, test = self._pools()
        check_images(train, "training pool")
        check_images(test, "test set")
        # resolved, since two names may be links to one file
        tested = {Path(path).resolve() for path in test.samples.image_path}
        if both := [path for path in train.samples.image_path if Path(path).resolve() in tested]:
            raise ValueError(f"{len(both)} images are in the training pool and in the test set: {first_few(both)}")
        if self.shots is not None:
            train = self._draw(train, self.shots)
        if self.normal_only:
            train = _take(train, train.samples.label_index == LabelName.NORMAL)
        self.train_data, self.test_data = train, test

    def _draw(self, pool: AnomalibDataset, shots: int) -> AnomalibDataset:
        by_class = self._names_by_class(pool)
        for name, names in by_class.items():
            if shots > len(names):
                raise ValueError(f"shots is {shots}, but the training pool has {len(names)} {name} images; give fewer")
        self.drawn = sorted(path for names in by_class.values() for path in hash_order(names, self.draw)[:shots])
        sizes = " and ".join(f"{shots} of {len(names)} {name}" for name, names in by_class.items())
        logger.info("Draw %d: %s training images: %s", self.draw, sizes, ", ".join(self.drawn))
        drawn = set(self.drawn)
        return _take(pool, [name in drawn for name in self._names(pool)])

    def _names(self, dataset: AnomalibDataset) -> list[str]:
        return [Path(path).relative_to(self.root).as_posix() for path in dataset.samples.image_path]

    def _names_by_class(self, dataset: AnomalibDataset) -> dict[str, list[str]]:
        pairs = list(zip(self._names(dataset), dataset.samples.label_index, strict=True))
        return {name: [path for path, label in pairs if label == index] for name, index in CLASSES.items()}

    def train_dataloader(self) -> TRAIN_DATALOADERS:
        """Return batches of the training set in random order; a last batch of one image, which batch norm cannot take, is left out."""
        labels = self.train_data.samples.label_index
        weights = (1 / labels.map(labels.value_counts())).tolist()
        is_alone = len(labels) % self.train_batch_size == 1 < len(labels)
        if is_alone:
            logger.warning(
                "An epoch of %d images has %d batches of %d: a last batch of one image is left out, for batch norm's sake",
                *(len(labels), len(labels) // self.train_batch_size, self.train_batch_size),
            )
        return DataLoader(
            self.train_data,
            self.train_batch_size,
            sampler=WeightedRandomSampler(weights, len(labels)) if self.balanced else RandomSampler(labels),
            num_workers=self.num_workers,
            collate_fn=self.train_data.collate_fn,
            drop_last=is_alone,
        )

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Return batches of the validation set, or no loader without one, so that Lightning does not validate."""
        return super().val_dataloader() if len(getattr(self, "val_data", ())) else []


class TwoClass(TwoClassDataModule):
    """The 2-class protocols over any anomalib image data module with masks.

    All images of the wrapped module, of training, validation and test, are pooled and split anew: the first
    ``round(train_fraction * n)`` of each class by :func:`~anomalib_spd.twoclass.splits.hash_order` are the training pool, the
    rest is the test set. VisA's few-shot protocol is ``train_fraction=0.2`` with 5 or 10 ``shots``. Names of images are
    relative to the deepest folder that holds them all, so that its location does not matter. Images of unknown label are left
    out.

    The wrapped module lists the images, and its data set class reads them. Its batch sizes, workers, augmentations, splits and
    seed have no effect: give them here. If its ``test_split_mode`` is ``none``, with which anomalib drops normal test
    images, it becomes ``from_dir``.

    Args:
        datamodule: the wrapped module; its ``category`` is this one's.
        train_fraction: share of each class in the training pool.
        shots: see :class:`TwoClassDataModule`.
        draw: see :class:`TwoClassDataModule`.
        split_seed: number of the split into training pool and test set; ``seed`` is that of the validation set alone.
        **kwargs: the other arguments of :class:`TwoClassDataModule`.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        datamodule: AnomalibDataModule,
        train_fraction: float = 0.6,
        shots: int | None = None,
        draw: int = 0,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if not 0 < train_fraction < 1:
            raise ValueError(f"train_fraction must lie between 0 and 1, got {train_fraction}")
        super().__init__(shots=shots, draw=draw, **kwargs)
        self.datamodule = datamodule
        self.train_fraction = train_fraction
        self.split_seed = split_seed
        self.category = str(datamodule.category or "")

    @property
    def name(self) -> str:  # type: ignore[override] # a property in anomalib, an attribute in Lightning
        """Name of the folder that holds all images, once set up: anomalib's visualizer repeats the folders below it.

        Below the name of the class it would repeat the last folder only, so that ``train/good/000.png`` and
        ``test/good/000.png``, which both may be test images here, would be the same file.
        """
        return self.root.name if hasattr(self, "root") else type(self).__name__

    def prepare_data(self) -> None:
        """Prepare the wrapped module's data."""
        prepare(self.datamodule)

    def _pools(self) -> tuple[AnomalibDataset, AnomalibDataset]:
        pool = self._pool()
        self.root = Path(os.path.commonpath([Path(path).parent for path in pool.samples.image_path]))
        by_class = self._names_by_class(pool).values()
        chosen = {name for names in by_class for name in hash_split(names, self.train_fraction, self.split_seed)[0]}
        is_chosen = [name in chosen for name in self._names(pool)]
        train, test = _take(pool, is_chosen), _take(pool, [not each for each in is_chosen])
        train.samples["split"], test.samples["split"] = "train", "test"
        return train, test

    def _pool(self) -> AnomalibDataset:
        wrapped = self.datamodule
        if wrapped.test_split_mode == TestSplitMode.NONE:
            wrapped.test_split_mode = TestSplitMode.FROM_DIR
        with listing(wrapped):
            wrapped.setup()
        names = [name for name in ("train_data", "test_data", "val_data") if hasattr(wrapped, name)]
        pool, *others = (getattr(wrapped, name) for name in names)
        if any(isinstance(part, SyntheticAnomalyDataset) for part in (pool, *others)):
            raise ValueError(
                f"{wrapped.name} makes synthetic anomalies, which are no test; "
                "give it test_split_mode: from_dir and val_split_mode: none"
            )
        for other in others:
            known = set(pool.samples.image_path)
            if any(new := [path not in known for path in other.samples.image_path]):
                pool = pool + _take(other, new)
        pool = _take(pool, pool.samples.label_index.isin(list(CLASSES.values())))
        # pandas drops it if the parts differ; setup checks that there are masks
        pool.samples.attrs["task"] = "segmentation"
        check_classes(pool, f"data of {wrapped.name}")
        return pool


def _take(dataset: AnomalibDataset, mask: Iterable[bool]) -> AnomalibDataset:
    part: AnomalibDataset = dataset.subsample([index for index, is_taken in enumerate(mask) if is_taken])
    return part
