"""Batches of good images and real defects of one category, with masks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from torch import Tensor

from anomalib_spd.data.defect_layouts import Category, categories_in
from anomalib_spd.data.image_files import read_mask, resize
from anomalib_spd.data.images import ImageBatches, LabelledImages, decode
from anomalib_spd.data.index import REPLAY_OPTION, ImageIndex
from anomalib_spd.data.ready import prepare
from anomalib_spd.data.sampler import ResumableSampler
from anomalib_spd.files import first_few

#: share of a pixel that a defect covers in a mask; half of the largest share if the defect is thinner
_COVERED = 0.25


def decode_mask(file: Path, image_size: int | tuple[int, int], keep_aspect: bool = False) -> Tensor:
    """Read a mask as :func:`~anomalib_spd.data.images.decode` reads its image. Defects thinner than a pixel are not lost.

    Args:
        file: its path; what is not black belongs to the defect.
        image_size: height and width of what is returned, pixels; one number stands for both.
        keep_aspect: crop what is too long; False resizes both sides.

    Returns:
        uint8 ``(1, height, width)``, 0 or 1.

    Raises:
        ValueError: if the mask is black.
        Exception: of nearly any type, for a damaged or truncated file: Pillow's decoders differ.
    """
    mask = read_mask(file)
    if not mask.any():
        raise ValueError("the mask is black")
    covered = resize(mask, image_size, keep_aspect)
    return (covered > min(_COVERED, float(covered.max()) / 2)).to(torch.uint8)


class MaskedImages(LabelledImages):
    """Images with the numbers of their categories, and masks of their defects.

    An unreadable good image is replaced by another good one of its category, a defect by another defect.

    Args:
        index: the images; a good one of category ``c`` has the label ``2 * c``, a defect ``2 * c + 1``, others -1.
        masks: file of each image's mask; None for an image without a defect.
        **settings: see :class:`LabelledImages`.
    """

    def __init__(self, index: ImageIndex, masks: Sequence[Path | None], **settings: Any) -> None:
        super().__init__(index, **settings)
        self.masks = list(masks)

    def read(self, number: int) -> tuple[Tensor, int, Tensor]:  # type: ignore[override] # an item has a mask more
        """Return the uint8 image ``(3, size, size)`` in ``[0, 255]``, its category, and its mask, uint8 ``(1, size, size)``, 0 or 1."""
        image, file = decode(self.files[number], self.image_size, self.keep_aspect, self.white), self.masks[number]
        mask = torch.zeros_like(image[:1]) if file is None else decode_mask(file, self.image_size, self.keep_aspect)
        return image, int(self.files.labels[number]) // 2, mask


class DefectSampler(ResumableSampler):
    """Draws each batch by seed, epoch and position alone: a category, then images of it, then replay images.

    Args:
        labels: of :class:`MaskedImages`.
        weights: of all categories; one without images is never drawn, whatever its weight.
        batches: in an epoch, of each process.
        size: images of a category in a batch.
        defect_share: share of batches, drawn at random, with defects: half of the images are good, half have a defect. The
            others have good images alone, of the categories without defects where there are some.
        replay: images without a category in a batch.
        **settings: see :class:`ResumableSampler`; ``skip`` is a multiple of a batch's items.
    """

    def __init__(
        self,
        labels: Sequence[int],
        weights: Sequence[float],
        batches: int,
        size: int,
        defect_share: float,
        replay: int,
        **settings: Any,
    ) -> None:
        of = np.asarray(labels)
        self.good, self.defects = ([np.flatnonzero(of == 2 * c + d) for c in range(len(weights))] for d in (0, 1))
        self.others = np.flatnonzero(of < 0)
        self.weights = np.asarray(weights, float)
        self.defective = [c for c, items in enumerate(self.defects) if len(items)]
        full = [c for c, items in enumerate(self.good) if len(items) >= size]
        self.full = [c for c in full if c not in self.defective] or full
        self.size, self.defect_share, self.replay, self.batches = size, defect_share, replay, batches
        super().__init__(range(batches * settings["num_replicas"]), **settings)

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.skip // (self.size + self.replay), self.batches):
            draws = np.random.default_rng((self.seed, self.epoch, number * self.num_replicas + self.rank))
            with_defects = not self.full or draws.random() < self.defect_share
            if with_defects:
                category = self._draw(self.defective, draws)
                memory = self.size // 2
                yield from draws.choice(self.good[category], memory, replace=False).tolist()
                defects, count = self.defects[category], self.size - memory
                yield from draws.choice(defects, count, replace=len(defects) < count).tolist()
            else:
                yield from draws.choice(self.good[self._draw(self.full, draws)], self.size, replace=False).tolist()
            yield from draws.choice(self.others, self.replay, replace=len(self.others) < self.replay).tolist()

    def _draw(self, categories: list[int], draws: np.random.Generator) -> int:
        weights = self.weights[categories]
        return int(draws.choice(categories, p=weights / weights.sum()))

    def __len__(self) -> int:
        return self.batches * (self.size + self.replay)


class DefectFolder(ImageBatches):
    """Batches of one category each, of good images and real defects with masks, from the folders of many categories.

    A batch with defects holds good images in its first half, which a training takes as memory, and defective images with their
    masks in its second half. The other batches hold good images of one category, of ``normal`` if that is given, with empty
    masks: a training perturbs these itself. Replay images, of anything and with the label -1, may follow in each batch.

    **All images are trained on,** the good and the defective ones of test sets too. Figures of a detector on such a category, or on
    one from the same source, are no evidence any more: give the categories that judge, and their relatives, the weight 0.

    Source: ours.

    Args:
        root: folder of a category, or of categories, or several of these: ``CATEGORY/train/good``, ``test/good``, ``test/DEFECT``,
            ``ground_truth/DEFECT`` as MVTec AD and VisA's prepared form have it (masks are named as their image, or with ``_mask``
            behind), or VisA's own ``CATEGORY/Data/Images/Normal``, ``Anomaly`` and ``Data/Masks/Anomaly``.
        datamodule: anomalib data modules of further categories, with masks; all of their images are read.
        normal: folder with a folder of good images for each further category; see :class:`CategoryFolder`.
        weights: how often categories, by their names, are drawn; 1 for those not named. Near relatives share one weight. One of
            weight 0 is left out. A category of ``root`` without defects, or whose defects have no masks, is refused otherwise.
        defect_share: share of batches with defects, drawn at random; 0: none, and ``root`` and ``datamodule`` are left out.
        batches: in an epoch, per device.
        batch_size: images of a category per step and device, two or more.
        replay_images: folder of images, or text file with one path per line.
        replay_per_batch: replay images per step and device, beside the others.
        image_size: images and masks leave the loader as ``image_size x image_size``, pixels, both sides resized, as detectors do.
        num_workers: processes that decode.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Batch:
        ``(images, labels, masks)``: uint8 ``(B, 3, image_size, image_size)`` in ``[0, 255]``, int64 ``(B,)``, uint8
        ``(B, 1, image_size, image_size)``, 0 or 1.

    Raises:
        ValueError: if a value is out of range, a category has too few images or no masks, a name is used twice or unknown, or
            ``defect_share`` is 0 and there are defects, or no good images.
        FileNotFoundError: if a folder does not exist or holds no category.
    """

    def __init__(
        self,
        root: Path | str | Sequence[Path | str] = (),
        datamodule: AnomalibDataModule | Sequence[AnomalibDataModule] = (),
        normal: Path | str | None = None,
        weights: Mapping[str, float] | None = None,
        defect_share: float = 0.6,
        batches: int = 400,
        batch_size: int = 8,
        replay_images: Path | str | None = None,
        replay_per_batch: int = 4,
        image_size: int = 256,
        num_workers: int = 2,
        white: float | None = None,
    ) -> None:
        if batch_size < 2 or batches < 1 or replay_per_batch < 0:
            raise ValueError(
                "batch_size must be 2 or more, batches 1 or more, replay_per_batch must not be negative, got "
                f"{batch_size}, {batches} and {replay_per_batch}"
            )
        if not 0 <= defect_share <= 1:
            raise ValueError(f"defect_share must be from 0 to 1, got {defect_share}")
        if negative := {name: weight for name, weight in (weights or {}).items() if weight < 0}:
            raise ValueError(f"weights must not be negative, got {negative}")
        self.replay = replay_per_batch if replay_images is not None else 0
        super().__init__(batch_size + self.replay, image_size, num_workers, keep_aspect=False, white=white)
        self.roots = [Path(root)] if isinstance(root, Path | str) else [Path(each) for each in root]
        self.datamodules = [datamodule] if isinstance(datamodule, AnomalibDataModule) else list(datamodule)
        self.normal, self.weights, self.replay_images = normal, dict(weights or {}), replay_images
        self.defect_share, self.batches = defect_share, batches
        self._masks: list[Path | None] = []
        self._weights: list[float] = []

    def prepare_data(self) -> None:
        """Prepare the data of the wrapped modules (a Lightning hook)."""
        for wrapped in self.datamodules:
            prepare(wrapped)

    def categories(self) -> list[Category]:
        """List all categories with defects, those of weight 0 too.

        Raises:
            ValueError: if two have one name.
            FileNotFoundError: if a folder does not exist or holds no category.
        """
        found = [Category.of_folder(folder) for root in self.roots for folder in categories_in(root)]
        found += [Category.of_datamodule(wrapped) for wrapped in self.datamodules]
        names = [each.name for each in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"several categories are named {first_few(twice)}: rename a folder, or give only one of them"
            )
        return found

    def list_images(self) -> tuple[ImageIndex, str]:
        """List the images of all categories, then replay images.

        Raises:
            ValueError: if a category has too few images or no masks, or a name of ``weights`` is unknown.
            FileNotFoundError: if a folder does not exist or holds no category or image.
        """
        everything = self.categories()
        normal = ImageIndex.of(self.normal, option="--data.normal") if self.normal is not None else None
        normal_names = list(normal.classes) if normal else []
        names = {*normal_names, *(each.name for each in everything)}
        if unknown := sorted(set(self.weights) - names):
            raise ValueError(f"weights names {first_few(unknown)}, but the categories are {', '.join(sorted(names))}")
        found = [each for each in everything if self._weight(each.name) > 0]
        self._check_share([each.name for each in found], normal)
        files, masks, labels = list[Path](), list[Path | None](), list[int]()
        for number, each in enumerate(found):
            self._check(each)
            files += [*each.good, *each.defects]
            masks += [None] * len(each.good) + each.masks
            labels += [2 * number] * len(each.good) + [2 * number + 1] * len(each.defects)
        if normal:
            # a label's number counts those of weight 0 as well: no image has it, and it is never drawn
            read = [item for item, label in enumerate(normal.labels) if self._weight(normal_names[label]) > 0]
            files += [normal[item] for item in read]
            labels += [2 * (len(found) + int(normal.labels[item])) for item in read]
        index = ImageIndex.of_files(files, labels)
        if self.replay:
            index = index.with_background(ImageIndex.of(self.replay_images or "", option=REPLAY_OPTION))
        self._masks = masks + [None] * (len(index) - len(masks))
        self._weights = [self._weight(name) for name in (*(each.name for each in found), *normal_names)]
        return index, f"The categories {first_few(each.name for each in found) or self.normal}"

    def _check_share(self, with_defects: Sequence[str], normal: ImageIndex | None) -> None:
        """Refuse categories of a training without defects, or too few images of either kind."""
        if self.defect_share:
            if not with_defects:
                raise ValueError(
                    "no category with defects: give root or datamodule, and a weight above 0, or defect_share 0"
                )
            return
        if with_defects:
            raise ValueError(
                f"defect_share is 0, but {first_few(with_defects)} may have defects: leave root and datamodule out"
            )
        if normal is None:
            raise ValueError(
                "defect_share is 0, so normal is needed: a folder with a folder of good images per category"
            )
        size = self.batch_size - self.replay
        counts = zip(normal.classes, np.bincount(normal.labels, minlength=len(normal.classes)), strict=True)
        most = max((int(count) for name, count in counts if self._weight(name) > 0), default=0)
        if most < size:
            raise ValueError(
                f"{self.normal} has at most {most} images of a category with a weight above 0, but a batch takes {size}"
            )

    def _weight(self, name: str) -> float:
        return float(self.weights.get(name, 1.0))

    def _check(self, category: Category) -> None:
        """Refuse a category that cannot fill a batch."""
        bare = [str(path) for path, mask in zip(category.defects, category.masks, strict=True) if mask is None]
        good = (self.batch_size - self.replay) // 2
        if len(category.good) < good:
            lack = f"{len(category.good)} good images, but a batch takes {good}"
        elif bare:
            lack = f"{len(bare)} defects without a mask: {first_few(bare)}"
        elif not category.defects:
            lack = "no defects"
        else:
            return
        raise ValueError(f"{category.name} has {lack}. Leave it out with weights: {{{category.name}: 0}}")

    def setup(self, stage: str) -> None:
        """List the images (a Lightning hook).

        Raises:
            ValueError: as the class says.
            FileNotFoundError: if a folder does not exist or holds no category.
        """
        index, _ = self.list_images()
        self.images = MaskedImages(index, self._masks, image_size=self.image_size, keep_aspect=False, white=self.white)

    def sampler(self, images: LabelledImages, **settings: Any) -> ResumableSampler:
        """Return the order of the images."""
        size = self.batch_size - self.replay
        return DefectSampler(
            images.labels, self._weights, self.batches, size, self.defect_share, self.replay, **settings
        )
