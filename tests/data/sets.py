"""Stock data modules over small drawn images, and what the 2-class protocols make of them."""

from collections import Counter
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataset, Folder, Visa

from anomalib_spd.twoclass import TwoClass, TwoClassDataModule, VisaTwoClass


def visa(root: Path, **arguments: Any) -> Visa:
    return Visa(root, "one", num_workers=0, **arguments)


def folder(images: Path, **arguments: Any) -> Folder:
    layout = {
        "root": images,
        "normal_dir": "train/good",
        "normal_test_dir": "test/good",
        "abnormal_dir": "test/bad",
        "mask_dir": "ground_truth/bad",
    }
    return Folder("mine", num_workers=0, **{**layout, **arguments})


def ready(*args: Any, **kwargs: Any) -> TwoClass:
    data = TwoClass(*args, num_workers=0, **kwargs)
    data.prepare_data()
    data.setup()
    return data


def names(part: AnomalibDataset, label: int | None = None) -> list[str]:
    samples = part.samples
    paths = samples.image_path if label is None else samples.image_path[samples.label_index == label]
    return sorted("/".join(Path(path).parts[-3:]) for path in paths)


def split(data: TwoClassDataModule) -> tuple[list[str], ...]:
    return tuple(names(part, label) for part in (data.train_data, data.test_data) for label in (0, 1))


def counts(data: Any) -> tuple[int, ...]:
    labels = [Counter(part.samples.label_index) for part in (data.train_data, data.test_data)]
    return tuple(part[label] for part in labels for label in (0, 1))


def ready_visa(root: Path, *args: Any, **kwargs: Any) -> VisaTwoClass:
    data = VisaTwoClass(root, *args, num_workers=0, **kwargs)
    data.prepare_data()
    data.setup()
    return data
