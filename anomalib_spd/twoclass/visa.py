"""The official high-shot and few-shot splits of VisA's 2-class track, read from the data set as it is delivered."""

import csv
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import torch
from anomalib.data import AnomalibDataset, ImageItem
from anomalib.data.datamodules.image.visa import DOWNLOAD_INFO, VISA_CATEGORIES
from anomalib.data.utils import LabelName, download_and_extract
from pandas import DataFrame
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from anomalib_spd.data.image_files import read_image
from anomalib_spd.data.masks import read_mask
from anomalib_spd.spelling import did_you_mean
from anomalib_spd.twoclass.checks import check_files
from anomalib_spd.twoclass.data import TwoClassDataModule

Protocol = Literal["highshot", "fewshot"]
HEADER = ["object", "split", "label", "image", "mask"]
LABELS = {"normal": LabelName.NORMAL, "anomaly": LabelName.ABNORMAL}


class VisaTwoClass(TwoClassDataModule):
    """VisA with the 2-class splits of SPot-the-Difference (Zou et al., ECCV 2022).

    ``highshot`` trains on 60 % of each class. ``fewshot`` has a pool of 20 %, and trains on ``shots`` of each class (5 or 10 in
    the paper, averaged over 5 draws), or on the whole pool without ``shots``. The rest is the test set. Images are read from
    VisA's own folders, ``<root>/<category>/Data/Images``, and split by ``<root>/split_csv/2cls_<protocol>.csv``. Names of
    images are relative to ``root``, as in these files.

    Masks hold the number of a defect type; every number but 0 is read as defect.

    Args:
        root: folder of VisA, as for ``anomalib.data.Visa``; the set is downloaded if missing.
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
            raise ValueError(
                f"Unknown category {category!r}{did_you_mean(category, VISA_CATEGORIES)}; VisA has {', '.join(VISA_CATEGORIES)}."
            )
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
        """Download VisA to ``root`` and unpack it if the category or the split file is missing."""
        if not (self.root / self.category).is_dir() or not self.split_file.is_file():
            download_and_extract(self.root, DOWNLOAD_INFO)

    def _pools(self) -> tuple[AnomalibDataset, AnomalibDataset]:
        if not self.split_file.is_file():
            raise FileNotFoundError(
                f"{self.split_file} does not exist: give the folder of VisA as root, or let prepare_data() download it"
            )
        rows = [row for row in read_split(self.split_file) if row["object"] == self.category]
        for row in rows:
            row.update({key: str(self.root / row[key]) for key in ("image", "mask") if row[key]})
        # anomalib finds a missing file too, but does not name it
        check_files(row["image"] for row in rows)
        train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
        return VisaTwoClassDataset(train, self.category), VisaTwoClassDataset(test, self.category)


class VisaTwoClassDataset(AnomalibDataset):
    """Images of VisA with binary masks of their defects.

    Args:
        rows: as of :func:`read_split`, with the paths of files.
        category: of the images.
    """

    def __init__(self, rows: list[dict[str, str]], category: str) -> None:
        super().__init__()
        self.category = category
        columns = {"image_path": "image", "mask_path": "mask", "label": "label", "split": "split"}
        samples = DataFrame({name: [row[key] for row in rows] for name, key in columns.items()})
        samples["label_index"] = [int(LABELS[row["label"]]) for row in rows]
        samples.attrs["task"] = "segmentation"
        self.samples = samples

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image and its mask, and augment both together.

        Returns:
            ``image``: float ``(3, H, W)`` in ``[0, 1]``; ``gt_mask``: bool ``(H, W)``, all false for normal images.
        """
        sample = self.samples.iloc[index]
        pixels = v2.functional.to_image(read_image(sample.image_path))
        image = v2.functional.to_dtype(pixels, torch.float32, scale=True)
        # not anomalib's read_mask: it reads the gray levels of a palette's colors, in which numbers can be black
        if sample.label_index == LabelName.ABNORMAL:
            mask = read_mask(sample.mask_path)
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


def read_split(path: Path) -> list[dict[str, str]]:
    """Return the rows of a split file of VisA, each a mapping with the keys of `HEADER`.

    Raises:
        ValueError: the file is malformed; the message has the line.
    """
    rows: list[dict[str, str]] = []
    lines: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if (header := next(reader, [])) != HEADER:
            raise ValueError(f"{path}, line 1: expected the header {','.join(HEADER)}, got {','.join(header)!r}")
        for fields in filter(None, reader):  # without empty lines
            if error := _error_of(fields, lines):
                raise ValueError(f"{path}, line {reader.line_num}: {error}")
            rows.append(dict(zip(HEADER, fields, strict=True)))
            lines[rows[-1]["image"]] = reader.line_num
    return rows


def _error_of(fields: list[str], lines: dict[str, int]) -> str | None:
    """Return what is wrong with a row, if anything; ``lines`` has the line of each earlier image."""
    if len(fields) != len(HEADER):
        return f"expected {len(HEADER)} fields, got {len(fields)}"
    image, mask = fields[3:]
    for name, value, values in zip(HEADER, fields, (VISA_CATEGORIES, ("train", "test"), tuple(LABELS)), strict=False):
        if value not in values:
            return f"unknown {name} {value!r}; expected one of {', '.join(values)}"
    if not image:
        return "no image is named"
    for name in filter(None, (image, mask)):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return f"the path {name!r} leaves the folder of the data set"
    return f"{image} is named in line {lines[image]} already" if image in lines else None
