"""Normal training images of any data module: which they are, and that none is a test image."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import AnomalibDataModule, Avenue
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from anomalib_spd.data import NormalImages
from anomalib_spd.twoclass import TwoClass
from tests.data.sets import folder, visa


def _ready(datamodule: AnomalibDataModule, **arguments: Any) -> NormalImages:
    data = NormalImages(datamodule, **{"batch_size": 2, "image_size": 32, "num_workers": 0, **arguments})
    data.prepare_data()
    data.setup("fit")
    return data


def _names(data: NormalImages) -> list[str]:
    assert data.images is not None
    return ["/".join(path.parts[-3:]) for path in data.images.files]


NORMAL = [f"train/good/{number:03d}.JPG" for number in range(6)]


@pytest.mark.parametrize("test_split_mode", ["from_dir", "none"])
@pytest.mark.parametrize("val_split_mode", ["same_as_test", "from_test", "none"])
def test_they_are_the_normal_training_images(root: Path, test_split_mode: str, val_split_mode: str) -> None:
    assert _names(_ready(visa(root, test_split_mode=test_split_mode, val_split_mode=val_split_mode))) == NORMAL


def test_a_folder_without_images_is_an_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Found 0 DirType.NORMAL images in .*empty"):
        _ready(folder(root / "visa_pytorch" / "one", normal_dir=str(tmp_path / "empty")))


def test_batches_are_bytes(root: Path) -> None:
    batches = list(_ready(visa(root), batch_size=4).train_dataloader())
    assert [(images.shape, images.dtype) for images, _ in batches] == [((4, 3, 32, 32), torch.uint8)]
    assert batches[0][1].tolist() == [0] * 4


def test_anomalous_training_images_are_left_out(root: Path) -> None:
    datamodule = TwoClass(visa(root), shots=2, num_workers=0)
    names = _names(_ready(datamodule))
    drawn = [name for name in datamodule.drawn if "good" in name]
    assert len(names) == 2
    assert sorted(drawn) == sorted(names)


def test_what_a_validation_set_takes_is_left_out(root: Path) -> None:
    data = _ready(visa(root, val_split_mode="from_train", val_split_ratio=0.5, seed=3))
    held_out = ["/".join(Path(path).parts[-3:]) for path in data.datamodules[0].val_data.samples.image_path]
    assert sorted(_names(data) + held_out) == NORMAL


def test_a_set_that_is_drawn_anew_each_time_is_an_error(own: Path) -> None:
    with pytest.raises(ValueError, match=r"draws 3 test or validation images .* without a seed.*Give it a seed"):
        _ready(visa(own.parents[1], val_split_mode="from_train", val_split_ratio=0.5))
    # without normal test images, anomalib takes some of the training images
    with pytest.raises(ValueError, match=r"draws 3 test or validation images .* without a seed"):
        _ready(folder(own, normal_test_dir=None, test_split_ratio=0.5, val_split_mode="none"))
    data = _ready(folder(own, normal_test_dir=None, test_split_ratio=0.5, val_split_mode="none", seed=1))
    assert not set(data.datamodules[0].test_data.samples.image_path) & {str(path) for path in data.images.files}
    assert len(_names(data)) == 3


@pytest.mark.parametrize("test_split_mode", ["from_dir", "none"])
def test_a_link_to_a_test_image_is_an_error(own: Path, test_split_mode: str) -> None:
    (own / "train/good/777.JPG").symlink_to(own / "test/good/000.JPG")
    with pytest.raises(ValueError, match=r"1 normal training images of mine are test .*777\.JPG"):
        _ready(folder(own, test_split_mode=test_split_mode, val_split_mode="none"))


@pytest.mark.parametrize("argument", ["test_split_mode", "val_split_mode"])
def test_synthetic_anomalies_are_an_error(root: Path, argument: str) -> None:
    with pytest.raises(ValueError, match="Visa makes synthetic anomalies"):
        _ready(visa(root, seed=0, **{argument: "synthetic"}))


def test_videos_are_an_error() -> None:
    with pytest.raises(ValueError, match="Avenue reads videos"):
        NormalImages(Avenue())


def test_a_batch_larger_than_the_set_is_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match="normal training set of Visa holds 6 images, fewer than a batch of 7"):
        _ready(visa(root), batch_size=7)


def test_yaml_builds_them(root: Path) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    visa_arguments = {"root": str(root), "category": "one", "num_workers": 0}
    config = {
        "class_path": "anomalib_spd.data.NormalImages",
        "init_args": {
            "datamodule": {"class_path": "anomalib.data.Visa", "init_args": visa_arguments},
            "batch_size": 3,
            "num_workers": 0,
        },
    }
    data = parser.instantiate_classes(parser.parse_object({"data": config})).data
    data.prepare_data()
    data.setup("fit")
    assert _names(data) == NORMAL
