"""VisA's 2-class data module on a dozen drawn images: masks, the download, and errors."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule
from PIL import Image
from torchvision.transforms.v2 import RandomHorizontalFlip, Resize

from anomalib_spd.benchmark.build import build
from anomalib_spd.data.ready import fingerprint
from anomalib_spd.twoclass import VisaTwoClass, visa
from anomalib_spd.twoclass.visa import HEADER
from tests.data.sets import counts, ready_visa


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three normal and two anomalous candles to train on, two and two to test on, all noise of 16 x 12 pixels."""
    rng = np.random.default_rng(0)
    rows = []
    for split, label, numbers in [
        *[("train", "normal", range(3)), ("train", "anomaly", range(2))],
        *[("test", "normal", range(3, 5)), ("test", "anomaly", range(2, 4))],
    ]:
        for number in numbers:
            image = f"candle/Data/Images/{label.title()}/{number:03d}.JPG"
            mask = f"candle/Data/Masks/Anomaly/{number:03d}.png" if label == "anomaly" else ""
            save(tmp_path / image, rng.integers(0, 256, (12, 16, 3)))
            if mask:
                save(tmp_path / mask, np.eye(12, 16) * (number + 1))
            rows.append(["candle", split, label, image, mask])
    write_split(tmp_path, [HEADER, *rows])
    return tmp_path


def save(path: Path, pixels: Any, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels).astype(np.uint8))
    image = image.convert(mode) if mode else image
    image.save(path)


def write_split(root: Path, rows: list[list[str]]) -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv/2cls_highshot.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    shutil.copy(root / "split_csv/2cls_highshot.csv", root / "split_csv/2cls_fewshot.csv")


def read_rows(root: Path) -> list[list[str]]:
    return [line.split(",") for line in (root / "split_csv/2cls_highshot.csv").read_text().splitlines()]


def mask_of(root: Path, number: int = 2) -> torch.Tensor:
    data = ready_visa(root, "candle")
    return next(it.gt_mask for it in data.test_data if it.image_path.endswith(f"Anomaly/{number:03d}.JPG"))


def test_items(small: Path) -> None:
    data = ready_visa(small, "candle")
    assert counts(data) == (3, 2, 2, 2)
    for part in (data.train_data, data.test_data):
        for item in part:
            assert (item.image.shape, item.image.dtype) == ((3, 12, 16), torch.float32)
            assert (item.gt_mask.shape, item.gt_mask.dtype) == ((12, 16), torch.bool)
            expected = np.eye(12, 16) if item.gt_label else np.zeros((12, 16))
            np.testing.assert_array_equal(item.gt_mask, expected)
    batch = next(iter(data.train_dataloader()))
    assert (batch.image.shape, batch.gt_mask.shape) == ((5, 3, 12, 16), (5, 12, 16))
    assert sorted(batch.gt_label.tolist()) == [0, 0, 0, 1, 1]
    assert (data.name, data.category, data.task.value) == ("VisaTwoClass", "candle", "segmentation")


def test_another_split_file_makes_other_data(small: Path) -> None:
    rows = read_rows(small)
    before = fingerprint(ready_visa(small, "candle"))
    rows[3][1] = "test"
    write_split(small, rows)
    assert fingerprint(ready_visa(small, "candle")) != before


def test_augmentations_turn_image_and_mask_together(small: Path) -> None:
    plain, turned = ready_visa(small, "candle"), ready_visa(small, "candle", augmentations=RandomHorizontalFlip(1.0))
    for before, after in zip(plain.train_data, turned.train_data, strict=True):
        assert torch.equal(after.image, before.image.flip(-1))
        assert torch.equal(after.gt_mask, before.gt_mask.flip(-1))
    item = ready_visa(small, "candle", test_augmentations=Resize((6, 8))).test_data[0]
    assert (item.image.shape, item.gt_mask.shape) == ((3, 6, 8), (6, 8))


IDS = np.pad(np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 200]]), ((3, 7), (5, 6)))


def palette(colors: list[int]) -> Image.Image:
    image = Image.fromarray(IDS.astype(np.uint8), mode="P")
    image.putpalette(colors)
    return image


MASKS: dict[str, Callable[[], Image.Image]] = {
    "gray": lambda: Image.fromarray(IDS.astype(np.uint8)),
    "16 bit": lambda: Image.fromarray((IDS * 256).astype(np.uint16)),
    "palette, all black": lambda: palette([0] * 768),
    "palette whose 0 is white": lambda: palette([255] * 3 + [0] * 765),
    "red": lambda: Image.fromarray(np.stack([IDS, IDS * 0, IDS * 0], -1).astype(np.uint8)),
    "blue": lambda: Image.fromarray(np.stack([IDS * 0, IDS * 0, IDS], -1).astype(np.uint8)),
    "opaque colors": lambda: Image.fromarray(np.stack([IDS, IDS, IDS, IDS * 0 + 255], -1).astype(np.uint8)),
    "opaque gray": lambda: Image.fromarray(np.stack([IDS, IDS * 0 + 255], -1).astype(np.uint8)),
    "bits": lambda: Image.fromarray(IDS > 0),
}


@pytest.mark.parametrize("name", MASKS)
def test_any_number_but_0_is_a_defect(small: Path, name: str) -> None:
    MASKS[name]().save(small / "candle/Data/Masks/Anomaly/002.png")
    np.testing.assert_array_equal(mask_of(small), IDS > 0)


def test_built_from_a_configuration(small: Path) -> None:
    init_args = {"root": str(small), "category": "candle", "protocol": "fewshot", "shots": 1, "num_workers": 0}
    data = build(
        AnomalibDataModule, {"class_path": "anomalib_spd.twoclass.VisaTwoClass", "init_args": {**init_args, "seed": 3}}
    )
    data.setup()
    assert isinstance(data, VisaTwoClass)
    assert counts(data) == (1, 1, 2, 2)
    assert (data.seed, data.train_batch_size) == (3, 8)


# the download


def test_what_is_there_is_not_downloaded(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visa, "download_and_extract", lambda *_: pytest.fail("download"))
    before = sorted(small.rglob("*"))
    ready_visa(small, "candle")
    assert sorted(small.rglob("*")) == before


@pytest.mark.parametrize("missing", ["candle", "split_csv/2cls_highshot.csv"])
def test_what_is_missing_is_downloaded(small: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / missing).rename(small / "moved")
    calls = []

    def download(*args: Any) -> None:
        calls.append(args)
        (small / "moved").rename(small / missing)

    monkeypatch.setattr(visa, "download_and_extract", download)
    assert counts(ready_visa(small, "candle")) == (3, 2, 2, 2)
    assert calls == [(small, visa.DOWNLOAD_INFO)]


def test_without_the_split_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"2cls_highshot\.csv does not exist.*root.*prepare_data"):
        VisaTwoClass(tmp_path).setup()


# errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "bottle"}, r"category 'bottle'.*candle, capsules.*pipe_fryum"),
        ({"protocol": "1cls"}, r"protocol '1cls'.*highshot, fewshot"),
        ({"shots": 5}, r"shots is 5.*'fewshot'"),
        ({"protocol": "fewshot", "shots": 0}, r"shots.*at least 1.*got 0"),
    ],
)
def test_argument_errors(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisaTwoClass(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("line", "row", "message"),
    [
        (1, ["object", "split", "label", "image"], r"line 1: expected the header object,split,label,image,mask, got"),
        (3, ["candle", "train", "normal", "x.JPG"], r"line 3: expected 5 fields, got 4"),
        (2, ["bottle", "train", "normal", "x.JPG", ""], r"line 2: unknown object 'bottle'; expected one of candle"),
        (4, ["candle", "val", "normal", "x.JPG", ""], r"line 4: unknown split 'val'; expected one of train, test"),
        (
            5,
            ["candle", "train", "bad", "x.JPG", "x.png"],
            r"line 5: unknown label 'bad'; expected one of normal, anomaly",
        ),
        (6, ["candle", "train", "normal", "", ""], r"line 6: no image is named"),
        (7, ["candle", "train", "normal", "candle/../../x.JPG", ""], r"line 7: the path 'candle/\.\..*leaves"),
        (8, ["candle", "train", "normal", "/etc/x.JPG", ""], r"line 8: the path '/etc/x.JPG' leaves"),
        (9, ["candle", "test", "anomaly", "x.JPG", "../x.png"], r"line 9: the path '\.\./x.png' leaves"),
        (10, ["candle", "test", "normal", "candle/Data/Images/Normal/000.JPG", ""], r"line 10: .* in line 2 already"),
    ],
)
def test_split_file_errors(small: Path, line: int, row: list[str], message: str) -> None:
    rows = read_rows(small)
    rows[line - 1] = row
    write_split(small, rows)
    with pytest.raises(ValueError, match=r"2cls_highshot\.csv, " + message):
        ready_visa(small, "candle")


def test_an_empty_split_file_is_an_error(small: Path) -> None:
    write_split(small, [])
    with pytest.raises(ValueError, match="line 1: expected the header"):
        ready_visa(small, "candle")


def test_empty_lines_are_none(small: Path) -> None:
    write_split(small, [*read_rows(small), [""]])
    assert counts(ready_visa(small, "candle")) == (3, 2, 2, 2)


@pytest.mark.parametrize("name", ["Images/Normal/001.JPG", "Masks/Anomaly/003.png"])
def test_a_missing_file_is_named(small: Path, name: str) -> None:
    (small / "candle/Data" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 missing file\(s\): .*candle/Data/{name}"):
        ready_visa(small, "candle")


def test_a_category_that_no_row_has(small: Path) -> None:
    (small / "capsules").mkdir()
    with pytest.raises(ValueError, match="training pool has no normal image"):
        ready_visa(small, "capsules")


def test_an_anomaly_without_a_mask(small: Path) -> None:
    rows = read_rows(small)
    rows[4][-1] = ""
    write_split(small, rows)
    with pytest.raises(ValueError, match=r"training pool has 1 anomalous images without a mask.*Anomaly/000\.JPG"):
        ready_visa(small, "candle")


def test_a_mask_of_another_size(small: Path) -> None:
    save(small / "candle/Data/Masks/Anomaly/003.png", np.ones((16, 12)))
    with pytest.raises(ValueError, match=r"test set has 1 images whose masks are of another size.*Anomaly/003\.JPG"):
        ready_visa(small, "candle")
