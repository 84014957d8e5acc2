"""The 2-class protocols over stock data modules: no image lost or doubled, no test image in training."""

import hashlib
from pathlib import Path

import pytest
import torch
from anomalib.data import AnomalibDataModule, Visa
from anomalib.data.utils import ValSplitMode
from anomalib.engine import Engine
from anomalib.models import Patchcore
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_spd.benchmark.build import build
from anomalib_spd.twoclass import TwoClass
from tests.data.sets import folder, names, ready, split, visa

NORMAL = [
    f"{folder}/{number:03d}.JPG" for folder, count in (("train/good", 6), ("test/good", 4)) for number in range(count)
]
ANOMALOUS = [f"test/bad/{number:03d}.JPG" for number in range(5)]


def by_rule(paths: list[str], number: int) -> list[str]:
    return sorted(paths, key=lambda path: hashlib.sha256(f"{number}:{path}".encode()).hexdigest())


def expected(fraction: float = 0.6, number: int = 0) -> tuple[list[str], ...]:
    orders = [(by_rule(paths, number), round(fraction * len(paths))) for paths in (NORMAL, ANOMALOUS)]
    return tuple(sorted(o[:n]) for o, n in orders) + tuple(sorted(o[n:]) for o, n in orders)


WRAPPED = {
    "visa": lambda root: visa(root),
    "visa, half of the test images for validation": lambda root: visa(root, val_split_mode="from_test"),
    "visa without validation": lambda root: visa(root, val_split_mode="none"),
    "visa that drops normal test images": lambda root: visa(root, test_split_mode="none"),
    "folder, half of the test images for validation": lambda root: folder(root / "visa_pytorch/one"),
    "folder, normal test images from training": lambda root: folder(
        root / "visa_pytorch/one", normal_dir=["train/good", "test/good"], normal_test_dir=None
    ),
    "folder by the root of another folder": lambda root: folder(
        root,
        **{
            name: f"visa_pytorch/one/{subfolder}"
            for name, subfolder in {
                "normal_dir": "train/good",
                "normal_test_dir": "test/good",
                "abnormal_dir": "test/bad",
                "mask_dir": "ground_truth/bad",
            }.items()
        },
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_nothing_is_lost_and_nothing_twice(root: Path, name: str) -> None:
    data = ready(WRAPPED[name](root))
    assert split(data) == expected()
    assert sorted(names(data.train_data) + names(data.test_data)) == sorted(NORMAL + ANOMALOUS)
    assert [len(names) for names in split(data)] == [6, 3, 4, 2]
    assert set(data.train_data.samples.split) == {"train"}
    assert set(data.test_data.samples.split) == {"test"}
    for part in (data.train_data, data.test_data):
        for item in part:
            assert item.image.shape == (3, 64, 64)
            assert item.gt_mask.sum() == (14 * 14 if item.gt_label else 0)
    batch = next(iter(data.train_dataloader()))
    assert batch.gt_mask.shape == (8, 64, 64)


@pytest.mark.parametrize(("fraction", "number"), [(0.2, 0), (0.6, 7), (0.75, 1)])
def test_fraction_and_number_of_the_split(root: Path, fraction: float, number: int) -> None:
    assert split(ready(visa(root), fraction, split_seed=number)) == expected(fraction, number)
    assert expected(fraction, number) != expected(fraction, number + 1)


def test_the_location_of_the_folder_does_not_matter(root: Path, own: Path) -> None:
    assert split(ready(visa(own.parents[1]), shots=2)) == split(ready(visa(root), shots=2))


def test_draws(root: Path) -> None:
    train_normal, train_anomalous, test_normal, test_anomalous = expected()
    for draw in range(3):
        for shots in (1, 3):
            data = ready(visa(root), shots=shots, draw=draw)
            drawn = [sorted(by_rule(paths, draw)[:shots]) for paths in (train_normal, train_anomalous)]
            assert split(data) == (*drawn, test_normal, test_anomalous)
            assert data.drawn == sorted(drawn[0] + drawn[1])


def test_normal_only_is_tested_on_the_same(root: Path) -> None:
    both, one = (ready(visa(root), shots=2, normal_only=only) for only in (False, True))
    assert split(one) == (split(both)[0], [], *split(both)[2:])
    assert one.drawn == both.drawn
    assert split(ready(visa(root), normal_only=True)) == (expected()[0], [], *expected()[2:])


def test_set_up_twice(root: Path) -> None:
    data = TwoClass(folder(root / "visa_pytorch/one"), num_workers=0, val_split_mode="from_train", val_split_ratio=0.4)
    data.setup("fit")
    before = [names(part) for part in (data.train_data, data.val_data, data.test_data)]
    data.setup("test")
    assert [names(part) for part in (data.train_data, data.val_data, data.test_data)] == before


def test_validation_images_come_from_training(root: Path) -> None:
    data = ready(visa(root), val_split_mode=ValSplitMode.FROM_TRAIN, val_split_ratio=0.34, seed=1)
    assert sorted(names(data.train_data) + names(data.val_data)) == sorted(expected()[0] + expected()[1])
    assert [len(names(data.val_data, label)) for label in (0, 1)] == [2, 1]
    assert split(data)[2:] == expected()[2:]
    assert len(data.val_dataloader()) == 1
    again = ready(visa(root), val_split_mode="from_train", val_split_ratio=0.34, seed=1)
    assert names(again.val_data) == names(data.val_data)


def test_without_validation_images_there_is_no_loader(root: Path) -> None:
    assert ready(visa(root)).val_dataloader() == []
    # one image cannot be divided
    data = ready(visa(root), shots=1, val_split_mode="from_train")
    assert (len(data.train_data), data.val_dataloader()) == (2, [])


def test_augmentations_are_those_given_here(root: Path) -> None:
    flip = RandomHorizontalFlip(1.0)
    data = ready(visa(root, augmentations=flip))
    assert data.train_data.augmentations is data.test_data.augmentations is None
    data = ready(visa(root), train_augmentations=flip)
    assert (data.train_data.augmentations, data.test_data.augmentations) == (flip, None)


def test_names_for_the_engine(root: Path) -> None:
    assert (TwoClass(visa(root)).name, TwoClass(visa(root)).category) == ("TwoClass", "one")
    assert TwoClass(folder(root)).category == ""


def test_images_of_unknown_label_are_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Visa._setup

    def setup(self: Visa, stage: str | None = None) -> None:
        stock(self, stage)
        self.train_data.samples.loc[:1, "label_index"] = -1

    monkeypatch.setattr(Visa, "_setup", setup)
    data = ready(visa(root))
    assert sorted(names(data.train_data) + names(data.test_data)) == sorted(NORMAL[2:] + ANOMALOUS)


def test_the_wrapped_module_prepares_its_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    data = visa(root)
    monkeypatch.setattr(data, "prepare_data", lambda: calls.append("prepared"))
    TwoClass(data).prepare_data()
    assert calls == ["prepared"]


def test_built_from_a_configuration(root: Path) -> None:
    wrapped = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(root), "category": "one"}}
    init_args = {"datamodule": wrapped, "train_fraction": 0.6, "shots": 2, "draw": 1, "val_split_mode": "from_train"}
    flip = {"class_path": "torchvision.transforms.v2.RandomHorizontalFlip", "init_args": {"p": 1.0}}
    data = build(
        AnomalibDataModule,
        {"class_path": "anomalib_spd.twoclass.TwoClass", "init_args": {**init_args, "train_augmentations": flip}},
    )
    data.setup()
    assert isinstance(data, TwoClass)
    assert isinstance(data.train_data.augmentations, RandomHorizontalFlip)
    assert data.drawn == ready(visa(root), shots=2, draw=1).drawn


def test_stock_engine_fits_and_tests(root: Path, tmp_path: Path) -> None:
    data = TwoClass(visa(root), shots=2, normal_only=True, num_workers=0)
    model = Patchcore(backbone="resnet18", layers=["layer1"], pre_trained=False, coreset_sampling_ratio=0.01)
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    engine.fit(model, datamodule=data)
    before = split(data)
    (results,) = engine.test(model, datamodule=data)
    assert split(data) == before == (split(ready(visa(root), shots=2))[0], [], *expected()[2:])
    assert {"image_AUROC", "pixel_AUROC"} <= results.keys()
    assert (tmp_path / "Patchcore/TwoClass/one").is_dir()


def test_balanced_batches_hold_both_classes_equally(root: Path) -> None:
    torch.manual_seed(0)
    share = {}
    for balanced in (False, True):
        data = ready(visa(root), balanced=balanced, train_batch_size=3)
        labels = torch.cat([batch.gt_label for _ in range(40) for batch in data.train_dataloader()])
        assert len(labels) == 40 * 9
        share[balanced] = labels.float().mean().item()
    # 6 normal and 3 anomalous images
    assert share[False] == pytest.approx(1 / 3)
    assert share[True] == pytest.approx(1 / 2, abs=0.08)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4]), (8, [8]), (3, [3, 3, 3]), (5, [5, 4]), (1, [1] * 9)])
def test_a_last_batch_of_one_image_is_left_out_and_said(
    root: Path, balanced: bool, batch_size: int, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    data = ready(visa(root), balanced=balanced, train_batch_size=batch_size)
    assert [len(batch.image) for batch in data.train_dataloader()] == sizes
    assert ("a last batch of one image is left out" in caplog.text) == (sum(sizes) < 9)
