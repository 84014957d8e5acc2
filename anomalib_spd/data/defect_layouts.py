"""Folders and data modules of categories with defects: their good images, defects and masks."""

import copy
from dataclasses import dataclass
from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.data.utils import LabelName

from anomalib_spd.data.index import EXTENSIONS, visible
from anomalib_spd.data.ready import listing


@dataclass(frozen=True)
class Category:
    """The files of a category with defects.

    Args:
        name: of its folder or data module.
        good: images without a defect.
        defects: images with a defect.
        masks: of the defects, in the same order; None where there is none.
    """

    name: str
    good: list[Path]
    defects: list[Path]
    masks: list[Path | None]

    @classmethod
    def of_folder(cls, folder: Path) -> "Category":
        """List a folder in MVTec AD's layout, which VisA's prepared one shares, or in VisA's own."""
        images = folder / "Data" / "Images"
        if images.is_dir():
            good, bad = _images(images / "Normal"), [(images / "Anomaly", folder / "Data" / "Masks" / "Anomaly")]
        else:
            good = _images(folder / "train" / "good") + _images(folder / "test" / "good")
            types = [each for each in visible(folder / "test") if each.is_dir() and each.name != "good"]
            bad = [(each, folder / "ground_truth" / each.name) for each in types]
        pairs = [(path, _mask_of(path, masks)) for defects, masks in bad for path in _images(defects)]
        return cls(folder.name, good, [path for path, _ in pairs], [mask for _, mask in pairs])

    @classmethod
    def of_datamodule(cls, datamodule: AnomalibDataModule) -> "Category":
        """Take all images of an anomalib data module, before it splits them: training and test images alike."""
        whole = copy.copy(datamodule)
        with listing(whole):
            whole._setup()
        rows = [row for part in (whole.train_data, whole.test_data) for row in part.samples.itertuples()]
        good = [Path(row.image_path) for row in rows if row.label_index == LabelName.NORMAL]
        bad = [row for row in rows if row.label_index == LabelName.ABNORMAL]
        files = (getattr(row, "mask_path", None) for row in bad)
        # anomalib writes a missing one as an empty string or as NaN
        masks = [Path(file) if isinstance(file, str | Path) and str(file) else None for file in files]
        name = " ".join(filter(None, (datamodule.name, getattr(datamodule, "category", ""))))
        return cls(name, good, [Path(row.image_path) for row in bad], masks)


def is_category(folder: Path) -> bool:
    """Return whether a folder is laid out as one category."""
    return (folder / "train" / "good").is_dir() or (folder / "Data" / "Images" / "Normal").is_dir()


def _images(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.name.lower().endswith(EXTENSIONS)]


def _mask_of(image: Path, folder: Path) -> Path | None:
    names = (f"{image.stem}{end}{suffix}" for end in ("_mask", "") for suffix in EXTENSIONS)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def categories_in(root: Path) -> list[Path]:
    """Return the folder if it is one category, otherwise the categories directly below it.

    Raises:
        FileNotFoundError: if there is no such folder, or no category in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"The folder of categories {root} does not exist. Give another with --data.root.")
    found = [root] if is_category(root) else [each for each in visible(root) if each.is_dir() and is_category(each)]
    if not found:
        raise FileNotFoundError(
            f"{root} holds no category: expected CATEGORY/train/good, or VisA's CATEGORY/Data/Images/Normal. "
            "Give another with --data.root."
        )
    return found
