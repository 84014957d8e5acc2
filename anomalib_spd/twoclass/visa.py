"""VisA's 2-class track: its official high-shot and few-shot splits, read from the data set as it is delivered."""

import csv
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import torch
from anomalib.data import AnomalibDataset, ImageItem
from anomalib.data.datamodules.image.visa import DOWNLOAD_INFO, VISA_CATEGORIES
from anomalib.data.utils import LabelName, download_and_extract, read_image
from pandas import DataFrame
from PIL import Image
from torchvision.tv_tensors import Mask

from anomalib_spd.twoclass.checks import check_files
from anomalib_spd.twoclass.data import TwoClassDataModule

Protocol = Literal["highshot", "fewshot"]
HEADER = ["object", "split", "label", "image", "mask"]
LABELS = {"normal": LabelName.NORMAL, "anomaly": LabelName.ABNORMAL}


class VisaTwoClass(TwoClassDataModule):
    """VisA by the 2-class splits of SPot-the-Difference (Zou et al., ECCV 2022).

    ``highshot`` trains on 60 % of each class, ``fewshot`` on ``shots`` (5 or 10 in the paper, averaged over 5 draws) of
    each, drawn from a pool of 20 %, or on the whole pool where ``shots`` is not given; the rest is tested on. Images are
    read where VisA has them, ``<root>/<category>/Data/Images``, and split by ``<root>/split_csv/2cls_<protocol>.csv``:
    nothing is copied. Names of images are relative to ``root``, as in these files.

    Masks hold the number of a kind of defect; any but 0 is read as defect.

    Args:
        root: folder of VisA, as of ``anomalib.data.Visa``; the set is downloaded where it is missing.
        category: one of VisA's 12 objects.
        protocol: ``"highshot"`` or ``"fewshot"``.
        shots: see :class:`TwoClassDataModule`; with ``"fewshot"`` alone.
        draw: see :class:`TwoClassDataModule`.
        **kwargs: the other arguments of :class:`TwoClassDataModule`.

    Raises:
        ValueError: for an unknown category or protocol, ``shots`` with ``"highshot"``, or a value out of range.
    """

    def __init__(
        self,
        root: Path | str = "./datasets/visa",
        category: str = "capsules",
        protocol: Protocol = "highshot",
        shots: int | None = None,
        draw: int = 0,
        **kwargs: Any,
    ) -> None:
        if category not in VISA_CATEGORIES:
            raise ValueError(f"Unknown category {category!r}; VisA has {', '.join(VISA_CATEGORIES)}.")
        if protocol not in get_args(Protocol):
            raise ValueError(f"Unknown protocol {protocol!r}; there are {', '.join(get_args(Protocol))}.")
        if protocol == "highshot" and shots is not None:
            raise ValueError(f"shots is {shots}, but shots are drawn from the pool of 'fewshot': give that protocol.")
        super().__init__(shots=shots, draw=draw, **kwargs)
        self.root = Path(root)
        self.category = category
        self.protocol = protocol
        self.split_file = self.root / "split_csv" / f"2cls_{protocol}.csv"

    def prepare_data(self) -> None:
        """Download VisA to ``root`` and unpack it, where the category or the split file is missing."""
        if not (self.root / self.category).is_dir() or not self.split_file.is_file():
            download_and_extract(self.root, DOWNLOAD_INFO)

    def _pools(self) -> tuple[AnomalibDataset, AnomalibDataset]:
        if not self.split_file.is_file():
            raise FileNotFoundError(
                f"{self.split_file} does not exist: give the folder of VisA as root, or let prepare_data() download it"
            )
        rows = [row for row in read_split(self.split_file) if row["object"] == self.category]
        for row in rows:
            for kind in ("image", "mask"):
                row[kind] = str(self.root / row[kind]) if row[kind] else ""
        check_files(row["image"] for row in rows)
        train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
        return VisaTwoClassDataset(train, self.category), VisaTwoClassDataset(test, self.category)


class VisaTwoClassDataset(AnomalibDataset):
    """Images of VisA with masks of what is a defect.

    Args:
        rows: as of :func:`read_split`, with the paths of files.
        category: of the images.
    """

    def __init__(self, rows: list[dict[str, str]], category: str) -> None:
        super().__init__()
        self.category = category
        samples = DataFrame(
            {
                "image_path": [row["image"] for row in rows],
                "mask_path": [row["mask"] for row in rows],
                "label": [row["label"] for row in rows],
                "label_index": [int(LABELS[row["label"]]) for row in rows],
                "split": [row["split"] for row in rows],
            }
        )
        samples.attrs["task"] = "segmentation"
        self.samples = samples

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image and its mask, augmented together.

        Returns:
            ``image``: float ``(3, H, W)`` in ``[0, 1]``; ``gt_mask``: bool ``(H, W)``, all false for normal images.
        """
        sample = self.samples.iloc[index]
        image = read_image(sample.image_path, as_tensor=True)
        # not anomalib's read_mask: it reads the grey levels of a palette's colours, in which numbers can be black
        if sample.label_index == LabelName.ABNORMAL:
            mask = read_defect(sample.mask_path)
        else:
            mask = Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8))
        if self.augmentations:
            image, mask = self.augmentations(image, mask)
        return ImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(sample.label_index),
            image_path=sample.image_path,
            mask_path=sample.mask_path,
        )


def read_defect(path: str) -> Mask:
    """Read which pixels of a mask are not 0, in any channel; of a palette, whose number is not 0.

    Args:
        path: of the mask.

    Returns:
        uint8 ``(H, W)`` of 0 and 1.
    """
    with Image.open(path) as image:
        pixels = np.asarray(image)
        if image.getbands()[-1] == "A":
            pixels = pixels[..., :-1]  # opacity says nothing of defects
    return Mask(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).any(axis=-1)), dtype=torch.uint8)


def read_split(path: Path) -> list[dict[str, str]]:
    """Read a split file of VisA.

    Args:
        path: of the file.

    Returns:
        Its rows: the fields of `HEADER` and what they hold.

    Raises:
        ValueError: for a file that is none; the message has the line.
    """
    rows: list[dict[str, str]] = []
    seen: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if (header := next(reader, [])) != HEADER:
            raise ValueError(f"{path}, line 1: expected the header {','.join(HEADER)}, got {','.join(header)!r}")
        for fields in reader:
            if not fields:  # an empty line
                continue
            if wrong := _wrong(fields, seen):
                raise ValueError(f"{path}, line {reader.line_num}: {wrong}")
            row = dict(zip(HEADER, fields, strict=True))
            seen[row["image"]] = reader.line_num
            rows.append(row)
    return rows


def _wrong(fields: list[str], seen: dict[str, int]) -> str | None:
    """What is wrong with a row, if anything."""
    if len(fields) != len(HEADER):
        return f"expected {len(HEADER)} fields, got {len(fields)}"
    category, split, label, image, mask = fields
    known = {
        "object": (category, VISA_CATEGORIES),
        "split": (split, ("train", "test")),
        "label": (label, tuple(LABELS)),
    }
    for name, (value, values) in known.items():
        if value not in values:
            return f"unknown {name} {value!r}; expected one of {', '.join(values)}"
    if not image:
        return "no image is named"
    for name in filter(None, (image, mask)):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return f"the path {name!r} leaves the folder of the data set"
    if image in seen:
        return f"{image} is named in line {seen[image]} already"
    return None
