"""Checks of the images that a 2-class protocol trains and tests on."""

from collections.abc import Iterable
from pathlib import Path

from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from PIL import Image

from anomalib_spd.data.masks import read_mask
from anomalib_spd.files import first_few

CLASSES = {"normal": LabelName.NORMAL, "anomalous": LabelName.ABNORMAL}
"""Names of the classes in messages, and anomalib's labels."""


def check_files(paths: Iterable[str]) -> None:
    """Check that files exist.

    Raises:
        FileNotFoundError: some do not; the message has their number and the first of them.
    """
    if missing := [path for path in paths if not Path(path).is_file()]:
        raise FileNotFoundError(f"{len(missing)} missing file(s): {first_few(missing)}; complete the data set")


def check_images(dataset: AnomalibDataset, title: str) -> None:
    """Check that a data set has existing images of both classes, and a mask for every anomalous one.

    Args:
        dataset: the data set; only the headers of anomalous images and masks are read.
        title: its name in messages.

    Raises:
        ValueError: a class has no image; an anomalous image has no mask, or one of another size.
        FileNotFoundError: an image or mask does not exist.
    """
    check_classes(dataset, title)
    samples = dataset.samples
    anomalous = samples[samples.label_index == LabelName.ABNORMAL]
    pairs = list(zip(anomalous.image_path, anomalous.mask_path, strict=True))
    # for a missing mask, anomalib writes "", None or, through pandas, NaN
    if without := [image for image, mask in pairs if not (isinstance(mask, str) and mask)]:
        raise ValueError(
            f"the {title} has {len(without)} anomalous images without a mask, but all need one: {first_few(without)}"
        )
    check_files([*samples.image_path, *anomalous.mask_path])
    if other := [image for image, mask in pairs if _size(image) != _size(mask)]:
        raise ValueError(f"the {title} has {len(other)} images whose masks are of another size: {first_few(other)}")


def check_classes(dataset: AnomalibDataset, title: str) -> None:
    """Check that a data set has normal and anomalous images.

    Raises:
        ValueError: a class has no image.
    """
    for name, index in CLASSES.items():
        if index not in set(dataset.samples.label_index):
            raise ValueError(
                f"the {title} has no {name} image; the 2-class protocols need normal and anomalous ones to train and to "
                "test on. Choose another category or, where a fraction divides the images, another fraction."
            )


def check_masks(dataset: AnomalibDataset, title: str) -> None:
    """Check that the masks of a data set's anomalous images have a defective pixel; all of them are read.

    Raises:
        ValueError: some have none; the message names the first of them.
    """
    anomalous = dataset.samples[dataset.samples.label_index == LabelName.ABNORMAL]
    blank = [path for path in anomalous.mask_path if not (isinstance(path, str) and path and read_mask(path).any())]
    if blank:
        raise ValueError(
            f"the {title} has {len(blank)} masks of anomalous images without a defective pixel: {first_few(blank)}; correct "
            "them, or leave the images out"
        )


def _size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:  # reads the header alone
        return image.size
