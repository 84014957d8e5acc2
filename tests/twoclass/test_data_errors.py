"""Errors of the 2-class protocols."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import AnomalibDataset
from anomalib.data.utils import ValSplitMode
from PIL import Image

from anomalib_spd.twoclass import TwoClass, TwoClassDataModule
from tests.data.sets import folder, ready, visa


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": 0}, r"shots.*at least 1.*got 0"),
        ({"draw": -1}, r"draw must be 0 or more, got -1"),
        ({"val_split_mode": "same_as_test"}, r"'none' or 'from_train', got 'same_as_test'"),
        ({"val_split_mode": ValSplitMode.FROM_TEST}, r"'none' or 'from_train'.*FROM_TEST"),
        ({"val_split_mode": "synthetic"}, r"'none' or 'from_train', got 'synthetic'"),
        ({"val_split_ratio": 0.0}, r"val_split_ratio must lie between 0 and 1, got 0.0"),
        ({"train_fraction": 0.0}, r"train_fraction must lie between 0 and 1, got 0.0"),
        ({"train_fraction": 1}, r"train_fraction must lie between 0 and 1, got 1"),
        ({"train_fraction": float("nan")}, r"train_fraction must lie between 0 and 1, got nan"),
    ],
)
def test_argument_errors(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoClass(visa(root), **arguments)


@pytest.mark.parametrize(("shots", "message"), [(4, "has 3 anomalous images"), (7, "has 6 normal images")])
def test_more_shots_than_images(root: Path, shots: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"shots is {shots}, but the training pool {message}"):
        ready(visa(root), shots=shots)


@pytest.mark.parametrize(
    ("fraction", "message"),
    [(0.08, "training pool has no anomalous image"), (0.92, "test set has no anomalous image")],
)
def test_a_fraction_that_leaves_nothing(root: Path, fraction: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ready(visa(root), fraction)


def test_a_category_without_anomalies(root: Path) -> None:
    images = root / "visa_pytorch/one"
    with pytest.raises(ValueError, match=r"data of mine has no anomalous image.*another category"):
        ready(folder(images, abnormal_dir=None, mask_dir=None, val_split_mode="none"))


def test_anomalies_without_masks(root: Path) -> None:
    with pytest.raises(ValueError, match=r"training pool has 3 anomalous images without a mask.*\.JPG"):
        ready(folder(root / "visa_pytorch/one", mask_dir=None))


def test_a_mask_of_another_size(own: Path) -> None:
    for number in range(5):
        Image.fromarray(np.zeros((63, 64), np.uint8)).save(own / f"ground_truth/bad/{number:03d}.png")
    with pytest.raises(ValueError, match=r"training pool has 3 images whose masks are of another size.*bad/00.\.JPG"):
        ready(folder(own))


class Pools(TwoClassDataModule):
    """The pools of another module."""

    def __init__(self, of: TwoClassDataModule) -> None:
        super().__init__(num_workers=0)
        self.of = of
        self.root = of.root

    def _pools(self) -> tuple[AnomalibDataset, AnomalibDataset]:
        return self.of.train_data, self.of.test_data


def test_missing_files_are_named(own: Path) -> None:
    data = Pools(ready(visa(own.parents[1])))
    for path in own.glob("t*/good/*.JPG"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"6 missing file\(s\): .*good/00.\.JPG, .*good/00.\.JPG, \.\.\.;"):
        data.setup()


def test_a_missing_mask_is_named(own: Path) -> None:
    data = Pools(ready(visa(own.parents[1])))
    (own / "ground_truth/bad/004.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 missing file\(s\): .*ground_truth/bad/004\.png"):
        data.setup()


def test_a_training_image_that_is_a_test_image(own: Path) -> None:
    data = Pools(ready(visa(own.parents[1])))
    data.of.train_data += data.of.test_data.subsample([0])
    with pytest.raises(ValueError, match=r"1 images are in the training pool and in the test set: .*\.JPG"):
        data.setup()


def test_a_link_to_a_test_image(own: Path) -> None:
    data = Pools(ready(visa(own.parents[1])))
    trained, tested = (Path(part.samples.image_path[0]) for part in (data.of.train_data, data.of.test_data))
    trained.unlink()
    trained.symlink_to(tested)
    with pytest.raises(ValueError, match="1 images are in the training pool and in the test set"):
        data.setup()


@pytest.mark.parametrize("arguments", [{"test_split_mode": "synthetic"}, {"val_split_mode": "synthetic"}])
def test_synthetic_anomalies_are_an_error(root: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"Visa makes synthetic anomalies.*test_split_mode: from_dir"):
        ready(visa(root, **arguments))
